"""CSV files in dialects that COPY does not have: read row by row, and sent as text that it has."""

from __future__ import annotations

import io
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES
from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper, ignored_column
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Part, UnfitValue
from airflow_provider_lakebase.core.bulk.formats.csv_header import (
    check_names,
    forced_nulls,
    header_error,
    require_names,
)
from airflow_provider_lakebase.core.bulk.formats.csv_numbers import NumberReader, is_number
from airflow_provider_lakebase.core.bulk.formats.csv_rows import Row, RowDialect, RowReader
from airflow_provider_lakebase.core.bulk.formats.date_text import text_check, text_pattern
from airflow_provider_lakebase.core.bulk.options import LoadOptions

_MOST_JUMPS = 1 << 18
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
"""Of COPY's text format."""


def needs_rewriting(options: LoadOptions) -> bool:
    """Return whether a file has a dialect that COPY does not have.

    :param options: of the load
    """
    return (
        options.comment is not None
        or options.escape not in (None, options.quote)
        or len(options.nulls) != 1
        or (options.decimal, options.thousands) != (".", None)
        or not f"{options.delimiter}{options.quote or ''}".isascii()
    )


def read_first_names(file: io.RawIOBase, data: bytes, skipped: int, options: LoadOptions) -> list[str]:
    """Return the names in the header of a file.

    :param file: UTF-8 text, open for reading bytes
    :param data: bytes that were read before
    :param skipped: lines that were skipped before
    :param options: of the load
    :raises Unreadable: if it does not start with a line of column names
    """
    return _read_header(RowReader(file, data, RowDialect.of(options), skipped + 1).rows())


def _read_header(rows: Iterator[Row]) -> list[str]:
    try:
        header = next(rows, None)
    except BadValue as bad:
        raise header_error(bad) from None
    if header is None:
        return require_names([])
    if header.problem:
        raise header_error(header.problem)
    return require_names(header.values)


def open_rewritten(
    file: io.RawIOBase, data: bytes, skipped: int, label: str, mapper: ColumnMapper, options: LoadOptions
) -> RewrittenPart:
    """Read the header of a file and return the part that sends the rest.

    :param file: UTF-8 text, open for reading bytes
    :param data: bytes that were read before
    :param skipped: lines that were skipped before
    :param label: its name in messages
    :param mapper: maps names to the table's columns
    :param options: with the dialect of the file
    :raises Unreadable: if it does not start with a line of column names
    :raises LakebaseLoadError: if the names are not the table's
    """
    reader = RowReader(file, data, RowDialect.of(options), skipped + 1)
    rows = reader.rows()
    if options.header:
        names = _read_header(rows)
        check_names(names, label, mapper)
    else:
        names = mapper.names_by_position()
    targets = mapper.map(names, label, is_header=options.header)
    columns = [column or ignored_column(number) for number, column in enumerate(targets)]
    reader.names = [column.name if column else f"{number} of the file" for number, column in enumerate(targets, 1)]
    return RewrittenPart(
        rows, columns, label=label, names=reader.names, converter=_converter(columns, targets, mapper, options)
    )


def _converter(
    columns: Sequence[Column], targets: Sequence[Column | None], mapper: ColumnMapper, options: LoadOptions
) -> RowConverter:
    forced = forced_nulls(targets, mapper, options.nulls)
    numbers = NumberReader(options.decimal, options.thousands)
    other_numbers = (options.decimal, options.thousands) != (".", None)
    return RowConverter(
        options.delimiter,
        frozenset(options.nulls),
        [
            ColumnReader(
                column,
                forced.get(column.name, frozenset()),
                numbers
                if other_numbers and target and is_number(column, options.casts or {}, mapper.connection)
                else None,
            )
            for column, target in zip(columns, targets, strict=True)
        ],
    )


class ColumnReader:
    """How the values of one column are read.

    :param column: the target column
    :param nulls_in_quotes: the texts that stand for NULL in quotes, too
    :param numbers: reads its values if they are numbers with other characters
    """

    def __init__(
        self, column: Column, nulls_in_quotes: frozenset[str] = frozenset(), numbers: NumberReader | None = None
    ) -> None:
        self.nulls_in_quotes = nulls_in_quotes
        self.numbers = numbers
        self.usual: str | None = None
        """A regular expression that matches most values that pass the check; None without a check."""
        self.check: Callable[[str], str | None] | None = None
        """Returns a value as it is sent, or None for an unchanged one."""
        if numbers:
            self.check, self.usual = numbers.check, numbers.usual
        elif check := text_check(column):
            self.check, self.usual = check, text_pattern(column)


