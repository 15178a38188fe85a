"""One poll of an endpoint for all triggers that wait for it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.hooks._readiness import ACTIVE, PROBE_QUERY, Probe
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.endpoints import EndpointStatus

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""Seconds that one reading of the state may take."""
PROBE_SECONDS = 60.0
"""Seconds that the server may hold a probe while the endpoint wakes."""
MAX_BACK_OFF_SECONDS = 60.0
"""Longest pause, in seconds, between two readings while the workspace fails."""

_Key = tuple[str, str]
"""Key of an identity, and an endpoint."""


class SharedPolls:
    """The polls and readings of one event loop, by identity and endpoint.

    The event loop owns them. A poll ends with its last waiter, and a reading when it is replaced. A forked process runs
    an event loop of its own, and therefore shares nothing with its parent.
    """

    _by_loop: ClassVar[dict[asyncio.AbstractEventLoop, SharedPolls]] = {}

    def __init__(self) -> None:
        self._polls: dict[_Key, _Poll] = {}
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
        poll = self._polls.get(key)
        if poll is None:
            poll = self._polls[key] = _Poll(self, settings)
        waiter = _Waiter(hook, settings, wake, interval)
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
class _Waiter:
    hook: LakebaseHook
    settings: LakebaseSettings
    wake: bool
    interval: float
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def finish(self, error: BaseException | None = None) -> None:
        if self.ready.done():
            return
        if error is None:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(error)

    @property
    def session(self) -> LakebaseSettings:
        """The session settings that a probe uses: waiters with the same ones share a probe."""
        return replace(self.settings, conn_id="")


class _Poll:
    """Read the state of one endpoint until its last waiter leaves."""

    def __init__(self, polls: SharedPolls, settings: LakebaseSettings) -> None:
        self._polls = polls
        self._settings = settings
        self._waiters: list[_Waiter] = []
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._probes: list[tuple[LakebaseSettings, asyncio.Task[None]]] = []

    def add(self, waiter: _Waiter) -> None:
        self._waiters.append(waiter)
        self._joined.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"poll {self._settings.endpoint}")

    def remove(self, waiter: _Waiter) -> bool:
        """Remove a waiter; return whether it was the last one, so that the poll has ended."""
        self._waiters.remove(waiter)
        if not self._waiters and self._task is not None:
            for task in (self._task, *(probe for _, probe in self._probes)):
                task.cancel()
        return not self._waiters

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
            _finish(self._waiters, error)

    async def _read(self) -> EndpointStatus:
        # The hook of any waiter will do: they have one identity and one endpoint.
        return await self._polls.read_status(self._waiters[0].hook, self._settings)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("The state of endpoint %s is read again later: %s", self._settings.endpoint, error)

    def _take(self, status: EndpointStatus) -> None:
        log.debug("Endpoint %s is %s", self._settings.endpoint, status.state)
        if status.state == ACTIVE:
            _finish(waiter for waiter in self._waiters if not waiter.wake)
        # Probes run beside the readings: the server holds a probe until the endpoint is awake, or forever if it hangs.
        self._probes = [(session, probe) for session, probe in self._probes if not probe.done()]
        for waiter in self._waiters:
            probed = any(session == waiter.session for session, _ in self._probes)
            if waiter.wake and not waiter.ready.done() and not probed:
                self._probes.append((waiter.session, asyncio.create_task(self._probe(waiter))))

    async def _probe(self, waiter: _Waiter) -> None:
        try:
            with Probe(waiter.settings, PROBE_SECONDS, log) as probe:
                async with asyncio.timeout(probe.settings.session.wake_timeout + ANSWER_SECONDS):
                    async with waiter.hook.open_async(probe.settings) as session:
                        await session.execute(PROBE_QUERY)
        except Exception as error:
            _finish((each for each in self._waiters if each.wake and each.session == waiter.session), error)
        else:
            if probe.is_answered:  # so that those who only wait for ACTIVE are served, too
                _finish(each for each in self._waiters if not each.wake or each.session == waiter.session)

    async def _pause(self, at_least: float = 0.0) -> None:
        """Sleep until the next reading is due, which a waiter that joins meanwhile may bring forward.

        :param at_least: seconds to pause in any case
        """
        loop = asyncio.get_running_loop()
        started_at, jitter = loop.time(), random.uniform(0.8, 1.0)  # noqa: S311 - no secret
        while True:
            self._joined.clear()
            intervals = [waiter.interval for waiter in self._waiters if not waiter.ready.done()]
            if not intervals:  # all waiters are about to leave
                await self._joined.wait()
                continue
            left = started_at + max(min(intervals) * jitter, at_least) - loop.time()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._joined.wait(), left)
            except TimeoutError:
                return


def _finish(waiters: Iterable[_Waiter], error: BaseException | None = None) -> None:
    for waiter in list(waiters):
        waiter.finish(error)
