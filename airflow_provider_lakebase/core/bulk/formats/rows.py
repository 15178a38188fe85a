"""Send tuples and dicts by COPY, batch by batch: in binary while every value fits its column's type, then as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import chain, islice, repeat
from operator import itemgetter, length_hint
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.copy import Copy

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Part, SourceFailed, UnfitValue
from airflow_provider_lakebase.core.bulk.formats.binary_rows import BinaryRows
from airflow_provider_lakebase.core.bulk.formats.binary_values import BinaryCheck, Encoding, binary_encoding
from airflow_provider_lakebase.core.bulk.formats.text_values import text_conversion
from airflow_provider_lakebase.core.frame_values import UnfitParameter, from_numpy, is_null

ROWS_PER_BATCH = 500
"""Rows checked together; with more, Python's garbage collector walks through them, which is slower."""

_FRAME_VALUES = frozenset(("NaTType", "NAType", "datetime64", "timedelta64"))
_WITH_OTHER_TEXT = ("json", "jsonb", "float4", "interval")
_CANNOT_BE_WRITTEN = (
    psycopg.DataError,
    psycopg.ProgrammingError,
    ValueError,
    TypeError,
    ArithmeticError,
    BufferError,
    RecursionError,
)

Row = Sequence[Any] | Mapping[str, Any]


class BadRow(NamedTuple):
    """Stands in the rows of a source for one that cannot be read.

    :param bad: what is wrong with it
    :param raw: the row as text
    """

    bad: BadValue
    raw: str


