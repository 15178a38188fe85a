"""The result of a query into a file, or into Arrow, by COPY: in constant memory, and a whole file or none."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.copy import Progress
from airflow_provider_lakebase.core.bulk.formats.files import (
    BLOCK_BYTES,
    describe,
    find_format,
    open_to_read,
    open_to_write,
)
from airflow_provider_lakebase.core.bulk.sources import arrow
from airflow_provider_lakebase.exceptions import LakebaseExportError

_QUERY_WORDS = ("select", "with", "values", "table")
# JSON holds neither character, so that each value stands on its line as it is.
_AS_IT_IS = "FORMAT csv, DELIMITER e'\\x01', QUOTE e'\\x02'"
# Whatever the session has: all digits, and dates that read the same everywhere.
_EXACT_SETTINGS = (
    "SET LOCAL DateStyle TO ISO, YMD; SET LOCAL IntervalStyle TO postgres; "
    "SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO hex"
)
_ARROW_SETTINGS = f"{_EXACT_SETTINGS}; SET LOCAL TimeZone TO UTC"

_CANCEL_SECONDS = 5.0
_ROWS_PER_BLOCK = 128
"""Rows that are written together."""


@dataclass(frozen=True)
class ExportResult:
    """Hold what an export did.

    :param rows: rows written
    :param bytes: bytes that COPY carried
    :param seconds: time it took
    """

    rows: int
    bytes: int
    seconds: float


def export(
    connection: psycopg.Connection[Any],
    query_or_table: str,
    destination: Any,
    *,
    format: str | None = None,
    header: bool = True,
    null: str = "",
    check: Callable[[], None] = lambda: None,
) -> ExportResult:
    """Write the rows of a query or table to a file, which appears under its name when it is whole.

    :param connection: an open session
    :param query_or_table: a query, or a table as SQL writes it
    :param destination: path (str, ``pathlib.Path`` or ``ObjectStoragePath``); an ending ``.gz`` or ``.zst`` compresses
    :param format: ``csv``, ``jsonl`` or ``parquet``; by default by the ending of the file's name
    :param header: whether the first line of a CSV file names the columns
    :param null: the unquoted text that stands for NULL in a CSV file
    :param check: called again and again; raises when the export shall stop
    :raises LakebaseSettingsError: for an unknown format
    :raises psycopg.Error: as Postgres refuses the query
    """
    format = find_format(destination, format)
    query = select(query_or_table)
    progress = Progress(f"Writing {describe(destination)}", check)
    with open_to_write(destination) as file:
        if format == "parquet":
            progress.rows = _write_parquet(connection, query, file, progress)
        else:
            connection.execute(_EXACT_SETTINGS)
            progress.rows = _write_text(connection, _text_copy(query, format, header, null), file, progress)
        connection.commit()  # before the file appears: there is none whose rows were rolled back
    progress.tell("done")
    return ExportResult(progress.rows, progress.bytes, progress.seconds)


def copy_in(connection: psycopg.Connection[Any], statement: str, source: Any) -> int:
    """Run a ``COPY … FROM STDIN`` over a file.

    :param connection: an open session
    :param statement: the statement
    :param source: path of the file
    :returns: rows written
    :raises FileNotFoundError: when there is no such file
    """
    with open_to_read(source) as file, connection.cursor() as cursor:
        with cursor.copy(sql.SQL(statement)) as copy:
            while block := file.read(BLOCK_BYTES):
                copy.write(block)
        return cursor.rowcount


def copy_out(connection: psycopg.Connection[Any], statement: str, destination: Any) -> int:
    """Run a ``COPY … TO STDOUT`` into a file, which appears under its name when it is whole.

    :param connection: an open session
    :param statement: the statement
    :param destination: path of the file
    :returns: rows read
    """
    with open_to_write(destination) as file:
        return _write_text(connection, sql.SQL(statement), file, Progress(f"Writing {describe(destination)}"))


def select(query_or_table: str) -> sql.Composable:
    """Return a query as COPY takes it.

    :param query_or_table: a query with its parameters in it, or a table as SQL writes it
    """
    text = query_or_table.strip().rstrip(";").rstrip()
    word = text.lstrip("( \t\r\n").split(None, 1)[0].lower() if text else ""
    if not text.startswith("(") and word not in _QUERY_WORDS and not text.startswith(("--", "/*")):
        return sql.SQL("SELECT * FROM {}").format(sql.SQL(text))
    return sql.SQL(text)


@contextmanager
def reading_only(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Let the session's next transaction read only, and say what to do where it writes.

    :param connection: an open session, outside a transaction
    """
    connection.read_only = True
    try:
        yield
    except psycopg.errors.ReadOnlySqlTransaction as error:
        hint = "Rows are handed out before all are read, so that nothing could be committed with them: use get_df(), "
        error.add_note(f"{hint}get_arrow() or run(), which commit what they write.")
        raise


