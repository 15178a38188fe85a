"""Convert Arrow columns to Python values, each exactly, for the rows that cannot be sent in binary."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue

_NO_PYTHON = (ValueError, OverflowError, KeyError)
_NANOSECONDS = "it has nanoseconds, which Postgres does not keep"
_DAY = 86_400_000_000_000
_END_OF_DAY = "24:00:00"
"""The end of the day, which pyarrow and Python turn into 0:00."""
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_INTERVAL = pa.month_day_nano_interval()


def to_python(values: pa.Array, column: Column, before: int) -> list[Any]:
    """Return values of the Python types that rows are sent from.

    :param values: of one column of a batch
    :param column: the target column
    :param before: rows of the source before the batch, which row numbers include
    :raises BadValue: for a value that Python's types do not hold
    """
    if values.type in (pa.time64("ns"), pa.duration("ns")):  # Python's types would drop the nanoseconds
        values = _to_microseconds(values, column, before)
    try:
        found = _to_list(values)
    except _NO_PYTHON:
        number = next(number for number in range(len(values)) if _has_no_python(values.slice(number, 1))) + 1
        raise BadValue(f"a {values.type} has no Python type that holds it", before + number, column.name) from None
    if values.type == _INTERVAL:
        return [value and _interval_text(value, before + number, column) for number, value in enumerate(found, 1)]
    is_uuid = column.kind == "uuid" and pa.types.is_fixed_size_binary(values.type)
    return [value and uuid.UUID(bytes=value) for value in found] if is_uuid else found


def _to_list(values: pa.Array) -> list[Any]:
    if pa.types.is_time(values.type):
        times = values.cast(pa.time64("ns")).cast(pa.int64()).to_pylist()
        if any(time is not None and time > _DAY for time in times):
            raise ValueError
        return [_END_OF_DAY if time == _DAY else value for time, value in zip(times, values.to_pylist(), strict=True)]
    _check_times(values)
    return list(values.to_pylist(maps_as_pydicts="strict"))


def _to_microseconds(values: pa.Array, column: Column, before: int) -> pa.Array:
    wanted = pa.time64("us") if pa.types.is_time(values.type) else pa.duration("us")
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        lost = [value.value is not None and value.value % 1000 for value in values]
        number = next(number for number, nanoseconds in enumerate(lost, 1) if nanoseconds)
        raise BadValue(_NANOSECONDS, before + number, column.name) from None


def _interval_text(value: Any, number: int, column: Column) -> str:
    if column.kind != "interval":  # JSON would get its numbers
        raise BadValue(f"a {_INTERVAL} is no {column.declared}", number, column.name)
    if value.nanoseconds % 1000:
        raise BadValue(_NANOSECONDS, number, column.name)
    return f"{value.months} mons {value.days} days {value.nanoseconds // 1000} microseconds"


def _check_times(values: pa.Array) -> None:
    """Raise ValueError for a time of 24:00 in lists and structs."""
    kind = values.type
    if pa.types.is_time(kind):
        last = pc.max(values.cast(pa.time64("ns")).cast(pa.int64()))
        if last.is_valid and last.as_py() >= _DAY:
            raise ValueError
    elif any(is_nested(kind) for is_nested in _LISTS):
        _check_times(values.flatten())
    elif pa.types.is_map(kind):
        for part in (values.keys, values.items):
            _check_times(pa.ListArray.from_arrays(values.offsets, part))
    elif pa.types.is_struct(kind):
        for part in values.flatten():
            _check_times(part)


def _has_no_python(values: pa.Array) -> bool:
    try:
        _to_list(values)
    except _NO_PYTHON:
        return True
    return False
