"""Check the quotes of a CSV file on its way into COPY, which accepts misplaced ones and changes the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.formats.csv_dialect import CsvDialect

WITHIN = "a quote stands within a value that is not quoted. Quote the whole value, and double each quote in it"
BEHIND = "text follows the quote that closes a value. Double each quote within a quoted value"
NEVER_CLOSED = "it starts a quoted value whose quote is never closed"


def end_of_row(data: bytes, dialect: CsvDialect) -> int | None:
    """Return the position after the first row and its line end; None if the data ends before.

    :param data: text from the start of a row
    :param dialect: of the text
    """
    found = dialect.row.match(data)
    return found.end() if found and found["end"] and (found["end"] != b"\r" or found.end() < len(data)) else None


class QuoteCheck:
    """Reject quotes that are not where RFC 4180 allows them, block by block.

    :param line: number of the first line of the first block
    :param line_end: characters that end a line
    :param columns: column names, for messages
    :param dialect: of the file
    """

    def __init__(self, line: int, line_end: bytes, columns: Sequence[str], dialect: CsvDialect) -> None:
        self.dialect = dialect
        self.line = line
        self.columns = columns
        self._line_end = line_end
        self._newline = line_end[-1:]
        self._inside = False
        self._before = b"\n"
        self._last: tuple[bytes, bool, bool] | None = None
        self._opened_on = line
        self._has_returns = self._has_newlines = False

    @property
    def postgres_counts(self) -> str | None:
        """What the line number in Postgres's errors counts so far: a ``line``, a ``row``, or None for neither.

        In files with CRLF line ends, it counts a line break in quotes by its CR.
        """
        if not self._has_newlines:
            return "line"
        return None if self._has_returns else "row"

    def read(self, block: bytes) -> None:
        """Check the next block.

        :param block: not empty
        :raises BadValue: for the first misplaced quote
        """
        was_inside = self._inside
        has_quotes = self.dialect.quote in block
        if has_quotes or self._before == self.dialect.quote:
            self._check(block)
        if has_quotes or was_inside:
            self._count_breaks(block, was_inside)
        self.line += block.count(self._newline)
        self._last = (block, was_inside, self._last is None)
        self._before = block[-1:]

    @property
    def is_inside(self) -> bool:
        """Whether the data so far ends within quotes."""
        return self._inside

    def skip(self, rows: bytes) -> None:
        """Count whole rows that are known to be well quoted.

        :param rows: not empty
        """
        if self.dialect.quote in rows:
            self._count_breaks(rows, False)
        self.line += rows.count(self._newline)
        self._last = None
        self._before = rows[-1:]

    def restart(self, line: int, skipped: bytes) -> None:
        """Go on behind a line that is left out.

        :param line: its number
        :param skipped: its bytes, with their line end
        """
        self.line = line + skipped.count(self._newline)
        self._inside = False
        self._last = None
        self._before = b"\n"

    def look_ahead(self, start: bytes) -> None:
        """Check the start of a row that will be read again as a whole.

        :param start: its first bytes, not empty
        :raises BadValue: for the first misplaced quote
        """
        if self.dialect.quote in start:
            self._check(start)
            self._inside = False

    def _count_breaks(self, block: bytes, was_inside: bool) -> None:
        if self._line_end != b"\r\n":
            return
        quoted = block.split(self.dialect.quote)[0 if was_inside else 1 :: 2]
        returns = sum(part.count(b"\r") for part in quoted)
        self._has_returns |= returns > 0
        self._has_newlines |= returns != sum(part.count(b"\n") for part in quoted)

    def finish(self) -> None:
        """Check the end of the file.

        :raises BadValue: if it is within quotes
        """
        if self._inside:
            raise BadValue(NEVER_CLOSED, self._opened_on)

    def _check(self, block: bytes) -> None:
        if not self.dialect.has_quotes:
            line = self.line + block.count(self._newline, 0, max(block.find(self.dialect.quote), 0))
            raise BadValue("it contains the control character U+0001", line)
        data = self._before + block
        start = 1
        if self._inside:
            found = self.dialect.rest_of_quoted.match(data, start)
            if not found:
                if (quote := data.find(self.dialect.quote, start)) >= 0:
                    raise self._misplaced(block, quote + 1, BEHIND)
                return
            start = found.end()
            self._inside = False
        elif self._before == self.dialect.quote and not self.dialect.marks.match(data, 1):
            raise self._misplaced(block, 1, BEHIND)
        match = self.dialect.well_quoted.match(data, start)
        assert match is not None  # noqa: S101 - it also matches nothing
        if match.end() < len(data):
            is_behind = match["open"] is not None
            raise self._misplaced(block, match.end() + is_behind, BEHIND if is_behind else WITHIN)
        if match["open"] is not None:
            self._inside = True
            opened = match.start("open")
            while opened > 0 and data[opened - 1 : opened] == self.dialect.quote:  # the second one of a doubled quote
                opened = data.rfind(self.dialect.quote, 0, opened - 1)
            if opened > 0:
                self._opened_on = self.line + block.count(self._newline, 0, opened - 1)

    def _misplaced(self, block: bytes, position: int, what: str) -> BadValue:
        """Return the error for a byte of the block, counted from 1."""
        before = block[: position - 1]
        last, inside, knows = self._last or (b"", False, True)
        number: int | None = 0 if knows else None
        for mark in self.dialect.marks.finditer(last + before):
            if mark[0] == self.dialect.quote:
                inside = not inside
            elif not inside and mark[0] == self.dialect.delimiter:
                number = None if number is None else number + 1
            elif not inside:
                number = 0
        name = self.columns[number] if number is not None and number < len(self.columns) else None
        return BadValue(what, self.line + before.count(self._newline), name)


def quote_end_marks(
    blocks: Iterator[bytes], null: str, is_inside: Callable[[], bool], dialect: CsvDialect
) -> Iterator[bytes]:
    r"""Quote each line that is only ``\.``: before version 18, Postgres takes it as the end of the data.

    :param blocks: well-quoted text
    :param null: unquoted text that stands for NULL
    :param is_inside: returns whether the last block ended within quotes
    :param dialect: of the text
    """
    inside, before, held = False, b"\n", b""
    for read in blocks:
        block = held + read
        held = b""
        for tail in (b"\\.", b"\\"):
            if block.endswith(tail):
                block, held = block[: -len(tail)], tail
                break
        if not block:
            continue
        if b"\\" in block:
            yield _quote_end_marks(block, inside, before, null, dialect, is_last=not held)
        else:
            yield block
        inside = is_inside()
        before = block[-1:]
    if held:
        yield _quote_end_marks(held, inside, before, null, dialect, is_last=True)


def _quote_end_marks(
    block: bytes, inside: bool, before: bytes, null: str, dialect: CsvDialect, *, is_last: bool
) -> bytes:
    start = block.find(dialect.quote) + 1 if inside else 0
    if inside and not start:
        return block

    def quote(mark: re.Match[bytes]) -> bytes:
        return b"%b\\.%b" % (dialect.quote, dialect.quote) if mark[0] == b"\\." and null != "\\." else mark[0]

    # A line may start with the block, so the pattern must see the byte before it.
    prefix = dialect.delimiter if start or before == dialect.quote else before
    return block[:start] + dialect.end_mark.sub(quote, prefix + block[start:])[1:]
