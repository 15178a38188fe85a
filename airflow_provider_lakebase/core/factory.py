"""Open sessions for a connection: the workspace finds the host and mints, ``session`` connects.

Any Python program can use it; it knows no orchestrator.
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
from airflow_provider_lakebase.core.daemon_thread import start_in_daemon_thread
from airflow_provider_lakebase.core.session.application_name import PRODUCT
from airflow_provider_lakebase.core.session.connect import (
    AsyncSession,
    Session,
    connect_with_retries,
    open_async_session,
    open_session,
)
from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession, LakebaseSession
from airflow_provider_lakebase.core.session.environment import libpq_environment
from airflow_provider_lakebase.core.session.retry import BACK_OFF
from airflow_provider_lakebase.core.workspace.client import Workspace
from airflow_provider_lakebase.core.workspace.credentials import mint_credential
from airflow_provider_lakebase.core.workspace.endpoints import PROCESS_ADDRESSES, EndpointAddresses
from airflow_provider_lakebase.core.workspace.reachability import find_obstacle
from airflow_provider_lakebase.exceptions import LakebaseResourceNotFoundError, LakebaseWorkspaceError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from airflow_provider_lakebase.core.session.pool import AsyncLakebaseConnectionPool, LakebaseConnectionPool

T = TypeVar("T")


class SessionFactory:
    """Open sessions one by one, in pools or for SQLAlchemy, each with a credential of its own.

    :param settings: the connection
    :param application_name: name shown in ``pg_stat_activity``
    :param on_secret: called with each credential as soon as it is minted, to mask it in logs
    :param on_notice: called with each notice of the server
    :param addresses: keeps the endpoints that were looked up
    """

    def __init__(
        self,
        settings: LakebaseSettings,
        *,
        application_name: str = PRODUCT,
        on_secret: Callable[[str], None] | None = None,
        on_notice: Callable[[Diagnostic], None] | None = None,
        addresses: EndpointAddresses = PROCESS_ADDRESSES,
    ) -> None:
        self.settings = settings
        self._application_name = application_name
        self._on_secret = on_secret
        self._on_notice = on_notice
        self._addresses = addresses

    def open(self, session_class: type[Session]) -> Session:
        """Open a session. The errors are those of :func:`core.session.connect.open_session`.

        :param session_class: class of the connection to return
        """
        with self._looking_up_again_after_errors():
            session = open_session(self.settings, session_class=session_class, **self._opening())
        self._log_notices(session)
        return session

    def open_with(self, connect: Callable[..., T]) -> T:
        """Open a session of another driver on libpq. The errors are those of :meth:`open`.

        :param connect: called with ``conninfo`` and libpq's keywords for each attempt; raises psycopg's
            OperationalError when the login fails
        """
        with self._looking_up_again_after_errors():
            return connect_with_retries(self.settings, connect=connect, **self._opening())

    async def open_async(self, session_class: type[AsyncSession]) -> AsyncSession:
        """Open a session without blocking the event loop; errors are those of :meth:`open`.

        :param session_class: class of the connection to return
        """
        with self._looking_up_again_after_errors():
            session = await open_async_session(self.settings, session_class=session_class, **self._opening())
        self._log_notices(session)
        return session

    def pool(self, min_size: int, max_size: int) -> LakebaseConnectionPool:
        """Return an open pool.

        :param min_size: connections kept open
        :param max_size: connections at most
        """
        from airflow_provider_lakebase.core.session.pool import LakebaseConnectionPool

        timeout = self.settings.session.wake_timeout
        return LakebaseConnectionPool(self.open, min_size=min_size, max_size=max_size, timeout=timeout)

    def async_pool(self, min_size: int, max_size: int) -> AsyncLakebaseConnectionPool:
        """Return a pool; open it with ``async with``.

        :param min_size: connections kept open
        :param max_size: connections at most
        """
        from airflow_provider_lakebase.core.session.pool import AsyncLakebaseConnectionPool

        timeout = self.settings.session.wake_timeout
        return AsyncLakebaseConnectionPool(self.open_async, min_size=min_size, max_size=max_size, timeout=timeout)

    def uri(self) -> str:
        """Return the server, database and role as a libpq URI, without a password."""
        address, session = self.address(), self.settings.session
        user, database = (quote(name, safe="") for name in (address.user, session.database))
        return f"postgresql://{user}@{address.host}:{session.port}/{database}?sslmode={session.sslmode}"

    def sqlalchemy_url(self) -> URL:
        """Return the server, database and role as a SQLAlchemy URL, without a password."""
        from airflow_provider_lakebase.core.session.engine import session_url

        return session_url(self.settings, self.address())

    def engine(self, options: Mapping[str, Any] | None) -> Engine:
        """Return a SQLAlchemy engine.

        :param options: keywords of :func:`sqlalchemy.create_engine`
        """
        from airflow_provider_lakebase.core.session.engine import create_engine

        return create_engine(self.settings, self.address(), partial(self.open, LakebaseSession), options)

    def async_engine(self, options: Mapping[str, Any] | None) -> AsyncEngine:
        """Return an asynchronous SQLAlchemy engine.

        :param options: keywords of :func:`sqlalchemy.ext.asyncio.create_async_engine`
        """
        from airflow_provider_lakebase.core.session.engine import create_async_engine

        connect = partial(self.open_async, AsyncLakebaseSession)
        return create_async_engine(self.settings, self.address(), connect, options)

    def libpq_environment(self) -> dict[str, str]:
        """Return ``PGHOST … PGPASSWORD`` with a new credential."""
        deadline = time.monotonic() + self.settings.session.wake_timeout
        address = self._retrying(self._resolve, deadline)
        try:
            credential = self._retrying(self._mint, deadline)
        except LakebaseResourceNotFoundError:
            # The branch may have another endpoint by now.
            address = self._retrying(partial(self._resolve, refresh=True), deadline)
            credential = self._retrying(self._mint, deadline)
        return libpq_environment(self.settings, address, credential, self._application_name)

    def address(self) -> SessionAddress:
        """Return endpoint, host and role of the sessions.

        :raises LakebaseWorkspaceError: when the workspace refuses, or does not answer within ``wake_timeout``
        """
        return self._retrying(self._resolve, time.monotonic() + self.settings.session.wake_timeout)

    def _opening(self) -> dict[str, Any]:
        return {
            "resolve_address": self._resolve,
            "mint": self._begin_mint,
            "application_name": self._application_name,
            "find_obstacle": self._find_obstacle,
        }

    def _log_notices(self, session: LakebaseSession | AsyncLakebaseSession) -> None:
        if self._on_notice:
            session.add_notice_handler(self._on_notice)

    def _find_obstacle(self) -> str:
        identity = self.settings.identity
        return find_obstacle(identity.host) if identity else ""

    @contextmanager
    def _looking_up_again_after_errors(self) -> Iterator[None]:
        # Endpoint and host may have been replaced.
        try:
            yield
        except BaseException:
            if self.settings.identity:
                self._addresses.forget(self.settings)
            raise

    def _retrying(self, ask: Callable[..., T], deadline: float) -> T:
        """Call the workspace, and repeat the call after transient errors until the deadline."""
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, LakebaseWorkspaceError) and error.retryable),
            wait=BACK_OFF,
            stop=stop_before_delay(_left(deadline)),
            reraise=True,
        )
        return retrying(lambda: ask(timeout=_left(deadline)))

    def _resolve(self, *, timeout: float, refresh: bool = False) -> SessionAddress:
        if self.settings.identity is None:
            session = self.settings.session
            return SessionAddress(None, session.pg_host or "", session.user or "")
        return self._addresses.resolve(self.settings, timeout=timeout, refresh=refresh)

    def _mint(self, *, timeout: float) -> str:
        return self._begin_mint(timeout=timeout)()

    def _begin_mint(self, *, timeout: float) -> Callable[[], str]:
        """Return a function that returns a credential; begin to mint it where the host must be looked up meanwhile."""
        password = self.settings.session.password
        if password is not None:
            return lambda: password
        deadline = time.monotonic() + timeout
        named = self.settings.require_endpoint()
        if named.kind != "endpoint" or self._addresses.is_known(self.settings):
            return lambda: self._masked(self._mint_for(self._endpoint(deadline), deadline))
        # First, so that an identity that is refused is refused once.
        Workspace.of(self.settings).require_sign_in(timeout=timeout)
        minting = start_in_daemon_thread(lambda: self._mint_for(str(named), deadline))
        # Masking may talk to a supervisor, from this thread only.
        return lambda: self._masked(minting.result())

    def _endpoint(self, deadline: float) -> str:
        return self._resolve(timeout=_left(deadline)).endpoint or str(self.settings.require_endpoint())

    def _mint_for(self, endpoint: str, deadline: float) -> str:
        workspace = Workspace.of(self.settings)
        return mint_credential(workspace, endpoint, self.settings.session, timeout=_left(deadline))

    def _masked(self, credential: str) -> str:
        if self._on_secret:
            self._on_secret(credential)
        return credential


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.1)
