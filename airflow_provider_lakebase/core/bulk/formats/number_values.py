"""Convert Python's numbers for COPY in text format, and reject those that a column would round."""

from __future__ import annotations

import math
import numbers
import struct
import uuid
from collections.abc import Sequence
from decimal import Decimal, DecimalException
from typing import Any

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue

_INTEGER_DIGITS = 19
_FLOAT_DIGITS = 17
_NUMERIC_DIGITS = 131_072
"""Digits that a numeric without limits keeps before the point."""
_NUMERIC_SCALE = 16_383
"""Digits that it keeps behind it."""


def check_number(column: Column, value: Any) -> Any:
    """Return a value unchanged, or refuse one of a type whose text Postgres could read as a number.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: for a UUID, whose text may be digits only
    """
    if isinstance(value, uuid.UUID):
        raise UnfitValue(f"a {type(value).__name__} is no {column.bare}")
    return value


def to_integer(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into an integer column.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column would round it
    """
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    # One with more digits fits no integer, and int() of 1E+9999999 takes long.
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _INTEGER_DIGITS and value == int(value):
        return int(value)
    return check_number(column, value)


def to_float(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into a float column.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column would round it
    """
    if column.kind == "float4" and isinstance(value, float):
        return _to_float4(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral | Decimal):
        return check_number(column, value)
    number = Decimal(int(value)) if isinstance(value, numbers.Integral) else value
    is_integral = number is not value
    if not number.is_finite():
        return value
    try:
        wide = float(number)
        if column.kind == "float4" and is_integral:
            wide = float(struct.unpack("<f", struct.pack("<f", wide))[0])
    except OverflowError:
        raise UnfitValue("a number is out of the column's range", "22003") from None
    # Every float has several texts of up to 17 digits; Postgres and Python may choose different ones.
    _, digits, exponent = number.as_tuple()
    is_text_of_float = len(digits) == _FLOAT_DIGITS or (exponent != 0 and len(digits) < _FLOAT_DIGITS)
    # For a Decimal, wide is an 8-byte float, whatever the column holds.
    is_exact = wide == number and (is_integral or column.kind == "float8")
    is_shortest_text = Decimal(repr(wide)) == number or (is_text_of_float and not is_integral)
    if math.isinf(wide) or not (is_exact or is_shortest_text):
        raise UnfitValue(f"a {type(value).__name__} has more digits than the column keeps")
    return value


def _to_float4(value: float) -> float:
    """Return the nearest 4-byte float, which may be another one than that nearest to the text of the 8-byte float."""
    try:
        (nearest,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return value  # Postgres rejects it, as what is rounded to zero
    return float(nearest) if nearest else value


def to_numeric(column: Column, value: Any) -> Any:
    """Convert a value for text COPY into a numeric column.

    :param column: the target column
    :param value: any value but None
    :raises UnfitValue: if the column would round it
    """
    check_number(column, value)
    if isinstance(value, Decimal) and not are_numerics((value,)):
        raise UnfitValue("a number is out of the column's range", "22003")
    if column.modifier >= 0 and not isinstance(value, bool) and not _has_scale(column, value):
        raise UnfitValue(f"a {type(value).__name__} has more decimal places than {column.declared} keeps; round it")
    return value


def _has_scale(column: Column, value: Any) -> bool:
    if isinstance(value, numbers.Integral):
        value = Decimal(int(value))
    text = repr(float(value)) if isinstance(value, numbers.Real) else str(value)
    try:
        number = value if type(value) is Decimal else Decimal(text)
    except DecimalException:
        try:
            number = Decimal(int(text, 0))  # 0x10
        except ValueError:  # Postgres rejects it
            return True
    if not number.is_finite():
        return True
    _, digits, exponent = number.as_tuple()
    excess = -int(exponent) - column.scale
    return excess <= 0 or not any(digits[-excess:])


def are_numerics(values: Sequence[Decimal | int]) -> bool:
    """Return whether a numeric can hold all values; psycopg before 3.3.6 corrupts the ones that do not fit.

    :param values: decimals and ints
    """
    exponents = [value.adjusted() for value in values if type(value) is not int]  # type: ignore[union-attr]
    return not exponents or (-_NUMERIC_SCALE <= min(exponents) and max(exponents) < _NUMERIC_DIGITS)
