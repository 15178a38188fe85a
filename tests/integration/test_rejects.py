"""Rows that cannot be stored are left out up to a limit, and written to a table of rejects; all others are exact."""

from __future__ import annotations

import csv
import datetime
import json
import logging
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseRejectLimitError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

TABLE = "rejects.t"
ROME = ZoneInfo("Europe/Rome")
REJECTS = "rejects.bad"


@pytest.fixture(autouse=True)
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run("DROP SCHEMA IF EXISTS rejects CASCADE; CREATE SCHEMA rejects")
    yield
    hook.run("DROP SCHEMA rejects CASCADE")


@pytest.fixture
def orders(hook: LakebaseHook) -> str:
    hook.run(f"""
        CREATE TABLE {TABLE} (
            id int PRIMARY KEY, price numeric(8, 2) CHECK (price > 0), day date NOT NULL, note varchar(5)
        )
    """)
    return TABLE


def found(hook: LakebaseHook, table: str = TABLE) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = hook.get_records(f"SELECT * FROM {table} ORDER BY 1")
    return rows


def rejected(hook: LakebaseHook, *columns: str) -> list[tuple[Any, ...]]:
    names = ", ".join(columns or ("number", "column_name", "sqlstate"))
    rows: list[tuple[Any, ...]] = hook.get_records(f"SELECT {names} FROM {REJECTS} ORDER BY source, number, raw")
    return rows


GOOD = [["1", "1.50", "2026-11-01", "a"], ["9", "2.25", "2026-11-02", ""]]
BAD = {
    "type": (["x", "1.50", "2026-11-01", "a"], "id", "22P02"),
    "range": (["99999999999", "1.50", "2026-11-01", "a"], "id", "22003"),
    "digits": (["2", "1.555", "2026-11-01", "a"], "price", "22000"),
    "too large": (["2", "1234567.00", "2026-11-01", "a"], "price", "22003"),
    "date": (["2", "1.50", "2026-02-30", "a"], "day", "22008"),
    "lossy date": (["2", "1.50", "2026-11-01 12:00", "a"], "day", "22007"),
    "length": (["2", "1.50", "2026-11-01", "abcdef"], "note", "22001"),
    "null": (["2", "1.50", "", "a"], "day", "23502"),
    "null key": (["", "1.50", "2026-11-01", "a"], "id", "23502"),
    "check": (["2", "-1.50", "2026-11-01", "a"], "price", "23514"),
    "repeated": (["1", "1.50", "2026-11-01", "b"], "id", "23505"),
    "exists": (["7", "1.50", "2026-11-01", "b"], "id", "23505"),
}
MODES: dict[str, dict[str, Any]] = {
    "append": {"mode": "append"},
    "replace": {"mode": "replace", "replace_where": "id < 100 AND id <> 7"},
    "upsert": {"mode": "upsert", "duplicates": "error"},
}


def expected_kinds(mode: str) -> dict[str, tuple[list[str], str, str]]:
    return {kind: bad for kind, bad in BAD.items() if not (mode == "upsert" and kind == "exists")}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet", "tuples", "dicts"])
def test_each_kind_of_bad_row_is_left_out_of_each_source_in_each_mode(
    hook: LakebaseHook, orders: str, tmp_path: Path, form: str, mode: str
):
    hook.run(f"INSERT INTO {orders} VALUES (7, 7, '2026-01-01', 'old')")
    kinds = expected_kinds(mode)
    rows = [GOOD[0], *(row for row, _, _ in kinds.values()), GOOD[1]]
    source = write(rows, form, tmp_path)
    options: dict[str, Any] = {"columns": ["id", "price", "day", "note"]} if form == "tuples" else {}
    result = hook.load(source, orders, reject_limit=len(kinds), rejects_table=REJECTS, **MODES[mode], **options)
    assert (result.rows, result.rejected) == (2, len(kinds))
    day = datetime.date(2026, 11, 1)
    note = None if form == "csv" else ""
    rows_now = [row for row in found(hook) if row[0] != 7]
    assert [(id, str(price), when, text) for id, price, when, text in rows_now] == [
        (1, "1.50", day, "a"),
        (9, "2.25", day.replace(day=2), note),
    ]
    first = 3 if form == "csv" else 2
    assert rejected(hook) == [
        (number, column, state) for number, (_, column, state) in enumerate(kinds.values(), first)
    ]
    for (raw,), (row, _, _) in zip(rejected(hook, "raw"), kinds.values(), strict=True):
        for value in row:
            assert value in raw


