"""Which column of the table each name of a source fills."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.core.bulk.columns import match_names
from airflow_provider_lakebase.exceptions import LakebaseSettingsError


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (["a", "b"], None, ["a", "b"]),
        (["a", "b"], ["x", "y"], ["x", "y"]),
        (["a", "b", ""], {"b": "x"}, [None, "x", None]),
        (["a", "c", "c"], {"a": "x"}, ["x", None, None]),
        (["a", "a"], ["x", "y"], ["x", "y"]),
    ],
)
def test_names_are_matched_by_name_mapping_or_position(names: list[str], wanted: Any, expected: list[str | None]):
    assert match_names(names, wanted, "f.csv") == expected


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        (["a", "b"], {"c": "x"}, "columns names 'c', which f.csv does not have. Its columns are a, b"),
        (["a", "b"], ["x"], "columns has 1 names, but f.csv has 2 columns"),
        (["a", "a"], None, "f.csv has two columns named 'a'"),
        (["a", "a"], {"a": "x"}, "f.csv has two columns named 'a'"),
        (["a", "b"], ["x", "x"], "columns names a column twice"),
    ],
)
def test_names_that_do_not_match_are_rejected(names: list[str], wanted: Any, said: str):
    with pytest.raises(LakebaseSettingsError, match=said):
        match_names(names, wanted, "f.csv")


def test_a_first_line_that_may_hold_values_is_not_quoted():
    with pytest.raises(LakebaseSettingsError, match="header=False") as rejected:
        match_names(["confidential"], {"a": "a"}, "f.csv", is_header=True)
    assert "confidential" not in str(rejected.value)
