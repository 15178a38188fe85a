"""Convert Python's dates, times and intervals, and their texts, for COPY in text format."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue
from airflow_provider_lakebase.core.bulk.formats.date_text import RANGES, text_check
from airflow_provider_lakebase.core.frame_values import from_numpy, is_null

_FRACTION = re.compile(r":\d\d[.,](\d+)")
# Only types that Postgres can cast to the column's: it may misread the text of others, such as that of a list.
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("date", "timestamp", "timestamptz"), (str, datetime.date)),
    "time": (str, datetime.time, datetime.datetime, datetime.timedelta),
    "timetz": (str, datetime.time, datetime.datetime),
    "interval": (str, datetime.timedelta, datetime.time),
}


def to_date(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into a date column.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column does not keep it exactly
    """
    value = _of_type(column, value)
    check_text(column, value)
    value_read = _read(value, datetime.datetime.fromisoformat)
    if isinstance(value_read, datetime.datetime):
        if value_read.tzinfo is not None or value_read.time() != datetime.time() or has_nanoseconds(value_read):
            raise UnfitValue("a time of day does not fit into a date; make it a date")
        return value_read.date()
    return value


def to_timestamp(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into a timestamp column, with or without a time zone.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column does not keep it exactly
    """
    value = _of_type(column, value)
    check_text(column, value)
    value_read = _read(value, datetime.datetime.fromisoformat)
    _check_zone(column, value, value_read)
    _check_precision(column, value_read)
    return value


def to_time(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into a time column, with or without a time zone.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column does not keep it exactly
    """
    value = _of_type(column, value)
    check_text(column, value)
    value_read = _read(value, datetime.time.fromisoformat)
    if isinstance(value_read, datetime.datetime):
        raise UnfitValue("a date does not fit into a time of day; make it a time")
    _check_zone(column, value, value_read)
    _check_precision(column, value_read)
    return value


def to_interval(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into an interval column.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column does not keep it exactly
    """
    value = _of_type(column, value)
    check_text(column, value)
    _check_precision(column, _read(value, lambda text: text))
    return value


def to_range(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into a column of ranges or multiranges of dates or times.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column does not keep a bound exactly
    """
    check_text(column, value)
    if isinstance(value, Multirange):
        return Multirange([to_range(column, each) for each in value])
    if not isinstance(value, Range) or value.isempty:
        return value
    bounds = replace(column, kind=RANGES[column.kind])
    convert = to_date if bounds.kind == "date" else to_timestamp
    lower, upper = (each if each is None else convert(bounds, each) for each in (value.lower, value.upper))
    return Range(lower, upper, value.bounds)


def check_text(column: Column, value: Any) -> Any:
    """Return a value unchanged; if it is text, first check that the column can store it without loss.

    :param column: the target column
    :param value: any value
    :raises UnfitValue: for text that the column would truncate or round
    """
    if isinstance(value, str) and (check := text_check(column)):
        check(value)
    return value


def has_nanoseconds(value: Any) -> bool:
    """Return whether a pandas or numpy time has digits below a microsecond.

    :param value: any value
    """
    return bool(getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0))


def _of_type(column: Column, value: Any) -> Any:
    """Return a value of a type that the column can have, NumPy's times as Python's."""
    if isinstance(value, _TYPES[column.kind]):
        return value
    if is_null(value):
        return None
    if type(value).__name__ not in ("datetime64", "timedelta64"):
        raise UnfitValue(f"a {type(value).__name__} is no {column.bare}")
    try:
        return _of_type(column, from_numpy(value))
    except psycopg.DataError as error:
        raise UnfitValue(str(error)) from None


def _read(value: Any, parse: Callable[[str], Any]) -> Any:
    """Parse text in ISO form; return any other value unchanged."""
    if not isinstance(value, str):
        return value
    if (digits := _FRACTION.search(value)) and digits[1][6:].strip("0"):
        raise UnfitValue("it has more than six digits of a second, and Postgres keeps six; round it")
    try:
        return parse(value)
    except ValueError:  # another form of Postgres's, or none
        return value


def _check_zone(column: Column, value: Any, value_read: Any) -> None:
    if getattr(value_read, "tzinfo", None) is not None and column.kind in ("timestamp", "time"):
        raise UnfitValue(
            f"a time zone does not fit into {column.bare}; convert the {type(value).__name__} to one without"
        )


def _check_precision(column: Column, value: Any) -> None:
    if has_nanoseconds(value):
        raise UnfitValue("it has nanoseconds, which Postgres does not keep; round it")
    microseconds = int(getattr(value, "microsecond", None) or getattr(value, "microseconds", None) or 0)
    if isinstance(value, str) and (digits := _FRACTION.search(value)):
        microseconds = int(digits[1][:6].ljust(6, "0"))
    precision = column.modifier & 0xFFFF if column.modifier >= 0 else 6
    if precision < 6 and microseconds % 10 ** (6 - precision):
        raise UnfitValue(f"it is more precise than {column.declared}; round it")
