"""Every value is stored as it is, or refused by the place where it stands: by each kind of source, in each mode."""

from __future__ import annotations

import csv
import datetime as dt
import enum
import gzip
import io
import ipaddress
import json
import traceback
import uuid
from array import array
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseLoadError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

MODES: Sequence[Any] = ("append", "replace", "upsert")
REFUSED = None
OPTIONS = "-c TimeZone=Europe/Berlin -c search_path=values,public"
SECRET = "SECRETVALUE77"
BERLIN = ZoneInfo("Europe/Berlin")
TYPES = """
    CREATE TYPE "values".mood AS ENUM ('sad', 'it''s ok');
    CREATE DOMAIN "values".positive AS integer CHECK (VALUE > 0);
    CREATE DOMAIN "values".price AS numeric(10,2);
    CREATE DOMAIN "values".fee AS "values".price;
    CREATE DOMAIN "values".fees AS "values".fee[];
    CREATE DOMAIN "values".second AS timestamp(0);
    CREATE DOMAIN "values".start AS "values".second;
    CREATE DOMAIN "values".code AS varchar(3);
    CREATE DOMAIN "values".airport AS "values".code;
    CREATE TYPE "values".pair AS (a integer, b text);
"""


@pytest.fixture(scope="module", autouse=True)
def schema(shared_emulator: LakebaseEmulator) -> Iterator[None]:
    with psycopg.connect(shared_emulator.superuser_conninfo, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    hook = LakebaseHook()
    hook.run(f'DROP SCHEMA IF EXISTS "values" CASCADE; CREATE SCHEMA "values"; {TYPES}')
    yield
    hook.run('DROP SCHEMA "values" CASCADE')


@pytest.fixture
def berlin(emulator: LakebaseEmulator) -> LakebaseHook:
    return LakebaseHook(options=OPTIONS)


class Probe:
    """A session beside the hook's, that makes tables and looks at them."""

    def __init__(self, hook: LakebaseHook) -> None:
        self.connection = hook.get_conn()
        self.connection.autocommit = True
        self.connection.prepare_threshold = None

    def run(self, statement: str, *values: Any) -> list[Any]:
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def make_table(self, kind: str) -> str:
        """Make a table of a key and one column, in which a row waits for what becomes of it."""
        self.run('DROP TABLE IF EXISTS "values".t')
        self.run(f'CREATE TABLE "values".t (id integer PRIMARY KEY, v {kind})')
        self.run('INSERT INTO "values".t VALUES (0)')
        return '"values".t'

    def read(self) -> dict[int, str | None]:
        return dict(self.run('SELECT id, v::text FROM "values".t ORDER BY id'))

    def insert(self, kind: str, value: Any) -> str | None:
        """Return what an INSERT of the value stores; None when Postgres or psycopg refuse it."""
        self.run('DROP TABLE IF EXISTS "values".i')
        self.run(f'CREATE TABLE "values".i (v {kind})')
        try:
            self.run('INSERT INTO "values".i VALUES (%s)', value)
        except (psycopg.Error, OverflowError, TypeError, ValueError):
            return None
        return self.run('SELECT v::text FROM "values".i')[0][0]


@pytest.fixture(scope="module")
def probe(schema: None) -> Iterator[Probe]:
    probe = Probe(LakebaseHook(options=OPTIONS))
    yield probe
    probe.connection.close()


def check(hook: LakebaseHook, probe: Probe, kind: str, sources: Sequence[Any], stored: str | None, place: str) -> None:
    """Load rows 1, which is NULL, and 2, which holds the value: by upsert, and straight into the table.

    Of two sources of the same rows, and of the two modes that send rows straight into the table, the cases take turns.
    """
    turn = len(kind) + len(str(stored))
    table = probe.make_table(kind)
    for mode, source in (
        ("upsert", sources[turn // 2 % len(sources)]),
        (MODES[turn % 2], sources[-1 - turn // 2 % len(sources)]),
    ):
        if stored is REFUSED:
            with pytest.raises(LakebaseLoadError) as refused:
                hook.load(source, table, mode=mode)  # type: ignore[arg-type]
            assert f"rejects {place}, column v, of" in str(refused.value), mode
            assert probe.read() == {0: None}, mode
        else:
            hook.load(source, table, mode=mode)  # type: ignore[arg-type]
            found = probe.read()
            probe.run(f"DELETE FROM {table} WHERE id <> 0")
            found.pop(0, None)
            assert found == {1: None, 2: stored}, mode


# ── Python values ──

NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]


class Level(int, enum.Enum):
    HIGH = 123


PYTHON: Sequence[tuple[str, Any, str | None]] = [
    ("smallint", 32767, "32767"),
    ("smallint", -32768, "-32768"),
    ("smallint", 70000, REFUSED),
    ("integer", 2**31 - 1, "2147483647"),
    ("integer", 2**31, REFUSED),
    ("integer", 2**32 + 1, REFUSED),
    ("integer", True, REFUSED),
    ("integer", "5", "5"),
    ("integer", "", REFUSED),
    ("integer", 5.0, "5"),
    ("integer", 5.5, REFUSED),
    ("integer", float("nan"), REFUSED),
    ("integer", float("inf"), REFUSED),
    ("integer", Decimal("5.00"), "5"),
    ("integer", Decimal("5.01"), REFUSED),
    ("integer", Decimal("sNaN"), REFUSED),
    ("integer", Decimal("1E+9999999"), REFUSED),
    ("integer", 1e10, REFUSED),
    ("integer", b"5", REFUSED),
    ("integer", [5], REFUSED),
    ("integer", {"a": 5}, REFUSED),
    ("integer", dt.date(2024, 1, 1), REFUSED),
    ("integer", uuid.UUID(int=5), REFUSED),
    ("integer", Level.HIGH, "123"),
    ("bigint", -(2**63), str(-(2**63))),
    ("bigint", 2**63, REFUSED),
    ("bigint", 1e19, REFUSED),
    ("bigint", 1e18, "1000000000000000000"),
    ("real", uuid.UUID(int=5), REFUSED),
    ("real", 1.5, "1.5"),
    ("real", 0.1, "0.1"),
    ("real", 3.6935433912507644e-33, "3.6935436e-33"),
    ("real", np.float64(3.6935433912507644e-33), "3.6935436e-33"),
    ("real[]", [3.6935433912507644e-33], "{3.6935436e-33}"),
    ("real", -0.0, "-0"),
    ("real", 1e300, REFUSED),
    ("real", -1e300, REFUSED),
    ("real", 1e-60, REFUSED),
    ("real", "1e-60", REFUSED),
    ("real", Decimal("1e300"), REFUSED),
    ("real", 0.0, "0"),
    ("real", float("nan"), "NaN"),
    ("real", float("-inf"), "-Infinity"),
    ("real", 2**24, "1.6777216e+07"),
    ("real", 2**24 + 1, REFUSED),
    ("real", 10**60, REFUSED),
    ("double precision", 0.1 + 0.2, "0.30000000000000004"),
    ("double precision", 5e-324, "5e-324"),
    ("double precision", float("nan"), "NaN"),
    ("double precision", float("inf"), "Infinity"),
    ("double precision", 2**53, "9.007199254740992e+15"),
    ("double precision", 2**53 + 1, REFUSED),
    ("double precision", 10**400, REFUSED),
    ("double precision", Decimal("1e400"), REFUSED),
    ("double precision", Decimal("0.1"), "0.1"),
    ("double precision", Decimal(2**53 + 1), REFUSED),
    ("double precision", True, REFUSED),
    ("numeric", Decimal("1.500"), "1.500"),
    ("numeric", Decimal("1E+3"), "1000"),
    ("numeric", Decimal("-123456789012345678901234567890.1234567890"), "-123456789012345678901234567890.1234567890"),
    ("numeric", Decimal("1E-16383"), "0." + "0" * 16382 + "1"),
    ("numeric", Decimal("1E-20000"), REFUSED),
    ("numeric", Decimal("1E-70000"), REFUSED),
    ("numeric", Decimal("1E+300000"), REFUSED),
    ("numeric", Decimal("NaN"), "NaN"),
    ("numeric", Decimal("Infinity"), "Infinity"),
    ("numeric", float("nan"), "NaN"),
    ("numeric", float("-inf"), "-Infinity"),
    ("numeric", 0.1, "0.1"),
    ("numeric", 10**30, "1" + "0" * 30),
    ("numeric", "1.10", "1.10"),
    ("numeric", True, REFUSED),
    ("numeric(10,2)", Decimal("1.5"), "1.50"),
    ("numeric(10,2)", Decimal("1.500"), "1.50"),
    ("numeric(10,2)", Decimal("1.005"), REFUSED),
    ("numeric(10,2)", 1.25, "1.25"),
    ("numeric(10,2)", 1.005, REFUSED),
    ("numeric(10,2)", "1.005", REFUSED),
    ("numeric(10,2)", np.float32(1.005), REFUSED),
    ("numeric(10,2)", Decimal("NaN"), "NaN"),
    ("numeric(10,2)", float("inf"), REFUSED),
    ("numeric(5,2)", Decimal("1000"), REFUSED),
    ("numeric(5,2)", 1000, REFUSED),
    ("numeric(5,2)", 999, "999.00"),
    ("numeric(5,-2)", 12300, "12300"),
    ("numeric(5,-2)", 12345, REFUSED),
    ("numeric(5,-2)", Level.HIGH, REFUSED),
    ("numeric(5,-2)", np.int64(123), REFUSED),
    ("numeric(5,2)", Level.HIGH, "123.00"),
    ("numeric", uuid.UUID(int=5), REFUSED),
    ("oid", uuid.UUID(int=5), REFUSED),
    ("regclass", uuid.UUID(int=5), REFUSED),
    ("money", Decimal("1.50"), "$1.50"),
    ("money", Decimal("1.500"), "$1.50"),
    ("money", Decimal("1.005"), REFUSED),
    ("money", Decimal("0.001"), REFUSED),
    ("money", 1.005, REFUSED),
    ("money", "$1,234.50", "$1,234.50"),
    ("money", "($1.005)", REFUSED),
    ("money", True, REFUSED),
    ("money", uuid.UUID(int=5), REFUSED),
    ("money CHECK (v > 0::money)", 5, "$5.00"),
    ("money[]", [Decimal("1.50"), None], "{$1.50,NULL}"),
    ("money[]", [Decimal("1.005")], REFUSED),
    ("money[]", "{1.50,1.005}", REFUSED),
    ("boolean", True, "true"),
    ("boolean", "no", "false"),
    ("boolean", 2, REFUSED),
    ("text", "", ""),
    ("text", "\\N\t\n\r\\.{}\"'é𝄞", "\\N\t\n\r\\.{}\"'é𝄞"),
    ("text", True, REFUSED),
    ("text", 1.5, REFUSED),
    ("text", Decimal("1.50"), REFUSED),
    ("text", b"abc", REFUSED),
    ("text", dt.date(2024, 1, 1), REFUSED),
    ("text", {"a": 1}, REFUSED),
    ("text", ["a"], REFUSED),
    ("text", "a\0b", REFUSED),
    ("text", "a\ud800b", REFUSED),
    ("text", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ("varchar(3)", "äöü", "äöü"),
    ("varchar(3)", "abcd", REFUSED),
    ("varchar(3)", "ab   ", REFUSED),
    ("char(3)", "abc", "abc"),
    ("char(3)", "abcd", REFUSED),
    ("name", "é" * 31, "é" * 31),
    ("name", "é" * 32, REFUSED),
    ("name", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ("date", dt.date(2024, 2, 29), "2024-02-29"),
    ("date", dt.date(1, 1, 1), "0001-01-01"),
    ("date", dt.datetime(2024, 2, 29), "2024-02-29"),
    ("date", dt.datetime(2024, 2, 29, 1), REFUSED),
    ("date", dt.datetime(2024, 2, 29, tzinfo=dt.UTC), REFUSED),
    ("date", "2024-02-29 10:00:00", REFUSED),
    ("date", 20240229, REFUSED),
    ("date", [dt.datetime(2024, 2, 29, 17, 30)], REFUSED),
    ("date", [dt.date(2024, 2, 29)], REFUSED),
    ("date", [2003, 1, 2], REFUSED),
    ("date", (dt.date(2024, 2, 29),), REFUSED),
    ("date", dt.timedelta(days=1), REFUSED),
    ("time", dt.time(23, 59, 59, 999999), "23:59:59.999999"),
    ("time", dt.time(10, tzinfo=dt.UTC), REFUSED),
    ("time", "10:00:00+02", REFUSED),
    ("time", dt.datetime(2024, 2, 29, 10), REFUSED),
    ("time", dt.timedelta(days=1, hours=1), REFUSED),
    ("time", dt.timedelta(hours=1), "01:00:00"),
    ("time", [dt.datetime(2024, 2, 29, 10)], REFUSED),
    ("time", [dt.time(10, tzinfo=dt.UTC)], REFUSED),
    ("timetz", dt.time(10, tzinfo=dt.UTC), "10:00:00+00"),
    ("timetz", dt.timedelta(hours=1), REFUSED),
    ("timetz", dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC), REFUSED),
    ("time(0)", dt.time(10, 0, 0, 1), REFUSED),
    ("time(3)", dt.time(10, 0, 0, 1000), "10:00:00.001"),
    ("timestamp", dt.datetime(2024, 2, 29, 10, 0, 0, 1), "2024-02-29 10:00:00.000001"),
    ("timestamp", dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC), REFUSED),
    ("timestamp", "2024-02-29 10:00:00+02", REFUSED),
    ("timestamp", dt.date(2024, 2, 29), "2024-02-29 00:00:00"),
    ("timestamp", "2024-02-29 10:00:00.1234567", REFUSED),
    ("timestamp", pd.Timestamp("2024-02-29 10:00:00.5"), "2024-02-29 10:00:00.5"),
    ("timestamp", pd.Timestamp("2024-02-29 10:00:00.123456789"), REFUSED),
    ("timestamp", [dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC)], REFUSED),
    ("timestamp(0)", [dt.datetime(2024, 2, 29, 10, 0, 0, 500_000)], REFUSED),
    ("timestamp(0)", dt.datetime(2024, 2, 29, 10), "2024-02-29 10:00:00"),
    ("timestamp(0)", dt.datetime(2024, 2, 29, 10, 0, 0, 500_000), REFUSED),
    ("timestamp(0)", "2024-02-29 10:00:00.5", REFUSED),
    ("timestamptz", dt.datetime(2024, 7, 1, 12), "2024-07-01 12:00:00+02"),
    ("timestamptz", dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC), "2024-07-01 14:00:00+02"),
    ("timestamptz", dt.datetime(2024, 10, 27, 2, 30), "2024-10-27 02:30:00+01"),
    ("timestamptz", dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN), "2024-10-27 02:30:00+02"),
    ("timestamptz", dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1), "2024-10-27 02:30:00+01"),
    ("timestamptz", dt.datetime(2024, 3, 31, 2, 30), "2024-03-31 03:30:00+02"),
    ("timestamptz", dt.datetime(1890, 1, 1), "1890-01-01 00:00:00+00:53:28"),
    ("timestamptz", dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC), "10000-01-01 00:59:59.999999+01"),
    ("timestamptz(3)", dt.datetime(2024, 7, 1, 12, 0, 0, 1, dt.UTC), REFUSED),
    ("interval", dt.timedelta(days=-1, microseconds=1), "-1 days +00:00:00.000001"),
    ("interval", pd.Timedelta(1500, "ns"), REFUSED),
    ("interval", dt.time(10), "10:00:00"),
    ("interval", [1], REFUSED),
    ("interval", uuid.UUID(int=5), REFUSED),
    ("interval(0)", dt.timedelta(microseconds=1), REFUSED),
    ("interval(0)", "1.5 seconds", REFUSED),
    ("interval year to month", dt.timedelta(days=1), REFUSED),
    ("integer[]", [1, None, 3], "{1,NULL,3}"),
    ("integer[]", [[1, 2], [3, 4]], "{{1,2},{3,4}}"),
    ("integer[]", [], "{}"),
    ("integer[]", [1, 2.0], "{1,2}"),
    ("integer[]", [2**31], REFUSED),
    ("integer[]", [1.5], REFUSED),
    ("integer[]", [True], REFUSED),
    ("integer[]", [[1], [2, 3]], REFUSED),
    ("double precision[]", [1, 2.5], "{1,2.5}"),
    ("double precision[]", [2**53 + 1], REFUSED),
    ("text[]", ["", "NULL", None, 'a"b\\', "{}", " ", "NaN"], '{"","NULL",NULL,"a\\"b\\\\","{}"," ",NaN}'),
    ("text[]", [True], REFUSED),
    ("varchar(3)[]", ["ab   "], REFUSED),
    ("numeric(10,2)[]", [Decimal("1.005")], REFUSED),
    ("numeric(10,2)[]", ["1.005"], REFUSED),
    ("numeric(10,2)[]", "{1.005}", REFUSED),
    ("timestamp(0)[]", [dt.datetime(2024, 2, 29, 10, 0, 0, 5)], REFUSED),
    ("date[]", [dt.datetime(2024, 2, 29, 10)], REFUSED),
    ("date[]", [np.datetime64("2024-02-29"), None], "{2024-02-29,NULL}"),
    ("date[]", [np.datetime64("2024-02-29T10")], REFUSED),
    ("bytea[]", [b"\0\xff", None], '{"\\\\x00ff",NULL}'),
    ("jsonb", {"b": [1, Decimal("1.10"), None], "a": {"é": True}}, '{"a": {"é": true}, "b": [1, 1.10, null]}'),
    ("jsonb", {"n": Decimal("1.2345678901234567890123456789")}, '{"n": 1.2345678901234567890123456789}'),
    ("jsonb", [1, "a", None], '[1, "a", null]'),
    ("jsonb", [[1], [2, 3]], "[[1], [2, 3]]"),
    ("jsonb", '{"a": 1.0}', '{"a": 1.0}'),
    ("jsonb", 5, "5"),
    ("jsonb", True, "true"),
    ("jsonb", {"a": float("nan")}, REFUSED),
    ("jsonb", {"a": Decimal("NaN")}, REFUSED),
    ("jsonb", float("inf"), REFUSED),
    ("jsonb", {"a": dt.date(2024, 1, 1)}, '{"a": "2024-01-01"}'),
    ("jsonb", {"a": "\0"}, REFUSED),
    ("jsonb", {"a": "\ud800"}, REFUSED),
    ("jsonb", {1: "a", "1": "b"}, REFUSED),
    ("jsonb", {True: Decimal("1.10")}, REFUSED),
    ("jsonb", {b"a": 1}, REFUSED),
    ("jsonb", NESTED, REFUSED),
    ("jsonb", "not JSON", REFUSED),
    ("json", {"b": 1, "a": Decimal("1.10")}, '{"b": 1, "a": 1.10}'),
    ("jsonb[]", [{"a": 1}, None, {"b": [1]}], '{"{\\"a\\": 1}",NULL,"{\\"b\\": [1]}"}'),
    ("vector(3)", [1, 2.5, -3], "[1,2.5,-3]"),
    ("vector(3)", (1, 2, 3), "[1,2,3]"),
    ("vector(3)", array("f", [1, 2, 0.1]), "[1,2,0.1]"),
    ("vector(3)", np.array([1, 2, 0.1], "float32"), "[1,2,0.1]"),
    ("vector(3)", "[1,2,3]", "[1,2,3]"),
    ("vector(3)", [1, 2], REFUSED),
    ("vector(3)", [1, 2, 1e300], REFUSED),
    ("vector(3)", [1, 2, 1e-60], REFUSED),
    ("vector(3)", [1, 2, float("nan")], REFUSED),
    ("vector(3)", [1, 2, None], REFUSED),
    ("uuid", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ("uuid", "00000000000000000000000000000005", "00000000-0000-0000-0000-000000000005"),
    ("uuid", "5", REFUSED),
    ("bytea", b"\0\xff\\", "\\x00ff5c"),
    ("bytea", bytearray(b"\0\xff"), "\\x00ff"),
    ("bytea", memoryview(b"\0\xff"), "\\x00ff"),
    ("bytea", memoryview(b"abcdef")[::2], REFUSED),
    ("bytea", True, REFUSED),
    ("bytea", 5, REFUSED),
    ("mood", "it's ok", "it's ok"),
    ("mood", "glad", REFUSED),
    ("mood[]", ["sad", None], "{sad,NULL}"),
    ("positive", 5, "5"),
    ("positive", 0, REFUSED),
    ("positive", 2**32 + 1, REFUSED),
    ("price", Decimal("1.50"), "1.50"),
    ("price", Decimal("1.005"), REFUSED),
    ("price", "1.005", REFUSED),
    ("price[]", [Decimal("1.005")], REFUSED),
    ("price[]", "{1.005}", REFUSED),
    ("fee[]", [Decimal("1.5"), None], "{1.50,NULL}"),
    ("fee[]", [Decimal("1.005")], REFUSED),
    ("fee[]", "{1.005}", REFUSED),
    ("fees", [Decimal("1.5")], "{1.50}"),
    ("fees", [Decimal("1.005")], REFUSED),
    ("start[]", [dt.datetime(2024, 2, 29, 10, 0, 0, 500_000)], REFUSED),
    ("airport[]", ["ab   "], REFUSED),
    ("code", "abcd", REFUSED),
    ("code", "ab  ", REFUSED),
    ("pair", (5, 'a,"b'), '(5,"a,""b")'),
    ("int4range", Range(1, 5), "[1,5)"),
    ("int4range", "[1,4]", "[1,5)"),
    ("int4range", "5", REFUSED),
    ("tstzrange", Range(dt.datetime(2024, 7, 1, tzinfo=dt.UTC), None), '["2024-07-01 02:00:00+02",)'),
    ("daterange", Range(dt.date(2024, 2, 28), dt.date(2024, 2, 29), "[]"), "[2024-02-28,2024-03-01)"),
    ("daterange", Range(empty=True), "empty"),
    ("daterange", Range(dt.datetime(2024, 2, 29, 17), None), REFUSED),
    ("daterange[]", [Range(dt.datetime(2024, 2, 29, 17), None)], REFUSED),
    ("datemultirange", Multirange([Range(None, dt.date(2024, 2, 29))]), "{(,2024-02-29)}"),
    ("datemultirange", Multirange([Range(None, dt.datetime(2024, 2, 29, 17))]), REFUSED),
    ("tsrange", Range(dt.datetime(2024, 7, 1, tzinfo=dt.UTC), None), REFUSED),
    ("inet", ipaddress.ip_address("10.0.0.1"), "10.0.0.1/32"),
    ("inet", "10.0.0.1/8", "10.0.0.1/8"),
    ("inet", "10.0.0.256", REFUSED),
    ("bit(3)", "101", "101"),
    ("bit(3)", "1011", REFUSED),
    ("integer", pd.Timedelta(5, "ns"), REFUSED),
    ("integer", np.datetime64("2024-02-29T10:00:00.123456789"), REFUSED),
    ("integer", np.int64(5), "5"),
    ("integer", np.int64(2**31), REFUSED),
    ("integer", np.bool_(True), REFUSED),
    ("integer", np.float64(5.5), REFUSED),
    ("bigint", np.uint64(2**63), REFUSED),
    ("boolean", np.bool_(True), "true"),
    ("real", np.float32(0.1), "0.1"),
    ("double precision", np.float64(0.1), "0.1"),
    ("double precision", np.float32(0.1), "0.10000000149011612"),
    ("double precision", np.int64(2**53 + 1), REFUSED),
    ("text", np.str_("a"), "a"),
    ("timestamp", np.datetime64("2024-02-29T10:00:00.123456789"), REFUSED),
]


