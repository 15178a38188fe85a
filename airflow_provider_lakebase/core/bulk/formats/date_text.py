"""Check that a column can store the text of a date or time without loss, before Postgres parses it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue

_MORE_DIGITS = re.compile(r"[.,]\d{6}\d*[1-9]")
_INTERVAL_FRACTION = re.compile(r"[.,](\d+)\s*([A-Za-z]*)")
# Postgres turns a fraction of a year into whole months, and drops fractions of a microsecond.
_COARSE_UNIT = re.compile(r"y|dec|c|mil|m[sS]|msec|u|E|e", re.ASCII | re.IGNORECASE)
_PARTS = re.compile(r'[\[\](){},"\\]+')
RANGES = {
    **dict.fromkeys(("daterange", "datemultirange"), "date"),
    **dict.fromkeys(("tsrange", "tsmultirange"), "timestamp"),
    **dict.fromkeys(("tstzrange", "tstzmultirange"), "timestamptz"),
}
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6}0*)?)?"
_OFFSET = r"(?: ?(?:Z|z|UTC|[-+]\d\d(?::?\d\d(?::\d\d)?)?))"
_ZONE = r"(?: ?[A-Za-z][A-Za-z_]*(?:/[A-Za-z0-9_+-]+)*)"
_DAY = r"(?:\d{4,7}-\d\d?-\d\d?|\d{4,7}/\d\d?/\d\d?|\d{8})"
# Forms that mean the same under every DateStyle: the year comes first.
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


def text_check(column: Column) -> Callable[[str], None] | None:
    """Return a function that checks the text of a date or time for a column; None for columns of other types.

    The function raises :class:`UnfitValue` for text that would lose its zone, its time of day or digits, and for
    spellings that only Postgres can interpret.

    :param column: the target column
    """
    kind = RANGES.get(column.kind, column.element or column.kind)
    if kind == "interval":
        check = _check_interval_text
    elif kind in _SPELLINGS:
        check = partial(_check_spelling, kind)
    else:
        return None
    if column.element is None and column.kind not in RANGES:
        return check
    return partial(_check_each, check)


def text_pattern(column: Column) -> str:
    """Return a regular expression that matches most, not all, of the text that passes :func:`text_check`.

    :param column: a column with such a check
    """
    if column.element is not None or column.kind not in _SPELLINGS:
        return "(?!)"
    return _SPELLINGS[column.kind]


def _check_spelling(kind: str, text: str) -> None:
    if not _COMPILED[kind].fullmatch(text.strip()):
        if _MORE_DIGITS.search(text):
            raise UnfitValue("it has more than six digits of a second, and Postgres keeps six; round it")
        raise UnfitValue(
            f"it is not in the form {_FORMS[kind]}, so the column may not keep all of it. Write it in that form, "
            "or name the column in 'casts': then Postgres parses every form, and any loss is rejected",
            "22007",
        )


def _check_interval_text(text: str) -> None:
    for digits, unit in _INTERVAL_FRACTION.findall(text):
        if digits[6:].strip("0"):
            raise UnfitValue("it has more than six digits of a second, and Postgres keeps six; round it")
        if digits.strip("0") and _COARSE_UNIT.match(unit):
            raise UnfitValue("it has a fraction of a unit that Postgres rounds; write it in whole units")


def _check_each(check: Callable[[str], None], text: str) -> None:
    for part in _PARTS.split(text):
        if part.strip() and part.strip().lower() not in ("null", "empty"):
            check(part.strip())
