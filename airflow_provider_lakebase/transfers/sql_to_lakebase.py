"""Load the result of a query on any other database."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.hooks._queries import name_rows
from airflow_provider_lakebase.hooks._source_arrow import BATCH_ROWS, run_query
from airflow_provider_lakebase.hooks._source_copy import SourceCopy, driver_names, is_postgres, use_utf8
from airflow_provider_lakebase.hooks._source_types import describe_query
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.lineage.names import Database, lakebase_database, other_database
from airflow_provider_lakebase.lineage.reports import read_query, report, report_load, sql_facet
from airflow_provider_lakebase.links import record_links
from airflow_provider_lakebase.operators.load import LakebaseLoadBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

CURSOR_NAME = "sql_to_lakebase"


class SqlToLakebaseOperator(LakebaseLoadBaseOperator):
    """Load the rows of a query on any database with a ``DbApiHook``, in constant memory, without using the disk.

    The log says how the result is read, always as it arrives:

    - from Postgres by COPY, server to server;
    - as Arrow data, with the extra ``[arrow]``, from DuckDB, ADBC, Databricks SQL, Snowflake and BigQuery. DuckDB and
      ADBC are tested; the others follow the documented interfaces of their drivers and were not run;
    - row by row from all others, and for types of DuckDB that its Arrow data does not hold exactly: ``BIT``,
      ``UHUGEINT``, ``BIGNUM``, ``TIME WITH TIME ZONE``, unions, and intervals within lists and structs.

    ``create_table=True`` and ``new_columns="add"`` take the types from the catalog of a Postgres source, and from the
    schema of Arrow data. The drivers of other databases do not tell types exactly enough: give a mapping,
    ``create_table={"id": "bigint", "*": "text"}``.

    :param source_conn_id: Airflow connection of the database to read (templated)
    :param sql: one query, or path of a ``.sql`` file (templated)
    :param parameters: parameters of the query, in the style of its driver (templated)
    :param source_hook_params: additional arguments of the hook of that database (templated)
    :param kwargs: ``table``, ``exactly_once`` and the options of
        :class:`~airflow_provider_lakebase.operators.load.LakebaseLoadBaseOperator`, ``lakebase_conn_id``,
        ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, and the arguments of ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseLoadBaseOperator.template_fields,
        "source_conn_id",
        "sql",
        "sql_parameters",
        "source_hook_params",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "sql_parameters": "json"}

    def __init__(
        self,
        *,
        source_conn_id: str,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        source_hook_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_conn_id = source_conn_id
        self.sql = sql
        # The OpenLineage provider copies an attribute named "parameters", with its values, into every event.
        self.sql_parameters = parameters
        self.source_hook_params = source_hook_params
        self._source: Any = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the rows and load them.

        :raises AirflowFailException: if no retry can help: invalid arguments, a row that the table rejects, settings,
            login, or a session lost during COMMIT of an ``append`` without ``exactly_once``
        :raises AirflowException: if the session was lost during COMMIT and a retry is safe
        :raises Exception: as the driver of the source raises it
        :returns: ``table``, ``mode``, ``rows`` written, ``rejected`` rows, ``seconds``, and whether it was
            ``already_loaded``
        """
        with fail_without_retry(), record_links(context, self._hook), self._query() as (cursor, data):
            if data is not None:
                self.log.info("Reading the source as Arrow data")
                return self._load(context, data)
            if described := describe_query(self._source, cursor):
                query = SourceCopy(self._source, self.sql, self.sql_parameters)
                return self._load(context, name_rows(_rows(cursor), *described, query))
            self.log.info("Reading the source row by row")
            rows = _rows(cursor)
            # Some server-side cursors know their columns only after the first fetch.
            first = next(rows, None)
            names = _names(cursor.description)
            return self._load(context, name_rows(rows if first is None else chain([first], rows), names))

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the tables that are read and the one that is written, without a query to either database."""
        return report(self, self._report)

    def _report(self) -> OperatorLineage[Any, Any]:
        inputs: list[Any] = []
        columns: dict[str, Any] = {}
        source = self._source_database()
        if source is not None:
            inputs, columns = read_query(source, self.sql, self.columns, has_parameters=bool(self.sql_parameters))
        lineage = report_load(self._hook.settings, self.table, self._loaded, inputs, columns)
        lineage.job_facets = sql_facet(self.sql)
        return lineage

    def _source_database(self) -> Database | None:
        """Return the other database; None if it is unknown, and then only the load is reported."""
        try:
            connection: Any = BaseHook.get_connection(self.source_conn_id)
            hook = connection.get_hook(hook_params=self.source_hook_params)
            if isinstance(hook, LakebaseHook):
                return lakebase_database(hook.settings)
            return other_database(hook, connection)
        except Exception as error:
            self.log.info("No lineage is reported for connection '%s': %s", self.source_conn_id, type(error).__name__)
            return None

    @contextmanager
    def _query(self) -> Iterator[tuple[Any, Any]]:
        """Run the query and yield its cursor, and its Arrow data or None; close the connection in the end."""
        connection: Any = BaseHook.get_connection(self.source_conn_id)
        hook = connection.get_hook(hook_params=self.source_hook_params)
        if not isinstance(hook, DbApiHook):
            raise LakebaseSettingsError(
                f"Connection '{self.source_conn_id}' has the hook {type(hook).__name__}, which cannot run SQL",
                hint="Name a connection to a database.",
            )
        with ExitStack() as last, closing(hook.get_conn()) as self._source:
            cursor = _open_cursor(self._source)
            # After a failure, close the connection first: on an open one, closing MySQL's cursor reads all other rows.
            last.callback(_close, cursor)
            with suppress(AttributeError):  # DuckDB's has none
                cursor.arraysize = BATCH_ROWS
            yield cursor, run_query(cursor, self.sql, self.sql_parameters)
            cursor.close()

    def on_kill(self) -> None:
        """Cancel the load on the server, and the query on the other database if its driver can.

        Some drivers, such as psycopg2, block signals while they wait for rows.
        """
        super().on_kill()
        if self._source is not None:
            # psycopg's plain cancel blocks all threads of the process until the server answers.
            names = ("cancel_safe", "cancel", "close")
            with suppress(Exception):
                next(getattr(self._source, name) for name in names if hasattr(self._source, name))()


def _open_cursor(connection: Any) -> Any:
    """Return a cursor that streams, also for drivers whose default one fetches the whole result first."""
    if is_postgres(connection):
        use_utf8(connection)
        return connection.cursor(name=CURSOR_NAME)
    if mysql := driver_names(connection) & {"MySQLdb", "pymysql"}:
        return connection.cursor(importlib.import_module(f"{mysql.pop()}.cursors").SSCursor)
    return connection.cursor()


def _close(cursor: Any) -> None:
    """Close a cursor whose connection is closed, which some drivers refuse."""
    with suppress(Exception):
        cursor.close()


def _names(description: Sequence[Sequence[Any]] | None) -> list[str]:
    if not description:
        raise LakebaseSettingsError("sql returns no rows", hint="Give one query.")
    return [column[0] for column in description]


def _rows(cursor: Any) -> Iterator[tuple[Any, ...]]:
    while batch := cursor.fetchmany(BATCH_ROWS):
        yield from map(_to_tuple, batch)


def _to_tuple(row: Any) -> tuple[Any, ...]:
    """Return a row of any class as a tuple; the ``cursor`` extra of a connection may make it a mapping."""
    return tuple(row.values() if isinstance(row, Mapping) else row)
