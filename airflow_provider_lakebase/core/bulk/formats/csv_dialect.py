"""The delimiter and the quote of a CSV file, and the patterns that read text with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

NO_QUOTE = b"\x01"
"""Stands for the quote of files that have none: COPY needs one, and text has no use for this character."""


@dataclass(frozen=True)
class CsvDialect:
    """How values are separated and quoted.

    :param delimiter: one byte of ASCII
    :param quote: one byte of ASCII; :data:`NO_QUOTE` if values are never quoted
    """

    delimiter: bytes = b","
    quote: bytes = b'"'

    @classmethod
    def of(cls, delimiter: str, quote: str | None) -> CsvDialect:
        """Return the dialect of two options.

        :param delimiter: one character of ASCII
        :param quote: one character of ASCII, or None
        """
        return cls(delimiter.encode(), NO_QUOTE if quote is None else quote.encode())

    @property
    def has_quotes(self) -> bool:
        """Whether values can be quoted."""
        return self.quote != NO_QUOTE

    @cached_property
    def well_quoted(self) -> re.Pattern[bytes]:
        """Text whose quotes open right after a delimiter or line end, and close right before one.

        A doubled quote within quotes is a quote. The group ``open`` is a value whose quote is not closed yet.
        """
        return self._compile(
            rb"(?:[^Q]*+(?<![^D\r\nQ])Q[^Q]*+Q(?![^D\r\nQ]))*+[^Q]*+(?P<open>(?<![^D\r\nQ])Q[^Q]*+)?+", re.DOTALL
        )

    @cached_property
    def rest_of_quoted(self) -> re.Pattern[bytes]:
        """The end of a quoted value."""
        return self._compile(rb"[^Q]*+Q(?![^D\r\nQ])")

    @cached_property
    def marks(self) -> re.Pattern[bytes]:
        """A character that separates or quotes values or rows."""
        return self._compile(rb"[Q\r\nD]")

    @cached_property
    def end_mark(self) -> re.Pattern[bytes]:
        r"""A quoted value, or a line that is only ``\.``."""
        return self._compile(rb"Q[^Q]*+Q?|(?<![^\r\n])\\\.(?![^\r\n])")

    @cached_property
    def row(self) -> re.Pattern[bytes]:
        """A row; the group ``end`` is its line end, if it has one."""
        return self._compile(rb"(?:[^Q\r\n]++|Q[^Q]*+Q)*+(?P<end>\r\n|[\r\n])?+")

    @cached_property
    def field(self) -> re.Pattern[bytes]:
        """A value: the first group if it is quoted, else the second."""
        return self._compile(rb"(?:Q((?:[^Q]++|QQ)*+)Q|([^QD\r\n]*+))(?:D|\Z)")

    def fill(self, pattern: bytes) -> bytes:
        """Return a pattern with the dialect's characters in place of ``D`` and ``Q``."""
        characters = {b"D": re.escape(self.delimiter), b"Q": re.escape(self.quote)}
        return re.sub(rb"[DQ]", lambda letter: characters[letter[0]], pattern)

    def _compile(self, pattern: bytes, flags: int = 0) -> re.Pattern[bytes]:
        return re.compile(self.fill(pattern), flags)
