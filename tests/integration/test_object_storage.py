"""What works on a local file works on object storage: an S3 server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet
import pytest
from _object_store import BUCKET, Server, path_of
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath

from airflow_provider_lakebase.core.storage import shown, storage_error
from airflow_provider_lakebase.exceptions import (
    LakebaseLoadError,
    LakebaseSettingsError,
    LakebaseStorageAccessError,
    LakebaseStorageError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseExportOperator, LakebaseLoadOperator

ROWS = "SELECT n AS id, 'name ' || n AS name, n * 1.25::numeric(10,2) AS price FROM generate_series(1, 3) AS n"
CHECK = "SELECT count(*), sum(id), max(name), sum(price) FROM {}"
EXPECTED = (3, 6, "name 3", 7.5)
ENDINGS = ["csv", "csv.gz", "csv.zst", "json", "jsonl", "jsonl.gz", "jsonl.zst", "parquet"]
NAMES = ["a b", "a#b", "a?b", "a%20b", "größe-日本", "a?x=1&y=2#f", "a+b&c=d"]


@pytest.fixture
def table(hook: LakebaseHook) -> Iterator[str]:
    hook.run(
        [
            "CREATE SCHEMA IF NOT EXISTS storage_tests",
            "CREATE TABLE storage_tests.stored (id bigint, name text, price numeric(10,2))",
        ]
    )
    yield "storage_tests.stored"
    hook.run("DROP TABLE storage_tests.stored")


def loaded(hook: LakebaseHook, table: str) -> tuple[Any, ...]:
    count, ids, name, price = hook.get_first(CHECK.format(table))
    hook.run(f"TRUNCATE {table}")
    return count, ids, name, float(price)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_exported_is_loaded(hook: LakebaseHook, table: str, folder: str, ending: str) -> None:
    file = f"{folder}/rows.{ending}"

    assert hook.export(ROWS, file).rows == 3
    assert hook.load(file, table).rows == 3
    assert loaded(hook, table) == EXPECTED
    hook.load(path_of(file), table)
    assert loaded(hook, table) == EXPECTED
    assert [path.name for path in path_of(folder).iterdir()] == [f"rows.{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_store_holds_the_bytes_that_a_local_file_has(
    hook: LakebaseHook, s3_folder: str, tmp_path: Path, ending: str
) -> None:
    local, remote = tmp_path / f"rows.{ending}", ObjectStoragePath(f"{s3_folder}/rows.{ending}")
    hook.export(ROWS, local)
    hook.export(ROWS, remote)

    if ending == "parquet":
        with remote.open("rb") as file:
            assert pyarrow.parquet.read_table(file).equals(pyarrow.parquet.read_table(local))
    elif ending.endswith(".gz"):  # whose header has the time
        assert remote.read_bytes()[8:] == local.read_bytes()[8:]
    else:
        assert remote.read_bytes() == local.read_bytes()


def test_a_csv_file_without_a_header(hook: LakebaseHook, table: str, folder: str) -> None:
    hook.export(ROWS, f"{folder}/rows.csv", header=False)
    hook.load(f"{folder}/rows.csv", table, header=False)

    assert loaded(hook, table) == EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken_as_it_stands(hook: LakebaseHook, table: str, folder: str, name: str) -> None:
    file = f"{folder}/{name}.csv"
    hook.export(ROWS, file)
    hook.load(file, table)

    assert loaded(hook, table) == EXPECTED
    assert [path.name for path in path_of(folder).iterdir()] == [f"{name}.csv"]


def test_several_files_are_loaded_together(hook: LakebaseHook, table: str, folder: str) -> None:
    files = [f"{folder}/1.csv", f"{folder}/2.jsonl.gz", f"{folder}/3.parquet"]
    for file in files:
        hook.export(ROWS, file)

    hook.load(files, table)
    assert hook.get_first(f"SELECT count(*) FROM {table}") == (9,)
    hook.load(tuple(files), table, mode="replace")
    assert hook.get_first(f"SELECT count(*) FROM {table}") == (9,)
    hook.load([path_of(file) for file in files], table, mode="replace")
    assert hook.get_first(f"SELECT count(*) FROM {table}") == (9,)


@pytest.mark.parametrize("folder", ["local", "s3", "memory"], indirect=True)
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_files_that_fsspec_opens(hook: LakebaseHook, table: str, folder: str, ending: str) -> None:
    file = path_of(f"{folder}/rows.{ending}")
    hook.export(ROWS, file)

    with file.open("rb") as opened:
        hook.load(opened, table, format=ending.partition(".")[0])
    assert loaded(hook, table) == EXPECTED
    if "memory" in folder:
        hook.load([fsspec.open(str(file))], table)
        assert loaded(hook, table) == EXPECTED


def test_bulk_names_take_urls(hook: LakebaseHook, table: str, folder: str) -> None:
    hook.run(f"INSERT INTO {table} {ROWS}")
    hook.bulk_dump(table, f"{folder}/rows.tsv")
    hook.run(f"TRUNCATE {table}")
    hook.bulk_load(table, f"{folder}/rows.tsv")
    assert loaded(hook, table) == EXPECTED

    hook.copy_expert(f"COPY ({ROWS}) TO STDOUT (FORMAT csv, DELIMITER ';')", f"{folder}/rows.csv.gz")
    hook.copy_expert(f"COPY {table} FROM STDIN (FORMAT csv, DELIMITER ';')", f"{folder}/rows.csv.gz")
    assert loaded(hook, table) == EXPECTED


@pytest.mark.parametrize("ending", ["csv", "jsonl.zst", "parquet"])
def test_operators_take_the_connection_of_the_store(
    hook: LakebaseHook, table: str, s3_folder: str, ending: str
) -> None:
    url = f"{s3_folder}/rows.{ending}".replace("store@", "")
    export = LakebaseExportOperator(
        task_id="export", sql=ROWS, destination=url, destination_conn_id="store", lakebase_conn_id="lakebase_default"
    )
    assert export.execute({})["rows"] == 3
    load = LakebaseLoadOperator(task_id="load", source=[url], source_conn_id="store", table=table, exactly_once=False)
    assert load.execute({})["rows"] == 3
    assert loaded(hook, table) == EXPECTED


def test_a_connection_that_cannot_be_obeyed_is_refused(table: str, s3_folder: str, tmp_path: Path) -> None:
    for source in (f"{s3_folder}/rows.csv", str(tmp_path / "rows.csv")):
        load = LakebaseLoadOperator(task_id="load", source=source, source_conn_id="other", table=table)
        with pytest.raises(AirflowFailException, match="names another connection|is a local file"):
            load.execute({})


def test_an_empty_result_replaces_the_object(hook: LakebaseHook, folder: str) -> None:
    file = path_of(f"{folder}/rows.csv")
    hook.export(ROWS, file)
    hook.export(f"{ROWS} LIMIT 0", file, header=False)

    assert file.read_bytes() == b""


# ── Whole or not at all ──


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_an_export_that_fails_at_once_leaves_what_was_there(hook: LakebaseHook, folder: str, ending: str):
    check_failing_export(hook, folder, ending, 3)


# Each format writes to every place alike, and only object storage gets a file in parts.
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_an_export_that_fails_after_several_parts_leaves_what_was_there(
    hook: LakebaseHook, s3_folder: str, ending: str
):
    check_failing_export(hook, s3_folder, ending, 700_000)


def test_an_export_that_fails_after_many_rows_leaves_the_local_file(hook: LakebaseHook, tmp_path: Path):
    check_failing_export(hook, str(tmp_path), "csv", 700_000)


def check_failing_export(hook: LakebaseHook, folder: str, ending: str, rows: int) -> None:
    file = path_of(f"{folder}/rows.{ending}")
    hook.export(ROWS, file)
    before = file.read_bytes()

    with pytest.raises(Exception, match="division by zero"):
        hook.export(f"SELECT n, md5(n::text), 1 / ({rows} - n) AS x FROM generate_series(1, {rows}) AS n", file)
    assert file.read_bytes() == before
    assert [path.name for path in path_of(folder).iterdir()] == [file.name]


def test_a_failed_upload_is_aborted(hook: LakebaseHook, s3: Server, s3_folder: str) -> None:
    file = ObjectStoragePath(f"{s3_folder}/rows.csv")
    s3.requests.clear()
    with pytest.raises(Exception, match="division by zero"):
        hook.export("SELECT repeat('x', 100), 1 / (200000 - n) AS x FROM generate_series(1, 200000) AS n", file)

    assert not file.exists()
    assert ("DELETE", f"/{file.path}") in s3.requests
    uploads = file.fs.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", [])
    assert not [upload for upload in uploads if upload["Key"] in file.path]


def test_an_object_is_written_once(hook: LakebaseHook, s3: Server, s3_folder: str) -> None:
    s3.requests.clear()
    hook.export(ROWS, f"{s3_folder}/rows.csv")

    assert not [request for request in s3.requests if "copy" in request[0] or "partial" in request[1]]
    assert len([request for request in s3.requests if request[0] in ("PUT", "POST")]) <= 3


# ── Refusals ──


def test_a_missing_object_or_bucket_is_named(hook: LakebaseHook, table: str, s3_folder: str) -> None:
    for url in (f"{s3_folder}/none.csv", "s3://store@no-such-bucket/none.csv"):
        with pytest.raises(FileNotFoundError) as caught:
            hook.load(url, table)
        assert url in str(caught.value) and "no such object or bucket" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no such bucket") as caught:
        hook.export(ROWS, "s3://store@no-such-bucket/rows.csv")


@pytest.mark.parametrize("url", ["nope://bucket/rows.csv", "gs://bucket/rows.csv", "abfs://c@a/rows.parquet"])
def test_a_scheme_that_nothing_knows_is_refused(hook: LakebaseHook, table: str, url: str) -> None:
    for act in (
        lambda: hook.load(url, table),
        lambda: hook.load([url], table),
        lambda: hook.export(ROWS, url),
        lambda: hook.bulk_load(table, url),
    ):
        with pytest.raises(LakebaseSettingsError, match="No installed provider.*Install the Airflow provider"):
            act()


def test_a_store_that_refuses(hook: LakebaseHook, s3: Server, table: str, s3_folder: str) -> None:
    hook.export(ROWS, f"{s3_folder}/rows.csv")
    s3.refusing = True
    for act in (
        lambda: hook.load(f"{s3_folder}/rows.csv", table),
        lambda: hook.export(ROWS, f"{s3_folder}/rows.csv"),
        lambda: hook.bulk_load(table, f"{s3_folder}/rows.csv"),
    ):
        with pytest.raises(LakebaseStorageAccessError, match="rows.csv cannot be .*refused access") as caught:
            act()
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_store_that_is_not_there(hook: LakebaseHook, s3: Server, table: str) -> None:
    for act in (
        lambda: hook.load(f"s3://down@{BUCKET}/rows.csv", table),
        lambda: hook.export(ROWS, f"s3://down@{BUCKET}/rows.csv"),
    ):
        with pytest.raises(LakebaseStorageError, match="could not be reached") as caught:
            act()
        assert caught.value.retryable


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://conn@bucket/a b?c#d%20.csv", "s3://conn@bucket/a b?c#d%20.csv"),
        ("s3://user:pass@bucket/key", "s3://***@bucket/key"),
        ("s3://user:pa/ss@bucket/key", "s3://***@bucket/key"),
        ("https://u:p@host:80/x.csv?sig=abc", "https://***@host:80/x.csv"),
        ("abfs://c@a.dfs.core.windows.net/x.csv?sv=1&sig=abc", "abfs://c@a.dfs.core.windows.net/x.csv"),
        ("s3://bucket/x.csv?X-Amz-Signature=abc&X-Amz-Date=1", "s3://bucket/x.csv"),
        ("https://host:80/x@y.csv", "https://host:80/x@y.csv"),
        ("/tmp/a?sig=1", "/tmp/a?sig=1"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_the_log_shows_no_secret_of_a_url(hook: LakebaseHook, table: str, task_log: Callable[[], str]) -> None:
    url = "s3://user:hunter22@bucket/x.csv?X-Amz-Signature=0123456789abcdef"
    for act in (lambda: hook.load(url, table), lambda: hook.export(ROWS, url)):
        with pytest.raises(Exception) as caught:
            act()
        assert "hunter22" not in str(caught.value) and "0123456789abcdef" not in str(caught.value)


def test_errors_of_the_database_are_not_the_storages() -> None:
    assert storage_error(ValueError("x"), "s3://bucket/key") is None
    assert storage_error(LakebaseLoadError("x"), "s3://bucket/key") is None
    assert storage_error(OSError("content"), "s3://bucket/key") is None
