"""COPY … TO STDOUT, in blocks of rows, with settings that make the text of every value exact."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseExportError

# Independent of the session's own settings: all digits, and dates that read the same everywhere.
EXACT_SETTINGS = (
    "SET LOCAL DateStyle TO ISO, YMD; SET LOCAL IntervalStyle TO postgres; "
    "SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO hex"
)
_QUERY_WORDS = ("select", "with", "values", "table")
_ROWS_PER_BLOCK = 128
"""Rows written together."""


def select(query_or_table: str) -> sql.Composable:
    """Return a query that COPY accepts.

    :param query_or_table: a query with its parameters bound, or a table name as in SQL
    """
    text = query_or_table.strip().rstrip(";").rstrip()
    word = text.lstrip("( \t\r\n").split(None, 1)[0].lower() if text else ""
    if not text.startswith("(") and word not in _QUERY_WORDS and not text.startswith(("--", "/*")):
        return sql.SQL("SELECT * FROM {}").format(sql.SQL(text))
    return sql.SQL(text)


def write_copy(
    connection: psycopg.Connection[Any],
    statement: sql.SQL | sql.Composed,
    file: IO[bytes],
    progress: Progress,
    encoding: str = "utf-8",
) -> int:
    """Write the output of a ``COPY … TO STDOUT`` to a file, and return the number of rows.

    :param connection: an open session
    :param statement: the statement
    :param file: open for writing bytes
    :param progress: counts rows and bytes
    :param encoding: of the file, by its name in Python
    :raises LakebaseExportError: for a character that the encoding does not have
    """
    encode = _encoder(encoding, connection)
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for rows, block in read_blocks(copy):
                file.write(encode(block) if encode else block)
                progress.add(rows=rows, bytes=len(block))
        return cursor.rowcount


def _encoder(encoding: str, connection: psycopg.Connection[Any]) -> Callable[[bytes], bytes] | None:
    """Return a function that encodes blocks of UTF-8; None for UTF-8, which stays as it is."""
    if codecs.lookup(encoding).name == "utf-8":
        return None
    encoder = codecs.getincrementalencoder(encoding)()

    def encode(block: bytes) -> bytes:
        try:
            return encoder.encode(block.decode())
        except UnicodeEncodeError as error:
            character = f"U+{ord(error.object[error.start]):04X}"
            # The error of the codec quotes the value.
            raise LakebaseExportError(
                f"A value contains the character {character}, which {encoding} does not have",
                context=session_context(connection),
                hint="Choose another 'encoding', such as utf-8.",
            ) from None

    return encode


def read_blocks(copy: psycopg.Copy) -> Iterator[tuple[int, bytes]]:
    """Group the rows that COPY sends one by one into blocks; yield the number of rows and the bytes of each.

    :param copy: a running ``COPY … TO STDOUT``
    """
    rows = iter(copy)
    while parts := list(islice(rows, _ROWS_PER_BLOCK)):
        yield len(parts), b"".join(parts)
