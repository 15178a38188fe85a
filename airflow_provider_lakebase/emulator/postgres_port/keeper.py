"""The keeper: a shell that owns the emulator's directory and runs every command and server in it.

It reads commands from a pipe that only this process holds. When the pipe closes, because ``stop`` closed it or this
process was killed, the keeper stops all that it started and removes the directory.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from weakref import WeakSet

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_MAX_SOCKET_PATH = 100
# Paths that need no quoting in PostgreSQL's settings or in a connection string.
_PLAIN = re.compile(r"[\w./+-]+")

# The keeper creates the directory itself, so that no directory exists without a process that removes it. QUIT is an
# immediate shutdown of PostgreSQL: there is nothing to save. It goes to the whole process group, to reach an initdb
# that is still running, and is repeated, since a starting server ignores it. The shells survive it. The file of a job
# is created before the job starts, so that none is overlooked.
_KEEPER = """
mkdir -m 700 "$1" "$1/jobs" || exit 1
ulimit -c 0
trap : QUIT
while read -r job log command; do
  : >"$1/jobs/$job"
  { trap : QUIT
    eval "$command" </dev/null >>"$log" 2>&1
    code=$?
    rm -f "$1/jobs/$job"
    echo "$job $code"
  } &
done
tries=0
while [ -n "$(ls "$1/jobs")" ] && [ $tries -lt 200 ]; do
  kill -QUIT 0
  sleep 0.05
  tries=$((tries + 1))
done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""

_keepers: WeakSet[Keeper] = WeakSet()


def _close_pipes_in_child() -> None:
    """Close the pipes in a forked child: if it held one, the servers would outlive the process that started them."""
    for keeper in _keepers:
        keeper.close_pipe()


os.register_at_fork(after_in_child=_close_pipes_in_child)


class PostgresError(RuntimeError):
    """A cluster could not be created, copied or started; the message contains the end of its log."""


class Job:
    """A command that the keeper runs."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.ended = threading.Event()
        self.code: int | None = None

    def end(self, code: int | None) -> None:
        """Record its exit code."""
        self.code = code
        self.ended.set()

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "(no log)"


class Keeper:
    """The directory, and the shell that runs commands in it."""

    def __init__(self, lock: int | None = None) -> None:
        """Create the directory; raise ``PostgresError`` if that fails.

        :param lock: a file descriptor that the shell and all that it starts keep open until they end
        """
        #: The account that owns the directory and runs PostgreSQL; None is this process's own.
        self.account = _account()
        self.directory = _choose_directory(self.account)
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._number = 0
        self._shell = self._start_shell(lock)
        _keepers.add(self)
        self._reader = threading.Thread(target=self._read, name="lakebase-keeper", daemon=True)
        self._reader.start()
        try:
            self._wait_for_directory()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all jobs and remove the directory; raise ``subprocess.TimeoutExpired`` after a minute."""
        self.close_pipe()
        self._shell.wait(_STOP_SECONDS)
        self._reader.join()
        shutil.rmtree(self.directory, ignore_errors=True)

    def close_pipe(self) -> None:
        """Close this process's end of the pipe that keeps the jobs alive."""
        if self._shell.stdin:
            self._shell.stdin.close()

    def start(self, command: str, log: Path) -> Job:
        """Start a shell command; its output goes to ``log``."""
        job = Job(log)
        with self._lock:
            if self._shell.stdin is None or self._shell.stdin.closed or self._shell.poll() is not None:
                raise PostgresError("the emulator is stopped")
            self._number += 1
            self._jobs[self._number] = job
            self._shell.stdin.write(f"{self._number} {log} {command}\n".encode())
            self._shell.stdin.flush()
        return job

    def run(self, command: str, log: Path) -> None:
        """Run a shell command to its end; raise ``PostgresError`` if it fails."""
        job = self.start(command, log)
        job.ended.wait()
        if job.code != 0:
            raise PostgresError(f"could not run {shlex.split(command)[0]}; the end of its log:\n{job.log_tail()}")

    def make_folder(self, folder: Path) -> None:
        """Create a folder, and those above it, that the account owns."""
        if not folder.exists():
            self.make_folder(folder.parent)
            folder.mkdir(mode=0o700)
            self.give(folder)

    def can_read(self, path: Path) -> bool:
        """Return whether the account may read a file or folder."""
        return self.account is None or all(step.stat().st_mode & 0o001 for step in path.parents)

    def give(self, path: Path) -> None:
        """Make the account the owner of a file or folder."""
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def _read(self) -> None:
        """Read which jobs have ended, until the keeper ends."""
        if self._shell.stdout:
            for line in self._shell.stdout:
                number, code = line.split()
                self._jobs.pop(int(number)).end(int(code))
            self._shell.stdout.close()
        for job in self._jobs.values():
            job.end(None)

    def _start_shell(self, lock: int | None) -> subprocess.Popen[bytes]:
        account = self.account
        return subprocess.Popen(  # noqa: S603 - our own script; every argument is ours
            ["/bin/sh", "-c", _KEEPER, "lakebase-postgres", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"},
            pass_fds=() if lock is None else (lock,),
            start_new_session=True,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    def _wait_for_directory(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not (self.directory / "jobs").exists():
            if self._shell.poll() is not None or time.monotonic() > deadline:
                raise PostgresError(f"could not create the directory {self.directory}")
            time.sleep(0.002)


def _account() -> pwd.struct_passwd | None:
    """Return the account to run PostgreSQL as; None is this process's own. PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _choose_directory(account: pwd.struct_passwd | None) -> Path:
    """Return a path for a new directory that ``account`` can reach and that is short enough for a socket path."""
    for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - mkdir refuses
        short = len(f"{parent}/lakebase-XXXXXXXX/sockets/99999/.s.PGSQL.5432") < _MAX_SOCKET_PATH
        if short and _PLAIN.fullmatch(str(parent)) and (account is None or _is_open(parent)):
            return parent / f"lakebase-{secrets.token_hex(4)}"
    raise PostgresError("found no temporary directory with a short path that every account can use")


def _is_open(directory: Path) -> bool:
    """Return whether every account may enter a directory and write to it."""
    may_enter = all(step.stat().st_mode & 0o001 for step in (directory, *directory.parents))
    return may_enter and bool(directory.stat().st_mode & 0o002)
