"""Load a source into a table, in one transaction: exactly once, if the load has an identity.

:func:`run_load` is the whole protocol: prepare the ledger, load, commit, analyze. :func:`load` is its transaction
alone, for callers that commit it with other work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Table, check_types, find_table
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.heads import Head
from airflow_provider_lakebase.core.bulk.modes import LoadExecution
from airflow_provider_lakebase.core.bulk.new_table import create_table_for
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.parts import PartOpener
from airflow_provider_lakebase.core.bulk.plan import make_plan
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.bulk.rejection import rejecting
from airflow_provider_lakebase.core.bulk.rejects import Rejects
from airflow_provider_lakebase.core.bulk.rejects_table import RejectsTable
from airflow_provider_lakebase.core.bulk.source import Files, Source, classify
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.core.ledger import claim_load, prepare_ledger, record_rows
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

log = logging.getLogger(__name__)

CHANGED_MUCH = 0.1
"""Share of a table's rows above which a load is followed by ANALYZE."""
_PRIVILEGES = {
    "append": "INSERT",
    "replace": "SELECT, INSERT and DELETE (also UPDATE if foreign keys reference it)",
    "upsert": "SELECT, INSERT and UPDATE",
}


BeforeRows: TypeAlias = Callable[[psycopg.Connection[Any], Table, bool], None]
"""Called in the load's transaction with the session, the target, and whether the load created the target."""


@dataclass(frozen=True)
class LoadResult:
    """The result of a load.

    :param rows: rows written
    :param bytes: bytes that COPY sent
    :param seconds: duration
    :param rejected: rows left out because they cannot be stored
    :param already_loaded: whether the ledger had the load, so that nothing was done; ``rows`` and ``rejected`` are
        those of then
    :param target: schema and name of the table, unquoted
    :param columns: name and type of the table's columns
    """

    rows: int
    bytes: int
    seconds: float
    already_loaded: bool = False
    target: tuple[str, str] | None = None
    columns: tuple[tuple[str, str], ...] = ()
    rejected: int = 0


def run_load(
    connection: psycopg.Connection[Any],
    source: Any,
    table: str,
    options: LoadOptions | None = None,
    *,
    check: Callable[[], None] = lambda: None,
    rejects_id: str | None = None,
    before_rows: BeforeRows | None = None,
) -> LoadResult:
    """Load a source and commit. A load whose ``load_id`` is in the ledger is not repeated.

    :param connection: an open session, not in autocommit mode and outside a transaction
    :param source: as for :func:`load`
    :param table: target, as in SQL
    :param options: how; by default :class:`LoadOptions`' own defaults
    :param check: called on every block of data; raises to stop the load
    :param rejects_id: as for :func:`load`
    :param before_rows: as for :func:`load`
    :raises LakebaseLoadError: as by :func:`load`; if the ledger can be neither created nor used
    :raises LakebaseSettingsError: as by :func:`load`; if the session is in autocommit mode
    :raises LakebaseOutcomeUnknownError: if a ``LakebaseSession`` is lost between COMMIT and its answer
    """
    options = options or LoadOptions()
    if connection.autocommit:
        what = "The session is in autocommit mode, in which a load would not be one transaction"
        raise LakebaseSettingsError(what, context=session_context(connection), hint="Set autocommit to False.")
    if options.load_id is not None:
        prepare_ledger(connection, options.ledger_schema)
    result = load(connection, source, table, options, check=check, rejects_id=rejects_id, before_rows=before_rows)
    connection.commit()
    if not result.already_loaded:
        analyze(connection, table, result.rows)
    return result


def load(
    connection: psycopg.Connection[Any],
    source: Any,
    table: str,
    options: LoadOptions | None = None,
    *,
    check: Callable[[], None] = lambda: None,
    rejects_id: str | None = None,
    before_rows: BeforeRows | None = None,
) -> LoadResult:
    """Load a source in the session's current transaction, which the caller commits: all of it, or nothing.

    :param connection: an open session; with a ``load_id``, one whose ledger exists
    :param source: iterable of tuples or dicts; path (str, ``pathlib.Path`` or ``ObjectStoragePath``) of a file or
        folder, pattern with ``*``, ``?`` or ``**``, or a list of them; file opened for reading bytes; pyarrow
        ``Table``, ``RecordBatchReader``, or iterable of tables or record batches; data frame of pandas or polars;
        object with ``__arrow_c_stream__``, such as a relation of DuckDB; or an iterable of those
    :param table: target, as in SQL
    :param options: how; by default :class:`LoadOptions`' own defaults
    :param check: called on every block of data; raises to stop the load
    :param rejects_id: identity of the load in ``rejects_table``, whose rows of the same identity are replaced; by
        default ``load_id``
    :param before_rows: called before the table is changed; raises to refuse the load
    :raises LakebaseRejectLimitError: if more rows cannot be stored than ``reject_limit`` permits
    :raises LakebaseLoadError: for a value that the table cannot store exactly, naming row or line and column, never the
        value; if the table or a column is missing, or the role may not write to it
    :raises LakebaseSettingsError: for options that do not suit the source or the table
    :raises LakebaseStorageError: if the storage of a file fails
    :raises FileNotFoundError: if there is no such file, or none in a folder or for a pattern
    :raises psycopg.Error: if the rows are not to blame
    """
    options = options or LoadOptions()
    progress = Progress(f"Loading into {table}", check)
    try:
        found = classify(source, options.format, options.index, allow_empty=options.allow_empty)
        return _load(connection, found, table, options, progress, options.load_id or rejects_id, before_rows)
    except LakebaseLoadError as error:
        error.table = table
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        also = " (also SELECT with reject_limit)" if options.rejects else ""
        raise LakebaseLoadError(
            f"Nothing was loaded into {table}: {error.diag.message_primary}",
            context=session_context(connection),
            hint=f"Mode '{options.mode}' needs {_PRIVILEGES[options.mode]}{also} on the table and USAGE on its schema: "
            "bootstrap the role as the owner of the table to grant them.",
            table=table,
            sqlstate=error.sqlstate,
        ) from None


