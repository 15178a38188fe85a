"""Rows and parameters in, frames and results out: the same value on every path, or a refusal."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lakebase.core.bulk.formats import binary_rows
from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseLoadError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators._xcom import to_xcom

NULLS = [pandas.NaT, pandas.NA, numpy.datetime64("NaT"), numpy.timedelta64("NaT"), None]
TYPES = ["timestamp", "timestamptz", "date", "interval", "int", "text", "numeric", "jsonb", "bool"]


@pytest.fixture
def schema(hook: LakebaseHook) -> Iterator[str]:
    name = f"rows_{uuid.uuid4().hex[:8]}"
    hook.run(f"CREATE SCHEMA {name}")
    yield name
    hook.run(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def both_paths(hook: LakebaseHook, schema: str) -> Callable[..., tuple[Any, Any]]:
    """Return a function that gives what COPY and INSERT store of a value: text, or the error's class."""
    hook.run(f"CREATE FUNCTION {schema}.pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")

    def store(value: Any, kind: str, *, watched: bool) -> Any:
        table = f"{schema}.t"
        hook.run(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int PRIMARY KEY, v {kind})")
        if watched:
            hook.run(f"CREATE TRIGGER p BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.pass()")
        try:
            hook.insert_rows(table, [(1, value)], ["id", "v"])
        except (LakebaseError, psycopg.Error):
            return "refused"
        return hook.get_first(f"SELECT v::text FROM {table}")

    def run(value: Any, kind: str) -> tuple[Any, Any]:
        return store(value, kind, watched=False), store(value, kind, watched=True)

    return run


@pytest.mark.parametrize("kind", TYPES)
def test_nulls_of_frames_are_null_on_every_path(hook: LakebaseHook, schema: str, kind: str):
    table = f"{schema}.n"
    hook.run(f"CREATE TABLE {table} (id int PRIMARY KEY, v {kind})")
    rows = list(enumerate(NULLS))
    ways: list[Callable[[], Any]] = [
        lambda: hook.insert_rows(table, rows, ["id", "v"]),
        lambda: hook.insert_rows(table, rows, ["id", "v"], replace=True),
        lambda: hook.load(rows, table),
        lambda: hook.load([{"id": n, "v": value} for n, value in rows], table, mode="upsert"),
        lambda: [hook.run(f"INSERT INTO {table} VALUES (%s, %s)", parameters=list(row)) for row in rows],
        lambda: [hook.run(f"SELECT 1; INSERT INTO {table} VALUES (%s, %s)", parameters=list(row)) for row in rows],
    ]
    for way in ways:
        hook.run(f"TRUNCATE {table}")
        way()
        assert hook.get_first(f"SELECT count(*), count(v) FROM {table}") == (len(NULLS), 0)


def test_nulls_in_lists_are_null_or_refused(hook: LakebaseHook):
    assert hook.get_first("SELECT %s::timestamp[]", [[pandas.NaT]]) == ([None],)
    with pytest.raises(LakebaseSettingsError, match="lists of one type"):
        hook.get_first("SELECT %s::timestamp[]", [[pandas.Timestamp("2026-01-01"), pandas.NaT]])


@pytest.mark.parametrize("value", [numpy.datetime64("2026-01-01T00:00:00.000000001"), pandas.Timestamp(1)])
def test_nanoseconds_are_refused_as_parameters(hook: LakebaseHook, value: Any):
    with pytest.raises(LakebaseSettingsError, match="nanoseconds"):
        hook.get_first("SELECT %s::timestamp", [value])


def test_numpys_scalars_bind_exactly(hook: LakebaseHook):
    values = [
        numpy.int64(2**62),
        numpy.float64(0.1),
        numpy.bool_(True),
        numpy.str_("a"),
        numpy.datetime64("2026-01-02"),
    ]
    row = hook.get_first("SELECT %s::int8, %s::float8, %s::bool, %s::text, %s::timestamp::text", values)
    assert row == (2**62, 0.1, True, "a", "2026-01-02 00:00:00")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([], "jsonb"),
        ([], "json"),
        ([1, "a", None, {"b": [Decimal("1.10")]}], "jsonb"),
        ({"a": []}, "jsonb"),
        ({"a": math.nan}, "jsonb"),
        ([], "int[]"),
        ([1, 2], "int[]"),
        ([[1], [2]], "int[]"),
        (["a", None], "text[]"),
        ((1, 2), "jsonb"),
        ({1, 2}, "jsonb"),
        (math.nan, "text"),
        (math.nan, "varchar(9)"),
        (math.nan, "timestamp"),
        (math.nan, "int"),
        (math.nan, "float8"),
        (1.5, "text"),
        (pandas.NaT, "date"),
    ],
    ids=repr,
)
def test_a_value_is_the_same_by_copy_and_by_insert(both_paths: Callable[..., tuple[Any, Any]], value: Any, kind: str):
    copied, inserted = both_paths(value, kind)
    assert copied == inserted
    if kind in ("json", "jsonb") and value == []:
        assert copied == ("[]",)
    if kind in ("text", "varchar(9)") and value != value:
        assert copied == "refused"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text("ab'\\\"", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.lists(json_values, max_size=3))