def write(rows: list[list[str]], form: str, folder: Path) -> Any:
    names = ["id", "price", "day", "note"]
    if form == "tuples":
        return [tuple(value if n == 3 else value or None for n, value in enumerate(row)) for row in rows]
    dicts = [
        {name: value if name == "note" else value or None for name, value in zip(names, row, strict=True)}
        for row in rows
    ]
    if form == "dicts":
        return dicts
    path = folder / f"orders.{form}"
    if form == "csv":
        path.write_text("\n".join(",".join(row) for row in [names, *rows]))
    elif form == "json":
        path.write_text(json.dumps(dicts))
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, dicts)))
    else:
        pq.write_table(pa.Table.from_pylist(dicts), path)
    return path


TYPES = [
    *("smallint", "integer", "bigint", "real", "double precision", "numeric", "numeric(5,2)", "numeric(2,-2)", "money"),
    *("text", "varchar(3)", "char(3)", '"char"', "name", "boolean", "uuid", "bytea", "json", "jsonb", "inet"),
    *("date", "timestamp", "timestamp(0)", "timestamptz", "time", "time(1)", "timetz", "interval", "interval(0)"),
    *("interval day", "integer[]", "text[]", "numeric(3,1)[]", "varchar(2)[]", "date[]", "timestamp(0)[]"),
    *("daterange", "tstzrange", "int4multirange", "bit(3)", "varbit(3)", "point", "oid", "pg_lsn", "name[]"),
    *("rejects.mood", "rejects.small", "rejects.short", "rejects.pair", "rejects.small[]", "rejects.never"),
]
QUICK = ("smallint", "numeric(5,2)", "varchar(3)", '"char"', "date", "numeric(3,1)[]", "rejects.never")
"""The types that every run takes."""
TEXTS = [
    *("0", "1", "-1", "1.5", "1.25", "1.255", "1.0", "1e3", "150", "99999", "2147483648", "9223372036854775808"),
    *("0x10", "1_000", " 1", "1 ", "NaN", "Infinity", "-0", "1e400", "1e-400", "a", "abc", "abcd", "ab ", "äää"),
    *("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "t", "yes", "on", "", "null", "NULL"),
    *("2026-11-01", "2026-02-30", "2026-11-01 12:00", "2026-11-01T12:00:00Z", "11/01/2026", "infinity"),
    *("0044-03-15 BC", "2026-11-01 00:00:00.1234567", "2026-11-01 23:59:59.9", "now", "24:00", "12:00:00.05"),
    *("12:00+02", "1 day", "1.5 years", "1 day 02:03:04.5", "P1DT1H", "{}", "{1,2}", "{1.25}", "{abc}"),
    *("{2026-11-01}", "{NULL}", "{1,", "[1,2]", '{"a": 1}', '{"a": 1, "a": 2}', "<a/>", "<a>", "10.0.0.1", "101"),
    *("10", "[2026-11-01,2026-11-05)", "empty", "{[1,3)}", "(1,2)", "(1,x)", "sad", "happy", "pg_class"),
    *("0/16B3748", "\\\\x00", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "\\xdeadbeef", "$1.50", "1,000", "'", '"'),
]


@pytest.mark.parametrize("form", ["csv", "tuples"])
@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.long) for kind in TYPES]
)
def test_a_load_that_leaves_rows_out_stores_and_rejects_what_a_load_without_does(
    hook: LakebaseHook, kind: str, form: str, tmp_path: Path
):
    hook.run(f"""
        CREATE TYPE rejects.mood AS ENUM ('sad', 'happy'); CREATE TYPE rejects.pair AS (a int, b varchar(1));
        CREATE DOMAIN rejects.small AS numeric(3,1) CHECK (value < 50); CREATE DOMAIN rejects.short AS varchar(2);
        CREATE DOMAIN rejects.never AS int NOT NULL; CREATE TABLE {TABLE} (n int, value {kind})
    """)

    def source(rows: list[tuple[int, str]]) -> Any:
        if form == "tuples":
            return rows
        with (path := tmp_path / "values.csv").open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([("n", "value"), *rows])
        return path

    stored = f"SELECT n, value::text FROM {TABLE} ORDER BY n"
    expected = []
    rows = list(enumerate(TEXTS))
    with hook.get_conn() as connection:
        for row in rows:
            try:
                with connection.transaction():
                    load(connection, source([row]), TABLE)
            except (LakebaseLoadError, psycopg.Error):
                continue
            expected.append(row[0])
        before = connection.execute(stored).fetchall()
        connection.execute(f"DELETE FROM {TABLE}")
        result = load(connection, source(rows), TABLE, LoadOptions(reject_limit="100%"))
        after = connection.execute(stored).fetchall()
        connection.rollback()
    assert after == before
    assert result.rejected == len(TEXTS) - len(expected)