class RowConverter:
    """Turn the values of a row into a line of COPY's text format.

    :param delimiter: of the file
    :param nulls: unquoted texts that stand for NULL
    :param columns: the columns of the file
    """

    def __init__(self, delimiter: str, nulls: frozenset[str], columns: Sequence[ColumnReader]) -> None:
        self.nulls = nulls
        self.columns = columns
        self._checked = [number for number, column in enumerate(columns) if column.check]
        self._numbers = [(number, column.numbers) for number, column in enumerate(columns) if column.numbers]
        null = "|".join(re.escape(text) for text in nulls if text) or "(?!)"
        optional = "?+" if "" in nulls else ""
        any_text = rf"[^{re.escape(delimiter)}]*+"
        fields = [any_text if each.usual is None else rf"(?:(?:{each.usual}){optional}|{null})" for each in columns]
        self._usual = re.compile(re.escape(delimiter).join(fields), re.ASCII | re.DOTALL)

    def convert(self, row: Row, names: Sequence[str]) -> str:
        """Return the line, with its line end.

        :param row: the row
        :param names: of its columns, for messages
        :raises BadValue: for another number of values, and for a value that its column cannot hold exactly
        """
        if len(row.values) != len(self.columns):
            reason = f"it has {len(row.values)} values for {len(self.columns)} columns"
            raise BadValue(reason, row.line, sqlstate="22P04")
        nulls = self.nulls
        values = [None if value in nulls else value for value in row.values]
        for number in row.explicit:
            text = row.values[number]
            values[number] = None if text in self.columns[number].nulls_in_quotes else text
        if not row.explicit and self._usual.fullmatch(row.text):
            for number, numbers in self._numbers:
                if (value := values[number]) and not value.isdigit():
                    values[number] = numbers.convert(value)
        else:
            self._check(values, row, names)
        if row.explicit or "\\" in row.text or "\t" in row.text:
            values = [None if value is None else value.translate(_ESCAPES) for value in values]
        return "\t".join(["\\N" if value is None else value for value in values]) + "\n"

    def _check(self, values: list[str | None], row: Row, names: Sequence[str]) -> None:
        for number in self._checked:
            check = self.columns[number].check
            if (value := values[number]) and check:
                try:
                    values[number] = check(value) or value
                except UnfitValue as unfit:
                    raise BadValue(str(unfit), row.line, names[number], sqlstate=unfit.sqlstate) from None


class LineMap:
    """The lines of rows, in memory that does not grow without limit."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._offsets = array("Q")
        self._known: int | None = None

    def add(self, row: int, line: int) -> None:
        """Record a row.

        :param row: its number in the file, from 1; one more than that of the row before
        :param line: its line
        """
        if self._offsets and line - row == self._offsets[-1]:
            return
        if len(self._rows) < _MOST_JUMPS:
            self._rows.append(row)
            self._offsets.append(line - row)
        elif self._known is None:
            self._known = row - 1

    def find(self, row: int) -> int | None:
        """Return the line of a row; None if there were too many rows of several lines before.

        :param row: its number in the file, from 1
        """
        if not self._rows or (self._known is not None and row > self._known):
            return None
        return row + self._offsets[bisect_right(self._rows, row) - 1]


class RewrittenPart(Part):
    """Send a CSV file in COPY's text format.

    :param rows: its rows, behind the header
    :param columns: the target columns of its columns
    :param label: its name in messages
    :param names: names of its columns in messages
    :param converter: turns its rows into text
    """

    unit = "line"
    has_null_text = True

    def __init__(
        self,
        rows: Iterator[Row],
        columns: Sequence[Column],
        *,
        label: str,
        names: Sequence[str],
        converter: RowConverter,
    ) -> None:
        self.columns = columns
        self.label = label
        self.names = names
        self._rows = rows
        self._converter = converter
        self._lines = LineMap()

    def locate(self, row: int) -> tuple[str, int]:
        """Return the line of a row; its number, if too many rows before it have several lines.

        :param row: number of the row, from 1
        """
        line = self._lines.find(row)
        return ("row", row) if line is None else ("line", line)

    def locate_copied(self, line: int) -> tuple[str, int | None]:
        """Return the line of the file for the line that an error of COPY names.

        :param line: as Postgres counts it, which is a row
        """
        return self.locate_sent(line)

    def copy_to(self, target: CopyTarget) -> None:
        """Send the file.

        :param target: the relation to write to
        :raises BadValue: for a row that is malformed, or has a value that its column cannot hold exactly
        :raises psycopg.Error: if Postgres rejects a row
        """
        lines: list[str] = []
        size = 0
        with target.copy(sql.SQL("FORMAT text, ENCODING 'UTF8'")) as copy:
            for line in self._converted(target):
                lines.append(line)
                size += len(line)
                if size >= BLOCK_BYTES:
                    _send(copy, target, lines)
                    lines, size = [], 0
            _send(copy, target, lines)

    def _converted(self, target: CopyTarget) -> Iterator[str]:
        """Yield the lines to send; hand over the rows that cannot be sent."""
        for number, row in enumerate(self._rows, 1):
            self._lines.add(number, row.line)
            try:
                if row.problem:
                    raise row.problem
                yield self._converter.convert(row, self.names)
            except BadValue as bad:
                raw = row.text.encode("utf-8", "surrogateescape").decode(errors="backslashreplace")
                if target.rejects is not None:
                    bad.number = row.line
                self.reject(target, bad, raw, number)


def _send(copy: psycopg.Copy, target: CopyTarget, lines: Sequence[str]) -> None:
    if lines:
        target.progress.add(rows=len(lines))
        copy.write("".join(lines).encode())
