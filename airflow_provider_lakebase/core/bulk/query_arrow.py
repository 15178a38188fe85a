"""Read the result of a query as Arrow record batches, in constant memory."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.copy_out import EXACT_SETTINGS, read_blocks
from airflow_provider_lakebase.core.bulk.formats import import_from_extra
from airflow_provider_lakebase.core.bulk.formats.csv import copy_out
from airflow_provider_lakebase.core.bulk.options import ExportOptions
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseExportError

_SETTINGS = f"{EXACT_SETTINGS}; SET LOCAL TimeZone TO UTC"
_CANCEL_SECONDS = 5.0


@contextmanager
def read_arrow(
    connection: psycopg.Connection[Any], query: sql.Composable, progress: Progress
) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Run a query, and yield the Arrow schema of its result and its record batches to the ``with`` block.

    The rows are read through COPY as CSV, over the given session. ADBC was 10 % faster, but needs a session of its own.

    :param connection: an open session, in a transaction whose settings may be changed
    :param query: from :func:`~airflow_provider_lakebase.core.bulk.copy_out.select`
    :param progress: counts rows and bytes
    :raises LakebaseSettingsError: if pyarrow is missing
    :raises LakebaseExportError: for a value that the Arrow type of its column does not hold
    """
    arrow_query = import_from_extra("arrow_query")
    fields = _describe(arrow_query, connection, query)
    connection.execute(_SETTINGS)
    names = [sql.Identifier(str(number)) for number in range(len(fields))]
    values = [sql.SQL(field.expression).format(name) for field, name in zip(fields, names, strict=True)]
    wrapped = sql.SQL("SELECT {} FROM ({}\n) AS row ({})").format(
        sql.SQL(", ").join(values), query, sql.SQL(", ").join(names)
    )
    with connection.cursor() as cursor, cursor.copy(copy_out(wrapped, ExportOptions(header=False))) as copy:
        stream = _Stream(copy, progress)
        try:
            batches = arrow_query.read_csv(stream, fields) if stream.first else iter(())
            yield arrow_query.arrow_schema(fields), _translating(arrow_query, batches, session_context(connection))
        finally:
            stream.close()


def _translating(arrow_query: ModuleType, batches: Iterator[Any], context: ErrorContext) -> Iterator[Any]:
    try:
        yield from batches
    except (arrow_query.pa.ArrowException, ValueError, TypeError) as error:
        # The original quotes the value.
        raise LakebaseExportError(
            f"The result contains a value that no Arrow type holds ({type(error).__name__})",
            context=context,
            hint="{cast_to_text}: NaN in a numeric, infinite dates and arrays of arrays need it.",
        ) from None


def _describe(arrow_query: ModuleType, connection: psycopg.Connection[Any], query: sql.Composable) -> list[Any]:
    """Return the columns of a query without running it."""
    with connection.transaction(), connection.cursor("lakebase_describe") as cursor:
        cursor.execute(sql.Composed([query]))
        columns = list(cursor.description or ())
    types = connection.execute(
        "SELECT coalesce(array_agg(oid::regtype::text ORDER BY position), '{}') "
        "FROM unnest(%s::oid[]) WITH ORDINALITY AS type (oid, position)",
        [[column.type_code for column in columns]],
    ).fetchall()[0][0]
    return [
        arrow_query.Field(column.name, kind, column.precision, column.scale)
        for column, kind in zip(columns, types, strict=True)
    ]


class _Stream(io.RawIOBase):
    """The blocks of a COPY as a file that pyarrow reads, in a thread of its own."""

    def __init__(self, copy: psycopg.Copy, progress: Progress) -> None:
        self._copy = copy
        self._blocks = read_blocks(copy)
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
        """Stop reading: pyarrow reads ahead, and the session must have one user again."""
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