def test_any_json_is_the_same_by_copy_and_by_insert(both_paths: Callable[..., tuple[Any, Any]], value: Any):
    copied, inserted = both_paths(value, "jsonb")
    assert copied == inserted != "refused"


@pytest.mark.parametrize("with_psycopgs_function", [True, False])
def test_many_rows_of_several_types_are_stored_as_they_are(
    hook: LakebaseHook, schema: str, monkeypatch: pytest.MonkeyPatch, with_psycopgs_function: bool
):
    if with_psycopgs_function:
        assert binary_rows.format_row_binary is not None
    else:
        monkeypatch.setattr(binary_rows, "format_row_binary", None)
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    rows = [
        (
            n,
            None if n % 7 == 0 else n / 8,
            None if n % 11 == 0 else start + datetime.timedelta(seconds=n),
            "x" * (n % 300),
            None if n % 13 == 0 else Decimal(n).scaleb(-2),
            {"n": [n]},
            uuid.UUID(int=n),
        )
        for n in range(2_345)
    ]
    table = f"{schema}.m"
    hook.run(f"CREATE TABLE {table} (id int, f float8, at timestamptz, t text, d numeric(9,2), j jsonb, u uuid)")
    hook.load(rows, table)
    assert hook.get_records(f"SELECT * FROM {table} ORDER BY id") == rows
    for bad in ("\0", "\ud800"):
        with pytest.raises(LakebaseLoadError, match=r"[Rr]ow 1235, column t"):
            hook.load([*rows[:1234], (1, 1.0, start, bad, None, None, None), *rows], table)


@pytest.mark.parametrize("kind", ["smallint", "int", "bigint"])
@pytest.mark.parametrize("value", [2**15, -(2**15) - 1, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, True, 1.5])
def test_an_int_among_many_is_stored_exactly_or_refused(hook: LakebaseHook, schema: str, kind: str, value: Any):
    table = f"{schema}.i"
    hook.run(f"CREATE TABLE {table} (v {kind})")
    rows = [(n if n % 9 else None,) for n in range(1_500)]
    largest = {"smallint": 2**15, "int": 2**31, "bigint": 2**63}[kind] - 1
    if type(value) is int and -largest - 1 <= value <= largest:
        hook.load([*rows, (value,), *rows], table)
        assert hook.get_first(f"SELECT count(*) FROM {table} WHERE v = {value}") == (1,)
    else:
        with pytest.raises(LakebaseLoadError):
            hook.load([*rows, (value,), *rows], table)


def test_nan_for_text_is_refused_with_its_place(hook: LakebaseHook, schema: str):
    hook.run(f"CREATE TABLE {schema}.t (v text)")
    with pytest.raises(LakebaseLoadError, match=r"[Rr]ow 2, column v.*make it None"):
        hook.insert_rows(f"{schema}.t", [("a",), (math.nan,)], ["v"])
    with pytest.raises(LakebaseLoadError, match="make it None"):
        hook.load([("a",), (math.nan,)], f"{schema}.t")


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(("target", "stored"), [(["name"], ("b", 5)), ([], ("a", 5)), (None, ("b", 0))])
def test_replace_target_names_what_an_upsert_changes(
    hook: LakebaseHook, schema: str, watched: bool, target: Any, stored: Any
):
    table = f"{schema}.c"
    hook.run(
        f"CREATE TABLE {table} (id int PRIMARY KEY, name text, credit int); INSERT INTO {table} VALUES (1, 'a', 5)"
    )
    if watched:
        hook.run(
            f"""CREATE FUNCTION {schema}.p() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
            CREATE TRIGGER p BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.p()"""
        )
    hook.insert_rows(table, [(1, "b", 0)], ["id", "name", "credit"], replace=True, replace_target=target)
    assert hook.get_first(f"SELECT name, credit FROM {table}") == stored


