"""How Python values are written in text COPY, and which are rejected."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import UnfitValue
from airflow_provider_lakebase.core.bulk.formats.date_text import text_check
from airflow_provider_lakebase.core.bulk.formats.json_values import to_json
from airflow_provider_lakebase.core.bulk.formats.text_values import text_conversion

UTC = datetime.UTC
NUMERIC = Column("v", "numeric(4,1)", "numeric", (4 << 16 | 1) + 4, "numeric")


def column(kind: str, **more: Any) -> Column:
    return Column("v", kind, kind, more.pop("modifier", -1), kind, **more)


def convert(target: Column, value: Any) -> Any:
    conversion = text_conversion(target)
    return value if conversion is None else conversion(value)


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        (column("int4"), 5.0, 5),
        (column("int4"), Decimal("7"), 7),
        (column("float8"), 2**53, 2**53),
        (column("float8"), 18111585029455872, 18111585029455872),
        (column("float8"), Decimal(0.1), Decimal(0.1)),
        (NUMERIC, Decimal("1.50"), Decimal("1.50")),
        (column("text"), uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (column("date"), datetime.datetime(2026, 1, 2), datetime.date(2026, 1, 2)),
        (column("date"), "2026-01-02", datetime.date(2026, 1, 2)),
        (column("vector"), [1, 0.5], "[1.0,0.5]"),
        (column("jsonb"), {"a": Decimal("1.10")}, '{"a": 1.10}'),
        (column("jsonb"), '{"a": 1}', '{"a": 1}'),
        (column("_int4", element="int4"), [1, 2.0, None], ["1", "2", None]),
    ],
)
def test_a_value_is_written_exactly(target: Column, value: Any, expected: Any):
    assert convert(target, value) == expected


@pytest.mark.parametrize(
    ("target", "value", "said"),
    [
        (NUMERIC, Decimal("1.25"), r"more decimal places than numeric\(4,1\) keeps"),
        (column("float8"), 2**53 + 1, "more digits than the column keeps"),
        (column("float8"), 10**400, "more digits than the column keeps"),
        (column("text"), float("nan"), "NaN"),
        (column("text"), 1.5, "a float is not text"),
        (column("varchar", modifier=7), "abcd", "more than 3 characters"),
        (column("date"), datetime.datetime(2026, 1, 2, 3), "time of day does not fit into a date"),
        (column("timestamp"), datetime.datetime(2026, 1, 2, tzinfo=UTC), "time zone does not fit"),
        (column("timestamp"), 5, "a int is no timestamp"),
        (column("time"), "25:00", "not in the form"),
        (column("timestamp"), "2026-01-02 03:04:05.1234567", "more than six digits"),
        (column("vector"), ["x"], "not a number"),
        (column("bytea"), 5, "a int is not bytes"),
        (column("name"), "x" * 64, "more than 63 bytes"),
    ],
)
def test_a_value_that_would_change_is_rejected(target: Column, value: Any, said: str):
    with pytest.raises(UnfitValue, match=said) as rejected:
        convert(target, value)
    assert str(value) not in str(rejected.value) or len(str(value)) < 3


@pytest.mark.parametrize(
    ("kind", "text", "kept"),
    [
        ("date", "2026-01-31", True),
        ("date", "2026-01-31 00:00", True),
        ("date", "2026-01-31 10:00", False),
        ("date", "01/31/2026", False),
        ("timestamp", "2026-01-31T10:00:00.123456", True),
        ("timestamp", "2026-01-31 10:00+01", False),
        ("timestamptz", "2026-01-31 10:00+01:00", True),
        ("timestamptz", "2026-01-31 10:00 Europe/Berlin", True),
        ("time", "24:00", True),
        ("time", "10:00+01", False),
        ("timetz", "10:00+01", True),
        ("interval", "1.5 years", False),
        ("interval", "1 day 02:03:04.5", True),
        ("date", "infinity", True),
    ],
)
def test_text_of_dates_and_times_must_say_no_more_than_the_column_keeps(kind: str, text: str, kept: bool):
    check = text_check(column(kind))
    assert check is not None
    if kept:
        check(text)
    else:
        with pytest.raises(UnfitValue):
            check(text)


def test_text_of_other_types_is_left_to_postgres():
    assert text_check(column("int4")) is None


@pytest.mark.parametrize("value", [float("nan"), {1: 1, "1": 2}, {"a": object()}, {b"k": 1}])
def test_what_json_cannot_express_is_rejected(value: Any):
    with pytest.raises(UnfitValue):
        to_json(value)


def test_json_keeps_all_digits_and_turns_other_types_into_strings():
    assert (
        to_json([Decimal("1.10"), datetime.date(2026, 1, 2), b"\x01", None]) == '[1.10, "2026-01-02", "\\\\x01", null]'
    )
