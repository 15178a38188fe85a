"""Pages of a list."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.model.errors import Json, invalid

DEFAULT_SIZE, LARGEST_SIZE = 50, 100


def page(call: Call, key: str, items: Sequence[Json]) -> Json:
    """Return the page that the call asks for, under ``key``, with the token of the next one if there are more."""
    size = _size(call.query.get("page_size", "0"))
    start = _start(call.query.get("page_token", ""))
    found: Json = {key: list(items[start : start + size])}
    if start + size < len(items):
        found["next_page_token"] = base64.urlsafe_b64encode(f"after {start + size}".encode()).decode()
    return found


def _size(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise invalid(f"Field 'page_size' must be a number and cannot be negative, not {text!r}")
    return min(int(text) or DEFAULT_SIZE, LARGEST_SIZE)


def _start(token: str) -> int:
    if not token:
        return 0
    try:
        start = int(base64.urlsafe_b64decode(token).removeprefix(b"after "))
        if start < 0:
            raise ValueError
        return start
    except (binascii.Error, ValueError):
        raise invalid(f"Field 'page_token' is not a token of a previous page: {token!r}") from None
