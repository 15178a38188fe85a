"""One poll of all synced tables that an identity waits for.

A thread for a reading costs as much as its request. Tables that are due at about the same time are therefore read one
after another, in one thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.triggers._waiter import MAX_BACK_OFF_SECONDS, Waiter, finish

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings

log = logging.getLogger(__name__)

THREADS = 16
"""Threads that read at the same time."""
MAX_TABLES = 50
"""Most tables that a thread reads."""
EARLY = 0.1
"""Part of its interval by which a table may be read early, with others."""
MAX_EARLY_SECONDS = 1.0
FIRST_BACK_OFF_SECONDS = 2.0
FIRST_GUESS_SECONDS = 0.1
"""How long a reading is thought to take until one has been timed."""


@dataclass(eq=False)
class TableWaiter(Waiter):
    """Who waits for a state of a synced table.

    :param name: resource name
    :param is_over: tells whether it is the one; it may raise the error that ends the wait
    :param interval: longest pause, in seconds, between two readings
    """

    name: str
    is_over: Callable[[SyncedTable], bool]
    interval: float
    found: SyncedTable = field(default_factory=lambda: SyncedTable(""))

    def take(self, table: SyncedTable) -> None:
        """End the wait if a state is the one.

        :param table: the state
        """
        try:
            is_over = self.is_over(table)
        except Exception as error:
            self.finish(error)
            return
        if is_over:
            self.found = table
            self.finish()


class TablesPoll:
    """Read the states of synced tables until the last waiter leaves.

    :param hook: of any waiter, since they have one identity
    :param settings: of the hook
    """

    def __init__(self, hook: LakebaseWorkspaceHook, settings: LakebaseSettings) -> None:
        self._hook = hook
        self._settings = settings
        self._tables: dict[str, _Table] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._threads = asyncio.Semaphore(THREADS)
        self._readings: set[asyncio.Task[None]] = set()
        self._seconds_each = FIRST_GUESS_SECONDS

    def add(self, waiter: TableWaiter) -> None:
        """Read the state for a waiter, too.

        :param waiter: the waiter
        """
        table = self._tables.setdefault(waiter.name, _Table(waiter.name))
        table.waiters.append(waiter)
        table.plan()
        self._wake_at(table.due_at)

    def remove(self, waiter: TableWaiter) -> bool:
        """Remove a waiter; return whether it was the last one, so that the poll has ended.

        :param waiter: the waiter
        """
        table = self._tables[waiter.name]
        table.waiters.remove(waiter)
        if not table.waiters:
            del self._tables[waiter.name]
        if self._tables:
            return False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for reading in self._readings:
            reading.cancel()
        return True

    def _wake_at(self, due_at: float) -> None:
        if due_at == inf or (self._timer is not None and self._timer.when() <= due_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due_at, self._read_due)

    def _read_due(self) -> None:
        """Start to read the tables that are due now or soon."""
        self._timer, now = None, self._loop.time()
        due = [table for table in self._tables.values() if table.due_at - table.early <= now]
        if due:
            # A thread is to be done within the time by which tables are read early, so that none is read late.
            fitting = int(min(table.early for table in due) / max(self._seconds_each, 0.001))
            size = min(max(fitting, 1), MAX_TABLES)
            for start in range(0, len(due), size):
                self._begin(due[start : start + size])
        self._wake_at(min((table.due_at for table in self._tables.values()), default=inf))

    def _begin(self, tables: Sequence[_Table]) -> None:
        for table in tables:
            table.is_being_read = True
            table.plan()
        reading = self._loop.create_task(self._read(tables), name="read synced tables")
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)

    async def _read(self, tables: Sequence[_Table]) -> None:
        async with self._threads:
            names, began_at = [table.name for table in tables if table.waiters], self._loop.time()
            answers: dict[str, SyncedTable | Exception] = {}
            try:
                if names:
                    answers.update(await self._hook._read_synced_tables_async(self._settings, names))
            except Exception as error:
                answers.update(dict.fromkeys(names, error))
            if answers:
                self._seconds_each = (self._loop.time() - began_at) / len(answers)
        for table in tables:
            table.is_being_read = False
            if answer := answers.get(table.name):
                table.take(answer, self._loop.time())
            table.plan()
            self._wake_at(table.due_at)


@dataclass(eq=False)
class _Table:
    """A synced table, and when its state is read next.

    :param name: resource name
    :param waiters: those who wait for it
    :param due_at: when it is due, as a time of the event loop
    :param early: seconds by which it may be read early
    """

    name: str
    waiters: list[TableWaiter] = field(default_factory=list)
    due_at: float = inf
    early: float = 0.0
    is_being_read: bool = False
    _read_at: float = -inf
    _back_off: float = 0.0
    _jitter: float = 1.0

    def plan(self) -> None:
        """Set when it is due: after the shortest interval of those who wait, unless it is being read."""
        intervals = [waiter.interval for waiter in self.waiters if not waiter.ready.done()]
        if self.is_being_read or not intervals:
            self.due_at = inf
            return
        interval = min(intervals)
        self.early = min(interval * EARLY, MAX_EARLY_SECONDS)
        self.due_at = self._read_at + max(interval * self._jitter, self._back_off)

    def take(self, answer: SyncedTable | Exception, now: float) -> None:
        """Serve those who wait with its state, or with the error that reading it gave; a passing one is waited out.

        :param answer: the state or the error
        :param now: time of the event loop
        """
        self._read_at, self._jitter = now, random.uniform(0.8, 1.0)  # noqa: S311 - no secret
        if isinstance(answer, SyncedTable):
            log.debug("%s", answer)
            self._back_off = 0.0
            for waiter in list(self.waiters):
                waiter.take(answer)
        elif is_transient(answer):
            self._back_off = min(2 * self._back_off or FIRST_BACK_OFF_SECONDS, MAX_BACK_OFF_SECONDS)
            log.warning("The state of %s is read again later: %s", self.name, answer)
        else:
            finish(self.waiters, answer)