TYPED = {
    "i2 smallint": [-32768, 32767],
    "i8 bigint": [-(2**63), 2**63 - 1],
    "f4 real": [3.6935433912507644e-33, 3.4e38],
    "f8 double precision": [0.1 + 0.2, -1e-300],
    "special double precision": [float("nan"), float("-inf")],
    "n numeric": [Decimal("0.10"), Decimal("-12345678901234567890.5")],
    "n2 numeric(9,2)": [Decimal("1.5"), Decimal("-0.01")],
    "b boolean": [True, False],
    "t text": ['a,"b"\\.\n', "\\N"],
    "d date": [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)],
    "ts timestamp": [datetime.datetime(2026, 1, 1, 1, 2, 3, 4), datetime.datetime.max],
    "tz timestamptz": [datetime.datetime(1900, 1, 1, tzinfo=datetime.UTC), datetime.datetime(2026, 7, 1, tzinfo=ROME)],
    "o time": [datetime.time(0, 0), datetime.time(23, 59, 59, 999999)],
    "v interval": [datetime.timedelta(days=1, microseconds=-1), datetime.timedelta(0)],
    "u uuid": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
    "y bytea": [b"\x00\\x", b""],
    "j jsonb": [{"a": [1, None, "\\"]}, []],
    "l integer[]": [[1, None], []],
}


@pytest.mark.parametrize(
    "form", ["tuples", "dicts", "arrow", "one column each", "jsonl", "export.csv", "export.parquet"]
)
def test_typed_values_are_stored_the_same_with_and_without_rejects(hook: LakebaseHook, tmp_path: Path, form: str):
    hook.run(f"CREATE TABLE {TABLE} ({', '.join(TYPED)}); CREATE TABLE rejects.other (LIKE {TABLE})")
    names = [column.partition(" ")[0] for column in TYPED]
    rows = [*zip(*TYPED.values(), strict=True), (None,) * len(names)]
    hook.load(rows, TABLE)
    if form.startswith("export") or form == "jsonl":
        source: Any = tmp_path / f"rows.{form}"
        if form == "jsonl":  # JSON has no NaN
            hook.run(f"UPDATE {TABLE} SET special = 0")
        hook.export(TABLE, source, **({"null": "NULL"} if form == "export.csv" else {}))
    elif form == "dicts":
        source = [dict(zip(names, row, strict=True)) for row in rows]
    elif form in ("arrow", "one column each"):
        columns = {name: [row[n] for row in rows] for n, name in enumerate(names)}
        columns["u"] = [value and str(value) for value in columns["u"]]
        columns["j"] = [None if value is None else json.dumps(value) for value in columns["j"]]
        source = pa.table(columns)
    else:
        source = rows
    options: dict[str, Any] = {"reject_limit": 1, **({"null": "NULL"} if form == "export.csv" else {})}
    if form == "one column each":
        for name in names:
            hook.run(f"DELETE FROM rejects.other; DELETE FROM {TABLE}")
            hook.load(source.select([name]), TABLE)
            assert hook.load(source.select([name]), "rejects.other", **options).rejected == 0
            query = f"SELECT {name}::text FROM {{}} ORDER BY 1"
            assert hook.get_records(query.format(TABLE)) == hook.get_records(query.format("rejects.other"))
        return
    assert hook.load(source, "rejects.other", **options).rejected == 0
    both = [hook.get_records(f"SELECT t::text FROM {table} AS t ORDER BY i2") for table in (TABLE, "rejects.other")]
    assert both[0] == both[1]


