"""Decide how a Python value gets into a column: exactly, or not at all.

psycopg writes binary COPY by what the column is, not by what the value is: an int too large for an int4 column comes
out as another number, a datetime loses its time in a date column. So a batch of rows goes as binary only when each
value is of the very type its column holds; every other batch goes as text, which Postgres reads with all its checks.
"""

from __future__ import annotations

import datetime
import json
import math
import numbers
import re
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException
from functools import partial
from typing import Any

from airflow_provider_lakebase.core.bulk.catalog import Column

_NAME_BYTES = 63

_NUMERIC_DIGITS = 131_072
"""Digits that a numeric without limits keeps before the point."""
_NUMERIC_SCALE = 16_383
"""Digits that it keeps behind it."""


class UnfitValue(ValueError):
    """Say why a column cannot hold a value, in words that do not hold it."""


@dataclass(frozen=True)
class Encoding:
    """Say how a column's values go as binary.

    :param types: the Python types that may
    :param dumper: Postgres type whose psycopg dumper writes them
    :param fits: whether all of some values, none of them None, come out as they are
    :param convert: what to hand to the dumper in place of a value
    """

    types: frozenset[type]
    dumper: str
    fits: Callable[[Sequence[Any]], bool] | None = None
    convert: Callable[[Any], Any] | None = None


def binary_encoding(column: Column) -> Encoding | None:
    """Return how the column's values go as binary; None when they only go as text.

    :param column: target of the values
    """
    if column.kind == "jsonb":  # its binary form is the text behind the number of a version
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
    convert = _TEXT[column.kind]
    try:
        for value in values:
            convert(column, value)
    except UnfitValue:
        return False
    return True


def _in_range(code: str) -> Callable[[Sequence[Any]], bool]:
    def fits(values: Sequence[Any]) -> bool:
        try:
            struct.pack(f"{len(values)}{code}", *values)  # the fastest look at all of them that Python has
        except struct.error:
            return False
        return True

    return fits


def _fits_float4(values: Sequence[float]) -> bool:
    return all(map(_is_float4, values))