def label(value: Any) -> str:
    if value is NESTED or isinstance(value, memoryview):  # whose text is too deep, or another one each time
        return "nested" if value is NESTED else "memoryview"
    return ascii(value)[:40].replace("/", "|")


@pytest.mark.parametrize(
    ("kind", "value", "stored"), [pytest.param(*case, id=f"{case[0]}-{label(case[1])}") for case in PYTHON]
)
def test_a_python_value_is_stored_as_it_is_or_refused(
    berlin: LakebaseHook, probe: Probe, kind: str, value: Any, stored: str | None
):
    # Beside a column whose values only go as text, and by itself.
    sources = [[(1, None, [1]), (2, value, [2])], [{"id": 1, "v": None}, {"v": value, "id": 2}]]
    check(berlin, probe, f"{kind}, w integer[]", sources, stored, "row 2")
    # A type without a cast has no INSERT to compare with; one that INSERT would round is refused here.
    if stored is not REFUSED and (by_insert := probe.insert(kind, value)) is not None:
        assert stored == by_insert


# ── Text of files ──

CSV: Sequence[tuple[str, str, str | None]] = [
    ("smallint", "32767", "32767"),
    ("smallint", "70000", REFUSED),
    ("integer", "5.5", REFUSED),
    ("integer", "t", REFUSED),
    ("bigint", str(2**63), REFUSED),
    ("real", "1e300", REFUSED),
    ("real", "1e-60", REFUSED),
    ("real", "NaN", "NaN"),
    ("double precision", "1e400", REFUSED),
    ("double precision", "0.30000000000000004", "0.30000000000000004"),
    ("double precision", "9007199254740993", "9.007199254740992e+15"),
    ("numeric", "1.500", "1.500"),
    ("numeric", "Infinity", "Infinity"),
    ("numeric(10,2)", "1.50", "1.50"),
    ("numeric(10,2)", "1.500", "1.50"),
    ("numeric(10,2)", "1.005", REFUSED),
    ("numeric(10,2)", "NaN", "NaN"),
    ("numeric(10,2)[]", '"{1.5,1.005}"', REFUSED),
    ("numeric(5,2)", "1000", REFUSED),
    ("numeric(5,2)", "999.999", REFUSED),
    ("numeric(5,-2)", "12345", REFUSED),
    ("text", '""', ""),
    ("text", '"NULL"', "NULL"),
    ("text", "\\N", "\\N"),
    ("text", '"\\."', "\\."),
    ("text", '"a\r\nb,""c"""', 'a\r\nb,"c"'),
    ("text", "  a  ", "  a  "),
    ("varchar(3)", "abcd", REFUSED),
    # These are what Postgres reads of such a text, by COPY as by an INSERT.
    ("varchar(3)", '"ab   "', "ab "),
    ("varchar(3)[]", '"{""ab   ""}"', '{"ab "}'),
    ("char(3)", "abcd", REFUSED),
    ("date", "2024-02-29", "2024-02-29"),
    ("date", "2024-02-30", REFUSED),
    ("date", "2024-02-29 10:00:00", REFUSED),
    ("time", "10:00:00+02", REFUSED),
    ("time(0)", "10:00:00.5", REFUSED),
    ("timestamp", "2024-02-29T10:00:00.5", "2024-02-29 10:00:00.5"),
    ("timestamp", "2024-02-29 10:00:00+02", REFUSED),
    ("timestamp", "2024-02-29 10:00:00.123456789", REFUSED),
    ("timestamp(0)", "2024-02-29 10:00:00.5", REFUSED),
    ("timestamptz", "2024-07-01 12:00:00", "2024-07-01 12:00:00+02"),
    ("timestamptz", "2024-10-27 02:30:00", "2024-10-27 02:30:00+01"),
    ("timestamptz", "2024-07-01T12:00:00Z", "2024-07-01 14:00:00+02"),
    ("timestamptz(3)", "2024-07-01 12:00:00.0001", REFUSED),
    ("interval(0)", "1.5 seconds", REFUSED),
    ("interval year to month", "1 day", REFUSED),
    ("integer[]", '"{1,NULL,3}"', "{1,NULL,3}"),
    ("jsonb", '"{""a"": 1.10}"', '{"a": 1.10}'),
    ("jsonb", "NaN", REFUSED),
    ("vector(3)", '"[1,2.5,-3]"', "[1,2.5,-3]"),
    ("vector(3)", '"[1,2]"', REFUSED),
    ("mood", "it's ok", "it's ok"),
    ("mood", "glad", REFUSED),
    ("positive", "0", REFUSED),
    ("price", "1.005", REFUSED),
    ("price[]", '"{1.5,1.005}"', REFUSED),
    ("fee[]", '"{1.5,1.005}"', REFUSED),
    ("fee[]", '"{1.5,NULL}"', "{1.50,NULL}"),
    ("fees", "{1.005}", REFUSED),
    ("start[]", "{2024-02-29 10:00:00.5}", REFUSED),
    ("code", '"ab  "', "ab "),
    ("pair", '"(5,""a,b"")"', '(5,"a,b")'),
    ("int4range", '"[1,4]"', "[1,5)"),
    ("bytea", "\\x00ff", "\\x00ff"),
    ("uuid", "5", REFUSED),
    ("money", "1.5", "$1.50"),
    ("money", '"$1,234,567.890"', "$1,234,567.89"),
    ("money", "1.005", REFUSED),
    ("money", "x", REFUSED),
    ("money[]", '"{1.5,1.005}"', REFUSED),
]

