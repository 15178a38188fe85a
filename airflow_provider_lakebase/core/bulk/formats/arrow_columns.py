"""Convert Arrow columns to the types whose binary form the table's columns read, or leave them to row-by-row COPY."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_lakebase.core.bulk.catalog import Column

_LAST_YEAR = 9999
"""The last year that Arrow and Postgres write alike."""
_UTC = ("UTC", "Etc/UTC", "GMT", "Etc/GMT")
_ARROW_TYPES: dict[str, pa.DataType] = {
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "citext": pa.string(),
    "any text": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "bytea": pa.binary(),
    "uuid": pa.binary(16),
}
"""The Arrow type that pgpq writes in the binary form of each Postgres type."""


class Unconvertible(Exception):
    """A column has no certain conversion, so its batch must be sent row by row."""


def to_column(values: pa.Array, column: Column, time_zone: str) -> pa.Array:
    """Return values in the Arrow type whose binary form the column reads.

    :param values: of one column of a batch
    :param column: the target column
    :param time_zone: of the session, which applies to timestamps without one
    :raises Unconvertible: for a type without a certain conversion
    :raises pyarrow.ArrowInvalid: for a value that the conversion would change
    """
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):  # NULL is written the same for every type
        return values.cast(pa.string())
    if column.element is not None:
        return _to_array_column(values, column)
    if column.kind == "numeric":
        return _to_numeric(values, column)
    wanted = _ARROW_TYPES.get(column.kind)
    if wanted is None or column.rounds or not _is_certain(values.type, wanted):
        raise Unconvertible
    return _cast(values, wanted, column, time_zone)


def to_text(values: pa.Array) -> pa.Array:
    """Return values that :func:`to_column` converted as the text that the column reads.

    :param values: in a type whose binary form the column reads
    :raises Unconvertible: for a type whose text Arrow and Postgres write in different ways
    """
    types = pa.types
    if types.is_date(values.type) or types.is_timestamp(values.type):
        years = pc.min_max(pc.year(values)).as_py()
        if years["min"] is not None and not 1 <= years["min"] <= years["max"] <= _LAST_YEAR:
            raise Unconvertible
    elif types.is_binary(values.type) or types.is_fixed_size_binary(values.type) or types.is_list(values.type):
        raise Unconvertible
    return values.cast(pa.string())


def _cast(values: pa.Array, wanted: pa.DataType, column: Column, time_zone: str) -> pa.Array:
    if pa.types.is_timestamp(wanted) and wanted.tz and values.type.tz is None:
        if time_zone not in _UTC:  # Arrow's time zones have no rules after 2037
            raise Unconvertible
        values = pc.assume_timezone(values, "UTC")
    cast = values.cast(wanted)
    if pa.types.is_timestamp(wanted):
        _check_finite(cast.cast(pa.int64()), 2**63 - 1)
    elif pa.types.is_date32(wanted):
        _check_finite(cast.cast(pa.int32()), 2**31 - 1)
    if pa.types.is_float32(wanted):
        _check_float4(values, cast)
    if column.kind in ("varchar", "bpchar") and column.length is not None:
        longest = pc.max(pc.utf8_length(cast)).as_py()
        if longest is not None and longest > column.length:
            raise Unconvertible
    return cast


def _is_certain(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a checked cast from one type to the other preserves every value."""
    types = pa.types
    if given == wanted:
        return True
    if types.is_integer(wanted):
        return bool(types.is_integer(given))
    if types.is_floating(wanted):
        return bool(types.is_integer(given) or types.is_floating(given))
    if types.is_string(wanted):
        return bool(types.is_large_string(given) or types.is_string_view(given))
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(given) and (wanted.tz is not None or given.tz is None))
    if types.is_binary(wanted):
        return bool(types.is_large_binary(given) or types.is_fixed_size_binary(given))
    families = (types.is_date, types.is_time, types.is_duration)
    return any(family(given) and family(wanted) for family in families)


def _check_finite(values: pa.Array, infinity: int) -> None:
    """Reject the extreme values, which DuckDB uses for infinity and pgpq cannot write."""
    found = pc.min_max(values).as_py()
    if found["max"] == infinity or (found["min"] is not None and found["min"] <= -infinity):
        raise Unconvertible


def _check_float4(values: pa.Array, cast: pa.Array) -> None:
    """Reject values that a 4-byte float turns into zero or infinity."""
    zero_or_infinite = pc.or_(pc.equal(cast, 0), pc.is_inf(cast))
    if pc.any(pc.and_(zero_or_infinite, pc.not_equal(values.cast(pa.float64()), cast.cast(pa.float64())))).as_py():
        raise Unconvertible


def _to_numeric(values: pa.Array, column: Column) -> pa.Array:
    if pa.types.is_integer(values.type):
        values = values.cast(pa.decimal128(20, 0))
    if not pa.types.is_decimal128(values.type):
        raise Unconvertible
    if column.modifier >= 0:
        scale = min(column.scale, values.type.scale)
        if scale < 0:  # Arrow does not check a cast to it
            raise Unconvertible
        values = values.cast(pa.decimal128(38, scale))
    return values


def _to_array_column(values: pa.Array, column: Column) -> pa.Array:
    # The binary form of an array names its element type, and pgpq names text for all strings.
    element = _ARROW_TYPES.get(column.element or "")
    certain = ("int2", "int4", "int8", "float8", "bool", "text")
    if column.element not in certain or not pa.types.is_list(values.type) or values.type.value_type != element:
        raise Unconvertible
    return values
