"""Values as the API writes them: read with a check, or written. No I/O."""

from __future__ import annotations

import datetime
import re
from typing import Any

from airflow_provider_lakebase.emulator.model.errors import Json, invalid, not_imitated

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)s")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
# The last second that RFC 3339 can write.
_LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC).timestamp()
_MAX_POSTGRES_NAME = 63
#: What only the service sets; clients send back what they have got.
SET_BY_THE_SERVICE = ("name", "uid", "parent", "status", "create_time", "update_time", "delete_time", "purge_time")


def timestamp(seconds: float) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Format a duration as the API does: ``3600s``."""
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds:g}s"


def read_time(field: str, value: Any) -> float:
    """Read a time in RFC 3339 and return it in seconds since 1970; raise ``ApiError`` for anything else."""
    try:
        if not _TIME.fullmatch(str(value)):
            raise ValueError
        return check_time(field, datetime.datetime.fromisoformat(str(value).upper()).timestamp())
    except ValueError:
        raise invalid(f"Field '{field}' is not an RFC 3339 time such as \"2026-11-28T10:00:00Z\": {value!r}") from None


def check_time(field: str, seconds: float) -> float:
    """Return the seconds since 1970 unchanged; raise ``ApiError`` for a time that RFC 3339 cannot express."""
    if seconds > _LAST:
        raise invalid(f"Field '{field}' must be before the year 10000")
    return seconds


def read_duration(field: str, value: Any) -> float:
    """Read a duration such as ``3600s`` and return its seconds; raise ``ApiError`` for any other form."""
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise invalid(f"Field '{field}' is not a duration such as \"3600s\": {value!r}")
    return float(match[1])


def read_flag(field: str, value: Any) -> bool:
    """Return the value; raise ``ApiError`` unless it is true or false."""
    if not isinstance(value, bool):
        raise invalid(f"Field '{field}' must be true or false, not {value!r}")
    return value


def read_text(field: str, value: Any) -> str:
    """Return the value; raise ``ApiError`` unless it is a string that is not empty."""
    if not isinstance(value, str):
        raise invalid(f"Field '{field}' must be a string, not {value!r}")
    return required(field, value)


def read_postgres_name(field: str, value: Any) -> str:
    """Return the value; raise ``ApiError`` unless PostgreSQL keeps it as the name of a role or a database."""
    name = read_text(field, value)
    if "\0" in name or len(name.encode()) > _MAX_POSTGRES_NAME:
        raise invalid(f"Field '{field}' must have at most {_MAX_POSTGRES_NAME} bytes and no null byte, got {name!r}")
    return name


def required(field: str, value: str | None) -> str:
    """Return the value; raise ``ApiError`` if there is none."""
    if not value:
        raise invalid(f"Field '{field}' is required, expected non-default value (not \"\")!")
    return value


def read_id(field: str, value: str | None) -> str:
    """Return the value; raise ``ApiError`` unless it can be a resource's ID."""
    if not _ID.fullmatch(required(field, value)):
        raise invalid(f"Field {field} must match pattern ^[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?$, got '{value}'")
    return str(value)


def read_object(field: str, value: Any, known: set[str]) -> Json:
    """Return the value, or {} for none; raise ``ApiError`` unless it is an object with known fields only."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"Field '{field}' must be an object, not {value!r}")
    for name in value:
        if name not in known:
            raise not_imitated(f"the field '{field}.{name}'")
    return value


def spec_of(kind: str, body: Json) -> Any:
    """Return the ``spec`` of a resource in a request; raise ``ApiError`` for a field that such a resource lacks."""
    return read_object(kind, body, {"spec", f"{kind}_id", *SET_BY_THE_SERVICE}).get("spec")


def read_objects(field: str, value: Any, known: set[str]) -> list[Json]:
    """Return the value, or [] for none; raise ``ApiError`` unless it is a list of objects with known fields only."""
    if value is not None and not isinstance(value, list):
        raise invalid(f"Field '{field}' must be a list, not {value!r}")
    return [read_object(field, each, known) for each in value or []]


def read_choice(field: str, value: Json, names: tuple[str, ...]) -> str | None:
    """Return which of the fields is set, or None; raise ``ApiError`` if several are."""
    found = [name for name in names if value.get(name) is not None]
    if len(found) > 1:
        names_found = ", ".join(f"'{field}.{name}'" for name in found)
        raise invalid(f"Only one of {names_found} may be set")
    return found[0] if found else None
