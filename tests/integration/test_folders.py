"""Folders, patterns and partition folders as the source of a load, local and on S3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from _object_store import BUCKET, Server, path_of, write, write_rows
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_lakebase.exceptions import (
    LakebaseError,
    LakebaseLoadError,
    LakebaseSettingsError,
    LakebaseStorageAccessError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.load import list_files as list_files_task

TABLE = "folders.t"
FORMATS = ["csv", "jsonl", "parquet"]
MODES: list[dict[str, Any]] = [{"mode": "append"}, {"mode": "replace"}, {"mode": "upsert", "key_columns": ["id"]}]
MODE_NAMES = ["append", "replace", "upsert"]


@pytest.fixture(autouse=True)
def table(hook: LakebaseHook) -> Iterator[None]:
    hook.run("DROP SCHEMA IF EXISTS folders CASCADE; CREATE SCHEMA folders")
    hook.run(f"CREATE TABLE {TABLE} (id int UNIQUE, note text)")
    yield
    hook.run("DROP SCHEMA folders CASCADE")


def ids(hook: LakebaseHook) -> list[int]:
    return [id for (id,) in hook.get_records(f"SELECT id FROM {TABLE} ORDER BY ctid")]


def csv_file(url: str, *numbers: int) -> str:
    return write_rows(url, [{"id": number, "note": f"n{number}"} for number in numbers])


# ── Folders and patterns ──


LANDING = {
    "b.csv": 1,
    "a.csv": 2,
    "deep/er/c.csv": 3,
    "deep/d.csv": 4,
    "dt=2026-11-01/e.csv": 5,
    "dt=2026-11-02/f.csv": 6,
    "_part=1/g.csv": 7,
    "a b#%20.csv": 8,
    "_temporary/0/h.csv": 91,
    ".hidden/i.csv": 92,
    "_SUCCESS": 93,
    "deep/.j.csv": 94,
    "deep/_k.csv": 95,
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [7, 8, 2, 1, 4, 3, 5, 6]),
        ("/", [7, 8, 2, 1, 4, 3, 5, 6]),
        ("/**", [7, 8, 2, 1, 4, 3, 5, 6]),
        ("/**/*.csv", [7, 8, 2, 1, 4, 3, 5, 6]),
        ("/*.csv", [8, 2, 1]),
        ("/?.csv", [2, 1]),
        ("/*/*.csv", [7, 4, 5, 6]),
        ("/deep/**/*.csv", [4, 3]),
        ("/**/er/*", [3]),
        ("/dt=2026-11-*/**", [5, 6]),
        ("/dt=2026-11-0?/?.csv", [5, 6]),
        ("/dt=*2/*", [6]),
        ("/_temporary/*/*.csv", [91]),
        ("/.hid*/*", [92]),
        ("/deep/_*", [95]),
        ("/deep", [4, 3]),
        ("/**/[ab].csv", None),
        ("/*.parquet", None),
        ("/nothing/*.csv", None),
    ],
)
def test_a_folder_or_pattern_loads_its_files_in_the_order_of_their_names(
    hook: LakebaseHook, folder: str, pattern: str, expected: list[int] | None
):
    for name, number in LANDING.items():
        csv_file(f"{folder}/{name}" if name != "_SUCCESS" else f"{folder}/_SUCCESS", number)
    if expected is None:
        with pytest.raises(FileNotFoundError, match="No file matches the pattern; allow_empty=True loads nothing"):
            hook.load(f"{folder}{pattern}", TABLE)
        assert hook.load(f"{folder}{pattern}", TABLE, allow_empty=True).rows == 0
        expected = []
    else:
        assert hook.load(f"{folder}{pattern}", TABLE).rows == len(expected)
    assert ids(hook) == expected


def test_what_is_named_is_loaded_whatever_its_name(hook: LakebaseHook, folder: str):
    names = ["_hidden.csv", ".hidden.csv", "a*b.csv", "a?b.csv", "a[1].csv", "**.csv", "_x/y.csv"]
    for number, name in enumerate(names):
        csv_file(f"{folder}/{name}", number)
        hook.load(f"{folder}/{name}", TABLE)
    assert ids(hook) == list(range(len(names)))
    csv_file(f"{folder}/axb.csv", 99)
    hook.load([f"{folder}/a*b.csv", f"{folder}/a?b.csv"], TABLE, mode="replace")
    assert ids(hook) == [2, 3]  # not axb.csv: names that exist are no patterns


def test_a_list_is_loaded_in_its_order_and_no_file_twice(hook: LakebaseHook, folder: str):
    for number, name in enumerate(["a.csv", "b.csv", "c/d.csv", "_e.csv"]):
        csv_file(f"{folder}/{name}", number)
    sources = [f"{folder}/b.csv", f"{folder}/?.csv", f"{folder}/c", f"{folder}/_e.csv", f"{folder}/**"]
    hook.load(sources, TABLE)
    assert ids(hook) == [1, 0, 2, 3]
    with pytest.raises(FileNotFoundError, match=r"\*\.parquet"):
        hook.load([f"{folder}/*.csv", f"{folder}/*.parquet"], TABLE)
    assert hook.load([f"{folder}/*.parquet", f"{folder}/a.csv"], TABLE, mode="replace", allow_empty=True).rows == 1
    hook.load(path_of(f"{folder}/c"), TABLE, mode="replace")
    hook.load([path_of(f"{folder}/?.csv")], TABLE)
    assert ids(hook) == [2, 0, 1]


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("name", ["/*.csv", "/none", "/**", ""])
def test_where_nothing_may_be_nothing_is_loaded(hook: LakebaseHook, folder: str, mode: dict[str, Any], name: str):
    hook.run(f"INSERT INTO {TABLE} VALUES (1, 'old')")
    kept = 0 if mode["mode"] == "replace" else 1
    source = f"{folder}/empty{name}"
    with pytest.raises((FileNotFoundError, LakebaseSettingsError)):
        hook.load(source, TABLE, **mode)
    assert ids(hook) == [1]
    assert hook.load(source, TABLE, allow_empty=True, delimiter=";", load_id=f"{source}{mode}", **mode).rows == 0
    assert len(ids(hook)) == kept
    # What can be checked without a file is.
    for options in ({"columns": ["nope"]}, {"columns": {"x": "nope"}}, {"casts": {"nope": "int"}}):
        with pytest.raises(LakebaseSettingsError, match="nope"):
            hook.load(source, TABLE, allow_empty=True, **mode, **options)
    with pytest.raises(LakebaseLoadError, match="no table folders.nope"):
        hook.load(source, "folders.nope", allow_empty=True, create_table={"*": "text"})
    hook.load(source, TABLE, allow_empty=True, create_table=True, **mode)


def test_a_file_that_is_missing_is_an_error_even_where_nothing_may_be(hook: LakebaseHook, folder: str):
    csv_file(f"{folder}/a.csv", 1)
    for source in (f"{folder}/b.csv", [f"{folder}/a.csv", f"{folder}/b.csv"]):
        with pytest.raises(FileNotFoundError, match=r"b\.csv"):
            hook.load(source, TABLE, allow_empty=True)


def test_a_missing_bucket_is_an_error_even_where_nothing_may_be(hook: LakebaseHook, s3: Server):
    for name in ("*.csv", "**", "a/*/b.csv", "a", ""):
        with pytest.raises(FileNotFoundError, match="no such object or bucket"):
            hook.load(f"s3://store@no-such-bucket/{name}", TABLE, allow_empty=True)


def test_a_pattern_that_cannot_be_obeyed_is_refused(hook: LakebaseHook, folder: str):
    csv_file(f"{folder}/day/a.csv", 1)
    with pytest.raises(LakebaseSettingsError, match=r"matches folders only.*add '/\*\*'"):
        hook.load(f"{folder}/d*", TABLE, allow_empty=True)
    for pattern in ("**.csv", "da**", "**y/a.csv"):
        with pytest.raises(LakebaseSettingsError, match=r"'\*\*' is not a whole name"):
            hook.load(f"{folder}/{pattern}", TABLE)
    if "://" in folder:
        with pytest.raises(LakebaseSettingsError, match="a wildcard in the name of its bucket"):
            hook.load(f"{folder.partition('://')[0]}://store@buck*/a.csv", TABLE)


def test_a_file_in_a_folder_whose_format_is_unknown_stops_the_load(hook: LakebaseHook, folder: str):
    csv_file(f"{folder}/a.csv", 1)
    write(f"{folder}/README.txt", b"id,note\n2,x\n")
    with pytest.raises(LakebaseSettingsError, match=r"format of .*README.txt is unknown"):
        hook.load(folder, TABLE)
    hook.load(folder, TABLE, format="csv")
    assert ids(hook) == [2, 1]


def test_files_of_all_formats_in_one_folder(hook: LakebaseHook, folder: str):
    for number, ending in enumerate(FORMATS):
        csv_file(f"{folder}/{ending}.{ending}", number)
    hook.load(folder, TABLE)
    assert ids(hook) == [0, 1, 2]


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("ending", FORMATS)
def test_a_folder_is_one_transaction_and_the_bad_file_is_named(
    hook: LakebaseHook, folder: str, ending: str, mode: dict[str, Any]
):
    for number in range(5):
        csv_file(f"{folder}/day/{number}.{ending}", number, number + 10)
    write_rows(f"{folder}/day/3.{ending}", [{"id": "3", "note": "x"}, {"id": "y", "note": "x"}])
    hook.run(f"INSERT INTO {TABLE} VALUES (99, 'old')")
    with pytest.raises(LakebaseLoadError, match=rf"(row 2|line [23]), column id, of .*day/3\.{ending}"):
        hook.load(f"{folder}/day", TABLE, **mode)
    assert ids(hook) == [99]


def test_the_last_file_of_a_folder_wins(hook: LakebaseHook, folder: str):
    for number in (9, 3, 10):
        write_rows(f"{folder}/v{number:02}.csv", [{"id": 1, "note": str(number)}])
    hook.load(folder, TABLE, mode="upsert", key_columns=["id"])
    assert hook.get_records(f"SELECT * FROM {TABLE}") == [(1, "10")]


def test_a_folder_is_listed_anew_by_every_load(hook: LakebaseHook, s3: Server, s3_folder: str):
    import boto3

    place = path_of(s3_folder)
    client = boto3.client(
        "s3",
        endpoint_url=s3.url,
        aws_access_key_id="x",
        aws_secret_access_key="y",
        region_name="us-east-1",
    )
    for number in range(3):  # as another process would
        key = f"{place.path.partition('/')[2]}/{number}.csv"
        client.put_object(Bucket=BUCKET, Key=key, Body=f"id,note\n{number},{'x' * number}\n".encode())
        client.put_object(
            Bucket=BUCKET, Key=key.replace(f"{number}.csv", "0.csv"), Body=b"id,note\n0,y" + b"y" * number
        )
        assert hook.load(s3_folder, TABLE, mode="replace").rows == number + 1
        assert hook.load(f"{s3_folder}/*.csv", TABLE, mode="replace").rows == number + 1
        assert hook.load(f"{s3_folder}/0.csv", TABLE, mode="replace").rows == 1
        assert hook.get_first(f"SELECT length(note) FROM {TABLE}") == (number + 1,)


def test_the_marker_of_a_folder_is_no_file(hook: LakebaseHook, s3_folder: str):
    place = path_of(s3_folder)
    for key in ("", "day/"):
        place.fs.call_s3("put_object", Bucket=BUCKET, Key=f"{place.path.partition('/')[2]}/{key}", Body=b"")
    csv_file(f"{s3_folder}/day/a.csv", 1)
    for source in (s3_folder, f"{s3_folder}/**", f"{s3_folder}/*/*"):
        hook.load(source, TABLE, mode="replace")
        assert ids(hook) == [1]


def test_a_store_that_refuses_to_list(hook: LakebaseHook, s3: Server, s3_folder: str):
    csv_file(f"{s3_folder}/a.csv", 1)
    s3.refusing = True
    for source in (s3_folder, f"{s3_folder}/*.csv", f"{s3_folder}/**"):
        with pytest.raises(LakebaseStorageAccessError, match="refused access") as caught:
            hook.load(source, TABLE, allow_empty=True)
        assert "secret" not in str(caught.value)


# ── Partition folders ──


DAYS = {"2026-11-01": [1, 2], "2026-11-02": [3], "__HIVE_DEFAULT_PARTITION__": [4]}


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("ending", FORMATS)
def test_folders_fill_the_columns_that_they_name(
    hook: LakebaseHook, folder: str, tmp_path: Path, ending: str, mode: dict[str, Any]
):
    hook.run(f"ALTER TABLE {TABLE} ADD dt date, ADD land varchar(2), ADD price numeric(5,1)")
    for place in {folder, str(tmp_path)}:
        for day, numbers in DAYS.items():
            csv_file(f"{place}/base/dt={day}/land=DE/price=1.50/ignored=x/part.{ending}", *numbers)

    hook.load(f"{folder}/base", TABLE, **mode)
    reader = {"csv": "read_csv", "jsonl": "read_json", "parquet": "read_parquet"}[ending]
    expected = duckdb.sql(
        f"""SELECT id, note, dt::text, land, price::float8
        FROM {reader}('{tmp_path}/base/**/*.{ending}', hive_partitioning = true) ORDER BY id"""
    ).fetchall()
    query = f"SELECT id, note, dt::text, land, price::float8 FROM {TABLE} ORDER BY id"
    assert hook.get_records(query) == expected
    # One file of them, as a mapped task loads it.
    hook.load(f"{folder}/base/dt=2026-11-02/land=DE/price=1.50/ignored=x/part.{ending}", TABLE, mode="replace")
    assert hook.get_records(query) == [row for row in expected if row[0] == 3]


@pytest.mark.parametrize("ending", FORMATS)
def test_the_column_of_the_file_wins_over_the_folder(hook: LakebaseHook, folder: str, ending: str):
    write_rows(f"{folder}/note=folder/a.{ending}", [{"id": 1, "note": "file"}])
    write_rows(f"{folder}/note=folder/b.{ending}", [{"id": 2}])
    hook.load(folder, TABLE)
    assert hook.get_records(f"SELECT * FROM {TABLE} ORDER BY 1") == [(1, "file"), (2, "folder")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a%20b%2Fc", "a b/c"),
        ("k=v=w", "k=v=w"),
        ("", ""),
        ("100%", "100%"),
        ("a+b", "a+b"),
        ("gr%C3%B6%C3%9Fe", "größe"),
        ("日本", "日本"),
        ("__HIVE_DEFAULT_PARTITION__", None),
        ("NULL", "NULL"),
        ("it's \\n", "it's \\n"),
        ("%25", "%"),
    ],
)
def test_the_name_of_a_folder_is_decoded(hook: LakebaseHook, folder: str, name: str, value: str | None):
    write_rows(f"{folder}/note={name}/a.csv", [{"id": 1}])
    hook.load(folder, TABLE)
    assert hook.get_records(f"SELECT note FROM {TABLE}") == [(value,)]


TEXTS = [
    *[("date", text) for text in ("2026-11-01", "2026-11-01 10:00", "11/01/2026", "2026-11-01T00:00", "today", "x")],
    *[("timestamp", text) for text in ("2026-11-01 10:00:00.1234567", "2026-11-01 10:00+02", "2026-11-01T10:00")],
    *[("timestamp(0)", text) for text in ("2026-11-01 10:00:00.5", "2026-11-01 10:00:00")],
    *[("numeric(5,1)", text) for text in ("1.25", "1.20", "12345.6", "NaN", "x")],
    *[("varchar(3)", text) for text in ("abc", "abcd", "größe")],
    *[("name", text) for text in ("a", "x" * 70)],
    *[('"char"', text) for text in ("a", "ab")],
    *[("char(3)", text) for text in ("ab", "abcd")],
    *[("int", text) for text in ("007", "1.0", "99999999999", " 5", "")],
    *[("boolean", text) for text in ("yes", "2")],
    *[("jsonb", text) for text in ('{"a": 1}', "{")],
    *[("int[]", text) for text in ("{1,2}", "{1")],
    *[("uuid", text) for text in ("5f8c1d2e-0000-0000-0000-000000000000", "5f8c")],
    *[("interval", text) for text in ("1.5 days", "1.23 years")],
    *[("folders.even", text) for text in ("2", "3")],
]


@pytest.mark.parametrize(("kind", "text"), TEXTS)
def test_a_folder_stores_and_refuses_what_the_same_text_in_csv_does(
    hook: LakebaseHook, tmp_path: Path, kind: str, text: str
):
    hook.run("CREATE DOMAIN folders.even AS int CHECK (VALUE % 2 = 0)")
    hook.run(f"ALTER TABLE {TABLE} ADD part {kind}")

    def outcome(source: str) -> Any:
        try:
            hook.load(source, TABLE, mode="replace")
        except LakebaseLoadError as error:
            return error
        return hook.get_records(f"SELECT part::text FROM {TABLE}")

    # In quotes, where an empty text is a value only of text columns: a folder has no NULL but Hive's.
    quoted = text.replace('"', '""')
    by_csv = outcome(write(f"{tmp_path}/x.csv", f'id,part\n1,"{quoted}"\n'.encode()))
    by_folder = outcome(write(f"{tmp_path}/part={text.replace('/', '%2F')}/x.csv", b"id\n1\n"))
    if isinstance(by_csv, LakebaseLoadError) or not text:
        assert isinstance(by_folder, LakebaseLoadError)
        assert f"column part of the folder part={text.replace('/', '%2F')}" in str(by_folder)
        assert by_folder.column == "part"
    else:
        assert by_folder == by_csv


def test_null_and_unreadable_folders_are_refused_by_name(hook: LakebaseHook, folder: str):
    hook.run(f"ALTER TABLE {TABLE} ADD land text NOT NULL")
    write_rows(f"{folder}/a/land=__HIVE_DEFAULT_PARTITION__/a.csv", [{"id": 1}])
    write_rows(f"{folder}/b/land=%FF/a.csv", [{"id": 1}])
    write_rows(f"{folder}/c/land=a/land=b/a.csv", [{"id": 1}])
    write_rows(f"{folder}/d/land=a%00b/a.csv", [{"id": 1}])
    for name, message in {
        "a": "folder land=__HIVE_DEFAULT_PARTITION__ of .*must not be NULL",
        "b": "folder land=%FF of .* is not UTF-8",
        "c": "Two folders of .* give different values for 'land'",
        "d": "folder land=a%00b of .*null byte",
    }.items():
        with pytest.raises(LakebaseError, match=message):
            hook.load(f"{folder}/{name}", TABLE)
    assert ids(hook) == []
    write_rows(f"{folder}/e/land=a/land=a/a.csv", [{"id": 1}])
    assert hook.load(f"{folder}/e", TABLE).rows == 1


def test_some_files_may_be_outside_the_partition_folders(hook: LakebaseHook, folder: str):
    hook.run(f"ALTER TABLE {TABLE} ADD land text DEFAULT 'nowhere'")
    for number, name in enumerate(["a.csv", "land=DE/b.csv", "land=FR/c.csv", "land=__HIVE_DEFAULT_PARTITION__/d.csv"]):
        write_rows(f"{folder}/{name}", [{"id": number}])
    write_rows(f"{folder}/z.csv", [{"id": 9}])
    hook.load(folder, TABLE)
    expected = [(0, "nowhere"), (1, "DE"), (2, "FR"), (3, None), (9, "nowhere")]
    assert hook.get_records(f"SELECT id, land FROM {TABLE} ORDER BY 1") == expected


def test_the_option_columns_and_partition_folders(hook: LakebaseHook, folder: str):
    hook.run(f"ALTER TABLE {TABLE} ADD land text DEFAULT 'none', ADD day date")
    file = write(f"{folder}/land=DE/day=2026-11-01/a.csv", b"number,text\n1,x\n")
    query = f"SELECT id, note, land, day::text FROM {TABLE}"
    for columns, expected in (
        (["id", "note"], (1, "x", "DE", "2026-11-01")),
        (["id", "land"], (1, None, "x", "2026-11-01")),
        ({"number": "id"}, (1, None, "none", None)),
        ({"number": "id", "land": "note"}, (1, "DE", "none", None)),
        ({"number": "id", "text": "land", "day": "day"}, (1, None, "x", "2026-11-01")),
    ):
        hook.load(file, TABLE, mode="replace", columns=columns)
        assert hook.get_records(query) == [expected]
    with pytest.raises(LakebaseSettingsError, match="columns names 'nope'"):
        hook.load(file, TABLE, columns={"number": "id", "land": "nope"})
    with pytest.raises(LakebaseSettingsError, match="columns names 'city'"):
        hook.load(file, TABLE, columns={"number": "id", "city": "note"})
    # A file without a header has the columns that its folders do not name.
    file = write(f"{folder}/land=FR/day=2026-11-02/b.csv", b"2,y\n")
    hook.load(file, TABLE, mode="replace", header=False)
    assert hook.get_records(query) == [(2, "y", "FR", "2026-11-02")]


def test_the_option_columns_of_objects_and_partition_folders(hook: LakebaseHook, folder: str):
    hook.run(f"ALTER TABLE {TABLE} ADD land text DEFAULT 'none'")
    write(f"{folder}/land=DE/a.jsonl", b'{"number": 1, "text": {"de": "x"}}\n{"number": 2}\n')
    write(f"{folder}/land=FR/b.jsonl", b'{"number": 3, "land": "own", "text": {"de": "y"}}\n')
    query = f"SELECT id, note, land FROM {TABLE} ORDER BY id"
    for columns, expected in (
        ({"number": "id", "text.de": "note"}, [(1, "x", "none"), (2, None, "none"), (3, "y", "none")]),
        ({"number": "id", "land": "land"}, [(1, None, "DE"), (2, None, "DE"), (3, None, "own")]),
        ({"number": "id", "land": "note"}, [(1, "DE", "none"), (2, "DE", "none"), (3, "own", "none")]),
    ):
        hook.load(folder, TABLE, mode="replace", columns=columns)
        assert hook.get_records(query) == expected
    file = write(f"{folder}/land=IT/c.jsonl", b'{"id": 4, "note": "z"}\n')
    with pytest.raises(LakebaseSettingsError, match="'land', which a folder .*Leave it out"):
        hook.load(file, TABLE, columns=["id", "land"])
    hook.load(file, TABLE, mode="replace", columns=["id", "note"])
    assert hook.get_records(query) == [(4, "z", "IT")]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_file_of_which_only_the_folder_is_known_is_refused(hook: LakebaseHook, tmp_path: Path, ending: str):
    csv_file(f"{tmp_path}/a.{ending}", 1)
    write_rows(f"{tmp_path}/note=x/b.{ending}", [{"other": 1}])
    with pytest.raises(LakebaseLoadError, match=rf"b\.{ending} fills no column"):
        hook.load(tmp_path, TABLE, new_columns="ignore")


def test_casts_apply_to_folders(hook: LakebaseHook, folder: str):
    hook.run(f"ALTER TABLE {TABLE} ADD day date")
    write_rows(f"{folder}/day=Nov 1 2026/a.csv", [{"id": 1}])
    with pytest.raises(LakebaseLoadError, match="folder day=Nov 1 2026 .*casts"):
        hook.load(folder, TABLE)
    hook.load(folder, TABLE, casts={"day": "date"})
    assert hook.get_records(f"SELECT day::text FROM {TABLE}") == [("2026-11-01",)]
    write_rows(f"{folder}/day=Nov 1 2026/a.csv", [{"id": 1}])
    write_rows(f"{folder}/day=Nov 1 2026 10:00/b.csv", [{"id": 2}])
    with pytest.raises(LakebaseLoadError, match="column day, of .*day=Nov 1 2026 10:00/b.csv: it says more than date"):
        hook.load(folder, TABLE, mode="replace", casts={"day": "date"})


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"create_table": True}, ["bigint", "text", "text"]),
        ({"create_table": True, "casts": {"day": "date"}}, ["bigint", "text", "date"]),
        ({"create_table": {"id": "int", "*": "text"}}, ["integer", "text", "text"]),
        ({"create_table": {"day": "date", "*": "text"}, "casts": {"id": "bigint"}}, ["text", "text", "date"]),
        ({"create_table": True, "key_columns": ["day", "id"], "mode": "upsert"}, ["bigint", "text", "text"]),
        ({"create_table": True, "columns": {"id": "n", "day": "d"}}, ["bigint", "text"]),
    ],
)
def test_a_table_is_created_with_the_columns_of_its_folders(
    hook: LakebaseHook, folder: str, options: dict[str, Any], kinds: list[str]
):
    csv_file(f"{folder}/day=2026-11-01/a.parquet", 1)
    csv_file(f"{folder}/day=2026-11-02/b.parquet", 2)
    options = {**options, "casts": {}} if "text" == kinds[0] else options
    hook.load(folder, "folders.made", **options)
    found = hook.get_records(
        """SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'folders.made'::regclass AND attnum > 0 ORDER BY attnum"""
    )
    assert [kind for (kind,) in found] == kinds
    assert hook.get_first("SELECT count(*) FROM folders.made") == (2,)


# ── Operators ──


def test_an_operator_loads_a_folder_once(hook: LakebaseHook, s3_folder: str):
    from types import SimpleNamespace

    csv_file(f"{s3_folder}/a.csv", 1)
    csv_file(f"{s3_folder}/b.csv", 2)
    url = s3_folder.replace("store@", "")
    context: Any = {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, xcom_push=print)}
    for source in (url, f"{url}/*.csv", [f"{url}/?.csv"]):
        operator = LakebaseLoadOperator(task_id="t", source=source, source_conn_id="store", table=TABLE)
        assert operator.execute(context)["rows"] == 2
    assert ids(hook) == [1, 2]
    wrong = LakebaseLoadOperator(task_id="t", source=f"{url}/**.csv", source_conn_id="store", table=TABLE)
    with pytest.raises(AirflowFailException, match="not a whole name"):
        wrong.execute(context)
    assert LakebaseLoadOperator(task_id="t", source=f"{url}/*.x", allow_empty=True, table=TABLE).allow_empty is True


@pytest.mark.parametrize("folder", ["local", "s3"], indirect=True)
def test_mapped_tasks_load_the_files_that_a_task_lists(hook: LakebaseHook, folder: str):
    for number in range(3):
        csv_file(f"{folder}/in/{number} {{{{ no }}}} template.csv", number)
    conn_id = "store" if "://" in folder else None
    with DAG("mapping", schedule=None) as dag:
        source = f"{folder.replace('store@', '')}/{{{{ 'in' }}}}/*.csv"
        files = list_files_task(source, source_conn_id=conn_id, task_id="files", retries=7)
        load = LakebaseLoadOperator.partial(task_id="load", table=TABLE, exactly_once=False).expand(source=files)
    listing: Any = dag.get_task("files")
    assert (listing.retries, load.upstream_task_ids) == (7, {"files"})
    listing.render_template_fields({"ti": None})
    found = listing.execute({})
    assert found == [f"{folder}/in/{number} {{{{ no }}}} template.csv" for number in range(3)]
    for file in found:
        LakebaseLoadOperator(task_id="load", source=file, table=TABLE, exactly_once=False).execute({})
    assert ids(hook) == [0, 1, 2]


def test_a_task_that_lists_files_fails_or_finds_none(tmp_path: Path):
    with DAG("mapping", schedule=None):
        listed = [list_files_task(f"{tmp_path}/*.csv", allow_empty=allowed) for allowed in (True, False)]
        wrong = list_files_task(f"{tmp_path}/**.csv")
    tasks: list[Any] = [each.operator for each in (*listed, wrong)]
    assert [each.task_id for each in tasks] == ["list_files", "list_files__1", "list_files__2"]
    assert tasks[0].execute({}) == []
    with pytest.raises(FileNotFoundError, match="No file matches"):  # a retry may find one
        tasks[1].execute({})
    with pytest.raises(AirflowFailException, match="not a whole name"):
        tasks[2].execute({})


# ── A large one ──


LOAD = """
import json, resource, sys, time
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

