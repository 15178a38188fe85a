"""Decide which Python values may go into a column by binary COPY.

psycopg writes binary COPY by the type of the column, not of the value: an int too large for int4 becomes another
number, a datetime in a date column loses its time. So a batch of rows is sent in binary only if each value is of
exactly the type that its column holds. All other batches are sent as text, which Postgres parses with all its checks.

msgspec checks most types, several times faster than Python code:
https://jcristharif.com/msgspec/converters.html
"""

from __future__ import annotations

import datetime
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache, partial
from itertools import filterfalse
from operator import itemgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue
from airflow_provider_lakebase.core.bulk.formats.json_values import to_json
from airflow_provider_lakebase.core.bulk.formats.number_values import are_numerics
from airflow_provider_lakebase.core.bulk.formats.text_values import text_conversion

_NULL = type(None)


@dataclass(frozen=True)
class Encoding:
    """How the values of a column are written in binary COPY.

    :param dumper: Postgres type whose psycopg dumper writes them
    :param checked_as: type that msgspec checks them by, with its range
    :param types: exact Python types, where msgspec checks none
    :param fits: tells whether all given values, none of them None, are stored exactly
    :param convert: makes a value into what the dumper gets
    """

    dumper: str
    checked_as: Any = Any
    types: frozenset[type] | None = None
    fits: Callable[[Sequence[Any]], bool] | None = None
    convert: Callable[[Any], Any] | None = None

    def takes(self, values: Sequence[Any]) -> bool:
        """Return whether all values of a column can be written and are stored exactly.

        :param values: values, of which some may be None
        """
        return _matcher(self.checked_as | None)(list(values)) and self.holds(values)

    def holds(self, values: Sequence[Any]) -> bool:
        """Return whether all values of a column pass the checks that msgspec does not make.

        :param values: values, of which some may be None
        """
        if self.types is not None and not set(map(type, values)) - {_NULL} <= self.types:
            return False
        return self.fits is None or self.fits([value for value in values if value is not None])


class BinaryCheck:
    """Tells whether rows can be written in binary COPY, each value exactly.

    :param encodings: how the values of the columns are written; None for a column that needs text COPY
    """

    def __init__(self, encodings: Sequence[Encoding | None]) -> None:
        self._is_possible = None not in encodings
        known = [each for each in encodings if each]
        self._accepts = _matcher(tuple[tuple(each.checked_as | None for each in known)])  # type: ignore[misc]
        self._others = [(itemgetter(n), each) for n, each in enumerate(known) if each.types or each.fits]

    def __call__(self, rows: list[tuple[Any, ...]]) -> bool:
        """Return whether each value of the rows can be written and is stored exactly.

        :param rows: rows with one value for each column
        """
        return (
            self._is_possible
            and self._accepts(rows)
            and all(each.holds(list(map(value, rows))) for value, each in self._others)
        )


@lru_cache(maxsize=1000)
def _matcher(type: Any) -> Callable[[list[Any]], bool]:
    """Return a function that tells whether msgspec accepts all values as this type and leaves each unchanged.

    msgspec also converts values: an int to a float, which may round it, or a str to a datetime. The result is compared
    with the values to find those.
    """
    # msgspec caches what it derives from the field types of a Struct. A bare type is analysed again in each call.
    batch = msgspec.defstruct("Batch", [("values", list[type])])

    def accepts(values: list[Any]) -> bool:
        try:
            return bool(msgspec.convert({"values": values}, batch).values == values)  # type: ignore[attr-defined]
        except Exception:  # whatever it is: the text path reports such a value with its row and column
            return False

    return accepts


def binary_encoding(column: Column) -> Encoding | None:
    """Return how the values of a column are written in binary COPY; None if they need text COPY.

    :param column: the target column
    """
    if column.kind == "jsonb":  # its binary form is a version number and the text
        return Encoding("text", types=frozenset((dict, list)), convert=lambda value: "\x01" + to_json(value))
    if column.kind == "json":
        return Encoding("text", types=frozenset((dict, list)), convert=to_json)
    if column.kind in ("text", "varchar", "bpchar", "citext"):
        return Encoding("text", str if column.length is None else Annotated[str, Meta(max_length=column.length)])
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


def _integer(bits: int) -> Any:
    return Annotated[int, Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


def _fit_float4(values: Sequence[float]) -> bool:
    """Return whether 4-byte floats hold the values without overflow or underflow."""
    form = f"<{len(values)}f"
    try:
        stored = struct.unpack(form, struct.pack(form, *values))
    except OverflowError:
        return False
    return stored.count(0.0) == values.count(0.0)


_BINARY = {
    "int2": Encoding("int2", _integer(16)),
    "int4": Encoding("int4", _integer(32)),
    "int8": Encoding("int8", _integer(64)),
    "float4": Encoding("float4", types=frozenset((float,)), fits=_fit_float4),
    "float8": Encoding("float8", float),
    "numeric": Encoding("numeric", types=frozenset((Decimal, int)), fits=are_numerics),
    "bool": Encoding("bool", bool),
    "date": Encoding("date", datetime.date),
    "time": Encoding("time", Annotated[datetime.time, Meta(tz=False)]),
    "timestamp": Encoding("timestamp", Annotated[datetime.datetime, Meta(tz=False)]),
    "timestamptz": Encoding("timestamptz", Annotated[datetime.datetime, Meta(tz=True)]),
    "interval": Encoding("interval", datetime.timedelta),
    "uuid": Encoding("uuid", uuid.UUID),
    "bytea": Encoding("bytea", types=frozenset((bytes, bytearray, memoryview))),
}
