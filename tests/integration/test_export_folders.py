"""Exports into numbered files: all of them or none, whatever was there, whatever stops them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _object_store import path_of

from airflow_provider_lakebase.core.bulk import export_folder
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseExportError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseExportOperator

ENDINGS = ["csv", "csv.gz", "csv.zst", "json", "json.gz", "jsonl", "jsonl.gz", "parquet"]
MIB = 1 << 20


def series(count: int) -> str:
    return f"SELECT n AS id, 'name ' || n AS note FROM generate_series(1, {count}) AS n"


def rows_of(count: int) -> list[tuple[int, str]]:
    return [(n, f"name {n}") for n in range(1, count + 1)]


@pytest.fixture(autouse=True)
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run("DROP SCHEMA IF EXISTS folders CASCADE; CREATE SCHEMA folders")
    yield
    hook.run("DROP SCHEMA folders CASCADE")


def names_in(url: str) -> list[str]:
    path = path_of(url)
    if "://" in url:
        path.fs.invalidate_cache()
        return sorted(name.rpartition("/")[2] for name in path.fs.find(path.path))
    return sorted(os.listdir(path))


def read(url: str) -> list[list[tuple[int, str]]]:
    """Return the rows of each file of a folder, as other readers read them."""
    found = []
    for name in [each for each in names_in(url) if each != "_SUCCESS"]:
        data = (path_of(url) / name).read_bytes()
        if name.endswith(".gz"):
            data = gzip.decompress(data)
        found.append(_rows(name, data))
    return found


def _rows(name: str, data: bytes) -> list[tuple[int, str]]:
    if ".parquet" in name:
        return [tuple(row.values()) for row in pq.read_table(pa.BufferReader(data)).to_pylist()]
    if name.endswith(".zst"):
        data = pa.input_stream(pa.BufferReader(data), compression="zstd").read()
    if ".csv" in name:
        header, *lines = csv.reader(data.decode().splitlines())
        assert header == ["id", "note"]
        return [(int(number), note) for number, note in lines]
    objects = json.loads(data) if ".json" in name and ".jsonl" not in name else map(json.loads, data.splitlines())
    return [tuple(each.values()) for each in objects]


# ── What is written ──


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 4, [3]), (0, 4, [0]), (3, 1, [1, 1, 1]), (300, 129, [129, 129, 42])],
)
def test_the_rows_are_split_in_their_order(
    hook: LakebaseHook, tmp_path: Path, ending: str, count: int, most: int, sizes: list[int]
):
    result = hook.export(series(count), tmp_path / f"out.{ending}", max_rows_per_file=most)
    found = read(str(tmp_path / f"out.{ending}"))
    assert [len(rows) for rows in found] == sizes
    assert [row for rows in found for row in rows] == rows_of(count)
    names = [f"part-{n:05}.{ending}" for n in range(len(sizes))]
    assert names_in(str(tmp_path / f"out.{ending}")) == ["_SUCCESS", *names]
    assert result.files == tuple(f"{tmp_path}/out.{ending}/{name}" for name in names)
    assert result.rows == count
    assert os.listdir(tmp_path) == [f"out.{ending}"]


def test_a_parquet_part_that_ends_within_a_batch_is_exact(hook: LakebaseHook, tmp_path: Path):
    hook.export(series(70_001), tmp_path / "out.parquet", max_rows_per_file=33_333)
    found = read(str(tmp_path / "out.parquet"))
    assert [len(rows) for rows in found] == [33_333, 33_333, 3335]
    assert [row for rows in found for row in rows] == rows_of(70_001)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_folder_anywhere_is_loaded_again(hook: LakebaseHook, folder: str, ending: str):
    result = hook.export(series(10), f"{folder}/out.{ending}", max_rows_per_file=4)
    assert [row for rows in read(f"{folder}/out.{ending}") for row in rows] == rows_of(10)
    hook.run("CREATE TABLE folders.again (id int, note text)")
    for source in (f"{folder}/out.{ending}", list(result.files)):
        hook.load(source, "folders.again", mode="replace")
        assert hook.get_records("SELECT * FROM folders.again ORDER BY id") == rows_of(10)


def test_the_format_is_the_one_given_or_that_of_the_folders_name(hook: LakebaseHook, folder: str):
    hook.export(series(2), f"{folder}/plain", max_rows_per_file=1, format="csv", delimiter=";")
    assert names_in(f"{folder}/plain") == ["_SUCCESS", "part-00000.csv", "part-00001.csv"]
    assert (path_of(f"{folder}/plain") / "part-00001.csv").read_bytes() == b"id;note\n2;name 2\n"
    hook.export(series(2), f"{folder}/slash.jsonl/", max_rows_per_file=5)
    assert names_in(f"{folder}/slash.jsonl") == ["_SUCCESS", "part-00000.jsonl"]
    if "://" not in folder:
        hook.export(series(2), f"file://{folder}/url.csv", max_rows_per_file=1)
        assert names_in(f"{folder}/url.csv") == ["_SUCCESS", "part-00000.csv", "part-00001.csv"]
    with pytest.raises(LakebaseSettingsError, match="format of .*unknown"):
        hook.export(series(2), f"{folder}/unknown", max_rows_per_file=5)


def test_each_file_has_the_encoding_and_header_that_are_asked_for(hook: LakebaseHook, tmp_path: Path):
    hook.export(series(3), tmp_path / "a.csv", max_rows_per_file=2, encoding="utf-16")
    texts = [(tmp_path / "a.csv" / f"part-0000{n}.csv").read_bytes().decode("utf-16") for n in range(2)]
    assert texts == ["id,note\n1,name 1\n2,name 2\n", "id,note\n3,name 3\n"]
    hook.export(series(3), tmp_path / "b.csv", max_rows_per_file=2, header=False)
    texts = [(tmp_path / "b.csv" / f"part-0000{n}.csv").read_text() for n in range(2)]
    assert texts == ["1,name 1\n2,name 2\n", "3,name 3\n"]


def test_the_operator_tells_the_files(emulator: LakebaseEmulator, tmp_path: Path):
    operator = LakebaseExportOperator(
        task_id="export", sql=series(3), destination=str(tmp_path / "{{ x }}.csv"), max_rows_per_file=2
    )
    operator.render_template_fields({"x": "out"})
    found = operator.execute({})
    assert found["files"] == [f"{tmp_path}/out.csv/part-0000{n}.csv" for n in range(2)]
    assert found["destination"] == f"{tmp_path}/out.csv"
    single = LakebaseExportOperator(task_id="export", sql=series(3), destination=str(tmp_path / "one.csv"))
    assert single.execute({})["files"] == [f"{tmp_path}/one.csv"]


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "10"])
def test_a_number_of_rows_that_is_none_is_refused(hook: LakebaseHook, tmp_path: Path, most: Any):
    with pytest.raises(LakebaseSettingsError, match="max_rows_per_file is"):
        hook.export(series(1), tmp_path / "out.csv", max_rows_per_file=most)


MEMORY_OF_AN_EXPORT = """
import sys, tracemalloc
from airflow_provider_lakebase.core.bulk.formats import arrow_query
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

