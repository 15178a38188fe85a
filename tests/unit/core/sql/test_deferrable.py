"""Which SQL may be deferred."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airflow_provider_lakebase.core.sql.deferrable import validate_deferrable, validate_deferrable_parameters
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

HINT = "Do something else."


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; INSERT INTO t VALUES (1)",
        "SET LOCAL work_mem = '1MB'",
        "SET CONSTRAINTS ALL DEFERRED",
        "SAVEPOINT a; ROLLBACK TO SAVEPOINT a; ROLLBACK WORK TO a",
        "SELECT 'COMMIT; BEGIN'",
        "-- COMMIT;\nSELECT 1",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
    ],
)
def test_statements_of_one_transaction_can_be_deferred(sql: str):
    validate_deferrable([sql], None, hint=HINT)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("COPY t TO STDOUT", "its data"),
        ("SELECT 1; commit", "one transaction"),
        ("begin", "one transaction"),
        ("ROLLBACK", "one transaction"),
        ("SET work_mem = '1MB'", "outlasts the transaction; use SET LOCAL"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "outlasts"),
        ("RESET ALL", "outlasts"),
        ("LISTEN x", "outlasts"),
        ("PREPARE p AS SELECT 1", "outlasts"),
    ],
)
def test_other_statements_are_refused_with_the_reason_and_the_callers_hint(sql: str, reason: str):
    with pytest.raises(LakebaseSettingsError, match=f"cannot be deferred: .*{reason}") as caught:
        validate_deferrable(["SELECT 1", sql], None, hint=HINT)
    assert caught.value.hint == HINT


@pytest.mark.parametrize("parameters", [None, [], [1, 1.5, "a", True, None], {"a": [1, {"b": "c"}]}])
def test_parameters_that_json_carries_can_be_deferred(parameters: Any):
    validate_deferrable_parameters(parameters, hint=HINT)


class Text(str):
    """JSON would make a plain str of it."""


@pytest.mark.parametrize("value", [date(2026, 1, 1), b"x", (1, 2), {1: "a"}, Text("x"), object()])
def test_parameters_that_json_would_change_are_refused_without_their_values(value: Any):
    for parameters in ([value], {"a": value}, [["deep", {"b": value}]]):
        with pytest.raises(LakebaseSettingsError, match=f"cannot be deferred.*{HINT}") as caught:
            validate_deferrable_parameters(parameters, hint=HINT)
        assert "2026" not in str(caught.value)


def test_placeholders_are_checked_before_anything_is_deferred():
    with pytest.raises(LakebaseSettingsError, match="has 2 placeholders, but 1 parameters"):
        validate_deferrable(["SELECT %s, %s"], [1], hint=HINT)
