"""What tasks read and write, for OpenLineage: told from the connection and the SQL's text alone.

Nothing here opens a session, asks the workspace or wakes an endpoint, and what goes wrong here is logged and fails no
task. The parser gets texts of a bounded length only. Values of parameters go nowhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import sqlparse

from airflow_provider_lakebase.assets import DEFAULT_SCHEMA, asset_uri, namespace_of
from airflow_provider_lakebase.exceptions import LakebaseError

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakebase.bulk.load import LoadResult
    from airflow_provider_lakebase.settings import LakebaseSettings

MOST_CHARACTERS = 100_000
"""Characters of SQL that are parsed, which takes less than half a second; of longer texts nothing is reported."""
MOST_FILES = 1000
"""Files of one load that are reported."""
_PLACEHOLDER = re.compile(r"%%|%(?:\([^)]*\))?[sbt]")
_CREATE = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*CREATE\s+(?P<temporary>(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b)?",
    re.IGNORECASE | re.DOTALL,
)
_SEARCH_PATH = re.compile(r"search_path\s*=\s*([^\s,]+)")
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|([^\s".]+)')
_CATALOGS = ("pg_catalog", "information_schema")
_S3 = ("s3a", "s3n")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes whose URLs have the container where others have a user."""

Name = tuple[str, str]
"""Schema and table, unquoted."""


# ── names ──


@dataclass(frozen=True)
class Database:
    """Hold what the names of a database's tables are made of.

    :param namespace: OpenLineage's, of all its tables
    :param name: its name; None where tables are named without it
    :param dialect: of its SQL, as OpenLineage's parser names it
    :param schema: schema of names without one; None where there are no schemas
    """

    namespace: str
    name: str | None
    dialect: str
    schema: str | None

    def full_name(self, table: Name) -> str:
        """Return OpenLineage's name of a table.

        :param table: its schema and name
        """
        return ".".join(filter(None, (self.name, *table)))


def lakebase_database(settings: LakebaseSettings) -> Database:
    """Return the database of a connection of type ``lakebase``.

    Names without a schema are in the first one of a ``search_path`` among ``options``, else in ``public``.

    :param settings: of the connection
    """
    found = [schema for schema in _SEARCH_PATH.findall(settings.libpq.get("options", "")) if "$" not in schema]
    schema = found[-1].strip("\"'") if found else DEFAULT_SCHEMA
    return Database(namespace_of(settings), settings.database, "postgres", schema)


def other_database(hook: Any, connection: Any) -> Database | None:
    """Return the database of another connection, asking it nothing; None where OpenLineage has no names for its kind.

    :param hook: a ``DbApiHook`` that is used for nothing else: it is kept from connecting
    :param connection: its Airflow connection
    """
    # Some hooks ask the database for its default schema.
    hook.get_conn = hook.get_sqlalchemy_engine = _refuse
    info = hook.get_openlineage_database_info(connection)
    if info is None:
        return None
    dialect = hook.get_openlineage_database_dialect(connection)
    try:
        schema = hook.get_openlineage_default_schema()
    except _Refused:
        schema = "dbo" if dialect == "mssql" else DEFAULT_SCHEMA
    namespace = f"{info.scheme}://{info.authority}" if info.authority else info.scheme
    return Database(namespace, info.database, dialect, schema)


class _Refused(Exception):
    """A hook was about to connect."""


def _refuse(*_: Any, **__: Any) -> None:
    raise _Refused


def split_name(table: str, schema: str | None) -> Name:
    """Return schema and table of a name, as Postgres reads it.

    :param table: the name as SQL writes it: ``t``, ``s.t``, ``"S"."T"``
    :param schema: schema of names without one
    """
    parts = [quoted.replace('""', '"') if quoted else plain.lower() for quoted, plain in _IDENTIFIER.findall(table)]
    return (parts[-2] if len(parts) > 1 else schema or "", parts[-1])


def file_name(path: Any) -> tuple[str, str]:
    """Return namespace and name of a file, as OpenLineage's naming has them, without user, password or query.

    :param path: path or URL
    """
    text = str(path)
    if "://" not in text:
        return "file", os.path.abspath(text)
    url = urlsplit(text)
    scheme = "s3" if url.scheme in _S3 else "gs" if url.scheme == "gcs" else url.scheme
    if scheme == "file":
        return "file", url.path
    return f"{scheme}://{_authority(url, scheme)}", url.path.lstrip("/")