def _is_float4(value: float) -> bool:
    """Return whether the value is neither too large nor too small for a float of 4 bytes."""
    try:
        (stored,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return False
    return bool((stored == 0) == (value == 0))


def _are_numerics(values: Sequence[Decimal | int]) -> bool:
    """Return whether no value is larger or smaller than any numeric, for which psycopg before 3.3.6 sends another."""
    return all(type(value) is int or -_NUMERIC_SCALE <= value.adjusted() < _NUMERIC_DIGITS for value in values)  # type: ignore[union-attr]


def _are_naive(values: Sequence[Any]) -> bool:
    return all(value.tzinfo is None for value in values)


def _are_aware(values: Sequence[Any]) -> bool:
    return all(value.tzinfo is not None for value in values)


_BINARY = {
    "int2": Encoding(frozenset((int,)), "int2", _in_range("h")),
    "int4": Encoding(frozenset((int,)), "int4", _in_range("i")),
    "int8": Encoding(frozenset((int,)), "int8", _in_range("q")),
    "float4": Encoding(frozenset((float,)), "float4", _fits_float4),
    "float8": Encoding(frozenset((float,)), "float8"),
    "numeric": Encoding(frozenset((Decimal, int)), "numeric", _are_numerics),
    "bool": Encoding(frozenset((bool,)), "bool"),
    "date": Encoding(frozenset((datetime.date,)), "date"),
    "time": Encoding(frozenset((datetime.time,)), "time", _are_naive),
    "timestamp": Encoding(frozenset((datetime.datetime,)), "timestamp", _are_naive),
    "timestamptz": Encoding(frozenset((datetime.datetime,)), "timestamptz", _are_aware),
    "interval": Encoding(frozenset((datetime.timedelta,)), "interval"),
    "uuid": Encoding(frozenset((uuid.UUID,)), "uuid"),
    "bytea": Encoding(frozenset((bytes, bytearray, memoryview)), "bytea"),
}


def text_conversion(column: Column, *, json_strings: bool = False) -> Callable[[Any], Any] | None:
    """Return what makes a value into one whose text Postgres reads back as that value; None where every value is one.

    The function raises :class:`UnfitValue` for what the column cannot hold exactly.

    :param column: target of the values
    :param json_strings: whether a str for a JSON column is a JSON string; else it is JSON itself
    """
    if column.element is not None:
        return partial(_array, column, text_conversion(column.of_elements(), json_strings=json_strings))
    if column.kind in ("json", "jsonb"):
        return partial(_json, json_strings)
    conversion = _TEXT.get(column.kind)
    return partial(conversion, column) if conversion else None


def _array(column: Column, convert: Callable[[Any], Any] | None, value: Any) -> Any:
    if isinstance(value, str) and column.modifier >= 0 and not column.rounds:  # what rounds is looked at afterwards
        raise UnfitValue(f"the text of an array does not show whether {column.declared} keeps it; make it a list")
    if not isinstance(value, list):
        return _check_text(column, value)
    return [_array_element(column, convert, item) for item in value]


def _array_element(column: Column, convert: Callable[[Any], Any] | None, item: Any) -> Any:
    if item is None or isinstance(item, list):
        return _array(column, convert, item)
    converted = convert(item) if convert else item
    # psycopg writes an array of values of one type; numbers may be of several.
    is_number = isinstance(converted, numbers.Number) and not isinstance(converted, bool)
    return str(converted) if is_number and column.element in _NUMBERS else converted


def _json(json_strings: bool, value: Any) -> str:
    return value if isinstance(value, str) and not json_strings else to_json(value)


def to_json(value: Any) -> str:
    """Return a value as JSON, decimals with all their digits.

    :param value: dict, list, str, int, float, bool, Decimal or None; dates, times, UUIDs and bytes become text
    :raises UnfitValue: for what JSON has no form for, NaN and infinity too
    """
    try:
        return json.dumps(value, allow_nan=False) if _is_simple(value) else _to_json(value)
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, UnfitValue):
            raise
        raise UnfitValue("JSON has no form for it: no NaN, no infinity, and no end of nesting") from None


def _is_simple(value: Any) -> bool:
    """Return whether Python's own encoder writes the value as it is: it makes keys of other types into text."""
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(map(_is_simple, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_simple, value))
    return type(value) in _JSON_TYPES


def _to_json(value: Any) -> str:
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, dict):
        items = {_json_key(key): item for key, item in value.items()}
        if len(items) < len(value):
            raise UnfitValue("two keys of it are the same as text")
        return "{" + ", ".join(f"{json.dumps(key)}: {_to_json(item)}" for key, item in items.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_to_json, value)) + "]"
    if value is None or isinstance(value, str | int | float):
        return json.dumps(value, allow_nan=False)
    if (text := _json_text(value)) is not None:
        return json.dumps(text)
    raise UnfitValue(f"a {_name_type(value)} has no form in JSON, or a key in it has none")


def _json_key(key: Any) -> str:
    text = str(key) if type(key) is int else key if isinstance(key, str) else _json_text(key)
    if text is None or isinstance(key, bytes):
        raise UnfitValue(f"a key that is a {_name_type(key)} has no form in JSON")
    return text


def _json_text(value: Any) -> str | None:
    """Return a value as Postgres's ``to_jsonb`` writes it, in quotes; None where it has no one text."""
    if _has_nanoseconds(value):
        raise UnfitValue("it has nanoseconds, of which Postgres keeps none; round it")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    return f"\\x{bytes(value).hex()}" if isinstance(value, bytes | bytearray | memoryview) else None


