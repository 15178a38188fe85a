"""JSON Lines files: one JSON object per line, numbers with all their digits."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, Any, NoReturn

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES, open_as_text
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.copy import BadValue, Part
from airflow_provider_lakebase.core.bulk.copy_out import write_copy
from airflow_provider_lakebase.core.bulk.formats.row_parts import dicts_part
from airflow_provider_lakebase.core.bulk.formats.rows import BadRow
from airflow_provider_lakebase.core.bulk.options import ExportOptions, LoadOptions
from airflow_provider_lakebase.core.bulk.progress import Progress

_MOST_INT_DIGITS = 4300
# JSON contains neither control character, so CSV with them as delimiter and quote leaves each line as it is.
_COPY_OUT = """
    COPY (SELECT row_to_json(row.*) FROM ({}
    ) AS row) TO STDOUT (FORMAT csv, DELIMITER e'\\x01', QUOTE e'\\x02')
"""


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
    file: IO[bytes],
    options: ExportOptions,
    progress: Progress,
) -> int:
    """Write each row of a query as a line.

    :param connection: an open session
    :param query: the query
    :param file: open for writing bytes
    :param options: without effect
    :param progress: counts rows and bytes
    :returns: rows written
    """
    return write_copy(connection, sql.SQL(_COPY_OUT).format(query), file, progress)


def read_names(file: IO[bytes], options: LoadOptions) -> list[str]:
    """Return the names of the first object of a file.

    :param file: open for reading bytes
    :param options: without effect
    :raises BadValue: if the first line is not an object
    """
    return list(next(read_json_lines(open_as_text(file)), {}))


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
        value = _decode(line.decode())
    except BadValue as bad:
        raise BadValue(bad.reason, number) from None
    except (ValueError, RecursionError):
        raise BadValue("it is not JSON in UTF-8", number, sqlstate="22P02") from None
    if not isinstance(value, dict):
        raise BadValue("it is not a JSON object", number)
    return value


def _without_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadValue("an object in it has the same name twice", None)
    return found


def _parse_int(text: str) -> int | Decimal:
    # The zero of a float has a sign, and Python's int() refuses longer texts.
    return Decimal(text) if text == "-0" or len(text) > _MOST_INT_DIGITS else int(text)


def _reject_constant(name: str) -> NoReturn:
    raise BadValue(f"it contains {name}, which JSON does not have", None)


_decode = json.JSONDecoder(
    parse_float=Decimal,
    parse_int=_parse_int,
    parse_constant=_reject_constant,
    object_pairs_hook=_without_repeated_names,
).decode