def _authority(url: SplitResult, scheme: str) -> str:
    user, _, host = url.netloc.rpartition("@")
    return url.netloc if scheme in _CONTAINERS and user and ":" not in user else host


# ── SQL ──


@dataclass
class Tables:
    """Hold what SQL reads and writes, in the order it is first met.

    :param read: tables that it reads
    :param written: tables that it writes, each with the columns of which it is known what they come from
    :param selected: columns of its result, and what they come from
    :param errors: index, statement and message of what was not understood
    :param statements: how many it consists of
    """

    read: dict[Name, None] = field(default_factory=dict)
    written: dict[Name, dict[str, list[tuple[Name, str]]]] = field(default_factory=dict)
    selected: dict[str, list[tuple[Name, str]]] = field(default_factory=dict)
    errors: list[tuple[int, str, str]] = field(default_factory=list)
    statements: int = 0


def parse_sql(database: Database, sql: str | Sequence[str], *, has_parameters: bool = False) -> Tables | None:
    """Return what SQL reads and writes; None where it is too long.

    :param database: where it runs
    :param sql: a text of one or several statements, or a list of such
    :param has_parameters: whether ``%s`` in it stands for a parameter
    """
    texts = [sql] if isinstance(sql, str) else list(sql)
    if sum(map(len, texts)) > MOST_CHARACTERS:
        return None
    statements = [statement for text in texts for statement in _split(text)]
    found = Tables(statements=len(statements))
    temporary: set[Name] = set()
    for index, statement in enumerate(statements):
        if has_parameters:
            statement = _PLACEHOLDER.sub(lambda match: "%" if match[0] == "%%" else "NULL", statement)
        _parse_statement(found, temporary, index, statement, database)
    return found


def _split(text: str) -> list[str]:
    try:
        return [statement for statement in sqlparse.split(text) if statement.strip(" \t\r\n;")]
    except Exception:  # it limits what it takes
        return [text]


def _parse_statement(found: Tables, temporary: set[Name], index: int, statement: str, database: Database) -> None:
    from openlineage.common.sql import parse

    result = parse([statement], dialect=database.dialect, default_schema=database.schema)
    if result is None:
        return
    found.errors += [(index, statement, error.message) for error in result.errors]
    fold = database.dialect in ("postgres", "postgresql", "redshift")
    read = {_name_of(table, fold) for table in result.in_tables}
    written = {_name_of(table, fold): None for table in result.out_tables}
    create = _CREATE.match(statement)
    if create and create["temporary"]:
        temporary.update(written)
    columns: dict[str, list[tuple[Name, str]]] = {}
    for each in result.column_lineage:
        origins = [(_name_of(column.origin, fold), column.name) for column in each.lineage if column.origin]
        # It tells of tables below a WITH by their columns only, and knows no schema of a column's own table name.
        read.update(name for name, _ in origins if _is_read(name, statement))
        known = [(_among(read, name), column) for name, column in origins]
        columns[each.descendant.name] = [(name, column) for name, column in known if name and name not in temporary]
    if not written:
        found.selected.update(columns)
    for name in sorted(read):
        if _counts(name, temporary) and not _is_function(name, statement):
            found.read[name] = None
    for name in filter(lambda name: _counts(name, temporary), written):
        filled = found.written.setdefault(name, {})
        # Of an INSERT the parser tells the names that the query gives its columns, not those that they go into.
        if create:
            filled.update(columns)


def _name_of(table: Any, fold: bool) -> Name:
    """Return schema and table as the database keeps them; the parser drops quotes and folds nothing."""

    def part(name: str) -> str:
        value = getattr(table, name) or ""
        return value.lower() if fold and not getattr(table.quote_style, name, None) else value

    return part("schema"), part("name")


def _counts(name: Name, temporary: set[Name]) -> bool:
    return name not in temporary and name[0] not in _CATALOGS


def _is_read(name: Name, statement: str) -> bool:
    """Return whether the statement names the table as one to read from."""
    schema, table = map(re.escape, name)
    return re.search(rf'\b(?:FROM|JOIN)\s+(?:"?{schema}"?\.)?"?{table}\b', statement, re.IGNORECASE) is not None


def _among(names: set[Name], name: Name) -> Name | None:
    """Return which of the tables a name means that may lack its schema; None where that is not clear."""
    alike = [each for each in names if each[1] == name[1]]
    return name if name in names else alike[0] if len(alike) == 1 else None


