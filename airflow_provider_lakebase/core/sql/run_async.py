"""Run statements on an asynchronous session: in one transaction, never two at once, and once where the ledger says so.

Their results come as the text that Postgres sends, which crosses processes as it is; whoever gets it reads it with
psycopg, so that its values are those of a session of his own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
from psycopg import generators
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.types.datetime import TimestamptzLoader

from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread
from airflow_provider_lakebase.core.ledger import EXISTS as LEDGER_EXISTS
from airflow_provider_lakebase.core.ledger import TABLE, completion, creation, entry, not_permitted, search
from airflow_provider_lakebase.core.sql.binding import bind, check_encoding, hide_values
from airflow_provider_lakebase.core.sql.split import Parameters, check_placeholders, read_parameters, split_statements
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession

MOST_RESULT_BYTES = 48 * 1024
"""Bytes of text that the results of one task may have: Airflow keeps them in a column of its metadata database."""

_TARGET = (0, "statements")
_END_EARLIER = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE application_name = %s AND usename = session_user AND pid <> pg_backend_pid()
"""
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_NO_TRANSACTION = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT")
_OUTLASTS_TRANSACTION = ("SET", "RESET", "DISCARD", "LISTEN", "UNLISTEN", "PREPARE", "EXECUTE", "DEALLOCATE", "LOAD")
_SET_WITHIN_TRANSACTION = ("LOCAL", "CONSTRAINTS")
_ROWS = (ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_OK)
_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_COPY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
_READABLE = {"DateStyle": "ISO", "IntervalStyle": "postgres"}


@dataclass(frozen=True)
class StatementsRequest:
    """Say what is run.

    :param statements: texts, each of one or more statements; a text's result is that of its last one
    :param parameters: of each text
    :param session_name: ``application_name`` of the session, the same at each attempt of a task and no other's
    :param fetch: whether rows are wanted
    :param ledger_schema: schema of the ledger, or None for none
    :param load_id: the task's identity in the ledger
    """

    statements: Sequence[str]
    parameters: Parameters
    session_name: str
    fetch: bool = True
    ledger_schema: str | None = None
    load_id: str = ""


@dataclass
class TextResult:
    """Hold the result of a statement as text.

    :param columns: name and type OID of each column; none for a statement without rows
    :param rows: text of each value, None for NULL
    :param rowcount: rows returned or affected, -1 where Postgres does not say
    :param time_zone: TimeZone of the session, in which its times are told
    """

    columns: list[tuple[str, int]] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    rowcount: int = -1
    time_zone: str = "UTC"


class ResultColumn(NamedTuple):
    """Describe a column as the Python database API has it."""

    name: str
    type_code: int
    display_size: None = None
    internal_size: None = None
    precision: None = None
    scale: None = None
    null_ok: None = None


class ResultCursor:
    """Give a result as a cursor does, to common-sql's handlers.

    :param result: the result
    """

    def __init__(self, result: TextResult) -> None:
        self.rowcount = result.rowcount
        self.description = [ResultColumn(name, oid) for name, oid in result.columns] or None
        self._rows = _load(result)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None after the last."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """Return the next rows.

        :param size: how many at most
        """
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows that are left."""
        return list(self._rows)


def validate_deferrable(statements: Sequence[str], parameters: Parameters) -> None:
    """Keep out what the restart of a triggerer could do twice or half, or what does not reach it.

    :param statements: texts, each of one or more statements
    :param parameters: of each text
    :raises LakebaseSettingsError: for COPY, the transaction's own statements and those that outlast it, and for
        parameters that are no JSON
    """
    for text in statements:
        for statement in split_statements(text):
            if reason := _unsafe(statement.words):
                hint = "Run the task with deferrable=False."
                raise LakebaseSettingsError(f"{statement.words[0]} cannot be deferred: {reason}", hint=hint)
        check_placeholders(text, read_parameters(parameters))
    refuse_parameters(parameters)


def refuse_parameters(parameters: Parameters) -> None:
    """Keep out parameters that would reach the triggerer as something else.

    :param parameters: of a statement
    :raises LakebaseSettingsError: for those that are no JSON
    """
    if not _is_plain(parameters):
        raise LakebaseSettingsError(
            "parameters that are not str, int, float, bool, None, or lists and dicts of them cannot be deferred",
            hint="Give their text and cast it in SQL, as %s::date, or run the task with deferrable=False.",
        )


