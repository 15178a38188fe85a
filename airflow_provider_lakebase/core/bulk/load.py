"""Load a source into a table: what it is, which columns it fills, by which mode, once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column, Table, create_table, find_table
from airflow_provider_lakebase.core.bulk.copy import BadValue, Progress, SourceFailed, explain, load_error
from airflow_provider_lakebase.core.bulk.formats.files import DAMAGED, FORMATS, Unreadable
from airflow_provider_lakebase.core.bulk.modes import LoadExecution, LoadPlan, Mode
from airflow_provider_lakebase.core.bulk.sources import arrow_definitions, files_of, holds_csv, open_sources, to_arrow
from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.core.ledger import claim_load, record_rows
from airflow_provider_lakebase.core.storage import storage_error
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext, LakebaseLoadError, LakebaseSettingsError

log = logging.getLogger(__name__)

CHANGED_MUCH = 0.1
"""Share of a table's rows beyond which a load is followed by ANALYZE."""
_PRIVILEGES = {
    "append": "INSERT",
    "replace": "SELECT, INSERT and DELETE (also UPDATE where foreign keys lead to it)",
    "upsert": "SELECT, INSERT and UPDATE",
}


@dataclass(frozen=True)
class LoadOptions:
    """Say what is loaded where, and how.

    :param table: target, as SQL writes it: ``schema.table``, quoted where it must be
    :param mode: ``append``; ``replace`` for all rows, or those of ``replace_where``; ``upsert`` on ``key_columns``
    :param columns: the target's columns in the source's order, or a mapping from the source's names to them; what a
        mapping does not name is left out. By default the source's own names, or all columns where it has none
    :param key_columns: columns of a unique index that tell rows apart, for ``upsert``; by default the primary key's
    :param update_columns: columns that an upsert changes in rows that are there, by default all that are loaded; an
        empty list leaves such rows as they are
    :param duplicates: what an upsert does with rows of the source that have the same key: ``last`` wins, or ``error``
    :param version_column: column that must be larger than the table's for an upsert to change a row
    :param replace_where: SQL condition on the table's columns, unqualified: the rows that ``replace`` replaces, which
        the rows loaded must meet too
    :param casts: SQL type by target column, that the source's text is cast to before it goes into the column
    :param format: ``csv``, ``jsonl`` or ``parquet``; by default by the ending of the file's name
    :param header: whether the first line of a CSV file names its columns
    :param null: the unquoted text that stands for NULL in a CSV file
    :param create_table: make the table from the Parquet or Arrow schema when there is none, ``key_columns`` its key
    :param load_id: identity of the load in the ledger, where a second one with it finds it and does nothing
    :param ledger_schema: schema of the ledger
    :raises LakebaseSettingsError: for values that cannot be, or not together
    """

    table: str
    mode: Mode = "append"
    columns: Sequence[str] | Mapping[str, str] | None = None
    key_columns: Sequence[str] | None = None
    update_columns: Sequence[str] | None = None
    duplicates: str = "last"
    version_column: str | None = None
    replace_where: str | None = None
    casts: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    header: bool = True
    null: str = ""
    create_table: bool = False
    load_id: str | None = None
    ledger_schema: str = LEDGER_SCHEMA

    def __post_init__(self) -> None:
        _check_choice("mode", self.mode, ("append", "replace", "upsert"))
        _check_choice("duplicates", self.duplicates, ("last", "error"))
        upsert_only = ("update_columns", "version_column")
        for name in upsert_only:
            if getattr(self, name) is not None and self.mode != "upsert":
                raise LakebaseSettingsError(f"{name} is given with mode '{self.mode}'", hint="Use mode 'upsert'.")
        if self.key_columns and self.mode != "upsert" and not self.create_table:
            raise LakebaseSettingsError(f"key_columns is given with mode '{self.mode}'", hint="Use mode 'upsert'.")
        if self.format is not None:
            _check_choice("format", self.format, FORMATS)
        if self.replace_where is not None and self.mode != "replace":
            raise LakebaseSettingsError(f"replace_where is given with mode '{self.mode}'", hint="Use mode 'replace'.")
        if not isinstance(self.null, str) or set(self.null) & set('",\r\n\0'):
            hint = (
                "Give the text as it stands in the file, without quotes. A quoted empty value is NULL by itself where "
                "the column is no text."
            )
            raise LakebaseSettingsError("null holds a quote, a comma, a line break or a null byte", hint=hint)
        if self.load_id is not None and not self.load_id.strip():
            raise LakebaseSettingsError("load_id is empty", hint="Give each load an identity of its own, or None.")
        for name in ("columns", "key_columns", "update_columns"):
            if isinstance(getattr(self, name), str):
                raise LakebaseSettingsError(f"{name} is a str", hint="Give a list of names.")


