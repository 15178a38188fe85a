"""Data frames, Arrow and Parquet: what is in them is stored, whatever wrote them, or refused by name."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseLoadError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

TABLE = "frames.t"
COLUMNS = {"id": [1, 2], "note": ["x", None]}
ROWS = [(1, "x"), (2, None)]


@pytest.fixture(autouse=True)
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run("DROP SCHEMA IF EXISTS frames CASCADE; CREATE SCHEMA frames; CREATE TABLE frames.t (id int, note text)")
    yield
    hook.run("DROP SCHEMA frames CASCADE")


def rows(hook: LakebaseHook, columns: str = "*") -> list[Any]:
    return hook.get_records(f"SELECT {columns} FROM {TABLE} ORDER BY 1")


class Streamed:
    """A table that offers nothing but the Arrow C stream interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def pd_relation(condition: str) -> Any:
    return duckdb.from_df(pd.DataFrame(COLUMNS)).filter(condition)


SOURCES = {
    "a pandas frame": lambda: pd.DataFrame(COLUMNS),
    "a polars frame": lambda: pl.DataFrame(COLUMNS),
    "a list of pandas frames": lambda: [pd.DataFrame(COLUMNS).iloc[:1], pd.DataFrame(COLUMNS).iloc[1:]],
    "a tuple of polars frames": lambda: (pl.DataFrame(COLUMNS)[:1], pl.DataFrame(COLUMNS)[1:]),
    "a generator of frames": lambda: (frame for frame in [pd.DataFrame(COLUMNS)]),
    "frames of columns in another order": lambda: [
        pl.DataFrame(COLUMNS)[:1],
        pl.DataFrame(COLUMNS)[1:].select("note", "id"),
    ],
    "a filtered frame": lambda: pd.DataFrame({"id": [1, 9, 2], "note": ["x", "y", None]}).query("id < 9"),
    "a filtered frame as Arrow": lambda: pa.Table.from_pandas(
        pd.DataFrame({"id": [1, 9, 2], "note": ["x", "y", None]}).query("id < 9")
    ),
    "pandas' own types": lambda: pd.DataFrame(COLUMNS).astype({"id": "Int64", "note": "string"}),
    "a lazy frame": lambda: pl.DataFrame(COLUMNS).lazy(),
    "a lazy frame with a query": lambda: pl.DataFrame(COLUMNS).lazy().filter(pl.col("id") < 99),
    "lazy frames": lambda: [pl.DataFrame(COLUMNS)[:1].lazy(), pl.DataFrame(COLUMNS)[1:].lazy()],
    "a relation of DuckDB": lambda: duckdb.from_arrow(pa.table(COLUMNS)).filter("id < 99"),
    "relations of DuckDB": lambda: [duckdb.from_arrow(pa.table(COLUMNS)).limit(1), pd_relation("id = 2")],
    "a dataset of pyarrow": lambda: ds.dataset(pa.table(COLUMNS)),
    "an Arrow stream of another library": lambda: Streamed(pa.table(COLUMNS)),
    "an index that is loaded": lambda: pd.DataFrame(COLUMNS).set_index("id"),
    "a categorical": lambda: pd.DataFrame(COLUMNS).astype({"note": "category"}),
}


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_frame_is_loaded_by_its_columns(hook: LakebaseHook, source: Any, mode: Any):
    found = source()
    index = isinstance(found, pd.DataFrame) and found.index.name is not None
    hook.load(found, TABLE, mode=mode, index=index)
    assert rows(hook) == ROWS


def test_an_index_is_loaded_or_left_out_as_asked(hook: LakebaseHook, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    frame = pd.DataFrame({"id": [1, 2], "note": ["x", None], "other": [7, 8]}).set_index("other")
    hook.load(frame, TABLE)
    assert rows(hook) == ROWS
    assert "The index of the data frame, other, is left out" in caplog.text
    hook.run(f"TRUNCATE {TABLE}")
    levels = pd.DataFrame(COLUMNS).set_index(["id", "note"])
    hook.load([levels, levels.iloc[:0]], TABLE, index=True)
    assert rows(hook) == ROWS


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (pd.DataFrame(COLUMNS), "the index of the data frame has no name.*rename_axis"),
        (pl.DataFrame(COLUMNS), "a polars frame has no index"),
        ([(1, "x")], "the source is no pandas frame"),
        (pa.table(COLUMNS), "the source is no pandas frame"),
        (pl.DataFrame(COLUMNS).lazy(), "the source is no pandas frame"),
    ],
)
def test_an_index_that_the_source_does_not_have_is_refused(hook: LakebaseHook, source: Any, match: str):
    with pytest.raises(LakebaseSettingsError, match=match):
        hook.load(source, TABLE, index=True)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_frame_makes_its_table(hook: LakebaseHook, source: Any):
    hook.run(f"DROP TABLE {TABLE}")
    found = source()
    index = isinstance(found, pd.DataFrame) and found.index.name is not None
    hook.load(found, TABLE, mode="upsert", key_columns=["id"], create_table=True, index=index)
    assert rows(hook) == ROWS