JSON_LINES: Sequence[tuple[str, str, str | None]] = [
    ("integer", "5", "5"),
    ("integer", "5.0", "5"),
    ("integer", "5.5", REFUSED),
    ("integer", "true", REFUSED),
    ("integer", "2147483648", REFUSED),
    ("integer", "1e9999999", REFUSED),
    ("bigint", "1e3", "1000"),
    ("real", "1e300", REFUSED),
    ("real", "1e-60", REFUSED),
    ("double precision", "9007199254740993", REFUSED),
    ("double precision", "0.30000000000000004", "0.30000000000000004"),
    ("double precision", '"NaN"', "NaN"),
    ("numeric", "1.500", "1.500"),
    ("numeric", "12345678901234567890.12345678901234567890", "12345678901234567890.12345678901234567890"),
    ("numeric(10,2)", "1.50", "1.50"),
    ("numeric(10,2)", "1.005", REFUSED),
    ("numeric(10,2)", '"1.005"', REFUSED),
    ("text", '""', ""),
    ("text", '"null"', "null"),
    ("text", "5", "5"),
    ("text", "1.50", REFUSED),
    ("text", "true", REFUSED),
    ("text", "{}", REFUSED),
    ("text", '"a\\u0000"', REFUSED),
    ("text", '"\\ud800"', REFUSED),
    ("text", '"\\ud834\\udd1e"', "𝄞"),
    ("varchar(3)", '"ab   "', REFUSED),
    ("varchar(3)[]", '["ab   "]', REFUSED),
    ("date", '"2024-02-29"', "2024-02-29"),
    ("date", '"2024-02-29 10:00:00"', REFUSED),
    ("date", "20240229", REFUSED),
    ("time", '"10:00:00+02"', REFUSED),
    ("time(0)", '"10:00:00.5"', REFUSED),
    ("timestamp", '"2024-02-29T10:00:00"', "2024-02-29 10:00:00"),
    ("timestamp", '"2024-02-29 10:00:00+02"', REFUSED),
    ("timestamp", '"2024-02-29 10:00:00.123456789"', REFUSED),
    ("timestamp(0)", '"2024-02-29 10:00:00.5"', REFUSED),
    ("timestamptz", '"2024-07-01T12:00:00"', "2024-07-01 12:00:00+02"),
    ("interval(0)", '"1.5 seconds"', REFUSED),
    ("integer[]", "[1, null, 3]", "{1,NULL,3}"),
    ("integer[]", "[[1], [2]]", "{{1},{2}}"),
    ("integer[]", '"{1,2}"', "{1,2}"),
    ("double precision[]", "[1, 2.5]", "{1,2.5}"),
    ("numeric[]", "[1, 2.50]", "{1,2.50}"),
    ("numeric(10,2)[]", "[1.005]", REFUSED),
    ("numeric(10,2)[]", '["1.005"]', REFUSED),
    ("text[]", '["", "NULL", null]', '{"","NULL",NULL}'),
    ("jsonb", '{"a": 1.10, "b": [1e2, null]}', '{"a": 1.10, "b": [100, null]}'),
    ("jsonb", '"a"', '"a"'),
    ("jsonb", '"{}"', '"{}"'),
    ("jsonb", "1.10", "1.10"),
    ("jsonb", "true", "true"),
    ("jsonb", "[1, 2]", "[1, 2]"),
    ("jsonb[]", '[{"a": 1.10}, null]', '{"{\\"a\\": 1.10}",NULL}'),
    ("jsonb[]", '["1"]', '{"\\"1\\""}'),
    ("vector(3)", "[1, 2.5, -3]", "[1,2.5,-3]"),
    ("vector(3)", '"[1,2,3]"', "[1,2,3]"),
    ("uuid", '"00000000000000000000000000000005"', "00000000-0000-0000-0000-000000000005"),
    ("bytea", '"\\\\x00ff"', "\\x00ff"),
    ("bytea", "5", REFUSED),
    ("mood", '"glad"', REFUSED),
    ("positive", "0", REFUSED),
    ("pair", '{"a": 5, "b": "x"}', REFUSED),
]