def test_lines_that_are_no_rows_are_left_out_of_a_csv_file(hook: LakebaseHook, tmp_path: Path):
    hook.run(f"CREATE TABLE {TABLE} (a int, b text)")
    path = tmp_path / "lines.csv"
    lines = [
        b"a,b",
        b"1,one",
        b"2",
        b"3,three,more",
        b'4,fo"ur',
        b'5,"five" more',
        b"6,s\xefx",
        b"7,se\0ven",
        b'8,"eig',
        b'ht"',
        b"",
        b'9,"ne,ver closed',
        b"10,ten",
        b'11,"el""even"',
        b'12,"open',
        b"13,last",
    ]
    path.write_bytes(b"\n".join(lines))
    result = hook.load(path, TABLE, reject_limit=50, rejects_table=REJECTS)
    assert found(hook) == [(1, "one"), (8, "eig\nht"), (10, "ten"), (11, 'el"even'), (13, "last")]
    assert result.rejected == 9
    assert rejected(hook, "number", "unit", "sqlstate", "raw") == [
        (3, "line", "22P04", "2"),
        (4, "line", "22P04", "3,three,more"),
        (5, "line", "22P04", '4,fo"ur'),
        (6, "line", "22P04", '5,"five" more'),
        (7, "line", "22021", "6,s\\xefx"),
        (8, "line", "22021", "7,se\\0ven"),
        (11, "line", "22P04", ""),
        (12, "line", "22P04", '9,"ne,ver closed'),
        (15, "line", "22P04", '12,"open'),
    ]


def test_lines_that_are_no_objects_are_left_out_of_json_lines(hook: LakebaseHook, tmp_path: Path):
    hook.run(f"CREATE TABLE {TABLE} (a int, b jsonb)")
    path = tmp_path / "lines.jsonl"
    lines = ["{", '{"a": 1, "b": [1]}', "[1]", '{"a": 2, "a": 3}', '{"a": NaN}', '{"c": 1}', '{"a": 4, "b": null}']
    lines.append('{"a": 1e999999999999999999999}')
    path.write_text("\n".join(lines))
    result = hook.load(path, TABLE, reject_limit=6, rejects_table=REJECTS)
    assert (result.rows, result.rejected) == (2, 6)
    assert [number for number, raw in rejected(hook, "number", "raw")] == [1, 3, 4, 5, 6, 8]
    assert [raw for number, raw in rejected(hook, "number", "raw")][:4] == [lines[0], *lines[2:5]]


def test_rows_of_python_that_are_no_rows_are_left_out(hook: LakebaseHook):
    hook.run(f"CREATE TABLE {TABLE} (a int, b text)")
    loop: list[Any] = []
    loop.append(loop)
    rows: list[Any] = [(1, "x"), (2,), "text", 3, {"c": 1}, (4, "\0"), (5, "\ud800"), (6, loop), (7, "y"), (2**70, "z")]
    result = hook.load(iter(rows), TABLE, reject_limit="90%", rejects_table=REJECTS)
    assert found(hook) == [(1, "x"), (7, "y")]
    assert [number for (number,) in rejected(hook, "number")] == [2, 3, 4, 5, 6, 7, 8, 10]
    assert (result.rows, result.rejected) == (2, 8)


