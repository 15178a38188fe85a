"""The head of a CSV file: lines to skip, the line of column names, and which texts are NULL in which column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from airflow_provider_lakebase.core.bulk.byte_reader import Unreadable
from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.formats.csv_dialect import CsvDialect
from airflow_provider_lakebase.core.bulk.formats.csv_quotes import QuoteCheck, end_of_row

MOST_HEADER_BYTES = 1 << 20
_FIRST_BYTES = 1 << 16
_LINE_END = re.compile(rb"\r\n|[\r\n]")
HEADER_HINT = (
    "If it is not UTF-8 or has no commas, set 'encoding' or 'delimiter'; if other lines precede the names, set "
    "'skip_lines' or 'comment'; if it has no line of column names, set header=False; if it is not CSV, set 'format'. "
    "dialect='auto' finds out all but the format."
)
_TEXT_TYPES = ("text", "character varying", "character", "name", '"char"', "citext", "xml")


def skip_lines(file: io.RawIOBase, count: int) -> tuple[bytes, int]:
    """Read past the first lines of a file, whatever they contain.

    :param file: open for reading bytes
    :param count: how many lines
    :returns: the bytes that were read after them, and how many lines there were
    """
    data = b""
    for skipped in range(count):
        while not (end := _LINE_END.search(data)) or (end.end() == len(data) and end[0] == b"\r"):
            more = file.read(_FIRST_BYTES)
            if not more:
                return b"", skipped + bool(data)
            data += more
        data = data[end.end() :]
    return data, count


def read_header(file: io.RawIOBase, dialect: CsvDialect, data: bytes = b"") -> tuple[bytes, bytes, list[str]]:
    """Return the first line unchanged, the bytes that were read after it, and its names; '' for a missing name.

    :param file: UTF-8 text, open for reading bytes
    :param dialect: of the file
    :param data: bytes that were read before
    :raises Unreadable: if it does not start with a line of names in UTF-8
    """
    while (end := end_of_row(data, dialect)) is None and len(data) < MOST_HEADER_BYTES:
        more = file.read(len(data) or _FIRST_BYTES)
        if not more:
            break
        data += more
    if end is None and len(data) >= MOST_HEADER_BYTES:
        raise Unreadable("its first line does not end within 1 MiB, or a quote in it is never closed", HEADER_HINT)
    header, rest = (data, b"") if end is None else (data[:end], data[end:])
    return header, rest, _parse_names(header, dialect)


def _parse_names(header: bytes, dialect: CsvDialect) -> list[str]:
    check = QuoteCheck(1, b"\n", (), dialect)
    try:
        if header:
            check.read(header)
        check.finish()
        text = io.StringIO(header.decode(), newline="")
        delimiter, quote = dialect.delimiter.decode(), dialect.quote.decode()
        names = next(csv.reader(text, delimiter=delimiter, quotechar=quote), [])
    except BadValue as bad:
        raise header_error(bad) from None
    except (UnicodeDecodeError, csv.Error):
        names = []
    return require_names(names)


def require_names(names: list[str]) -> list[str]:
    """Return the names of a header, or raise an error if there is none.

    :param names: the names, '' for a missing one
    :raises Unreadable: if there is no name
    """
    if not any(names):
        raise Unreadable("it does not begin with a line of UTF-8 text that names its columns", HEADER_HINT)
    return names


def header_error(bad: BadValue) -> Unreadable:
    """Return the error for a line of column names that cannot be read.

    :param bad: what is wrong, and where
    """
    return Unreadable(f"in line {bad.number}, in its header, {bad.reason}", HEADER_HINT)


def check_names(names: Sequence[str], label: str, mapper: ColumnMapper) -> None:
    """Reject a header with ambiguous or missing column names.

    :param names: the names, '' for a missing one
    :param label: the file's name in messages
    :param mapper: maps names to the table's columns
    :raises LakebaseLoadError: if the names cannot be matched to columns
    """
    wanted = mapper.options.columns
    if wanted and not isinstance(wanted, Mapping):
        return  # by position
    given = [name for name in names if name and (not isinstance(wanted, Mapping) or name in wanted)]
    if len(set(given)) < len(given):
        hint = "Name all columns in the order of the file as a list: columns=['a', 'b', …]."
        raise mapper.error(f"{label} cannot be read: its first line names a column twice", hint)
    if "" in names and not wanted:
        raise mapper.error(
            f"{label} cannot be read: column {names.index('') + 1} has no name in its first line",
            "To skip it, give 'columns' as a mapping, {'name in the file': 'name in the table'}; to load it, give "
            "'columns' as a list of the table's columns in the order of the file.",
        )


def forced_nulls(
    columns: Sequence[Column | None], mapper: ColumnMapper, nulls: Sequence[str]
) -> dict[str, frozenset[str]]:
    """Return by column the texts of NULL that are NULL even in quotes, since they are no values of its type.

    :param columns: target columns; None for those that are not loaded
    :param mapper: has the session and the casts of the load
    :param nulls: texts that stand for NULL
    """
    casts = mapper.options.casts or {}
    found = {}
    for column in columns:
        if column is None:
            continue
        kind = casts.get(column.name, column.declared)
        if kind != column.declared or column.bare not in _TEXT_TYPES:
            found[column.name] = frozenset(text for text in nulls if not _is_value(text, kind, mapper))
    return {name: texts for name, texts in found.items() if texts}


def _is_value(text: str, kind: str, mapper: ColumnMapper) -> bool:
    if (text, kind) not in mapper.known_inputs:
        mapper.known_inputs[text, kind] = _is_input(text, kind, mapper.connection)
    return mapper.known_inputs[text, kind]


def _is_input(text: str, kind: str, connection: psycopg.Connection[Any]) -> bool:
    try:
        with connection.transaction():
            query = "SELECT pg_input_is_valid(%s, %s)"
            (is_value,) = connection.execute(query, [text, kind]).fetchall()[0]
    except psycopg.DataError:  # the type of an extension
        return False
    return bool(is_value)