@pytest.mark.parametrize(
    ("kind", "text", "stored"), [pytest.param(*each, id=f"{each[0]}-{label(each[1])}") for each in CSV]
)
def test_text_of_a_csv_file_is_stored_as_it_is_or_refused(
    berlin: LakebaseHook, probe: Probe, tmp_path: Path, kind: str, text: str, stored: str | None
):
    file = tmp_path / "t.csv"
    file.write_bytes(f"id,v\n1,\n2,{text}\n".encode())
    check(berlin, probe, kind, [file], stored, "line 3")


@pytest.mark.parametrize(
    ("kind", "text", "stored"), [pytest.param(*each, id=f"{each[0]}-{label(each[1])}") for each in JSON_LINES]
)
@pytest.mark.parametrize("format", ["jsonl", "json"])
def test_a_value_of_a_json_file_is_stored_as_it_is_or_refused(
    berlin: LakebaseHook, probe: Probe, tmp_path: Path, kind: str, text: str, stored: str | None, format: str
):
    file = tmp_path / f"t.{format}"
    objects = ['{"id": 1, "v": null}', f'{{"v": {text}, "id": 2}}']
    file.write_text(f"[{', '.join(objects)}]" if format == "json" else "\n".join(objects))
    check(berlin, probe, kind, [file], stored, "row 2" if format == "json" else "line 2")


