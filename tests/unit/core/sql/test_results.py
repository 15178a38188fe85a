"""Results cross processes as text and are decoded by whoever reads them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from airflow_provider_lakebase.core.sql.results import ResultCursor, TextResult, read_results, write_results


def oid(name: str) -> int:
    return psycopg.adapters.types[name].oid


def through_json(result: TextResult) -> TextResult:
    (found,) = read_results(json.loads(json.dumps(write_results([result]))))
    return found


VALUES: list[tuple[str, str | None, Any]] = [
    ("int4", "7", 7),
    ("numeric", "1.50", Decimal("1.50")),
    ("text", 'Größe "1"\n', 'Größe "1"\n'),
    ("bool", "t", True),
    ("date", "2026-01-02", date(2026, 1, 2)),
    ("timestamptz", "2026-01-01 10:00:00+03", datetime(2026, 1, 1, 7, tzinfo=UTC)),
    ("interval", "1 day 02:00:00", timedelta(days=1, hours=2)),
    ("jsonb", '{"a": [1, null]}', {"a": [1, None]}),
    ("bytea", "\\x00ff", b"\x00\xff"),
    ("int4", None, None),
]


@pytest.mark.parametrize(("kind", "text", "value"), VALUES)
def test_a_value_arrives_as_psycopg_decodes_it(kind: str, text: str | None, value: Any):
    result = through_json(TextResult([("a", oid(kind))], [[text]], 1))
    assert ResultCursor(result).fetchall() == [(value,)]


def test_times_are_in_the_time_zone_of_the_session():
    column = [("a", oid("timestamptz"))]
    for zone, hours in (("Asia/Tokyo", 9), ("<+03>-3", 0)):  # Python does not know POSIX zones
        result = through_json(TextResult(column, [["2026-01-01 00:00:00+00"]], 1, zone))
        ((value,),) = ResultCursor(result).fetchall()
        assert value.utcoffset() == timedelta(hours=hours)


def test_a_cursor_has_names_types_and_the_number_of_rows():
    result = through_json(TextResult([("a", 23), ("b", 25)], [["1", "x"], ["2", "y"], ["3", None]], 3))
    cursor = ResultCursor(result)
    assert [(column.name, column[1]) for column in cursor.description or ()] == [("a", 23), ("b", 25)]
    assert cursor.rowcount == 3
    assert (cursor.fetchone(), cursor.fetchmany(1), cursor.fetchall()) == ((1, "x"), [(2, "y")], [(3, None)])
    assert cursor.fetchone() is None


def test_a_statement_without_rows_has_no_description():
    cursor = ResultCursor(through_json(TextResult(rowcount=5)))
    assert (cursor.description, cursor.rowcount, list(cursor)) == (None, 5, [])


def test_a_value_that_python_cannot_hold_is_an_error_of_its_own_column_only():
    result = TextResult([("id", 23), ("at", oid("timestamptz"))], [["1", "infinity"]], 1)
    assert result.first_column() == [1]
    with pytest.raises(psycopg.DataError):
        ResultCursor(result).fetchall()