@dataclass(frozen=True)
class LoadResult:
    """Hold what a load did.

    :param rows: rows written
    :param bytes: bytes that COPY carried
    :param seconds: time it took
    :param already_loaded: whether the ledger had it, so that nothing was done; ``rows`` are those of the first time
    :param target: schema and name of the table, unquoted
    :param columns: name and type of the table's columns
    """

    rows: int
    bytes: int
    seconds: float
    already_loaded: bool = False
    target: tuple[str, str] | None = None
    columns: tuple[tuple[str, str], ...] = ()


def load(
    connection: psycopg.Connection[Any],
    source: Any,
    request: LoadOptions,
    *,
    context: ErrorContext = NO_CONTEXT,
    check: Callable[[], None] = lambda: None,
) -> LoadResult:
    """Load a source in the session's current transaction, which the caller commits: all of it, or nothing.

    :param connection: an open session
    :param source: iterable of tuples or dicts; path (str, ``pathlib.Path`` or ``ObjectStoragePath``) or a list of them;
        file opened for reading bytes; pyarrow ``Table``, ``RecordBatchReader``, or iterable of tables or record
        batches; data frame of pandas, without its index, or polars, or an iterable of them
    :param request: where to, and how
    :param context: connection and endpoint, for messages
    :param check: called again and again; raises when the load shall stop
    :raises LakebaseLoadError: for a value the table cannot take exactly, naming row or line and column, never the
        value; when the table or a column is missing or the role may not write to it
    :raises LakebaseSettingsError: for arguments that do not fit the table
    :raises FileNotFoundError: when there is no such file
    :raises psycopg.Error: for what has nothing to do with the rows
    """
    progress = Progress(f"Loading into {request.table}", check)
    try:
        source = to_arrow(source)
        return _load(connection, source, request, progress, context)
    except psycopg.errors.InsufficientPrivilege as error:
        what = f"Nothing was loaded into {request.table}: {error.diag.message_primary}"
        hint = (
            f"Mode '{request.mode}' needs {_PRIVILEGES[request.mode]} on the table and USAGE on its schema: "
            "LakebaseRoleBootstrapOperator grants them, on the connection of the table's owner."
        )
        raise LakebaseLoadError(what, context=context, hint=hint) from None


def _load(
    connection: psycopg.Connection[Any], source: Any, request: LoadOptions, progress: Progress, context: ErrorContext
) -> LoadResult:
    if (request.null or not request.header) and not holds_csv(source, request):
        what = "null or header is given, but the source is no CSV file"
        raise LakebaseSettingsError(what, context=context, hint="Leave them out.")
    _check_casts(connection, request.casts, context)
    if request.create_table:
        definitions = arrow_definitions(source, request, context)
        create_table(connection, request.table, definitions, request.key_columns or (), context=context)
    table = find_table(connection, request.table, context=context)
    target = (table.oid, request.table)
    declared = tuple((column.name, column.declared) for column in table.columns)
    if request.load_id is not None:
        record = claim_load(connection, request.ledger_schema, request.load_id, target, context=context)
        if record is not None:
            log.info("Loaded into %s on %s already; nothing is done", request.table, record.loaded_at)
            return LoadResult(record.rows, 0, progress.seconds, True, table.path, declared)
    rows = _apply(connection, source, request, table, progress, context)
    if request.load_id is not None:
        record_rows(connection, request.ledger_schema, request.load_id, target, rows)
    progress.rows = rows
    progress.tell("done")
    return LoadResult(rows, progress.bytes, progress.seconds, False, table.path, declared)


def analyze(connection: psycopg.Connection[Any], table: str, rows: int) -> None:
    """Run ANALYZE after a load that changed much of a table; where it cannot, warn and go on.

    :param connection: the session of the load, which is committed
    :param table: target, as SQL writes it
    :param rows: rows written
    """
    try:
        with connection.transaction():
            found = find_table(connection, table)
            if not found.owned or rows < CHANGED_MUCH * found.rows_estimate:
                return
            connection.execute(sql.SQL("ANALYZE {}").format(found.identifier))
    except (psycopg.Error, LakebaseLoadError) as error:
        log.warning("Loaded into %s, but ANALYZE failed: %s", table, error)