# ── Arrow and Parquet ──


def timestamps(unit: str, tz: str | None, *values: int) -> pa.Array:
    return pa.array([None, *values], pa.int64()).cast(pa.timestamp(unit, tz))


NOON = 1_709_204_400  # 2024-02-29 11:00 UTC
ARROW: Sequence[tuple[str, pa.Array, str | None]] = [
    ("smallint", pa.array([None, 70000], pa.int64()), REFUSED),
    ("smallint", pa.array([None, 200], pa.uint8()), "200"),
    ("integer", pa.array([None, 5], pa.int64()), "5"),
    ("integer", pa.array([None, 2**31], pa.uint32()), REFUSED),
    ("integer", pa.array([None, 5.0]), "5"),
    ("integer", pa.array([None, 5.5]), REFUSED),
    ("integer", pa.array([None, True]), REFUSED),
    ("integer", pa.array([None, "5"]), "5"),
    ("integer", pa.array([None, 5]).dictionary_encode(), "5"),
    ("bigint", pa.array([None, 2**63], pa.uint64()), REFUSED),
    ("bigint", pa.array([None, 2**63 - 1], pa.uint64()), str(2**63 - 1)),
    ("real", pa.array([None, 1e300]), REFUSED),
    ("real", pa.array([None, 1e-60]), REFUSED),
    ("real", pa.array([None, float("nan")]), "NaN"),
    ("real", pa.array([None, float("inf")]), "Infinity"),
    ("real", pa.array([None, 0.0]), "0"),
    ("real", pa.array([None, 2**24 + 1]), REFUSED),
    ("real", pa.array([None, 1.5], pa.float32()).cast(pa.float16()), "1.5"),
    ("double precision", pa.array([None, 2**53 + 1]), REFUSED),
    ("double precision", pa.array([None, 0.1], pa.float32()), "0.10000000149011612"),
    ("double precision", pa.array([None, Decimal("0.10")]), "0.1"),
    ("numeric", pa.array([None, Decimal("1.500")]), "1.500"),
    ("numeric", pa.array([None, Decimal("-0.001")]), "-0.001"),
    ("numeric", pa.array([None, Decimal("12300")], pa.decimal128(5, 0)), "12300"),
    ("numeric", pa.array([None, Decimal("1." + "0" * 30)], pa.decimal256(60, 30)), "1." + "0" * 30),
    ("numeric", pa.array([None, 2**64 - 1], pa.uint64()), str(2**64 - 1)),
    ("numeric", pa.array([None, float("nan")]), "NaN"),
    ("numeric", pa.array([None, float("inf")]), "Infinity"),
    ("numeric", pa.array([None, 0.1]), "0.1"),
    ("numeric(10,2)", pa.array([None, Decimal("1.500")]), "1.50"),
    ("numeric(10,2)", pa.array([None, Decimal("1.005")]), REFUSED),
    ("numeric(10,2)", pa.array([None, 1.005]), REFUSED),
    ("numeric(10,2)", pa.array([None, 1.25], pa.float32()), "1.25"),
    ("numeric(10,2)", pa.array([None, Decimal("1.005")], pa.decimal256(50, 3)), REFUSED),
    ("numeric(5,2)", pa.array([None, Decimal("1000.00")]), REFUSED),
    ("numeric(5,-2)", pa.array([None, 12345]), REFUSED),
    ("numeric(5,-2)", pa.array([None, 12300]), "12300"),
    ("boolean", pa.array([None, True]), "true"),
    ("text", pa.array([None, ""]), ""),
    ("text", pa.array([None, "é"], pa.large_string()), "é"),
    ("text", pa.array([None, "é"], pa.string_view()), "é"),
    ("text", pa.array([None, "é"]).dictionary_encode(), "é"),
    ("text", pa.array([None, "a\0b"]), REFUSED),
    ("text", pa.array([None, 1.5]), REFUSED),
    ("text", pa.array([None, True]), REFUSED),
    ("text", pa.array([None, b"\xff"]), REFUSED),
    ("varchar(3)", pa.array([None, "äöü"]), "äöü"),
    ("varchar(3)", pa.array([None, "ab   "]), REFUSED),
    ("date", pa.array([None, dt.date(1, 1, 1)]), "0001-01-01"),
    ("date", pa.array([None, dt.date(2024, 2, 29)], pa.date64()), "2024-02-29"),
    ("date", timestamps("s", None, NOON), REFUSED),
    ("date", timestamps("s", None, NOON - NOON % 86400), "2024-02-29"),
    ("time", pa.array([None, 1], pa.time64("us")), "00:00:00.000001"),
    ("time", pa.array([None, 1], pa.time32("ms")), "00:00:00.001"),
    ("time", pa.array([None, 1500], pa.time64("ns")), REFUSED),
    ("time", timestamps("s", None, NOON), REFUSED),
    ("timestamp", timestamps("s", None, NOON), "2024-02-29 11:00:00"),
    ("timestamp", timestamps("ns", None, NOON * 10**9 + 1000), "2024-02-29 11:00:00.000001"),
    ("timestamp", timestamps("ns", None, NOON * 10**9 + 1), REFUSED),
    ("timestamp", timestamps("us", "UTC", NOON), REFUSED),
    ("timestamp(0)", timestamps("ms", None, NOON * 1000 + 500), REFUSED),
    ("timestamp(0)", timestamps("ms", None, NOON * 1000), "2024-02-29 11:00:00"),
    ("timestamptz", timestamps("ms", "America/New_York", NOON * 1000), "2024-02-29 12:00:00+01"),
    ("timestamptz", timestamps("s", None, NOON), "2024-02-29 11:00:00+01"),
    ("timestamptz", pa.array([None, dt.datetime(2024, 10, 27, 2, 30)]), "2024-10-27 02:30:00+01"),
    ("timestamptz", pa.array([None, dt.datetime(2024, 3, 31, 2, 30)]), "2024-03-31 03:30:00+02"),
    ("timestamptz", pa.array([None, dt.datetime(1890, 1, 1)]), "1890-01-01 00:00:00+00:53:28"),
    ("timestamptz", pa.array([None, dt.datetime(2070, 7, 1)]), "2070-07-01 00:00:00+02"),
    ("timestamptz", timestamps("ns", "UTC", NOON * 10**9 + 1), REFUSED),
    ("interval", pa.array([None, -1], pa.duration("us")), "-1 days +23:59:59.999999"),
    ("interval", pa.array([None, 90000], pa.duration("s")), "1 day 01:00:00"),
    ("interval", pa.array([None, 1], pa.duration("ns")), REFUSED),
    ("interval", pa.array([None, (1, -2, 3000)], pa.month_day_nano_interval()), "1 mon -2 days +00:00:00.000003"),
    ("interval", pa.array([None, (1, 2, 3001)], pa.month_day_nano_interval()), REFUSED),
    ("interval(0)", pa.array([None, (0, 0, 3000)], pa.month_day_nano_interval()), REFUSED),
    ("jsonb", pa.array([None, (1, 2, 3000)], pa.month_day_nano_interval()), REFUSED),
    ("time(0)", pa.array([None, 86_400_000_000], pa.time64("us")), "24:00:00"),
    ("time(0)", pa.array([None, 90_000_000_000], pa.time64("us")), REFUSED),
    ("time", pa.array([None, 86_400_000_000], pa.time64("us")), "24:00:00"),
    ("jsonb", pa.array([None, [86_400_000_000]], pa.list_(pa.time64("us"))), REFUSED),
    ("jsonb", pa.array([None, {"a": 86_400_000_000}], pa.struct([("a", pa.time64("us"))])), REFUSED),
    ("jsonb", pa.array([None, [("k", 86_400)]], pa.map_(pa.string(), pa.time32("s"))), REFUSED),
    ("timestamp", pa.array([None, 2**63 - 1], pa.timestamp("us")), REFUSED),
    ("timestamp", pa.array([None, 1 - 2**63], pa.timestamp("us")), REFUSED),
    ("date", pa.array([None, 1 - 2**31], pa.date32()), REFUSED),
    ("integer[]", pa.array([None, [1, None]], pa.list_(pa.int32())), "{1,NULL}"),
    ("integer[]", pa.array([None, [1, 2**31]]), REFUSED),
    ("integer[]", pa.array([None, [1, 2]], pa.list_(pa.int64(), 2)), "{1,2}"),
    ("double precision[]", pa.array([None, [1.5, float("nan")]]), "{1.5,NaN}"),
    ("text[]", pa.array([None, ["", None, "NULL"]]), '{"",NULL,"NULL"}'),
    ("text[]", pa.array([None, ["a"]], pa.large_list(pa.string())), "{a}"),
    ("varchar(3)[]", pa.array([None, ["ab   "]]), REFUSED),
    ("numeric(10,2)[]", pa.array([None, [Decimal("1.005")]]), REFUSED),
    ("timestamp[]", pa.array([None, [1]], pa.list_(pa.timestamp("ns"))), REFUSED),
    ("jsonb", pa.array([None, {"a": [Decimal("1.10"), None]}]), '{"a": [1.10, null]}'),
    ("jsonb", pa.array([None, [("k", 1)]], pa.map_(pa.string(), pa.int32())), '{"k": 1}'),
    ("jsonb", pa.array([None, [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int32())), REFUSED),
    ("jsonb", pa.array([None, [1, 2]]), "[1, 2]"),
    ("jsonb", pa.array([None, [{"a": 1}]]), '[{"a": 1}]'),
    ("jsonb", pa.array([None, {"a": float("nan")}]), REFUSED),
    ("jsonb", pa.array([None, '{"a": 1.0}']), '{"a": 1.0}'),
    ("jsonb", pa.array([None, 1.5]), "1.5"),
    ("jsonb", pa.array([None, float("nan")]), REFUSED),
    ("jsonb[]", pa.array([None, [{"a": 1}, None]]), '{"{\\"a\\": 1}",NULL}'),
    ("vector(3)", pa.array([None, [1, 2.5, -3]], pa.list_(pa.float32())), "[1,2.5,-3]"),
    ("vector(3)", pa.array([None, [1, 2.5, -3]], pa.list_(pa.float64(), 3)), "[1,2.5,-3]"),
    ("vector(3)", pa.array([None, [1, None, 3]]), REFUSED),
    ("uuid", pa.array([None, uuid.UUID(int=5).bytes], pa.binary(16)), "00000000-0000-0000-0000-000000000005"),
    ("uuid", pa.array([None, str(uuid.UUID(int=5))]), "00000000-0000-0000-0000-000000000005"),
    ("uuid", pa.array([None, uuid.UUID(int=5).bytes], pa.uuid()), "00000000-0000-0000-0000-000000000005"),
    ("bytea", pa.array([None, b"\0\xff"]), "\\x00ff"),
    ("bytea", pa.array([None, b"\0\xff"], pa.large_binary()), "\\x00ff"),
    ("bytea", pa.array([None, b"\0\xff"], pa.binary(2)), "\\x00ff"),
    ("mood", pa.array([None, "sad"]).dictionary_encode(), "sad"),
    ("mood", pa.array([None, "glad"]), REFUSED),
    ("positive", pa.array([None, 0]), REFUSED),
    ("positive", pa.array([None, 5]), "5"),
    ("positive[]", pa.array([None, [5]], pa.list_(pa.int32())), "{5}"),
    ("price", pa.array([None, Decimal("1.005")]), REFUSED),
    ("fee[]", pa.array([None, [Decimal("1.005")]]), REFUSED),
    ("inet", pa.array([None, "10.0.0.1"]), "10.0.0.1/32"),
]


@pytest.mark.parametrize(
    ("kind", "values", "stored"),
    [pytest.param(*each, id=f"{each[0]}-{each[1].type}-{label(each[2])}") for each in ARROW],
)
def test_an_arrow_value_is_stored_as_it_is_or_refused(
    berlin: LakebaseHook, probe: Probe, tmp_path: Path, kind: str, values: pa.Array, stored: str | None
):
    table = pa.table({"id": pa.array([1, 2], pa.int32()), "v": values})
    # Beside a column whose values only go row by row, and by itself.
    sources: list[Any] = [table.append_column("w", pa.array([0.5, 1.5]))]
    try:
        pq.write_table(table, tmp_path / "t.parquet")
        sources.append(tmp_path / "t.parquet")
    except pa.ArrowNotImplementedError:  # Parquet has no such type
        sources.append(table)
    check(berlin, probe, f"{kind}, w numeric", sources, stored, "row 2")


def test_an_empty_text_and_null_stay_apart_in_every_kind_of_file(berlin: LakebaseHook, probe: Probe, tmp_path: Path):
    table = probe.make_table("text")
    berlin.load([(1, ""), (2, None), (3, "NULL"), (4, "null"), (5, "\\N"), (6, " ")], table, mode="replace")
    before = probe.read()
    assert before == {1: "", 2: None, 3: "NULL", 4: "null", 5: "\\N", 6: " "}
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        berlin.export(f"SELECT * FROM {table}", tmp_path / name)
        berlin.load(tmp_path / name, table, mode="replace")
        assert probe.read() == before, name
    berlin.export(f"SELECT * FROM {table}", tmp_path / "null.csv", null="NULL")
    berlin.load(tmp_path / "null.csv", table, mode="replace", null="NULL")
    assert probe.read() == before


# ── Where rows stand ──


def as_tuples(rows: list[tuple[int, Any]], directory: Path) -> Any:
    return iter(rows)


def as_dicts(rows: list[tuple[int, Any]], directory: Path) -> Any:
    return ({"id": number, "v": value} for number, value in rows)


def as_csv(rows: list[tuple[int, Any]], directory: Path) -> Any:
    with (directory / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "v"), *rows])
    return directory / "t.csv"


