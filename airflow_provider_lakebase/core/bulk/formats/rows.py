"""Tuples and dicts into COPY, batch by batch: binary as long as values are what their columns hold, then text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Source, SourceFailed
from airflow_provider_lakebase.core.bulk.formats.values import UnfitValue, binary_encoding, text_conversion
from airflow_provider_lakebase.core.frame_values import from_numpy, is_null

ROWS_PER_BATCH = 200
"""Rows looked at together; more are slower, since Python's garbage collector then walks through them."""

_NONE = type(None)
_FRAME_VALUES = frozenset(("NaTType", "NAType", "datetime64", "timedelta64"))
_CANNOT_BE_WRITTEN = (psycopg.DataError, psycopg.ProgrammingError, ValueError, TypeError, OverflowError)

Row = Sequence[Any] | Mapping[str, Any]


class Rows(Source):
    """Send rows from any iterable, which is read once and never held as a whole.

    :param rows: tuples, lists or other sequences of values, or dicts by the source's names
    :param columns: the columns that the values are for
    :param names: the columns' names in the source, for dicts
    :param others: whether dicts may hold other names, which are left out, as long as each name is in one of them
    :param label: what the source is called in messages
    :param unit: what one row is called: ``row``, or ``line``
    :param json_strings: whether a str for a JSON column is a JSON string; else it is JSON itself
    :param before: rows of the source that went another way
    """

    def __init__(
        self,
        rows: Iterable[Row],
        columns: Sequence[Column],
        *,
        names: Sequence[str] = (),
        others: bool = False,
        label: str = "the source",
        unit: str = "row",
        json_strings: bool = False,
        before: int = 0,
    ) -> None:
        self.rows = iter(rows)
        self.columns = columns
        self.names = list(names or (column.name for column in columns))
        self.others = others
        self.unseen = set(self.names) if others else set()
        self.label = label
        self.unit = unit
        self.json_strings = json_strings
        self.sent = before

    def copy_to(self, destination: CopyTarget) -> None:
        """Send all rows.

        :param destination: where to
        :raises BadValue: for a value that its column cannot hold exactly
        :raises psycopg.Error: as Postgres refuses a row
        """
        batches = self._batches()
        left = self._copy_binary(batches, destination)
        if left is not None:
            self._copy_text(chain([left], batches), destination)
        if self.unseen and self.sent:
            raise BadValue(f"none has a value for '{min(self.unseen)}', which columns names", None, unit="row")

    def encodes(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Return whether rows can go as binary, each value exactly.

        :param rows: rows of as many values as there are columns
        """
        encodings = [binary_encoding(column) for column in self.columns]
        return None not in encodings and self._fits(rows, encodings)

    def _batches(self) -> Iterator[list[Sequence[Any]]]:
        while batch := self._next():
            yield self._sequences(batch)

    def _next(self) -> list[Any]:
        try:
            return list(islice(self.rows, ROWS_PER_BATCH))
        except BadValue:
            raise
        except Exception as error:
            raise SourceFailed from error

    def _sequences(self, batch: list[Any]) -> list[Sequence[Any]]:
        kinds = set(map(type, batch))
        if kinds == {dict} and len(self.names) > 1 and set(map(len, batch)) == {len(self.names)}:
            try:
                found = list(map(itemgetter(*self.names), batch))
            except KeyError:
                pass
            else:
                self.unseen.clear()
                return found
        if not kinds <= {tuple, list}:
            batch = [self._sequence(row, number) for number, row in enumerate(batch, self.sent + 1)]
        if set(map(len, batch)) != {len(self.columns)}:
            number, row = next((n, row) for n, row in enumerate(batch) if len(row) != len(self.columns))
            reason = f"it has {len(row)} values for {len(self.columns)} columns; name those that it has as 'columns'"
            raise BadValue(reason, self.sent + 1 + number)
        return batch

    def _sequence(self, row: Any, number: int) -> Sequence[Any]:
        if isinstance(row, Mapping):
            if not self.others and (unknown := row.keys() - set(self.names)):
                reason = (
                    f"it has a value for '{min(unknown)}', which is none of the columns; name them all as 'columns'"
                )
                raise BadValue(reason, number)
            if self.unseen:
                self.unseen -= row.keys()
            return [row.get(name) for name in self.names]
        # A set has no order, and iterating over an object of other kinds may give something else than its values.
        is_ordered = hasattr(row, "__next__") or (hasattr(row, "__getitem__") and hasattr(row, "__len__"))
        if isinstance(row, str | bytes | bytearray | memoryview) or not is_ordered or hasattr(row, "dtypes"):
            raise BadValue(f"it is a {type(row).__name__}, not a tuple or dict", number)
        try:
            return tuple(row)
        except TypeError:
            raise BadValue(f"it is a {type(row).__name__}, not a tuple or dict", number) from None

    def _copy_binary(self, batches: Iterator[list[Any]], destination: CopyTarget) -> list[Any] | None:
        """Send batches as long as they can go as binary; return the first that cannot."""
        encodings = [binary_encoding(column) for column in self.columns]
        batch = next(batches, None)
        if batch is None or None in encodings or not self._fits(batch, encodings):
            return batch
        converts = [(n, each.convert) for n, each in enumerate(encodings) if each and each.convert]
        with destination.copy(sql.SQL("FORMAT binary"), first=self.sent) as copy:
            copy.set_types([each.dumper for each in encodings if each])
            while batch is not None and self._fits(batch, encodings):
                self._write(batch, converts, copy.write_row)
                destination.progress.add(rows=len(batch))
                batch = next(batches, None)
        return batch

    def _copy_text(self, batches: Iterable[list[Any]], destination: CopyTarget) -> None:
        found = [text_conversion(column, json_strings=self.json_strings) for column in self.columns]
        converts = [(n, convert) for n, convert in enumerate(found) if convert]
        with destination.copy(sql.SQL("FORMAT text"), first=self.sent) as copy:
            for batch in batches:
                self._write(_without_frame_values(batch), converts, copy.write_row)
                destination.progress.add(rows=len(batch))

    def _write(self, batch: list[Any], converts: Sequence[tuple[int, Any]], write_row: Any) -> None:
        written = 0
        try:
            for row in batch:
                write_row(_convert(row, converts) if converts else row)
                written += 1
        except _CANNOT_BE_WRITTEN as error:
            raise self._blame(batch[written], converts, self.sent + written + 1, error) from None
        self.sent += written

    def _fits(self, batch: Sequence[Sequence[Any]], encodings: Sequence[Any]) -> bool:
        for encoding, column in zip(encodings, zip(*batch, strict=True), strict=True):
            values: Sequence[Any] = column
            types = [*map(type, values)]
            # Mostly all values are of one type, and a comparison is faster than a set.
            if types != [types[0]] * len(types) or types[0] not in encoding.types:
                if not encoding.types.issuperset(each for each in set(types) if each is not _NONE):
                    return False
                values = [value for value in values if value is not None]
            if encoding.fits is not None and not encoding.fits(values):
                return False
        return True

    def _blame(
        self, row: Sequence[Any], converts: Sequence[tuple[int, Any]], number: int, error: Exception
    ) -> Exception:
        """Return which value of a row cannot be written; the original error may quote it."""
        by_position = dict(converts)
        for position, (column, value) in enumerate(zip(self.columns, row, strict=True)):
            try:
                converted = by_position[position](value) if position in by_position and value is not None else value
                for format in (PyFormat.TEXT, PyFormat.BINARY):
                    Transformer().dump_sequence([converted], [format])
            except _CANNOT_BE_WRITTEN as found:
                return BadValue(_reason(value, found), number, column.name)
        return BadValue(f"one of its values is beyond what Postgres holds ({type(error).__name__})", number)


def _without_frame_values(batch: list[Any]) -> list[Any]:
    """Return the rows with the NULLs of pandas and numpy as None, and numpy's times as Python's."""
    kinds = {type(value) for row in batch for value in row}
    if not any(kind.__name__ in _FRAME_VALUES for kind in kinds):
        return batch
    return [list(map(_plain, row)) for row in batch]


def _plain(value: Any) -> Any:
    if type(value).__name__ not in _FRAME_VALUES or is_null(value):
        return None if is_null(value) else value
    try:
        return from_numpy(value)
    except psycopg.DataError:
        return value  # the column's own check names the place


def _convert(row: Sequence[Any], converts: Sequence[tuple[int, Any]]) -> list[Any]:
    values = list(row)
    for position, convert in converts:
        if values[position] is not None:
            values[position] = convert(values[position])
    return values


def _reason(value: Any, error: Exception) -> str:
    kind = type(value).__name__
    if isinstance(error, UnfitValue):
        return str(error)
    if isinstance(error, UnicodeError):
        return "text with half of a surrogate pair is not Unicode"
    if isinstance(error, psycopg.DataError) and isinstance(value, str):
        return "text must hold no null byte"
    if isinstance(error, psycopg.DataError) and isinstance(value, list):
        return "a list must hold values of one type, and text without null bytes"
    return f"a {kind} is none of the values that the column holds"
