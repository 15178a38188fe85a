"""COPY … TO STDOUT, in blocks of rows, with settings that make the text of every value exact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import IO, Any, TypeAlias, TypeVar

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.progress import Progress

NextFile: TypeAlias = Callable[[], AbstractContextManager[IO[bytes]]]
"""Opens the next file of an export, which the ``with`` block writes."""
_Row = TypeVar("_Row")
# Independent of the session's own settings: all digits, and dates that read the same everywhere.
EXACT_SETTINGS = (
    "SET LOCAL DateStyle TO ISO, YMD; SET LOCAL IntervalStyle TO postgres; "
    "SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO hex"
)
_QUERY_WORDS = ("select", "with", "values", "table")
_ROWS_PER_BLOCK = 128
"""Rows written together."""


class BlockWriter:
    """Write blocks of rows to a file as they are.

    :param file: open for writing bytes
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, block: bytes) -> None:
        """Write rows, or a header.

        :param block: whole lines, as COPY sends them
        """
        self.file.write(block)

    def finish(self) -> None:
        """Write what comes after the last row."""


def select(query_or_table: str) -> sql.Composable:
    """Return a query that COPY accepts.

    :param query_or_table: a query with its parameters bound, or a table name as in SQL
    """
    text = query_or_table.strip().rstrip(";").rstrip()
    return sql.SQL("SELECT * FROM {}").format(sql.SQL(text)) if names_table(text) else sql.SQL(text)


def names_table(query_or_table: str) -> bool:
    """Return whether a text is the name of a table; else it is a query.

    :param query_or_table: the text
    """
    text = query_or_table.strip()
    word = text.lstrip("( \t\r\n").split(None, 1)[0].lower() if text else ""
    return not text.startswith("(") and word not in _QUERY_WORDS and not text.startswith(("--", "/*"))


def write_copy(
    connection: psycopg.Connection[Any],
    statement: sql.SQL | sql.Composed,
    next_file: NextFile,
    progress: Progress,
    *,
    rows_per_file: int | None = None,
    has_header: bool = False,
    writer: Callable[[IO[bytes]], BlockWriter] = BlockWriter,
) -> int:
    """Write the output of a ``COPY … TO STDOUT`` to one or more files, and return the number of rows.

    :param connection: an open session
    :param statement: the statement
    :param next_file: opens each file
    :param progress: counts rows and bytes
    :param rows_per_file: rows after which the next file begins; by default all rows are in one
    :param has_header: whether the first row is a header, which every file begins with
    :param writer: writes the blocks of a file
    """
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            rows = iter(copy)
            header = [bytes(next(rows))] if has_header else []
            for rows_of_file in split_rows(rows, rows_per_file):
                with next_file() as file:
                    opened = writer(file)
                    for count, block in read_blocks(chain(header, rows_of_file)):
                        opened.write(block)
                        progress.add(rows=count, bytes=len(block))
                    opened.finish()
        return cursor.rowcount


def split_rows(rows: Iterator[_Row], size: int | None) -> Iterator[Iterator[_Row]]:
    """Yield the rows of each file: of at least one, which may have none.

    :param rows: read once
    :param size: most rows of a file; None for one file
    """
    if size is None:
        yield rows
        return
    first = next(rows, None)
    yield iter(()) if first is None else islice(chain([first], rows), size)
    while (first := next(rows, None)) is not None:
        yield islice(chain([first], rows), size)


def read_blocks(rows: Iterable[Any]) -> Iterator[tuple[int, bytes]]:
    """Group the rows that COPY sends one by one into blocks; yield the number of rows and the bytes of each.

    :param rows: of a running ``COPY … TO STDOUT``
    """
    rows = iter(rows)
    while parts := list(islice(rows, _ROWS_PER_BLOCK)):
        yield len(parts), b"".join(parts)
