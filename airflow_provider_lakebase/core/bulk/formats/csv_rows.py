"""Split the text of a CSV file of any dialect into rows and values, with the line of each."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES
from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.formats.csv_quotes import BEHIND, NEVER_CLOSED, WITHIN
from airflow_provider_lakebase.core.bulk.options import LoadOptions

_MOST_ROW_CHARACTERS = 64 << 20
_LINE = re.compile(r"[^\r\n]*+(?P<end>\r\n|[\r\n])?+")
_NOT_CSV = "22P04"
_ESCAPE = "the escape stands before a character that needs none, which readers understand differently. Double it there"


class MalformedRow(ValueError):
    """A row that is no list of values of the dialect.

    :param reason: why
    :param position: of the character at fault
    :param number: of the value at fault, from 0
    """

    def __init__(self, reason: str, position: int, number: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position
        self.number = number


@dataclass(frozen=True)
class RowDialect:
    """How rows and values are separated, quoted and escaped.

    :param delimiter: one character
    :param quote: one character, or None if values are never quoted
    :param escape: one character, or None
    :param comment: one character, or None
    :param nulls: texts that stand for NULL, in which an escape is an ordinary character
    """

    delimiter: str
    quote: str | None = None
    escape: str | None = None
    comment: str | None = None
    nulls: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: LoadOptions) -> RowDialect:
        """Return the dialect of a load.

        :param options: of the load
        """
        escape = None if options.escape == options.quote else options.escape
        return cls(options.delimiter, options.quote, escape, options.comment, options.nulls)

    @cached_property
    def row(self) -> re.Pattern[str]:
        """A row; the group ``end`` is its line end, if it has one."""
        quote, escape = self._quote, self._escape
        parts = [rf"[^{quote}{escape}\r\n]++"]
        if escape:
            parts.append(rf"{escape}(?:\r\n|.)")
        if quote:
            within = rf"[^{quote}{escape}]++" + (rf"|{escape}." if escape else "")
            parts.append(rf"{quote}(?:{within})*+{quote}")
        return re.compile(rf"(?:{'|'.join(parts)})*+(?P<end>\r\n|[\r\n])?+", re.DOTALL)

    @cached_property
    def field(self) -> re.Pattern[str]:
        """A value and what separates it from the next; the groups are ``quoted``, ``null`` and ``plain``."""
        delimiter = re.escape(self.delimiter)
        quoted = (
            f"{self._quote}(?P<quoted>{self._good_quoted.pattern}){self._quote}" if self.quote else "(?P<quoted>(?!))"
        )
        nulls = "|".join(re.escape(text) for text in self.nulls if self.escape and self.escape in text) or "(?!)"
        values = rf"{quoted}|(?P<null>{nulls})(?={delimiter}|\Z)|(?P<plain>{self._good_plain.pattern})"
        return re.compile(rf"(?:{values})(?P<end>{delimiter}|\Z)")

    @cached_property
    def _pair(self) -> re.Pattern[str]:
        """A doubled quote, or an escape with the character that it escapes."""
        pairs = [rf"{self._escape}(?P<escaped>\r\n|.)"] if self.escape else []
        pairs += [rf"{self._quote}(?P<doubled>{self._quote})"] if self.quote else []
        return re.compile("|".join(pairs) or "(?!)", re.DOTALL)

    @property
    def _quote(self) -> str:
        return re.escape(self.quote) if self.quote else ""

    @property
    def _escape(self) -> str:
        return re.escape(self.escape) if self.escape else ""

    def is_simple(self, text: str) -> bool:
        """Whether text has neither quotes nor escapes.

        :param text: the text
        """
        return (self.quote is None or self.quote not in text) and (self.escape is None or self.escape not in text)

    def split(self, text: str) -> tuple[list[str], list[int]]:
        """Return the values of a row, and the numbers of those that were quoted or escaped.

        :param text: the row without its line end
        :raises MalformedRow: for a misplaced quote or escape
        """
        if self.is_simple(text):
            return text.split(self.delimiter), []
        values: list[str] = []
        explicit: list[int] = []
        position = 0
        while True:
            found = self.field.match(text, position)
            if found is None:
                raise self._explain(text, position, len(values))
            value = found["plain"] if found["null"] is None else found["null"]
            if value is None or (found["null"] is None and not self.is_simple(value)):
                value = self._unescape(found["quoted"] if value is None else value)
                explicit.append(len(values))
            values.append(value)
            if not found["end"]:
                return values, explicit
            position = found.end()

    def _unescape(self, value: str) -> str:
        if self.is_simple(value):
            return value
        return self._pair.sub(lambda pair: pair[pair.lastgroup or 0], value)

    def _explain(self, text: str, position: int, number: int) -> MalformedRow:
        """Return the error for the value at a position."""
        is_quoted = self.quote is not None and text.startswith(self.quote, position)
        start = position + is_quoted
        found = (self._good_quoted if is_quoted else self._good_plain).match(text, start)
        end = found.end() if found else start
        if self.escape is not None and text.startswith(self.escape, end):
            return MalformedRow(_ESCAPE, end, number)
        if not is_quoted:
            return MalformedRow(WITHIN, end, number)
        return MalformedRow(BEHIND if end < len(text) else NEVER_CLOSED, end if end < len(text) else position, number)

    @cached_property
    def _good_quoted(self) -> re.Pattern[str]:
        """What may follow the quote that opens a value, up to the one that closes it."""
        return re.compile(rf"(?:[^{self._quote}{self._escape}]++|{self._quote}{self._quote}{self._escaped})*+")

    @cached_property
    def _good_plain(self) -> re.Pattern[str]:
        """A value that is not quoted."""
        others = rf"[^{self._quote}{self._escape}{re.escape(self.delimiter)}\r\n]++"
        return re.compile(rf"(?:{others}{self._escaped})*+")

    @cached_property
    def _escaped(self) -> str:
        """An escape and what it may stand before, as one more alternative; nothing without an escape."""
        if not self._escape:
            return ""
        # Python's csv escapes the double quote even if it is no quote.
        characters = re.escape(f"{self.delimiter}{self.quote or chr(34)}{self.escape}{self.comment or ''}")
        return rf"|{self._escape}(?:\r\n|[\r\n{characters}])"


class Row(NamedTuple):
    """A row of a file.

    :param line: number of its first line in the file, from 1
    :param text: as the file has it, without its line end
    :param values: its values, unquoted
    :param explicit: numbers of the values that were quoted or escaped
    :param problem: why it cannot be sent, or None
    """

    line: int
    text: str
    values: list[str]
    explicit: Sequence[int] = ()
    problem: BadValue | None = None


class RowReader:
    """Read a file row by row.

    After a misplaced quote, the next line starts a row: a quote that is never closed would otherwise take all lines
    behind it along.

    :param file: UTF-8 text, open for reading bytes
    :param data: bytes that were read before
    :param dialect: of the file
    :param line: number of its next line
    """

    def __init__(self, file: io.RawIOBase, data: bytes, dialect: RowDialect, line: int) -> None:
        self.dialect = dialect
        self.line = line
        self.names: Sequence[str] = ()
        """Names of the columns in messages."""
        self._file = file
        self._first = data
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._line_end = ""
        self._data = ""
        self._position = 0
        self._ended = False

    def rows(self) -> Iterator[Row]:
        """Yield the rows, without comments.

        :raises BadValue: for a row of more than 64 MiB
        """
        while not self._ended:
            self._fill()
            is_text = _is_text(self._data)
            for row in self._plain_rows() if self._is_plain() else self._other_rows():
                if is_text or row.problem or _is_text(row.text):
                    yield row
                else:
                    bad = BadValue("it is not UTF-8, or contains a null byte", row.line, sqlstate="22021")
                    yield row._replace(problem=bad)

    def _fill(self) -> None:
        waiting = len(self._data) - self._position
        if waiting > _MOST_ROW_CHARACTERS:
            raise BadValue("it does not end within 64 MiB, or a quote in it is never closed", self.line)
        # A row longer than a block is looked at again with the next block, so take ever larger ones.
        block, self._first = self._first or self._file.read(max(BLOCK_BYTES, waiting)), b""
        self._ended = not block
        self._data = self._data[self._position :] + self._decoder.decode(block, final=self._ended)
        self._position = 0

    def _is_plain(self) -> bool:
        """Whether the rows can be split at each line end and delimiter."""
        end, data = self._line_end, self._data
        if not end or self._ended or data.endswith("\r") or not self.dialect.is_simple(data):
            return False
        if end == "\r\n":
            return data.count(end) == data.count("\r") == data.count("\n")
        return ("\r" if end == "\n" else "\n") not in data

    def _plain_rows(self) -> Iterator[Row]:
        delimiter, comment = self.dialect.delimiter, self.dialect.comment
        *lines, self._data = self._data.split(self._line_end)
        for line in lines:
            if comment is None or not line.startswith(comment):
                yield Row(self.line, line, line.split(delimiter))
            self.line += 1

    def _other_rows(self) -> Iterator[Row]:
        while self._position < len(self._data):
            is_comment = self.dialect.comment is not None and self._data.startswith(
                self.dialect.comment, self._position
            )
            found = (_LINE if is_comment else self.dialect.row).match(self._data, self._position)
            assert found is not None  # noqa: S101 - it also matches nothing
            end = found["end"] or ""
            is_whole = bool(end) and (end != "\r" or found.end() < len(self._data))
            if not is_whole and not self._ended:
                if not is_comment and (row := self._open_row()):
                    yield row
                    continue
                return
            stop = found.end() if is_whole or is_comment or found.end() == len(self._data) else len(self._data)
            yield from self._take(stop, end if stop == found.end() else "", is_comment=is_comment)

    def _take(self, stop: int, end: str, *, is_comment: bool) -> Iterator[Row]:
        """Yield the row that ends at a position, unless it is a comment, and go on behind it."""
        start, line = self._position, self.line
        text = self._data[start : stop - len(end)]
        self._line_end = self._line_end or end
        problem = None
        if end and end != self._line_end:
            problem = BadValue("it ends with another line break than the first line", line, sqlstate=_NOT_CSV)
        if not is_comment:
            try:
                values, explicit = self.dialect.split(text)
            except MalformedRow as malformed:
                yield self._skip_line(malformed)
                return
        self._position = stop
        self.line += self._breaks(text) + 1
        if problem:
            yield Row(line, text, [], (), problem)
        elif not is_comment:
            yield Row(line, text, values, explicit)

    def _open_row(self) -> Row | None:
        """Return the first line of the row that has not ended yet, if it is malformed already."""
        text = self._data[self._position :].removesuffix("\r")
        first = _LINE.match(text)
        if not first or not first["end"] or first.end() == len(text):
            return None
        try:
            self.dialect.split(text)
        except MalformedRow as malformed:
            # The last character may be one half of two, and a quote that is open may be closed yet.
            if malformed.reason != NEVER_CLOSED and malformed.position < len(text) - 1:
                return self._skip_line(malformed)
        return None

    def _skip_line(self, malformed: MalformedRow) -> Row:
        """Return the first line of a malformed row as a row, and go on behind it."""
        start, line = self._position, self.line
        first = _LINE.match(self._data, start)
        assert first is not None  # noqa: S101 - it also matches nothing
        end = first["end"] or ""
        self._line_end = self._line_end or end
        name = self.names[malformed.number] if malformed.number < len(self.names) else None
        number = line + self._breaks(self._data[start : start + malformed.position])
        self._position = first.end()
        self.line += 1
        problem = BadValue(malformed.reason, number, name, sqlstate=_NOT_CSV)
        return Row(line, self._data[start : first.end() - len(end)], [], (), problem)

    def _breaks(self, text: str) -> int:
        return text.count(self._line_end[-1:] or "\n")


def _is_text(data: str) -> bool:
    if "\0" in data:
        return False
    try:
        data.encode()
    except UnicodeEncodeError:  # a byte that is not UTF-8 is read as half of a surrogate pair
        return False
    return True
