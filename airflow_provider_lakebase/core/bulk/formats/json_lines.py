"""JSON Lines files: one JSON object per line, numbers with all their digits."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO, Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES, open_as_text
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.copy import BadValue, Part
from airflow_provider_lakebase.core.bulk.copy_out import BlockWriter, NextFile, write_copy
from airflow_provider_lakebase.core.bulk.formats.json_decoding import DECODER, NOT_AN_OBJECT, NOT_JSON, NOT_JSON_STATE
from airflow_provider_lakebase.core.bulk.formats.row_parts import dicts_part, names_of_dicts
from airflow_provider_lakebase.core.bulk.formats.rows import BadRow
from airflow_provider_lakebase.core.bulk.options import ExportOptions, LoadOptions
from airflow_provider_lakebase.core.bulk.progress import Progress

# JSON contains neither control character, so CSV with them as delimiter and quote leaves each object as it is, but for
# the quotes around one with a line break.
_COPY_OUT = """
    COPY (SELECT row_to_json(row.*) FROM ({}
    ) AS row) TO STDOUT (FORMAT csv, DELIMITER e'\\x01', QUOTE e'\\x02')
"""
_QUOTE = b"\x02"
_QUOTED = re.compile(b"\x02([^\x02]*)\x02")
_SPACES = bytes.maketrans(b"\r\n", b"  ")


def open_part(file: IO[bytes], label: str, mapper: ColumnMapper) -> Part:
    """Return the part that sends the objects of a file; the columns come from the first one.

    :param file: open for reading bytes
    :param label: its name in messages
    :param mapper: maps names to the table's columns
    :raises Unreadable: for an encoding other than UTF-8
    """
    rows = read_json_lines(open_as_text(file), yields_bad=mapper.options.rejects)
    return dicts_part(rows, label, mapper, unit="line", json_strings=True)


def write_query(
    connection: psycopg.Connection[Any],
    query: sql.Composable,
    next_file: NextFile,
    options: ExportOptions,
    progress: Progress,
) -> int:
    """Write each row of a query as a line.

    :param connection: an open session
    :param query: the query
    :param next_file: opens each file
    :param options: ``max_rows_per_file`` has an effect
    :param progress: counts rows and bytes
    :returns: rows written
    """
    return write_objects(connection, query, next_file, options, progress, LinesWriter)


def write_objects(
    connection: psycopg.Connection[Any],
    query: sql.Composable,
    next_file: NextFile,
    options: ExportOptions,
    progress: Progress,
    writer: type[BlockWriter],
) -> int:
    """Write each row of a query as an object, and return the number of rows.

    :param connection: an open session
    :param query: the query
    :param next_file: opens each file
    :param options: ``max_rows_per_file`` has an effect
    :param progress: counts rows and bytes
    :param writer: writes the objects of a file
    """
    statement = sql.SQL(_COPY_OUT).format(query)
    return write_copy(
        connection, statement, next_file, progress, rows_per_file=options.max_rows_per_file, writer=writer
    )


class LinesWriter(BlockWriter):
    """Write objects, each on a line of its own."""

    def write(self, block: bytes) -> None:
        self.file.write(unquote(block))


def unquote(block: bytes) -> bytes:
    """Return objects, each on a line of its own.

    :param block: as COPY sends them: in quotes if a value of the type ``json`` has line breaks, which are white space
    """
    return _QUOTED.sub(_without_line_breaks, block) if _QUOTE in block else block


def _without_line_breaks(quoted: re.Match[bytes]) -> bytes:
    return quoted[1].translate(_SPACES)


def read_names(file: IO[bytes], options: LoadOptions) -> list[str]:
    """Return the names that ``columns`` lists, or else those of the first object of a file.

    :param file: open for reading bytes
    :param options: of the load
    :raises BadValue: if the first line is not an object
    """
    return names_of_dicts(options, next(read_json_lines(open_as_text(file)), {}))


def read_json_lines(file: io.RawIOBase, *, yields_bad: bool = False) -> Iterator[Any]:
    """Yield the objects of a file as dicts. Integers stay ``int``, other numbers become ``Decimal``.

    :param file: UTF-8 text, open for reading bytes
    :param yields_bad: whether to yield a :class:`BadRow` for a line that is not an object
    :raises BadValue: for a line that is not an object
    """
    ended = False
    for number, line in enumerate(io.BufferedReader(file, BLOCK_BYTES), 1):
        if ended:
            raise BadValue("the line before it is empty", number)
        if not line.strip():
            ended = True
            continue
        try:
            yield _read_object(line, number)
        except BadValue as bad:
            if not yields_bad:
                raise
            yield BadRow(bad, line.rstrip(b"\r\n").decode(errors="backslashreplace"))


def _read_object(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = DECODER.decode(line.decode())
    except BadValue as bad:
        raise BadValue(bad.reason, number) from None
    except (ValueError, RecursionError):
        raise BadValue(NOT_JSON, number, sqlstate=NOT_JSON_STATE) from None
    if not isinstance(value, dict):
        raise BadValue(NOT_AN_OBJECT, number)
    return value
