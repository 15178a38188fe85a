"""Load files into Lakebase and export from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_lakebase.assets import asset_uri, emit_event
from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.core.storage import shown
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError, LakebaseSettingsError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.hooks._storage import locate, locate_all
from airflow_provider_lakebase.lineage.reports import file_datasets, report, report_load, report_sql
from airflow_provider_lakebase.links import LINKS, record_links
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin
from airflow_provider_lakebase.operators._task_instance import name_task_instance

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakebase.core.bulk.load import LoadResult


class LakebaseLoadBaseOperator(LakebaseOperatorMixin):
    """Hold what every load has: the target, how rows get into it, and that a retry does not load them twice.

    A load is one transaction, so it leaves all of its rows or none. ``replace`` and ``upsert`` leave the same rows
    when they are repeated; ``append`` does not, so its transaction also writes the ids of DAG, run, task and map index
    into a ledger, and a load into the same table that is found there writes nothing. That holds for a cleared task
    too: to load again, delete its record from the ledger, or set ``exactly_once`` to False.

    :param table: target, as SQL writes it (templated)
    :param mode: ``append``; ``replace`` for all rows of the table, or those of ``replace_where``; ``upsert`` to insert
        rows and update those whose key exists (templated)
    :param key_columns: columns of the key, for ``upsert``; by default the primary key's (templated)
    :param columns: target columns in the source's order, or a mapping from the source's names to them, which leaves
        out what it does not name; by default the source's own names (templated)
    :param casts: SQL type by target column, that the source's text is cast to first (templated)
    :param update_columns: columns that ``upsert`` changes in rows that are there; by default all that are loaded but
        the key's, and with an empty list none (templated)
    :param duplicates: what ``upsert`` does with rows of the source that have one key: the ``last`` wins, or ``error``
    :param version_column: column that must be larger than the table's for ``upsert`` to change the row (templated)
    :param replace_where: SQL condition of the rows that ``replace`` replaces, which the loaded rows must meet too
        (templated)
    :param exactly_once: keep the ledger for ``append``, so that neither a retry nor clearing the task loads twice
    :param ledger_schema: schema of the ledger (templated)
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperatorMixin.template_fields,
        "table",
        "mode",
        "key_columns",
        "columns",
        "casts",
        "update_columns",
        "version_column",
        "replace_where",
        "ledger_schema",
    )
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        table: str,
        mode: str = "append",
        key_columns: Sequence[str] | None = None,
        columns: Sequence[str] | Mapping[str, str] | None = None,
        casts: Mapping[str, str] | None = None,
        update_columns: Sequence[str] | None = None,
        duplicates: str = "last",
        version_column: str | None = None,
        replace_where: str | None = None,
        exactly_once: bool = True,
        ledger_schema: str = LEDGER_SCHEMA,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.mode: Any = mode
        self.key_columns = key_columns
        self.columns = columns
        self.casts = casts
        self.update_columns = update_columns
        self.duplicates: Any = duplicates
        self.version_column = version_column
        self.replace_where = replace_where
        self.exactly_once = exactly_once
        self.ledger_schema = ledger_schema
        self._loaded: LoadResult | None = None

    def _load(self, context: Context, source: Any, **arguments: Any) -> dict[str, Any]:
        """Load the source and return what the task's XCom holds."""
        load_id = name_task_instance(context) if self.mode == "append" and self.exactly_once else None
        try:
            result = self._loaded = self._hook.load(
                source,
                self.table,
                mode=self.mode,
                key_columns=self.key_columns,
                casts=self.casts,
                update_columns=self.update_columns,
                duplicates=self.duplicates,
                version_column=self.version_column,
                replace_where=self.replace_where,
                load_id=load_id,
                ledger_schema=self.ledger_schema,
                **arguments,
            )
        except LakebaseOutcomeUnknownError as error:
            if self.mode == "append" and load_id is None:
                raise
            # Its own class would fail the task for good, and the next try knows better than any person.
            raise AirflowException(
                f"The session was lost while the load into {self.table} was committed. The next try finds out whether "
                "it was, and loads nothing twice."
            ) from error
        if result.already_loaded:
            self.log.warning(
                "The ledger says that this load into %s was done before, so nothing was written. It does not know "
                "whether the rows are still there. To load again, run LakebaseHook(%r).forget_load(%r, "
                "ledger_schema=%r) and clear the task",
                *(self.table, self.lakebase_conn_id, load_id, self.ledger_schema),
            )
        # Also where the rows were there already: the try that loaded them may have died before its event was kept.
        self._emit_event(context, result)
        return {
            "table": self.table,
            "mode": self.mode,
            "rows": result.rows,
            "seconds": result.seconds,
            "already_loaded": result.already_loaded,
        }

    def _emit_event(self, context: Context, result: LoadResult) -> None:
        """Emit an event for the table's asset, which starts the DAGs that are scheduled on it."""
        try:
            if result.target and (uri := asset_uri(self._hook.settings, *result.target)):
                self.log.info("Loaded asset %s", uri)
                emit_event(self, context, uri, {"rows": result.rows})
        except Exception as error:  # whatever it is: the rows are there
            self.log.warning("No event is emitted for the asset of table %s: %s", self.table, type(error).__name__)


