"""Numbers in text with another decimal character or with separated thousands, as Postgres writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
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


class NumberReader:
    """Turn the text of a number into what Postgres reads.

    :param decimal: the character before decimal places
    :param thousands: the character between groups of three digits, or None
    """

    def __init__(self, decimal: str, thousands: str | None) -> None:
        self.decimal = decimal
        self.thousands = thousands
        point = re.escape(decimal)
        grouped = rf"|[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+" if thousands else ""
        self.usual = rf"[-+]?(?:\d+{grouped})(?:{point}\d+)?" if thousands else rf"[-+]?+\d++(?:{point}\d++)?+"
        """A regular expression that matches most numbers."""
        self._number = re.compile(
            rf"[ \t]*([-+]?(?:(?:\d+{grouped})(?:{point}\d*)?|{point}\d+)(?:[eE][-+]?\d+)?"
            r"|(?i:[-+]?(?:nan|inf|infinity)))[ \t]*",
            re.ASCII,
        )

    def check(self, text: str) -> str:
        """Return the text of a number as Postgres reads it.

        :param text: as the file has it
        :raises UnfitValue: for any other text, and for groups that are not three digits each
        """
        found = self._number.fullmatch(text)
        if found is None:
            options = f"decimal={self.decimal!r} and thousands={self.thousands!r}"
            reason = f"it is not a number with {options}. If the text stands for NULL, set 'null' to it"
            raise UnfitValue(reason, "22P02")
        return self.convert(found[1])

    def convert(self, number: str) -> str:
        """Return a number as Postgres reads it.

        :param number: one that the pattern ``usual`` matches
        """
        if self.thousands:
            number = number.replace(self.thousands, "")
        return number.replace(self.decimal, ".")
