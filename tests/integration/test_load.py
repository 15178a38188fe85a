"""A CSV file by COPY: all of it or nothing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from airflow_provider_lakebase.exceptions import LakebaseLoadError
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
    assert f"does not take {place} of the file" in message
    assert "connection 'lakebase_default'" in message
    assert "confidential" not in message + repr(refused.value.__cause__) + task_log()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert rows(hook, table) == [(7, "old")]


def test_a_row_with_too_few_values_is_told_which_is_missing(hook: LakebaseHook, table: str):
    with pytest.raises(LakebaseLoadError, match='line 2 of the file .*missing data for column "note"'):
        hook.load(io.BytesIO(b"id,note\n1\n"), table)


def test_bad_input_is_refused_before_anything_changes(hook: LakebaseHook, table: str, tmp_path: Path):
    hook.run(f"INSERT INTO {table} VALUES (7, 'old')")
    with pytest.raises(FileNotFoundError):
        hook.load(tmp_path / "missing.csv", table, mode="replace")
    assert not (tmp_path / "missing.csv").exists()
    with pytest.raises(psycopg.errors.UndefinedTable, match="load.nothing"):
        hook.load(io.BytesIO(b"id\n1\n"), "load.nothing")
    with pytest.raises(psycopg.errors.UndefinedColumn, match="nope"):
        hook.load(io.BytesIO(b"id,nope\n1,2\n"), table, mode="replace")
    with pytest.raises(LakebaseLoadError, match="does not begin with a line that names its columns"):
        hook.load(io.BytesIO(b""), table, mode="replace")
    with pytest.raises(ValueError, match="'append' or 'replace'"):
        hook.load(io.BytesIO(b"id\n1\n"), table, mode="upsert")  # type: ignore[arg-type]
    assert rows(hook, table) == [(7, "old")]
