"""Leave the rows of a CSV file out that COPY cannot read, so that the rest can be sent as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.formats.csv_dates import DateCheck
from airflow_provider_lakebase.core.bulk.formats.csv_dialect import CsvDialect
from airflow_provider_lakebase.core.bulk.formats.csv_quotes import QuoteCheck

_LINE = re.compile(rb"[^\r\n]*+(?:\r\n|[\r\n])?+")


class RowFilter(DateCheck):
    """Reject rows with misplaced quotes, another number of values, bytes that are not UTF-8, or lossy dates.

    After a misplaced quote, only the line that it stands in is rejected, and the next line starts a row: a quote that
    is never closed would otherwise take all lines behind it along.

    :param columns: the columns of the file, in its order
    :param null: unquoted text that stands for NULL
    :param dialect: of the file
    :param reject: called with what is wrong with a row, its bytes, and its number in the file, from 1
    """

    is_strict = True

    def __init__(
        self,
        columns: Sequence[Column],
        null: str,
        dialect: CsvDialect,
        reject: Callable[[BadValue, bytes, int], None],
    ) -> None:
        super().__init__(columns, null, dialect)
        self._reject = reject
        self.rows = 0

    def read(self, block: bytes, quotes: QuoteCheck) -> bytes:
        """Return the good rows that end in the next block.

        :param block: not empty
        :param quotes: checks the quotes of rows that the fast pattern does not match
        """
        data = self._carry + block if self._carry else block
        pattern = self._quoted if self.dialect.quote in data else self._plain
        good: list[bytes] = []
        position = 0
        while position < len(data):
            found = pattern.match(data, position)
            if found and found.end() > position and _is_text(rows := data[position : found.end()]):
                good.append(rows)
                self.rows += self._count(rows)
                quotes.skip(rows)
                position = found.end()
            row = self.dialect.row.match(data, position)
            if not row or not row["end"] or (row["end"] == b"\r" and row.end() == len(data)):
                break
            position += self._take(row[0], quotes, good)
        self._carry = data[position:]
        self._check_length(quotes)
        return b"".join(good)

    def finish(self, quotes: QuoteCheck) -> bytes:
        """Return the last rows, if they are good; the very last may have no line end.

        :param quotes: checks their quotes
        """
        good: list[bytes] = []
        data, self._carry = self._carry, b""
        while data:
            row = self.dialect.row.match(data)
            # A quote that is never closed keeps the pattern from matching the rest.
            size = row.end() if row and (row["end"] or row.end() == len(data)) else len(data)
            data = data[self._take(data[:size], quotes, good, is_last=size == len(data)) :]
        return b"".join(good)

    def _take(self, row: bytes, quotes: QuoteCheck, good: list[bytes], *, is_last: bool = False) -> int:
        """Add a row to the good ones or reject it; return how many of its bytes are done."""
        self.rows += 1
        line = quotes.line
        try:
            quotes.read(row)
            if is_last:
                quotes.finish()
        except BadValue as bad:
            first = _LINE.match(row)
            text = first[0] if first else row
            quotes.restart(line, text)
            self._reject(BadValue(bad.reason, line, bad.column, sqlstate="22P04"), text, self.rows)
            return len(text)
        try:
            self._check_shape(row, line)
            self._check_values(row, line)
        except BadValue as bad:
            self._reject(bad, row, self.rows)
        else:
            good.append(row)
        return len(row)

    def _check_shape(self, row: bytes, line: int) -> None:
        outside = row.split(self.dialect.quote)[::2]
        count = sum(part.count(self.dialect.delimiter) for part in outside) + 1
        if count != len(self.columns):
            raise BadValue(f"it has {count} values for {len(self.columns)} columns", line, sqlstate="22P04")
        if not _is_text(row):
            raise BadValue("it is not UTF-8, or contains a null byte", line, sqlstate="22021")

    def _count(self, rows: bytes) -> int:
        outside = rows.split(self.dialect.quote)[::2]
        ends = sum(part.count(b"\n") for part in outside)
        return ends or sum(part.count(b"\r") for part in outside)


def _is_text(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