class LakebaseLoadOperator(LakebaseLoadBaseOperator):
    """Load files into a table: CSV, JSON lines or Parquet, from the worker's disk or any object storage.

    With ``.partial(…).expand(source=[…])`` every file is a task of its own, and is loaded once of its own.

    :param source: path or URL of a file, or a list of them, which are loaded in one transaction (templated)
    :param format: ``csv``, ``jsonl`` or ``parquet``; by default as the file's suffix says (templated)
    :param header: whether the first line of a CSV file names its columns
    :param null: the unquoted text that stands for NULL in a CSV file
    :param create_table: create the table, where there is none, by the schema of the Parquet file, with
        ``key_columns`` as its primary key
    :param source_conn_id: Airflow connection of the object storage (templated)
    :param kwargs: ``table``, ``mode``, ``key_columns``, ``columns``, ``casts``, ``update_columns``, ``duplicates``,
        ``version_column``, ``replace_where``, ``exactly_once`` and ``ledger_schema`` of
        :class:`LakebaseLoadBaseOperator`, ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and
        ``hook_params`` of :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, and the
        arguments of ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseLoadBaseOperator.template_fields, "source", "format", "source_conn_id")

    def __init__(
        self,
        *,
        source: Any,
        format: str | None = None,
        header: bool = True,
        null: str = "",
        create_table: bool = False,
        source_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.format: Any = format
        self.header = header
        self.null = null
        self.create_table = create_table
        self.source_conn_id = source_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the files.

        :raises AirflowFailException: when no retry can help: arguments, a row the table cannot take, settings, login,
            or a session lost during COMMIT of an ``append`` that is not ``exactly_once``
        :raises AirflowException: when the session was lost during COMMIT and a retry is safe
        :raises FileNotFoundError: when a file is missing
        :returns: ``table``, ``mode``, ``rows`` written, ``seconds``, and whether it was ``already_loaded``
        """
        with fail_without_retry(), record_links(context, self._hook):
            return self._load(
                context,
                locate_all(self.source, self.source_conn_id),
                columns=self.columns,
                format=self.format,
                header=self.header,
                null=self.null,
                create_table=self.create_table,
            )

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the files that are read and the table that is written; nothing is asked of Lakebase."""
        return report(
            self, lambda: report_load(self._hook.settings, self.table, self._loaded, file_datasets(self.source))
        )


class LakebaseExportOperator(LakebaseOperatorMixin):
    """Export a query's rows, or a table's, into a file: CSV, JSON lines or Parquet.

    The file gets its name when it is whole. A retry overwrites it.

    :param sql: query, or path of a ``.sql`` file; this or ``table`` (templated)
    :param table: table or view, as SQL writes it; this or ``sql`` (templated)
    :param parameters: parameters of the query (templated)
    :param destination: path or URL of the file (templated)
    :param format: ``csv``, ``jsonl`` or ``parquet``; by default as the file's suffix says (templated)
    :param header: whether the first line of a CSV file names its columns
    :param null: the text that stands for NULL in a CSV file
    :param destination_conn_id: Airflow connection of the object storage (templated)
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperatorMixin.template_fields,
        "sql",
        "table",
        "sql_parameters",
        "destination",
        "format",
        "destination_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "postgresql", "sql_parameters": "json"}
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        destination: Any,
        sql: str | None = None,
        table: str | None = None,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        format: str | None = None,
        header: bool = True,
        null: str = "",
        destination_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if (sql is None) == (table is None):
            raise LakebaseSettingsError("An export has either sql or table", hint="Give one of them.")
        super().__init__(**kwargs)
        self.destination = destination
        self.sql = sql
        self.table = table
        # The OpenLineage provider puts an attribute of the name "parameters", values and all, into every event.
        self.sql_parameters = parameters
        self.format: Any = format
        self.header = header
        self.null = null
        self.destination_conn_id = destination_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the file.

        :raises AirflowFailException: when no retry can help: arguments, settings, login
        :raises LakebaseError: when a retry may help
        :raises psycopg.Error: as Postgres refused the query
        :returns: ``destination``, ``rows``, ``bytes`` before compression, and ``seconds``
        """
        query_or_table: Any = self.sql if self.table is None else self.table
        with fail_without_retry(), record_links(context, self._hook):
            result = self._hook.export(
                query_or_table,
                locate(self.destination, self.destination_conn_id),
                parameters=self.sql_parameters,
                format=self.format,
                header=self.header,
                null=self.null,
            )
        return {
            "destination": shown(self.destination),
            "rows": result.rows,
            "bytes": result.bytes,
            "seconds": result.seconds,
        }

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return what is read and the file that is written; nothing is asked of Lakebase."""
        return report(self, self._report)

    def _report(self) -> OperatorLineage[Any, Any]:
        settings = self._hook.settings
        query = self.sql or f"SELECT * FROM {self.table}"  # noqa: S608 - nobody runs it
        lineage = report_sql(settings, query, has_parameters=bool(self.sql_parameters))
        lineage.outputs = file_datasets(self.destination)
        return lineage