def _write_text(
    connection: psycopg.Connection[Any], statement: sql.SQL | sql.Composed, file: IO[bytes], progress: Progress
) -> int:
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for rows, block in _blocks(copy):
                file.write(block)
                progress.add(rows=rows, bytes=len(block))
        return cursor.rowcount


def _text_copy(query: sql.Composable, format: str, header: bool, null: str) -> sql.Composed:
    # A comment at the end of the query must not reach the parenthesis.
    if format == "jsonl":
        copy = sql.SQL("COPY (SELECT row_to_json(row.*) FROM ({}\n) AS row) TO STDOUT ({})")
        return copy.format(query, sql.SQL(_AS_IT_IS))
    copy = sql.SQL("COPY ({}\n) TO STDOUT (FORMAT csv, HEADER {}, NULL {}, ENCODING 'UTF8')")
    return copy.format(query, sql.SQL("true" if header else "false"), sql.Literal(null))


def _blocks(copy: psycopg.Copy) -> Iterator[tuple[int, bytes]]:
    """Give what COPY sends, which is a row at a time, in blocks, with the number of their rows."""
    rows = iter(copy)
    while parts := list(islice(rows, _ROWS_PER_BLOCK)):
        yield len(parts), b"".join(parts)


def _write_parquet(
    connection: psycopg.Connection[Any], query: sql.Composable, file: IO[bytes], progress: Progress
) -> int:
    rows = 0
    with read_arrow(connection, query, progress) as (schema, batches), arrow().pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


@contextmanager
def read_arrow(
    connection: psycopg.Connection[Any], query: sql.Composable, progress: Progress
) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Give the schema of a query's result and its rows as record batches, read as they are needed.

    They go through COPY as CSV, over the session that there is: ADBC was a tenth faster, but needs one of its own.

    :param connection: an open session, in a transaction whose settings may be changed
    :param query: from :func:`select`
    :param progress: what counts rows and bytes
    :raises LakebaseSettingsError: when pyarrow is missing
    :raises LakebaseExportError: for a value that Arrow's type of the column does not hold
    """
    module = arrow()
    fields = _describe(connection, query)
    connection.execute(_ARROW_SETTINGS)
    names = [sql.Identifier(str(number)) for number in range(len(fields))]
    values = [sql.SQL(field.expression).format(name) for field, name in zip(fields, names, strict=True)]
    wrapped = sql.SQL("SELECT {} FROM ({}\n) AS row ({})").format(
        sql.SQL(", ").join(values), query, sql.SQL(", ").join(names)
    )
    with connection.cursor() as cursor, cursor.copy(_text_copy(wrapped, "csv", False, "")) as copy:
        stream = _Stream(copy, progress)
        try:
            batches = module.read_csv(stream, fields) if stream.first else iter(())
            yield module.arrow_schema(fields), _guarded(module, batches)
        finally:
            stream.close()


def _guarded(module: Any, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except (module.pa.ArrowException, ValueError, TypeError) as error:
        # The original quotes the value.
        raise LakebaseExportError(
            f"A value of the result has no form in Arrow ({type(error).__name__})",
            hint="Cast its column to text in the query: such are NaN in a numeric, infinite dates, arrays of arrays.",
        ) from None


def _describe(connection: psycopg.Connection[Any], query: sql.Composable) -> list[Any]:
    """Return the columns of a query, which is not run for it."""
    with connection.transaction(), connection.cursor("lakebase_describe") as cursor:
        cursor.execute(sql.Composed([query]))
        columns = list(cursor.description or ())
    types = connection.execute(
        "SELECT coalesce(array_agg(oid::regtype::text ORDER BY position), '{}') "
        "FROM unnest(%s::oid[]) WITH ORDINALITY AS type (oid, position)",
        [[column.type_code for column in columns]],
    ).fetchall()[0][0]
    return [
        arrow().Field(column.name, kind, column.precision, column.scale)
        for column, kind in zip(columns, types, strict=True)
    ]


class _Stream(io.RawIOBase):
    """COPY's blocks as a file that pyarrow reads."""

    def __init__(self, copy: psycopg.Copy, progress: Progress) -> None:
        self._copy = copy
        self._blocks = _blocks(copy)
        self._progress = progress
        self._lock = threading.Lock()
        self._ended = False
        self.first = self._next()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            parts, self.first = [self.first], b""
            length = len(parts[0])
            while (size < 0 or length < size) and (block := self._next()):
                parts.append(block)
                length += len(block)
            return b"".join(parts)

    def close(self) -> None:
        """End the reading, which pyarrow does ahead in a thread of its own, so that the session has one user again."""
        if not self._ended:
            self._copy.connection.cancel_safe(timeout=_CANCEL_SECONDS)
        with self._lock:
            self._ended = True
        super().close()

    def _next(self) -> bytes:
        if self._ended:
            return b""
        rows, block = next(self._blocks, (0, b""))
        self._ended = not rows
        self._progress.add(rows=rows, bytes=len(block))
        return block
