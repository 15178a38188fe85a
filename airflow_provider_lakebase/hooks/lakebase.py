"""The hook: wires the path from an Airflow connection to an open session.

It is imported by every DAG file that uses the provider, so the parts that load databricks-sdk, psycopg or SQLAlchemy
are imported inside its methods, and nowhere else outside them.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_lakebase.core.connection.fields import CONNECTION_TYPE, DEFAULT_CONN_ID, unknown_field
from airflow_provider_lakebase.core.connection.settings import (
    ConnectionFields,
    LakebaseSettings,
    databricks_conn_id,
    read_settings,
)
from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread
from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.core.sql.split import split_statements
from airflow_provider_lakebase.dialect import LakebaseDialect
from airflow_provider_lakebase.exceptions import (
    ErrorContext,
    LakebaseError,
    LakebaseSettingsError,
)
from airflow_provider_lakebase.hooks._connection_check import ConnectionCheck
from airflow_provider_lakebase.hooks._connection_form import form_widgets, ui_field_behaviour
from airflow_provider_lakebase.hooks._loading import LoadingHook
from airflow_provider_lakebase.hooks._masking import mask, mask_async, mask_credential, mask_credentials_async

if TYPE_CHECKING:
    import psycopg
    from airflow.providers.common.compat.sdk import Connection
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from airflow_provider_lakebase.core.factory import SessionFactory
    from airflow_provider_lakebase.core.grants import RoleRequest
    from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession, LakebaseSession
    from airflow_provider_lakebase.core.session.pool import AsyncLakebaseConnectionPool, LakebaseConnectionPool
    from airflow_provider_lakebase.core.workspace.endpoints import EndpointStatus

STATEMENT_LOG_CHARACTERS = 200
"""Characters of a statement that the log shows."""
READ_ONLY_SQLSTATE = "25006"
PERMANENT_SQLSTATES = ("42", "0A", READ_ONLY_SQLSTATE)
"""What SQLSTATEs of statements begin with that no retry can help."""
CANCEL_SECONDS = 5.0
"""Seconds that the server gets to take a cancellation."""


class LakebaseHook(LoadingHook):
    """Run SQL on Databricks Lakebase.

    Every session gets a database credential of its own, minted for it through databricks-sdk and kept nowhere.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param endpoint: ``projects/<project>/branches/<branch>/endpoints/<endpoint>``, in place of the connection's
    :param database: database, in place of the connection's; ``schema``, common-sql's word for it, does the same
    :param options: libpq's ``options``, for example ``-c statement_timeout=5min -c search_path=sales``
    :param read_only: whether sessions only read, on the read-only host where there is one; in place of the connection's
    :raises LakebaseSettingsError: for ``conn_id`` and ``postgres_conn_id``, which are other hooks' names
    """

    conn_name_attr = "lakebase_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = "Databricks Lakebase"
    supports_autocommit = True
    supports_executemany = True
    dialect_name = "postgresql"

    def __init__(
        self,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        database: str | None = None,
        options: str | None = None,
        read_only: bool | None = None,
        *,
        schema: str | None = None,
        log_sql: bool = True,
        connection: Connection | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("conn_id", "postgres_conn_id"):
            if name in kwargs:
                raise LakebaseSettingsError(
                    f"{name} is not an argument of LakebaseHook",
                    hint="Use lakebase_conn_id, with a connection of type 'lakebase'.",
                )
        super().__init__(lakebase_conn_id=lakebase_conn_id, log_sql=log_sql, connection=connection)
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.database = database or schema
        self.options = options
        self.read_only = read_only
        # common-sql copies every extra of the connection into the constructor. They are checked against the
        # connection once it is known, so that a misspelt argument is still found.
        self._copied = frozenset(kwargs)
        self._in_use: set[psycopg.Connection[Any]] = set()
        self._cancelled = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process: its logger and its open sessions."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_log"}
        return {**kept, "_in_use": set()}

    @property
    def schema(self) -> str | None:
        """The database: common-sql's checks set it by this name."""
        return self.database

    @schema.setter
    def schema(self, value: str | None) -> None:
        self.database = value

    @property
    def settings(self) -> LakebaseSettings:
        """Read the connection and what the hook was given beside it.

        :raises LakebaseSettingsError: when a field is missing, wrong or unknown
        """
        return self._read_settings(self.get_conn_id())

    def _read_settings(self, conn_id: str) -> LakebaseSettings:
        """Read them under the given connection id, which messages quote."""
        fields = _fields(conn_id, self.connection, CONNECTION_TYPE)
        source = databricks_conn_id(fields)
        databricks = _fields(source, self.get_connection(source), "databricks") if source else None
        settings = self._combine(fields, databricks)
        for secret in settings.secrets:
            mask(secret)
        return settings

    async def read_settings_async(self) -> LakebaseSettings:
        """Read the same as :attr:`settings` without blocking the event loop, as a trigger must.

        :raises LakebaseSettingsError: when a field is missing, wrong or unknown
        """
        from airflow.providers.common.compat.connection import get_async_connection

        conn_id = self.get_conn_id()
        fields = _fields(conn_id, await get_async_connection(conn_id), CONNECTION_TYPE)
        source = databricks_conn_id(fields)
        databricks = _fields(source, await get_async_connection(source), "databricks") if source else None
        settings = self._combine(fields, databricks)
        await mask_async(settings.secrets)
        return settings

    def _combine(self, fields: ConnectionFields, databricks: ConnectionFields | None) -> LakebaseSettings:
        for name in sorted(self._copied - set(fields.extra)):
            raise unknown_field(fields.conn_id, name, ("endpoint", "database", "options", "read_only", "log_sql"))
        settings = read_settings(fields, endpoint=self.endpoint, read_only=self.read_only, databricks=databricks)
        # common-sql hands over the connection's own options as well.
        options = None if self.options == settings.session.libpq.get("options") else self.options
        return settings.override(database=self.database, options=options)

    def get_conn(self) -> LakebaseSession:
        """Open a session with a new credential, waiting for a sleeping endpoint to wake.

        :raises LakebaseError: typed by cause, when no session can be had
        :returns: an open ``psycopg.Connection``, not in autocommit; the caller closes it
        """
        return self.open(self.settings)

    def open(self, settings: LakebaseSettings) -> LakebaseSession:
        """Open a session as :meth:`get_conn` does, by settings that the caller has changed.

        :param settings: for example :attr:`settings` with another ``wake_timeout``
        """
        from airflow_provider_lakebase.core.session.connections import LakebaseSession

        return self._session_factory(settings).open(LakebaseSession)

    @asynccontextmanager
    async def open_async(
        self, settings: LakebaseSettings, application_name: str | None = None
    ) -> AsyncIterator[AsyncLakebaseSession]:
        """Open a session for the block without blocking the event loop, as :meth:`open` does.

        :param settings: from :meth:`read_settings_async`
        :param application_name: what ``pg_stat_activity`` shows; by default as of every session of this process
        :raises LakebaseError: typed by cause, when no session can be had
        """
        secrets: list[str] = []
        # It imports what takes seconds to.
        session_factory = await run_in_daemon_thread(
            partial(self._session_factory, settings, application_name, secrets.append)
        )
        from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession

        try:
            session = await session_factory.open_async(AsyncLakebaseSession)
        except BaseException:
            await mask_credentials_async(secrets)
            raise
        try:
            # Here, since it speaks to the triggerer's supervisor, which the opener's threads must not do.
            await mask_credentials_async(secrets)
            yield session
        finally:
            await session.close()

    def _session_factory(
        self,
        settings: LakebaseSettings | None = None,
        application_name: str | None = None,
        on_secret: Callable[[str], None] | None = None,
    ) -> SessionFactory:
        from airflow_provider_lakebase.core.factory import SessionFactory
        from airflow_provider_lakebase.core.session.application_name import name_application

        return SessionFactory(
            settings or self.settings,
            application_name=application_name or name_application(os.environ),
            on_secret=on_secret or mask_credential,
            on_notice=self._log_notice,
        )

    def connection_pool(self, min_size: int = 1, max_size: int = 10) -> LakebaseConnectionPool:
        """Return an open pool of sessions, a ``psycopg_pool.ConnectionPool``; close it, or use it with ``with``.

        Each connection has a credential of its own, is replaced after 45 minutes, closed after 15 without use, and
        checked when it is handed out, so that a suspend is not noticed.

        :param min_size: connections kept open
        :param max_size: connections at most
        :raises LakebaseError: why the first connection could not be had
        """
        return self._session_factory().pool(min_size, max_size)

    def async_connection_pool(self, min_size: int = 1, max_size: int = 10) -> AsyncLakebaseConnectionPool:
        """Return the asynchronous twin of :meth:`connection_pool`; open it with ``async with``.

        :param min_size: connections kept open
        :param max_size: connections at most
        """
        return self._session_factory().async_pool(min_size, max_size)

    def libpq_environment(self) -> dict[str, str]:
        """Return ``PGHOST … PGPASSWORD`` for psql, pg_dump or dbt, with a new credential; it wakes nothing.

        The credential opens sessions until it expires, 60 minutes at most. Hand the variables to the program alone.

        :raises LakebaseError: typed by cause, when the workspace gives no host or no credential
        """
        variables = self._session_factory().libpq_environment()
        mask(variables["PGPASSWORD"])
        return variables

    def endpoint_status(self, *, timeout: float = 30.0) -> EndpointStatus:
        """Return the endpoint's state as the workspace tells it, without waking it.

        :param timeout: seconds that it may take
        :raises LakebaseEndpointNotFoundError: when there is no such endpoint
        :raises LakebaseWorkspaceError: when the workspace refuses otherwise
        """
        from airflow_provider_lakebase.core.workspace.client import Workspace
        from airflow_provider_lakebase.core.workspace.endpoints import read_endpoint

        settings = self.settings
        return read_endpoint(Workspace.of(settings), settings.require_endpoint(), timeout=timeout)

    def endpoint_is_ready(self, *, wake: bool = True, timeout: float = 10.0) -> bool:
        """Make one attempt to find the endpoint ACTIVE, with a session that answers.

        :param wake: knock with a connection, which wakes it; else only read its state and open no session
        :param timeout: seconds that the attempt may take
        :raises LakebaseEndpointDisabledError: when it is disabled, so that waiting is of no use
        :raises LakebaseError: for any other failure that does not pass by itself
        """
        started_at = time.monotonic()
        settings = self.settings
        status = self.endpoint_status(timeout=timeout)
        status.require_enabled(settings.context)
        self.log.info("Endpoint %s is %s", settings.endpoint, status.state)
        if not wake:
            return status.state == "ACTIVE"
        left = max(timeout - (time.monotonic() - started_at), 1.0)
        try:
            with closing(self.open(settings.with_wake_timeout(min(left, settings.session.wake_timeout)))) as connection:
                connection.execute("SELECT 1")
        except Exception as error:
            if not is_transient(error):
                raise
            self.log.info("It does not answer yet: %s", error)
            return False
        return True

    def cancel(self) -> None:
        """Cancel, on the server, what this hook is running, and whatever it is about to run."""
        self._cancelled = True
        for connection in list(self._in_use):
            _cancel(connection)

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise AirflowException("Cancelled before it was done")

    def bootstrap_role(self, request: RoleRequest) -> dict[str, Any]:
        """Make an identity's Postgres role and grants, idempotently; the report is as LakebaseRoleBootstrapOperator's.

        :param request: who gets what
        :raises LakebaseRoleError: when the role or a grant cannot be had; nothing was changed
        :returns: a report of what was found and done
        """
        from airflow_provider_lakebase.core.grants import bootstrap_role

        with self._create_autocommit_connection() as connection:
            return bootstrap_role(connection, request, context=connection.context)

    # ── DbApiHook's contract ──

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection form's own fields to an Airflow before 3.2; later ones know them without the hook.

        :raises ModuleNotFoundError: where WTForms or Flask-AppBuilder is missing, as it is where nobody sees forms
        """
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the fields that every connection has, to an Airflow before 3.2."""
        return ui_field_behaviour()

    @cached_property
    def dialect(self) -> LakebaseDialect:
        """Return Postgres's SQL for ``insert_rows``."""
        return LakebaseDialect(self)

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override]  # its base has no annotation
        """Walk the path from settings to a session and say at which stage it ends.

        The stages: settings, workspace, identity, endpoint, credential, network, login. The reply takes less than 15
        seconds, unless the endpoint sleeps, and names no connection id: the Test button's is made up.

        :returns: whether a session was opened, and a sentence for the user
        """
        check = ConnectionCheck(partial(self._read_settings, ""), self.open)
        try:
            return True, check.walk()
        except Exception as error:
            return False, f"Failed at the stage '{check.stage}'. {error}"

    def get_uri(self) -> str:
        """Return where and as whom a session is opened, as libpq writes it, without a password.

        :raises LakebaseError: when the host must be looked up and cannot be
        """
        return self._session_factory().uri()

    @property
    def sqlalchemy_url(self) -> URL:
        """Return the URL of :meth:`get_sqlalchemy_engine`, without a password."""
        return self._session_factory().sqlalchemy_url()

    def get_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> Engine:
        """Return a SQLAlchemy engine that opens every session with a new credential.

        :param engine_kwargs: keywords of :func:`sqlalchemy.create_engine`
        :raises LakebaseSettingsError: on SQLAlchemy 1.4, which has no dialect for psycopg 3
        """
        return self._session_factory().engine(engine_kwargs)

    def get_async_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> AsyncEngine:
        """Return the asynchronous twin of :meth:`get_sqlalchemy_engine`.

        :param engine_kwargs: keywords of :func:`sqlalchemy.ext.asyncio.create_async_engine`
        :raises LakebaseSettingsError: on SQLAlchemy 1.4, which has no dialect for psycopg 3
        """
        return self._session_factory().async_engine(engine_kwargs)

    @contextmanager
    def _create_autocommit_connection(self, autocommit: bool = False) -> Iterator[LakebaseSession]:
        """Open a session for the block; what it leaves running when it ends by an exception is cancelled."""
        with closing(self.get_conn()) as connection:
            connection.autocommit = autocommit
            # A task that is killed after its last statement must not commit it.
            connection.before_commit = self._check_cancelled
            self._in_use.add(connection)
            try:
                # The task may have been killed while the endpoint woke.
                self._check_cancelled()
                yield connection
            except BaseException as error:
                # A timeout arrives as an exception; closing the socket alone would let the statement run on. It must
                # stay what is raised, even where the server cannot be reached any more.
                with suppress(Exception):
                    _cancel(connection)
                _annotate(error, connection.context)
                raise
            finally:
                self._in_use.discard(connection)

    def _run_command(self, cur: psycopg.Cursor[Any], sql_statement: str, parameters: Any) -> None:
        if self.log_sql:
            self.log.info("Running statement: %s", shorten_statement(sql_statement))
        from airflow_provider_lakebase.core.sql.binding import bind, check_encoding, hide_values

        self._check_cancelled()
        with hide_values(parameters):
            cur.execute(bind(cur.connection, sql_statement, parameters).encode())
            # Of several statements in one string, the last one's result counts, as everywhere in DbApiHook.
            while cur.nextset():
                pass
        check_encoding(cur.connection)
        send_sql_hook_lineage(context=self, sql=sql_statement, cur=cur)
        if cur.rowcount >= 0:
            self.log.info("Rows affected: %s", cur.rowcount)

    @staticmethod
    def split_sql_string(sql: str, strip_semicolon: bool = False) -> list[str]:
        """Split a text into its statements where Postgres ends one.

        :param sql: SQL
        :param strip_semicolon: whether the statements come without the semicolon at their end
        """
        return [f"{each.text}{'' if strip_semicolon else ';'}" for each in split_statements(sql)]

    def _log_notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self.log.info("%s: %s", diagnostic.severity, diagnostic.message_primary)


