"""An error of a load names the place in its message and in attributes, and never the value."""

from __future__ import annotations

import psycopg
import pytest

from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Part
from airflow_provider_lakebase.core.bulk.rejection import rejecting, row_error, value_error
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError

CONTEXT = ErrorContext(conn_id="lakebase_default")


class Lines(Part):
    columns = ()
    label = "f.csv"
    unit = "line"

    def locate(self, row: int) -> tuple[str, int]:
        return "line", row + 1

    def copy_to(self, target: CopyTarget) -> None:
        raise NotImplementedError


def test_a_rejected_value_is_placed_in_its_part():
    error = value_error(BadValue("it is too long", 3, "note"), "shop.prices", CONTEXT, Lines())
    assert str(error).startswith("Table shop.prices rejects line 3, column note, of f.csv: it is too long (connection")
    assert (error.table, error.source, error.line, error.row, error.column) == (
        "shop.prices",
        "f.csv",
        3,
        None,
        "note",
    )


def test_a_row_that_is_found_bad_later_is_placed_by_its_part():
    error = row_error("an earlier row has the same key", "t", CONTEXT, Lines(), 4, "id")
    assert (error.line, error.row) == (5, None)


def test_a_row_without_a_number_or_a_part_is_still_described():
    error = value_error(BadValue("it does not match", None), "t", CONTEXT)
    assert error.message == "Table t rejects a row: it does not match"
    assert (error.source, error.row, error.line, error.column) == ("", None, None, "")


def test_the_original_error_is_not_shown():
    with pytest.raises(LakebaseLoadError, match="unique violation, SQLSTATE 23505.*mode='upsert'") as rejected:
        with rejecting("t", CONTEXT, mode="append"):
            raise psycopg.errors.UniqueViolation("Key (id)=(confidential) already exists")
    assert "confidential" not in str(rejected.value)
    assert rejected.value.__suppress_context__
    assert rejected.value.sqlstate == "23505"


@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg.errors.InsufficientPrivilege])
def test_errors_that_rows_are_not_to_blame_for_pass(kind: type[psycopg.Error]):
    with pytest.raises(kind), rejecting("t", CONTEXT, mode="append"):
        raise kind("lost")
