"""Find out the dialect of a CSV file from its first bytes; refuse a file that has more than one reading."""

from __future__ import annotations

import codecs
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

import clevercsv

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES, ByteReader, Unreadable
from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.formats.csv_rows import Row, RowDialect, RowReader
from airflow_provider_lakebase.core.bulk.options import LoadOptions

log = logging.getLogger(__name__)

_SAMPLE_BYTES = 1 << 20
_GUESSED_CHARACTERS = 20_000
"""Enough to guess from; the guess is checked on the whole sample."""
_DELIMITERS = (",", ";", "\t", "|")
_COMMENT = "#"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = frozenset("ÄÖÜäöüßÀÂÆÇÈÉÊËÎÏÔŒÙÛàâæçèéêëîïôœùûÿÁÍÓÚÑáíóúñÃÕãõÅåØøÌÒìòÐðÞþÝýŠšŽžªºµ½¼¾²³¹")
_LETTERS = re.compile(r"[^\W\d_]+")
_MANY_OTHERS = re.compile(r"[^\x00-\x7f]{3}")
_TYPED = re.compile(r"[-+]?[\d.,' ]*\d[\d.,' ]*(?:[eE][-+]?\d+)?%?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ][\d:.+Z-]+)?")
_HINT = (
    "Name the dialect with 'delimiter', 'quote', 'escape', 'encoding', 'skip_lines' and 'header', without 'dialect'."
)
_ENCODING_HINT = "Set 'encoding' to the encoding of the file."


@dataclass(frozen=True)
class _Reading:
    """The rows of a sample, read in one dialect; each has the same number of values."""

    dialect: RowDialect
    rows: Sequence[Row]
    skipped: int


def sniff(
    file: IO[bytes], label: str | None, options: LoadOptions, known: set[str] | None
) -> tuple[IO[bytes], LoadOptions]:
    """Return a file that can be read from its start, and the options of its dialect.

    Options that differ from their defaults are kept.

    :param file: open for reading bytes
    :param label: its name in the log; None logs nothing
    :param options: of the load
    :param known: names that its header may have; None if any
    :raises Unreadable: if the dialect cannot be told for certain
    """
    reader = ByteReader(file)
    data = b""
    while len(data) < _SAMPLE_BYTES and (more := reader.read(_SAMPLE_BYTES - len(data))):
        data += more
    reader.head = data
    encoding = options.encoding if options.encoding != "utf-8" else _find_encoding(data)
    text = _decode(data, encoding, is_whole=len(data) < _SAMPLE_BYTES)
    reading = _find_reading(text, options)
    header = options.header and _has_header([row.values for row in reading.rows], known)
    dialect = reading.dialect
    found = replace(
        options,
        dialect=None,
        delimiter=dialect.delimiter,
        quote=dialect.quote,
        escape=dialect.escape,
        comment=dialect.comment,
        encoding=encoding,
        skip_lines=reading.skipped,
        header=header,
    )
    names = ("delimiter", "quote", "escape", "comment", "encoding", "skip_lines", "header")
    if label is not None:
        log.info("Reading %s with %s", label, ", ".join(f"{name}={getattr(found, name)!r}" for name in names))
    return io.BufferedReader(reader, BLOCK_BYTES), found


def _find_encoding(data: bytes) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        pass
    else:
        if b"\0" not in data:
            return "utf-8"
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or _MANY_OTHERS.search(text) or not all(map(_is_western, _LETTERS.findall(text))):
        raise Unreadable("its encoding is ambiguous: it is not UTF-8 text", _ENCODING_HINT)
    return "cp1252"


def _is_western(word: str) -> bool:
    """Whether a word may be of a Western European language: of other ones, cp1252 makes words of accents."""
    others = [letter for letter in word if not letter.isascii()]
    return _WESTERN.issuperset(others) and (len(word) < 3 or 2 * len(others) <= len(word))


def _decode(data: bytes, encoding: str, *, is_whole: bool) -> str:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, final=is_whole)
    except UnicodeError:
        raise Unreadable(f"it is not {encoding} text", _ENCODING_HINT) from None
    if is_whole:
        return text.removeprefix("\ufeff")
    # The last row may be incomplete.
    return text[: max(text.rfind("\n"), text.rfind("\r")) + 1].removeprefix("\ufeff")


