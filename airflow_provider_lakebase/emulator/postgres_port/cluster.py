"""One cluster: its files, its server, and who needs the server to run."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from airflow_provider_lakebase.emulator.postgres_port.backup import (
    BASE,
    BaseBackup,
    back_up,
    copy_archive,
    extract,
    format_lsn,
    parse_lsn,
    read_base,
    recover,
    remove_wal_before,
    wal_size,
    write_base,
)
from airflow_provider_lakebase.emulator.postgres_port.keeper import Keeper
from airflow_provider_lakebase.emulator.postgres_port.server_process import DATABASE, ServerProcess

# A base backup is replaced when the WAL since then exceeds this, and also twice the size of the databases.
_MAX_WAL = 2 << 30
_VISIT_SECONDS = 5.0


class Cluster:
    """A cluster at rest is its base backup; once it has run it has files of its own as well. Thread-safe.

    The server runs while an endpoint is awake, and for others while they use it. ``suspend`` of the last awake endpoint
    stops it as a crash would: UNLOGGED tables, statistics and temporary files are lost, all that is committed is kept.
    """

    def __init__(self, folder: Path, server: ServerProcess, keeper: Keeper, *, template: Path | None = None) -> None:
        """Use the files in ``folder``, if there are any.

        :param template: the base backup of a new cluster, until it has one of its own
        """
        self.folder = folder
        own = folder / "base.tar"
        self.base_file = own if template is None or own.exists() else template
        self.base = read_base(folder)
        self.awake: set[str] = set()
        self._server = server
        self._keeper = keeper
        self._changed = threading.Condition()
        # Held while the base backup and the WAL since then are read or replaced.
        self._history = threading.Lock()
        self._users = 0
        self._stopping = False
        # Until this moment the server stays for somebody who has its connection string.
        self._visited_until = -math.inf
        self._admin: psycopg.Connection[Any] | None = None

    # -- who needs the server

    @property
    def running(self) -> bool:
        """Return whether the server runs."""
        return self._server.running

    @property
    def socket(self) -> str:
        """Return the path of the server's Unix socket."""
        return self._server.socket

    def wake(self, endpoint: str) -> None:
        """Start the server, and keep it running until the endpoint is suspended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._stopping)
            self.awake.add(endpoint)
        try:
            with self.in_use():
                pass
        except BaseException:
            self.awake.discard(endpoint)
            raise

    def suspend(self, endpoint: str) -> None:
        """Stop the server if this was the last awake endpoint."""
        with self._changed:
            self.awake.discard(endpoint)
            if not self.awake:
                self._visited_until = -math.inf
                self._stop_when_unused()

    def visit(self, database: str = DATABASE) -> str:
        """Start the server; return a connection string for the superuser, valid while it runs."""
        with self.in_use():
            self._visited_until = time.monotonic() + _VISIT_SECONDS
            return self._server.conninfo(database)

    @contextlib.contextmanager
    def in_use(self, start: Callable[[ServerProcess], None] | None = None) -> Iterator[ServerProcess]:
        """Start the server if it does not run, and keep it running inside the ``with`` block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._stopping)
            if not self._server.running:
                (start or self._start)(self._server)
            self._users += 1
        try:
            yield self._server
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()
                if not self._users and not self.awake and self._visited_until < time.monotonic():
                    self._stop()

    def tend(self) -> None:
        """Stop the server if only visitors kept it and all are gone; begin the history anew if it is too long."""
        with self._changed:
            if not self._server.running or self._stopping:
                return
            if not self.awake and not self._users and self._visited_until < time.monotonic():
                if self._has_visitors():
                    self._visited_until = time.monotonic() + _VISIT_SECONDS
                else:
                    self._stop()
                return
        wal = wal_size(self._server.data)
        # The size of the databases needs a look at each of their files, so it comes last.
        if wal > _MAX_WAL and wal > 2 * self.size():
            self.back_up()

    def remove(self) -> None:
        """Stop the server and remove all files."""
        with self._changed:
            self.awake.clear()
            self._visited_until = -math.inf
            self._stop_when_unused()
            # First what makes it complete.
            (self.folder / BASE).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.rmtree(self._server.run, ignore_errors=True)

    def disconnect(self) -> None:
        """Close this object's own session."""
        admin, self._admin = self._admin, None
        if admin:
            admin.close()

    def _has_visitors(self) -> bool:
        others = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        return bool(self._execute(others))

    def _start(self, server: ServerProcess) -> None:
        if not server.data.exists():
            extract(self.base_file, server.data, self._keeper, server.run / "log")
        server.start()

    def _stop_when_unused(self) -> None:
        self._stopping = True
        try:
            self._changed.wait_for(lambda: not self._users)
            self._stop()
        finally:
            self._stopping = False
            self._changed.notify_all()

    def _stop(self) -> None:
        if self._server.running:
            # So that the next start has little to recover.
            with contextlib.suppress(psycopg.Error):
                self._execute("CHECKPOINT")
        self.disconnect()
        self._server.stop()

    # -- SQL

    def execute(self, query: LiteralString | sql.Composed, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, in database ``postgres``, and return its rows."""
        with self.in_use():
            return self._execute(query, params)

    def execute_in(
        self, database: str, query: LiteralString | sql.Composed, params: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser in a database, and return its rows."""
        with self.in_use() as server, server.connect(database) as connection:
            return _rows(connection, query, params)

    def _execute(self, query: LiteralString | sql.Composed, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        kept = self._admin
        try:
            return _rows(self._session(), query, params)
        except psycopg.OperationalError:
            # Somebody may have ended the session that was kept.
            if kept is None or not kept.closed:
                raise
            return _rows(self._session(), query, params)

    def _session(self) -> psycopg.Connection[Any]:
        with self._changed:
            if self._admin is None or self._admin.closed:
                self._admin = self._server.connect()
            return self._admin

    # -- history and copies

    def size(self) -> int:
        """Return the size of its databases in bytes."""
        if not self._server.data.exists():
            return self.base_file.stat().st_size
        return _size(self._server.data / "base")

    def current_lsn(self) -> str:
        """Return the log sequence number of the last write."""
        return str(self.execute("SELECT pg_current_wal_lsn()::text")[0][0])

    def begin_history(self, base: BaseBackup | None) -> None:
        """Let the history begin with a base backup. A cluster is complete from now on, also for the next run."""
        if base:
            write_base(self.folder, base)
        self.base = base

    def back_up(self) -> None:
        """Take a new base backup, from which the history starts again."""
        with self._history, self.in_use() as server:
            fresh = self.folder / "base.tar.new"
            base = back_up(server, fresh, self._keeper)
            if self.base_file.parent != self.folder:
                self.base_file = self.folder / "base.tar"
            # In this order, so that the old file, whose WAL is still there, does for the new history as well.
            self.begin_history(base)
            fresh.replace(self.base_file)
            remove_wal_before(base.first_segment, server.data)

    def copy_now(self, target: Cluster) -> None:
        """Copy this cluster as of now into one that has no files."""
        if self._server.data.exists():
            with self._history, self.in_use() as server:
                target.begin_history(back_up(server, target.base_file, self._keeper))
        else:
            copy_archive(self.base_file, target.base_file, self._keeper, self._server.run / "log")
            target.begin_history(replace(self.base, real=time.time()) if self.base else None)

    def copy_at_time(self, target: Cluster, real: float) -> None:
        """Copy this cluster as of a real time into one that has no files."""
        with self._history:
            # A moment before the base backup is one at which the emulator's clock stood.
            self._copy_past(target, real=max(real, self.base.real if self.base else real))

    def copy_at_lsn(self, target: Cluster, lsn: int) -> None:
        """Copy this cluster as of a log sequence number; raise ``ValueError`` if it is not in the history."""
        with self._history:
            oldest, newest = self.base.lsn if self.base else lsn, parse_lsn(self.current_lsn())
            if not oldest <= lsn <= newest:
                raise ValueError(
                    f"lsn {format_lsn(lsn)} is out of the history that is kept: {format_lsn(oldest)} to "
                    f"{format_lsn(newest)}"
                )
            self._copy_past(target, lsn=lsn)

    def _copy_past(self, target: Cluster, *, real: float | None = None, lsn: int | None = None) -> None:
        with self.in_use() as server:
            # Recovery must find a later commit, to know that it has reached its target.
            self._execute("SELECT pg_logical_emit_message(true, 'lakebase', '')")

            def start(target: ServerProcess) -> None:
                extract(self.base_file, target.data, self._keeper, target.run / "log")
                recover(target, server.data / "pg_wal", self._keeper, real=real, lsn=lsn)

            with target.in_use(start):
                target.back_up()


def _rows(
    connection: psycopg.Connection[Any], query: LiteralString | sql.Composed, params: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query, params)
    return cursor.fetchall() if cursor.description else []


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total