async def run_statements(session: AsyncLakebaseSession, request: StatementsRequest) -> list[TextResult] | None:
    """Run the statements in one transaction and commit it.

    An earlier session of the same name is ended first, and while one runs, another one waits: nobody knows whether the
    process that began it is still there.

    :param session: newly opened, by the name of the request
    :param request: what to run
    :raises LakebaseSettingsError: when the results are larger than :data:`MOST_RESULT_BYTES`; nothing was applied
    :raises LakebaseLoadError: when the role may not make or use the ledger
    :raises LakebaseOutcomeUnknownError: when the session was lost between COMMIT and its answer
    :raises psycopg.Error: as Postgres refused a statement
    :returns: a result for each text; None when the ledger holds the task already
    """
    await session.execute(_END_EARLIER, [request.session_name])
    if request.ledger_schema is not None:
        await _prepare_ledger(session, request.ledger_schema)
    await session.commit()
    await session.execute(_ALONE, [request.session_name])
    if request.ledger_schema is not None and not await _claim(session, request.ledger_schema, request.load_id):
        await session.rollback()
        return None
    results, room = [], MOST_RESULT_BYTES
    for text in request.statements:
        result = await run_text(session, text, request.parameters, fetch=request.fetch, most_bytes=room)
        room -= len(write_results([result]).encode())
        results.append(result)
    if request.ledger_schema is not None:
        rows = sum(max(result.rowcount, 0) for result in results)
        await session.execute("RESET ROLE")
        await session.execute(completion(request.ledger_schema), [rows, request.load_id, _TARGET[0]])
    for result in results:
        ResultCursor(result).fetchall()  # what nobody can read is found out before the commit
    await session.commit()
    return results


def write_results(results: Sequence[TextResult]) -> str:
    """Return results as one text.

    :param results: of :func:`run_statements`
    """
    return _to_json([[each.columns, each.rows, each.rowcount, each.time_zone] for each in results])


def read_results(text: str) -> list[TextResult]:
    """Return the results of :func:`write_results`.

    :param text: what it returned
    """
    return [
        TextResult([(name, oid) for name, oid in columns], rows, rowcount, time_zone)
        for columns, rows, rowcount, time_zone in json.loads(text)
    ]


async def run_text(
    session: AsyncLakebaseSession,
    text: str,
    parameters: Parameters,
    *,
    fetch: bool = True,
    most_bytes: int | None = None,
    most_rows: int | None = None,
) -> TextResult:
    """Run a text of one or more statements in the session's transaction, and return the result of the last one.

    :param session: an open session
    :param text: the statements
    :param parameters: of all of them together
    :param fetch: whether rows are wanted
    :param most_bytes: bytes that the result may have
    :param most_rows: rows that are wanted; when there are more, the statement is cancelled and its transaction lost
    :raises LakebaseSettingsError: when it has more, or tells times as none can read them
    :raises psycopg.Error: as Postgres refused a statement
    """
    statements = await run_in_daemon_thread(lambda: split_statements(bind(session, text, parameters)))
    if session.info.transaction_status == TransactionStatus.IDLE:
        await session.execute("SELECT 1")  # with which psycopg begins the transaction
    result = TextResult()
    for number, statement in enumerate(statements, 1):
        last = number == len(statements)
        with hide_values(parameters):
            result = await _run_one(session, statement.text, fetch and last, most_bytes, most_rows)
        check_encoding(session)
    result.time_zone = session.info.parameter_status("TimeZone") or "UTC"
    for name, wanted in _READABLE.items():
        if result.rows and not (session.info.parameter_status(name) or wanted).startswith(wanted):
            hint = f"Leave {name} as it is, or run the task with deferrable=False."
            raise LakebaseSettingsError(f"{name} was changed", context=session.context, hint=hint)
    return result


async def _prepare_ledger(session: AsyncLakebaseSession, schema: str) -> None:
    """Make the ledger where there is none, for a transaction of its own, so that nobody waits for the statements."""
    try:
        if await (await session.execute(LEDGER_EXISTS, [schema, TABLE])).fetchone() is None:
            for statement in creation(schema):
                await session.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise not_permitted(f"The ledger {schema}.{TABLE} cannot be made", error, session.context) from error