UNWRITABLE: list[tuple[str, Any, Any]] = [
    ("jsonb", {}, {"a": float("nan")}),
    ("json", {}, {(1,): 1}),
    ("text", "a", "b\0"),
    ("varchar(9)", "a", "b\ud800"),
    ("bytea", b"a", memoryview(b"abcdef")[::2]),
]


@pytest.mark.parametrize(
    ("form", "kind", "good", "bad"),
    [
        pytest.param(form, *each, id=f"{form}-{each[0]}")
        for form in ("tuples", "dicts", "jsonl", "json")
        for each in UNWRITABLE
        if form in ("tuples", "dicts") or isinstance(each[2], str)
    ],
)
def test_a_bad_value_of_the_expected_type_is_left_out_of_its_batch(
    hook: LakebaseHook, tmp_path: Path, form: str, kind: str, good: Any, bad: Any
):
    hook.run(f"CREATE TABLE {TABLE} (id int, v {kind})")
    rows: list[tuple[int, Any]] = [(n, bad if n in (3, 5, 700) else good) for n in range(1, 1001)]
    source: Any = rows
    if form != "tuples":
        source = [{"id": n, "v": value} for n, value in rows]
    if form in ("json", "jsonl"):
        source, dicts = tmp_path / f"rows.{form}", source
        source.write_text(json.dumps(dicts) if form == "json" else "\n".join(map(json.dumps, dicts)))
    result = hook.load(source, TABLE, reject_limit=3, rejects_table=REJECTS)
    assert (result.rows, result.rejected) == (997, 3)
    assert [id for id, _ in found(hook)] == [n for n, value in rows if value is good]
    assert [each[:2] for each in rejected(hook)] == [(3, "v"), (5, "v"), (700, "v")]


@pytest.mark.parametrize(("limit", "fits"), [(1, False), (2, True), ("19.9%", False), ("20%", True), ("100%", True)])
def test_nothing_is_loaded_beyond_the_limit(hook: LakebaseHook, orders: str, limit: Any, fits: bool):
    rows = [(n, "1", "2026-11-01", None) for n in range(8)] + [(None, "1", "2026-11-01", None), ("?", 1, "?", None)]
    if fits:
        assert hook.load(rows, orders, reject_limit=limit).rejected == 2
        assert len(found(hook)) == 8
        return
    with pytest.raises(LakebaseRejectLimitError, match=r"reject_limit=.*row (9|10) of the source") as caught:
        hook.load(rows, orders, reject_limit=limit, rejects_table=REJECTS)
    assert caught.value.rejected == 2
    assert "?" not in str(caught.value)
    assert found(hook) == []
    assert hook.get_first("SELECT to_regclass(%s)", parameters=[REJECTS]) == (None,)


