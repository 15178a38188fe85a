"""The Postgres type for each Arrow type, for creating tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa


def postgres_type(kind: pa.DataType) -> str | None:
    """Return the Postgres type for an Arrow type; None if there is none, or if the column has no values to tell it.

    :param kind: the Arrow type. Lists become arrays; structs, maps and lists of lists become ``jsonb``
    """
    types = pa.types
    if has_no_values(kind):
        return None
    if isinstance(kind, pa.UuidType):
        return "uuid"
    if isinstance(kind, pa.BaseExtensionType):
        return postgres_type(kind.storage_type)
    if types.is_dictionary(kind):
        return postgres_type(kind.value_type)
    if _is_list(kind):
        element = postgres_type(kind.value_type)
        return f"{element}[]" if element and not types.is_nested(kind.value_type) else "jsonb"
    if types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    return next((name for is_it, name in _POSTGRES_TYPES if is_it(kind)), None)


def has_no_values(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is that of a column with no values: only NULLs, or empty lists.

    :param kind: the Arrow type
    """
    return has_no_values(kind.value_type) if _is_list(kind) else pa.types.is_null(kind)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


_POSTGRES_TYPES: Sequence[tuple[Callable[[pa.DataType], bool], str]] = (
    (pa.types.is_boolean, "boolean"),
    (lambda kind: kind in (pa.int8(), pa.int16(), pa.uint8()), "smallint"),
    (lambda kind: kind in (pa.int32(), pa.uint16()), "integer"),
    (lambda kind: kind in (pa.int64(), pa.uint32()), "bigint"),
    (pa.types.is_uint64, "numeric(20,0)"),
    (lambda kind: kind in (pa.float16(), pa.float32()), "real"),
    (pa.types.is_float64, "double precision"),
    (lambda kind: kind in (pa.string(), pa.large_string(), pa.string_view()), "text"),
    (lambda kind: kind in (pa.binary(), pa.large_binary()) or pa.types.is_fixed_size_binary(kind), "bytea"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "interval"),
    (pa.types.is_interval, "interval"),
    (lambda kind: pa.types.is_struct(kind) or pa.types.is_map(kind), "jsonb"),
)
