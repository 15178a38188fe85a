"""Open one Postgres session: mint, connect, wait for a wake, retry, translate errors.

It is handed a way to find the host and one to mint a credential, and knows no workspace.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import psycopg
from psycopg.conninfo import make_conninfo
from tenacity import AsyncRetrying, Retrying

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress
from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread
from airflow_provider_lakebase.core.session.addresses import resolve
from airflow_provider_lakebase.core.session.application_name import PRODUCT
from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession, LakebaseSession
from airflow_provider_lakebase.core.session.libpq import libpq_keywords
from airflow_provider_lakebase.core.session.retry import BACK_OFF, WORKSPACE_SILENT, LoginRetries
from airflow_provider_lakebase.core.sql.binding import register_types
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError

log = logging.getLogger(__name__)

MIN_ATTEMPT_SECONDS = 1.0
"""Seconds that must be left to begin another attempt."""
MIN_ADDRESS_SECONDS = 2
"""Seconds that psycopg gives each address of a host at least."""
FIRST_LOG_SECONDS = 1.0
"""Seconds of waiting before the first line in the log."""
LOG_SECONDS = 5.0
"""Seconds between the first two lines about the same wait; each later pause is twice as long."""
MAX_LOG_SECONDS = 40.0
"""Seconds between two lines about the same wait, at most."""


class AddressResolver(Protocol):
    """Return endpoint, host and role within ``timeout`` seconds; look the host up again if ``refresh`` is true."""

    def __call__(self, *, timeout: float, refresh: bool = False) -> SessionAddress: ...


class CredentialMinter(Protocol):
    """Begin to mint a credential, and return a function that returns it within ``timeout`` seconds from now."""

    def __call__(self, *, timeout: float) -> Callable[[], str]: ...


T = TypeVar("T")
Session = TypeVar("Session", bound=LakebaseSession)
AsyncSession = TypeVar("AsyncSession", bound=AsyncLakebaseSession)


def open_session(
    settings: LakebaseSettings,
    *,
    resolve_address: AddressResolver,
    mint: CredentialMinter,
    application_name: str = PRODUCT,
    session_class: type[Session],
    find_obstacle: Callable[[], str] = lambda: "",
) -> Session:
    """Open a session, waiting for a suspended endpoint to wake.

    Each attempt mints a new credential. Attempts are repeated, with exponential back-off and full jitter, only after
    an error that may be transient. All attempts, with their calls to the workspace, take ``wake_timeout`` seconds
    at most.

    :param settings: the connection
    :param resolve_address: finds endpoint, host and role
    :param mint: begins to mint a credential, while the host is found
    :param application_name: name shown in ``pg_stat_activity``
    :param session_class: class of the connection to return
    :param find_obstacle: returns why the workspace cannot be reached; an empty text if it can
    :raises LakebaseWakeTimeoutError: when no session could be opened in time
    :raises LakebaseAuthenticationError: when Postgres refused the login
    :raises LakebaseEndpointDisabledError: when the endpoint is disabled
    :raises LakebaseWorkspaceError: when the workspace refused, or did not answer in time
    :raises LakebaseSettingsError: when the settings cannot work
    :raises psycopg.OperationalError: for a login error that the catalog does not list
    """
    session = connect_with_retries(
        settings,
        connect=session_class.connect,
        resolve_address=resolve_address,
        mint=mint,
        application_name=application_name,
        find_obstacle=find_obstacle,
    )
    _prepare(session, settings)
    return session


def connect_with_retries(
    settings: LakebaseSettings,
    *,
    connect: Callable[..., T],
    resolve_address: AddressResolver,
    mint: CredentialMinter,
    application_name: str = PRODUCT,
    find_obstacle: Callable[[], str] = lambda: "",
) -> T:
    """Connect as :func:`open_session` does, with any driver on libpq. Other arguments and errors are those of it.

    :param connect: called with ``conninfo`` and libpq's keywords for each attempt; raises psycopg's OperationalError
        when the login fails
    """
    attempts = _ConnectAttempts(settings, resolve_address, mint, application_name)
    retrying = Retrying(**attempts.policy())
    with attempts.logging_wait(find_obstacle):
        return cast(T, retrying(attempts.connect, connect))


async def open_async_session(
    settings: LakebaseSettings,
    *,
    resolve_address: AddressResolver,
    mint: CredentialMinter,
    application_name: str = PRODUCT,
    session_class: type[AsyncSession],
    find_obstacle: Callable[[], str] = lambda: "",
) -> AsyncSession:
    """Open a session as :func:`open_session` does, without blocking the event loop.

    Calls to the workspace run in threads. Arguments and errors are those of :func:`open_session`.
    """
    attempts = _ConnectAttempts(settings, resolve_address, mint, application_name)
    retrying = AsyncRetrying(**attempts.policy())
    with attempts.logging_wait(find_obstacle):
        session: AsyncSession = await retrying(attempts.connect_async, session_class)
    _prepare(session, settings)
    return session


def _prepare(session: LakebaseSession | AsyncLakebaseSession, settings: LakebaseSettings) -> None:
    session.context = settings.context
    register_types(session.adapters)


class _ConnectAttempts:
    """The attempts to open one session."""

    def __init__(
        self,
        settings: LakebaseSettings,
        resolve_address: AddressResolver,
        mint: CredentialMinter,
        application_name: str,
    ) -> None:
        self.settings = settings
        self.resolve_address = resolve_address
        self.mint = mint
        self.keywords = libpq_keywords(settings, application_name)
        self.retries = LoginRetries(settings, time.monotonic)

    def policy(self) -> dict[str, Any]:
        """Return the arguments of tenacity."""
        # An attempt without time to mint and connect would hide the error of those before.
        wake_timeout = self.settings.session.wake_timeout
        last_start = max(wake_timeout - MIN_ATTEMPT_SECONDS, wake_timeout / 2)
        retries = self.retries
        return {
            "retry": lambda state: retries.may_retry(state.outcome.exception() if state.outcome else None),
            "wait": lambda state: min(BACK_OFF(state), max(last_start - retries.seconds - 0.01, 0)),
            # By the clock of the waits: tenacity's begins later, and until it is up no attempt would wait at all.
            "stop": lambda state: retries.seconds + state.upcoming_sleep >= last_start,
            "reraise": True,
        }

    def connect(self, connect: Callable[..., T]) -> T:
        try:
            # The credential gets no name here: a traceback that prints variables would show it.
            return connect(**self.arguments())
        except BaseException as error:
            # The driver's frames hold the credential, and the socket of a connection that timed out.
            raise error.with_traceback(None)  # noqa: B904

    async def connect_async(self, session_class: type[AsyncSession]) -> AsyncSession:
        try:
            return await session_class.connect(**await run_in_daemon_thread(self.arguments))
        except BaseException as error:
            raise error.with_traceback(None)  # noqa: B904

    def arguments(self) -> dict[str, Any]:
        """Return psycopg's arguments for the next attempt, with a new credential."""
        retries = self.retries
        refresh = retries.looking_up()
        minted = self.mint(timeout=retries.seconds_left)
        address = self.resolve_address(timeout=retries.seconds_left, refresh=refresh)
        retries.looked_up()
        addresses = [] if self.keywords.get("hostaddr") else resolve(address.host, retries.seconds_left)
        arguments = {
            "conninfo": make_conninfo(**self.keywords),
            "host": address.host,
            "user": address.user,
            # The last step that can fail, so that no traceback of one shows its value.
            "password": minted(),
        }
        retries.connecting()
        # psycopg gives each address this time, and at least two seconds.
        addresses = addresses[: max(int(retries.seconds_left / MIN_ADDRESS_SECONDS), 1)]
        if addresses:
            arguments["hostaddr"] = ",".join(addresses)
            arguments["host"] = ",".join([address.host] * len(addresses))
        seconds = round(retries.seconds_left) // max(len(addresses), 1)
        return {**arguments, "connect_timeout": max(seconds, MIN_ADDRESS_SECONDS)}

    @contextmanager
    def logging_wait(self, find_obstacle: Callable[[], str]) -> Iterator[None]:
        """Log while the block waits, and raise a typed error when it fails.

        The front end holds a connection until the endpoint wakes, so a wait can be within one attempt.
        """
        done = threading.Event()
        thread = threading.Thread(
            target=self.log_wait, args=(done, find_obstacle), name="lakebase-waiting", daemon=True
        )
        thread.start()
        try:
            yield
        except (psycopg.OperationalError, LakebaseWorkspaceError) as error:
            if (translated := self.retries.to_error(error)) is error:
                raise
            raise translated from error
        finally:
            done.set()
            thread.join()

    def log_wait(self, done: threading.Event, find_obstacle: Callable[[], str]) -> None:
        pause = FIRST_LOG_SECONDS
        while not done.wait(pause):
            pause = LOG_SECONDS if pause == FIRST_LOG_SECONDS else min(2 * pause, MAX_LOG_SECONDS)
            name = self.settings.endpoint or self.settings.session.pg_host
            reason = self.retries.waits_for
            if reason == WORKSPACE_SILENT and (obstacle := find_obstacle()):
                reason = f"the workspace cannot be reached: {obstacle}"
            if not done.is_set():
                log.info("Waiting for endpoint %s, %.0f s so far: %s", name, self.retries.seconds, reason)
