from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.paging import page
from airflow_provider_lakebase.emulator.model.errors import ApiError

ITEMS = [{"n": n} for n in range(120)]


def ask(**query: str) -> dict[str, Any]:
    return page(Call("GET", "", "/", "", b"", query), "items", ITEMS)


@pytest.mark.parametrize(("size", "expected"), [("", 50), ("0", 50), ("7", 7), ("100", 100), ("500", 100)])
def test_page_has_the_size_that_was_asked_for(size: str, expected: int) -> None:
    assert len(ask(**({"page_size": size} if size else {}))["items"]) == expected


def test_pages_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found, token = [], ""
    while True:
        part = ask(page_size="50", page_token=token)
        found += part["items"]
        if "next_page_token" not in part:
            break
        token = part["next_page_token"]
    assert found == ITEMS


@pytest.mark.parametrize(
    "query",
    [
        {"page_size": "-1"},
        {"page_size": "x"},
        {"page_token": "??"},
        {"page_token": "eA=="},
        {"page_token": "YWZ0ZXIgLTU="},
    ],
)
def test_bad_size_and_token_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="Field 'page_"):
        ask(**query)
