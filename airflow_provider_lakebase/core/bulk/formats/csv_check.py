"""Look at a CSV file on its way into COPY, which takes quotes and dates that it does not store as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.formats.values import UnfitValue, text_check, text_pattern

# A quote opens right behind a comma or a line end, and closes right before one; twice within quotes, it is one quote.
_WELL_QUOTED = re.compile(
    rb'(?:[^"]*+(?<![^,\r\n"])"[^"]*+"(?![^,\r\n"]))*+[^"]*+(?P<open>(?<![^,\r\n"])"[^"]*+)?+', re.DOTALL
)
_REST_OF_QUOTED = re.compile(rb'[^"]*+"(?![^,\r\n"])')
_MARKS = re.compile(rb'["\r\n,]')
_END_MARK = re.compile(rb'"[^"]*+"?|(?<![^\r\n])\\\.(?![^\r\n])')
_ROW = re.compile(rb'(?:[^"\r\n]++|"[^"]*+")*+(?P<end>\r\n|[\r\n])?+')
_FIELD = re.compile(rb'(?:"((?:[^"]++|"")*+)"|([^",\r\n]*+))(?:,|\Z)')
_UNQUOTED = rb"[^\",\r\n]*+"
_ANY = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+)'
_QUOTE = ord('"')
_MOST_ROW_BYTES = 64 << 20
_WITHIN = "a quote stands within a value that is not quoted. Quote the whole value, and double each quote in it"
_BEHIND = "text follows the quote that closes a value. Double each quote within a quoted value"


def end_of_row(data: bytes) -> int | None:
    """Return where the first row ends, behind its line end; None when the data ends before.

    :param data: text at the beginning of a row
    """
    found = _ROW.match(data)
    return found.end() if found and found["end"] and (found["end"] != b"\r" or found.end() < len(data)) else None


class QuoteCheck:
    """Read blocks of a CSV file and refuse quotes that are not where RFC 4180 has them.

    :param line: number of the line that the first block begins with
    :param line_end: what ends its lines
    :param columns: names of its columns, for messages
    """

    def __init__(self, line: int, line_end: bytes, columns: Sequence[str]) -> None:
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
        """Return what Postgres has counted so far where it says line: ``line``, ``row``, or None for neither.

        Where lines end in CR and LF, it counts a line break in quotes by its CR.
        """
        if not self._has_newlines:
            return "line"
        return None if self._has_returns else "row"

    def read(self, block: bytes) -> None:
        """Look at the next block.

        :param block: not empty
        :raises BadValue: for the first quote that is out of place
        """
        was_inside = self._inside
        has_quotes = _QUOTE in block
        if has_quotes or self._before == b'"':
            self._check(block)
        if has_quotes or was_inside:
            self._look_at_breaks(block, was_inside)
        self.line += block.count(self._newline)
        self._last = (block, was_inside, self._last is None)
        self._before = block[-1:]

    @property
    def is_inside(self) -> bool:
        """Return whether what was read so far ends within quotes."""
        return self._inside

    def skip(self, rows: bytes) -> None:
        """Count whole rows that are well quoted.

        :param rows: not empty
        """
        if _QUOTE in rows:
            self._look_at_breaks(rows, False)
        self.line += rows.count(self._newline)
        self._last = None
        self._before = rows[-1:]

    def look_ahead(self, start: bytes) -> None:
        """Look at the beginning of a row that will be read later.

        :param start: what there is of it, not empty
        :raises BadValue: for the first quote that is out of place
        """
        if _QUOTE in start:
            self._check(start)
            self._inside = False

    def _look_at_breaks(self, block: bytes, was_inside: bool) -> None:
        if self._line_end != b"\r\n":
            return
        quoted = block.split(b'"')[0 if was_inside else 1 :: 2]
        returns = sum(part.count(b"\r") for part in quoted)
        self._has_returns |= returns > 0
        self._has_newlines |= returns != sum(part.count(b"\n") for part in quoted)

    def finish(self) -> None:
        """Look at the end of the file.

        :raises BadValue: when it is within quotes
        """
        if self._inside:
            raise BadValue("the quote that opens a value there is never closed", self._opened_on)

    def _check(self, block: bytes) -> None:
        data = self._before + block
        start = 1
        if self._inside:
            found = _REST_OF_QUOTED.match(data, start)
            if not found:
                if (quote := data.find(b'"', start)) >= 0:
                    raise self._misplaced(block, quote + 1, _BEHIND)
                return
            start = found.end()
            self._inside = False
        elif self._before == b'"' and data[1:2] not in (b",", b"\r", b"\n", b'"'):
            raise self._misplaced(block, 1, _BEHIND)
        match = _WELL_QUOTED.match(data, start)
        assert match is not None  # noqa: S101 - it matches anything, at least nothing
        if match.end() < len(data):
            is_behind = match["open"] is not None
            raise self._misplaced(block, match.end() + is_behind, _BEHIND if is_behind else _WITHIN)
        if match["open"] is not None:
            self._inside = True
            opened = match.start("open")
            while opened > 0 and data[opened - 1] == _QUOTE:  # the second one of a doubled quote
                opened = data.rfind(b'"', 0, opened - 1)
            if opened > 0:
                self._opened_on = self.line + block.count(self._newline, 0, opened - 1)

    def _misplaced(self, block: bytes, position: int, what: str) -> BadValue:
        """Return what to raise for a byte of the block, counted from 1."""
        before = block[: position - 1]
        last, inside, knows = self._last or (b"", False, True)
        number: int | None = 0 if knows else None
        for mark in _MARKS.finditer(last + before):
            if mark[0] == b'"':
                inside = not inside
            elif not inside and mark[0] == b",":
                number = None if number is None else number + 1
            elif not inside:
                number = 0
        name = self.columns[number] if number is not None and number < len(self.columns) else None
        return BadValue(what, self.line + before.count(self._newline), name)


def quote_end_marks(blocks: Iterator[bytes], null: str, is_inside: Callable[[], bool]) -> Iterator[bytes]:
    r"""Quote each line that is ``\.`` alone: before version 18, Postgres takes it for the end of the data.

    :param blocks: well-quoted text
    :param null: the unquoted text that stands for NULL
    :param is_inside: returns whether the last block ends within quotes
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
            yield _quote_end_marks(block, inside, before, null, is_last=not held)
        else:
            yield block
        inside = is_inside()
        before = block[-1:]
    if held:
        yield _quote_end_marks(held, inside, before, null, is_last=True)


