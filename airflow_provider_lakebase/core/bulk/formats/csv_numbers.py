"""Numbers in text with another decimal character or with separated thousands, as Postgres writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue

_NUMBERS = ("int2", "int4", "int8", "numeric", "float4", "float8")
_BASE_TYPE = """
    WITH RECURSIVE base AS (
        SELECT typname, typtype, typbasetype FROM pg_catalog.pg_type WHERE oid = %s::regtype
        UNION ALL
        SELECT pg_type.typname, pg_type.typtype, pg_type.typbasetype
        FROM base JOIN pg_catalog.pg_type ON pg_type.oid = base.typbasetype WHERE base.typtype = 'd'
    )
    SELECT typname::text FROM base WHERE typtype <> 'd'
"""


def is_number(column: Column, casts: Mapping[str, str], connection: psycopg.Connection[Any]) -> bool:
    """Return whether the text of a column is that of a number.

    :param column: the target column
    :param casts: SQL types by column that its text is cast to first
    :param connection: an open session
    """
    if column.name not in casts:
        return column.element is None and column.kind in _NUMBERS
    (name,) = connection.execute(_BASE_TYPE, [casts[column.name]]).fetchall()[0]
    return name in _NUMBERS


def number_reader(decimal: str, thousands: str | None) -> Callable[[str], str]:
    """Return a function that turns the text of a number into what Postgres reads.

    It raises :class:`UnfitValue` for any other text, and for groups that are not three digits each.

    :param decimal: the character before decimal places
    :param thousands: the character between groups of three digits, or None
    """
    grouped = rf"|[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+" if thousands else ""
    point = re.escape(decimal)
    number = re.compile(
        rf"[ \t]*([-+]?(?:(?:\d+{grouped})(?:{point}\d*)?|{point}\d+)(?:[eE][-+]?\d+)?"
        r"|(?i:[-+]?(?:nan|inf|infinity)))[ \t]*",
        re.ASCII,
    )
    groups = f" and {thousands!r} between thousands" if thousands else ""
    reason = (
        f"it is not a number with {decimal!r} before decimal places{groups}. If the text stands for NULL, name it as "
        "'null'"
    )
    translation = {ord(decimal): "."} | ({ord(thousands): ""} if thousands else {})

    def read(text: str) -> str:
        found = number.fullmatch(text)
        if found is None:
            raise UnfitValue(reason, "22P02")
        return found[1].translate(translation)

    return read