@pytest.mark.parametrize(
    "arguments",
    [{"replace": True, "replace_indx": ["id"]}, {"replace_index": ["id"]}, {"replace_target": []}, {"comit_every": 5}],
)
def test_arguments_of_insert_rows_are_obeyed_or_refused(hook: LakebaseHook, arguments: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError, match="argument|replace is not"):
        hook.insert_rows("nowhere", [(1,)], ["id"], **arguments)


@pytest.mark.parametrize("options", [{"connect_args": {"options": "-c search_path=x"}}, {"creator": print}, {"pol": 1}])
def test_arguments_of_an_engine_are_obeyed_or_refused(hook: LakebaseHook, options: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError, match="engine_kwargs"):
        hook.get_sqlalchemy_engine(options)
    with pytest.raises(LakebaseSettingsError, match="engine_kwargs"):
        hook.get_async_sqlalchemy_engine(options)


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
@pytest.mark.parametrize("argument", ["chunksize", "columns", "infer_schema_length", "index_cl", "execute_options"])
def test_arguments_of_frames_are_obeyed_or_refused(hook: LakebaseHook, df_type: Any, argument: str):
    with pytest.raises(LakebaseSettingsError, match=argument):
        hook.get_df("SELECT 1", df_type=df_type, **{argument: 1})


def test_a_key_has_no_included_columns(hook: LakebaseHook, schema: str):
    hook.run(f'CREATE TABLE {schema}.k ("I""d" int, v text, PRIMARY KEY ("I""d") INCLUDE (v))')
    for value in "ab":
        hook.insert_rows(f"{schema}.k", [(1, value)], replace=True)
    assert hook.dialect.get_primary_keys(f"{schema}.k") == ['I"d']
    assert hook.get_records(f"SELECT * FROM {schema}.k") == [(1, "b")]


WIDE = """
    SELECT n::int4 AS i, CASE WHEN n > 4 THEN 9007199254740993 END AS big,
      CASE WHEN n > 4 THEN 1.55::numeric ELSE 1 END AS d,
      n::numeric(9, 2) AS fixed, CASE WHEN n > 4 THEN 'x' END AS t, CASE WHEN n > 4 THEN now() END AS at,
      CASE WHEN n > 4 THEN '{"a": 1}'::jsonb END AS j, CASE WHEN n > 4 THEN ARRAY[n] END AS a, interval '1 month' AS m,
      CASE WHEN n > 4 THEN gen_random_uuid() END AS u, CASE WHEN n > 4 THEN true END AS b, NULL::float4 AS f
    FROM generate_series(1, 8) n
"""


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
def test_types_of_frames_come_from_postgres(hook: LakebaseHook, df_type: Any):
    def types(frame: Any) -> list[Any]:
        return list(frame.dtypes)

    whole = hook.get_df(WIDE, df_type=df_type)
    chunks = list(hook.get_df_by_chunks(WIDE, chunksize=4, df_type=df_type))
    (empty,) = hook.get_df_by_chunks(f"SELECT * FROM ({WIDE}) AS w WHERE false", chunksize=4, df_type=df_type)
    assert types(whole) == types(empty) == types(chunks[0]) == types(chunks[1])
    assert list(whole["big"])[-1] == 9007199254740993
    assert Decimal(str(list(whole["d"])[-1])) == Decimal("1.55")
    assert list(whole["fixed"])[-1] == Decimal("8.00")


def test_polars_types(hook: LakebaseHook):
    schema = hook.get_df(WIDE, df_type="polars").schema
    assert schema["fixed"] == polars.Decimal(9, 2)
    assert schema["d"] == polars.String
    assert schema["at"] == polars.Datetime("us", "UTC")


