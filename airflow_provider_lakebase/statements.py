"""Run statements on an asynchronous session: in one transaction, never two at once, and once where the ledger says so.

Their results come as the text that Postgres sends, which crosses processes as it is; whoever gets it reads it with
psycopg, so that its values are those of a session of his own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import sqlparse
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq import Format
from psycopg.types.datetime import TimestamptzLoader

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.ledger import EXISTS as LEDGER_EXISTS
from airflow_provider_lakebase.ledger import TABLE, completion, creation, entry, not_permitted, search
from airflow_provider_lakebase.session.connect import AsyncLakebaseSession

MOST_RESULT_BYTES = 48 * 1024
"""Bytes of text that the results of one task may have: Airflow keeps them in a column of its metadata database."""

_TARGET = (0, "statements")
_RETURNING_ROWS = ("SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN")
_END_EARLIER = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE application_name = %s AND usename = current_user AND pid <> pg_backend_pid()
"""
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_NO_TRANSACTION = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT")
_OUTLASTS_TRANSACTION = ("SET", "RESET", "DISCARD", "LISTEN", "UNLISTEN", "PREPARE", "EXECUTE", "DEALLOCATE", "LOAD")
_BEFORE_WORDS = re.compile(r"\A(?:[\s(]+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)+", re.DOTALL)
_SET_WITHIN_TRANSACTION = ("LOCAL", "TRANSACTION", "CONSTRAINTS")