def _vector(column: Column, value: Any) -> Any:
    """Write a list, tuple or array of numbers as pgvector does."""
    if isinstance(value, str):
        return value
    try:
        floats = [float(item) for item in value]
        stored = struct.unpack(f"<{len(floats)}f", struct.pack(f"<{len(floats)}f", *floats))
    except (TypeError, ValueError, OverflowError):
        raise UnfitValue("it holds something that is not a number, or too large a one") from None
    if any(kept == 0 != given for given, kept in zip(floats, stored, strict=True)):
        raise UnfitValue("it holds too small a number")
    return "[" + ",".join(map(repr, floats)) + "]"


def _text(column: Column, value: Any) -> Any:
    if isinstance(value, numbers.Real) and value != value:
        raise UnfitValue("NaN, which stands for a missing value in pandas and numpy, is not text; make it None")
    # Others have several texts, and Python's is not always the one that an INSERT would store.
    if isinstance(value, bool) or not isinstance(value, str | int | uuid.UUID):
        raise UnfitValue(f"a {_name_type(value)} is not text; make it a str")
    if isinstance(value, str) and column.length is not None and len(value) > column.length:
        raise UnfitValue(f"a str of more than {column.length} characters does not fit")
    return str(value) if isinstance(value, uuid.UUID) else value


def _name(column: Column, value: Any) -> Any:
    if len(str(value).encode()) > _NAME_BYTES:
        raise UnfitValue(f"a name of more than {_NAME_BYTES} bytes does not fit")
    return value


def _bytes(column: Column, value: Any) -> Any:
    if not isinstance(value, bytes | bytearray | memoryview | str):
        raise UnfitValue(f"a {_name_type(value)} is not bytes")
    return value


def _integer(column: Column, value: Any) -> Any:
    if isinstance(value, float | Decimal) and value == value and abs(value) != math.inf and value == int(value):
        return int(value)
    return value


def _float(column: Column, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral | Decimal):
        return value
    number = Decimal(int(value)) if isinstance(value, numbers.Integral) else value
    if not number.is_finite():
        return value
    try:
        wide = float(number)
        if column.kind == "float4" and isinstance(value, numbers.Integral):
            wide = float(struct.unpack("<f", struct.pack("<f", wide))[0])
    except OverflowError:
        raise UnfitValue("a number is out of the column's range") from None
    # Every float has a text of at most 17 digits, of which Postgres and Python may choose different ones.
    _, digits, exponent = number.as_tuple()
    is_text_of_float = len(digits) == _FLOAT_DIGITS or (exponent != 0 and len(digits) < _FLOAT_DIGITS)
    if math.isinf(wide) or (
        (isinstance(value, numbers.Integral) or not is_text_of_float) and Decimal(repr(wide)) != number
    ):
        raise UnfitValue(f"a {_name_type(value)} has more digits than the column keeps")
    return value


def _numeric(column: Column, value: Any) -> Any:
    if isinstance(value, Decimal) and not _are_numerics((value,)):
        raise UnfitValue("a number is out of the column's range")
    if column.modifier >= 0 and not isinstance(value, bool) and not _has_scale(column, value):
        raise UnfitValue(f"a {_name_type(value)} has more decimal places than {column.declared} keeps; round it")
    return value


def _has_scale(column: Column, value: Any) -> bool:
    is_float = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    try:
        number = Decimal(repr(float(value)) if is_float else str(value))
    except DecimalException:  # Postgres will refuse it, or knows a form that Python does not
        return True
    if not number.is_finite():
        return True
    _, digits, exponent = number.as_tuple()
    excess = -int(exponent) - column.scale
    return excess <= 0 or not any(digits[-excess:])


def text_check(column: Column) -> Callable[[str], None] | None:
    """Return what looks whether a column keeps all that the text of a date or time says; None for other columns.

    The function raises :class:`UnfitValue` for text that loses its zone, its time of day or some digits there, and for
    spellings of which only Postgres knows what they say.

    :param column: target of the text
    """
    kind = _RANGES.get(column.kind, column.element or column.kind)
    if kind == "interval":
        check = _check_interval_text
    elif kind in _SPELLINGS:
        check = partial(_check_spelling, kind)
    else:
        return None
    if column.element is None and column.kind not in _RANGES:
        return check
    return partial(_check_each, check)


