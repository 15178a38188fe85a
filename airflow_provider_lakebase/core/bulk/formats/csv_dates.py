"""Check the dates and times of a CSV file before COPY, which would silently truncate or round them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue, UnfitValue
from airflow_provider_lakebase.core.bulk.formats.csv_dialect import CsvDialect
from airflow_provider_lakebase.core.bulk.formats.csv_quotes import QuoteCheck
from airflow_provider_lakebase.core.bulk.formats.date_text import text_check, text_pattern

_UNQUOTED = rb"[^QD\r\n]*+"
_ANY = rb"(?:Q[^Q]*+(?:QQ[^Q]*+)*+Q|[^QD\r\n]*+)"
_MOST_ROW_BYTES = 64 << 20


class DateCheck:
    """Reject dates and times that would lose their zone, their time of day or digits in their columns.

    :param columns: the columns of the file, in its order
    :param null: unquoted text that stands for NULL
    :param dialect: of the file
    """

    is_strict = False
    """Whether the patterns match rows with the right number of values only."""

    def __init__(self, columns: Sequence[Column], null: str, dialect: CsvDialect) -> None:
        self.columns = columns
        self.dialect = dialect
        self.null = null.encode()
        self.checks = [(number, check) for number, check in enumerate(map(text_check, columns)) if check]
        self._carry = b""
        if self.checks or self.is_strict:
            self._plain, self._quoted = (self._compile(field) for field in (_UNQUOTED, _ANY))

    def _compile(self, field: bytes) -> re.Pattern[bytes]:
        checked, quote = dict(self.checks), re.escape(self.dialect.quote)
        any_field, run = self.dialect.fill(field), self.dialect.fill(rb"[^D]*+")
        fields = []
        for number, column in enumerate(self.columns):
            if number not in checked:
                # Searching for one byte is fastest. If this runs past a line end, the row is too short or too long, and
                # Postgres rejects it.
                is_last = number == len(self.columns) - 1
                fields.append(any_field if self.is_strict or is_last or field is _ANY else run)
                continue
            pattern = text_pattern(column).encode()
            value = rb"(?:(?:%b)?+|%b)" % (pattern, re.escape(self.null))
            fields.append(rb"(?:%b|%b%b%b)" % (value, quote, value, quote) if field is _ANY else value)
        return re.compile(rb"(?:%b(?:\r\n|\n|\r(?!\Z)))*+" % re.escape(self.dialect.delimiter).join(fields), re.ASCII)

    def read(self, block: bytes, quotes: QuoteCheck) -> bytes:
        """Check the rows that end in the next block, and return them.

        :param block: not empty
        :param quotes: checks the quotes of rows that the fast pattern does not match
        :raises BadValue: for the first value that its column would change, and for a misplaced quote
        """
        data = self._carry + block if self._carry else block
        pattern = self._quoted if self.dialect.quote in data else self._plain
        position = 0
        while position < len(data):
            found = pattern.match(data, position)
            if found and found.end() > position:
                quotes.skip(data[position : found.end()])
                position = found.end()
            row = self.dialect.row.match(data, position)
            if not row or not row["end"] or (row["end"] == b"\r" and row.end() == len(data)):
                break
            self._check_row(row[0], quotes)
            position = row.end()
        self._carry = data[position:]
        if self._carry:
            quotes.look_ahead(self._carry)
        self._check_length(quotes)
        return data[:position]

    @property
    def waiting(self) -> int:
        """Bytes of a row that has not ended yet."""
        return len(self._carry)

    def finish(self, quotes: QuoteCheck) -> bytes:
        """Check the last row, which may have no line end, and return it.

        :param quotes: checks its quotes
        :raises BadValue: for a value that its column would change, and for a misplaced quote
        """
        data, self._carry = self._carry, b""
        if data:
            self._check_row(data, quotes, is_last=True)
        return data

    def _check_length(self, quotes: QuoteCheck) -> None:
        if len(self._carry) > _MOST_ROW_BYTES:
            raise BadValue("it does not end within 64 MiB, or a quote in it is never closed", quotes.line)

    def _check_row(self, data: bytes, quotes: QuoteCheck, *, is_last: bool = False) -> None:
        line = quotes.line
        quotes.read(data)
        if is_last:
            quotes.finish()
        self._check_values(data, line)

    def _check_values(self, data: bytes, line: int) -> None:
        values = list(self.dialect.field.finditer(data.rstrip(b"\r\n")))
        for number, check in self.checks:
            if number >= len(values):
                return  # Postgres rejects a row that is too short
            quoted, unquoted = values[number].groups()
            value = unquoted if quoted is None else quoted.replace(self.dialect.quote * 2, self.dialect.quote)
            if value in (b"", self.null):
                continue
            try:
                check(value.decode())
            except UnicodeDecodeError:
                continue  # Postgres rejects it
            except UnfitValue as unfit:
                raise BadValue(str(unfit), line, self.columns[number].name, sqlstate=unfit.sqlstate) from None
