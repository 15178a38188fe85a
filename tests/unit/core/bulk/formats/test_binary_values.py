"""Which Python values are written by binary COPY."""

from __future__ import annotations

import datetime
import enum
import uuid
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.formats.binary_values import BinaryCheck, binary_encoding

DAY = datetime.date(2026, 1, 2)
NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
NAIVE = NOON.replace(tzinfo=None)
ID = uuid.UUID(int=7)


class Size(enum.IntEnum):
    SMALL = 1


class Number(float):
    """As numpy.float64 is."""


class Moment(datetime.datetime):
    """As pandas.Timestamp is, which has nanoseconds."""


def takes(kind: str, *values: Any, modifier: int = -1) -> bool:
    column = Column("c", kind, kind, modifier, kind)
    encoding = binary_encoding(column)
    assert encoding
    by_rows = BinaryCheck([encoding, encoding])([(value, None) for value in values])
    assert by_rows is encoding.takes(values)
    return by_rows


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int2", [-(2**15), 2**15 - 1, Size.SMALL]),
        ("int4", [-(2**31), 2**31 - 1]),
        ("int8", [-(2**63), 2**63 - 1]),
        ("float4", [0.5, float("nan"), float("-inf")]),
        ("float8", [0.1, float("nan"), float("inf"), -0.0, 1e308]),
        ("float8", [0.1, 5, 2**60, Decimal("0.5")]),
        ("numeric", [Decimal("1.10"), 10**30]),
        ("bool", [True, False]),
        ("text", ["", "ü", "x" * 10_000]),
        ("date", [DAY]),
        ("time", [datetime.time(1, 2, 3, 4)]),
        ("timestamp", [NAIVE]),
        ("timestamptz", [NOON]),
        ("interval", [datetime.timedelta(days=-1, microseconds=1)]),
        ("uuid", [ID]),
        ("bytea", [b"x", bytearray(b"y"), memoryview(b"z")]),
        ("jsonb", [{"a": [1]}, [float("nan")]]),
    ],
)
def test_values_of_a_columns_own_type_are_written_in_binary(kind: str, values: list[Any]):
    assert takes(kind, *values)
    assert takes(kind, None, *values, None)
    assert takes(kind, None)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int2", 2**15),
        ("int2", -(2**15) - 1),
        ("int4", 2**31),
        ("int8", 2**63),
        pytest.param("int8", 10**400, id="int8-10**400"),
        ("int4", True),
        ("int4", 1.0),
        ("int4", Decimal(1)),
        ("int4", "1"),
        ("int4", "\ud800"),
        ("float4", 1e39),
        ("float4", 1),
        ("float8", 2**53 + 1),
        pytest.param("float8", 10**400, id="float8-10**400"),
        ("float8", Decimal("0.1")),
        ("float8", Decimal("NaN")),
        ("float8", True),
        ("float8", Number(0.5)),
        ("float8", "0.5"),
        ("numeric", 0.5),
        ("numeric", True),
        ("bool", 1),
        ("bool", "true"),
        ("text", 1),
        ("text", b"x"),
        ("text", DAY),
        ("date", NAIVE),
        ("date", "2026-01-02"),
        ("time", NAIVE),
        ("time", datetime.time(1, tzinfo=datetime.UTC)),
        ("timestamp", NOON),
        ("timestamp", DAY),
        ("timestamp", Moment(2026, 1, 2)),
        ("timestamp", "2026-01-02T12:00:00"),
        ("timestamptz", NAIVE),
        ("timestamptz", "2026-01-02T12:00:00Z"),
        ("interval", 86_400),
        ("interval", "P1D"),
        ("uuid", str(ID)),
        ("uuid", ID.bytes),
        ("bytea", "eA=="),
        ("jsonb", '{"a": 1}'),
        ("jsonb", 1),
    ],
)
def test_other_values_are_not(kind: str, value: Any):
    assert not takes(kind, value)
    assert not takes(kind, None, value)


def test_a_text_is_as_long_as_its_column_at_most():
    assert takes("varchar", "four", "ümla", modifier=4 + 4)
    assert not takes("varchar", "fives", modifier=4 + 4)


def test_a_number_that_its_column_rounds_is_not_written_in_binary():
    assert takes("numeric", Decimal("1.25"), 1, modifier=(10 << 16 | 2) + 4)
    assert not takes("numeric", Decimal("1.255"), modifier=(10 << 16 | 2) + 4)


def test_rows_of_another_length_are_not_written_in_binary():
    encoding = binary_encoding(Column("c", "int4", "int4", -1, "int4"))
    fits = BinaryCheck([encoding, encoding])
    assert fits([(1, 2), (3, 4)])
    assert not fits([(1, 2), (3,)])
    assert not fits([(1, 2), (3, 4, 5)])


def test_a_column_that_needs_text_keeps_all_rows_from_being_binary():
    assert not BinaryCheck([binary_encoding(Column("c", "int4", "int4", -1, "int4")), None])([(1, 2)])