def text_pattern(column: Column) -> str:
    """Return a regular expression for text that passes :func:`text_check`, if not for all of it.

    :param column: a column with such a check
    """
    if column.element is not None or column.kind not in _SPELLINGS:
        return "(?!)"
    return _SPELLINGS[column.kind]


def _check_spelling(kind: str, text: str) -> None:
    if not _COMPILED[kind].fullmatch(text.strip()):
        if _MORE_DIGITS.search(text):
            raise UnfitValue("it has more than six digits of a second, of which Postgres keeps six; round it")
        raise UnfitValue(
            f"it is not in the form {_FORMS[kind]}, so it may say more than the column keeps. Write it so; or name the "
            f"column in 'casts', by which Postgres reads every form, and what it would lose is refused"
        )


def _check_interval_text(text: str) -> None:
    for digits, unit in _INTERVAL_FRACTION.findall(text):
        if digits[6:].strip("0"):
            raise UnfitValue("it has more than six digits of a second, of which Postgres keeps six; round it")
        if digits.strip("0") and _COARSE_UNIT.match(unit):
            raise UnfitValue("it has a fraction of a unit that Postgres rounds; write it in whole units")


def _check_each(check: Callable[[str], None], text: str) -> None:
    for part in _PARTS.split(text):
        if part.strip() and part.strip().lower() not in ("null", "empty"):
            check(part.strip())


def _check_text(column: Column, value: Any) -> Any:
    if isinstance(value, str) and (check := text_check(column)):
        check(value)
    return value


def _date(column: Column, value: Any) -> Any:
    _check_text(column, value)
    value_read = _read(column, value, datetime.datetime.fromisoformat)
    if isinstance(value_read, datetime.datetime):
        if value_read.tzinfo is not None or value_read.time() != datetime.time() or _has_nanoseconds(value_read):
            raise UnfitValue("a time of day does not fit into a date; make it a date")
        return value_read.date()
    return value


def _timestamp(column: Column, value: Any) -> Any:
    _check_text(column, value)
    value_read = _read(column, value, datetime.datetime.fromisoformat)
    _check_zone(column, value, value_read)
    _check_precision(column, value_read)
    return value


def _time(column: Column, value: Any) -> Any:
    _check_text(column, value)
    value_read = _read(column, value, datetime.time.fromisoformat)
    if isinstance(value_read, datetime.datetime):
        raise UnfitValue("a date does not fit into a time of day; make it a time")
    _check_zone(column, value, value_read)
    _check_precision(column, value_read)
    return value


def _interval(column: Column, value: Any) -> Any:
    _check_text(column, value)
    _check_precision(column, _read(column, value, lambda text: text))
    return value


def _read(column: Column, value: Any, parse: Callable[[str], Any]) -> Any:
    """Return what text in ISO's form stands for; all else as it is, but for numbers, which Postgres would misread."""
    if isinstance(value, numbers.Number):
        raise UnfitValue(f"a {_name_type(value)} is no {column.bare}")
    if not isinstance(value, str):
        return value
    if (digits := _FRACTION.search(value)) and digits[1][6:].strip("0"):
        raise UnfitValue("it has more than six digits of a second, of which Postgres keeps six; round it")
    try:
        return parse(value)
    except ValueError:  # one of Postgres's other forms, or none
        return value


def _check_zone(column: Column, value: Any, value_read: Any) -> None:
    if getattr(value_read, "tzinfo", None) is not None and column.kind in ("timestamp", "time"):
        raise UnfitValue(f"a time zone does not fit into {column.bare}; convert the {_name_type(value)} to one without")


def _has_nanoseconds(value: Any) -> bool:
    return bool(getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0))


