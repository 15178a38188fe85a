"""Wire the path from settings to open sessions: the workspace finds the host and mints, ``session`` opens.

It knows no Airflow, so any Python program can open sessions with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from psycopg.errors import Diagnostic
from tenacity import Retrying, retry_if_exception, stop_before_delay

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress
from airflow_provider_lakebase.core.session.connect import (
    BACK_OFF,
    PRODUCT,
    AsyncLakebaseSession,
    AsyncSession,
    LakebaseSession,
    Session,
    open_async_session,
    open_session,
)
from airflow_provider_lakebase.core.session.environment import libpq_environment
from airflow_provider_lakebase.core.session.pool import AsyncLakebaseConnectionPool, LakebaseConnectionPool
from airflow_provider_lakebase.core.workspace.client import find_obstacle
from airflow_provider_lakebase.core.workspace.credentials import mint_credential
from airflow_provider_lakebase.core.workspace.endpoints import forget_location, locate
from airflow_provider_lakebase.exceptions import LakebaseEndpointNotFoundError, LakebaseWorkspaceError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class SessionFactory:
    """Open sessions, one by one, in pools or for SQLAlchemy, each with a credential of its own.

    :param settings: where and as whom
    :param application_name: what ``pg_stat_activity`` shows
    :param on_secret: gets every credential as soon as it is minted, to keep it out of logs
    :param on_notice: gets the notices that the server sends
    """

    def __init__(
        self,
        settings: LakebaseSettings,
        *,
        application_name: str = PRODUCT,
        on_secret: Callable[[str], None] | None = None,
        on_notice: Callable[[Diagnostic], None] | None = None,
    ) -> None:
        self.settings = settings
        self._application_name = application_name
        self._on_secret = on_secret
        self._on_notice = on_notice

    def open(self, session_class: type[Session]) -> Session:
        """Open a session; see :func:`session.connect.open_session` for what is raised.

        :param session_class: class of the connection to return
        """
        with self._forgetting():
            session = open_session(
                self.settings,
                locate=self._locate,
                mint=self._mint,
                application_name=self._application_name,
                session_class=session_class,
                diagnose=self._diagnose,
            )
        if self._on_notice:
            session.add_notice_handler(self._on_notice)
        return session

    async def open_async(self, session_class: type[AsyncSession]) -> AsyncSession:
        """Open a session without blocking the event loop; see :func:`session.connect.open_async_session`.

        :param session_class: class of the connection to return
        """
        with self._forgetting():
            session = await open_async_session(
                self.settings,
                locate=self._locate,
                mint=self._mint,
                application_name=self._application_name,
                session_class=session_class,
                diagnose=self._diagnose,
            )
        if self._on_notice:
            session.add_notice_handler(self._on_notice)
        return session

    def _diagnose(self) -> str:
        host = self.settings.workspace.get("host")
        return find_obstacle(host) if host else ""

    def pool(self, min_size: int, max_size: int) -> LakebaseConnectionPool:
        """Return an open pool.

        :param min_size: connections kept open
        :param max_size: connections at most
        """
        timeout = self.settings.wake_timeout
        return LakebaseConnectionPool(self.open, min_size=min_size, max_size=max_size, timeout=timeout)

    def async_pool(self, min_size: int, max_size: int) -> AsyncLakebaseConnectionPool:
        """Return a pool to be opened with ``async with``.

        :param min_size: connections kept open
        :param max_size: connections at most
        """
        timeout = self.settings.wake_timeout
        return AsyncLakebaseConnectionPool(self.open_async, min_size=min_size, max_size=max_size, timeout=timeout)

    def uri(self) -> str:
        """Return where and as whom a session is opened, as libpq writes it, without a password."""
        location = self.location()
        user, database = (quote(name, safe="") for name in (location.user, self.settings.database))
        place = f"{location.host}:{self.settings.port}"
        return f"postgresql://{user}@{place}/{database}?sslmode={self.settings.sslmode}"

    def sqlalchemy_url(self) -> URL:
        """Return the same as SQLAlchemy writes it."""
        from airflow_provider_lakebase.core.session.engine import session_url

        return session_url(self.settings, self.location())

    def engine(self, options: Mapping[str, Any] | None) -> Engine:
        """Return a SQLAlchemy engine.

        :param options: keywords of :func:`sqlalchemy.create_engine`
        """
        from airflow_provider_lakebase.core.session.engine import create_engine

        return create_engine(self.settings, self.location(), partial(self.open, LakebaseSession), options)

    def async_engine(self, options: Mapping[str, Any] | None) -> AsyncEngine:
        """Return an asynchronous SQLAlchemy engine.

        :param options: keywords of :func:`sqlalchemy.ext.asyncio.create_async_engine`
        """
        from airflow_provider_lakebase.core.session.engine import create_async_engine

        connect = partial(self.open_async, AsyncLakebaseSession)
        return create_async_engine(self.settings, self.location(), connect, options)

    def libpq_environment(self) -> dict[str, str]:
        """Return ``PGHOST … PGPASSWORD`` with a new credential."""
        deadline = time.monotonic() + self.settings.wake_timeout
        location = self._patiently(self._locate, deadline)
        try:
            credential = self._patiently(self._mint, deadline)
        except LakebaseEndpointNotFoundError:
            # The branch may have another endpoint by now.
            location = self._patiently(partial(self._locate, again=True), deadline)
            credential = self._patiently(self._mint, deadline)
        return libpq_environment(self.settings, location, credential, self._application_name)

    def location(self) -> SessionAddress:
        """Return endpoint, host and role of the sessions."""
        return self._patiently(self._locate, time.monotonic() + self.settings.wake_timeout)

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Let the next opening find endpoint and host anew when this one fails: they may have been replaced."""
        try:
            yield
        except BaseException:
            forget_location(self.settings)
            raise

    def _patiently(self, ask: Callable[..., T], deadline: float) -> T:
        """Ask the workspace until the deadline, as long as it fails in a way that passes by itself."""

        def left() -> float:
            return max(deadline - time.monotonic(), 0.1)

        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, LakebaseWorkspaceError) and error.retryable),
            wait=BACK_OFF,
            stop=stop_before_delay(left()),
            reraise=True,
        )
        return retrying(lambda: ask(timeout=left()))

    def _locate(self, *, timeout: float, again: bool = False) -> SessionAddress:
        if self.settings.password is not None:
            return SessionAddress("", self.settings.pg_host or "", self.settings.user or "")
        return locate(self.settings, timeout=timeout, again=again)

    def _mint(self, *, timeout: float) -> str:
        if self.settings.password is not None:
            return self.settings.password
        credential = mint_credential(self.settings, self._locate(timeout=timeout).endpoint, timeout=timeout)
        if self._on_secret:
            self._on_secret(credential)
        return credential
