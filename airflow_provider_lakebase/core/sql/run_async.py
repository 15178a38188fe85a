"""Run statements on an asynchronous session: in one transaction, never two runs at once, only once with a ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread
from airflow_provider_lakebase.core.ledger import claim_load_async, prepare_ledger_async, record_rows_async
from airflow_provider_lakebase.core.sql.binding import bind, check_encoding, hide_values
from airflow_provider_lakebase.core.sql.deferrable import DeferredStatements
from airflow_provider_lakebase.core.sql.results import (
    MAX_RESULT_BYTES,
    ResultCursor,
    TextResult,
    to_json,
    write_results,
)
from airflow_provider_lakebase.core.sql.split import Parameters, split_statements
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

    from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession

CANCEL_SECONDS = 5.0
"""Seconds the server gets to act on a cancellation."""

_TARGET = (0, "statements")
"""The ledger's target of a task's statements, which have no table of their own."""
_TERMINATE_EARLIER = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE application_name = %s AND usename = session_user AND pid <> pg_backend_pid()
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_ROWS = (ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_OK)
_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_COPY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
_DECODABLE = {"DateStyle": "ISO", "IntervalStyle": "postgres"}
"""Settings on which psycopg relies to decode dates and intervals, with the beginning of the value they must have."""


async def run_statements(session: AsyncLakebaseSession, request: DeferredStatements) -> list[TextResult] | None:
    """Run statements in one transaction and commit it.

    An earlier session of the same name is terminated first, and a second run waits for the first to end, because
    nobody knows whether the process that began the earlier run is still alive.

    :param session: a new session with the request's ``session_name``
    :param request: the statements to run
    :raises LakebaseSettingsError: if the results exceed :data:`MAX_RESULT_BYTES`; nothing was applied
    :raises LakebaseLoadError: if the role may not create or use the ledger
    :raises LakebaseOutcomeUnknownError: if the session was lost during COMMIT
    :raises psycopg.Error: if Postgres refused a statement
    :returns: one result for each text; None if the ledger already has the task
    """
    schema = request.ledger_schema
    await session.execute(_TERMINATE_EARLIER, [request.session_name])
    if schema is not None:
        await prepare_ledger_async(session, schema)
    await session.commit()
    await session.execute(_LOCK, [request.session_name])
    if schema is not None:
        earlier = await claim_load_async(session, schema, request.load_id, _TARGET)
        if earlier is not None:
            await session.rollback()
            return None
    results = await _run_texts(session, request)
    if schema is not None:
        await session.execute("RESET ROLE")
        rows = sum(max(result.rowcount, 0) for result in results)
        await record_rows_async(session, schema, request.load_id, _TARGET, rows)
    for result in results:
        ResultCursor(result).fetchall()  # a value that cannot be decoded must fail before the commit
    await session.commit()
    return results


async def _run_texts(session: AsyncLakebaseSession, request: DeferredStatements) -> list[TextResult]:
    results, room = [], MAX_RESULT_BYTES
    for text in request.statements:
        result = await run_text(session, text, request.parameters, fetch=request.fetch, max_bytes=room)
        room -= len(write_results([result]).encode())
        results.append(result)
    return results


async def run_text(
    session: AsyncLakebaseSession,
    text: str,
    parameters: Parameters = None,
    *,
    fetch: bool = True,
    max_bytes: int | None = None,
    max_rows: int | None = None,
) -> TextResult:
    """Run one or more statements in the session's transaction and return the result of the last one.

    :param session: an open session
    :param text: the statements
    :param parameters: parameters of all of them together
    :param fetch: whether to read rows
    :param max_bytes: refuse a larger result
    :param max_rows: stop after more rows than this: the statement is cancelled and its transaction aborted
    :raises LakebaseSettingsError: if the result is larger than ``max_bytes``, or has dates or intervals in a format
        that psycopg cannot decode
    :raises psycopg.Error: if Postgres refused a statement
    """
    statements = await run_in_daemon_thread(lambda: split_statements(bind(session, text, parameters)))
    if session.info.transaction_status == TransactionStatus.IDLE:
        await session.execute("SELECT 1")  # makes psycopg begin the transaction
    result = TextResult()
    for number, statement in enumerate(statements, 1):
        keep = fetch and number == len(statements)
        reader = _ResultReader(session.context, keep=keep, max_bytes=max_bytes, max_rows=max_rows)
        with hide_values(parameters):
            result = await reader.run(session, statement.text)
        check_encoding(session)
    result.time_zone = session.info.parameter_status("TimeZone") or "UTC"
    if result.rows:
        _check_decodable(session)
    return result


def _check_decodable(session: AsyncLakebaseSession) -> None:
    for name, expected in _DECODABLE.items():
        if not (session.info.parameter_status(name) or expected).startswith(expected):
            hint = f"Do not set {name}; format dates and intervals with to_char(), or run the statements synchronously."
            raise LakebaseSettingsError(f"{name} was changed", context=session.context, hint=hint)


class _ResultReader:
    """Run one statement and read its rows one by one, as text.

    A result that is too large is refused before it fills the memory that all triggers share, rows that nobody wants
    are not decoded, and the server refuses a second statement hidden in the text.
    """

    def __init__(self, context: ErrorContext, *, keep: bool, max_bytes: int | None, max_rows: int | None) -> None:
        self._context = context
        self._keep = keep
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._result = TextResult()
        self._bytes = 0
        self._has_enough = False
        self._error: Exception | None = None

    async def run(self, session: AsyncLakebaseSession, statement: str) -> TextResult:
        async with session.lock:
            try:
                session.pgconn.send_query_params(statement.encode(), None)
                session.pgconn.set_single_row_mode()
                async for found in _results(session.pgconn):
                    if self._take(found):
                        await session.cancel_safe()
            except asyncio.CancelledError:
                with suppress(Exception):
                    await session.cancel_safe(timeout=CANCEL_SECONDS)
                raise
            except psycopg.OperationalError:
                if self._error is None:  # else the server gave its reason before the session was lost
                    raise
        if self._error is not None and not self._has_enough:
            raise self._error
        return self._result

    def _take(self, found: PGresult) -> bool:
        """Store the rows that have arrived; return whether the result has just reached a limit."""
        if found.status in _COPY:
            raise psycopg.ProgrammingError("COPY returns no result that can be read here")
        reached = False
        if found.status == ExecStatus.FATAL_ERROR:
            self._error = self._error or psycopg.errors.error_from_result(found, encoding="utf-8")
        elif self._keep and self._error is None and not self._has_enough and found.status in _ROWS:
            reached = self._add_rows(found)
        if found.status in _DONE and found.command_tuples is not None:
            self._result.rowcount = found.command_tuples
        return reached

    def _add_rows(self, found: PGresult) -> bool:
        result = self._result
        result.columns = [((found.fname(n) or b"").decode(), found.ftype(n)) for n in range(found.nfields)]
        for row in range(found.ntuples):
            values = [found.get_value(row, column) for column in range(found.nfields)]
            result.rows.append([None if value is None else bytes(value).decode() for value in values])
            self._bytes += len(to_json(result.rows[-1]).encode()) + 1
        self._has_enough = self._max_rows is not None and len(result.rows) > self._max_rows
        if self._max_bytes is not None and self._bytes > self._max_bytes:
            self._error = _too_large(self._context)
        return self._has_enough or self._error is not None


async def _results(connection: PGconn) -> AsyncIterator[PGresult]:
    """Yield each result of the query that was sent.

    These are libpq's nonblocking calls. psycopg has no public way to read row by row a statement that may return no
    rows: Cursor.stream() refuses it, and its generators are internal.
    """
    while connection.flush():
        await _wait(connection.socket, writable=True)
        connection.consume_input()
    while True:
        while connection.is_busy():
            await _wait(connection.socket)
            connection.consume_input()
        if (result := connection.get_result()) is None:
            return
        yield result


async def _wait(socket: int, *, writable: bool = False) -> None:
    """Wait until the socket has data to read or, if ``writable``, room to write."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(socket, ready.set)
    if writable:
        loop.add_writer(socket, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(socket)
        if writable:
            loop.remove_writer(socket)


def _too_large(context: ErrorContext) -> LakebaseSettingsError:
    return LakebaseSettingsError(
        f"The result has more than {MAX_RESULT_BYTES // 1024} KiB; the transaction was rolled back",
        context=context,
        hint="Select less, write the result to a table, export it, or run the statements synchronously.",
    )