def shorten_statement(statement: str) -> str:
    """Return the beginning of a statement on one line, for the log.

    :param statement: SQL text
    """
    text = " ".join(statement.split())
    return text if len(text) <= STATEMENT_LOG_CHARACTERS else f"{text[:STATEMENT_LOG_CHARACTERS]}…"


def merge_hook_params(hook_params: Any, **own: Any) -> dict[str, Any]:
    """Return the hook's arguments: those that an operator has itself, and those in its ``hook_params``.

    :param hook_params: a dict, or None
    :param own: the operator's ``endpoint``, ``database`` and ``read_only``, None where they are not given
    :raises LakebaseSettingsError: when one is given in both places, the connection is named, or it is no dict
    """
    if not isinstance(hook_params or {}, Mapping):
        raise LakebaseSettingsError(
            f"hook_params is a {type(hook_params).__name__}",
            hint="""Give a dict, as {"options": "-c statement_timeout=5min"}.""",
        )
    merged = {name: value for name, value in own.items() if value is not None}
    for name, value in (hook_params or {}).items():
        if name in ("lakebase_conn_id", "conn_id", "postgres_conn_id"):
            raise LakebaseSettingsError(
                f"hook_params names {name}", hint="Give lakebase_conn_id to the operator or sensor itself."
            )
        if value is None:
            continue
        argument = "database" if name == "schema" else name
        if argument in merged:
            raise LakebaseSettingsError(
                f"{argument} is given twice, the second time as '{name}' in hook_params", hint="Give it once."
            )
        merged[argument] = value
    return merged