def _apply(
    connection: psycopg.Connection[Any],
    source: Any,
    request: LoadOptions,
    table: Table,
    progress: Progress,
    context: ErrorContext,
) -> int:
    application: LoadExecution | None = None
    try:
        with closing(open_sources(connection, source, request, table, context)) as sources:
            first = next(sources, None)
            columns = first.columns if first else list(table.loadable.values())
            application = LoadExecution(connection, make_plan(source, request, table, columns, context), progress)
            return application.run(chain([first] if first else [], sources))
    except (SourceFailed, Unreadable, *DAMAGED) as error:
        cause = error.__cause__ if isinstance(error, SourceFailed) else error
        if isinstance(cause, Unreadable):
            label = application.source.label if application and application.source else "the file"
            raise LakebaseLoadError(f"{label} cannot be read: {cause}", context=context, hint=cause.hint) from None
        # Errors of the network and the disk have a number; those of a file's content have none.
        is_damage = isinstance(cause, (*DAMAGED, ValueError)) or getattr(cause, "errno", 0) is None
        if application is None or application.source is None or not (files_of(source) and is_damage):
            label = application.source.label if application and application.source else ""
            raise (cause and files_of(source) and storage_error(cause, label)) or cause or error from None
        what = f"{application.source.label} is not what its name says, or is damaged or cut short"
        raise LakebaseLoadError(what, context=context, hint="Write it again; nothing of it was loaded.") from cause
    # The original errors may quote the value, and would be printed as the cause.
    except BadValue as error:
        raise load_error(error, application.source if application else None, request.table, context) from None
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        if application is None:
            raise
        found = explain(error, application.source, application.destination, request.table, context, mode=request.mode)
        if found is error:
            raise
        raise found from None


def make_plan(
    source: Any, request: LoadOptions, table: Table, columns: Sequence[Column], context: ErrorContext
) -> LoadPlan:
    """Return how the rows get into the table.

    :param source: what :func:`load` was given
    :param request: what is wanted
    :param table: the target
    :param columns: those of the first source
    :param context: connection and endpoint, for messages
    :raises LakebaseSettingsError: for columns that cannot be what they are named as
    """
    filled = [table.loadable[column.name] for column in columns if column.name in table.loadable]
    names = [column.name for column in filled]
    if not filled:
        what = f"No column of the source is loaded into table {request.table}"
        raise LakebaseLoadError(what, context=context, hint="Name at least one by 'columns'.")
    keys: Sequence[str] = ()
    update: Sequence[str] = ()
    if request.mode == "upsert":
        keys = _find_keys(request, table, names, context)
        changeable = [column.name for column in filled if column.name not in keys and column.identity != "a"]
        update = changeable if request.update_columns is None else request.update_columns
        _check_among("update_columns", update, changeable, context)
        if request.version_column is not None:
            _check_among("version_column", [request.version_column], update, context)
    raw = holds_csv(source, request)
    return LoadPlan(
        table=table,
        mode=request.mode,
        columns=filled,
        keys=keys,
        update=update,
        version=request.version_column,
        last_wins=request.duplicates == "last",
        predicate=request.replace_where,
        casts=request.casts,
        leaves_out=raw and isinstance(request.columns, Mapping),
        unchecked=raw,
    )


def _find_keys(request: LoadOptions, table: Table, names: Sequence[str], context: ErrorContext) -> Sequence[str]:
    wanted = request.key_columns or table.primary_key
    if not wanted:
        raise LakebaseSettingsError(
            f"Table {request.table} has no primary key",
            context=context,
            hint="Name the columns of a unique index as 'key_columns'.",
        )
    # In the order of the index, whatever the order here, so that all upserts lock rows in the same order.
    found = next((key for key in table.keys if set(key) == set(wanted)), None)
    if found is None:
        raise LakebaseSettingsError(
            f"Table {request.table} has no unique index on exactly {', '.join(wanted)}",
            context=context,
            hint="Make one, or name the columns of one as 'key_columns'.",
        )
    _check_among("key_columns", found, names, context)
    return found


def _check_casts(connection: psycopg.Connection[Any], casts: Mapping[str, str], context: ErrorContext) -> None:
    for column, kind in casts.items():
        try:
            with connection.transaction():
                connection.execute("SELECT %s::regtype", [kind])
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            what = f"casts names '{kind}' for column '{column}', which is no type"
            raise LakebaseSettingsError(what, context=context, hint="Name a type as SQL writes it.") from error


def _check_among(name: str, given: Sequence[str], among: Sequence[str], context: ErrorContext) -> None:
    for column in given:
        if column not in among:
            raise LakebaseSettingsError(
                f"{name} holds '{column}'", context=context, hint=f"Choose from what is loaded: {', '.join(among)}."
            )


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise LakebaseSettingsError(f"{name} is {value!r}", hint=f"Choose from {', '.join(choices)}.")
