from __future__ import annotations

import datetime
import decimal
import sys
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from airflow_provider_lakebase.emulator.model.arrow import read
from airflow_provider_lakebase.emulator.model.catalog import Column

UTC = datetime.UTC
MOMENT = datetime.datetime(2026, 11, 28, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arrow", "value", "type_text"),
    [
        (pyarrow.bool_(), True, "boolean"),
        (pyarrow.int8(), 1, "tinyint"),
        (pyarrow.int16(), 1, "smallint"),
        (pyarrow.int32(), 1, "int"),
        (pyarrow.int64(), 1, "bigint"),
        (pyarrow.float32(), 0.5, "float"),
        (pyarrow.float64(), 0.5, "double"),
        (pyarrow.decimal128(10, 2), decimal.Decimal("1.50"), "decimal(10,2)"),
        (pyarrow.string(), "é", "string"),
        (pyarrow.large_string(), "é", "string"),
        (pyarrow.binary(), b"\x00", "binary"),
        (pyarrow.date32(), datetime.date(2026, 1, 2), "date"),
        (pyarrow.timestamp("us", "UTC"), MOMENT, "timestamp"),
        (pyarrow.timestamp("us"), MOMENT.replace(tzinfo=None), "timestamp_ntz"),
    ],
)
def test_a_value_keeps_its_type(arrow: pyarrow.DataType, value: object, type_text: str) -> None:
    table = pyarrow.table({"a": pyarrow.array([value, None], arrow)})
    assert read(table) == ([Column("a", type_text)], [(value,), (None,)])


@pytest.mark.parametrize(
    ("arrow", "value", "type_text", "text"),
    [
        (pyarrow.list_(pyarrow.int64()), [1, None], "array<bigint>", "[1, null]"),
        (pyarrow.map_(pyarrow.string(), pyarrow.int32()), [("a", 1)], "map<string,int>", '{"a": 1}'),
        (
            pyarrow.struct([("on", pyarrow.date32()), ("tags", pyarrow.list_(pyarrow.string()))]),
            {"on": datetime.date(2026, 1, 2), "tags": ["x"]},
            "struct<on:date,tags:array<string>>",
            '{"on": "2026-01-02", "tags": ["x"]}',
        ),
    ],
)
def test_a_nested_value_becomes_json(arrow: pyarrow.DataType, value: object, type_text: str, text: str) -> None:
    table = pyarrow.table({"a": pyarrow.array([value, None], arrow)})
    assert read(table) == ([Column("a", type_text)], [(text,), (None,)])


def test_a_timestamp_loses_its_nanoseconds() -> None:
    table = pyarrow.table({"a": pyarrow.array([1_700_000_000_000_000_001], pyarrow.timestamp("ns", "UTC"))})
    assert read(table)[1] == [(datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),)]


def test_a_dictionary_becomes_its_values() -> None:
    table = pyarrow.table({"a": pyarrow.array(["x", "y", "x"]).dictionary_encode()})
    assert read(table) == ([Column("a", "string")], [("x",), ("y",), ("x",)])


@pytest.mark.parametrize("arrow", [pyarrow.uint32(), pyarrow.time64("us"), pyarrow.duration("s"), pyarrow.null()])
def test_a_type_that_delta_lacks_is_refused(arrow: pyarrow.DataType) -> None:
    with pytest.raises(ValueError, match=f"no type for Arrow's {arrow}".replace("[", r"\[")):
        read(pyarrow.table({"a": pyarrow.array([None], arrow)}))


def test_a_parquet_file_is_read_by_its_path(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == read(str(tmp_path / "a.parquet")) == ([Column("a", "bigint")], [(1,)])


def test_a_pandas_frame_is_read_without_its_index() -> None:
    assert read(pandas.DataFrame({"a": [1.5]}, index=["x"])) == ([Column("a", "double")], [(1.5,)])


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="not list"):
        read([{"a": 1}])


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'airflow-provider-lakebase\[arrow\]'"):
        read("prices.parquet")