arrow_query._CSV_BLOCK_BYTES = 1 << 14  # pyarrow reads up to 32 blocks ahead

def peak(count):
    query = f"SELECT n AS id, repeat('x', 300) AS note FROM generate_series(1, {count}) AS n"
    tracemalloc.start()
    result = LakebaseHook().export(query, sys.argv[1], max_rows_per_file=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (result.rows, len(result.files)) == (count, count / 1000)
    return peak

peak(2000)
print(peak(50_000), peak(100_000))
"""


@pytest.mark.long
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_rows_or_the_files(hook: LakebaseHook, tmp_path: Path, ending: str):
    """A process of its own is measured: the emulator and what other tests left run in this one."""
    command = [sys.executable, "-W", "ignore", "-c", MEMORY_OF_AN_EXPORT, f"{tmp_path}/out.{ending}"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    fewer, more = map(int, output.splitlines()[-1].split())
    # 15 MB more.
    assert more < fewer + 4 * MIB


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_an_export_of_a_table_keeps_the_order_of_its_columns(
    hook: LakebaseHook, tmp_path: Path, ending: str, most: int | None
):
    hook.run(
        """CREATE TABLE folders.ordered (z int, "B" int, gone int, a int);
        ALTER TABLE folders.ordered DROP gone; ALTER TABLE folders.ordered ADD "A b" int, ADD c int;
        INSERT INTO folders.ordered VALUES (1, 2, 3, 4, 5), (6, 7, 8, 9, 10), (11, 12, 13, 14, 15)"""
    )
    result = hook.export("folders.ordered", tmp_path / f"out.{ending}", max_rows_per_file=most)
    found = []
    for file in result.files:
        relation = {"csv": duckdb.read_csv, "parquet": duckdb.read_parquet}.get(ending, duckdb.read_json)(file)
        assert relation.columns == ["z", "B", "a", "A b", "c"]
        found += relation.fetchall()
    assert found == [(1, 2, 3, 4, 5), (6, 7, 8, 9, 10), (11, 12, 13, 14, 15)]


# ── What was there before ──


@pytest.mark.parametrize("before", ["csv", "parquet"])
def test_the_files_of_an_earlier_export_are_replaced(hook: LakebaseHook, folder: str, before: Any):
    hook.export(series(10), f"{folder}/out", max_rows_per_file=2, format=before)
    hook.export(series(3), f"{folder}/out", max_rows_per_file=2, format="csv")
    assert names_in(f"{folder}/out") == ["_SUCCESS", "part-00000.csv", "part-00001.csv"]
    assert [row for rows in read(f"{folder}/out") for row in rows] == rows_of(3)
    assert {name for name in names_in(folder) if not name.startswith(("part", "_", "out"))} == set()


@pytest.mark.parametrize("other", ["notes.txt", "sub/part-00000.csv", ".hidden", "part-1.csv", "part-00000.csv.bak"])
def test_a_folder_with_other_files_is_left_alone(hook: LakebaseHook, folder: str, other: str):
    path = path_of(f"{folder}/out") / other
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    hook.run("CREATE TABLE folders.written (id int)")
    writing = "WITH w AS (INSERT INTO folders.written VALUES (1) RETURNING id) SELECT * FROM w"
    with pytest.raises(LakebaseSettingsError, match="out contains other files than those of an export"):
        hook.export(writing, f"{folder}/out", max_rows_per_file=2, format="csv")
    assert path.read_bytes() == b"mine"
    assert hook.get_first("SELECT count(*) FROM folders.written") == (0,)


def test_a_file_in_the_place_of_the_folder_is_left_alone(hook: LakebaseHook, folder: str):
    hook.export(series(1), f"{folder}/out.csv")
    with pytest.raises(LakebaseSettingsError, match="out.csv is a file, but max_rows_per_file writes a folder"):
        hook.export(series(3), f"{folder}/out.csv", max_rows_per_file=2)
    assert path_of(f"{folder}/out.csv").read_bytes() == b"id,note\n1,name 1\n"


def test_a_missing_parent_is_named(hook: LakebaseHook, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="There is no such folder to write to: '.*/missing'"):
        hook.export(series(1), tmp_path / "missing" / "out.csv", max_rows_per_file=2)


@pytest.mark.parametrize("table", ["folders.nope", "nope.nope"])
def test_a_missing_table_is_named(hook: LakebaseHook, folder: str, table: str):
    with pytest.raises(LakebaseExportError, match=f"There is no table {table} .*Correct its name"):
        hook.export(table, f"{folder}/out.csv")
    assert "out.csv" not in names_in(folder)


def test_an_unknown_option_is_named(hook: LakebaseHook, folder: str):
    with pytest.raises(TypeError, match=r"^export\(\) got an unexpected keyword argument 'delimeter'"):
        hook.export("folders.nope", f"{folder}/out.csv", delimeter=";")  # type: ignore[call-arg]


def test_an_empty_folder_and_a_link_to_a_folder_are_filled(hook: LakebaseHook, tmp_path: Path):
    (tmp_path / "real.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    for count in (5, 3):
        hook.export(series(count), tmp_path / "link.csv", max_rows_per_file=2)
        assert [row for rows in read(str(tmp_path / "real.csv")) for row in rows] == rows_of(count)
    assert (tmp_path / "link.csv").is_symlink()


# ── What stops an export ──

FAILING = "SELECT n AS id, 1 / (5001 - n) AS note FROM generate_series(1, 9999) AS n"


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_an_export_that_fails_leaves_the_files_that_were_there(hook: LakebaseHook, folder: str, ending: str):
    hook.export(series(5), f"{folder}/out.{ending}", max_rows_per_file=2)
    with pytest.raises(Exception, match="division by zero"):
        hook.export(FAILING, f"{folder}/out.{ending}", max_rows_per_file=100)
    assert [row for rows in read(f"{folder}/out.{ending}") for row in rows] == rows_of(5)
    assert "_SUCCESS" in names_in(f"{folder}/out.{ending}")
    assert not [name for name in names_in(folder) if "partial" in name]


def test_a_character_that_the_encoding_lacks_leaves_nothing(hook: LakebaseHook, folder: str):
    with pytest.raises(LakebaseExportError, match="U\\+20AC") as refused:
        hook.export("SELECT '€' AS id", f"{folder}/out.csv", max_rows_per_file=1, encoding="latin-1")
    assert refused.value.destination.endswith("out.csv")
    with suppress(FileNotFoundError):
        assert names_in(folder) == []


class Killed(BaseException):
    """In place of a kill: nothing is cleaned up."""


def killing(monkeypatch: pytest.MonkeyPatch, fs: Any, at: int) -> None:
    """Stop at a certain change of the storage, before it is made."""
    left = [at]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments, **keywords)

        return call

    for name in ("cp_file", "rm_file", "pipe_file"):
        monkeypatch.setattr(fs, name, counting(getattr(fs, name)))
    monkeypatch.setattr(export_folder._StoredFolder, "discard", lambda self: None)


@pytest.mark.parametrize("folder", ["s3", "memory"], indirect=True)
def test_on_object_storage_a_set_of_files_is_marked_only_while_it_is_whole(
    hook: LakebaseHook, folder: str, monkeypatch: pytest.MonkeyPatch
):
    """Before each change of the storage, the files are the old ones or the new ones, or there is no mark."""
    old, new = rows_of(10), rows_of(5)
    unmarked = 0
    for at in range(20):
        hook.export(series(10), f"{folder}/out.csv", max_rows_per_file=2)
        with monkeypatch.context() as patch:
            killing(patch, path_of(folder).fs, at)
            try:
                hook.export(series(5), f"{folder}/out.csv", max_rows_per_file=2)
                ended = True
            except Killed:
                ended = False
        found = [row for rows in read(f"{folder}/out.csv") for row in rows]
        if "_SUCCESS" in names_in(f"{folder}/out.csv"):
            assert found == (new if ended else old)
        else:
            unmarked += 1
        hook.export(series(5), f"{folder}/out.csv", max_rows_per_file=2)
        assert names_in(f"{folder}/out.csv") == ["_SUCCESS", *(f"part-0000{n}.csv" for n in range(3))]
        assert [row for rows in read(f"{folder}/out.csv") for row in rows] == new
        if ended:
            break
    # Remove the mark, copy three files, remove two old ones, write the mark.
    assert (at, unmarked) == (7, 6)


EXPORT = """
import sys
from airflow_provider_lakebase.core.bulk.export import export
from airflow_provider_lakebase.core.bulk.options import ExportOptions
import psycopg

with psycopg.connect(sys.argv[1]) as connection:
    print("begins", flush=True)
    export(connection, sys.argv[2], sys.argv[3], ExportOptions(max_rows_per_file=100))
"""


def test_a_killed_export_shows_no_part_of_its_files_and_a_retry_writes_exactly_its_own(
    hook: LakebaseHook, emulator: LakebaseEmulator, tmp_path: Path
):
    out = tmp_path / "out.csv"
    hook.export(series(1000), out, max_rows_per_file=10)
    slow = "SELECT n AS id, CASE WHEN n % 100 = 0 THEN pg_sleep(0.05)::text END AS note FROM generate_series(1, 9999) n"
    command = [sys.executable, "-c", EXPORT, emulator.superuser_conninfo, slow, str(out)]
    for seconds in (0.1, 0.5, 1.0):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        assert [row for rows in read(str(out)) for row in rows] == rows_of(1000)
    hook.export(series(5), out, max_rows_per_file=2)
    assert names_in(str(out)) == ["_SUCCESS", *(f"part-0000{n}.csv" for n in range(3))]


def test_readers_of_a_local_folder_see_all_files_of_one_export(hook: LakebaseHook, tmp_path: Path):
    """While exports of different sizes follow each other."""
    script = f"""
import os, sys
seen = set()
while not os.path.exists({str(tmp_path / "stop")!r}):
    try:
        seen.add(len([name for name in os.listdir({str(tmp_path / "out.csv")!r}) if name.startswith("part")]))
    except FileNotFoundError:
        pass
print(sorted(seen))
"""
    hook.export(series(100), tmp_path / "out.csv", max_rows_per_file=1)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as reader:
        try:
            for count in (50, 100, 50, 100, 50):
                hook.export(series(count), tmp_path / "out.csv", max_rows_per_file=1)
                time.sleep(0.05)
        finally:
            (tmp_path / "stop").touch()
        assert reader.communicate()[0] == "[50, 100]\n"
