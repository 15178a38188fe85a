"""The I/O manager: assets as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from dagster import ConfigurableIOManager, InitResourceContext, InputContext, IOManagerDefinition, OutputContext
from psycopg import sql
from pydantic import Field

from airflow_provider_lakebase.core.bulk import query_arrow
from airflow_provider_lakebase.core.bulk.catalog import Table, table_exists
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.dagster._failures import fail_without_retry
from airflow_provider_lakebase.dagster._frames import column_names, empty, find_kind, from_arrow, refuse_index
from airflow_provider_lakebase.dagster._metadata import describe_load
from airflow_provider_lakebase.dagster._owner import claim_table, name_owner
from airflow_provider_lakebase.dagster._partitions import check_column, check_expressions, partition_condition
from airflow_provider_lakebase.dagster._words import IO_MANAGER_WORDS
from airflow_provider_lakebase.dagster.authentication import STRICT
from airflow_provider_lakebase.dagster.resource import LakebaseResource
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

DEFAULT_SCHEMA = "public"
MAX_NAME = 63
"""Bytes of an identifier that Postgres keeps."""
_SCHEMA_EXISTS = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s"
# One of two concurrent creations would fail.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('airflow-provider-lakebase schema'))"


class LakebaseIOManager(ConfigurableIOManager):
    """Store what assets return as tables, and give it to the assets downstream.

    The type is ``pandas.DataFrame``, ``polars.DataFrame``, ``polars.LazyFrame``, ``pyarrow.Table`` or
    ``pyarrow.RecordBatchReader``. The last part of the asset's key is the table, the one before it the schema. Table
    and schema are created if they do not exist; the comment of such a table names the asset, and a write by another one
    is refused. A materialization replaces all rows, or the rows of its partitions, in
    one transaction; the asset's metadata ``partition_expr`` says which column, or SQL expression, is partitioned. The
    metadata ``columns`` of an input selects its columns.
    """

    model_config = STRICT

    lakebase: LakebaseResource
    schema_: str | None = Field(
        default=None,
        alias="schema",
        description="Schema of all tables; by default the prefix of the asset's key, or public.",
    )

    def get_resource_definition(self) -> Any:
        """Return what Dagster stores about the I/O manager: nothing of its configuration, if a secret is among it."""
        if not self.lakebase.stores_secret:
            return super().get_resource_definition()

        @contextmanager
        def initialize(context: InitResourceContext) -> Iterator[LakebaseIOManager]:
            with self.lakebase.yield_for_execution(context) as lakebase:
                yield LakebaseIOManager(lakebase=lakebase, schema=self.schema_)

        # The annotation leaves out that the function may be a context manager, as that of a ResourceDefinition.
        return IOManagerDefinition(initialize, description=type(self).__doc__)  # type: ignore[arg-type]

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Replace the rows of the table, or of the asset's partitions.

        :param context: of the asset
        :param obj: the rows
        :raises Failure: for an error that a retry cannot help
        """
        with fail_without_retry(IO_MANAGER_WORDS):
            refuse_index(obj)
            metadata = context.definition_metadata or {}
            table = self._table(context, metadata)
            condition = partition_condition(context, metadata)
            self._create_schema(table.schema)
            options = LoadOptions(mode="replace", replace_where=condition, create_table=True)
            owner = name_owner(context)

            def check(session: psycopg.Connection[Any], target: Table, is_new: bool) -> None:
                claim_table(session, target, owner, is_new=is_new)
                check_column(target, column_names(obj), context, metadata)
                check_expressions(session, target.identifier, context, metadata)

        result = self.lakebase._load(
            obj, table.name, options, step_name=context.step_key, before_rows=check, words=IO_MANAGER_WORDS
        )
        database = self.lakebase.settings.session.database
        context.add_output_metadata(describe_load(result, database, is_partition=condition is not None))

    def load_input(self, context: InputContext) -> Any:
        """Return the rows of the table, or of the partitions that the asset needs; none if it needs no partition.

        :param context: of the input
        :raises Failure: for an error that a retry cannot help
        """
        with fail_without_retry(IO_MANAGER_WORDS):
            kind = find_kind(context.dagster_type.typing_type)
            upstream = context.upstream_output
            metadata = (upstream.definition_metadata if upstream else None) or {}
            table = self._table(context if context.has_asset_key else upstream or context, metadata)
            condition = partition_condition(context, metadata)
            query = select_rows(table, (context.definition_metadata or {}).get("columns"), condition)
            with self.lakebase._open() as session:
                if not table_exists(session, table.name):
                    if condition is not None and not context.asset_partition_keys:
                        return empty(kind)
                    hint = "Materialize what it stores first, or correct the metadata 'schema' and 'table'."
                    raise LakebaseSettingsError(
                        f"There is no table {table.name}", context=session_context(session), hint=hint
                    )
                check_expressions(session, sql.Identifier(*table), context, metadata)
                found = _read(session, table, query)
            return from_arrow(kind, found)

    def _table(self, context: OutputContext | InputContext, metadata: Mapping[str, Any]) -> TableName:
        *prefix, last = context.asset_key.path if context.has_asset_key else (context.name,)
        name = metadata.get("table") or last
        schema = metadata.get("schema") or self.schema_ or (prefix[-1] if prefix else DEFAULT_SCHEMA)
        for part in (str(schema), str(name)):
            if len(part.encode()) > MAX_NAME:
                what = f"Postgres would shorten the name '{part}', and two assets could share a table"
                raise LakebaseSettingsError(what, hint=f"Use at most {MAX_NAME} bytes in the asset's key.")
        return TableName(str(schema), str(name))

    def _create_schema(self, schema: str) -> None:
        """Create a schema unless it exists, in a transaction of its own, so that no load waits for another."""
        with self.lakebase.get_connection() as session:
            # CREATE SCHEMA IF NOT EXISTS needs the privilege even if it exists.
            if session.execute(_SCHEMA_EXISTS, [schema]).fetchone() is None:
                session.execute(_LOCK)
                session.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))


