"""Decode JSON exactly: numbers with all their digits, and nothing that JSON does not have."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from airflow_provider_lakebase.core.bulk.copy import BadValue

NOT_JSON = "it is not JSON in UTF-8"
NOT_JSON_STATE = "22P02"
"""SQLSTATE of what Postgres calls an invalid text representation."""
NOT_AN_OBJECT = "it is not a JSON object"
_MOST_INT_DIGITS = 4300


def _without_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadValue("an object in it has the same name twice", None)
    return found


def _parse_int(text: str) -> int | Decimal:
    # The zero of a float has a sign, and Python's int() refuses longer texts.
    return Decimal(text) if text == "-0" or len(text) > _MOST_INT_DIGITS else int(text)


def _reject_constant(name: str) -> NoReturn:
    raise BadValue(f"it contains {name}, which JSON does not have", None)


class _Decoder(json.JSONDecoder):
    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        try:
            return super().raw_decode(s, idx)
        except InvalidOperation:
            raise BadValue("it contains a number whose exponent is too large", None) from None


DECODER = _Decoder(
    parse_float=Decimal,
    parse_int=_parse_int,
    parse_constant=_reject_constant,
    object_pairs_hook=_without_repeated_names,
)
"""Integers stay ``int``, other numbers become ``Decimal``. Raises ``BadValue`` without a place, or ``ValueError``."""
