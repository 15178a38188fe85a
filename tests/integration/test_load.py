"""A CSV file by COPY: all of it or nothing."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lakebase.core.bulk.load import run_load
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.exceptions import (
    LakebaseError,
    LakebaseExportError,
    LakebaseLoadError,
    LakebaseSettingsError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


@pytest.fixture
def table(hook: LakebaseHook) -> Iterator[str]:
    hook.run(
        'DROP SCHEMA IF EXISTS load CASCADE; CREATE SCHEMA load; CREATE TABLE load."T" (id int PRIMARY KEY, note text)'
    )
    yield 'load."T"'
    hook.run("DROP SCHEMA load CASCADE")


def rows(hook: LakebaseHook, table: str) -> list[tuple[int, str | None]]:
    found: list[tuple[int, str | None]] = hook.get_records(f"SELECT id, note FROM {table} ORDER BY id")
    return found


def test_a_file_is_loaded_by_the_columns_that_its_header_names(hook: LakebaseHook, table: str, tmp_path: Path):
    file = tmp_path / "t.csv"
    file.write_text('note,id\n"two\nlines, ""quoted""",1\n,2\n"",3\n')
    result = hook.load(file, table)
    assert (result.rows, result.bytes) == (3, file.stat().st_size)
    assert rows(hook, table) == [(1, 'two\nlines, "quoted"'), (2, None), (3, "")]


def test_an_open_file_is_read_as_it_is(hook: LakebaseHook, table: str):
    assert hook.load(io.BytesIO(b"\xef\xbb\xbfid,note\r\n1,NA\r\n"), table, null="NA").rows == 1
    assert rows(hook, table) == [(1, None)]


def test_replace_leaves_the_same_rows_when_repeated(hook: LakebaseHook, table: str):
    for _ in range(2):
        hook.load(io.BytesIO(b"id,note\n1,a\n2,b\n"), table, mode="replace")
    assert rows(hook, table) == [(1, "a"), (2, "b")]


def test_a_large_file_is_loaded(hook: LakebaseHook, table: str):
    lines = "".join(f"{n},{'x' * 90}\n" for n in range(100_000))
    assert hook.load(io.BytesIO(f"id,note\n{lines}".encode()), table).rows == 100_000


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ("1,a\nconfidential,b\n", "line 3, column id"),
        ("1,a\n99999999999,confidential\n", "line 3, column id"),
        ("1,a\n2\n", "line 3"),
        ("1,a\n2,b,confidential\n", "line 3"),
        ("1,a\n1,confidential\n", "line 3"),
        ('1,"a\nb"\nconfidential,b\n', "line 4, column id"),
    ],
)
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_bad_row_is_named_by_its_line_and_nothing_is_loaded(
    hook: LakebaseHook, table: str, lines: str, place: str, mode: str, task_log: Callable[[], str]
):
    hook.run(f"INSERT INTO {table} VALUES (7, 'old')")
    with pytest.raises(LakebaseLoadError) as refused:
        hook.load(io.BytesIO(f"id,note\n{lines}".encode()), table, mode=mode)  # type: ignore[arg-type]
    message = str(refused.value)
    assert f"rejects {place}" in message
    line, _, column = place.removeprefix("line ").partition(", column ")
    error = refused.value
    assert (error.table, error.source, error.line, error.row) == (table, "the file", int(line), None)
    assert error.column == column or not column
    assert " of the file: " in message
    assert "connection 'lakebase_default'" in message
    assert "confidential" not in message + repr(refused.value.__cause__) + task_log()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert rows(hook, table) == [(7, "old")]


def test_a_row_with_too_few_values_is_told_which_is_missing(hook: LakebaseHook, table: str):
    with pytest.raises(LakebaseLoadError, match='line 2 of the file: .*missing data for column "note"'):
        hook.load(io.BytesIO(b"id,note\n1\n"), table)