def _is_function(name: Name, statement: str) -> bool:
    """Return whether a name that is read from is a function's, which the parser takes for a table."""
    call = rf"(?:\bFROM|\bJOIN|\bLATERAL|,)\s*(?:\w+\.)?{re.escape(name[1])}\s*\("
    return re.search(call, statement, re.IGNORECASE) is not None


# ── reports ──


def report(operator: Any, build: Callable[[], OperatorLineage[Any, Any] | None]) -> OperatorLineage[Any, Any] | None:
    """Return what a task reads and writes, or None when that cannot be told.

    :param operator: the task, whose log says why nothing is told
    :param build: tells it
    """
    try:
        return build()
    except ImportError:  # OpenLineage is not installed
        return None
    except Exception as error:
        # The text of any other error may hold a piece of the SQL.
        reason = str(error) if isinstance(error, LakebaseError) else type(error).__name__
        operator.log.info("No lineage is reported: %s", reason)
        return None


def report_sql(settings: LakebaseSettings, sql: Any, *, has_parameters: bool) -> OperatorLineage[Any, Any]:
    """Return what SQL reads and writes on Lakebase.

    :param settings: of the connection
    :param sql: a text, or a list of texts
    :param has_parameters: whether ``%s`` in it stands for a parameter
    """
    from airflow.providers.common.compat.openlineage.facet import Error, ExtractionErrorRunFacet
    from airflow.providers.openlineage.extractors import OperatorLineage

    database = lakebase_database(settings)
    tables = parse_sql(database, sql, has_parameters=has_parameters)
    if tables is None:
        return OperatorLineage()
    run_facets = {}
    if tables.errors:
        errors = [
            Error(errorMessage=message, stackTrace=None, task=statement, taskNumber=index)
            for index, statement, message in tables.errors
        ]
        facet = ExtractionErrorRunFacet(totalTasks=tables.statements, failedTasks=len(errors), errors=errors)
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
    """Return that a load reads the inputs and writes its table.

    :param settings: of the connection
    :param table: target, as SQL writes it
    :param loaded: what the load did; None before it was done
    :param inputs: what it reads
    :param columns: facet of the columns that the table's come from
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
    """Return what a query reads, and the facet of the columns that a load of its rows fills.

    :param database: where it runs
    :param sql: the query
    :param columns: of the target: their names, or a mapping from the query's; None where they are the query's own
    :param has_parameters: whether ``%s`` in it stands for a parameter
    """
    tables = parse_sql(database, sql, has_parameters=has_parameters)
    if tables is None:
        return [], {}
    if columns is None:
        filled = tables.selected
    else:
        # The parser does not tell the order of the query's columns, so that names alone lead nowhere.
        renamed = columns if isinstance(columns, Mapping) else {}
        filled = {renamed[name]: origins for name, origins in tables.selected.items() if name in renamed}
    return [table_dataset(database, name) for name in tables.read], column_facet(database, filled)


def table_dataset(database: Database, name: Name, facets: dict[str, Any] | None = None) -> Dataset:
    """Return the dataset of a table.

    :param database: where it is
    :param name: its schema and name
    :param facets: what is known of it
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return Dataset(namespace=database.namespace, name=database.full_name(name), facets=facets or {})


def file_datasets(paths: Any) -> list[Dataset]:
    """Return the datasets of files.

    :param paths: path or URL, or a list of them
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    several = isinstance(paths, Sequence) and not isinstance(paths, str)
    names = dict.fromkeys(map(file_name, paths[:MOST_FILES] if several else [paths]))
    return [Dataset(namespace=namespace, name=name) for namespace, name in names]


def column_facet(database: Database, columns: Mapping[str, Iterable[tuple[Name, str]]]) -> dict[str, Any]:
    """Return the facet that says which columns a table's columns come from; nothing where none is known.

    :param database: where they come from
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
    """Return the facet that holds SQL as it was written, without values of parameters.

    :param sql: a text, or a list of texts
    """
    from airflow.providers.common.compat.openlineage.facet import SQLJobFacet

    return {"sql": SQLJobFacet(query=sql if isinstance(sql, str) else ";\n".join(sql))}


def tell_collector(hook: Any, target: Name | None) -> None:
    """Tell Airflow's hook lineage of a load, so that a task's own Python code has an output too.

    :param hook: the hook that loaded
    :param target: the table it loaded into
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    try:
        if target and (uri := asset_uri(hook.settings, *target)):
            collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
            collector.add_output_asset(context=hook, uri=uri)
    except Exception as error:
        hook.log.info("Hook lineage was not told of the load: %s", type(error).__name__)
