"""Write Python values as JSON without losing digits or keys."""

from __future__ import annotations

import datetime
import json
import uuid
from decimal import Decimal
from typing import Any

from airflow_provider_lakebase.core.bulk.copy import UnfitValue
from airflow_provider_lakebase.core.bulk.formats.time_values import has_nanoseconds

_JSON_TYPES = frozenset((str, int, float, bool, type(None)))
_JSON_LISTS = (list, tuple)
# json.dumps would make an encoder for each value; one that contains itself has been found before.
_encode = json.JSONEncoder(allow_nan=False, check_circular=False).encode


def to_json(value: Any) -> str:
    """Return a value as JSON, decimals with all their digits.

    :param value: dict, list, str, int, float, bool, Decimal or None; dates, times, UUIDs and bytes become strings
    :raises UnfitValue: for what JSON cannot express, such as NaN and infinity
    """
    try:
        return _encode(value) if _is_simple(value) else _to_json(value)
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, UnfitValue):
            raise
        raise UnfitValue("JSON cannot represent it: it has no NaN, no infinity and no unlimited nesting") from None


def _is_simple(value: Any) -> bool:
    """Return whether Python's own encoder writes the value exactly; it turns keys of other types into strings."""
    # Loops, since all() of an expression takes twice as long.
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                return False
            if type(item) not in _JSON_TYPES and not _is_simple(item):
                return False
        return True
    if isinstance(value, _JSON_LISTS):
        for item in value:
            if type(item) not in _JSON_TYPES and not _is_simple(item):
                return False
        return True
    return type(value) in _JSON_TYPES


def _to_json(value: Any) -> str:
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, dict):
        items = {_json_key(key): item for key, item in value.items()}
        if len(items) < len(value):
            raise UnfitValue("two of its keys are the same as text")
        return "{" + ", ".join(f"{_encode(key)}: {_to_json(item)}" for key, item in items.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_to_json, value)) + "]"
    if value is None or isinstance(value, str | int | float):
        return _encode(value)
    if (text := _json_text(value)) is not None:
        return _encode(text)
    raise UnfitValue(f"JSON cannot represent a {type(value).__name__}")


def _json_key(key: Any) -> str:
    text = str(key) if type(key) is int else key if isinstance(key, str) else _json_text(key)
    if text is None or isinstance(key, bytes):
        raise UnfitValue(f"JSON cannot represent a key that is a {type(key).__name__}")
    return text


def _json_text(value: Any) -> str | None:
    """Return the string that Postgres's ``to_jsonb`` turns a value into; None for any other type."""
    if has_nanoseconds(value):
        raise UnfitValue("it has nanoseconds, which Postgres does not keep; round it")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    return f"\\x{bytes(value).hex()}" if isinstance(value, bytes | bytearray | memoryview) else None