def _check_precision(column: Column, value: Any) -> None:
    if _has_nanoseconds(value):
        raise UnfitValue("it has nanoseconds, of which Postgres keeps none; round it")
    microseconds = int(getattr(value, "microsecond", None) or getattr(value, "microseconds", None) or 0)
    if isinstance(value, str) and (digits := _FRACTION.search(value)):
        microseconds = int(digits[1][:6].ljust(6, "0"))
    precision = column.modifier & 0xFFFF if column.modifier >= 0 else 6
    if precision < 6 and microseconds % 10 ** (6 - precision):
        raise UnfitValue(f"it is more precise than {column.declared}; round it")


def _name_type(value: Any) -> str:
    return type(value).__name__


_FLOAT_DIGITS = 17
_NUMBERS = ("int2", "int4", "int8", "float4", "float8", "numeric")
_JSON_TYPES = frozenset((str, int, float, bool, type(None)))
_FRACTION = re.compile(r":\d\d[.,](\d+)")
_MORE_DIGITS = re.compile(r"[.,]\d{6}\d*[1-9]")
_INTERVAL_FRACTION = re.compile(r"[.,](\d+)\s*([A-Za-z]*)")
# A fraction of a year becomes whole months; below a microsecond there is nothing.
_COARSE_UNIT = re.compile(r"y|dec|c|mil|m[sS]|msec|u|E|e", re.ASCII | re.IGNORECASE)
_PARTS = re.compile(r'[\[\](){},"\\]+')
_RANGES = {
    **dict.fromkeys(("daterange", "datemultirange"), "date"),
    **dict.fromkeys(("tsrange", "tsmultirange"), "timestamp"),
    **dict.fromkeys(("tstzrange", "tstzmultirange"), "timestamptz"),
}
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6}0*)?)?"
_OFFSET = r"(?: ?(?:Z|z|UTC|[-+]\d\d(?::?\d\d(?::\d\d)?)?))"
_ZONE = r"(?: ?[A-Za-z][A-Za-z_]*(?:/[A-Za-z0-9_+-]+)*)"
_DAY = r"(?:\d{4,7}-\d\d?-\d\d?|\d{4,7}/\d\d?/\d\d?|\d{8})"
# Of these forms it is plain what they say: the year comes first.
_SPELLINGS = {
    "date": rf"(?:{_DAY}(?:[T ]00:00(?::00(?:\.0+)?)?)?(?: BC)?|-?infinity)",
    "timestamp": rf"(?:{_DAY}(?:[T ]{_CLOCK})?(?: BC)?|-?infinity)",
    "timestamptz": rf"(?:{_DAY}(?:[T ]{_CLOCK}(?:{_OFFSET}|{_ZONE})?)?(?: BC)?|-?infinity)",
    "time": rf"(?:{_CLOCK}|24:00(?::00(?:\.0+)?)?)",
    "timetz": rf"(?:(?:{_CLOCK}|24:00(?::00(?:\.0+)?)?){_OFFSET}?)",
}
_COMPILED = {kind: re.compile(pattern, re.ASCII) for kind, pattern in _SPELLINGS.items()}
_FORMS = {
    "date": "2026-01-31",
    "timestamp": "2026-01-31 23:59:59.999999",
    "timestamptz": "2026-01-31 23:59:59.999999+00:00",
    "time": "23:59:59.999999",
    "timetz": "23:59:59.999999+00:00",
}
_TEXT: dict[str, Callable[[Column, Any], Any]] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "citext", "xml"), _text),
    **dict.fromkeys(("vector", "halfvec"), _vector),
    **dict.fromkeys(("int2", "int4", "int8"), _integer),
    **dict.fromkeys(("float4", "float8"), _float),
    **dict.fromkeys(("timestamp", "timestamptz"), _timestamp),
    **dict.fromkeys(("time", "timetz"), _time),
    "name": _name,
    "bytea": _bytes,
    "numeric": _numeric,
    "date": _date,
    "interval": _interval,
    **dict.fromkeys(_RANGES, _check_text),
}