class Rows(Part):
    """Send rows from any iterable, which is read once and never held in memory as a whole.

    :param rows: tuples, lists or other sequences of values, or dicts by the source's names
    :param columns: the target columns of the values, in their order
    :param names: names of the columns in the dicts
    :param others: whether dicts may have other keys, which are skipped; each name must then be in at least one dict
    :param never_skipped: keys that are not skipped
    :param unseen: names of which one dict of several parts must have each; those that it has are removed
    :param label: the source's name in messages
    :param unit: word for a row in messages: ``row`` or ``line``
    :param json_strings: whether a str for a JSON column is a JSON string; else it is JSON text
    :param before: rows of the source that were sent before, which row numbers include
    """

    def __init__(
        self,
        rows: Iterable[Row],
        columns: Sequence[Column],
        *,
        names: Sequence[str] = (),
        others: bool = False,
        never_skipped: Set[str] = frozenset(),
        unseen: set[str] | None = None,
        label: str = "the source",
        unit: str = "row",
        json_strings: bool = False,
        before: int = 0,
    ) -> None:
        self.rows = iter(rows)
        self.columns = columns
        self.names = list(names or (column.name for column in columns))
        self.others = others
        self.never_skipped = never_skipped
        self.unseen = unseen if unseen is not None else set(self.names) if others else set()
        self.is_alone = unseen is None
        self.label = label
        self.unit = unit
        self.json_strings = json_strings
        self.before = before
        self.sent = before
        self._copied_from = before

    def locate(self, row: int) -> tuple[str, int]:
        """Return unit and number of a row in the source.

        :param row: number of the row among those sent, from 1
        """
        return self.unit, self.before + row

    def locate_copied(self, line: int) -> tuple[str, int | None]:
        """Return unit and number of a row in the source.

        :param line: number of the row in the current COPY statement, from 1
        """
        return self.unit, self._copied_from + line

    def copy_to(self, target: CopyTarget) -> None:
        """Send all rows.

        :param target: the relation to write to
        :raises BadValue: for a value that its column cannot hold exactly
        :raises SourceFailed: if the iterable raises
        :raises psycopg.Error: if Postgres rejects a row
        """
        if target.rejects is not None:
            self._copy_good_rows(target)
        else:
            batches = self._batches()
            left = self._copy_binary(batches, target)
            if left is not None:
                self._copy_text(chain([left], batches), target)
        if self.unseen and self.sent and self.is_alone:
            raise BadValue(f"no row has a value for '{min(self.unseen)}', which is in 'columns'", None, unit="row")

    def encodes(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Return whether rows can be sent in binary, each value exactly.

        :param rows: rows of one value per column
        """
        return BinaryCheck(self._encodings())(list(map(tuple, rows)))

    def _batches(self) -> Iterator[list[tuple[Any, ...]]]:
        while batch := self._next():
            yield self._tuples(batch)

    def _next(self) -> list[Any]:
        try:
            return list(islice(self.rows, ROWS_PER_BATCH))
        except BadValue:
            raise
        except Exception as error:
            raise SourceFailed from error

    def _tuples(self, batch: list[Any]) -> list[tuple[Any, ...]]:
        kinds = set(map(type, batch))
        if kinds == {dict} and len(self.names) > 1 and set(map(len, batch)) == {len(self.names)}:
            try:
                found = list(map(itemgetter(*self.names), batch))
            except KeyError:
                pass
            else:
                self.unseen.difference_update(self.names)
                return found
        if kinds in ({list}, {tuple, list}):
            batch = list(map(tuple, batch))
        elif kinds != {tuple}:
            batch = [self._tuple(row, number) for number, row in enumerate(batch, self.sent + 1)]
        return batch

    def _check_lengths(self, batch: Sequence[tuple[Any, ...]]) -> None:
        if set(map(len, batch)) != {len(self.columns)}:
            number, row = next((n, row) for n, row in enumerate(batch) if len(row) != len(self.columns))
            raise self._wrong_length(row, self.sent + 1 + number)

    def _tuple(self, row: Any, number: int) -> tuple[Any, ...]:
        if isinstance(row, Mapping):
            unknown = row.keys() - set(self.names) if self.never_skipped or not self.others else set()
            if self.others:
                unknown &= self.never_skipped
            if unknown:
                reason = (
                    f"it has the key '{min(unknown, key=str)}', which neither the first row nor 'columns' has. "
                    "List all keys, also those that only some rows have, in 'columns'"
                )
                raise BadValue(reason, number)
            if self.unseen:
                self.unseen.difference_update(row)
            return tuple(row.get(name) for name in self.names)
        # A set has no order, and iterating over other objects may not yield their values.
        is_ordered = hasattr(row, "__next__") or (hasattr(row, "__getitem__") and hasattr(row, "__len__"))
        if isinstance(row, str | bytes | bytearray | memoryview) or not is_ordered or hasattr(row, "dtypes"):
            raise BadValue(f"it is a {type(row).__name__}, not a tuple or dict", number)
        try:
            return tuple(row)
        except TypeError:
            raise BadValue(f"it is a {type(row).__name__}, not a tuple or dict", number) from None

    def _copy_binary(self, batches: Iterator[list[Any]], target: CopyTarget) -> list[Any] | None:
        """Send batches while they can be sent in binary; return the first one that cannot, None at the end."""
        encodings = self._encodings()
        fits = BinaryCheck(encodings)
        batch = next(batches, None)
        if batch is None or not fits(batch):
            return batch
        converts = [(n, each.convert) for n, each in enumerate(encodings) if each and each.convert]
        self._copied_from = self.sent
        with target.copy(sql.SQL("FORMAT binary")) as copy:
            rows = BinaryRows(copy, [each.dumper for each in encodings if each])
            while True:
                self._write(batch, converts, rows.write, copy)
                target.progress.add(rows=len(batch))
                batch = next(batches, None)
                if batch is None or not fits(batch):
                    break
            rows.end()
        return batch

    def _encodings(self) -> list[Encoding | None]:
        return [binary_encoding(column) for column in self.columns]

    def _text_converts(self) -> list[tuple[int, Callable[[Any], Any]]]:
        found = [text_conversion(column, json_strings=self.json_strings) for column in self.columns]
        return [(n, convert) for n, convert in enumerate(found) if convert]

    def _copy_text(self, batches: Iterable[list[Any]], target: CopyTarget) -> None:
        encodings, converts = self._encodings(), self._text_converts()
        self._copied_from = self.sent
        with target.copy(sql.SQL("FORMAT text")) as copy:
            for found in batches:
                self._check_lengths(found)
                batch = _without_frame_values(found)
                self._write(batch, self._needed(batch, encodings, converts), partial(_write_text, copy), copy)
                target.progress.add(rows=len(batch))

    def _copy_good_rows(self, target: CopyTarget) -> None:
        """Send rows as text, and leave out those that cannot be sent."""
        fits, converts = BinaryCheck(self._encodings()), self._text_converts()
        needed = [(n, convert) for n, convert in converts if self.columns[n].kind in _WITH_OTHER_TEXT]
        self._copied_from = self.before
        with target.copy(sql.SQL("FORMAT text")) as copy:
            while batch := self._next():
                rows = self._fitting(batch, fits)
                written = _write_until_error(rows, needed, partial(_write_text, copy))[0] if rows is not None else 0
                for number, row in enumerate(batch[written:], self.sent + written + 1):
                    try:
                        self._write_one(row, number, converts, copy)
                    except BadValue as bad:
                        self.reject(target, bad, describe_row(row, self.names), number)
                self.sent += len(batch)
                target.progress.add(rows=len(batch))

    def _fitting(self, batch: list[Any], fits: BinaryCheck) -> list[tuple[Any, ...]] | None:
        """Return the rows of a batch as tuples if each value fits its column; else None."""
        if BadRow in map(type, batch):
            return None
        try:
            rows = self._tuples(batch)
            return rows if fits(rows) else None
        except BadValue:
            return None

    def _write_one(self, row: Any, number: int, converts: Sequence[tuple[int, Any]], copy: Copy) -> None:
        if isinstance(row, BadRow):
            raise BadValue(row.bad.reason, row.bad.number or number, row.bad.column, sqlstate=row.bad.sqlstate)
        if not isinstance(row, tuple | list):
            row = self._tuple(row, number)
        if len(row) != len(self.columns):
            raise self._wrong_length(row, number)
        values = _without_frame_values([row])[0]
        try:
            copy.write_row(_convert(values, converts) if converts else values)
        except _CANNOT_BE_WRITTEN as error:
            raise self._blame(values, converts, number, error, copy) from None

    def _wrong_length(self, row: Sequence[Any], number: int) -> BadValue:
        reason = f"it has {len(row)} values for {len(self.columns)} columns; name those that it has as 'columns'"
        return BadValue(reason, number, sqlstate="22P04")

    def _write(
        self,
        batch: list[Any],
        converts: Sequence[tuple[int, Any]],
        write: Callable[[Iterable[Sequence[Any]]], None],
        copy: Copy,
    ) -> None:
        written, error = _write_until_error(batch, converts, write)
        if error:
            raise self._blame(batch[written], converts, self.sent + written + 1, error, copy)
        self.sent += len(batch)

    def _needed(
        self,
        batch: Sequence[tuple[Any, ...]],
        encodings: Sequence[Encoding | None],
        converts: Sequence[tuple[int, Any]],
    ) -> list[tuple[int, Callable[[Any], Any]]]:
        """Return the conversions that the text of a batch needs: that of other values is what psycopg makes of them."""
        columns = list(zip(*batch, strict=True))
        return [
            (n, convert)
            for n, convert in converts
            if self.columns[n].kind in _WITH_OTHER_TEXT or not (each := encodings[n]) or not each.takes(columns[n])
        ]

    def _blame(
        self, row: Sequence[Any], converts: Sequence[tuple[int, Any]], number: int, error: Exception, copy: Copy
    ) -> Exception:
        """Return the error for the value of a row that cannot be written. The original error may quote it."""
        by_position = dict(converts)
        for position, (column, value) in enumerate(zip(self.columns, row, strict=True)):
            try:
                converted = by_position[position](value) if position in by_position and value is not None else value
                for format in (PyFormat.TEXT, PyFormat.BINARY):
                    Transformer(copy.connection).dump_sequence([converted], [format])
            except _CANNOT_BE_WRITTEN as found:
                return BadValue(_reason(value, found), number, column.name, sqlstate=_sqlstate(value, found))
        return BadValue(f"one of its values is out of the range of Postgres ({type(error).__name__})", number)


def describe_row(row: Any, names: Sequence[str]) -> str:
    """Return a row of any kind as JSON, or as the text it was read from.

    :param row: the row
    :param names: names of its values, if it is a sequence
    """
    if isinstance(row, BadRow):
        return row.raw
    if isinstance(row, tuple | list) and len(row) == len(names):
        row = dict(zip(names, row, strict=True))
    try:
        return json.dumps(row if isinstance(row, Mapping | list | tuple) else [row], default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are not text, or a row that contains itself
        return json.dumps(type(row).__name__)


def _without_frame_values(batch: list[Any]) -> list[Any]:
    """Return rows with the NULLs of pandas and numpy as None, and numpy's times as Python's."""
    kinds = set(map(type, chain.from_iterable(batch)))
    if not any(kind.__name__ in _FRAME_VALUES for kind in kinds):
        return batch
    return [list(map(_plain, row)) for row in batch]


def _plain(value: Any) -> Any:
    if type(value).__name__ not in _FRAME_VALUES or is_null(value):
        return None if is_null(value) else value
    try:
        return from_numpy(value)
    except psycopg.DataError:
        return value  # the column's own check reports the place


def _write_text(copy: Copy, rows: Iterable[Sequence[Any]]) -> None:
    for row in rows:
        copy.write_row(row)


def _write_until_error(
    rows: Sequence[Sequence[Any]],
    converts: Sequence[tuple[int, Any]],
    write: Callable[[Iterable[Sequence[Any]]], None],
) -> tuple[int, Exception | None]:
    """Write rows up to the first one that cannot be written; return their number, and the error if there is one."""
    left = iter(rows)
    try:
        write(map(_convert, left, repeat(converts)) if converts else left)
    except _CANNOT_BE_WRITTEN as error:
        return len(rows) - length_hint(left) - 1, error
    return len(rows), None


def _convert(row: Sequence[Any], converts: Sequence[tuple[int, Any]]) -> list[Any]:
    values = list(row)
    for position, convert in converts:
        if values[position] is not None:
            values[position] = convert(values[position])
    return values


def _sqlstate(value: Any, error: Exception) -> str:
    if isinstance(error, UnfitValue):
        return error.sqlstate
    return "22021" if isinstance(value, str) and isinstance(error, UnicodeError | psycopg.DataError) else "22000"


def _reason(value: Any, error: Exception) -> str:
    kind = type(value).__name__
    if isinstance(error, UnfitValue | UnfitParameter):
        return str(error)
    if isinstance(error, UnicodeError):
        return "text with an unpaired surrogate is not Unicode"
    if isinstance(error, psycopg.DataError) and isinstance(value, str):
        return "text must not contain a null byte"
    if isinstance(error, psycopg.DataError) and isinstance(value, list):
        return "a list must contain values of one type, and text without null bytes"
    return f"a {kind} does not fit the type of the column"