def as_json_lines(rows: list[tuple[int, Any]], directory: Path) -> Any:
    lines = (json.dumps({"id": number, "v": value}) for number, value in rows)
    (directory / "t.jsonl").write_text("\n".join(lines))
    return directory / "t.jsonl"


def as_table(rows: list[tuple[int, Any]], directory: Path) -> Any:
    ids, values = zip(*rows, strict=True)
    if any(isinstance(value, str) for value in values):
        values = tuple(value if value is None else str(value) for value in values)
    return pa.table({"id": pa.array(ids, pa.int32()), "v": pa.array(values)})


def as_parquet(rows: list[tuple[int, Any]], directory: Path) -> Any:
    pq.write_table(as_table(rows, directory), directory / "t.parquet", row_group_size=3000)
    return directory / "t.parquet"


SOURCES = {
    "tuples": (as_tuples, "row {}", 0),
    "dicts": (as_dicts, "row {}", 0),
    "csv": (as_csv, "line {}", 1),
    "jsonl": (as_json_lines, "line {}", 0),
    "arrow": (as_table, "row {}", 0),
    "parquet": (as_parquet, "row {}", 0),
}
every_source = pytest.mark.parametrize("source", SOURCES)


@every_source
@pytest.mark.parametrize("number", [1, 201, 10_001])
@pytest.mark.parametrize("bad", [2**31, SECRET])
def test_a_bad_value_is_found_at_the_row_where_it_stands(
    berlin: LakebaseHook, probe: Probe, tmp_path: Path, source: str, number: int, bad: Any
):
    make, place, header = SOURCES[source]
    rows = [(row, bad if row == number else row) for row in range(1, 10_101)]
    table = probe.make_table("integer")
    mode = MODES[number % 3]
    with pytest.raises(LakebaseLoadError, match=rf"rejects {place.format(number + header)}, column v, of"):
        berlin.load(make(rows, tmp_path), table, mode=mode)
    assert probe.read() == {0: None}


