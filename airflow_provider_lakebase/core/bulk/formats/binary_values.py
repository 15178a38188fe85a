"""Decide which Python values may go into a column by binary COPY.

psycopg writes binary COPY by the type of the column, not of the value: an int too large for int4 becomes another
number, a datetime in a date column loses its time. So a batch of rows is sent in binary only if each value is of
exactly the type that its column holds. All other batches are sent as text, which Postgres parses with all its checks.
"""

from __future__ import annotations

import datetime
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, partial
from itertools import filterfalse
from operator import attrgetter
from typing import Any

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue
from airflow_provider_lakebase.core.bulk.formats.json_values import to_json
from airflow_provider_lakebase.core.bulk.formats.number_values import are_numerics
from airflow_provider_lakebase.core.bulk.formats.text_values import text_conversion

_NULL = type(None)
_ZONE = attrgetter("tzinfo")


@dataclass(frozen=True)
class Encoding:
    """How the values of a column are written in binary COPY.

    :param types: Python types that may be written
    :param dumper: Postgres type whose psycopg dumper writes them
    :param fits: tells whether all given values, none of them None, are stored exactly
    :param convert: makes a value into what the dumper gets
    """

    types: frozenset[type]
    dumper: str
    fits: Callable[[Sequence[Any]], bool] | None = None
    convert: Callable[[Any], Any] | None = None

    def takes(self, types: Sequence[type], values: Callable[[], Sequence[Any]]) -> bool:
        """Return whether all values of a column can be written and are stored exactly.

        :param types: exact types of the values, of which there is at least one
        :param values: returns the values, of which some may be None
        """
        # Most columns have values of one type, for which counting is faster than making a set.
        if types.count(types[0]) == len(types):
            if types[0] in self.types:
                return self.fits is None or self.fits(values())
            return types[0] is _NULL
        kinds = set(types)
        if not kinds - {_NULL} <= self.types:
            return False
        if self.fits is None:
            return True
        return self.fits(values() if _NULL not in kinds else [value for value in values() if value is not None])


def binary_encoding(column: Column) -> Encoding | None:
    """Return how the values of a column are written in binary COPY; None if they need text COPY.

    :param column: the target column
    """
    if column.kind == "jsonb":  # its binary form is a version number and the text
        return Encoding(frozenset((dict, list)), "text", convert=lambda value: "\x01" + to_json(value))
    if column.kind == "json":
        return Encoding(frozenset((dict, list)), "text", convert=to_json)
    if column.kind in ("text", "varchar", "bpchar", "citext"):
        length = column.length
        fits = None if length is None else lambda values: max(map(len, values), default=0) <= length
        return Encoding(frozenset((str,)), "text", fits)
    encoding = _BINARY.get(column.kind) if column.element is None else None
    if encoding is None or not column.rounds:
        return encoding
    return replace(encoding, fits=partial(_fit_without_rounding, column, encoding.fits))


def _fit_without_rounding(column: Column, fits: Callable[[Sequence[Any]], bool] | None, values: Sequence[Any]) -> bool:
    if fits is not None and not fits(values):
        return False
    if column.kind == "numeric":
        # Most numbers have as many decimal places as the column, and need no other check.
        values = list(filterfalse(Decimal(1).scaleb(-column.scale).same_quantum, values))
    convert = text_conversion(column)
    try:
        for value in values:
            if convert:
                convert(value)
    except UnfitValue:
        return False
    return True


@cache
def _packer(form: str) -> Callable[..., bytes]:
    return struct.Struct(form).pack


def _in_range(code: str) -> Callable[[Sequence[Any]], bool]:
    def fits(values: Sequence[Any]) -> bool:
        try:
            _packer(f"{len(values)}{code}")(*values)  # the fastest range check of many ints in Python
        except struct.error:
            return False
        return True

    return fits


def _fit_float4(values: Sequence[float]) -> bool:
    """Return whether 4-byte floats hold the values without overflow or underflow."""
    form = f"<{len(values)}f"
    try:
        stored = struct.unpack(form, struct.pack(form, *values))
    except OverflowError:
        return False
    return stored.count(0.0) == values.count(0.0)


def _are_naive(values: Sequence[Any]) -> bool:
    zones = [*map(_ZONE, values)]
    return zones.count(None) == len(zones)


def _are_aware(values: Sequence[Any]) -> bool:
    return all(map(_ZONE, values))


_BINARY = {
    "int2": Encoding(frozenset((int,)), "int2", _in_range("h")),
    "int4": Encoding(frozenset((int,)), "int4", _in_range("i")),
    "int8": Encoding(frozenset((int,)), "int8", _in_range("q")),
    "float4": Encoding(frozenset((float,)), "float4", _fit_float4),
    "float8": Encoding(frozenset((float,)), "float8"),
    "numeric": Encoding(frozenset((Decimal, int)), "numeric", are_numerics),
    "bool": Encoding(frozenset((bool,)), "bool"),
    "date": Encoding(frozenset((datetime.date,)), "date"),
    "time": Encoding(frozenset((datetime.time,)), "time", _are_naive),
    "timestamp": Encoding(frozenset((datetime.datetime,)), "timestamp", _are_naive),
    "timestamptz": Encoding(frozenset((datetime.datetime,)), "timestamptz", _are_aware),
    "interval": Encoding(frozenset((datetime.timedelta,)), "interval"),
    "uuid": Encoding(frozenset((uuid.UUID,)), "uuid"),
    "bytea": Encoding(frozenset((bytes, bytearray, memoryview)), "bytea"),
}
