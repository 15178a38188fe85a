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

from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession, LakebaseSession
from airflow_provider_lakebase.exceptions import LakebaseError

MAX_LIFETIME_SECONDS = 45 * 60.0
"""Age at which a connection is replaced; the pool shortens it by up to a tenth, so that not all go at once."""
MAX_IDLE_SECONDS = 15 * 60.0
"""Seconds without use after which a connection above ``min_size`` is closed."""

Opener = Callable[[type[LakebaseSession]], LakebaseSession]
AsyncOpener = Callable[[type[AsyncLakebaseSession]], Awaitable[AsyncLakebaseSession]]


class _Loans:
    """The connections of a pool that are in use, and the last failed attempt to open one."""

    def __init__(self) -> None:
        self.in_use = 0
        self._failure: tuple[float, Exception] | None = None

    def failure_since(self, moment: float) -> Exception | None:
        """Return why a connection could not be opened, if that was after a moment; else None.

        :param moment: seconds of the monotonic clock
        """
        failure = self._failure
        return failure[1] if failure and failure[0] >= moment else None

    def must_fail_waiters(self, failure: Exception) -> bool:
        """Record a failure; return whether waiting for a connection has become useless.

        :param failure: the exception that an attempt to open a connection raised
        """
        self._failure = time.monotonic(), failure
        is_permanent = isinstance(failure, LakebaseError) and not failure.retryable
        # A connection that is in use comes back and goes to a waiting thread.
        return is_permanent and self.in_use == 0


class LakebaseConnectionPool(ConnectionPool[LakebaseSession]):
    """A ``psycopg_pool.ConnectionPool`` whose connections are checked when they are handed out.

    So the next user of the pool does not notice a suspend of the endpoint, which cuts every session.
    """

    def __init__(self, open_session: Opener, *, min_size: int, max_size: int, timeout: float) -> None:
        """Make the pool and fill it.

        :param open_session: opens a session of the given class
        :param min_size: connections kept open
        :param max_size: connections at most
        :param timeout: seconds to wait for a connection
        :raises LakebaseError: when the first connection cannot be opened
        """
        self._loans = _Loans()
        self._counting = threading.Lock()
        super().__init__(
            connection_class=_session_class(open_session, self._record_failure),
            check=ConnectionPool.check_connection,
            **_options(min_size, max_size, timeout),
        )
        # In the foreground: the pool itself would repeat a refused login until its timeout.
        open_session(LakebaseSession).close()
        self.open()

    def getconn(self, timeout: float | None = None) -> LakebaseSession:
        """Take a connection; give it back with ``putconn``.

        :param timeout: seconds to wait for it, in place of the pool's
        :raises LakebaseError: when no connection could be opened
        :raises psycopg_pool.PoolTimeout: when all are in use
        """
        started_at = time.monotonic()
        try:
            connection = super().getconn(timeout)
        except psycopg_pool.PoolTimeout as error:
            raise self._loans.failure_since(started_at) or error from error
        with self._counting:
            self._loans.in_use += 1
        return connection

    def putconn(self, conn: LakebaseSession) -> None:
        """Give a connection back.

        :param conn: from :meth:`getconn`
        """
        with self._counting:
            self._loans.in_use -= 1
        super().putconn(conn)

    def _record_failure(self, failure: Exception) -> None:
        with self._counting:
            must_fail = self._loans.must_fail_waiters(failure)
        if must_fail:
            # The waiting threads would wait in vain, and the pool has no public way to fail them.
            with self._lock:
                waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for client in waiting:
                client.fail(failure)


class AsyncLakebaseConnectionPool(AsyncConnectionPool[AsyncLakebaseSession]):
    """The asynchronous :class:`LakebaseConnectionPool`; open it with ``async with``."""

    def __init__(self, open_session: AsyncOpener, *, min_size: int, max_size: int, timeout: float) -> None:
        """Make the pool; it is filled when it is opened.

        :param open_session: opens a session of the given class
        :param min_size: connections kept open
        :param max_size: connections at most
        :param timeout: seconds to wait for a connection
        """
        self._loans = _Loans()
        self._open_session = open_session
        super().__init__(
            connection_class=_async_session_class(open_session, self._record_failure),
            check=AsyncConnectionPool.check_connection,
            **_options(min_size, max_size, timeout),
        )

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open the pool.

        :param wait: wait until it is filled
        :param timeout: seconds to wait
        :raises LakebaseError: when the first connection cannot be opened
        """
        # Beforehand: the pool itself would repeat a refused login until its timeout.
        await (await self._open_session(AsyncLakebaseSession)).close()
        await super().open(wait, timeout)

    async def getconn(self, timeout: float | None = None) -> AsyncLakebaseSession:
        """Take a connection; give it back with ``putconn``.

        :param timeout: seconds to wait for it, in place of the pool's
        :raises LakebaseError: when no connection could be opened
        :raises psycopg_pool.PoolTimeout: when all are in use
        """
        started_at = time.monotonic()
        try:
            connection = await super().getconn(timeout)
        except psycopg_pool.PoolTimeout as error:
            raise self._loans.failure_since(started_at) or error from error
        self._loans.in_use += 1
        return connection

    async def putconn(self, conn: AsyncLakebaseSession) -> None:
        """Give a connection back.

        :param conn: from :meth:`getconn`
        """
        self._loans.in_use -= 1
        await super().putconn(conn)

    async def _record_failure(self, failure: Exception) -> None:
        if self._loans.must_fail_waiters(failure):
            async with self._lock:
                waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for client in waiting:
                await client.fail(failure)


def _options(min_size: int, max_size: int, timeout: float) -> dict[str, Any]:
    lifetimes = {"max_lifetime": MAX_LIFETIME_SECONDS, "max_idle": MAX_IDLE_SECONDS}
    return {"min_size": min_size, "max_size": max_size, "timeout": timeout, "open": False, **lifetimes}


def _session_class(open_session: Opener, record_failure: Callable[[Exception], None]) -> type[LakebaseSession]:
    class PooledSession(LakebaseSession):
        @classmethod
        def connect(cls, conninfo: str = "", **keywords: Any) -> Any:
            # The pool calls it without arguments, and open_session with those of an attempt.
            if conninfo:
                return super().connect(conninfo, **keywords)
            try:
                return open_session(cls)
            except Exception as error:
                record_failure(error)
                raise

    return PooledSession


def _async_session_class(
    open_session: AsyncOpener, record_failure: Callable[[Exception], Awaitable[None]]
) -> type[AsyncLakebaseSession]:
    class PooledSession(AsyncLakebaseSession):
        @classmethod
        async def connect(cls, conninfo: str = "", **keywords: Any) -> Any:
            if conninfo:
                return await super().connect(conninfo, **keywords)
            try:
                return await open_session(cls)
            except Exception as error:
                await record_failure(error)
                raise

    return PooledSession