@pytest.mark.parametrize("source", ["tuples", "dicts", "jsonl", "arrow", "parquet"])
@pytest.mark.parametrize("odd", [1, 201, 10_001])
def test_an_odd_value_changes_how_rows_are_sent_and_nothing_else(
    berlin: LakebaseHook, probe: Probe, tmp_path: Path, source: str, odd: int
):
    make, place, _ = SOURCES[source]
    rows: list[tuple[int, Any]] = [(row, row + 0.5) for row in range(1, 10_201)]
    rows[odd - 1] = (odd, "NaN") if source not in ("arrow", "parquet") else (odd, None)
    table = probe.make_table("numeric")
    probe.run(f"DELETE FROM {table}")
    berlin.load(make(rows, tmp_path), table, mode=MODES[odd % 3])
    expected = {row: None if value is None else str(value) for row, value in rows}
    assert probe.read() == expected
    rows[10_150] = (10_151, "no number")
    with pytest.raises(LakebaseLoadError, match=rf"{place.format(10_151)}, column v, of"):
        berlin.load(make(rows, tmp_path), table, mode="replace")
    assert probe.read() == expected


def test_a_bad_value_of_an_arrow_table_in_chunks_and_slices_is_found_at_its_row(berlin: LakebaseHook, probe: Probe):
    table = probe.make_table("integer")
    good = pa.table({"id": pa.array(range(-30, 30), pa.int64()), "v": pa.array(range(-30, 30), pa.int64())})
    bad = pa.table({"id": pa.array([100, 101]), "v": pa.array([1, 2**31])})
    source = pa.concat_tables([good.slice(31, 7), good.slice(40, 3), bad])
    assert source["v"].num_chunks == 3
    with pytest.raises(LakebaseLoadError, match="row 12, column v, of"):
        berlin.load(source, table)
    reader = pa.RecordBatchReader.from_batches(source.schema, iter(source.to_batches()))
    with pytest.raises(LakebaseLoadError, match="row 12, column v, of"):
        berlin.load(reader, table, mode="upsert")
    assert probe.read() == {0: None}
    berlin.load(source.slice(2, 8), table, mode="replace")
    assert probe.read() == {n: str(n) for n in (3, 4, 5, 6, 7, 10, 11, 12)}


@pytest.mark.parametrize(
    ("kind", "bad"), [("numeric(10,2)", "1.005"), ("integer", "x"), ("timestamp(0)", "2024-02-29 1:00:00.5")]
)
@pytest.mark.parametrize("mode", MODES)
def test_lines_of_a_csv_file_are_counted_as_an_editor_counts_them(
    berlin: LakebaseHook, probe: Probe, kind: str, bad: str, mode: Any
):
    """A quoted value may hold line breaks, in the header as well; what is looked at afterwards is told by its row."""
    table = probe.make_table(kind)
    probe.run(f"ALTER TABLE {table} ADD note text")
    file = io.BytesIO(f'id,note,v\n1,"a\nb\nc",\n2,d,{bad}\n'.encode())
    with pytest.raises(LakebaseLoadError, match="rejects (line 5|row 2), column v, of"):
        berlin.load(file, table, mode=mode)
    probe.run(f'ALTER TABLE {table} RENAME note TO "no\nte"')
    file = io.BytesIO(f'id,"no\nte",v\n1,a,\n2,d,{bad}\n'.encode())
    with pytest.raises(LakebaseLoadError, match="rejects (line 4|row 2), column v, of"):
        berlin.load(file, table, mode=mode)


# ── What messages hold ──

LEAKS: Sequence[tuple[str, Any]] = [
    ("integer", SECRET),
    ("integer", f"5, line 99, column {SECRET}: 5"),
    ("timestamptz", SECRET),
    ("timestamp(0)", SECRET),
    ("numeric(10,2)", SECRET),
    ("jsonb", f'{{"{SECRET}": '),
    ("jsonb", f'{{"COPY t, line 99, column {SECRET}: '),
    ("jsonb", f'{{"{SECRET}": "\\u0000"}}'),
    ("uuid", SECRET),
    ("mood", SECRET),
    ("bytea", f"\\x{SECRET}"),
    ("int4range", SECRET),
    ("inet", SECRET),
    ("integer[]", f"{{{SECRET}}}"),
    ("vector(3)", f"[{SECRET}]"),
    ("varchar(3)", SECRET),
    ("text", f"{SECRET}\0"),
    ("text CHECK (v = 'x')", SECRET),
    ("text UNIQUE", SECRET),
]


@every_source
@pytest.mark.parametrize(("kind", "bad"), [pytest.param(*each, id=f"{each[0]}-{n}") for n, each in enumerate(LEAKS)])
def test_no_message_holds_a_value(
    berlin: LakebaseHook, probe: Probe, tmp_path: Path, source: str, kind: str, bad: str, task_log: Callable[[], str]
):
    make, place, header = SOURCES[source]
    if kind == "jsonb" and source == "jsonl":  # where any str is good, as JSON's string
        kind = "json[]"
    table = probe.make_table(kind)
    rows: list[tuple[int, Any]] = [(1, None), (2, bad)]
    if kind == "text UNIQUE":
        rows.append((3, bad))
    mode = MODES[(len(kind) + len(source)) % 3]
    with pytest.raises(LakebaseLoadError) as refused:
        berlin.load(make(rows, tmp_path), table, mode=mode)
    shown = "".join(traceback.format_exception(refused.value)) + task_log()
    assert SECRET not in shown
    if kind != "text UNIQUE":
        assert f"rejects {place.format(2 + header)}" in str(refused.value)
    assert probe.read() == {0: None}


