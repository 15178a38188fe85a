"""Convert Python values for COPY in text format: Postgres reads back the same value, or the value is rejected."""

from __future__ import annotations

import numbers
import struct
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue
from airflow_provider_lakebase.core.bulk.formats.date_text import RANGES
from airflow_provider_lakebase.core.bulk.formats.json_values import to_json
from airflow_provider_lakebase.core.bulk.formats.number_values import (
    check_number,
    to_float,
    to_integer,
    to_numeric,
)
from airflow_provider_lakebase.core.bulk.formats.time_values import (
    check_text,
    to_date,
    to_interval,
    to_range,
    to_time,
    to_timestamp,
)

_MOST_BYTES = {"name": 63, "char": 1}
_OTHER_NUMBERS = (
    *("money", "xid", "xid8", "cid", "oid", "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace"),
    *("regoper", "regoperator", "regproc", "regprocedure", "regrole", "regtype"),
)
_NUMBERS = ("int2", "int4", "int8", "float4", "float8", "numeric")


def text_conversion(column: Column, *, json_strings: bool = False) -> Callable[[Any], Any] | None:
    """Return a function that prepares a value for text COPY; None if psycopg writes every value as it should be.

    The function gets any value but None and raises :class:`UnfitValue` if the column cannot hold it exactly.

    :param column: the target column
    :param json_strings: whether a str for a JSON column is a JSON string; else it is JSON text
    """
    if column.element is not None:
        return partial(_array, column, text_conversion(column.of_elements(), json_strings=json_strings))
    if column.kind in ("json", "jsonb"):
        return partial(_json, json_strings)
    conversion = _TEXT.get(column.kind)
    return partial(conversion, column) if conversion else None


def _array(column: Column, convert: Callable[[Any], Any] | None, value: Any) -> Any:
    # Rounding is checked after COPY.
    if isinstance(value, str) and (column.cuts or (column.modifier >= 0 and not column.rounds)):
        raise UnfitValue(f"the text of an array does not show whether {column.declared} keeps it; make it a list")
    if not isinstance(value, list):
        return check_text(column, value)
    return [_array_element(column, convert, item) for item in value]


def _array_element(column: Column, convert: Callable[[Any], Any] | None, item: Any) -> Any:
    if item is None or isinstance(item, list):
        return _array(column, convert, item)
    converted = convert(item) if convert else item
    # psycopg writes arrays of one type only, but numbers may be of several.
    is_number = isinstance(converted, numbers.Number) and not isinstance(converted, bool)
    return str(converted) if is_number and column.element in _NUMBERS else converted


def _json(json_strings: bool, value: Any) -> str:
    return value if isinstance(value, str) and not json_strings else to_json(value)


def _vector(column: Column, value: Any) -> Any:
    """Write a list, tuple or array of numbers in the text form of pgvector."""
    if isinstance(value, str):
        return value
    try:
        floats = [float(item) for item in value]
        stored = struct.unpack(f"<{len(floats)}f", struct.pack(f"<{len(floats)}f", *floats))
    except (TypeError, ValueError, OverflowError):
        raise UnfitValue("it contains something that is not a number, or a number that is too large") from None
    if any(kept == 0 != given for given, kept in zip(floats, stored, strict=True)):
        raise UnfitValue("it contains a number that is too small")
    return "[" + ",".join(map(repr, floats)) + "]"


def _text(column: Column, value: Any) -> Any:
    if isinstance(value, numbers.Real) and value != value:
        raise UnfitValue("NaN, a missing value in pandas and numpy, is not text; make it None")
    # Other types have several texts, and Python's is not always the one that INSERT stores.
    if isinstance(value, bool) or not isinstance(value, str | int | uuid.UUID):
        raise UnfitValue(f"a {type(value).__name__} is not text; make it a str, or give the column another type")
    if isinstance(value, str) and column.length is not None and len(value) > column.length:
        raise UnfitValue(f"a str of more than {column.length} characters does not fit", "22001")
    return str(value) if isinstance(value, uuid.UUID) else value


def _name(column: Column, value: Any) -> Any:
    most = _MOST_BYTES[column.kind]
    if len(str(value).encode()) > most:
        raise UnfitValue(f"a text of more than {most} bytes does not fit", "22001")
    return str(value) if isinstance(value, uuid.UUID) else value


def _bytes(column: Column, value: Any) -> Any:
    if not isinstance(value, bytes | bytearray | memoryview | str):
        raise UnfitValue(f"a {type(value).__name__} is not bytes")
    return value


_TEXT: dict[str, Callable[[Column, Any], Any]] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "citext", "xml"), _text),
    **dict.fromkeys(("vector", "halfvec"), _vector),
    **dict.fromkeys(("int2", "int4", "int8"), to_integer),
    **dict.fromkeys(("float4", "float8"), to_float),
    **dict.fromkeys(("timestamp", "timestamptz"), to_timestamp),
    **dict.fromkeys(("time", "timetz"), to_time),
    **dict.fromkeys(_MOST_BYTES, _name),
    **dict.fromkeys(_OTHER_NUMBERS, check_number),
    "bytea": _bytes,
    "numeric": to_numeric,
    "date": to_date,
    "interval": to_interval,
    **dict.fromkeys(RANGES, to_range),
}
