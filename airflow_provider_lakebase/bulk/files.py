"""CSV files into a table by COPY, all rows or none."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import psycopg
from psycopg import sql

from airflow_provider_lakebase.bulk.target import find_table
from airflow_provider_lakebase.exceptions import LakebaseLoadError

BLOCK_BYTES = 1 << 18
"""Bytes read from a file at a time; COPY's speed does not depend on it."""

_ROW_ERRORS = (psycopg.DataError, psycopg.IntegrityError)
_CONTEXT = re.compile(r"COPY .*, line (?P<line>\d+)(?:, column (?P<column>.+?))?(?:: |$)")


@dataclass(frozen=True)
class LoadResult:
    """Hold what a load did.

    :param rows: rows written
    :param bytes: bytes read from the source
    :param seconds: time it took
    """

    rows: int
    bytes: int
    seconds: float


def load_csv(
    connection: psycopg.Connection[Any],
    source: str | Path | IO[bytes],
    table: str,
    *,
    mode: Literal["append", "replace"] = "append",
    null: str = "",
    where: str = "",
) -> LoadResult:
    """Load a CSV file whose first line names the columns, in the session's current transaction.

    :param connection: an open session
    :param source: path, or a file opened for reading bytes, UTF-8
    :param table: target, as SQL writes it
    :param mode: ``append``, or ``replace`` for all rows of the table; readers see the old rows until the commit
    :param null: the unquoted text that stands for NULL
    :param where: connection and endpoint, for messages
    :raises LakebaseLoadError: for a row the table cannot take; names line and column, never the value; also when there
        is no such table or column
    :raises FileNotFoundError: when there is no such file
    """
    if mode not in ("append", "replace"):
        raise ValueError(f"mode is {mode!r}; it is 'append' or 'replace'")
    if isinstance(source, str | Path):
        with open(source, "rb") as file:
            return load_csv(connection, file, table, mode=mode, null=null, where=where)
    started_at = time.monotonic()
    header = source.readline()
    names = _column_names(header, table, where)
    target = _find_target(connection, table, where)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER true, NULL {})").format(
        target, sql.SQL(", ").join(map(sql.Identifier, names)), sql.Literal(null)
    )
    try:
        with connection.cursor() as cursor:
            if mode == "replace":
                # Of two at once, the second would not see, and so not delete, the rows of the first.
                cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(target))
                cursor.execute(sql.SQL("DELETE FROM {}").format(target))
            size = _copy(cursor, statement, header, source)
            return LoadResult(cursor.rowcount, size, time.monotonic() - started_at)
    except psycopg.errors.UndefinedColumn as error:
        what = f"The file's header does not fit table {table}: {error.diag.message_primary}"
        remedy = "Name the table's columns in the first line, separated by commas."
        raise LakebaseLoadError(what, where=where, remedy=remedy) from error
    except psycopg.Error as error:
        if not _CONTEXT.search(error.diag.context or "") and not isinstance(error, _ROW_ERRORS):
            raise
        # The original quotes the row, and would be printed with the traceback as its cause.
        raise _explain(error, table, where) from None


def _find_target(connection: psycopg.Connection[Any], table: str, where: str) -> sql.Identifier:
    try:
        return find_table(connection, table)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.InvalidName) as error:
        remedy = "Create it first, or correct its name, as SQL writes it: schema.table."
        raise LakebaseLoadError(f"There is no table {table}", where=where, remedy=remedy) from error


def _copy(cursor: psycopg.Cursor[Any], statement: sql.Composed, header: bytes, source: IO[bytes]) -> int:
    size = 0
    with cursor.copy(statement) as copy:
        for block in _blocks(header, source):
            copy.write(block)
            size += len(block)
    return size


def _blocks(header: bytes, source: IO[bytes]) -> Iterator[bytes]:
    yield header
    while block := source.read(BLOCK_BYTES):
        yield block


def _column_names(header: bytes, table: str, where: str) -> list[str]:
    if not isinstance(header, bytes):
        raise LakebaseLoadError(
            f"The file for table {table} was opened as text", where=where, remedy="Open it for bytes: open(path, 'rb')."
        )
    try:
        names = next(csv.reader(io.StringIO(header.decode("utf-8-sig"))), [])
    except UnicodeDecodeError:
        names = []
    if not names or not all(names):
        raise LakebaseLoadError(
            f"The file for table {table} does not begin with a line of UTF-8 text that names its columns",
            where=where,
            remedy="Give a plain CSV file in UTF-8 whose first line holds the table's column names.",
        )
    return names


def _explain(error: psycopg.Error, table: str, where: str) -> LakebaseLoadError:
    found = _CONTEXT.search(error.diag.context or "")
    place = f"line {found['line']}" if found else "a row"
    if found and found["column"]:
        place += f", column {found['column']}"
    # These messages name columns and constraints; all others quote the value.
    quotable = isinstance(error, psycopg.IntegrityError | psycopg.errors.BadCopyFileFormat)
    detail = f": {error.diag.message_primary}" if quotable else ""
    hint = " If the text stands for NULL, name it as 'null'." if isinstance(error, psycopg.DataError) else ""
    return LakebaseLoadError(
        f"Table {table} does not take {place} of the file ({type(error).__name__}, SQLSTATE {error.sqlstate}{detail})",
        where=where,
        remedy="Correct the file (CSV, UTF-8) or the table; nothing of it was loaded." + hint,
    )
