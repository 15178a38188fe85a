"""Open one Postgres session: TLS, waking, retries, errors in words.

It gets the host and a way to mint a credential handed in, and knows no workspace.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Protocol

import certifi
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo
from psycopg.types.json import JsonbDumper
from tenacity import RetryCallState, Retrying, stop_after_delay, wait_random_exponential

from airflow_provider_lakebase import __version__
from airflow_provider_lakebase.causes import Cause, Retry, describe, find_postgres_cause
from airflow_provider_lakebase.exceptions import (
    LakebaseOutcomeUnknownError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
)
from airflow_provider_lakebase.settings import RESERVED_LIBPQ_KEYWORDS, LakebaseSettings, unknown_field

log = logging.getLogger(__name__)

PRODUCT = f"airflow-provider-lakebase/{__version__}"
SPREADING_SECONDS = 60.0
"""Seconds that a fresh role may take to be known to the front end."""

_APPLICATION_NAME_BYTES = 63
_DEFAULT_KEYWORDS: Mapping[str, str] = {
    "gssencmode": "disable",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "5",
}
# Without it a statement of a worker that was killed outright runs on until it next writes to the lost session.
_ABANDONED_SESSION_OPTION = "-c client_connection_check_interval=2s"


class HostFinder(Protocol):
    """Return the Postgres host; look it up anew when ``again`` is true."""

    def __call__(self, *, timeout: float, again: bool = False) -> str: ...


class CredentialMinter(Protocol):
    """Return a new credential within ``timeout`` seconds."""

    def __call__(self, *, timeout: float) -> str: ...


class LakebaseSession(psycopg.Connection[tuple[object, ...]]):
    """A psycopg connection that says when nobody can know whether a COMMIT was applied."""

    where = ""

    def commit(self) -> None:
        """Commit the transaction.

        :raises LakebaseOutcomeUnknownError: when the session was lost between COMMIT and its answer
        """
        in_transaction = self.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE
        try:
            super().commit()
        except psycopg.OperationalError as error:
            # With a SQLSTATE the server answered, so the transaction did not commit.
            if not (in_transaction and self.closed and error.sqlstate is None):
                raise
            raise LakebaseOutcomeUnknownError(
                f"The session was lost after COMMIT was sent: {error}",
                where=self.where,
                remedy="Look at the target before running it again, unless it may run twice.",
            ) from error


def open_session(
    settings: LakebaseSettings, *, find_host: HostFinder, mint: CredentialMinter, application_name: str = PRODUCT
) -> LakebaseSession:
    """Open a session, waiting for a sleeping endpoint to wake.

    Every attempt mints a new credential. Attempts go on, with exponential back-off and full jitter, only while the
    failure is one that passes by itself, and never longer than ``settings.wake_timeout`` seconds altogether.

    :param settings: where and as whom
    :param find_host: finds the Postgres host
    :param mint: mints a credential
    :param application_name: what ``pg_stat_activity`` shows
    :raises LakebaseWakeTimeoutError: when no session could be opened in time
    :raises LakebaseAuthenticationError: when Postgres refused the login
    :raises LakebaseEndpointDisabledError: when the endpoint is disabled
    :raises LakebaseSettingsError: when the settings cannot work
    :raises psycopg.OperationalError: for a text whose cause is not known
    """
    opening = _Opening(settings, find_host, mint, libpq_keywords(settings, application_name))
    retrying = Retrying(
        retry=opening.may_try_again,
        wait=wait_random_exponential(multiplier=0.25, max=8),
        stop=stop_after_delay(settings.wake_timeout),
        before_sleep=opening.log_wait,
        reraise=True,
    )
    try:
        return retrying(opening.attempt)
    except psycopg.OperationalError as error:
        raise opening.explain(error) from error


def libpq_keywords(settings: LakebaseSettings, application_name: str) -> dict[str, str]:
    """Return every libpq keyword of a session but host and password.

    A ``PG*`` variable of the environment is met with libpq's own default, so that it changes nothing.

    :param settings: where and as whom
    :param application_name: what ``pg_stat_activity`` shows
    :raises LakebaseSettingsError: for a keyword that libpq does not know, or when PGSERVICE is set
    """
    defaults = Conninfo.get_defaults()
    known = {option.keyword.decode() for option in defaults}
    for name in settings.libpq:
        if name not in known:
            raise unknown_field(settings.conn_id, name, known - RESERVED_LIBPQ_KEYWORDS)
    if os.environ.get("PGSERVICE"):
        raise LakebaseSettingsError(
            "PGSERVICE is set in the environment, and libpq would follow it to another server",
            where=settings.where,
            remedy="Unset PGSERVICE in the worker's environment.",
        )
    shut_out = {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in defaults
        if option.envvar and option.envvar.decode() in os.environ
    }
    return {
        **shut_out,
        **_DEFAULT_KEYWORDS,
        **settings.libpq,
        **_tls_keywords(settings),
        "dbname": settings.database,
        "port": str(settings.port),
        "user": settings.user,
        "application_name": application_name,
        "options": f"{_ABANDONED_SESSION_OPTION} {settings.libpq.get('options', '')}".strip(),
    }


def name_application(dag_id: str | None, task_id: str | None) -> str:
    """Return an ``application_name`` of at most 63 bytes, the most Postgres keeps, that ends with the task.

    :param dag_id: DAG, or None outside a task
    :param task_id: task, or None outside a task
    """
    if not dag_id or not task_id:
        return PRODUCT
    room = _APPLICATION_NAME_BYTES - len(PRODUCT) - 1
    task = f"{dag_id}.{task_id}".encode("ascii", "replace").decode()
    return f"{PRODUCT} {task[-room:]}"


def _tls_keywords(settings: LakebaseSettings) -> dict[str, str]:
    keywords = {"sslmode": settings.sslmode}
    if settings.sslrootcert:
        keywords["sslrootcert"] = settings.sslrootcert
    elif settings.sslmode != "require":
        keywords["sslrootcert"] = certifi.where()
    return keywords


class _Opening:
    """The attempts to open one session, and what was learnt from those before."""

    def __init__(
        self, settings: LakebaseSettings, find_host: HostFinder, mint: CredentialMinter, keywords: Mapping[str, str]
    ) -> None:
        self.settings = settings
        self.find_host = find_host
        self.mint = mint
        self.keywords = keywords
        self.started_at = time.monotonic()
        self.logged_at = float("-inf")
        self.unreachable = 0
        self.refused = 0
        self.cause: Cause | None = None

    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def left(self) -> float:
        return max(self.settings.wake_timeout - self.seconds(), 0.1)

    def attempt(self) -> LakebaseSession:
        host = self.find_host(timeout=self.left(), again=self.unreachable == 1)
        password = self.mint(timeout=self.left())
        try:
            session = LakebaseSession.connect(
                make_conninfo(**self.keywords),
                host=host,
                password=password,
                connect_timeout=max(round(self.left()), 2),
            )
        except psycopg.OperationalError as error:
            # psycopg's frames hold the credential, and the socket of a connection that timed out.
            raise error.with_traceback(None)  # noqa: B904
        session.where = self.settings.where
        session.adapters.register_dumper(dict, JsonbDumper)
        return session

    def may_try_again(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, psycopg.OperationalError):
            return False
        self.cause = find_postgres_cause(str(error))
        retry = self.cause.retry if self.cause else Retry.NEVER
        if retry is Retry.WAKING:
            self.unreachable += 1
        if retry is Retry.IF_WAKING:
            self.refused += 1
        return (
            retry is Retry.WAKING
            or (retry is Retry.SPREADING and self.seconds() < SPREADING_SECONDS)
            or (retry is Retry.IF_WAKING and self.unreachable > 0 and self.refused == 1)
        )

    def log_wait(self, state: RetryCallState) -> None:
        if self.seconds() - self.logged_at >= 5 and self.cause:
            self.logged_at = self.seconds()
            log.info(
                "Waiting for endpoint %s, %.0f s so far: %s", self.settings.endpoint, self.seconds(), self.cause.meaning
            )

    def explain(self, error: psycopg.OperationalError) -> Exception:
        if self.cause is None:
            error.add_note(self.settings.where)
            return error
        kind, what = self.cause.error, describe(self.cause, str(error))
        if self.cause.retry is Retry.WAKING:
            kind, what = LakebaseWakeTimeoutError, f"No session within {self.settings.wake_timeout:g} s. {what}"
        return kind(what, where=self.settings.where, remedy=self.cause.remedy)
