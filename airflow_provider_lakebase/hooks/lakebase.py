"""The hook: settings from Airflow connections, sessions opened with them, and DbApiHook's interface on those sessions.

Every DAG file that uses the provider imports this module, so modules that load databricks-sdk, psycopg or
SQLAlchemy are imported inside functions.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Unpack

from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_lakebase.core.bulk.option_signature import takes_options  # noqa: TID253 - it is light
from airflow_provider_lakebase.core.bulk.options import (  # noqa: TID253 - it is light
    ExportKeywords,
    ExportOptions,
    LoadKeywords,
    LoadOptions,
)
from airflow_provider_lakebase.core.connection.fields import (
    CONNECTION_TYPE,
    DEFAULT_CONN_ID,
    LEDGER_SCHEMA,
    unknown_field,
)
from airflow_provider_lakebase.core.connection.settings import (
    ConnectionFields,
    LakebaseSettings,
    databricks_conn_id,
    read_settings,
)
from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread, start_in_daemon_thread
from airflow_provider_lakebase.core.errors.classify import add_context
from airflow_provider_lakebase.core.sql.split import shorten, split_statements
from airflow_provider_lakebase.dialect import LakebaseDialect
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._connection import connection_fields
from airflow_provider_lakebase.hooks._connection_check import ConnectionCheck
from airflow_provider_lakebase.hooks._connection_form import form_widgets, ui_field_behaviour
from airflow_provider_lakebase.hooks._copy_file import copy_file
from airflow_provider_lakebase.hooks._data_frames import read_frame, read_frames
from airflow_provider_lakebase.hooks._insert_rows import insert_rows
from airflow_provider_lakebase.hooks._masking import mask, mask_async, mask_credential, mask_credentials_async
from airflow_provider_lakebase.hooks._queries import read_arrow, run_up_to_last
from airflow_provider_lakebase.hooks._readiness import ACTIVE, PROBE_QUERY, Probe
from airflow_provider_lakebase.hooks._storage import locate
from airflow_provider_lakebase.lineage.reports import report_to_hook_lineage

if TYPE_CHECKING:
    from datetime import timedelta

    import psycopg
    import pyarrow
    from airflow.providers.common.compat.sdk import Connection
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from airflow_provider_lakebase.core.bulk.export import ExportResult
    from airflow_provider_lakebase.core.bulk.load import LoadResult
    from airflow_provider_lakebase.core.factory import SessionFactory
    from airflow_provider_lakebase.core.grants.request import RoleRequest
    from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession, LakebaseSession
    from airflow_provider_lakebase.core.session.pool import AsyncLakebaseConnectionPool, LakebaseConnectionPool
    from airflow_provider_lakebase.core.workspace.endpoints import EndpointStatus


class LakebaseHook(DbApiHook):
    """Run SQL on Databricks Lakebase.

    Every session gets a database credential of its own, which databricks-sdk mints and nothing stores.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param endpoint: ``projects/<project>/branches/<branch>/endpoints/<endpoint>``, in place of the connection's
    :param database: database, in place of the connection's; ``schema``, common-sql's name for it, means the same
    :param options: libpq's ``options``, for example ``-c statement_timeout=5min -c search_path=sales``
    :param read_only: whether sessions only read, on the read-only host if there is one; by default as the connection
        says
    :raises LakebaseSettingsError: for ``conn_id`` and ``postgres_conn_id``, which are arguments of other hooks
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
        # common-sql passes every extra of the connection to the constructor. They are checked once the connection is
        # known, so that a misspelt argument is still found.
        self._copied = frozenset(kwargs)
        self._databricks_connection: Connection | None = None
        self._in_use: set[LakebaseSession] = set()
        self._on_session: Callable[[], None] | None = None
        self._cancelled = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the state of this process: the logger, open sessions and the Databricks connection."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_log"}
        return {**kept, "_in_use": set(), "_on_session": None, "_databricks_connection": None}

    @property
    def schema(self) -> str | None:
        """The database, by the name under which common-sql's checks set it."""
        return self.database

    @schema.setter
    def schema(self, value: str | None) -> None:
        self.database = value

    @property
    def settings(self) -> LakebaseSettings:
        """The connection, overridden by the hook's current arguments.

        A hook reads its connections once, at the first access. Arguments may change later: common-sql sets
        ``schema`` after it has created the hook.

        :raises LakebaseSettingsError: if a field is missing, wrong or unknown
        """
        return self._read_settings(self.get_conn_id())

    def _read_settings(self, conn_id: str) -> LakebaseSettings:
        """Return the settings, with the connection id that error messages quote."""
        fields = connection_fields(conn_id, self.connection, CONNECTION_TYPE)
        source = databricks_conn_id(fields)
        if source and self._databricks_connection is None:
            self._databricks_connection = self.get_connection(source)
        settings = self._combine(fields, source, self._databricks_connection)
        for secret in settings.secrets:
            mask(secret)
        return settings

    async def read_settings_async(self) -> LakebaseSettings:
        """Read the connections anew and return :attr:`settings`, without blocking the event loop.

        :raises LakebaseSettingsError: if a field is missing, wrong or unknown
        """
        from airflow.providers.common.compat.connection import get_async_connection

        conn_id = self.get_conn_id()
        fields = connection_fields(conn_id, await get_async_connection(conn_id), CONNECTION_TYPE)
        source = databricks_conn_id(fields)
        settings = self._combine(fields, source, await get_async_connection(source) if source else None)
        await mask_async(settings.secrets)
        return settings

    def _combine(
        self, fields: ConnectionFields, databricks_id: str | None, databricks: Connection | None
    ) -> LakebaseSettings:
        for name in sorted(self._copied - set(fields.extra)):
            raise unknown_field(fields.conn_id, name, ("endpoint", "database", "options", "read_only", "log_sql"))
        source = connection_fields(databricks_id, databricks, "databricks") if databricks_id and databricks else None
        settings = read_settings(fields, endpoint=self.endpoint, read_only=self.read_only, databricks=source)
        # common-sql passes the connection's own options, too.
        options = None if self.options == settings.session.libpq.get("options") else self.options
        return settings.override(database=self.database, options=options)

    def get_conn(self) -> LakebaseSession:
        """Open a session with a new credential, waiting for a suspended endpoint to wake.

        :raises LakebaseError: if no session could be opened; the class says why
        :returns: an open ``psycopg.Connection``, not in autocommit, which the caller closes
        """
        return self.open(self.settings)

    def open(self, settings: LakebaseSettings) -> LakebaseSession:
        """Open a session as :meth:`get_conn` does, with other settings.

        :param settings: for example :attr:`settings` with another ``wake_timeout``
        """
        from airflow_provider_lakebase.core.session.connections import LakebaseSession

        return self._session_factory(settings).open(LakebaseSession)

    @asynccontextmanager
    async def open_async(
        self, settings: LakebaseSettings, application_name: str | None = None
    ) -> AsyncIterator[AsyncLakebaseSession]:
        """Open a session for the ``async with`` block, without blocking the event loop.

        :param settings: from :meth:`read_settings_async`
        :param application_name: name shown in ``pg_stat_activity``; by default the one of all sessions of this process
        :raises LakebaseError: if no session could be opened; the class says why
        """
        secrets: list[str] = []
        # In a thread: the imports take seconds.
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
            # Masking talks to the triggerer's supervisor, which the factory's threads must not do.
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
        """Return an open ``psycopg_pool.ConnectionPool``. Close it, or use it as a context manager.

        Each connection has a credential of its own, is replaced after 45 minutes, is closed after 15 idle minutes, and
        is checked when it is handed out, so that callers do not notice a suspend.

        :param min_size: number of connections to keep open
        :param max_size: maximum number of connections
        :raises LakebaseError: if the first connection could not be opened
        """
        return self._session_factory().pool(min_size, max_size)

    def async_connection_pool(self, min_size: int = 1, max_size: int = 10) -> AsyncLakebaseConnectionPool:
        """Return the asynchronous counterpart of :meth:`connection_pool`. Open it with ``async with``.

        :param min_size: number of connections to keep open
        :param max_size: maximum number of connections
        """
        return self._session_factory().async_pool(min_size, max_size)

    def libpq_environment(self) -> dict[str, str]:
        """Return ``PGHOST … PGPASSWORD`` for psql, pg_dump or dbt, with a new credential; the endpoint is not woken.

        The credential opens sessions until it expires, after at most 60 minutes. Pass the variables only to the program
        that needs them.

        :raises LakebaseError: if the workspace returns no host or no credential
        """
        variables = self._session_factory().libpq_environment()
        mask(variables["PGPASSWORD"])
        return variables

    def endpoint_status(self, *, timeout: float = 30.0) -> EndpointStatus:
        """Return the endpoint's state from the workspace, without waking it.

        :param timeout: seconds to wait for the workspace
        :raises LakebaseSettingsError: for a native Postgres login, which has no workspace
        :raises LakebaseResourceNotFoundError: if the endpoint does not exist
        :raises LakebaseWorkspaceError: if the workspace refused the request
        """
        return _endpoint_status(self.settings, timeout)

    async def endpoint_status_async(self, settings: LakebaseSettings, *, timeout: float = 30.0) -> EndpointStatus:
        """Return the state of an endpoint that is not disabled, without waking it and without blocking the event loop.

        :param settings: from :meth:`read_settings_async`
        :param timeout: seconds to wait for the workspace
        :raises LakebaseEndpointDisabledError: if it is disabled
        :raises LakebaseError: as :meth:`endpoint_status` does
        """
        status = await run_in_daemon_thread(partial(_endpoint_status, settings, timeout))
        status.require_enabled(settings.context)
        return status

    def endpoint_is_ready(self, *, wake: bool = True, timeout: float = 10.0) -> bool:
        """Check once whether the endpoint is ACTIVE and answers.

        :param wake: probe it with a session, which wakes it; if False, only read its state and open no session
        :param timeout: seconds the check may take
        :raises LakebaseEndpointDisabledError: if it is disabled, so that waiting does not help
        :raises LakebaseError: for any other error that is not transient
        """
        started_at = time.monotonic()
        settings = self.settings
        status = _endpoint_status(settings, timeout)
        status.require_enabled(settings.context)
        self.log.info("Endpoint %s is %s", settings.endpoint, status.state)
        if not wake:
            return status.state == ACTIVE
        left = max(timeout - (time.monotonic() - started_at), 1.0)
        with Probe(settings, left, self.log) as probe, closing(self.open(probe.settings)) as session:
            session.execute(PROBE_QUERY)
        return probe.is_answered

    def workspace_pages(self, *, timeout: float = 30.0) -> dict[str, str]:
        """Return the URLs of the workspace's pages: the ``project``, the ``branch`` and its ``sql_editor``.

        :param timeout: seconds to wait for the workspace
        :raises LakebaseWorkspaceError: if the workspace refused the request
        :returns: the URLs; empty for a native Postgres login, which has no workspace
        """
        return self._begin_workspace_pages(timeout=timeout)()

    def _begin_workspace_pages(self, *, timeout: float) -> Callable[[], dict[str, str]]:
        """Begin what :meth:`workspace_pages` does in a thread; return a function that waits for its result."""
        from airflow_provider_lakebase.core.workspace.client import Workspace
        from airflow_provider_lakebase.core.workspace.console_urls import find_console_urls

        settings = self.settings
        if settings.is_native:
            return dict
        workspace, endpoint, database = Workspace.of(settings), settings.require_endpoint(), settings.session.database
        return start_in_daemon_thread(partial(find_console_urls, workspace, endpoint, database, timeout=timeout)).result

    def cancel(self) -> None:
        """Cancel, on the server, the statements that this hook is running, and run no further ones."""
        self._cancelled = True
        for connection in list(self._in_use):
            connection.cancel_running()

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise AirflowException("The hook was cancelled")

    def bootstrap_role(self, request: RoleRequest, *, dry_run: bool = False, prune: bool = False) -> dict[str, Any]:
        """Create the Postgres role of an identity and make its privileges what is declared, or tell how they differ.

        Each database has a transaction of its own. With several, all are looked at before the first is changed.

        :param request: the identity and what it is to have
        :param dry_run: only tell what a run would change; needs no more than a login
        :param prune: also revoke what the identity has been granted and is not declared
        :raises LakebaseRoleError: if something could not be created, granted or revoked; nothing was changed in the
            database that it names
        :raises LakebaseSettingsError: if the hook has a database and the request has some too
        :returns: a report, as LakebaseRoleBootstrapOperator returns it
        """
        from airflow_provider_lakebase.hooks._roles import bootstrap_role

        return bootstrap_role(self, request, dry_run=dry_run, prune=prune)

    def drop_role(self, identity: str, *, reassign_owned_to: str | None = None) -> dict[str, Any]:
        """Drop the role of an identity; do nothing if it is gone.

        :param identity: name of the role
        :param reassign_owned_to: role that gets its objects and default privileges in every database; without it, a
            role that owns something is not dropped
        :raises LakebaseRoleError: if it could not be dropped; the message says what was changed
        :returns: a report, as LakebaseDropRoleOperator returns it
        """
        from airflow_provider_lakebase.core.grants.drop import drop_role

        def connect(database: str | None) -> AbstractContextManager[psycopg.Connection[Any]]:
            return self._create_autocommit_connection(database=database)

        return drop_role(connect, identity, reassign_owned_to=reassign_owned_to, context=self.settings.context)

    @takes_options(LoadOptions)
    def load(self, source: Any, table: str, **options: Unpack[LoadKeywords]) -> LoadResult:
        """Load rows, files or Arrow data into a table by COPY, in one transaction: all of it, or nothing.

        Every value is stored exactly, or the load fails. Text of CSV files is parsed by Postgres, as an INSERT of that
        text would be, but rejected if its column would round it. Memory does not grow with the source.

        :param source: iterable of tuples or dicts; path or URL (str, ``pathlib.Path``, ``ObjectStoragePath``) of a file
            or folder, pattern with ``*``, ``?`` or ``**``, or a list of them; file opened for reading bytes; pyarrow
            ``Table``, ``RecordBatchReader``, or iterable of tables or record batches; data frame of pandas or polars;
            object with ``__arrow_c_stream__``, such as a relation of DuckDB; or an iterable of those
        :param table: target, as in SQL: ``schema.table``, quoted where necessary
        :param options: fields of ``LoadOptions``
        :raises LakebaseLoadError: for a value that the table cannot store exactly, naming row or line and column, never
            the value; if the table or a column is missing, or the role may not write to it
        :raises LakebaseRejectLimitError: if more rows cannot be stored than ``reject_limit`` permits
        :raises LakebaseSettingsError: for invalid options; nothing was sent
        :raises LakebaseOutcomeUnknownError: if the session was lost between COMMIT and its answer
        :raises LakebaseStorageError: if the storage of a file fails
        :raises FileNotFoundError: if there is no such file
        :returns: rows, rejected rows, bytes, seconds, and whether the ledger already had the load
        """
        return self._load(source, table, LoadOptions(**options))

    def _load(self, source: Any, table: str, options: LoadOptions, rejects_id: str | None = None) -> LoadResult:
        """Load as :meth:`load` does, with an identity for rejected rows that needs no ledger."""
        from airflow_provider_lakebase.core.bulk.load import run_load

        path = locate(source)
        with self._create_autocommit_connection() as connection:
            result = run_load(connection, path, table, options, check=self._check_cancelled, rejects_id=rejects_id)
        report_to_hook_lineage(self, result.target)
        return result

    @takes_options(ExportOptions)
    def export(
        self,
        query_or_table: str,
        destination: Any,
        *,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        **options: Unpack[ExportKeywords],
    ) -> ExportResult:
        """Write the rows of a query or table to a file by COPY. The file appears under its name once it is complete.

        With ``max_rows_per_file`` it is a folder of files. What the query writes is committed. In Parquet, a
        ``numeric`` without a precision is text.

        :param query_or_table: a query, or a table name as in SQL; of several statements, the last one returns the rows
        :param destination: path or URL (str, ``pathlib.Path``, ``ObjectStoragePath``); a final ``.gz`` or ``.zst``
            compresses CSV and JSON
        :param parameters: of the query
        :param options: fields of ``ExportOptions``
        :raises LakebaseSettingsError: if the format is unknown, or the folder has files that no export wrote
        :raises LakebaseExportError: for a value that the Parquet type of its column does not hold
        :raises LakebaseStorageError: if the storage of the file fails; an existing file is unchanged
        :raises psycopg.Error: if Postgres rejects the query
        :returns: rows, bytes, seconds and files
        """
        from airflow_provider_lakebase.core.bulk.export import export

        export_options = ExportOptions(**options)
        path = locate(destination)
        with run_up_to_last(self, query_or_table, parameters) as (connection, query):
            result = export(connection, query, path, export_options, check=self._check_cancelled)
        send_sql_hook_lineage(context=self, sql=query_or_table)
        return result

    def iter_arrow(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Iterator[pyarrow.RecordBatch]:
        """Run a query in a read-only transaction and yield its rows as Arrow record batches, in constant memory.

        Of several statements, the last one returns the rows. Each column has the Arrow type that holds its values
        exactly; a column without one, such as ``numeric`` without a precision, is text.

        :param sql: a query, or a table name as in SQL
        :param parameters: of the query
        :raises LakebaseSettingsError: if pyarrow is missing
        :raises LakebaseExportError: for a value that the Arrow type of its column does not hold
        """
        with read_arrow(self, sql, parameters, read_only=True) as (_, batches):
            yield from batches

    def get_arrow(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> pyarrow.Table:
        """Run a query, commit, and return its rows as an Arrow table with the types of :meth:`iter_arrow`.

        :param sql: a query, or a table name as in SQL
        :param parameters: of the query
        """
        import pyarrow

        with read_arrow(self, sql, parameters) as (schema, batches):
            return pyarrow.Table.from_batches(batches, schema)

    def delete_load_records(self, older_than: timedelta, *, ledger_schema: str = LEDGER_SCHEMA) -> int:
        """Delete old records from the ledger. A load without its record can be repeated.

        :param older_than: minimum age of a record to delete; choose one after which no task is retried or cleared
        :param ledger_schema: schema of the ledger
        :raises LakebaseSettingsError: if it is not a ``timedelta``, or negative
        :returns: how many were deleted
        """
        from airflow_provider_lakebase.core.ledger import delete_records

        with self._create_autocommit_connection() as connection:
            deleted = delete_records(connection, ledger_schema, older_than)
            connection.commit()
        return deleted

    def forget_load(self, load_id: str, *, ledger_schema: str = LEDGER_SCHEMA) -> int:
        """Delete the records of one load from the ledger, so that it can be repeated.

        :param load_id: identity of the load, as given to :meth:`load` or as the warning of a task names it
        :param ledger_schema: schema of the ledger
        :returns: how many records were deleted: one per table that the load filled
        """
        from airflow_provider_lakebase.core.ledger import delete_record

        with self._create_autocommit_connection() as connection:
            deleted = delete_record(connection, ledger_schema, load_id)
            connection.commit()
        return deleted

    # ── DbApiHook's contract ──

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form, for Airflow before 3.2; later versions read the metadata.

        :raises ModuleNotFoundError: without WTForms or Flask-AppBuilder, as on a machine that shows no forms
        """
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the standard connection fields, for Airflow before 3.2."""
        return ui_field_behaviour()

    @cached_property
    def dialect(self) -> LakebaseDialect:
        """The SQL dialect that ``insert_rows`` uses."""
        return LakebaseDialect(self)

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override]  # its base has no annotation
        """Try to open a session, and report at which stage that fails.

        The stages are settings, workspace, identity, endpoint, credential, network and login. This takes less than 15
        seconds unless the endpoint is suspended. The report names no connection id, because the Test button makes one
        up.

        :returns: whether a session was opened, and a message for the user
        """
        check = ConnectionCheck(partial(self._read_settings, ""), self.open)
        try:
            return True, check.walk()
        except Exception as error:
            return False, f"Failed at the stage '{check.stage}'. {error}"

    def get_uri(self) -> str:
        """Return the connection URI of a session, in libpq's format, without a password.

        :raises LakebaseError: if the host could not be looked up
        """
        return self._session_factory().uri()

    @property
    def sqlalchemy_url(self) -> URL:
        """Return the URL of :meth:`get_sqlalchemy_engine`, without a password."""
        return self._session_factory().sqlalchemy_url()

    def get_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> Engine:
        """Return a SQLAlchemy engine that opens every session with a new credential.

        :param engine_kwargs: keyword arguments of :func:`sqlalchemy.create_engine`
        :raises LakebaseSettingsError: with SQLAlchemy 1.4, which has no dialect for psycopg 3
        """
        return self._session_factory().engine(engine_kwargs)

    def get_async_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> AsyncEngine:
        """Return the asynchronous counterpart of :meth:`get_sqlalchemy_engine`.

        :param engine_kwargs: keyword arguments of :func:`sqlalchemy.ext.asyncio.create_async_engine`
        :raises LakebaseSettingsError: with SQLAlchemy 1.4, which has no dialect for psycopg 3
        """
        return self._session_factory().async_engine(engine_kwargs)

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
        """Insert rows, one chunk per transaction: by COPY if it stores the same values as INSERT, else by INSERT.

        :param table: target, as in SQL
        :param rows: read once
        :param target_fields: their columns; by default all columns, in the order of the table
        :param commit_every: rows per transaction; 0 for a single transaction
        :param replace: update rows whose key exists
        :param executemany: without effect, since rows are always sent in batches
        :param fast_executemany: without effect
        :param autocommit: passed to psycopg; batches are transactions in any case
        :param kwargs: with ``replace``: ``replace_index``, the columns of the key, by default the primary key; and
            ``replace_target``, the columns to update in existing rows, by default all except the key. An empty list
            leaves existing rows unchanged
        :raises LakebaseSettingsError: for rows that are dicts, which :meth:`load` accepts; for unknown arguments
        :raises LakebaseLoadError: for a value that its column would misread; the error names row and column
        """
        insert_rows(
            self,
            table,
            rows,
            target_fields,
            commit_every=commit_every,
            replace=replace,
            autocommit=autocommit,
            **kwargs,
        )

    def bulk_load(self, table: str, tmp_file: str) -> None:
        """Load a file in Postgres's text format: values separated by tabs, ``\\N`` for NULL.

        :param table: target, as in SQL
        :param tmp_file: path or URL of the file
        :raises FileNotFoundError: if there is no such file
        """
        self.copy_expert(f"COPY {table} FROM STDIN", tmp_file)

    def bulk_dump(self, table: str, tmp_file: str) -> None:
        """Write a table to a file in Postgres's text format. The file appears under its name once it is complete.

        :param table: the table, as in SQL
        :param tmp_file: path or URL of the file
        """
        self.copy_expert(f"COPY {table} TO STDOUT", tmp_file)

    def copy_expert(self, sql: str, filename: str) -> None:
        """Run a COPY between the server and a file.

        :param sql: ``COPY … FROM STDIN``, which reads the file; or ``COPY … TO STDOUT``, which writes it: it appears
            under its name once it is complete
        :param filename: path or URL of the file
        :raises FileNotFoundError: if there is no such file to read
        :raises LakebaseSettingsError: for another statement
        """
        copy_file(self, sql, filename)

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """Return the value unchanged; psycopg adapts it."""
        return cell

    def get_df(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Any:
        """Run a query, commit, and return its rows as a data frame; of several statements, the last one returns rows.

        The types are those of Postgres: integers become pandas' nullable ones, and numerics stay exact. They become
        ``Decimal`` in pandas, or floats with ``coerce_float=True``; in polars, ``Decimal`` if the column has a
        precision, else text. Values without a polars type become text.

        :param sql: the query, a text of several statements, or a list of them
        :param parameters: its parameters
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: of pandas: ``index_col``, ``coerce_float``, ``parse_dates``, ``dtype``, ``dtype_backend``, as of
            :func:`pandas.read_sql`; of polars: ``schema_overrides``
        :raises LakebaseSettingsError: for unknown arguments, or if the last statement returns no rows
        :raises LakebaseExportError: for a value that the type of its column in the frame does not hold
        """
        return read_frame(self, df_type, sql, parameters, kwargs)

    def get_df_by_chunks(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        chunksize: int,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Generator[Any, None, None]:
        """Run a query and yield its rows as data frames of one schema, through a server-side cursor.

        The transaction is READ ONLY, because a caller may not read all frames; :meth:`get_df` may write. Of several
        statements, the last one returns the rows. A result without rows is one empty frame.

        :param sql: the query, a text of several statements, or a list of them
        :param parameters: its parameters
        :param chunksize: rows per frame
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: of pandas: ``index_col``, ``coerce_float``, ``parse_dates``, ``dtype``, ``dtype_backend``, as of
            :func:`pandas.read_sql`; of polars: ``schema_overrides``
        :raises LakebaseSettingsError: for unknown arguments, or if the last statement returns no rows
        :raises LakebaseExportError: for a value that the type of its column in the frame does not hold
        """
        frames = read_frames(self, df_type, sql, parameters, chunksize, kwargs)
        send_sql_hook_lineage(context=self, sql=sql)
        return frames

    # DbApiHook's get_pandas_df() and its like end here.

    def _get_pandas_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        return read_frame(self, "pandas", sql, parameters, kwargs)

    def _get_polars_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        return read_frame(self, "polars", sql, parameters, kwargs)

    def _get_pandas_df_by_chunks(self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any) -> Any:
        return read_frames(self, "pandas", sql, parameters, chunksize, kwargs)

    def _get_polars_df_by_chunks(self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any) -> Any:
        return read_frames(self, "polars", sql, parameters, chunksize, kwargs)

    @contextmanager
    def _create_autocommit_connection(
        self, autocommit: bool = False, *, database: str | None = None
    ) -> Iterator[LakebaseSession]:
        """Open a session for the ``with`` block, and cancel its running statement if the block raises."""
        session = self.open(self.settings.override(database=database)) if database else self.get_conn()
        with closing(session) as connection:
            connection.autocommit = autocommit
            # A task that is killed after its last statement must not commit it.
            connection.before_commit = self._check_cancelled
            self._in_use.add(connection)
            try:
                # The task may have been killed while the endpoint was waking.
                self._check_cancelled()
                if self._on_session:
                    self._on_session()
                yield connection
            except BaseException as error:
                # A task timeout arrives as an exception. Closing the socket would not stop the statement. A failure to
                # cancel must not replace the exception.
                with suppress(Exception):
                    connection.cancel_running()
                add_context(error, connection.context)
                raise
            finally:
                self._in_use.discard(connection)

    def _run_command(self, cur: psycopg.Cursor[Any], sql_statement: str, parameters: Any) -> None:
        if self.log_sql:
            self.log.info("Running statement: %s", shorten(sql_statement))
        from airflow_provider_lakebase.core.sql.binding import bind, check_encoding, hide_values

        self._check_cancelled()
        with hide_values(parameters):
            cur.execute(bind(cur.connection, sql_statement, parameters).encode())
            # DbApiHook returns the result of the last statement in a string.
            while cur.nextset():
                pass
        check_encoding(cur.connection)
        send_sql_hook_lineage(context=self, sql=sql_statement, cur=cur)
        if cur.rowcount >= 0:
            self.log.info("Rows affected: %s", cur.rowcount)

    @staticmethod
    def split_sql_string(sql: str, strip_semicolon: bool = False) -> list[str]:
        """Split SQL into statements, as Postgres does.

        :param sql: one or more statements
        :param strip_semicolon: whether to remove the semicolon at the end of each
        """
        return [f"{each.text}{'' if strip_semicolon else ';'}" for each in split_statements(sql)]

    def _log_notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self.log.info("%s: %s", diagnostic.severity, diagnostic.message_primary)


def _endpoint_status(settings: LakebaseSettings, timeout: float) -> EndpointStatus:
    from airflow_provider_lakebase.core.workspace.client import Workspace
    from airflow_provider_lakebase.core.workspace.endpoints import read_endpoint

    return read_endpoint(Workspace.of(settings), settings.require_endpoint(), timeout=timeout)