def test_the_log_says_how_many_and_where_but_no_value(
    hook: LakebaseHook, orders: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    rows = [("secret", 1, "2026-11-01", None), (1, "classified", "2026-11-01", None), (2, 1, "2026-11-01", None)]
    hook.load(rows, orders, reject_limit=2, rejects_table=REJECTS)
    assert "2 rows cannot be stored" in caplog.text
    assert REJECTS in caplog.text
    assert "1 × SQLSTATE 22P02 (invalid text representation) in column id" in caplog.text
    assert "secret" not in caplog.text
    assert "classified" not in caplog.text


def test_a_repeated_load_of_one_identity_reports_the_same_and_records_no_row_twice(hook: LakebaseHook, orders: str):
    rows = [(1, 1, "2026-11-01", None), ("x", 1, "2026-11-01", None)]
    options: dict[str, Any] = {"reject_limit": 1, "rejects_table": REJECTS, "load_id": "this one"}
    first, second = (hook.load(rows, orders, **options) for _ in range(2))
    assert (second.already_loaded, second.rows, second.rejected) == (True, first.rows, first.rejected)
    assert rejected(hook, "load_id", "table_name", "number") == [("this one", TABLE, 2)]
    hook.forget_load("this one")
    hook.run(f"DELETE FROM {orders}")
    hook.load(rows, orders, **options)
    assert len(rejected(hook)) == 1


def test_foreign_keys_and_partitions_reject_rows(hook: LakebaseHook):
    hook.run(f"""
        CREATE TABLE rejects.shops (id int, place text, PRIMARY KEY (id, place));
        INSERT INTO rejects.shops VALUES (1, 'x');
        CREATE TABLE {TABLE} (
            id int, place text, day date, FOREIGN KEY (id, place) REFERENCES rejects.shops
        ) PARTITION BY RANGE (day);
        CREATE TABLE rejects.nov PARTITION OF {TABLE} FOR VALUES FROM ('2026-11-01') TO ('2026-12-01');
        CREATE TABLE rejects.dec PARTITION OF {TABLE} FOR VALUES FROM ('2026-12-01') TO ('2027-01-01')
    """)
    rows = [
        (1, "x", "2026-11-01"),
        (1, "y", "2026-11-01"),
        (1, "x", "2027-01-01"),
        (1, "x", None),
        (None, "y", "2026-12-31"),
    ]
    hook.load(rows, TABLE, reject_limit=5, rejects_table=REJECTS)
    assert len(found(hook)) == 2
    assert rejected(hook) == [(2, "id, place", "23503"), (3, "", "23514"), (4, "", "23514")]


def test_a_rejected_row_does_not_make_a_later_row_with_its_key_a_repeat(hook: LakebaseHook):
    hook.run(f"""
        CREATE TABLE rejects.shops (id int PRIMARY KEY);
        INSERT INTO rejects.shops VALUES (1);
        CREATE TABLE {TABLE} (id int PRIMARY KEY, shop int REFERENCES rejects.shops, code text UNIQUE);
        INSERT INTO {TABLE} VALUES (9, 1, 'taken')
    """)
    rows = [(1, 2, "a"), (1, 1, "b"), (2, 1, "taken"), (2, 1, "c"), (2, 1, "d")]
    hook.load(rows, TABLE, reject_limit=3, rejects_table=REJECTS)
    assert found(hook) == [(1, 1, "b"), (2, 1, "c"), (9, 1, "taken")]
    assert rejected(hook) == [(1, "shop", "23503"), (3, "code", "23505"), (5, "id", "23505")]


def test_a_check_applies_to_the_values_that_would_be_stored(hook: LakebaseHook):
    hook.run(f"""
        CREATE TABLE {TABLE} (a int, b int, c text COLLATE "C" CHECK (c > 'Z'), CHECK (a < b), CHECK (a / b < 10))
    """)
    rows = [("10", "9", "a"), ("9", "10", "a"), ("9", "10", "A"), (None, "1", "a"), ("x", "0", "a")]
    hook.load(rows, TABLE, reject_limit="60%", rejects_table=REJECTS)
    assert found(hook) == [(9, 10, "a"), (None, 1, "a")]
    assert rejected(hook) == [(1, "", "23514"), (3, "c", "23514"), (5, "a", "22P02")]


def test_casts_reject_what_they_cannot_read_or_would_change(hook: LakebaseHook, tmp_path: Path):
    hook.run(f"CREATE TABLE {TABLE} (a date, b numeric(4, 1), c int)")
    path = tmp_path / "casts.csv"
    path.write_text("a,b,c\n11/01/2026,1.5,1.0\n11/02/2026 10:00,1.5,1\n?,1.5,1\n11/03/2026,1.55,1\n11/04/2026,1,1.5\n")
    casts = {"a": "date", "b": "numeric", "c": "numeric"}
    hook.load(path, TABLE, casts=casts, reject_limit=9, rejects_table=REJECTS)
    assert [str(a) for a, _, _ in found(hook)] == ["2026-11-01"]
    assert [(n, c) for n, c, _ in rejected(hook)] == [(3, "a"), (4, "a"), (5, "b"), (6, "c")]


def test_a_load_without_bad_rows_leaves_an_empty_table_of_rejects(hook: LakebaseHook, orders: str):
    assert hook.load([(1, 1, "2026-11-01", None)], orders, reject_limit=1, rejects_table=REJECTS).rejected == 0
    assert rejected(hook) == []


def test_several_files_name_the_file_of_each_row(hook: LakebaseHook, tmp_path: Path):
    hook.run(f"CREATE TABLE {TABLE} (a int, b int)")
    paths = []
    for name in ("one", "two"):
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("a,b\n1,1\n2\n3,x\n4,4\nx,4\n")
    hook.load(paths, TABLE, reject_limit=6, rejects_table=REJECTS)
    assert len(found(hook)) == 4
    places = [(Path(source).name, number) for source, number in rejected(hook, "source", "number")]
    assert places == [("one.csv", 3), ("one.csv", 4), ("one.csv", 6), ("two.csv", 3), ("two.csv", 4), ("two.csv", 6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reject_limit": -1}, "reject_limit is -1"),
        ({"reject_limit": True}, "reject_limit is True"),
        ({"reject_limit": 1.5}, r"reject_limit is 1\.5"),
        ({"reject_limit": "1"}, "reject_limit is '1'"),
        ({"reject_limit": "101%"}, "reject_limit is '101%'"),
        ({"rejects_table": REJECTS}, "reject_limit is 0"),
        ({"reject_limit": "0%", "rejects_table": REJECTS}, "reject_limit is 0"),
        ({"reject_limit": 1, "rejects_table": TABLE}, "is the target"),
        ({"reject_limit": 1, "rejects_table": "a.b.c.d"}, "is not the name of a table"),
        ({"reject_limit": 1, "rejects_table": "a b"}, "is not the name of a table"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    hook: LakebaseHook, orders: str, options: dict[str, Any], message: str
):
    with pytest.raises(LakebaseSettingsError, match=message):
        hook.load([], orders, **options)


@pytest.mark.parametrize(
    ("setup", "table", "message"),
    [
        ("CREATE VIEW rejects.bad AS SELECT 1 AS load_id", REJECTS, "is not a table"),
        ("CREATE TABLE rejects.bad (load_id text)", REJECTS, "has no column table_name"),
        ("", "nowhere.bad", "nor does its schema"),
    ],
)
def test_a_table_that_cannot_take_rejects_is_refused_before_rows_are_sent(
    hook: LakebaseHook, orders: str, setup: str, table: str, message: str
):
    if setup:
        hook.run(setup)

    def rows() -> Iterator[Any]:
        yield 1, 1, "2026-11-01", None
        raise AssertionError("no row must be read")

    with pytest.raises(LakebaseLoadError, match=message):
        hook.load(rows(), orders, reject_limit=1, rejects_table=table)


@pytest.mark.long
@pytest.mark.parametrize("bad", [3, 1000, 100_000])
def test_a_million_rows_with_bad_ones_of_five_kinds_are_exact(hook: LakebaseHook, tmp_path: Path, bad: int):
    hook.run(f"""
        CREATE TABLE {TABLE} (id int PRIMARY KEY, name text, day date NOT NULL, quantity int CHECK (quantity > 0))
    """)
    rows, step = 1_000_000, 1_000_000 // bad
    changes = [(3, "x1"), (3, "99999999999"), (2, ""), (3, "-1"), (0, "0")]
    states = ["22P02", "22003", "23502", "23514", "23505"]
    path = tmp_path / "million.csv"
    expected: list[tuple[int, str, str]] = []
    with path.open("w") as file:
        file.write("id,name,day,quantity\n")
        for n in range(rows):
            row = [str(n), f"name {n}", f"2026-11-{n % 28 + 1:02}", str(n % 100 + 1)]
            if n % step == step - 1 and len(expected) < bad:
                kind = len(expected) % 5
                position, value = changes[kind]
                row[position] = value
                expected.append((n + 2, ["quantity", "quantity", "day", "quantity", "id"][kind], states[kind]))
            file.write(",".join(row) + "\n")
    with pytest.raises(LakebaseRejectLimitError):
        hook.load(path, TABLE, reject_limit=bad - 1, rejects_table=REJECTS)
    assert hook.get_first(f"SELECT count(*), to_regclass('{REJECTS}') FROM {TABLE}") == (0, None)
    result = hook.load(path, TABLE, reject_limit=bad, rejects_table=REJECTS)
    assert (result.rows, result.rejected) == (rows - bad, bad)
    assert rejected(hook) == expected
    wrong = f"""
        SELECT count(*) FROM {TABLE} FULL JOIN (
            SELECT n, 'name ' || n AS name, '2026-11-01'::date + n % 28 AS day, n % 100 + 1 AS quantity
            FROM generate_series(0, {rows - 1}) AS n WHERE n + 2 NOT IN (SELECT number FROM {REJECTS})
        ) AS source ON id = n WHERE (t.id, t.name, t.day, t.quantity) IS DISTINCT FROM (n, source.name, source.day,
            source.quantity)
    """
    assert hook.get_first(wrong) == (0,)


def test_a_role_that_may_only_insert_is_told_that_rejects_need_more(orders: str, shared_emulator: LakebaseEmulator):
    row = (1, 1, "2026-11-01", None)
    with psycopg.connect(shared_emulator.superuser_conninfo) as connection:
        connection.execute("CREATE ROLE inserts_only; GRANT USAGE ON SCHEMA rejects TO inserts_only")
        connection.execute(f"GRANT INSERT ON {orders} TO inserts_only; SET ROLE inserts_only".encode())
        load(connection, [row], orders)
        with pytest.raises(LakebaseLoadError, match=r"needs INSERT \(also SELECT with reject_limit\)"):
            load(connection, [row], orders, LoadOptions(reject_limit=1))
        connection.rollback()


def test_rows_that_share_one_of_several_keys_are_left_out_as_if_they_came_one_by_one(hook: LakebaseHook):
    hook.run(f"CREATE TABLE {TABLE} (number int, nth text, PRIMARY KEY (number), UNIQUE (nth))")
    rows = [(1, "a"), (2, "a"), (2, "b"), (3, "b"), (3, None), (4, None), (3, "c"), (5, "c")]
    kept: list[Any] = []
    for row in rows:
        if row[0] not in [number for number, _ in kept] and (row[1] is None or row[1] not in [nth for _, nth in kept]):
            kept.append(row)
    hook.load(rows, TABLE, reject_limit=len(rows), rejects_table=REJECTS)
    assert found(hook) == kept
    assert len(rejected(hook)) == len(rows) - len(kept)


NAMES = ["number", "nth", "row", "message", "reason", "found", "bad", "coming", "target", "value", "position", "texts"]


@pytest.mark.parametrize("name", NAMES)
def test_a_column_may_have_any_name(hook: LakebaseHook, name: str):
    hook.run(f"""
        CREATE TABLE rejects.other ("{name}" int PRIMARY KEY); INSERT INTO rejects.other VALUES (1), (2), (3);
        CREATE TABLE {TABLE} ("{name}" int UNIQUE CHECK ("{name}" < 9) REFERENCES rejects.other, raw text UNIQUE)
    """)
    hook.load([(3, "z")], TABLE)
    rows = [(1, "a"), (2, "a"), (2, "b"), ("x", "c"), (9, "d"), (4, "e"), (3, "f"), (None, "z"), (None, "g")]
    hook.load(rows, TABLE, reject_limit=6, rejects_table=REJECTS)
    assert found(hook) == [(1, "a"), (2, "b"), (3, "z"), (None, "g")]
    columns = [(2, "raw"), (4, name), (5, name), (6, name), (7, name), (8, "raw")]
    assert [(number, column) for number, column, _ in rejected(hook)] == columns
    with pytest.raises(LakebaseLoadError, match="an earlier row has the same key"):
        hook.load([(1, "a"), (1, "b")], TABLE, mode="upsert", duplicates="error", key_columns=[name])
