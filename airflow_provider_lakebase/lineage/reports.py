"""OpenLineage reports of the data that tasks read and write, from the connection and the text of the SQL alone.

Nothing here opens a session, calls the workspace or wakes an endpoint. Errors are logged and do not fail the task.
Parameter values are not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.assets import asset_uri
from airflow_provider_lakebase.exceptions import LakebaseError
from airflow_provider_lakebase.lineage.names import Database, Name, file_name, lakebase_database, split_name
from airflow_provider_lakebase.lineage.sql import MAX_CHARACTERS, parse_sql

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakebase.core.bulk.load import LoadResult
    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings

MAX_FILES = 1000
"""Maximum number of files that are reported of one load."""


def report(operator: Any, build: Callable[[], OperatorLineage[Any, Any] | None]) -> OperatorLineage[Any, Any] | None:
    """Return the report of a task, or None if it cannot be built.

    :param operator: the task, whose log gets the reason
    :param build: builds the report
    """
    try:
        return build()
    except ImportError:  # OpenLineage is not installed
        return None
    except Exception as error:
        # Other messages may quote the SQL.
        reason = str(error) if isinstance(error, LakebaseError) else type(error).__name__
        operator.log.info("No lineage is reported: %s", reason)
        return None


def report_sql(settings: LakebaseSettings, sql: Any, *, has_parameters: bool) -> OperatorLineage[Any, Any]:
    """Return the tables that SQL reads and writes on Lakebase.

    :param settings: settings of the connection
    :param sql: a text, or a list of texts
    :param has_parameters: whether ``%s`` in the SQL is a placeholder
    """
    from airflow.providers.common.compat.openlineage.facet import Error, ExtractionErrorRunFacet
    from airflow.providers.openlineage.extractors import OperatorLineage

    database = lakebase_database(settings)
    tables = parse_sql(database, sql, has_parameters=has_parameters)
    if tables is None:
        return OperatorLineage()
    run_facets = {}
    if tables.errors:
        # The parser's message quotes the statement, which may contain a password.
        error = Error(errorMessage="The SQL could not be parsed", stackTrace=None, task=None, taskNumber=None)
        facet = ExtractionErrorRunFacet(totalTasks=tables.statements, failedTasks=tables.errors, errors=[error])
        run_facets["extractionError"] = facet
    return OperatorLineage(
        inputs=[table_dataset(database, name) for name in tables.read],
        outputs=[
            table_dataset(database, name, column_facet(database, columns)) for name, columns in tables.written.items()
        ],
        run_facets=run_facets,
        job_facets=sql_facet(sql),
    )


def report_load(
    settings: LakebaseSettings,
    table: str,
    loaded: LoadResult | None,
    inputs: list[Dataset],
    columns: Mapping[str, Any] | None = None,
) -> OperatorLineage[Any, Any]:
    """Return the inputs and the output of a load.

    :param settings: settings of the connection
    :param table: target, as written in SQL
    :param loaded: result of the load; None before it has run
    :param inputs: datasets that it reads
    :param columns: facet of the column lineage
    """
    from airflow.providers.common.compat.openlineage import facet
    from airflow.providers.openlineage.extractors import OperatorLineage

    database = lakebase_database(settings)
    facets: dict[str, Any] = dict(columns or {})
    statistics: dict[str, Any] = {}
    name = split_name(table, database.schema)
    if loaded is not None:
        name = loaded.target or name
        fields = [facet.SchemaDatasetFacetFields(name=column, type=kind) for column, kind in loaded.columns]
        facets["schema"] = facet.SchemaDatasetFacet(fields=fields)
        statistics["outputStatistics"] = facet.OutputStatisticsOutputDatasetFacet(rowCount=loaded.rows)
    full_name = database.full_name(name)
    output = facet.OutputDataset(database.namespace, full_name, facets=facets, outputFacets=statistics)
    return OperatorLineage(inputs=inputs, outputs=[output])


def read_query(
    database: Database, sql: str, columns: Sequence[str] | Mapping[str, str] | None, *, has_parameters: bool
) -> tuple[list[Dataset], dict[str, Any]]:
    """Return the tables that a query reads, and the column lineage of a load of its rows.

    :param database: database of the query
    :param sql: the query
    :param columns: target columns: their names, or a mapping from the query's columns; None if the names are the same
    :param has_parameters: whether ``%s`` in the query is a placeholder
    """
    tables = parse_sql(database, sql, has_parameters=has_parameters)
    if tables is None:
        return [], {}
    if columns is None:
        filled = tables.selected
    else:
        # The parser does not report the order of the query's columns, so a list of names cannot be matched.
        renamed = columns if isinstance(columns, Mapping) else {}
        filled = {renamed[name]: origins for name, origins in tables.selected.items() if name in renamed}
    return [table_dataset(database, name) for name in tables.read], column_facet(database, filled)


def table_dataset(database: Database, name: Name, facets: dict[str, Any] | None = None) -> Dataset:
    """Return the dataset of a table.

    :param database: the table's database
    :param name: its schema and name
    :param facets: the dataset's facets
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return Dataset(namespace=database.namespace, name=database.full_name(name), facets=facets or {})


def file_datasets(paths: Any) -> list[Dataset]:
    """Return the datasets of files.

    :param paths: path or URL, or a list of them
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    several = isinstance(paths, Sequence) and not isinstance(paths, str)
    names = dict.fromkeys(map(file_name, paths[:MAX_FILES] if several else [paths]))
    return [Dataset(namespace=name[0], name=name[1]) for name in names if name]


def column_facet(database: Database, columns: Mapping[str, Iterable[tuple[Name, str]]]) -> dict[str, Any]:
    """Return the facet of the column lineage; empty if no origin is known.

    :param database: database of the origins
    :param columns: origins by column
    """
    from airflow.providers.common.compat.openlineage.facet import ColumnLineageDatasetFacet, Fields, InputField

    fields = {
        column: Fields(
            inputFields=[
                InputField(namespace=database.namespace, name=database.full_name(name), field=origin)
                for name, origin in origins
            ],
            transformationType="",
            transformationDescription="",
        )
        for column, origins in columns.items()
        if origins
    }
    return {"columnLineage": ColumnLineageDatasetFacet(fields=fields)} if fields else {}


def sql_facet(sql: str | Sequence[str]) -> dict[str, Any]:
    """Return the facet with the text of the SQL, without parameter values; empty if the text is too long.

    :param sql: a text, or a list of texts
    """
    from airflow.providers.common.compat.openlineage.facet import SQLJobFacet

    query = sql if isinstance(sql, str) else ";\n".join(sql)
    return {"sql": SQLJobFacet(query=query)} if len(query) <= MAX_CHARACTERS else {}


def report_to_hook_lineage(hook: Any, target: Name | None) -> None:
    """Report a load to Airflow's hook lineage, which serves Python tasks.

    :param hook: the hook that loaded
    :param target: schema and name of the table that it loaded into
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    try:
        if target and (uri := asset_uri(hook.settings, *target)):
            collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
            collector.add_output_asset(context=hook, uri=uri)
    except Exception as error:
        hook.log.info("The load is not reported to hook lineage: %s", type(error).__name__)