def _quote_end_marks(block: bytes, inside: bool, before: bytes, null: str, *, is_last: bool) -> bytes:
    start = block.find(b'"') + 1 if inside else 0
    if inside and not start:
        return block

    def quote(mark: re.Match[bytes]) -> bytes:
        return b'"\\."' if mark[0] == b"\\." and null != "\\." else mark[0]

    # What was before stands in for itself, since a line may begin with the block.
    prefix = b"," if start else before
    return block[:start] + _END_MARK.sub(quote, (prefix if prefix != b'"' else b",") + block[start:])[1:]


class DateCheck:
    """Refuse dates and times that their columns would store without their zone, their time of day or some digits.

    :param columns: those of the file, in its order
    :param null: the unquoted text that stands for NULL
    """

    def __init__(self, columns: Sequence[Column], null: str) -> None:
        self.columns = columns
        self.null = null.encode()
        self.checks = [(number, check) for number, check in enumerate(map(text_check, columns)) if check]
        self._carry = b""
        if self.checks:
            self._plain, self._quoted = (self._compile(field) for field in (_UNQUOTED, _ANY))

    def _compile(self, field: bytes) -> re.Pattern[bytes]:
        checked = dict(self.checks)
        fields = []
        for number, column in enumerate(self.columns):
            if number not in checked:
                # To look for one byte is fastest. Where this goes on behind a line end, a row is too short or too long,
                # which Postgres refuses.
                is_last = number == len(self.columns) - 1
                fields.append(field if is_last or field is _ANY else rb"[^,]*+")
                continue
            pattern = text_pattern(column).encode()
            value = rb"(?:(?:%b)?+|%b)" % (pattern, re.escape(self.null))
            fields.append(rb'(?:%b|"%b")' % (value, value) if field is _ANY else value)
        return re.compile(rb"(?:%b(?:\r\n|\n|\r(?!\Z)))*+" % b",".join(fields), re.ASCII)

    def read(self, block: bytes, quotes: QuoteCheck) -> bytes:
        """Look at the rows that end in the next block, and return them.

        :param block: not empty
        :param quotes: looks at the quotes of what does not match at once
        :raises BadValue: for the first value that its column would change, and for quotes out of place
        """
        data = self._carry + block if self._carry else block
        pattern = self._quoted if _QUOTE in data else self._plain
        position = 0
        while position < len(data):
            found = pattern.match(data, position)
            if found and found.end() > position:
                quotes.skip(data[position : found.end()])
                position = found.end()
            row = _ROW.match(data, position)
            if not row or not row["end"] or (row["end"] == b"\r" and row.end() == len(data)):
                break
            self._check_row(row[0], quotes)
            position = row.end()
        self._carry = data[position:]
        if self._carry:
            quotes.look_ahead(self._carry)
        if len(self._carry) > _MOST_ROW_BYTES:
            raise BadValue("it does not end within 64 MiB, or a quote in it is never closed", quotes.line)
        return data[:position]

    @property
    def waiting(self) -> int:
        """Return the bytes of a row whose end has not come yet."""
        return len(self._carry)

    def finish(self, quotes: QuoteCheck) -> bytes:
        """Look at the last row, which may have no line end, and return it.

        :param quotes: looks at its quotes
        :raises BadValue: for a value that its column would change, and for quotes out of place
        """
        data, self._carry = self._carry, b""
        if data:
            self._check_row(data, quotes, is_last=True)
        return data

    def _check_row(self, data: bytes, quotes: QuoteCheck, *, is_last: bool = False) -> None:
        line = quotes.line
        quotes.read(data)
        if is_last:
            quotes.finish()
        values = list(_FIELD.finditer(data.rstrip(b"\r\n")))
        for number, check in self.checks:
            if number >= len(values):
                return  # Postgres tells of a row that is too short
            quoted, unquoted = values[number].groups()
            value = unquoted if quoted is None else quoted.replace(b'""', b'"')
            if value in (b"", self.null):
                continue
            try:
                check(value.decode())
            except UnicodeDecodeError:
                continue  # Postgres tells of that as well
            except UnfitValue as unfit:
                raise BadValue(str(unfit), line, self.columns[number].name) from None