def test_bad_input_is_refused_before_anything_changes(hook: LakebaseHook, table: str, tmp_path: Path):
    hook.run(f"INSERT INTO {table} VALUES (7, 'old')")
    with pytest.raises(FileNotFoundError):
        hook.load(tmp_path / "missing.csv", table, mode="replace")
    assert not (tmp_path / "missing.csv").exists()
    for name in ("load.nothing", "nowhere.nothing", "not a name"):
        with pytest.raises(LakebaseLoadError, match=f"no table {name} .connection 'lakebase_default'.*Create it"):
            hook.load(io.BytesIO(b"id\n1\n"), name)
    with pytest.raises(LakebaseLoadError, match="Name 2 'nope' in the first line of the file is no column of table"):
        hook.load(io.BytesIO(b"id,nope\n1,2\n"), table, mode="replace")
    for content in (b"", "né,id\n".encode("latin-1")):
        with pytest.raises(LakebaseLoadError, match="does not begin with a line of UTF-8 text that names its columns"):
            hook.load(io.BytesIO(content), table, mode="replace")
    with pytest.raises(LakebaseLoadError, match="was opened as text.*open.path, 'rb'"):
        hook.load(io.StringIO("id,note\n1,a\n"), table, mode="replace")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode is 'merge'. .*Choose from append, replace, upsert"):
        hook.load(io.BytesIO(b"id\n1\n"), table, mode="merge")  # type: ignore[arg-type]
    assert rows(hook, table) == [(7, "old")]


def test_a_bad_row_is_named_whatever_the_table_is_called(hook: LakebaseHook, table: str):
    name = 'load."a.""b"" c"'
    hook.run(f"CREATE TABLE {name} (LIKE {table})")
    with pytest.raises(LakebaseLoadError, match="rejects line 3, column id, of the file"):
        hook.load(io.BytesIO(b"id,note\n1,a\nx,b\n"), name)


@pytest.mark.parametrize("columns", [None, {"id": "id"}])
@pytest.mark.parametrize("content", [b'{"id": 5, "note": "confidential"}\n', b"5,confidential\n", b"confidential,5\n"])
def test_a_first_line_that_holds_values_is_not_shown(hook: LakebaseHook, table: str, content: bytes, columns: Any):
    with pytest.raises(LakebaseError, match="no line of column names, set header=False; if it is not CSV") as caught:
        hook.load(io.BytesIO(content), table, columns=columns)
    assert "confidential" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"id,note\nNA,a\n",
            "invalid text representation, SQLSTATE 22P02; the column is of type integer. If the text "
            "stands for NULL, set 'null' to it; if it is a number such as 1.234,5, set 'decimal' and 'thousands'",
        ),
        (b"id,note\n99999999999,a\n", r"22003; the column is of type integer \("),
        (b"id,note\n1\n", r"22P04: missing data for column \"note\" \("),
        (b"id,note\n1,\xff\n", r"22021: it is not UTF-8, or contains a null byte. Set 'encoding'"),
    ],
)
def test_what_is_wrong_with_a_line_is_told(hook: LakebaseHook, table: str, content: bytes, reason: str):
    with pytest.raises(LakebaseLoadError, match=reason):
        hook.load(io.BytesIO(content), table)


def test_a_date_that_a_cast_cannot_read_points_to_the_date_style(hook: LakebaseHook, table: str):
    hook.run(f"ALTER TABLE {table} ADD day date")
    with pytest.raises(
        LakebaseLoadError, match="column day, .*does not fit date, as read with the session's DateStyle"
    ):
        hook.load(io.BytesIO(b"id,day\n1,28.11.2026\n"), table, casts={"day": "date"})


def test_a_column_that_the_table_lacks_points_to_new_columns(hook: LakebaseHook, table: str):
    with pytest.raises(LakebaseLoadError, match="has no column 'x', which the source has .*new_columns='add'"):
        hook.load([{"id": 1, "x": 2}], table)
    with pytest.raises(LakebaseLoadError, match="key 'note', which neither the first row nor 'columns' has"):
        hook.load([{"id": 1}, {"id": 2, "note": "a"}], table)


def test_a_file_that_is_a_json_array_is_refused_by_its_name(hook: LakebaseHook, table: str, tmp_path: Path):
    file = tmp_path / "t.jsonl"
    file.write_text('[{"id": 1}]\n')
    with pytest.raises(LakebaseLoadError, match=f"rejects line 1 of {file}: it is not a JSON object"):
        hook.load(file, table)


