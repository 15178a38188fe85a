"""What a source is, is found out once, without a server and without opening a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pytest

from airflow_provider_lakebase.core.bulk.source import ArrowSource, Dicts, Files, NamedRows, Tuples, classify
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

TABLE = pyarrow.table({"a": [1, 2], "b": ["x", "y"]})


@pytest.mark.parametrize(
    ("source", "format", "expected"),
    [
        ("a.csv", None, ["csv"]),
        ("a.CSV.gz", None, ["csv"]),
        (Path("a.ndjson.zst"), None, ["jsonl"]),
        ("a.json.gz", None, ["json"]),
        (["a.parquet", "b.pq"], None, ["parquet", "parquet"]),
        ("a", "jsonl", ["jsonl"]),
        ("a.csv", "parquet", ["parquet"]),
        (io.BytesIO(b""), None, ["csv"]),
    ],
)
def test_files_have_the_format_of_their_name_or_the_given_one(source: Any, format: Any, expected: list[str]):
    found = classify(source, format)
    assert isinstance(found, Files)
    assert [file.format for file in found.files] == expected


@pytest.mark.parametrize("content", [b"id\n1\n", b"", b"\x1f\x8b"])
def test_a_file_whose_name_does_not_tell_its_format_is_rejected(tmp_path: Path, content: bytes):
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(LakebaseSettingsError, match="The format of .*a.dat is unknown.*csv, json, jsonl, parquet"):
        classify(tmp_path / "a.dat")


def test_an_empty_folder_and_a_missing_file_are_named_as_such_whatever_their_ending(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no file in the folder; allow_empty=True"):
        classify(str(tmp_path))
    assert classify(str(tmp_path), allow_empty=True) == Files(())
    with pytest.raises(FileNotFoundError):
        classify([tmp_path / "missing"])


def test_a_file_is_named_without_secrets():
    found = classify("s3://user:secret@bucket/a.csv")
    assert isinstance(found, Files)
    assert "secret" not in found.files[0].label


@pytest.mark.parametrize(
    "source",
    [
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_reader(),
        [TABLE, TABLE.select(["b", "a"])],
        iter(TABLE.to_batches()),
        TABLE.to_pandas(),
        [TABLE.to_pandas()],
        polars.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    ],
)
def test_arrow_data_and_frames_are_batches_of_one_schema(source: Any):
    found = classify(source)
    assert isinstance(found, ArrowSource)
    assert found.schema.names == ["a", "b"]
    assert [batch.schema.names for batch in found.batches][0] == ["a", "b"]


def test_a_reader_of_pandas_is_not_a_file(tmp_path: Path):
    TABLE.to_pandas().to_csv(tmp_path / "a.csv", index=False)
    with pandas.read_csv(tmp_path / "a.csv", chunksize=1) as reader:
        assert isinstance(classify(reader), ArrowSource)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ([(1, 2)], Tuples),
        ([], Tuples),
        (iter([[1, 2]]), Tuples),
        ([{"a": 1}], Dicts),
        (({"a": n} for n in range(2)), Dicts),
        (NamedRows([(1,)], ["a"]), NamedRows),
    ],
)
def test_rows_are_told_apart_by_the_first_one(source: Any, expected: type[Any]):
    assert isinstance(classify(source), expected)


def test_rows_of_pandas_need_no_extra(monkeypatch: pytest.MonkeyPatch):
    def missing(module: str) -> Any:
        raise LakebaseSettingsError(f"Parquet and Arrow need pyarrow, which {module} imports")

    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.source.import_from_extra", missing)
    assert isinstance(classify(TABLE.to_pandas().itertuples(index=False)), Tuples)


def test_a_column_of_a_data_frame_may_have_the_name_of_a_method_of_polars():
    found = classify(pandas.DataFrame({"to_arrow": [1]}))
    assert isinstance(found, ArrowSource)
    assert found.schema.names == ["to_arrow"]


def test_no_row_is_lost():
    found = classify(iter([(1,), (2,)]))
    assert isinstance(found, Tuples)
    assert list(found.rows) == [(1,), (2,)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"a.csv", "source is a bytes"),
        ({"a": 1}, "source is a dict"),
        (5, "source is a int"),
        (pandas.Series([1]), "source is a Series"),
        ([pandas.Series([1])], "source is a Series"),
        ([io.BytesIO(b"")], "a list of open files"),
        (polars.Series([1]), "source is a Series"),
        ([TABLE.to_pandas(), (1,)], "Item 2 of the source is a tuple"),
    ],
)
def test_what_cannot_be_loaded_is_rejected(source: Any, said: str):
    with pytest.raises(LakebaseSettingsError, match=said):
        found = classify(source)
        assert isinstance(found, ArrowSource)
        list(found.batches)
