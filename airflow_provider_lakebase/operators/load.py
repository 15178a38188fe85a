"""Load files into Lakebase, and export tables and queries to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, task

from airflow_provider_lakebase.assets import asset_uri
from airflow_provider_lakebase.core.bulk.options import (  # noqa: TID253 - it is light
    ExportOptions,
    LoadOptions,
    Option,
    list_options,
)
from airflow_provider_lakebase.core.storage import shown
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError, LakebaseSettingsError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.hooks._storage import list_urls, locate, locate_all
from airflow_provider_lakebase.lineage.reports import file_datasets, report, report_load, report_sql
from airflow_provider_lakebase.links import LINKS, record_links
from airflow_provider_lakebase.operators._asset_events import emit_event
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin
from airflow_provider_lakebase.operators._options import take_options
from airflow_provider_lakebase.operators._task_instance import name_task_instance

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakebase.core.bulk.load import LoadResult

_LOAD_OPTIONS = list_options(LoadOptions, without=("load_id",))
_ROW_OPTIONS = [each for each in _LOAD_OPTIONS if not each.needs_file]
_FILE_OPTIONS = [each for each in _LOAD_OPTIONS if each.needs_file]


class _BulkOperator(LakebaseOperatorMixin):
    """Base of the operators that load and export, whose options become their arguments.

    A subclass names its options: ``class LoadOperator(_BulkOperator, options=…)``.
    """

    operator_extra_links = LINKS
    option_names: tuple[str, ...] = ()
    """The options that the operator takes."""

    def __init_subclass__(cls, *, options: Sequence[Option] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if options:
            take_options(cls, options)

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.option_names}


class LakebaseLoadBaseOperator(_BulkOperator, options=_ROW_OPTIONS):
    """Base of the operators that load rows into a table, which also keep a retry from loading them twice.

    A load is one transaction: it leaves all of its rows, or none. A repeated ``replace`` or ``upsert`` leaves the same
    rows. A repeated ``append`` would not, so its transaction also writes the ids of DAG, run, task and map index to a
    ledger, and a load into the same table that is found there writes nothing. This includes cleared tasks: to load
    again, delete the record from the ledger, or set ``exactly_once`` to False.

    :param table: target, as in SQL (templated)
    :param options: of the load
    :param exactly_once: use the ledger for ``append``, so that neither a retry nor clearing the task loads twice
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperatorMixin.template_fields, "table")
    mode: str
    columns: Any
    create_table: Any
    new_columns: str
    ledger_schema: str

    def __init__(self, *, table: str, exactly_once: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.exactly_once = exactly_once
        self._loaded: LoadResult | None = None

    def _load(self, context: Context, source: Any) -> dict[str, Any]:
        """Load the source and return the value that the task pushes to XCom."""
        load_id = name_task_instance(context) if self.mode == "append" and self.exactly_once else None
        options = LoadOptions(**self._options(), load_id=load_id)
        # A repeated replace or upsert needs no ledger, but must not record its rejected rows again.
        rejects_id = name_task_instance(context) if options.rejects_table and "ti" in context else None
        try:
            result = self._loaded = self._hook._load(source, self.table, options, rejects_id)
        except LakebaseOutcomeUnknownError as error:
            if self.mode == "append" and load_id is None:
                raise
            # As itself, the error would fail the task for good, but the next try finds out more than a person can.
            raise AirflowException(
                f"The session was lost while the load into {self.table} was being committed. The next try finds out "
                "whether it was, and loads nothing twice."
            ) from error
        if result.already_loaded:
            self.log.warning(
                "The ledger has a record of this load into %s, so nothing was written. It does not know whether the "
                "rows are still there. To load again, run LakebaseHook(%r).forget_load(%r, ledger_schema=%r) and clear "
                "the task",
                *(self.table, self.lakebase_conn_id, load_id, self.ledger_schema),
            )
        # Also if an earlier try loaded the rows: it may have died before its event was stored.
        self._emit_event(context, result)
        return {
            "table": self.table,
            "mode": self.mode,
            "rows": result.rows,
            "rejected": result.rejected,
            "seconds": result.seconds,
            "already_loaded": result.already_loaded,
        }

    def _emit_event(self, context: Context, result: LoadResult) -> None:
        """Emit an event for the asset of the table, which triggers the DAGs that are scheduled on it."""
        try:
            if result.target and (uri := asset_uri(self._hook.settings, *result.target)):
                self.log.info("Loaded asset %s", uri)
                emit_event(self, context, uri, {"rows": result.rows})
        except Exception as error:  # whatever it is, the rows are loaded
            self.log.warning("No event is emitted for the asset of table %s: %s", self.table, type(error).__name__)


class LakebaseLoadOperator(LakebaseLoadBaseOperator, options=_FILE_OPTIONS):
    """Load files into a table: CSV, JSON or Parquet, from the worker's disk or any object storage.

    A folder or a pattern is loaded in one transaction. With ``.partial(…).expand(source=list_files(…))`` each file is
    loaded by its own mapped task, exactly once.

    :param source: path or URL of a file or a folder, a pattern with ``*``, ``?`` or ``**``, or a list of them; all
        files are loaded in one transaction (templated)
    :param source_conn_id: Airflow connection of the object storage (templated)
    :param options: of the load
    :param kwargs: ``table``, ``exactly_once`` and the other options of :class:`LakebaseLoadBaseOperator`,
        ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseLoadBaseOperator.template_fields, "source", "source_conn_id")

    def __init__(self, *, source: Any, source_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.source_conn_id = source_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the files.

        :raises AirflowFailException: if no retry can help: invalid arguments, a row that the table rejects, settings,
            login, or a session lost during COMMIT of an ``append`` without ``exactly_once``
        :raises AirflowException: if the session was lost during COMMIT and a retry is safe
        :raises FileNotFoundError: if a file is missing
        :returns: ``table``, ``mode``, ``rows`` written, ``rejected`` rows, ``seconds``, and whether it was
            ``already_loaded``
        """
        with fail_without_retry(), record_links(context, self._hook):
            return self._load(context, locate_all(self.source, self.source_conn_id))

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the files that are read and the table that is written, without a query to Lakebase."""
        return report(
            self, lambda: report_load(self._hook.settings, self.table, self._loaded, file_datasets(self.source))
        )


def list_files(
    source: Any, *, source_conn_id: str | None = None, allow_empty: bool = False, **task_arguments: Any
) -> XComArg:
    """Add a task that lists files when it runs, and return its result, for ``expand``.

    ``LakebaseLoadOperator.partial(task_id="load", table="t").expand(source=list_files("s3://bucket/*.csv"))`` loads
    each file by its own mapped task. Airflow's ``max_map_length`` limits how many these may be, to 1024 by default. To
    load any number of files in one transaction, give the folder or the pattern to the operator itself.

    :param source: path or URL of a folder, a pattern with ``*``, ``?`` or ``**``, or a list of them (templated)
    :param source_conn_id: Airflow connection of the object storage (templated)
    :param allow_empty: return an empty list, which skips the mapped task, instead of failing if there is no file
    :param task_arguments: arguments of the task, such as ``task_id``, by default ``list_files``, and ``retries``
    :returns: paths, or URLs with their connection, such as ``s3://my_aws@bucket/key``, in the order of their names
    """
    listing = task(**{"task_id": "list_files", **task_arguments})(_list_files)
    return listing(source, source_conn_id, allow_empty)  # type: ignore[no-any-return]


def _list_files(source: Any, source_conn_id: str | None, allow_empty: bool) -> list[str]:
    with fail_without_retry():
        return list_urls(source, source_conn_id, allow_empty=allow_empty)


class LakebaseExportOperator(_BulkOperator, options=list_options(ExportOptions)):
    """Export the rows of a query or table to a file, or to numbered files in a folder: CSV, JSON or Parquet.

    The file appears under its name once it is complete. A retry overwrites it. With ``max_rows_per_file``, all files
    of the folder are replaced.

    :param sql: query, or path of a ``.sql`` file; either this or ``table`` (templated)
    :param table: table or view, as in SQL; either this or ``sql`` (templated)
    :param parameters: parameters of the query (templated)
    :param destination: path or URL of the file or folder; a final ``.gz`` or ``.zst`` compresses (templated)
    :param destination_conn_id: Airflow connection of the object storage (templated)
    :param options: of the export
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
        "destination_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "postgresql", "sql_parameters": "json"}

    def __init__(
        self,
        *,
        destination: Any,
        sql: str | None = None,
        table: str | None = None,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        destination_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if (sql is None) == (table is None):
            raise LakebaseSettingsError("An export takes either sql or table", hint="Give one of them.")
        super().__init__(**kwargs)
        self.destination = destination
        self.sql = sql
        self.table = table
        # The OpenLineage provider copies an attribute named "parameters", with its values, into every event.
        self.sql_parameters = parameters
        self.destination_conn_id = destination_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the file.

        :raises AirflowFailException: if no retry can help: invalid arguments, settings, login
        :raises LakebaseError: if a retry may help
        :raises psycopg.Error: if Postgres rejects the query
        :returns: ``destination``, ``files``, ``rows``, ``bytes`` before compression, and ``seconds``
        """
        query_or_table: Any = self.sql if self.table is None else self.table
        with fail_without_retry(), record_links(context, self._hook):
            result = self._hook.export(
                query_or_table,
                locate(self.destination, self.destination_conn_id),
                parameters=self.sql_parameters,
                **self._options(),
            )
        return {
            "destination": shown(self.destination),
            "files": list(result.files),
            "rows": result.rows,
            "bytes": result.bytes,
            "seconds": result.seconds,
        }

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the tables that are read and the file that is written, without a query to Lakebase."""
        return report(self, self._report)

    def _report(self) -> OperatorLineage[Any, Any]:
        settings = self._hook.settings
        query = self.sql or f"SELECT * FROM {self.table}"  # noqa: S608 - it is not run
        lineage = report_sql(settings, query, has_parameters=bool(self.sql_parameters))
        lineage.outputs = file_datasets(self.destination)
        return lineage