@pytest.mark.parametrize(
    ("mode", "privileges"), [("append", "INSERT on"), ("replace", "SELECT, INSERT and DELETE"), ("upsert", "UPDATE on")]
)
def test_a_missing_privilege_is_named(hook: LakebaseHook, admin: LakebaseHook, mode: Any, privileges: str):
    name = "load_of_another"
    admin.run(f"CREATE SCHEMA {name}; CREATE TABLE {name}.t (id int PRIMARY KEY, note text)")
    try:
        for grant in ("", f"GRANT USAGE ON SCHEMA {name} TO PUBLIC"):
            admin.run(grant or "SELECT 1")
            with pytest.raises(LakebaseLoadError, match=f"permission denied.*Mode '{mode}' needs .*{privileges}"):
                hook.load([(1, "a")], f"{name}.t", mode=mode)
    finally:
        admin.run(f"DROP SCHEMA {name} CASCADE")


def test_two_replacements_at_once_leave_the_rows_of_one(hook: LakebaseHook):
    """A worker that was thought dead and its retry: without a lock the second would not delete the first's rows."""
    hook.run("CREATE SCHEMA IF NOT EXISTS load; CREATE TABLE load.keyless (id int)")

    class SlowFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.5)
            return super().read(size)

    def replace() -> None:
        hook.load(SlowFile(b"id\n1\n2\n3\n"), "load.keyless", mode="replace")

    threads = [threading.Thread(target=replace) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hook.get_first("SELECT count(*) FROM load.keyless") == (3,)
    hook.run("DROP SCHEMA load CASCADE")


@pytest.mark.parametrize("sqlstate", ["P0001", "U0001"])
@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "line 2 of the file"),
        ({"mode": "replace"}, "a row"),
        ({"mode": "replace", "replace_where": "true"}, "a row"),
        ({"mode": "upsert", "key_columns": ["id"]}, "a row"),
        ({"reject_limit": 1}, "a row"),
    ],
)
def test_an_error_of_a_trigger_shows_no_row(
    hook: LakebaseHook, table: str, options: dict[str, Any], place: str, sqlstate: str
):
    hook.run(
        f"""CREATE FUNCTION load.refuse() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''no %'', NEW.note USING ERRCODE = ''{sqlstate}''; END'; CREATE TRIGGER refuse
        BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION load.refuse()"""
    )
    with pytest.raises(LakebaseLoadError, match=f"rejects {place}") as refused:
        hook.load(io.BytesIO(b"id,note\n1,confidential\n"), table, **options)
    assert "confidential" not in str(refused.value)
    assert refused.value.__suppress_context__
    assert refused.value.sqlstate == sqlstate


def test_an_error_carries_the_place_of_a_row(hook: LakebaseHook, table: str, tmp_path: Path):
    with pytest.raises(LakebaseLoadError) as rejected:
        hook.load([(1, "a"), ("x", "b")], table)
    error = rejected.value
    assert (error.table, error.source, error.row, error.line, error.column) == (table, "the source", 2, None, "id")
    assert error.sqlstate == "22P02"
    with pytest.raises(LakebaseLoadError) as rejected:
        hook.load([(1, "a"), (1, "b")], table, mode="upsert", key_columns=["id"], duplicates="error")
    assert (rejected.value.row, rejected.value.column) == (2, "id")
    with pytest.raises(LakebaseExportError) as refused:
        hook.export("SELECT 'infinity'::date AS day", tmp_path / "t.parquet")
    assert refused.value.destination == str(tmp_path / "t.parquet")


def test_a_program_without_airflow_loads_exactly_once(hook: LakebaseHook, table: str):
    options = LoadOptions(load_id="test_load.run_load")
    with closing(hook.get_conn()) as session:
        results = [run_load(session, [(1, "a")], table, options) for _ in range(2)]
        session.autocommit = True
        with pytest.raises(LakebaseSettingsError, match="autocommit"):
            run_load(session, [(2, "b")], table)
    assert [(result.rows, result.already_loaded) for result in results] == [(1, False), (1, True)]
    assert rows(hook, table) == [(1, "a")]
    assert hook.forget_load("test_load.run_load") == 1
