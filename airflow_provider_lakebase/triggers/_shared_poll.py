"""One poll of an endpoint, operation, synced table or change feed for all triggers that wait for it."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.core.workspace.change_feed_progress import TableFeed
from airflow_provider_lakebase.core.workspace.plans import Pending, back_off
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable
from airflow_provider_lakebase.hooks._readiness import ACTIVE, PROBE_QUERY, Probe
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.triggers._tables_poll import TablesPoll, TableWaiter
from airflow_provider_lakebase.triggers._waiter import MAX_BACK_OFF_SECONDS, Waiter, finish

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.endpoints import EndpointStatus
    from airflow_provider_lakebase.core.workspace.operations import Operation

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""Seconds that one reading of the state may take."""
PROBE_SECONDS = 60.0
"""Seconds that the server may hold a probe while the endpoint wakes."""

_Key = tuple[str, ...]
"""Key of an identity, and the name of an endpoint; or of an operation or resource, and the state to wait for; or what
all synced tables share."""


class SharedPolls:
    """The polls and readings of one event loop, by identity and name.

    The event loop owns them. A poll ends with its last waiter, and a reading when it is replaced. A forked process runs
    an event loop of its own, and therefore shares nothing with its parent.
    """

    _by_loop: ClassVar[dict[asyncio.AbstractEventLoop, SharedPolls]] = {}

    def __init__(self) -> None:
        self._polls: dict[_Key, _Poll[Any, Any] | TablesPoll] = {}
        self._readings: dict[_Key, tuple[float, asyncio.Task[EndpointStatus]]] = {}

    @classmethod
    def of_running_loop(cls) -> SharedPolls:
        """Return the object of the running event loop, and drop those of loops that are closed."""
        for loop in list(cls._by_loop):  # a copy, since loops of other threads may come and go meanwhile
            if loop.is_closed():
                cls._by_loop.pop(loop, None)
        return cls._by_loop.setdefault(asyncio.get_running_loop(), cls())

    async def wait_until_ready(self, hook: LakebaseHook, *, wake: bool, interval: float) -> None:
        """Wait until an endpoint is ACTIVE and, with ``wake``, answers a probe.

        :param hook: hook for the endpoint
        :param wake: probe the endpoint with a session, which wakes it; if False, only read its state
        :param interval: longest pause, in seconds, between two readings; the shortest of all waiters applies
        :raises LakebaseError: for an error that is not transient, such as a disabled endpoint
        """
        settings = await hook.read_settings_async()
        key = _key(settings)
        poll = self._polls.setdefault(key, _EndpointPoll(self, settings))
        await self._wait(key, poll, _EndpointWaiter(hook, settings, wake, interval))

    async def wait_until_over(self, hook: LakebaseWorkspaceHook, pending: Pending) -> None:
        """Wait until an operation has succeeded or failed, or a resource is settled.

        :param hook: hook for the workspace
        :param pending: the operation or resource
        :raises LakebaseError: when the workspace refuses to tell
        """
        settings = await hook.read_settings_async()
        # An endpoint has two polls: one for its state, and one for the changes that are made to it.
        key = (settings.require_identity().key, str(pending), "is over")
        poll = self._polls.setdefault(key, _OperationPoll(hook, settings, pending))
        await self._wait(key, poll, Waiter())

    async def wait_for_table(
        self, hook: LakebaseWorkspaceHook, name: str, is_over: Callable[[SyncedTable], bool], interval: float
    ) -> SyncedTable:
        """Wait for a state of a synced table, and return it.

        :param hook: hook for the workspace
        :param name: resource name
        :param is_over: tells whether it is the one; it may raise the error that ends the wait
        :param interval: longest pause, in seconds, between two readings; the shortest of all waiters applies
        :raises LakebaseError: when the workspace refuses to tell
        """
        settings = await hook.read_settings_async()
        key = (settings.require_identity().key, "synced tables")
        poll = self._polls.setdefault(key, TablesPoll(hook, settings))
        waiter = TableWaiter(name, is_over, interval)
        await self._wait(key, poll, waiter)
        return waiter.found

    async def wait_for_feed(
        self, hook: LakebaseWorkspaceHook, name: str, is_over: Callable[[list[TableFeed]], bool], interval: float
    ) -> list[TableFeed]:
        """Wait for a state of a change feed's tables, and return it.

        :param hook: hook for the workspace
        :param name: resource name of the feed
        :param is_over: tells whether it is the one; it may raise the error that ends the wait
        :param interval: longest pause, in seconds, between two readings; the shortest of all waiters applies
        :raises LakebaseError: when the workspace refuses to tell
        """
        settings = await hook.read_settings_async()
        key = (settings.require_identity().key, name, "has committed")
        poll = self._polls.setdefault(key, _FeedPoll(hook, settings, name))
        waiter = _FeedWaiter(is_over, interval)
        await self._wait(key, poll, waiter)
        return waiter.found

    async def _wait(self, key: _Key, poll: Any, waiter: Waiter) -> None:
        poll.add(waiter)
        try:
            await waiter.ready
        finally:
            if poll.remove(waiter) and self._polls.get(key) is poll:
                del self._polls[key]

    async def read_status(
        self, hook: LakebaseHook, settings: LakebaseSettings, *, max_age: float = 0.0
    ) -> EndpointStatus:
        """Return the endpoint's state, without blocking the event loop.

        :param hook: hook for the endpoint
        :param settings: of the hook
        :param max_age: seconds since another caller's reading up to which it is shared
        :raises LakebaseError: also if the endpoint is disabled
        """
        loop, key = asyncio.get_running_loop(), _key(settings)
        if key not in self._readings or loop.time() - self._readings[key][0] > max_age:
            reading = loop.create_task(hook.endpoint_status_async(settings, timeout=ANSWER_SECONDS))
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())  # the caller may be gone
            self._readings[key] = (loop.time(), reading)
        return await asyncio.shield(self._readings[key][1])


