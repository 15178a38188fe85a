"""Open one Postgres session: TLS, waking, retries, errors in words.

It gets a way to find the host and one to mint a credential handed in, and knows no workspace.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar, cast

import certifi
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo
from tenacity import AsyncRetrying, RetryCallState, Retrying, stop_before_delay, wait_random_exponential

from airflow_provider_lakebase import __version__
from airflow_provider_lakebase.core.connection.fields import RESERVED_LIBPQ_KEYWORDS, is_pooled, unknown_field
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress
from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread
from airflow_provider_lakebase.core.errors.catalog import ErrorRule, Retry, describe, find_postgres_rule
from airflow_provider_lakebase.core.sql.binding import register_types
from airflow_provider_lakebase.exceptions import (
    NO_CONTEXT,
    LakebaseEndpointNotFoundError,
    LakebaseOutcomeUnknownError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceUnreachableError,
)

log = logging.getLogger(__name__)

PRODUCT = f"airflow-provider-lakebase/{__version__}"
SPREADING_SECONDS = 60.0
"""Seconds that a fresh role may take to be known to the front end."""
LEAST_ATTEMPT_SECONDS = 1.0
"""Seconds that must be left for another attempt."""
LEAST_ADDRESS_SECONDS = 2
"""Seconds that psycopg gives each address of a host at least."""
HELD_SECONDS = 1.0
"""Seconds after which a login counts as having been held by the front end while the endpoint woke."""
FIRST_LOG_SECONDS = 1.0
"""Seconds of waiting that the log does not mention."""
LOG_SECONDS = 5.0
"""Seconds between the first two lines about the same wait; each later pause is twice the one before."""
MOST_LOG_SECONDS = 40.0
"""Seconds between two lines about the same wait, at most."""

NO_ANSWER = "the workspace has not answered yet"

BACK_OFF = wait_random_exponential(multiplier=0.25, max=8)
_APPLICATION_NAME_BYTES = 63
_DEFAULT_KEYWORDS: Mapping[str, str] = {
    "gssencmode": "disable",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "5",
    "tcp_user_timeout": "30000",
}
# libpq has no keyword that could overrule them: PGSERVICE leads to another server, the others change how values read.
_VARIABLES_WITHOUT_KEYWORD = ("PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO")
# libpq takes no empty value for these, and says nothing of its defaults.
_NEUTRAL_KEYWORDS: Mapping[str, str] = {
    "connect_timeout": "0",
    "max_protocol_version": "3.0",
    "min_protocol_version": "3.0",
    "require_auth": "password,scram-sha-256,md5",
    "sslcertmode": "allow",
}
# Without it a statement of a worker that was killed outright runs on until it next writes to the lost session.
_NO_FILE = os.path.join(os.devnull, "none")
_ABANDONED_SESSION_OPTION = "-c client_connection_check_interval=2s"
_READ_ONLY_OPTION = "-c default_transaction_read_only=on"


class Locator(Protocol):
    """Return endpoint, host and role within ``timeout`` seconds; look the host up anew when ``again`` is true."""

    def __call__(self, *, timeout: float, again: bool = False) -> SessionAddress: ...


class CredentialMinter(Protocol):
    """Return a new credential within ``timeout`` seconds."""

    def __call__(self, *, timeout: float) -> str: ...


class _TellsLostCommit:
    """Raise LakebaseOutcomeUnknownError when a session is lost between any COMMIT and its answer."""

    context = NO_CONTEXT
    _commit_sent = False

    def _exec_command(self, command: Any, *args: Any, **keywords: Any) -> Any:
        # psycopg sends its own COMMITs through here: of commit(), of ``with`` blocks and of transaction().
        if command == b"COMMIT":
            self.note_commit()
        return super()._exec_command(command, *args, **keywords)  # type: ignore[misc]

    def note_commit(self) -> None:
        """Remember that a COMMIT is on its way; on a closed session there is none."""
        self._commit_sent = not cast(Any, self).closed

    @contextmanager
    def _telling(self) -> Iterator[None]:
        session = cast(Any, self)
        try:
            yield
        except psycopg.OperationalError as error:
            # With a SQLSTATE the server answered, so the transaction did not commit.
            if self._commit_sent and session.closed and error.sqlstate is None:
                self._commit_sent = False
                raise LakebaseOutcomeUnknownError(
                    f"The session was lost after COMMIT was sent: {error}",
                    context=self.context,
                    hint="Look at the target before running it again, unless it may run twice.",
                ) from error
            self._forget_commit()
            raise
        except psycopg.Error:
            self._forget_commit()
            raise
        else:
            self._forget_commit()

    def _forget_commit(self) -> None:
        pipeline = cast(Any, self)._pipeline
        # In a pipeline its answer comes later.
        if pipeline is None or not (pipeline.command_queue or pipeline.result_queue):
            self._commit_sent = False


# A COMMIT at the start of a statement. END ends a block too, within a body in dollar quotes.
_COMMIT = re.compile(r"(?:^|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:commit|end(?![^$]*\$))\b", re.IGNORECASE | re.DOTALL)


def _is_commit(query: Any, session: Any) -> bool:
    if isinstance(query, sql.Composable):
        query = query.as_string(session)
    if isinstance(query, bytes):
        query = query.decode("utf-8", "replace")
    return isinstance(query, str) and _COMMIT.search(query) is not None


class _Cursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, *args: Any, **keywords: Any) -> Any:
        if _is_commit(query, self.connection):
            cast(_TellsLostCommit, self.connection).note_commit()
        return super().execute(query, *args, **keywords)


class _AsyncCursor(psycopg.AsyncCursor[Any]):
    async def execute(self, query: Any, *args: Any, **keywords: Any) -> Any:
        if _is_commit(query, self.connection):
            cast(_TellsLostCommit, self.connection).note_commit()
        return await super().execute(query, *args, **keywords)


class LakebaseSession(_TellsLostCommit, psycopg.Connection[tuple[Any, ...]]):
    """A psycopg connection that says when nobody can know whether a COMMIT was applied."""

    before_commit: Callable[[], None] = staticmethod(lambda: None)
    """Called before each commit; raises when there shall be none."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.cursor_factory = _Cursor

    def commit(self) -> None:
        """Commit the transaction.

        :raises LakebaseOutcomeUnknownError: when the session was lost between COMMIT and its answer
        """
        self.before_commit()
        super().commit()

    def wait(self, *args: Any, **keywords: Any) -> Any:
        """Wait for the server, as psycopg does for all that it sends.

        :raises LakebaseOutcomeUnknownError: when the session was lost between a COMMIT and its answer
        """
        with self._telling():
            return super().wait(*args, **keywords)