def _load(
    connection: psycopg.Connection[Any],
    source: Source,
    name: str,
    options: LoadOptions,
    progress: Progress,
    rejects_id: str | None,
    before_rows: BeforeRows | None,
) -> LoadResult:
    _check_file_options(source, options)
    if options.casts or options.create_table or options.new_columns == "add":
        # Begins the transaction: psycopg would commit a block of transaction() in which one begins.
        connection.execute("SELECT")
    check_types(connection, options.casts or {})
    is_new = bool(options.create_table) and create_table_for(connection, source, name, options)
    table = find_table(connection, name)
    if table.has_rules:
        what = f"Table {name} has rules, which COPY does not run"
        hint = "Replace the rules by triggers, or disable them: ALTER TABLE … DISABLE RULE …."
        raise LakebaseLoadError(what, context=session_context(connection), hint=hint)
    if before_rows is not None:
        before_rows(connection, table, is_new)
    target = (table.oid, name)
    if options.load_id is not None:
        record = claim_load(connection, options.ledger_schema, options.load_id, target)
        if record is not None:
            log.info("This load into %s was already done on %s", name, record.loaded_at)
            return _result(record.rows, record.rejected, 0, progress, table, already_loaded=True)
    mapper = ColumnMapper(connection, table, options, has_several=isinstance(source, Files) and len(source.files) > 1)
    rows, rejected = _send_good_rows(mapper, source, progress, rejects_id)
    if options.load_id is not None:
        record_rows(connection, options.ledger_schema, options.load_id, target, rows, rejected)
    progress.rows = rows
    progress.log("done")
    return _result(rows, rejected, progress.bytes, progress, mapper.table)


def _result(
    rows: int, rejected: int, bytes: int, progress: Progress, table: Table, *, already_loaded: bool = False
) -> LoadResult:
    declared = tuple((column.name, column.declared) for column in table.columns)
    return LoadResult(rows, bytes, progress.seconds, already_loaded, table.path, declared, rejected)


def _send_good_rows(
    mapper: ColumnMapper, source: Source, progress: Progress, rejects_id: str | None
) -> tuple[int, int]:
    """Send all rows; return how many were written, and how many were left out."""
    connection, table, options = mapper.connection, mapper.table, mapper.options
    if not options.rejects:
        return _send(mapper, source, progress, None), 0
    rejects_table = RejectsTable(connection, options.rejects_table, rejects_id) if options.rejects_table else None
    if rejects_table is not None:
        rejects_table.check(table)
    with Rejects(connection, table.name, options) as rejects:
        rows = _send(mapper, source, progress, rejects)
        if rejects_table is not None:
            rejects_table.write(rejects, ".".join(table.path))
        if rejects.count:
            place = (
                f"are in {rejects_table.name}" if rejects_table else "were left out (set 'rejects_table' to keep them)"
            )
            facts = (rejects.count, table.name, place, rejects.summary())
            log.warning("%d rows cannot be stored in %s and %s: %s", *facts)
    return rows, rejects.count


def _check_file_options(source: Source, options: LoadOptions) -> None:
    formats = {file.format for file in source.files} if isinstance(source, Files) else set()
    if isinstance(source, Files) and not formats:
        return
    for name, format in options.given_for_one_format():
        if format not in formats:
            what = f"{name} is given, but the source is no {format.upper()} file"
            raise LakebaseSettingsError(what, hint="Leave it out.")


def _send(mapper: ColumnMapper, source: Source, progress: Progress, rejects: Rejects | None) -> int:
    context, options = mapper.context, mapper.options
    has_raw_text = isinstance(source, Files) and any(file.kind.is_sent_as_is for file in source.files)
    opener = PartOpener(mapper)
    heads = opener.read_heads(source)
    execution: LoadExecution | None = None
    for number, opened in enumerate(opener.parts(source)):
        with opened as part:
            table = mapper.table
            if execution is None:
                heads = heads or [Head.of(part)]
                may_round = has_raw_text or part.may_round
                plan = make_plan(options, table, heads, has_raw_text=may_round, context=context)
                with rejecting(table.name, context, mode=options.mode):
                    execution = LoadExecution(mapper.connection, plan, progress, rejects)
            if Head.of(part) != heads[number]:
                raise mapper.error(f"{part.label} was changed while it was being loaded", "Load it again.")
            target = execution.prepare(part)
            with rejecting(table.name, context, mode=options.mode, part=part, target=target):
                part.copy_to(target)
    if mapper.has_several and progress.rows:
        mapper.check_used(after_rows=True)
    assert execution is not None  # noqa: S101 - every source has a part
    with rejecting(mapper.table.name, context, mode=options.mode):
        return execution.finish()


def analyze(connection: psycopg.Connection[Any], table: str, rows: int) -> None:
    """Run ANALYZE if a load changed much of a table and the role owns it. A failure is logged, not raised.

    :param connection: the session of the load, which is committed
    :param table: target, as in SQL
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