async def _claim(session: AsyncLakebaseSession, schema: str, load_id: str) -> bool:
    """Enter the task into the ledger; return False when it is there."""
    try:
        while await (await session.execute(entry(schema), [load_id, *_TARGET])).fetchone() is None:
            if await (await session.execute(search(schema), [load_id, _TARGET[0]])).fetchone() is not None:
                return False
    except psycopg.errors.InsufficientPrivilege as error:
        raise not_permitted(f"The ledger {schema}.{TABLE} cannot be used", error, session.context) from error
    return True


async def _run_one(
    session: AsyncLakebaseSession,
    statement: str,
    keep: bool,
    most_bytes: int | None,
    most_rows: int | None,
) -> TextResult:
    """Run one statement and read its rows one by one, as text.

    So a large result is refused before it fills the memory that all triggers share, nothing is decoded that nobody
    wants, and the server takes no second statement that was hidden in the first.
    """
    result, size, enough = TextResult(), 0, False
    async with session.lock:
        session.pgconn.send_query_params(statement.encode(), None)
        session.pgconn.set_single_row_mode()
        await session.wait(generators.send(session.pgconn))
        failed: Exception | None = None
        while (found := await _next(session, failed)) is not None:
            if found.status in _COPY:
                raise psycopg.ProgrammingError("COPY has no result that could be read here")
            if found.status == ExecStatus.FATAL_ERROR:
                failed = failed or psycopg.errors.error_from_result(found, encoding="utf-8")
            elif keep and failed is None and not enough and found.status in _ROWS:
                size += _read(found, result)
                enough = most_rows is not None and len(result.rows) > most_rows
                if most_bytes is not None and size > most_bytes:
                    failed = _too_large(session.context)
                if enough or failed:
                    await session.cancel_safe()
            if found.status in _DONE and found.command_tuples is not None:
                result.rowcount = found.command_tuples
    if failed is not None and not enough:
        raise failed
    return result


def _read(found: Any, result: TextResult) -> int:
    """Add what the server has sent to a result; return the bytes that it takes in an event."""
    result.columns = [((found.fname(n) or b"").decode(), found.ftype(n)) for n in range(found.nfields)]
    size = 0
    for row in range(found.ntuples):
        values = [found.get_value(row, column) for column in range(found.nfields)]
        result.rows.append([None if value is None else value.decode() for value in values])
        size += len(_to_json(result.rows[-1]).encode()) + 1
    return size


async def _next(session: AsyncLakebaseSession, failed: Exception | None) -> Any:
    try:
        return await session.wait(generators.fetch(session.pgconn))
    except psycopg.OperationalError:  # the session was lost, which the server may have explained before
        if failed is None:
            raise
        return None


def _too_large(context: ErrorContext) -> LakebaseSettingsError:
    return LakebaseSettingsError(
        f"The result has more than {MOST_RESULT_BYTES // 1024} KiB; the transaction was rolled back",
        context=context,
        hint="Write it into a table, export it, select less, or run the task with deferrable=False.",
    )


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class _Context:
    """What psycopg takes types from, without a session."""

    connection = None

    def __init__(self, adapters: AdaptersMap) -> None:
        self.adapters = adapters


def _load(result: TextResult) -> Iterator[tuple[Any, ...]]:
    zone = _zone(result.time_zone)

    class ZonedLoader(TimestamptzLoader):
        def load(self, data: Any) -> Any:
            value = super().load(data)
            try:
                return value.astimezone(zone)
            except OverflowError:  # the last year of the calendar
                return value

    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_loader("timestamptz", ZonedLoader)
    transformer = Transformer(_Context(adapters))
    transformer.set_loader_types([oid for _, oid in result.columns], Format.TEXT)
    for row in result.rows:
        yield transformer.load_sequence([None if value is None else value.encode() for value in row])


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError):  # one of POSIX's, of which Python knows none; psycopg does the same
        return UTC


def _unsafe(words: Sequence[str]) -> str:
    first, second = [*words, "", ""][:2]
    if first == "COPY":
        return "its data does not reach the triggerer"
    if first in _NO_TRANSACTION and "TO" not in words:  # ROLLBACK TO SAVEPOINT stays within
        return "the statements run in one transaction of their own"
    if first == "SET" and second in _SET_WITHIN_TRANSACTION:
        return ""
    if first in _OUTLASTS_TRANSACTION:
        return "it is for the session rather than for the transaction; use SET LOCAL, or 'options' in hook_params"
    return ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):  # a tuple, which is a row in SQL, would arrive as a list
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
