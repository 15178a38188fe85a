"""JSON files that hold one array of objects, read object by object."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES, Unreadable, open_as_text
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.copy import BadValue, Part
from airflow_provider_lakebase.core.bulk.copy_out import BlockWriter, NextFile
from airflow_provider_lakebase.core.bulk.formats.json_decoding import DECODER, NOT_AN_OBJECT, NOT_JSON, NOT_JSON_STATE
from airflow_provider_lakebase.core.bulk.formats.json_lines import unquote, write_objects
from airflow_provider_lakebase.core.bulk.formats.row_parts import dicts_part, names_of_dicts
from airflow_provider_lakebase.core.bulk.formats.rows import BadRow
from airflow_provider_lakebase.core.bulk.options import ExportOptions, LoadOptions
from airflow_provider_lakebase.core.bulk.progress import Progress

_SPACE = re.compile(r"[ \t\r\n]*")
_LONGEST_TOKEN = 16
"""Characters of the longest token other than a string or number, such as ``-Infinity``, or of an escape."""
_LENIENT = json.JSONDecoder(parse_float=str, parse_int=str, object_pairs_hook=list)
"""Finds the end of a value that is JSON but for what :data:`DECODER` rejects."""
_NO_ARRAY_HINT = (
    "The file must hold one array of objects: [{…}, {…}]. If each line is an object, set format='jsonl'; if the array "
    "is a member of an object, extract it first."
)


def open_part(file: IO[bytes], label: str, mapper: ColumnMapper) -> Part:
    """Return the part that sends the objects of a file; the columns come from the first one.

    :param file: open for reading bytes
    :param label: its name in messages
    :param mapper: maps names to the table's columns
    :raises Unreadable: if it does not begin with an array, or has another encoding than UTF-8
    """
    rows = read_json_array(open_as_text(file), yields_bad=mapper.options.rejects)
    return dicts_part(rows, label, mapper, json_strings=True)


def read_names(file: IO[bytes], options: LoadOptions) -> list[str]:
    """Return the names that ``columns`` lists, or else those of the first object of a file.

    :param file: open for reading bytes
    :param options: of the load
    :raises BadValue: if the first element is not an object
    :raises Unreadable: if the file does not begin with an array
    """
    return names_of_dicts(options, next(read_json_array(open_as_text(file)), {}))


def write_query(
    connection: psycopg.Connection[Any],
    query: sql.Composable,
    next_file: NextFile,
    options: ExportOptions,
    progress: Progress,
) -> int:
    """Write the rows of a query as an array, each on a line of its own.

    :param connection: an open session
    :param query: the query
    :param next_file: opens each file
    :param options: ``max_rows_per_file`` has an effect
    :param progress: counts rows and bytes
    :returns: rows written
    """
    return write_objects(connection, query, next_file, options, progress, _ArrayWriter)


class _ArrayWriter(BlockWriter):
    """Write objects as the elements of an array."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._before = b"[\n"

    def write(self, block: bytes) -> None:
        self.file.write(self._before + unquote(block).removesuffix(b"\n").replace(b"\n", b",\n"))
        self._before = b",\n"

    def finish(self) -> None:
        self.file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


def read_json_array(file: io.RawIOBase, *, yields_bad: bool = False) -> Iterator[Any]:
    """Yield the objects of an array as dicts, with the values that JSON Lines have.

    :param file: UTF-8 text, open for reading bytes
    :param yields_bad: whether to yield a :class:`BadRow` for an element that is not an object. What is no JSON cannot
        be left out: nothing tells where the next element begins
    :raises Unreadable: if there is no array, or something follows it
    :raises BadValue: for an element that is not an object
    """
    text = _Text(file)
    if text.peek() != "[":
        raise Unreadable("it does not begin with an array", _NO_ARRAY_HINT)
    number = 0
    text.skip()
    while number or text.peek() != "]":
        number += 1
        yield _read_object(text, number, yields_bad)
        if text.peek() != ",":
            break
        text.skip()
    if text.peek() != "]":
        raise BadValue(f"{NOT_JSON}, or the array is not closed", number, unit="row", sqlstate=NOT_JSON_STATE)
    text.skip()
    if text.peek() or text.is_broken:
        raise Unreadable("something follows its array", _NO_ARRAY_HINT)


def _read_object(text: _Text, number: int, yields_bad: bool) -> Any:
    text.peek()
    try:
        value, raw = text.decode(DECODER)
        if isinstance(value, dict):
            return value
        bad = BadValue(NOT_AN_OBJECT, number, unit="row")
    except BadValue as found:
        bad, raw = BadValue(found.reason, number, unit="row"), ""
    except (ValueError, RecursionError):
        raise BadValue(NOT_JSON, number, unit="row", sqlstate=NOT_JSON_STATE) from None
    if not yields_bad:
        raise bad
    try:
        return BadRow(bad, raw or text.decode(_LENIENT)[1])
    except (ValueError, RecursionError):
        raise BadValue(NOT_JSON, number, unit="row", sqlstate=NOT_JSON_STATE) from None


class _Text:
    """The text of a file, of which only the value that is being read is held in memory.

    ``is_broken`` says whether it ended at bytes that are not UTF-8.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._position = 0
        self._ended = False
        self.is_broken = False

    def peek(self) -> str:
        """Return the next character that is no white space; an empty text at the end."""
        while True:
            self._position = _SPACE.match(self._text, self._position).end()  # type: ignore[union-attr] # always matches
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more(BLOCK_BYTES):
                return ""

    def skip(self) -> None:
        """Go past the character that :meth:`peek` returned."""
        self._position += 1

    def decode(self, decoder: json.JSONDecoder) -> tuple[Any, str]:
        """Return the next value and its text, and go past it.

        :param decoder: decodes it
        :raises BadValue: for a value that is not exact
        :raises ValueError: for what is not JSON
        """
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                # Twice as much each time, so that a long value is not decoded again for every block of it.
                if not self._may_be_cut(error) or not self._read_more(len(self._text) - self._position):
                    raise
            else:
                raw = "" if isinstance(value, dict) else self._text[self._position : end]
                self._position = end
                return value, raw

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether an error may be due to the end of the text that was read so far."""
        return error.msg.startswith("Unterminated string") or error.pos + _LONGEST_TOKEN > len(self._text)

    def _read_more(self, size: int) -> bool:
        if self._ended:
            return False
        data = self._file.read(max(size, BLOCK_BYTES))
        self._ended = not data
        try:
            more = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            # What comes before it is read, so that the error names the right element.
            more = error.object[: error.start].decode()
            self._ended = self.is_broken = True
        self._text = self._text[self._position :] + more
        self._position = 0
        return bool(more) or not self._ended
