"""The directory that keeps an emulator between its runs: a JSON file of the workspace, and the files of PostgreSQL.

The workspace is written after each change, and always as a whole: a process that is killed loses at most the last one.
The keeper and the servers hold a lock on the directory, so that it is free when the last of them has ended, also after
a kill, and not earlier.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_lakebase.emulator.model import saved_workspace
from airflow_provider_lakebase.emulator.postgres_port.clusters import Kept, clusters_in

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from airflow_provider_lakebase.emulator.model.errors import Json
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

_FORMAT = 1
_LOCK = "emulator.lock"
_WORKSPACE = "workspace.json"
# A process that was killed takes a moment to end, and then its servers.
_OWNER_SECONDS = 1.0
_LOCK_SECONDS = 20.0


class DataDirectory:
    """The data directory of one workspace. It is locked in a ``with`` block, and by the keeper that starts in it."""

    def __init__(self, path: str | os.PathLike[str], workspace: Workspace) -> None:
        self.path = Path(path).absolute()
        self._workspace = workspace
        self._file = self.path / _WORKSPACE
        self._postgres = self.path / "postgres"
        self._clusters: frozenset[str] = frozenset()
        self._lock: IO[str]
        self._saving = threading.Lock()
        self._written = ""

    def __enter__(self) -> Self:
        """Create the directory if it does not exist, and lock it.

        Raise ``ValueError`` if it has other files, and ``RuntimeError`` if another emulator runs in it.
        """
        # PostgreSQL is another account's if this is root, and must be able to enter.
        self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        names = set(os.listdir(self.path))
        if names and _LOCK not in names:
            raise ValueError(f"data_dir={self.path} is not an emulator's, and not empty; choose another directory")
        self._lock = open(os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        try:
            self._acquire()
            self._lock.seek(0)
            self._lock.truncate()
            self._lock.write(str(os.getpid()))
            self._lock.flush()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the lock to the keeper, if it has started."""
        self._lock.close()

    def kept(self) -> Kept:
        """Return what the clusters need of it."""
        return Kept(self._postgres, self._clusters, self._lock.fileno())

    def restore(self) -> bool:
        """Restore the workspace of the last run; return whether there was one.

        Raise ``ValueError`` if it is of another version of the emulator or of PostgreSQL.
        """
        found = self._read()
        self._check(found)
        if found["workspace"] is None:
            # The first run ended before it had started: there is nothing that anybody has written.
            shutil.rmtree(self._postgres, ignore_errors=True)
            self._write(json.dumps(self._json(None)))
            return False
        try:
            saved_workspace.restore(self._workspace, found["workspace"], clusters_in(self._postgres))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self._file} cannot be read: {type(error).__name__}: {error}") from error
        branches, snapshots = self._workspace.branches.values(), self._workspace.snapshots.values()
        self._clusters = frozenset([*(each.uid for each in branches), *(each.uid for each in snapshots)])
        if not self._clusters:
            raise ValueError(f"{self._postgres} has none of the branches that {self._file} names")
        return True

    def save(self) -> None:
        """Write the workspace if it has changed."""
        with self._saving:
            text = json.dumps(self._json(saved_workspace.save(self._workspace)), indent=1)
            if text != self._written:
                self._write(text)
                self._written = text

    def _json(self, workspace: Json | None) -> Json:
        return {"format": _FORMAT, "pg_version": self._workspace.pg_version, "workspace": workspace}

    def _write(self, text: str) -> None:
        """Replace the file as a whole. It has secrets: only this account may read it."""
        draft = self._file.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._file)

    def _read(self) -> Any:
        if not self._file.exists():
            if self._postgres.exists():
                raise ValueError(f"data_dir={self.path} has no {_WORKSPACE}; choose another directory")
            return self._json(None)
        try:
            return json.loads(self._file.read_text())
        except ValueError as error:
            raise ValueError(f"{self._file} is not JSON: {error}") from None

    def _check(self, found: Any) -> None:
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise ValueError(f"data_dir={self.path} is of another version of the emulator; choose another directory")
        if found["pg_version"] != self._workspace.pg_version:
            raise ValueError(
                f"data_dir={self.path} is of PostgreSQL {found['pg_version']}, not {self._workspace.pg_version}: "
                f"start with pg_version={found['pg_version']}, or choose another directory"
            )

    def _acquire(self) -> None:
        """Wait for the lock while the servers of a process that has ended are stopping."""
        begin = time.monotonic()
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                owner = self._owner()
                if time.monotonic() - begin > (_OWNER_SECONDS if owner else _LOCK_SECONDS):
                    by = f" by process {owner}" if owner else ""
                    message = f"data_dir={self.path} is in use{by}; an emulator needs one of its own"
                    raise RuntimeError(message) from None
            time.sleep(0.05)

    def _owner(self) -> int | None:
        """Return the process that runs in the directory, if it still does."""
        self._lock.seek(0)
        text = self._lock.read()
        with contextlib.suppress(OSError, ValueError):
            # That of a process which was killed but is not yet waited for is empty.
            return int(text) if Path(f"/proc/{int(text)}/cmdline").read_bytes() else None
        return None