READERS: dict[str, Callable[[LakebaseHook, str, Path], Any]] = {
    "get_records": lambda hook, sql, _: hook.get_records(sql),
    "get_first": lambda hook, sql, _: hook.get_first(sql),
    "pandas": lambda hook, sql, _: hook.get_df(sql),
    "polars": lambda hook, sql, _: hook.get_df(sql, df_type="polars"),
    "pandas chunks": lambda hook, sql, _: list(hook.get_df_by_chunks(sql, chunksize=1)),
    "polars chunks": lambda hook, sql, _: list(hook.get_df_by_chunks(sql, chunksize=1, df_type="polars")),
    "get_arrow": lambda hook, sql, _: hook.get_arrow(sql),
    "iter_arrow": lambda hook, sql, _: list(hook.iter_arrow(sql)),
    "csv": lambda hook, sql, folder: hook.export(sql, folder / "a.csv"),
    "jsonl": lambda hook, sql, folder: hook.export(sql, folder / "a.jsonl"),
    "parquet": lambda hook, sql, folder: hook.export(sql, folder / "a.parquet"),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_a_reader_writes_is_committed_or_refused(hook: LakebaseHook, schema: str, reader: str, tmp_path: Path):
    hook.run(
        f"""CREATE TABLE {schema}.j (id int);
        CREATE FUNCTION {schema}.take(n int) RETURNS int LANGUAGE sql
        AS 'INSERT INTO {schema}.j VALUES (n) RETURNING id'"""
    )
    for sql in (
        f"INSERT INTO {schema}.j VALUES (1) RETURNING id",
        f"WITH a AS (INSERT INTO {schema}.j VALUES (1) RETURNING id) SELECT id FROM a",
        f"SELECT {schema}.take(1) AS id",
        f"INSERT INTO {schema}.j VALUES (1); SELECT 1 AS id",
    ):
        hook.run(f"TRUNCATE {schema}.j")
        written = 1
        try:
            READERS[reader](hook, sql, tmp_path)
        except (LakebaseSettingsError, psycopg.Error):
            written = 0
        assert hook.get_first(f"SELECT count(*) FROM {schema}.j") == (written,)


@pytest.mark.parametrize("reader", READERS)
def test_of_several_statements_the_last_ones_result_is_read(hook: LakebaseHook, reader: str, tmp_path: Path):
    result = READERS[reader](hook, "SELECT 1 AS n; SELECT 22 AS n, 'x' AS t;", tmp_path)
    files = "".join(path.read_text() for path in tmp_path.glob("*.[cj]s*"))
    if reader == "parquet":
        result = pandas.read_parquet(tmp_path / "a.parquet")
    assert "22" in f"{result} {files}"


@pytest.mark.parametrize(
    "value",
    [
        math.nan, math.inf, Decimal("NaN"), Decimal("-Infinity"), Decimal("123456789012345678.12"), b"a",
        [1.0, math.nan], {"a": [math.inf]}, {"__classname__": "x"},
    ],
    ids=repr,
)  # fmt: skip
def test_what_no_xcom_carries_is_text(value: Any):
    import json

    from airflow.providers.common.compat.sdk import XCom

    found = to_xcom([(value,)])
    sent = json.loads(json.dumps(XCom.serialize_value(found), allow_nan=False))
    assert XCom.deserialize_value(type("Row", (), {"value": sent})) == found
    if isinstance(value, Decimal | float):
        assert Decimal(found[0][0]).compare_total(Decimal(str(value))) == 0


def test_what_has_no_text_either_is_refused_before_the_commit(hook: LakebaseHook, schema: str):
    from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

    hook.run(f"CREATE TABLE {schema}.x (id int)")
    sql = f"INSERT INTO {schema}.x VALUES (1) RETURNING id"
    with pytest.raises(Exception, match="an XCom cannot carry"):
        LakebaseSQLOperator(task_id="q", sql=sql, handler=lambda cursor: object()).execute({})
    assert hook.get_first(f"SELECT count(*) FROM {schema}.x") == (0,)


@pytest.mark.parametrize(
    "number", [5, 2**53 + 1, 2**63, 18111585029455872, Decimal("0.5"), Decimal("0.1"), Decimal(0.1)]
)
@pytest.mark.parametrize("neighbour", [1.5, "2"])
def test_what_a_float8_stores_of_a_number_does_not_depend_on_its_neighbour(
    hook: LakebaseHook, schema: str, number: Any, neighbour: Any
):
    def stored(*values: Any) -> Any:
        hook.run(f"DROP TABLE IF EXISTS {schema}.numbers; CREATE TABLE {schema}.numbers (n float8)")
        try:
            hook.load([(value,) for value in values], f"{schema}.numbers")
        except LakebaseLoadError:
            return "refused"
        return hook.get_first(f"SELECT n FROM {schema}.numbers")

    alone = stored(number)
    assert alone == stored(number, neighbour)
    assert alone in ("refused", (number,), (float(str(number)),))


@pytest.mark.parametrize("kind", ["int", "uuid", "float8", "text"])
def test_odd_values_are_refused_by_row_and_column(hook: LakebaseHook, schema: str, kind: str):
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    hook.run(f"DROP TABLE IF EXISTS {schema}.odd; CREATE TABLE {schema}.odd (v {kind})")
    for value in (memoryview(b"abcdef")[::2], deep, 10**400 if kind != "text" else object()):
        with pytest.raises(LakebaseLoadError, match="row 2, column v"):
            hook.load([(None,), (value,)], f"{schema}.odd")