@contextmanager
def fail_without_retry() -> Iterator[None]:
    """Turn the errors that no retry can help into ``AirflowFailException``, so that a task does not spend retries.

    Those are each :class:`LakebaseError` that is not retryable, and what Postgres refuses for the statement itself or
    for the role that runs it: SQLSTATEs of class 42 (syntax, names, privileges) and 0A, and a write in a read-only
    transaction. What depends on the rows in the database (classes 22 and 23) is raised as it is: they may change.

    :raises AirflowFailException: with the same message, from such an error
    """
    try:
        yield
    except Exception as error:
        if not _is_permanent(error):
            raise
        raise AirflowFailException("\n".join([str(error), *getattr(error, "__notes__", ())])) from error


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, LakebaseError):
        return not error.retryable
    sqlstate = str(getattr(error, "sqlstate", None) or "")
    return sqlstate.startswith(PERMANENT_SQLSTATES)


def _fields(conn_id: str, connection: Connection, conn_type: str) -> ConnectionFields:
    if connection.conn_type != conn_type:
        name = f"Connection '{conn_id}'" if conn_id else "Connection"
        raise LakebaseSettingsError(
            f"{name} is of type '{connection.conn_type}'",
            hint=f"Name a connection of type '{conn_type}'.",
        )
    return ConnectionFields(
        conn_id=conn_id,
        host=connection.host,
        login=connection.login,
        password=connection.password,
        schema=connection.schema,
        port=connection.port,
        extra=connection.extra_dejson,
    )


def _annotate(error: BaseException, context: ErrorContext) -> None:
    """Add to an error of a SQL statement, which is raised as it is, where it happened."""
    if hasattr(error, "sqlstate"):
        error.add_note(str(context))
    if getattr(error, "sqlstate", None) == READ_ONLY_SQLSTATE:
        error.add_note("The session only reads: write on a connection or hook without 'read_only'.")


def _cancel(connection: psycopg.Connection[Any]) -> None:
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status is TransactionStatus.ACTIVE:
        connection.cancel_safe(timeout=CANCEL_SECONDS)