def _key(settings: LakebaseSettings) -> _Key:
    return settings.require_identity().key, str(settings.require_endpoint())


@dataclass(eq=False)
class _EndpointWaiter(Waiter):
    hook: LakebaseHook
    settings: LakebaseSettings
    wake: bool
    interval: float

    @property
    def session(self) -> LakebaseSettings:
        """The session settings that a probe uses: waiters with the same ones share a probe."""
        return replace(self.settings, conn_id="")


@dataclass(eq=False)
class _FeedWaiter(Waiter):
    is_over: Callable[[list[TableFeed]], bool]
    interval: float
    found: list[TableFeed] = field(default_factory=list)

    def take(self, feeds: list[TableFeed]) -> None:
        try:
            is_over = self.is_over(feeds)
        except Exception as error:
            self.finish(error)
            return
        if is_over:
            self.found = feeds
            self.finish()


_W = TypeVar("_W", bound=Waiter)
_T = TypeVar("_T")


class _Poll(ABC, Generic[_W, _T]):
    """Read a state until the last waiter leaves."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiters: list[_W] = []
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _read(self) -> _T:
        """Read the state once."""

    @abstractmethod
    def _take(self, state: _T) -> None:
        """Finish the waiters that the state satisfies."""

    @abstractmethod
    def _interval(self, waiters: list[_W]) -> float:
        """Return the longest pause, in seconds, before the next reading."""

    def add(self, waiter: _W) -> None:
        self._waiters.append(waiter)
        self._joined.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"poll {self.name}")

    def remove(self, waiter: _W) -> bool:
        """Remove a waiter; return whether it was the last one, so that the poll has ended."""
        self._waiters.remove(waiter)
        if not self._waiters and self._task is not None:
            self._cancel(self._task)
        return not self._waiters

    def _cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()

    async def _run(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception(is_transient),
            wait=wait_exponential(multiplier=2, max=MAX_BACK_OFF_SECONDS),
            before_sleep=self._log_retry,
            sleep=self._pause,
            reraise=True,
        )
        try:
            while True:
                self._take(await retrying(self._read))
                await self._pause()
        except Exception as error:
            finish(self._waiters, error)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("The state of %s is read again later: %s", self.name, error)

    async def _pause(self, at_least: float = 0.0) -> None:
        """Sleep until the next reading is due, which a waiter that joins meanwhile may bring forward.

        :param at_least: seconds to pause in any case
        """
        loop = asyncio.get_running_loop()
        started_at, jitter = loop.time(), random.uniform(0.8, 1.0)  # noqa: S311 - no secret
        while True:
            self._joined.clear()
            waiting = [waiter for waiter in self._waiters if not waiter.ready.done()]
            if not waiting:  # all waiters are about to leave
                await self._joined.wait()
                continue
            left = started_at + max(self._interval(waiting) * jitter, at_least) - loop.time()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._joined.wait(), left)
            except TimeoutError:
                return


class _EndpointPoll(_Poll[_EndpointWaiter, "EndpointStatus"]):
    """Read the state of one endpoint, and probe it."""

    def __init__(self, polls: SharedPolls, settings: LakebaseSettings) -> None:
        super().__init__(f"endpoint {settings.endpoint}")
        self._polls = polls
        self._settings = settings
        self._probes: list[tuple[LakebaseSettings, asyncio.Task[None]]] = []

    def _cancel(self, task: asyncio.Task[None]) -> None:
        for each in (task, *(probe for _, probe in self._probes)):
            each.cancel()

    async def _read(self) -> EndpointStatus:
        # The hook of any waiter will do: they have one identity and one endpoint.
        return await self._polls.read_status(self._waiters[0].hook, self._settings)

    def _interval(self, waiters: list[_EndpointWaiter]) -> float:
        return min(waiter.interval for waiter in waiters)

    def _take(self, status: EndpointStatus) -> None:
        log.debug("Endpoint %s is %s", self._settings.endpoint, status.state)
        if status.state == ACTIVE:
            finish(waiter for waiter in self._waiters if not waiter.wake)
        # Probes run beside the readings: the server holds a probe until the endpoint is awake, or forever if it hangs.
        self._probes = [(session, probe) for session, probe in self._probes if not probe.done()]
        for waiter in self._waiters:
            probed = any(session == waiter.session for session, _ in self._probes)
            if waiter.wake and not waiter.ready.done() and not probed:
                self._probes.append((waiter.session, asyncio.create_task(self._probe(waiter))))

    async def _probe(self, waiter: _EndpointWaiter) -> None:
        try:
            with Probe(waiter.settings, PROBE_SECONDS, log) as probe:
                async with asyncio.timeout(probe.settings.session.wake_timeout + ANSWER_SECONDS):
                    async with waiter.hook.open_async(probe.settings) as session:
                        await session.execute(PROBE_QUERY)
        except Exception as error:
            finish((each for each in self._waiters if each.wake and each.session == waiter.session), error)
        else:
            if probe.is_answered:  # so that those who only wait for ACTIVE are served, too
                finish(each for each in self._waiters if not each.wake or each.session == waiter.session)


class _OperationPoll(_Poll[Waiter, "Operation | None"]):
    """Read the state of one operation, or of a resource that is changing."""

    def __init__(self, hook: LakebaseWorkspaceHook, settings: LakebaseSettings, pending: Pending) -> None:
        super().__init__(str(pending))
        self._hook = hook
        self._settings = settings
        self._pending = pending
        self._pauses = back_off()
        self._longest = next(self._pauses)

    async def _read(self) -> Operation | None:
        return await self._hook.poll_async(self._settings, self._pending)

    def _take(self, operation: Operation | None) -> None:
        self._longest = next(self._pauses)
        if operation is not None:
            finish(self._waiters)

    def _interval(self, waiters: list[Waiter]) -> float:
        return self._longest


class _FeedPoll(_Poll[_FeedWaiter, "list[TableFeed]"]):
    """Read how far one change feed has replicated its tables."""

    def __init__(self, hook: LakebaseWorkspaceHook, settings: LakebaseSettings, name: str) -> None:
        super().__init__(name)
        self._hook = hook
        self._settings = settings

    async def _read(self) -> list[TableFeed]:
        return await self._hook._read_feeds_async(self._settings, self.name)

    def _take(self, feeds: list[TableFeed]) -> None:
        log.debug("%s: %s", self.name, "; ".join(map(str, feeds)))
        for waiter in self._waiters:
            waiter.take(feeds)

    def _interval(self, waiters: list[_FeedWaiter]) -> float:
        return min(waiter.interval for waiter in waiters)