hook = LakebaseHook()
started = time.monotonic()
rows = hook.load(json.loads(sys.argv[1]), "folders.big").rows
print(json.dumps([rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.monotonic() - started]))
"""
BIG = """
    SELECT range AS id, 'note ' || range AS note, range / 8 AS price,
        TIMESTAMP '2026-11-01' + INTERVAL (range) SECOND AS seen, repeat('x', 40 + (range % 60)::int) AS filler
    FROM range({0} * {1}, ({0} + 1) * {1})
"""


@pytest.mark.long
def test_a_spark_folder_of_500_files_is_loaded_exactly_in_the_memory_of_100(
    hook: LakebaseHook, s3_folder: str, tmp_path: Path
):
    hook.run(
        """CREATE TABLE folders.big (id bigint, country varchar(2), note text, price double precision, seen timestamp,
        filler text, dt date)"""
    )
    number = 0
    for day in range(1, 26):
        for country in ("AT", "DE", "FR", "__HIVE_DEFAULT_PARTITION__"):
            folder = f"spark/dt=2026-11-{day:02}/country={country}"
            (tmp_path / folder).mkdir(parents=True)
            for part in range(5):
                name = f"{folder}/part-{part:05}-5f8c1d2e.c000.snappy.parquet"
                duckdb.sql(BIG.format(number, 2000)).write_parquet(f"{tmp_path}/{name}", compression="snappy")
                write(f"{s3_folder}/{name}", (tmp_path / name).read_bytes())
                write(f"{s3_folder}/{folder}/.{Path(name).name}.crc", b"crc")
                number += 1
    write(f"{s3_folder}/spark/_SUCCESS", b"")
    write(f"{s3_folder}/spark/_temporary/0/part-0.snappy.parquet", b"unfinished")

    def load(source: Any) -> tuple[int, float, float]:
        command = [sys.executable, "-W", "ignore", "-c", LOAD, json.dumps(source)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows, peak, seconds = json.loads(output.splitlines()[-1])
        return rows, peak, seconds

    some = [f"{s3_folder}/spark/dt=2026-11-{day:02}" for day in range(1, 6)]
    rows_of_100, peak_of_100, seconds_of_100 = load(some)
    assert rows_of_100 == 100 * 2000
    hook.run("TRUNCATE folders.big")
    rows_of_500, peak_of_500, seconds_of_500 = load(f"{s3_folder}/spark")
    assert rows_of_500 == 500 * 2000
    print(
        f"100 files: {peak_of_100:.0f} MiB, {seconds_of_100:.1f} s; 500: {peak_of_500:.0f} MiB, {seconds_of_500:.1f} s"
    )

    hook.export("folders.big", f"{tmp_path}/stored.parquet")
    differing = """
        WITH stored AS (SELECT id, note, price, seen, filler, dt, country FROM read_parquet('{0}/stored.parquet')),
        given AS (
            SELECT id, note, price, seen, filler, dt::date, country
            FROM read_parquet('{0}/spark/**/*.parquet', hive_partitioning = true)
        )
        SELECT count(*) FROM ((FROM stored EXCEPT ALL FROM given) UNION ALL (FROM given EXCEPT ALL FROM stored))
    """
    assert duckdb.sql(differing.format(tmp_path)).fetchall() == [(0,)]
    assert peak_of_500 < peak_of_100 + 16