class AsyncLakebaseSession(_TellsLostCommit, psycopg.AsyncConnection[tuple[Any, ...]]):
    """The asynchronous twin of :class:`LakebaseSession`."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.cursor_factory = _AsyncCursor

    async def wait(self, *args: Any, **keywords: Any) -> Any:
        """Wait for the server, as psycopg does for all that it sends.

        :raises LakebaseOutcomeUnknownError: when the session was lost between a COMMIT and its answer
        """
        with self._telling():
            return await super().wait(*args, **keywords)


Session = TypeVar("Session", bound=LakebaseSession)
AsyncSession = TypeVar("AsyncSession", bound=AsyncLakebaseSession)


def open_session(
    settings: LakebaseSettings,
    *,
    locate: Locator,
    mint: CredentialMinter,
    application_name: str = PRODUCT,
    session_class: type[Session],
    diagnose: Callable[[], str] = lambda: "",
) -> Session:
    """Open a session, waiting for a sleeping endpoint to wake.

    Every attempt mints a new credential. Attempts go on, with exponential back-off and full jitter, only while the
    failure is one that passes by itself, and never longer than ``settings.wake_timeout`` seconds altogether, calls to
    the workspace included.

    :param settings: database, TLS and libpq keywords
    :param locate: finds endpoint, host and role
    :param mint: mints a credential
    :param application_name: what ``pg_stat_activity`` shows
    :param session_class: class of the connection to return
    :param diagnose: returns why the workspace cannot be reached, or nothing
    :raises LakebaseWakeTimeoutError: when no session could be opened in time
    :raises LakebaseAuthenticationError: when Postgres refused the login
    :raises LakebaseEndpointDisabledError: when the endpoint is disabled
    :raises LakebaseWorkspaceError: when the workspace refused, or did not answer in time
    :raises LakebaseSettingsError: when the settings cannot work
    :raises psycopg.OperationalError: for a text whose cause is not known
    """
    opening = _Opening(settings, locate, mint, libpq_keywords(settings, application_name), diagnose)
    retrying = Retrying(**opening.policy())
    with opening.telling():
        return cast(Session, retrying(opening.attempt, session_class))


async def open_async_session(
    settings: LakebaseSettings,
    *,
    locate: Locator,
    mint: CredentialMinter,
    application_name: str = PRODUCT,
    session_class: type[AsyncSession],
    diagnose: Callable[[], str] = lambda: "",
) -> AsyncSession:
    """Open a session as :func:`open_session` does, without blocking the event loop.

    The workspace is asked in threads. Arguments and errors are those of :func:`open_session`.
    """
    opening = _Opening(settings, locate, mint, libpq_keywords(settings, application_name), diagnose)
    retrying = AsyncRetrying(**opening.policy())
    with opening.telling():
        return await retrying(opening.attempt_async, session_class)


def libpq_keywords(settings: LakebaseSettings, application_name: str) -> dict[str, str]:
    """Return every libpq keyword of a session but host, user and password.

    A ``PG*`` variable of the environment is met with libpq's own default, so that it changes nothing.

    :param settings: database, TLS and libpq keywords
    :param application_name: what ``pg_stat_activity`` shows
    :raises LakebaseSettingsError: for a keyword that libpq does not know, or when a variable like PGSERVICE is set
    """
    defaults = Conninfo.get_defaults()
    known = {option.keyword.decode() for option in defaults}
    for name in settings.libpq:
        if name not in known:
            raise unknown_field(settings.conn_id, name, known - RESERVED_LIBPQ_KEYWORDS)
    for variable in _VARIABLES_WITHOUT_KEYWORD:
        if variable in os.environ:
            raise LakebaseSettingsError(
                f"{variable} is set in the environment, where libpq obeys it beside any connection",
                context=settings.context,
                hint=f"Unset {variable} in the worker's environment.",
            )
    shut_out = {
        (keyword := option.keyword.decode()): (option.compiled or b"").decode() or _NEUTRAL_KEYWORDS.get(keyword, "")
        for option in defaults
        if option.envvar and option.envvar.decode() in os.environ
    }
    return {
        **shut_out,
        **_DEFAULT_KEYWORDS,
        **settings.libpq,
        **_tls_keywords(settings),
        **_options(settings),
        "dbname": settings.database,
        "port": str(settings.port),
        "application_name": application_name,
        # psycopg and the files of a load are read and written in it, whatever the role or the database has by default.
        "client_encoding": "UTF8",
    }


def name_application(variables: Mapping[str, str]) -> str:
    """Return an ``application_name`` of at most 63 bytes, the most Postgres keeps, that ends with the task.

    Behind the task stand six hexadecimal digits that tell its run apart, and the number of the try.

    :param variables: the environment, where Airflow tells a task about itself in ``AIRFLOW_CTX_…``
    """
    dag_id, task_id = variables.get("AIRFLOW_CTX_DAG_ID"), variables.get("AIRFLOW_CTX_TASK_ID")
    if not dag_id or not task_id:
        return PRODUCT
    run = variables.get("AIRFLOW_CTX_DAG_RUN_ID", "")
    mark = f"#{zlib.crc32(run.encode()) & 0xFFFFFF:06x}.{variables.get('AIRFLOW_CTX_TRY_NUMBER', '')}"
    return _name(dag_id, task_id, mark)


def name_statements(dag_id: str, task_id: str, identity: str) -> str:
    """Return an ``application_name`` that all tries of a task instance have and no other task instance.

    :param dag_id: the DAG's id
    :param task_id: the task's id
    :param identity: the task instance's identity
    """
    return _name(dag_id, task_id, f"#{hashlib.sha256(identity.encode()).hexdigest()[:12]}")


def _name(dag_id: str, task_id: str, mark: str) -> str:
    room = _APPLICATION_NAME_BYTES - len(PRODUCT) - 1 - len(mark)
    task = f"{dag_id}.{task_id}".encode("ascii", "replace").decode()
    return f"{PRODUCT} {task[-room:]}{mark}"


def _tls_keywords(settings: LakebaseSettings) -> dict[str, str]:
    # What lies in ~/.postgresql by libpq's own names is not part of the connection.
    files = {name: settings.libpq.get(name, _NO_FILE) for name in ("sslcert", "sslkey", "sslcrl")}
    keywords = {"sslmode": settings.sslmode, "sslrootcert": _NO_FILE, **files}
    if settings.sslrootcert:
        keywords["sslrootcert"] = settings.sslrootcert
    elif settings.sslmode != "require":
        keywords["sslrootcert"] = certifi.where()
    return keywords


def _options(settings: LakebaseSettings) -> dict[str, str]:
    # A pooled host refuses the start-up parameter itself.
    own = (
        []
        if is_pooled(settings.pg_host)
        else [_ABANDONED_SESSION_OPTION, *([_READ_ONLY_OPTION] if settings.read_only else [])]
    )
    return {"options": " ".join(filter(None, [*own, settings.libpq.get("options", "")]))}


class _Opening:
    """The attempts to open one session, and what was learnt from those before."""

    def __init__(
        self,
        settings: LakebaseSettings,
        locate: Locator,
        mint: CredentialMinter,
        keywords: Mapping[str, str],
        diagnose: Callable[[], str],
    ) -> None:
        self.diagnose = diagnose
        self.settings = settings
        self.locate = locate
        self.mint = mint
        self.keywords = keywords
        self.started_at = time.monotonic()
        self.connecting_since = self.started_at
        self.look_up_again = False
        self.looked_up = False
        self.located = False
        self.was_waking = False
        self.refused = 0
        self.cause: ErrorRule | None = None
        self.login_error: psycopg.OperationalError | None = None
        self.waits_for = NO_ANSWER
        self.spreading_since: float | None = None

    def policy(self) -> dict[str, Any]:
        # An attempt that has no time to mint and to connect would hide the cause of those before.
        last_start = max(self.settings.wake_timeout - LEAST_ATTEMPT_SECONDS, self.settings.wake_timeout / 2)
        return {
            "retry": self.may_try_again,
            "wait": lambda state: min(BACK_OFF(state), max(last_start - self.seconds() - 0.01, 0)),
            "stop": stop_before_delay(last_start),
            "reraise": True,
        }

    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def left(self) -> float:
        return max(self.settings.wake_timeout - self.seconds(), 0.1)

    def attempt(self, session_class: type[Session]) -> Session:
        try:
            # The credential gets no name here, or a traceback with the values of variables would show it.
            session = session_class.connect(**self.arguments())
        except BaseException as error:
            # psycopg's frames hold the credential, and the socket of a connection that timed out.
            raise error.with_traceback(None)  # noqa: B904
        self.ready(session)
        return session

    async def attempt_async(self, session_class: type[AsyncSession]) -> AsyncSession:
        try:
            session = await session_class.connect(**await run_in_daemon_thread(self.arguments))
        except BaseException as error:
            raise error.with_traceback(None)  # noqa: B904
        self.ready(session)
        return session

    def arguments(self) -> dict[str, Any]:
        look_up, self.look_up_again = self.look_up_again, False
        self.located = False
        location = self.locate(timeout=self.left(), again=look_up)
        self.located = True
        addresses = [] if self.keywords.get("hostaddr") else _resolve(location.host, self.left())
        arguments = {
            "conninfo": make_conninfo(**self.keywords),
            "host": location.host,
            "user": location.user,
            # The last step that can fail, so that no traceback of one shows its value.
            "password": self.mint(timeout=self.left()),
        }
        self.connecting_since = time.monotonic()
        if self.waits_for == NO_ANSWER:
            self.waits_for = "it is waking"
        # psycopg gives every address of the host this time, and not less than two seconds.
        addresses = addresses[: max(int(self.left() / LEAST_ADDRESS_SECONDS), 1)]
        if addresses:
            arguments["hostaddr"] = ",".join(addresses)
            arguments["host"] = ",".join([location.host] * len(addresses))
        return {
            **arguments,
            "connect_timeout": max(round(self.left()) // max(len(addresses), 1), LEAST_ADDRESS_SECONDS),
        }

    def ready(self, session: LakebaseSession | AsyncLakebaseSession) -> None:
        session.context = self.settings.context
        register_types(session.adapters)

    def may_try_again(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, LakebaseWorkspaceError):
            if isinstance(error, LakebaseEndpointNotFoundError) and self.located and not self.looked_up:
                # What was found earlier is gone; a branch may have another endpoint by now.
                self.look_up_again = self.looked_up = True
                return True
            self.waits_for = "the workspace does not answer as it should"
            return error.retryable and not isinstance(error, LakebaseWorkspaceUnreachableError)
        if not isinstance(error, psycopg.OperationalError):
            return False
        self.login_error, self.cause = error, find_postgres_rule(str(error))
        if self.cause is None:
            return False
        self.waits_for = self.cause.meaning
        retry = self.cause.retry
        self.was_waking |= retry is Retry.WAKING or time.monotonic() - self.connecting_since >= HELD_SECONDS
        self.refused += retry is Retry.IF_WAKING
        if retry is Retry.ROLE_PROPAGATING and self.spreading_since is None:
            self.spreading_since = self.seconds()
        # A branch reset moves the host, so one that leads nowhere is looked up once more.
        lost = self.cause.error is LakebaseEndpointNotFoundError and not self.settings.pg_host
        if not self.looked_up and (lost or retry is Retry.WAKING):
            self.look_up_again = self.looked_up = True
            return True
        return (
            retry is Retry.WAKING
            or (retry is Retry.ROLE_PROPAGATING and self.is_spreading())
            or (retry is Retry.IF_WAKING and self.was_waking and self.refused == 1)
        )

    def is_spreading(self) -> bool:
        return self.spreading_since is not None and self.seconds() - self.spreading_since < SPREADING_SECONDS

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say that the block waits, and at its end why it failed.

        The front end holds a connection until the endpoint wakes, so a wait need not be between two attempts.
        """
        done = threading.Event()
        thread = threading.Thread(target=self.tell, args=(done,), name="lakebase-waiting", daemon=True)
        thread.start()
        try:
            yield
        except (psycopg.OperationalError, LakebaseWorkspaceError) as error:
            if (explained := self.explain(error)) is error:
                raise
            raise explained from error
        finally:
            done.set()
            thread.join()

    def tell(self, done: threading.Event) -> None:
        pause = FIRST_LOG_SECONDS
        while not done.wait(pause):
            pause = LOG_SECONDS if pause == FIRST_LOG_SECONDS else min(2 * pause, MOST_LOG_SECONDS)
            name = self.settings.endpoint or self.settings.pg_host
            reason = self.waits_for
            if reason == NO_ANSWER and (obstacle := self.diagnose()):
                reason = f"the workspace cannot be reached: {obstacle}"
            if not done.is_set():
                log.info("Waiting for endpoint %s, %.0f s so far: %s", name, self.seconds(), reason)

    def explain(self, error: psycopg.OperationalError | LakebaseWorkspaceError) -> Exception:
        """Return what to raise for the error that ended the attempts."""
        if isinstance(error, LakebaseWorkspaceError):
            passing = self.cause is not None and self.cause.retry in (Retry.WAKING, Retry.ROLE_PROPAGATING)
            if self.login_error is None or not error.retryable or not passing:
                return error
            error = self.login_error
        if self.cause is None:
            error.add_note(str(self.settings.context))
            return error
        kind, what = self.cause.error, describe(self.cause, str(error))
        if self.cause.retry is Retry.WAKING or (self.cause.retry is Retry.ROLE_PROPAGATING and self.is_spreading()):
            kind, what = LakebaseWakeTimeoutError, f"No session within {self.settings.wake_timeout:.3g} s. {what}"
        return kind(what, context=self.settings.context, hint=self.cause.hint)


def _resolve(host: str, timeout: float) -> list[str]:
    """Return the addresses of a host; none where the connection is to say in libpq's words that there are none.

    :param host: name of the Postgres host
    :param timeout: seconds that it may take; the resolver has no deadline of its own
    :raises psycopg.errors.ConnectionTimeout: when it takes longer
    """
    found: list[str] = []

    def resolve() -> None:
        with suppress(OSError):
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))

    thread = threading.Thread(target=resolve, name="lakebase-resolving", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise psycopg.errors.ConnectionTimeout(
            f'could not translate host name "{host}" to address: no answer in {timeout:.0f} s'
        )
    return found
