"""Pools of sessions, for programs that open many: every connection of a pool has a credential of its own.

psycopg_pool fills a pool in the background and shows a failure only as PoolTimeout; these pools raise its cause.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg_pool
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from airflow_provider_lakebase.core.session.connect import AsyncLakebaseSession, LakebaseSession
from airflow_provider_lakebase.exceptions import LakebaseError

MAX_LIFETIME_SECONDS = 45 * 60.0
"""Age at which a connection is replaced; the pool shortens it by up to a tenth, so that not all go at once."""
MAX_IDLE_SECONDS = 15 * 60.0
"""Time without use after which a connection above ``min_size`` is closed."""

Opener = Callable[[type[LakebaseSession]], LakebaseSession]
AsyncOpener = Callable[[type[AsyncLakebaseSession]], Awaitable[AsyncLakebaseSession]]


class _Lending:
    """What a pool knows of the connections that are in use, and of the last attempt to open one that failed."""

    def __init__(self) -> None:
        self.in_use = 0
        self._failure: tuple[float, Exception] | None = None

    def failure_since(self, moment: float) -> Exception | None:
        """Return why a connection could not be opened, if that was after a moment.

        :param moment: by the monotonic clock
        """
        failure = self._failure
        return failure[1] if failure and failure[0] >= moment else None

    def must_fail_waiters(self, failure: Exception) -> bool:
        """Remember a failure; return whether it leaves nothing to wait for.

        :param failure: of an attempt to open a connection
        """
        self._failure = time.monotonic(), failure
        is_hopeless = isinstance(failure, LakebaseError) and not failure.retryable
        # A connection in use comes back, and goes to whoever waits.
        return is_hopeless and self.in_use == 0


class LakebaseConnectionPool(ConnectionPool[LakebaseSession]):
    """A ``psycopg_pool.ConnectionPool`` whose connections are checked when they are handed out.

    So a suspend of the endpoint, which cuts every session, is not noticed by who takes the next connection.
    """

    def __init__(self, open_session: Opener, *, min_size: int, max_size: int, timeout: float) -> None:
        """Make the pool and fill it.

        :param open_session: opens a session of the given class
        :param min_size: connections kept open
        :param max_size: connections at most
        :param timeout: seconds that taking a connection may take
        :raises LakebaseError: why the first connection could not be had
        """
        self._lending = _Lending()
        self._counting = threading.Lock()
        super().__init__(
            connection_class=_session_class(open_session, self._note),
            check=ConnectionPool.check_connection,
            **_options(min_size, max_size, timeout),
        )
        # In the foreground, since the pool would try a login that is refused until its time is up.
        open_session(LakebaseSession).close()
        self.open()

    def getconn(self, timeout: float | None = None) -> LakebaseSession:
        """Take a connection; give it back with ``putconn``.

        :param timeout: seconds to wait for it, in place of the pool's
        :raises LakebaseError: why no connection could be opened
        :raises psycopg_pool.PoolTimeout: when all are in use
        """
        started_at = time.monotonic()
        try:
            connection = super().getconn(timeout)
        except psycopg_pool.PoolTimeout as error:
            raise self._lending.failure_since(started_at) or error from error
        with self._counting:
            self._lending.in_use += 1
        return connection

    def putconn(self, conn: LakebaseSession) -> None:
        """Give a connection back.

        :param conn: from :meth:`getconn`
        """
        with self._counting:
            self._lending.in_use -= 1
        super().putconn(conn)

    def _note(self, failure: Exception) -> None:
        with self._counting:
            must_fail = self._lending.must_fail_waiters(failure)
        if must_fail:
            # Whoever waits for a connection would wait in vain; the pool has no public way to tell them.
            with self._lock:
                waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for client in waiting:
                client.fail(failure)


class AsyncLakebaseConnectionPool(AsyncConnectionPool[AsyncLakebaseSession]):
    """The asynchronous twin of :class:`LakebaseConnectionPool`; open it with ``async with``."""

    def __init__(self, open_session: AsyncOpener, *, min_size: int, max_size: int, timeout: float) -> None:
        """Make the pool; it is filled when it is opened.

        :param open_session: opens a session of the given class
        :param min_size: connections kept open
        :param max_size: connections at most
        :param timeout: seconds that taking a connection may take
        """
        self._lending = _Lending()
        self._open_session = open_session
        super().__init__(
            connection_class=_async_session_class(open_session, self._note),
            check=AsyncConnectionPool.check_connection,
            **_options(min_size, max_size, timeout),
        )

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open the pool.

        :param wait: wait until it is filled
        :param timeout: seconds to wait
        :raises LakebaseError: why the first connection could not be had
        """
        # First by itself, since the pool would try a login that is refused until its time is up.
        await (await self._open_session(AsyncLakebaseSession)).close()
        await super().open(wait, timeout)

    async def getconn(self, timeout: float | None = None) -> AsyncLakebaseSession:
        """Take a connection; give it back with ``putconn``.

        :param timeout: seconds to wait for it, in place of the pool's
        :raises LakebaseError: why no connection could be opened
        :raises psycopg_pool.PoolTimeout: when all are in use
        """
        started_at = time.monotonic()
        try:
            connection = await super().getconn(timeout)
        except psycopg_pool.PoolTimeout as error:
            raise self._lending.failure_since(started_at) or error from error
        self._lending.in_use += 1
        return connection

    async def putconn(self, conn: AsyncLakebaseSession) -> None:
        """Give a connection back.

        :param conn: from :meth:`getconn`
        """
        self._lending.in_use -= 1
        await super().putconn(conn)

    async def _note(self, failure: Exception) -> None:
        if self._lending.must_fail_waiters(failure):
            async with self._lock:
                waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for client in waiting:
                await client.fail(failure)


def _options(min_size: int, max_size: int, timeout: float) -> dict[str, Any]:
    lifetimes = {"max_lifetime": MAX_LIFETIME_SECONDS, "max_idle": MAX_IDLE_SECONDS}
    return {"min_size": min_size, "max_size": max_size, "timeout": timeout, "open": False, **lifetimes}


def _session_class(open_session: Opener, note: Callable[[Exception], None]) -> type[LakebaseSession]:
    class PooledSession(LakebaseSession):
        @classmethod
        def connect(cls, conninfo: str = "", **keywords: Any) -> Any:
            # The pool calls it without arguments, and open_session with those of one attempt.
            if conninfo:
                return super().connect(conninfo, **keywords)
            try:
                return open_session(cls)
            except Exception as error:
                note(error)
                raise

    return PooledSession


def _async_session_class(
    open_session: AsyncOpener, note: Callable[[Exception], Awaitable[None]]
) -> type[AsyncLakebaseSession]:
    class PooledSession(AsyncLakebaseSession):
        @classmethod
        async def connect(cls, conninfo: str = "", **keywords: Any) -> Any:
            if conninfo:
                return await super().connect(conninfo, **keywords)
            try:
                return await open_session(cls)
            except Exception as error:
                await note(error)
                raise

    return PooledSession