# Arrow data of these would be addresses of Python objects, or numbers that only pandas can read.
WITHOUT_TYPE = {
    "objects of polars": lambda: pl.DataFrame({"v": pl.Series(["abc", "x"], dtype=pl.Object)}),
    "lazy objects of polars": lambda: pl.DataFrame({"v": pl.Series(["abc", "x"], dtype=pl.Object)}).lazy(),
    "integers of 128 bits": lambda: pl.DataFrame({"v": pl.Series([1], dtype=pl.Int128)}),
    "periods": lambda: pd.DataFrame({"v": pd.period_range("2024-01", periods=2, freq="M")}),
    "intervals": lambda: pd.DataFrame({"v": pd.interval_range(0, 2)}),
    "several types": lambda: pd.DataFrame({"v": [1, "x"]}),
}


@pytest.mark.parametrize("source", WITHOUT_TYPE.values(), ids=WITHOUT_TYPE)
def test_values_without_an_arrow_type_are_refused_with_their_column(hook: LakebaseHook, source: Any):
    with pytest.raises(LakebaseLoadError, match="column 'v', for which Arrow has no type"):
        hook.load(source(), "frames.made", create_table=True)
    assert hook.get_first("SELECT to_regclass('frames.made')") == (None,)


@pytest.mark.parametrize("v", [pa.array([None, None]), pa.array([], pa.null()), pa.array([[], [None]])])
def test_a_column_without_values_makes_no_column_unless_its_type_is_named(hook: LakebaseHook, v: pa.Array):
    source = pa.table({"v": v})
    with pytest.raises(LakebaseSettingsError, match="no values for v, so it does not tell the type"):
        hook.load(source, "frames.made", create_table=True)
    kind = "bigint[]" if pa.types.is_list(v.type) else "bigint"
    hook.load(source, "frames.made", create_table=True, casts={"v": kind})
    made = "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'frames.made'::regclass AND attname = 'v'"
    assert hook.get_first(made) == (kind,)


def test_the_first_file_with_values_tells_the_type(hook: LakebaseHook, tmp_path: Path):
    for number, values in enumerate([pa.array([None]), pa.array([7])]):
        pq.write_table(pa.table({"v": values}), tmp_path / f"{number}.parquet")
    hook.load(f"{tmp_path}/*.parquet", "frames.made", create_table=True)
    assert hook.get_records("SELECT v, pg_typeof(v)::text FROM frames.made ORDER BY 1") == [
        (7, "bigint"),
        (None, "bigint"),
    ]


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
def test_chunks_of_a_query_are_frames(hook: LakebaseHook, df_type: Any):
    chunks = hook.get_df_by_chunks(
        "SELECT n AS id, 'n' || n AS note FROM generate_series(1, 5) n", chunksize=2, df_type=df_type
    )
    hook.load(chunks, TABLE, mode="replace")
    assert rows(hook) == [(n, f"n{n}") for n in range(1, 6)]