def _find_reading(text: str, options: LoadOptions) -> _Reading:
    delimiters = list(_DELIMITERS) if options.delimiter == "," else [options.delimiter]
    # The guess must not end within a quoted value of many lines, so it gets whole lines.
    start = text[:_GUESSED_CHARACTERS]
    try:
        guess = clevercsv.Sniffer().sniff(
            start if len(start) == len(text) else start[: start.rfind("\n") + 1], delimiters
        )
    except clevercsv.Error:  # for a null character
        guess = None
    if guess is None or not guess.delimiter:
        raise _ambiguous("no delimiter separates its values")
    quotes = _distinct(guess.quotechar or '"', '"', "'", None) if options.quote == '"' else [options.quote]
    escapes = _distinct(guess.escapechar or None, None, "\\") if options.escape is None else [options.escape]
    if (reading := _first_reading(text, options, guess.delimiter, quotes, escapes)) is None:
        raise _ambiguous(f"with the delimiter {guess.delimiter!r}, its rows do not have the same number of values")
    for other in delimiters:
        if other != guess.delimiter:
            second = _first_reading(text, options, other, quotes, escapes)
            if second and second.skipped <= reading.skipped:
                raise _ambiguous(f"its values can be separated by {guess.delimiter!r} and by {other!r}")
    return reading


def _distinct(*choices: str | None) -> list[str | None]:
    return list(dict.fromkeys(choices))


def _first_reading(
    text: str, options: LoadOptions, delimiter: str, quotes: Sequence[str | None], escapes: Sequence[str | None]
) -> _Reading | None:
    for quote in quotes:
        for escape in escapes:
            if len({delimiter, quote, escape}) == 3 or (escape is None and delimiter != quote):
                dialect = RowDialect(delimiter, quote, escape, options.comment, options.nulls)
                reading = _read(text, dialect, options.skip_lines)
                if reading and (quote == options.quote or not any(map(_may_be_quoted, reading.rows))):
                    return reading
    return None


def _read(text: str, dialect: RowDialect, skip_lines: int) -> _Reading | None:
    """Return the rows behind lines of other content; None if not all of them have the same number of values."""
    rows = list(_rows(text, dialect, skip_lines))
    comments = [row for row in rows if dialect.comment is None and row.text.startswith(_COMMENT)]
    others = [row for row in rows if row not in comments]
    if not others or others[-1].problem or (width := len(others[-1].values)) < 2:
        return None
    if comments and any(row.problem or len(row.values) != width for row in comments):
        if any(len(row.values) == width for row in comments):
            return None
        return _read(text, replace(dialect, comment=_COMMENT), skip_lines)
    first = next(number for number, row in enumerate(rows) if len(row.values) == width)
    if any(row.problem or len(row.values) != width for row in rows[first:]):
        return None
    if skip_lines and first:
        return None  # the lines to skip are those that were given
    return _Reading(dialect, rows[first:], rows[first].line - 1 if first else skip_lines)


def _may_be_quoted(row: Row) -> bool:
    return any(value.startswith('"') and number not in row.explicit for number, value in enumerate(row.values))


def _rows(text: str, dialect: RowDialect, skip_lines: int) -> Iterator[Row]:
    start = 0
    for _ in range(skip_lines):
        found = re.compile(r"\r\n|[\r\n]").search(text, start)
        start = found.end() if found else len(text)
    file = io.BytesIO(text[start:].encode())
    try:
        yield from RowReader(file, b"", dialect, skip_lines + 1).rows()  # type: ignore[arg-type]
    except BadValue:
        return  # of 64 MiB


def _has_header(rows: Sequence[Sequence[str]], known: set[str] | None) -> bool:
    first, others = rows[0], rows[1:]
    names = {name for name in first if name}
    if known and (known >= names or known <= names):
        return True
    votes = set()
    for number, name in enumerate(first):
        values = [row[number] for row in others if row[number]]
        if values and all(map(_TYPED.fullmatch, values)):
            votes.add(not _TYPED.fullmatch(name) and bool(name))
    if len(votes) == 1:
        return votes.pop()
    raise _ambiguous("its first row may be names or values")


def _ambiguous(why: str) -> Unreadable:
    return Unreadable(f"its dialect is ambiguous: {why}", _HINT)
