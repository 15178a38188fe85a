"""The hook: wires the path from an Airflow connection to an open session.

It is imported by every DAG file that uses the provider, so the parts that load databricks-sdk, psycopg or SQLAlchemy
are imported inside its methods, and nowhere else outside them.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook
from more_itertools import chunked

from airflow_provider_lakebase.dialect import LakebaseDialect
from airflow_provider_lakebase.exceptions import (
    LakebaseEndpointDisabledError,
    LakebaseError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
)
from airflow_provider_lakebase.settings import (
    CONNECTION_TYPE,
    DEFAULT_CONN_ID,
    LakebaseSettings,
    read_settings,
    unknown_field,
)

if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk.log import mask_secret
else:  # goes with Airflow 2
    from airflow.utils.log.secrets_masker import mask_secret  # type: ignore[import-not-found,no-redef]

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from airflow.providers.common.compat.sdk import Connection
    from sqlalchemy.engine import URL, Engine

    from airflow_provider_lakebase.bulk.files import LoadResult
    from airflow_provider_lakebase.roles import RoleRequest
    from airflow_provider_lakebase.workspace.endpoints import EndpointStatus

STATEMENT_LOG_CHARACTERS = 200
"""Characters of a statement that the log shows."""
CANCEL_SECONDS = 5.0
"""Seconds that the server gets to take a cancellation."""


class LakebaseHook(DbApiHook):
    """Run SQL on Databricks Lakebase.

    Every session gets a database credential of its own, minted for it through databricks-sdk and kept nowhere.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param endpoint: ``projects/<project>/branches/<branch>/endpoints/<endpoint>``, in place of the connection's
    :param database: database, in place of the connection's; ``schema``, common-sql's word for it, does the same
    :param options: libpq's ``options``, for example ``-c statement_timeout=5min -c search_path=sales``
    """

    conn_name_attr = "lakebase_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = "Databricks Lakebase"
    supports_autocommit = True
    supports_executemany = True
    dialect_name = "postgresql"
    _test_connection_sql = "SELECT current_user, current_database()"

    def __init__(
        self,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        database: str | None = None,
        options: str | None = None,
        *,
        schema: str | None = None,
        log_sql: bool = True,
        connection: Connection | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(lakebase_conn_id=lakebase_conn_id, log_sql=log_sql, connection=connection)
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.database = database or schema
        self.options = options
        # common-sql copies every extra of the connection into the constructor. They are checked against the
        # connection once it is known, so that a misspelt argument is still found.
        self._copied = frozenset(kwargs)
        self._in_use: psycopg.Connection[Any] | None = None

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
        connection = self.connection
        conn_id = self.get_conn_id()
        if connection.conn_type != CONNECTION_TYPE:
            raise LakebaseSettingsError(
                f"Connection '{conn_id}' is of type '{connection.conn_type}'",
                remedy=f"Name a connection of type '{CONNECTION_TYPE}'.",
            )
        extra = connection.extra_dejson
        for name in sorted(self._copied - set(extra)):
            raise unknown_field(conn_id, name, ("endpoint", "database", "options", "log_sql"))
        settings = read_settings(
            conn_id,
            host=connection.host,
            login=connection.login,
            password=connection.password,
            schema=connection.schema,
            port=connection.port,
            extra=extra,
            endpoint=self.endpoint,
        )
        mask_secret(settings.client_secret)
        # common-sql hands over the connection's own options as well.
        options = None if self.options == settings.libpq.get("options") else self.options
        return settings.override(endpoint=self.endpoint, database=self.database, options=options)

    def get_conn(self) -> psycopg.Connection[Any]:
        """Open a session with a new credential, waiting for a sleeping endpoint to wake.

        :raises LakebaseError: typed by cause, when no session can be had
        :returns: an open connection, not in autocommit; the caller closes it
        """
        return self._open(self.settings)

    def _open(self, settings: LakebaseSettings) -> psycopg.Connection[Any]:
        from airflow_provider_lakebase.session.connect import name_application, open_session
        from airflow_provider_lakebase.workspace.credentials import mint_credential
        from airflow_provider_lakebase.workspace.endpoints import find_host

        def mint(*, timeout: float) -> str:
            credential = mint_credential(settings, timeout=timeout)
            mask_secret(credential)
            return credential

        name = name_application(os.environ.get("AIRFLOW_CTX_DAG_ID"), os.environ.get("AIRFLOW_CTX_TASK_ID"))
        session = open_session(settings, find_host=partial(find_host, settings), mint=mint, application_name=name)
        session.add_notice_handler(self._log_notice)
        return session

    def endpoint_status(self, *, timeout: float = 30.0) -> EndpointStatus:
        """Return the endpoint's state as the workspace tells it, without waking it.

        :param timeout: seconds that it may take
        :raises LakebaseEndpointNotFoundError: when there is no such endpoint
        :raises LakebaseWorkspaceError: when the workspace refuses otherwise
        """
        from airflow_provider_lakebase.workspace.endpoints import read_endpoint

        return read_endpoint(self.settings, timeout=timeout)

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
        if status.disabled:
            remedy = "Enable the endpoint in the workspace, or name another one."
            raise LakebaseEndpointDisabledError("The endpoint is disabled", where=settings.where, remedy=remedy)
        self.log.info("Endpoint %s is %s", settings.endpoint, status.state)
        if not wake:
            return status.state == "ACTIVE"
        left = max(timeout - (time.monotonic() - started_at), 1.0)
        try:
            with closing(self._open(replace(settings, wake_timeout=min(left, settings.wake_timeout)))) as connection:
                connection.execute("SELECT 1")
        except LakebaseWakeTimeoutError as error:
            self.log.info("It does not answer yet: %s", error)
            return False
        return True

    def cancel(self) -> None:
        """Cancel, on the server, the statement that this hook is running, if any."""
        if self._in_use is not None:
            _cancel(self._in_use)

    def load(
        self,
        source: str | Path | IO[bytes],
        table: str,
        *,
        mode: Literal["append", "replace"] = "append",
        null: str = "",
    ) -> LoadResult:
        """Load a CSV file into a table by COPY, in one transaction: all of it or nothing.

        :param source: path of a CSV file whose first line names the columns, or such a file opened for reading bytes
        :param table: target, as SQL writes it
        :param mode: ``append``, or ``replace`` for all rows of the table; a retried ``replace`` leaves the same rows
        :param null: the unquoted text that stands for NULL
        :raises LakebaseLoadError: for a row the table cannot take; names line and column, never the value
        :returns: rows, bytes and seconds
        """
        from airflow_provider_lakebase.bulk.files import load_csv

        with self._create_autocommit_connection() as connection:
            result = load_csv(connection, source, table, mode=mode, null=null, where=self.settings.where)
            connection.commit()
        self.log.info("Loaded %d rows, %d bytes into %s in %.1f s", result.rows, result.bytes, table, result.seconds)
        return result

    def bootstrap_role(self, request: RoleRequest) -> dict[str, Any]:
        """Make an identity's Postgres role and grants, idempotently; see :func:`roles.bootstrap_role`.

        :param request: who gets what
        :raises LakebaseRoleError: when the role or a grant cannot be had; nothing was changed
        :returns: a report of what was found and done
        """
        from airflow_provider_lakebase.roles import bootstrap_role

        with self._create_autocommit_connection() as connection:
            return bootstrap_role(connection, request, where=self.settings.where)

    # ── DbApiHook's contract ──

    @cached_property
    def dialect(self) -> LakebaseDialect:
        """Return Postgres's SQL for ``insert_rows``."""
        return LakebaseDialect(self)

    def get_uri(self) -> str:
        """Return where and as whom a session is opened, as libpq writes it, without a password.

        :raises LakebaseError: when the host must be looked up and cannot be
        """
        settings, host = self._settings_and_host()
        return (
            f"postgresql://{quote(settings.user, safe='')}@{host}:{settings.port}/{quote(settings.database, safe='')}"
            f"?sslmode={settings.sslmode}"
        )

    @property
    def sqlalchemy_url(self) -> URL:
        """Return the URL of :meth:`get_sqlalchemy_engine`, without a password."""
        from airflow_provider_lakebase.session.engine import session_url

        return session_url(*self._settings_and_host())

    def get_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> Engine:
        """Return a SQLAlchemy engine that opens every session with a new credential.

        :param engine_kwargs: keywords of :func:`sqlalchemy.create_engine`
        :raises LakebaseSettingsError: on SQLAlchemy 1.4, which has no dialect for psycopg 3
        """
        from airflow_provider_lakebase.session.engine import create_engine

        return create_engine(*self._settings_and_host(), self.get_conn, engine_kwargs)

    def _settings_and_host(self) -> tuple[LakebaseSettings, str]:
        from airflow_provider_lakebase.workspace.endpoints import find_host

        settings = self.settings
        return settings, find_host(settings, timeout=settings.wake_timeout)

    @contextmanager
    def _create_autocommit_connection(self, autocommit: bool = False) -> Iterator[psycopg.Connection[Any]]:
        """Open a session for the block; what it leaves running when it ends by an exception is cancelled."""
        with closing(self.get_conn()) as connection:
            connection.autocommit = autocommit
            self._in_use = connection
            try:
                yield connection
            except BaseException:
                # A timeout arrives as an exception; closing the socket alone would let the statement run on.
                _cancel(connection)
                raise
            finally:
                self._in_use = None

    def _run_command(self, cur: psycopg.Cursor[Any], sql_statement: str, parameters: Any) -> None:
        if self.log_sql:
            self.log.info("Running statement: %s", shorten_statement(sql_statement))
        if not parameters:
            cur.execute(sql_statement.encode())
        elif len(self.split_sql_string(sql_statement)) > 1:
            cur.execute(_bind(cur, sql_statement, parameters))
        else:
            cur.execute(sql_statement.encode(), parameters)
        # Of several statements in one string, the last one's result counts, as everywhere in DbApiHook.
        while cur.nextset():
            pass
        send_sql_hook_lineage(context=self, sql=sql_statement, cur=cur)
        if cur.rowcount >= 0:
            self.log.info("Rows affected: %s", cur.rowcount)

    def insert_rows(
        self,
        table: str,
        rows: Iterable[Iterable[Any]],
        target_fields: list[str] | None = None,
        commit_every: int = 1000,
        replace: bool = False,
        *,
        executemany: bool = False,
        fast_executemany: bool = False,
        autocommit: bool = False,
        **kwargs: Any,
    ) -> None:
        """Insert rows, a chunk a transaction.

        :param table: target, as SQL writes it
        :param rows: the rows, read once
        :param target_fields: their columns, by default all of the table's in its order
        :param commit_every: rows in one transaction; 0 for all in one
        :param replace: update rows whose key exists
        :param executemany: without effect: rows are always sent in batches
        :param fast_executemany: without effect
        :param autocommit: commit each row by itself
        :param kwargs: ``replace_index``, the key's columns, by default the primary key's
        """
        written, statement = 0, None
        with self._create_autocommit_connection(autocommit) as connection, closing(connection.cursor()) as cursor:
            for chunk in chunked(rows, commit_every or None):
                values = [self._serialize_cells(row, connection) for row in chunk]
                statement = self._generate_insert_sql(table, values[0], target_fields, replace, **kwargs)
                cursor.executemany(statement.encode(), values)
                connection.commit()
                written += len(values)
                self.log.info("Loaded %s rows into %s so far", written, table)
        if statement:
            send_sql_hook_lineage(context=self, sql=statement, row_count=written)
        self.log.info("Done loading. Loaded a total of %s rows into %s", written, table)

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """Return the value as it is: psycopg adapts it."""
        return cell

    def get_df(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Any:
        """Run a query and return its rows as a data frame.

        :param sql: the query
        :param parameters: its parameters
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: passed on to :func:`pandas.read_sql` or :func:`polars.read_database`
        """
        read = _by_frame_type(df_type, pandas=self._get_pandas_df, polars=self._get_polars_df)
        frame = read(sql, parameters, **kwargs)
        send_sql_hook_lineage(context=self, sql=sql)
        return frame

    def get_df_by_chunks(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        chunksize: int,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Generator[Any, None, None]:
        """Run a query and yield its rows as data frames, by a server-side cursor.

        :param sql: the query
        :param parameters: its parameters
        :param chunksize: rows in a frame
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: passed on to :func:`pandas.read_sql` or :func:`polars.read_database`
        """
        read = _by_frame_type(df_type, pandas=self._get_pandas_df_by_chunks, polars=self._get_polars_df_by_chunks)
        frames: Generator[Any, None, None] = read(sql, parameters, chunksize=chunksize, **kwargs)
        send_sql_hook_lineage(context=self, sql=sql)
        return frames

    def _get_pandas_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        import pandas

        with self._create_autocommit_connection() as connection, _pandas_takes_any_connection():
            return pandas.read_sql(sql, cast(Any, connection), params=parameters, **kwargs)

    def _get_polars_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        import polars

        with self._create_autocommit_connection() as connection:
            return polars.read_database(sql, connection, execute_options={"params": parameters}, **kwargs)

    def _get_pandas_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        import pandas

        with self._create_autocommit_connection() as connection:
            with _pandas_takes_any_connection():
                session = cast(Any, _Streaming(connection))
                frames = pandas.read_sql(sql, session, params=parameters, chunksize=chunksize, **kwargs)
            yield from frames

    def _get_polars_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        import polars

        with self._create_autocommit_connection() as connection, _Streaming(connection).cursor() as cursor:
            yield from polars.read_database(
                sql,
                cursor,
                iter_batches=True,
                batch_size=chunksize,
                execute_options={"params": parameters},
                **kwargs,
            )

    def _log_notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self.log.info("%s: %s", diagnostic.severity, diagnostic.message_primary)


def shorten_statement(statement: str) -> str:
    """Return the beginning of a statement on one line, for the log.

    :param statement: SQL text
    """
    text = " ".join(statement.split())
    return text if len(text) <= STATEMENT_LOG_CHARACTERS else f"{text[:STATEMENT_LOG_CHARACTERS]}…"


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Turn the errors that no retry can help into ``AirflowFailException``, so that a task does not spend retries.

    :raises AirflowFailException: with the same message, from a :class:`LakebaseError` that is not retryable
    """
    try:
        yield
    except LakebaseError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error


def _cancel(connection: psycopg.Connection[Any]) -> None:
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status is TransactionStatus.ACTIVE:
        connection.cancel_safe(timeout=CANCEL_SECONDS)


def _bind(cur: psycopg.Cursor[Any], statement: str, parameters: Any) -> bytes:
    """Put the parameters into a text of several statements, which the server takes only without any."""
    import psycopg

    with psycopg.ClientCursor(cur.connection) as client:
        return client.mogrify(statement.encode(), parameters).encode(cur.connection.info.encoding)


def _by_frame_type(df_type: str, *, pandas: Any, polars: Any) -> Any:
    if df_type not in ("pandas", "polars"):
        raise ValueError(f"df_type is {df_type!r}; it is 'pandas' or 'polars'")
    return pandas if df_type == "pandas" else polars


@contextmanager
def _pandas_takes_any_connection() -> Iterator[None]:
    # pandas warns of every DB-API connection but sqlite3's; it works, and SQLAlchemy 1.4 could not do it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        yield


class _Streaming:
    """A connection as pandas and polars see one, whose cursor leaves the rows on the server."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def cursor(self) -> Any:
        return self.connection.cursor(name="lakebase_chunks")

    def rollback(self) -> None:
        self.connection.rollback()