class TableName(NamedTuple):
    """The table of an asset.

    :param schema: its schema, unquoted
    :param table: its name, unquoted
    """

    schema: str
    table: str

    @property
    def name(self) -> str:
        """Both, as in SQL."""
        return ".".join('"{}"'.format(each.replace('"', '""')) for each in self)


def _read(session: psycopg.Connection[Any], table: TableName, query: sql.Composed) -> Any:
    import pyarrow  # of the extra [arrow]

    try:
        with query_arrow.read_arrow(session, query, Progress(f"Reading {table.name}")) as (schema, batches):
            return pyarrow.Table.from_batches(batches, schema)
    except psycopg.errors.UndefinedColumn as error:
        raise LakebaseSettingsError(
            f"The metadata 'columns' of the input does not suit table {table.name}: {error.diag.message_primary}",
            context=session_context(session),
            hint="Name columns of the table, upper and lower case included.",
        ) from None


def select_rows(table: TableName, columns: Sequence[str] | None, condition: str | None) -> sql.Composed:
    """Return the query for rows of a table.

    :param table: the table
    :param columns: to select, unquoted; None for all
    :param condition: that selects the rows, as SQL; None for all
    :raises LakebaseSettingsError: for columns that are no list of names
    """
    if columns is not None and (isinstance(columns, str) or not columns):
        raise LakebaseSettingsError(f"The metadata 'columns' is {columns!r}", hint="Give a list of names.")
    selected = sql.SQL(", ").join(map(sql.Identifier, columns)) if columns else sql.SQL("*")
    query = sql.SQL("SELECT {} FROM {}").format(selected, sql.Identifier(*table))
    return query if condition is None else query + sql.SQL(" WHERE ") + sql.SQL(condition)
