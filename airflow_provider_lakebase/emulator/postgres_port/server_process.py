"""A PostgreSQL server on the files of one cluster: start it, connect to it, stop it.

The server listens on a Unix socket in a folder of its own and trusts everyone who may enter that folder.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import psycopg

from airflow_provider_lakebase.emulator.postgres_port.keeper import Job, Keeper, PostgresError

SUPERUSER = "cloud_admin"
DATABASE = "databricks_postgres"

_INITDB = {
    16: "-A trust -E UTF8 --locale=C -N --no-instructions",
    17: "-A trust -E UTF8 --locale-provider=builtin --locale=C --builtin-locale=C.UTF-8 -N --no-instructions",
    18: "-A trust -E UTF8 --locale-provider=builtin --locale=C --builtin-locale=C.UTF-8 -N --no-instructions "
    "--no-data-checksums",
}
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # The files survive the end of the server's process, which is all that can happen to it here.
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "4GB",
    # All WAL since the base backup stays in place, unchanged, for copies at a past moment.
    "wal_keep_size": "100TB",
    "wal_recycle": "off",
    "max_connections": "209",
    "timezone": "UTC",
    "log_min_messages": "fatal",
}
_START_SECONDS = 30.0
_POLL_SECONDS = 0.004


def write_settings(file: Path, preloaded: list[str]) -> None:
    """Write the settings of all servers to a file."""
    settings = {**_SETTINGS, "shared_preload_libraries": ",".join(preloaded)}
    file.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))


def initdb_command(binaries: Path, version: int, data: Path) -> str:
    """Return the shell command that creates the files of an empty cluster."""
    return f"{binaries}/initdb -D {shlex.quote(str(data))} -U {SUPERUSER} {_INITDB[version]}"


class ServerProcess:
    """The server of one cluster. It may be started and stopped repeatedly. Not thread-safe, except ``connect``."""

    def __init__(self, keeper: Keeper, binaries: Path, data: Path, run: Path) -> None:
        """Prepare a server.

        :param data: the files of the cluster
        :param run: a folder for the socket and the log
        """
        self.data = data
        self.run = run
        self._keeper = keeper
        self._binaries = binaries
        self._job: Job | None = None
        self._pid = 0
        keeper.make_folder(run)

    @property
    def running(self) -> bool:
        """Return whether the server runs."""
        return self._job is not None and not self._job.ended.is_set()

    @property
    def socket(self) -> str:
        """Return the path of its Unix socket."""
        return f"{self.run}/.s.PGSQL.5432"

    def conninfo(self, database: str) -> str:
        """Return a libpq connection string for the superuser."""
        return psycopg.conninfo.make_conninfo(host=str(self.run), port=5432, user=SUPERUSER, dbname=database)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Connect as the superuser, in autocommit mode.

        Its statements, some of which contain passwords, are not in pg_stat_statements, which others read.
        """
        return psycopg.connect(self.conninfo(database), autocommit=True, options="-c pg_stat_statements.track=none")

    def start(self, **settings: str) -> None:
        """Start the server with these settings added; raise ``PostgresError`` if it does not accept connections."""
        settings = {"unix_socket_directories": str(self.run), **settings}
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        config = f"-c config_file={self._keeper.directory}/postgresql.conf"
        command = f"{self._binaries}/postgres -D {shlex.quote(str(self.data))} {config} {options}"
        self._job = self._keeper.start(command, self.run / "log")
        try:
            self._wait(self._job)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server at once, as a crash would; return when it has ended."""
        job, self._job = self._job, None
        while job and not job.ended.is_set():
            # Repeated, since a starting server ignores it.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError, IndexError):
                os.kill(int((self.data / "postmaster.pid").read_text().split("\n")[0]), signal.SIGQUIT)
            job.ended.wait(0.5)

    def _wait(self, job: Job) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and not job.ended.is_set():
            if os.path.exists(self.socket):
                with contextlib.suppress(psycopg.OperationalError):
                    self.connect().close()
                    return
            time.sleep(_POLL_SECONDS)
        raise PostgresError(f"PostgreSQL did not start; the end of its log:\n{job.log_tail()}")