def test_pandas_reader_of_chunks_gives_frames(hook: LakebaseHook, tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("id,note\n1,x\n2,\n")
    hook.load(pd.read_csv(path, chunksize=1), TABLE)
    assert rows(hook) == ROWS


NO_ROWS = {
    "text": lambda: iter(["ab", "cd"]),
    "bytes": [b"ab"],
    "sets": [{1, 2}],
    "a dict of lists": {"id": [1], "note": ["x"]},
    "a Series": pd.Series([1, 2]),
    "a list of Series": [pd.Series([1, 2])],
    "whole numbers": [1, 2],
    "frames, then rows": [pd.DataFrame(COLUMNS), (1, "x")],
    "a frame without columns": pd.DataFrame(index=[0, 1]),
    "a column of mixed types": pd.DataFrame({"id": [1, "a"], "note": ["x", "y"]}),
}


@pytest.mark.parametrize("source", NO_ROWS.values(), ids=NO_ROWS)
def test_what_is_no_row_is_refused(hook: LakebaseHook, source: Any):
    hook.load([(7, "kept")], TABLE)
    with pytest.raises(LakebaseError):
        hook.load(source() if callable(source) else source, TABLE, mode="replace")
    assert rows(hook) == [(7, "kept")]


@pytest.mark.parametrize("create_table", [False, True])
def test_an_index_without_a_name_makes_no_column(hook: LakebaseHook, create_table: bool):
    frame = pd.DataFrame({"id": [1, 5, 2], "note": ["x", "y", None]}).query("id < 5")
    if create_table:
        hook.run(f"DROP TABLE {TABLE}")
    hook.load(pa.Table.from_pandas(frame), TABLE, create_table=create_table)
    assert rows(hook) == ROWS


def test_a_name_that_no_column_can_have_is_refused_before_a_table_is_made(hook: LakebaseHook):
    for name in ("a" * 64, "é" * 32, "xmin", "ctid", ""):
        with pytest.raises(LakebaseLoadError, match="no table can be created.*'columns'"):
            hook.load(pa.table({name: [1]}), "frames.new", create_table=True)
    assert hook.get_first("SELECT to_regclass('frames.new')") == (None,)
    hook.load(pa.table({"xmin": [1]}), "frames.new", create_table=True, columns={"xmin": "id"})
    assert hook.get_records("SELECT id FROM frames.new") == [(1,)]


NESTED = [
    (pa.array([{"d": dt.date(2024, 1, 1)}]), [{"d": "2024-01-01"}]),
    (pa.array([{"t": dt.datetime(2024, 1, 1, 5, tzinfo=dt.UTC)}]), [{"t": "2024-01-01T05:00:00+00:00"}]),
    (pa.array([[{"d": dt.date(2024, 1, 1)}]]), [[{"d": "2024-01-01"}]]),
    (pa.array([[(1, "a"), (2, "b")]], pa.map_(pa.int32(), pa.string())), [{"1": "a", "2": "b"}]),
    (pa.array([{"n": Decimal("1.10"), "b": b"\x01"}]), [{"n": 1.1, "b": "\\x01"}]),
    (pa.array([[[1, 2], [3]]]), [[[1, 2], [3]]]),
]


@pytest.mark.parametrize(("values", "stored"), NESTED)
def test_nested_values_are_json_in_a_table_that_the_load_makes(hook: LakebaseHook, values: Any, stored: Any):
    hook.load(pa.table({"v": values}), "frames.nested", create_table=True)
    assert [value for (value,) in hook.get_records("SELECT v FROM frames.nested")] == stored


def test_two_columns_of_one_name_are_refused(hook: LakebaseHook):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    for columns in (None, {"id": "id"}):
        with pytest.raises(LakebaseSettingsError, match="two columns named 'id'"):
            hook.load(table, TABLE, columns=columns)


def int96(path: Path, values: list[Any]) -> None:
    pq.write_table(pa.table({"v": pa.array(values, pa.timestamp("ns"))}), path, use_deprecated_int96_timestamps=True)


def test_int96_timestamps_keep_their_microseconds_and_refuse_more(hook: LakebaseHook, tmp_path: Path):
    hook.run(f"DROP TABLE {TABLE}; CREATE TABLE {TABLE} (v timestamp)")
    whole = [0, 1_000, -1_000, 10**18, None]
    int96(tmp_path / "t.parquet", whole)
    hook.load(tmp_path / "t.parquet", TABLE)
    expected = [None if n is None else dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=n // 1000) for n in whole]
    assert sorted(rows(hook), key=str) == sorted([(value,) for value in expected], key=str)
    int96(tmp_path / "t.parquet", [0, 1_001])
    with pytest.raises(LakebaseLoadError, match="row 2, column v, of .*t.parquet.*nanoseconds"):
        hook.load(tmp_path / "t.parquet", TABLE)


@pytest.mark.parametrize("create_table", [False, True])
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "another format", "empty"])
def test_damage_is_found_and_the_file_named(hook: LakebaseHook, tmp_path: Path, damage: str, create_table: bool):
    path = tmp_path / "t.parquet"
    data = pa.table({"id": pa.array(range(1000), pa.int32()), "note": ["x"] * 1000})
    pq.write_table(data, path, use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    if damage == "a flipped bit":
        content[200] ^= 1
    content = {"cut short": content[:-20], "another format": bytearray(b"id,note\n1,x\n"), "empty": bytearray()}.get(
        damage, content
    )
    path.write_bytes(content)
    with pytest.raises(LakebaseLoadError, match="t.parquet"):
        hook.load(path, TABLE, create_table=create_table)
    assert rows(hook) == []


def test_an_unknown_scheme_is_told(hook: LakebaseHook):
    with pytest.raises(LakebaseSettingsError, match="No installed provider supports nowhere://"):
        hook.load("nowhere://a/t.csv", TABLE)


# ── Generated files ──


def generated(chance: random.Random) -> tuple[pa.Table, dict[str, Any]]:
    """Return a table of random types and values, and how its file is written."""

    def stamp() -> dt.datetime:
        return dt.datetime(chance.randint(1, 9999), 1, 2, 3, 4, 5, chance.choice([0, 1, 999_999]))

    makers: dict[pa.DataType, Any] = {
        pa.int8(): lambda: chance.randint(-128, 127),
        pa.int16(): lambda: chance.randint(-(2**15), 2**15 - 1),
        pa.int32(): lambda: chance.randint(-(2**31), 2**31 - 1),
        pa.int64(): lambda: chance.randint(-(2**63), 2**63 - 1),
        pa.uint64(): lambda: chance.randint(0, 2**64 - 1),
        pa.float32(): lambda: chance.choice([0.5, -2.25, 1e10]),
        pa.float64(): lambda: chance.choice([chance.random(), float("inf"), 1e300]),
        pa.bool_(): lambda: chance.random() < 0.5,
        pa.string(): lambda: chance.choice(["", "x", "ü'\\\n\t", "NULL", "\\N", '"']),
        pa.large_string(): lambda: "y" * chance.randint(0, 50),
        pa.binary(): lambda: chance.randbytes(chance.randint(0, 8)),
        pa.date32(): lambda: stamp().date(),
        pa.timestamp("us"): stamp,
        pa.timestamp("ms"): lambda: stamp().replace(microsecond=7000),
        pa.timestamp("us", "UTC"): lambda: stamp().replace(year=2024, tzinfo=dt.UTC),
        pa.time64("us"): lambda: stamp().time(),
        pa.decimal128(20, 5): lambda: Decimal(chance.randint(-(10**15), 10**15)).scaleb(-5),
        pa.list_(pa.int32()): lambda: [chance.randint(0, 9) for _ in range(chance.randint(0, 3))],
        pa.list_(pa.string()): lambda: [chance.choice(["a", "", "NULL", '"'])] * chance.randint(0, 2),
        pa.struct([("a", pa.int32()), ("d", pa.date32())]): lambda: {"a": 1, "d": stamp().date()},
        pa.map_(pa.string(), pa.int32()): lambda: [("k", chance.randint(0, 9))],
        pa.dictionary(pa.int32(), pa.string()): lambda: chance.choice(["a", "b"]),
    }
    kinds = chance.sample(list(makers), chance.randint(1, 5))
    size = chance.choice([0, 1, 7, 400])
    columns = {}
    for number, kind in enumerate(kinds):
        values = [None if chance.random() < 0.15 else makers[kind]() for _ in range(size)]
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        column = pa.array(values, plain)
        columns[f"c{number}"] = column.dictionary_encode() if pa.types.is_dictionary(kind) else column
    how = {
        "compression": chance.choice(["none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
        "use_dictionary": chance.random() < 0.5,
        "row_group_size": chance.choice([3, 100, 10_000]),
        "data_page_version": chance.choice(["1.0", "2.0"]),
        "write_page_checksum": True,
    }
    return pa.table({"n": pa.array(range(size), pa.int32()), **columns}), how


def as_stored(value: Any) -> Any:
    """Return what Postgres has of a value of Arrow, as psycopg reads it."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, dict):
        return json.loads(json.dumps(value, default=str))
    return value


def check_generated(hook: LakebaseHook, folder: Path, seeds: range) -> dict[str, int]:
    """Load a file for each seed, every third one damaged, and compare it with what pyarrow reads."""
    seen = {"equal": 0, "refused": 0}
    path = folder / "t.parquet"
    for seed in seeds:
        chance = random.Random(seed)
        table, how = generated(chance)
        pq.write_table(table, path, **how)
        if seed % 3 == 0:
            content = bytearray(path.read_bytes())
            content[chance.randrange(4, len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(content)
        hook.run(f"DROP TABLE IF EXISTS {TABLE}")
        try:
            hook.load(path, TABLE, create_table=True)
        except LakebaseError as error:
            assert "t.parquet" in str(error) or seed % 3, f"seed {seed}: {error}"
            assert seed % 3 == 0 or "row" in str(error), f"seed {seed}: {error}"
            seen["refused"] += 1
            continue
        found = hook.get_records(f"SELECT * FROM {TABLE} ORDER BY n")
        expected = pq.read_table(path, page_checksum_verification=True).to_pylist()
        assert found == [tuple(as_stored(value) for value in row.values()) for row in expected], f"seed {seed}"
        seen["equal"] += 1
    return seen


def test_generated_parquet_files_are_equal_or_refused(hook: LakebaseHook, tmp_path: Path):
    seen = check_generated(hook, tmp_path, range(30))
    assert seen["equal"] >= 15


@pytest.mark.long
def test_150_generated_parquet_files_are_equal_or_refused(hook: LakebaseHook, tmp_path: Path):
    seen = check_generated(hook, tmp_path, range(1000, 1150))
    print(seen)
    assert seen["equal"] >= 95