Parameters = Sequence[Any] | Mapping[str, Any] | None


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
    """

    columns: list[tuple[str, int]] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    rowcount: int = -1


class ResultCursor:
    """Give a result as a cursor does, to common-sql's handlers.

    :param result: the result
    :param time_zone: TimeZone of the session that it came from
    """

    def __init__(self, result: TextResult, time_zone: str) -> None:
        self.rowcount = result.rowcount
        self.description = [(name, oid, None, None, None, None, None) for name, oid in result.columns] or None
        self._rows = _load(result, time_zone)

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


def refuse_what_cannot_be_deferred(statements: Sequence[str], parameters: Parameters) -> None:
    """Keep out what the restart of a triggerer could do twice or half, or what does not reach it.

    :param statements: texts, each of one or more statements
    :param parameters: of each text
    :raises LakebaseSettingsError: for COPY, the transaction's own statements and those that outlast it, and for
        parameters that are no JSON
    """
    for text in statements:
        for statement in _split(text):
            words = _words(statement)
            reason = _unsafe(words)
            if reason:
                remedy = "Run the task with deferrable=False."
                raise LakebaseSettingsError(f"{words[0]} cannot be deferred: {reason}", remedy=remedy)
    if not _is_plain(parameters):
        raise LakebaseSettingsError(
            "parameters that are not str, int, float, bool, None, or lists and dicts of them cannot be deferred",
            remedy="Give their text and cast it in SQL, as %s::date, or run the task with deferrable=False.",
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
    await session.commit()
    await session.execute(_ALONE, [request.session_name])
    if request.ledger_schema is not None and not await _claim(session, request.ledger_schema, request.load_id):
        await session.rollback()
        return None
    runner = _Runner(session, request)
    results = [await runner.run(text) for text in request.statements]
    if request.ledger_schema is not None:
        rows = sum(max(result.rowcount, 0) for result in results)
        await session.execute(completion(request.ledger_schema), [rows, request.load_id, _TARGET[0]])
    await session.commit()
    return results


def write_results(results: Sequence[TextResult]) -> str:
    """Return results as one text.

    :param results: of :func:`run_statements`
    """
    return json.dumps([[each.columns, each.rows, each.rowcount] for each in results], separators=(",", ":"))


def read_results(text: str) -> list[TextResult]:
    """Return the results of :func:`write_results`.

    :param text: what it returned
    """
    return [
        TextResult([(name, oid) for name, oid in columns], rows, rowcount)
        for columns, rows, rowcount in json.loads(text)
    ]


async def _claim(session: AsyncLakebaseSession, schema: str, load_id: str) -> bool:
    """Enter the task into the ledger; return False when it is there."""
    try:
        if await (await session.execute(LEDGER_EXISTS, [schema, TABLE])).fetchone() is None:
            for statement in creation(schema):
                await session.execute(statement)
        while await (await session.execute(entry(schema), [load_id, *_TARGET])).fetchone() is None:
            if await (await session.execute(search(schema), [load_id, _TARGET[0]])).fetchone() is not None:
                return False
    except psycopg.errors.InsufficientPrivilege as error:
        raise not_permitted(f"The ledger {schema}.{TABLE} cannot be used", error, session.where) from error
    return True


class _Runner:
    def __init__(self, session: AsyncLakebaseSession, request: StatementsRequest) -> None:
        self.session = session
        self.request = request
        self.bytes = 0

    async def run(self, text: str) -> TextResult:
        pieces = _split(text)
        parameters = self.request.parameters
        if len(pieces) > 1 and parameters:
            # The server takes several statements only without parameters.
            bound = psycopg.AsyncClientCursor(self.session).mogrify(text.encode(), parameters)
            pieces, parameters = _split(bound), None
        result = TextResult()
        for number, piece in enumerate(pieces, 1):
            result = await self._run_one(piece, parameters or None, keep=number == len(pieces))
        return result

    async def _run_one(self, statement: str, parameters: Parameters, *, keep: bool) -> TextResult:
        async with self.session.cursor() as cursor:
            if _words(statement)[:1] and _words(statement)[0] in _RETURNING_ROWS:
                return await self._stream(cursor, statement, parameters, keep)
            await cursor.execute(statement.encode(), parameters)
            result = TextResult(rowcount=cursor.rowcount)
            if cursor.pgresult is not None and cursor.description is not None:
                self._read(cursor.pgresult, result, keep)
            return result

    async def _stream(
        self, cursor: psycopg.AsyncCursor[Any], statement: str, parameters: Parameters, keep: bool
    ) -> TextResult:
        """Read row by row, so that a large result is refused before it fills the memory that all triggers share."""
        result, last = TextResult(), None
        try:
            async with aclosing(cursor.stream(statement.encode(), parameters)) as rows:  # type: ignore[type-var]
                async for _ in rows:
                    if cursor.pgresult is not None and cursor.pgresult is not last:
                        last = cursor.pgresult
                        self._read(last, result, keep)
        except psycopg.ProgrammingError as error:
            if "didn't produce a result" not in str(error):
                raise
            return TextResult()  # WITH … INSERT, which was run and returns no rows
        if keep and self.request.fetch:
            result.rowcount = len(result.rows)
            result.columns = result.columns or await self._describe(cursor, statement, parameters)
        return result

    async def _describe(
        self, cursor: psycopg.AsyncCursor[Any], statement: str, parameters: Parameters
    ) -> list[tuple[str, int]]:
        """Return the columns of a query that returned no rows, of which psycopg's stream then tells nothing."""
        bound = psycopg.AsyncClientCursor(self.session).mogrify(statement.encode(), parameters)
        try:
            async with self.session.transaction(force_rollback=True):
                await cursor.execute(f"DECLARE lakebase_columns CURSOR FOR {bound}".encode())
                await cursor.execute("FETCH 0 FROM lakebase_columns")
                return [(column.name, column.type_code) for column in cursor.description or ()]
        except (psycopg.ProgrammingError, psycopg.NotSupportedError):  # WITH … INSERT … RETURNING has no cursor
            return [("?column?", 0)]

    def _read(self, found: Any, result: TextResult, keep: bool) -> None:
        if not (keep and self.request.fetch):
            return
        result.columns = [((found.fname(n) or b"").decode(), found.ftype(n)) for n in range(found.nfields)]
        for row in range(found.ntuples):
            values = [found.get_value(row, column) for column in range(found.nfields)]
            self.bytes += sum(len(value) + 4 for value in values if value is not None)
            if self.bytes > MOST_RESULT_BYTES:
                raise LakebaseSettingsError(
                    f"The result has more than {MOST_RESULT_BYTES // 1024} KiB; the transaction was rolled back",
                    where=self.session.where,
                    remedy="Write it into a table, export it, select less, or run the task with deferrable=False.",
                )
            result.rows.append([None if value is None else value.decode() for value in values])


class _Context:
    """What psycopg takes types from, without a session."""

    connection = None

    def __init__(self, adapters: AdaptersMap) -> None:
        self.adapters = adapters


def _load(result: TextResult, time_zone: str) -> Iterator[tuple[Any, ...]]:
    zone = _zone(time_zone)

    class ZonedLoader(TimestamptzLoader):
        def load(self, data: Any) -> Any:
            return super().load(data).astimezone(zone)

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


def _split(text: str) -> list[str]:
    return [piece for piece in sqlparse.split(text, strip_semicolon=True) if piece]


def _words(statement: str) -> list[str]:
    """Return the first words behind comments and parentheses; sqlparse reads no long statement to the end."""
    return [word.upper() for word in _BEFORE_WORDS.sub("", statement, count=1)[:100].split()[:2]]


def _unsafe(words: Sequence[str]) -> str:
    first, second = [*words, "", ""][:2]
    if first == "COPY":
        return "its data does not reach the triggerer"
    if first in _NO_TRANSACTION:
        return "the statements run in one transaction of their own"
    if first == "SET" and second in _SET_WITHIN_TRANSACTION:
        return ""
    if first in _OUTLASTS_TRANSACTION:
        return "it is for the session rather than for the transaction; use SET LOCAL, or 'options' in hook_params"
    return ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
