"""One poll of an endpoint for all who wait for it in an event loop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread
from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.exceptions import LakebaseError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.endpoints import EndpointStatus

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""Seconds that one reading of the state may take."""
KNOCK_SECONDS = 60.0
"""Seconds that the front end may hold a knock while the endpoint wakes."""
MOST_BACK_OFF_SECONDS = 60.0
"""Seconds between two readings while the workspace fails."""

_Key = tuple[str, str]
_readings: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, tuple[float, asyncio.Task[EndpointStatus]]]] = (
    WeakKeyDictionary()
)
_polls: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, _Poll]] = WeakKeyDictionary()


async def wait_until_ready(hook: LakebaseHook, *, wake: bool, interval: float) -> None:
    """Wait until an endpoint is ACTIVE, and a session answers where it is to be woken.

    All waiters of an event loop for one endpoint, as one identity, share the readings and the knock.

    :param hook: of the connection and endpoint
    :param wake: knock with a connection, which wakes it; else only read its state
    :param interval: seconds between two readings at most; the smallest of all waiters counts
    :raises LakebaseError: for what does not pass by itself, as a disabled endpoint
    """
    settings = await hook.read_settings_async()
    polls = _polls.setdefault(asyncio.get_running_loop(), {})
    key = (settings.require_identity().key, str(settings.require_endpoint()))
    poll = polls.get(key)
    if poll is None:
        poll = polls[key] = _Poll(settings)
    waiter = _Waiter(hook, settings, wake, interval)
    poll.add(waiter)
    try:
        await waiter.ready
    finally:
        if poll.remove(waiter) and polls.get(key) is poll:
            del polls[key]


async def read_status(settings: LakebaseSettings, *, max_age: float = 0.0) -> EndpointStatus:
    """Return the endpoint's state without blocking the event loop.

    :param settings: which endpoint, as whom
    :param max_age: seconds that a reading of another waiter may be old to serve this one as well
    :raises LakebaseError: typed by cause, when it is disabled too
    """
    loop = asyncio.get_running_loop()
    readings = _readings.setdefault(loop, {})
    key = (settings.require_identity().key, str(settings.require_endpoint()))
    if key not in readings or loop.time() - readings[key][0] > max_age:
        reading = loop.create_task(run_in_daemon_thread(partial(_read, settings)))
        reading.add_done_callback(lambda task: task.cancelled() or task.exception())  # its waiter may have gone
        readings[key] = (loop.time(), reading)
    return await asyncio.shield(readings[key][1])


def back_off(failures: int, most: float) -> float:
    """Return the seconds to wait after failures in a row: twice as many after each.

    :param failures: how many there were
    :param most: seconds at most
    """
    return min(2.0 ** min(failures, 10), most)


def _read(settings: LakebaseSettings) -> EndpointStatus:
    # Here in the thread: to import it takes seconds.
    from airflow_provider_lakebase.core.workspace.client import Workspace
    from airflow_provider_lakebase.core.workspace.endpoints import read_endpoint

    status = read_endpoint(Workspace.of(settings), settings.require_endpoint(), timeout=ANSWER_SECONDS)
    status.require_enabled(settings.context)
    return status


@dataclass(eq=False)
class _Waiter:
    hook: LakebaseHook
    settings: LakebaseSettings
    wake: bool
    interval: float
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def tell(self, error: BaseException | None = None) -> None:
        if self.ready.done():
            return
        if error is None:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(error)

    @property
    def session(self) -> Any:
        """Return what tells sessions apart, so that waiters for the same one share a knock."""
        return replace(self.settings, conn_id="")


class _Poll:
    def __init__(self, settings: LakebaseSettings) -> None:
        self.settings = settings
        self.waiters: list[_Waiter] = []
        self.joined = asyncio.Event()
        self.failures = 0
        self.task: asyncio.Task[None] | None = None
        self.knocks: list[tuple[Any, asyncio.Task[None]]] = []

    def add(self, waiter: _Waiter) -> None:
        self.waiters.append(waiter)
        self.joined.set()
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run(), name=f"poll {self.settings.endpoint}")

    def remove(self, waiter: _Waiter) -> bool:
        """Let a waiter go; return whether it was the last, with which the poll ends."""
        self.waiters.remove(waiter)
        if not self.waiters and self.task is not None:
            for task in (self.task, *(knock for _, knock in self.knocks)):
                task.cancel()
        return not self.waiters

    async def _run(self) -> None:
        try:
            while True:
                await self._look()
                await self._pause()
        except Exception as error:
            self._tell(self.waiters, error)

    async def _look(self) -> None:
        try:
            status = await read_status(self.settings)
        except LakebaseError as error:
            if not is_transient(error):
                raise
            self.failures += 1
            log.warning("The state of endpoint %s is read again later: %s", self.settings.endpoint, error)
            return
        self.failures = 0
        log.debug("Endpoint %s is %s", self.settings.endpoint, status.state)
        if status.state == "ACTIVE":
            self._tell([waiter for waiter in self.waiters if not waiter.wake])
        # Beside the readings: a knock is held until the endpoint has woken, or for ever where something hangs.
        self.knocks = [(session, knock) for session, knock in self.knocks if not knock.done()]
        for waiter in self.waiters:
            if waiter.wake and not waiter.ready.done() and all(waiter.session != each for each, _ in self.knocks):
                self.knocks.append((waiter.session, asyncio.create_task(self._knock(waiter))))

    async def _knock(self, waiter: _Waiter) -> None:
        timeout = min(KNOCK_SECONDS, waiter.settings.session.wake_timeout)
        try:
            async with asyncio.timeout(timeout + ANSWER_SECONDS):
                async with waiter.hook.open_async(waiter.settings.with_wake_timeout(timeout)) as session:
                    await session.execute("SELECT 1")
        except TimeoutError as error:  # LakebaseWakeTimeoutError is one
            log.info("It does not answer yet: %s", error)
        except Exception as error:
            if is_transient(error):
                log.warning("The next knock is later: %s", error)
            else:
                self._tell([each for each in self.waiters if each.wake and each.session == waiter.session], error)
        else:
            # Those who only watch too: it is awake.
            self._tell([each for each in self.waiters if not each.wake or each.session == waiter.session])

    def _tell(self, waiters: Iterable[_Waiter], error: BaseException | None = None) -> None:
        for waiter in list(waiters):
            waiter.tell(error)

    async def _pause(self) -> None:
        """Sleep until the next reading is due; who joins meanwhile may want it sooner."""
        loop = asyncio.get_running_loop()
        started_at, jitter = loop.time(), random.uniform(0.8, 1.0)  # noqa: S311 - no secret
        while True:
            self.joined.clear()
            waiting = [waiter.interval for waiter in self.waiters if not waiter.ready.done()]
            if not waiting:  # they are about to leave
                await self.joined.wait()
                continue
            pause = min(waiting) * jitter
            if self.failures:
                pause = max(pause, back_off(self.failures, MOST_BACK_OFF_SECONDS))
            left = started_at + pause - loop.time()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self.joined.wait(), left)
            except TimeoutError:
                return