def test_no_message_holds_a_value_of_a_row_of_another_shape(
    berlin: LakebaseHook, probe: Probe, tmp_path: Path, task_log: Callable[[], str]
):
    table = probe.make_table("text")
    files = {
        "long.csv": f"id,v\n1,a\n2,b,{SECRET}\n",
        "open.csv": f'id,v\n1,"{SECRET}\n',
        "no.jsonl": f'{{"id": "{SECRET}\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "latin.csv").write_bytes(f"id,v\n1,{SECRET}é\n".encode("latin-1"))
    (tmp_path / "latin.jsonl").write_bytes(f'{{"id": 1, "v": "{SECRET}é"}}\n'.encode("latin-1"))
    duplicates = pa.table({"id": [1], "v": pa.array([[(SECRET, 1), (SECRET, 2)]], pa.map_(pa.string(), pa.int32()))})
    rows = [
        [(1, SECRET, SECRET)],
        [(1,)],
        iter([SECRET]),
        [(1, "a"), SECRET],
        [(1, "a"), 5],
        [{"id": 1, "v": {SECRET: 1}}],
    ]
    for source in (*(tmp_path / name for name in (*files, "latin.csv", "latin.jsonl")), *rows, duplicates):
        with pytest.raises(LakebaseError) as refused:
            berlin.load(source, table)
        assert SECRET not in "".join(traceback.format_exception(refused.value)) + task_log()
    assert probe.read() == {0: None}


@pytest.mark.parametrize("name", ["a: b", "a, line 5", "a, column b: ", 'q"uote', "%s", "é"])
@pytest.mark.parametrize("mode", MODES)
def test_a_column_of_any_name_is_named_in_the_message(berlin: LakebaseHook, probe: Probe, name: str, mode: Any):
    table = probe.make_table("integer")
    probe.run("ALTER TABLE {} RENAME v TO {}".format(table, '"' + name.replace('"', '""') + '"'))
    for source in ([(1, 5), (2, 2**31)], [(1, 5), (2, 2.5)]):
        with pytest.raises(LakebaseLoadError) as refused:
            berlin.load(source, table, mode=mode)
        assert f"rejects row 2, column {name}, of" in str(refused.value)


# ── What is refused before anything changes ──


@pytest.fixture
def kept(probe: Probe) -> Iterator[str]:
    """A table that must be as it was after the test."""
    table = probe.make_table("text")
    probe.run(f"ALTER TABLE {table} ADD g integer GENERATED ALWAYS AS (id + 1) STORED")
    yield table
    assert probe.read() == {0: None}


WRONG: Sequence[tuple[Any, dict[str, Any], str]] = [
    ([{"id": 1, "nope": 1}], {}, "has no column 'nope'.*The table's columns are id, v.*Map"),
    ([{"id": 1, "g": 1}], {}, "'g'.*generated.*Leave it to the table"),
    ([(1, 2)], {"columns": ["id", "g"]}, "'g'.*generated"),
    ([(1, 2)], {"columns": ["id", "nope"]}, "columns names 'nope'.*Its columns are id, v"),
    ([(1, 2)], {"columns": ["id", "id"]}, "twice"),
    ([{"a": 1, "b": 2}], {"columns": {"a": "id", "b": "id"}}, "twice"),
    ([{"a": 1}], {"columns": {"a": "nope"}}, "columns names 'nope'.*Its columns are id, v"),
    ([("x",)], {"columns": ["v"], "mode": "upsert"}, "key_columns contains 'id'"),
    ([(1, "x")], {"columns": ["id", "v"], "mode": "upsert", "key_columns": ["v"]}, "no unique index on exactly v"),
    ([(1, "x")], {"columns": ["id", "v"], "mode": "upsert", "key_columns": ["nope"]}, "nope"),
    ([(1, "x")], {"columns": ["id", "v"], "mode": "upsert", "update_columns": ["nope"]}, "'nope'"),
    ([(1, "x")], {"columns": ["id", "v"], "mode": "upsert", "version_column": "nope"}, "'nope'"),
    ([(1, "x")], {"mode": "merge"}, "mode is 'merge'.*append, replace, upsert"),
    ([(1, "x")], {"duplicates": "first", "mode": "upsert"}, "duplicates is 'first'"),
    ([(1, "x")], {"casts": {"nope": "int"}, "columns": ["id", "v"]}, "'nope'"),
    ([{"id": "1"}], {"casts": {"id": "itn"}}, "casts maps column 'id' to 'itn', which is not a type"),
    ([{"id": "1"}], {"casts": {"id": "int) --"}}, "which is not a type"),
    ([(1,)], {}, "row 1 of the source: it has 1 values for 2 columns; name those that it has as 'columns'"),
    ([io.BytesIO(b"id\n1\n")], {}, "list of open files.*one at a time"),
    ([{"x": 1, "y": "a"}], {"columns": ["id", "v"]}, "row 1 of the source: it has the key 'x', which neither"),
    ([{"id": 1, "v": "a"}, {"id": 2, 5: 1, "x": 2}], {}, "row 2 of the source: it has the key '5', which neither"),
    ([{"x": 1}, {"x": 2, "y": 3}], {"columns": {"X": "v", "x": "id"}}, "a row of .*no row has a value for 'X'"),
    (
        [{"x": 1, "y": "a"}, {"x": 2, "y": "a"}],
        {"columns": {"X": "v", "x": "id"}},
        "a row of the source: no row has a value for 'X'",
    ),
    ([(1, "x")], {"null": "NA"}, "null is given, but the source is no CSV"),
    ([(1, "x")], {"header": False}, "header is given, but the source is no CSV"),
    ([(1, "x")], {"load_id": " "}, "load_id is empty"),
    ([pa.record_batch({"id": [1]}), pa.record_batch({"v": ["x"]})], {}, "different columns from the first one"),
    (b"id\n1\n", {"mode": "replace"}, "bytes"),
    (5, {"mode": "replace"}, "int"),
]


@pytest.mark.parametrize(("source", "options", "message"), WRONG)
def test_what_cannot_be_is_refused_before_anything_changes(
    berlin: LakebaseHook, kept: str, source: Any, options: dict[str, Any], message: str
):
    with pytest.raises((LakebaseLoadError, LakebaseSettingsError), match=message):
        berlin.load(source, kept, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names its columns"),
        (b"1,2\n", "Name 1 in the first line of the file is no column .*header=False"),
        (b"id,v,id\n1,a,2\n", "names a column twice"),
        (b"id,,v\n1,2,3\n", "column 2 has no name"),
        ("id,v\n1,a\n".encode("utf-16"), "UTF-8"),
        ("id,v\n1,a\n".encode("utf-16-le"), "UTF-8|no column"),
        ("id,né\n".encode("latin-1"), "UTF-8"),
        (gzip.compress(b"\xff,v\n1,a\n", mtime=0), "UTF-8"),
        (gzip.compress(b"id,v\n1,a\n", mtime=0)[:9], "damaged or truncated"),
        (b"id;v\n1;a\n", "no column"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_csv_file_without_a_header_in_utf_8_is_refused(
    berlin: LakebaseHook, kept: str, content: bytes, message: str, mode: Any
):
    with pytest.raises(LakebaseLoadError, match=message):
        berlin.load(io.BytesIO(content), kept, mode=mode, format="csv")


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_file_opened_as_text_is_refused(berlin: LakebaseHook, kept: str, format: Any):
    with pytest.raises((LakebaseLoadError, LakebaseSettingsError), match="rb"):
        berlin.load(io.StringIO("id,v\n1,a\n"), kept, mode="replace", format=format)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory, schema: None) -> Path:
    """Files of 100,000 rows that do not compress well, so that damage is met after much was sent."""
    directory = tmp_path_factory.mktemp("whole")
    query = "SELECT n AS id, md5(n::text) AS v FROM generate_series(1, 30000) AS n"
    for name in ("t.csv.gz", "t.csv.zst", "t.jsonl.gz", "t.jsonl.zst", "t.parquet"):
        LakebaseHook().export(query, directory / name)
    return directory


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.zst", "t.jsonl.gz", "t.jsonl.zst", "t.parquet"])
@pytest.mark.parametrize("damage", ["cut", "cut to nothing", "changed", "another"])
def test_a_damaged_file_is_refused_and_named(
    berlin: LakebaseHook, kept: str, whole_files: Path, tmp_path: Path, name: str, damage: str
):
    content = (whole_files / name).read_bytes()
    middle = len(content) // 2
    damaged = {
        "cut": content[: middle * 3 // 2],
        "cut to nothing": content[:5],
        "changed": content[:middle] + bytes(64) + content[middle + 64 :],
        "another": b"PK\x03\x04id,v\n1,a\n",
    }[damage]
    (tmp_path / name).write_bytes(damaged)
    for mode in ("replace", "upsert"):
        # What was changed may as well be met as a line that makes no sense.
        said = "(damaged|truncated|not a readable Parquet file|zip file)" if damage != "changed" else ""
        with pytest.raises(LakebaseLoadError, match=f"{name}.*{said}"):
            berlin.load(tmp_path / name, kept, mode=mode)


@pytest.fixture
def synced(emulator: LakebaseEmulator) -> Iterator[Callable[[], list[Any]]]:
    """A synced table; the function gives its rows."""
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        connection.execute("CREATE ROLE databricks_writer_1")
        connection.execute("CREATE TABLE public.synced AS SELECT 7 AS id, 'old' AS v")
        connection.execute("ALTER TABLE public.synced OWNER TO databricks_writer_1")
        connection.execute("GRANT ALL ON public.synced TO public")
        yield lambda: connection.execute("SELECT * FROM public.synced").fetchall()
        connection.execute("DROP TABLE public.synced")
        connection.execute("DROP ROLE databricks_writer_1")


@pytest.mark.parametrize("mode", MODES)
def test_a_synced_table_is_refused(berlin: LakebaseHook, synced: Callable[[], list[Any]], mode: Any):
    with pytest.raises(LakebaseLoadError, match="synced table.*Unity Catalog"):
        berlin.load([(1, "a")], "public.synced", mode=mode)
    assert synced() == [(7, "old")]


@pytest.mark.parametrize("mode", MODES)
def test_a_view_is_refused(berlin: LakebaseHook, probe: Probe, kept: str, mode: Any):
    probe.run(f'CREATE VIEW "values".w AS SELECT * FROM {kept}')
    probe.run(f'CREATE MATERIALIZED VIEW "values".m AS SELECT * FROM {kept}')
    try:
        with pytest.raises(LakebaseLoadError, match="is a view.*Name the table"):
            berlin.load([(1, "a")], '"values".w', mode=mode)
        with pytest.raises(LakebaseLoadError, match="is a materialized view.*Name the table"):
            berlin.load([(1, "a")], '"values".m', mode=mode)
    finally:
        probe.run('DROP VIEW "values".w')
        probe.run('DROP MATERIALIZED VIEW "values".m')


@pytest.mark.parametrize("name", ['"values".nothing', "nowhere.t", "not a name", "", 'a"b', "a.b.c.d", "t; SELECT 1"])
@pytest.mark.parametrize("mode", MODES)
def test_a_name_of_no_table_is_refused(berlin: LakebaseHook, name: str, mode: Any):
    with pytest.raises(LakebaseLoadError, match="no table.*Create it first"):
        berlin.load([(1, "a")], name, mode=mode)
