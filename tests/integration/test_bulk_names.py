"""DbApiHook's own names for many rows, and common-sql's operators over them, on COPY."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.providers.common.sql.operators.generic_transfer import GenericTransfer
from airflow.providers.common.sql.operators.sql import (
    SQLColumnCheckOperator,
    SQLInsertRowsOperator,
    SQLTableCheckOperator,
    SQLValueCheckOperator,
)

from airflow_provider_lakebase.core.bulk import insert
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

D = decimal.Decimal


@pytest.fixture
def schema(hook: LakebaseHook) -> Iterator[str]:
    hook.run("DROP SCHEMA IF EXISTS names CASCADE; CREATE SCHEMA names")
    yield "names"
    hook.run("DROP SCHEMA names CASCADE")


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each chunk of ``insert_rows`` went by COPY."""
    seen: list[bool] = []
    original = insert.CopyInsert.copy

    def copy(self: insert.CopyInsert, rows: Any) -> bool:
        seen.append(original(self, rows))
        return seen[-1]

    monkeypatch.setattr(insert.CopyInsert, "copy", copy)
    return seen


CASES = [
    ("int", 5, True),
    ("int", "5", False),
    ("int", 5.4, False),
    ("int", D("5.6"), False),
    ("smallint", 70000, False),
    ("real", 0.1, True),
    ("real", 1e300, False),
    ("double precision", 2**53 + 1, False),
    ("numeric(10,2)", D("1.50"), True),
    ("numeric(10,2)", D("1.005"), False),
    ("text", "a\tb\\N\n", True),
    ("text", 5, False),
    ("text", True, False),
    ("varchar(3)", "abc", True),
    ("varchar(3)", "ab    ", False),
    ("timestamptz", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), True),
    ("timestamptz", datetime.datetime(2026, 1, 1), False),
    ("timestamp", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), False),
    ("date", datetime.date(2026, 1, 1), True),
    ("date", datetime.datetime(2026, 1, 1, 5), False),
    ("uuid", uuid.UUID(int=7), True),
    ("bytea", b"\0\xff", True),
    ("jsonb", {"a": [1, None]}, True),
    ("int[]", [1, None], False),
    ("boolean", True, True),
    ("boolean", 1, False),
    ("names.mood", "happy", True),
    ("names.mood", "unknown", True),
    ("int", None, True),
]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(("kind", "value", "by_copy"), CASES, ids=str)
def test_insert_rows_stores_or_refuses_what_an_insert_does(
    hook: LakebaseHook, schema: str, copied: list[bool], kind: str, value: Any, by_copy: bool, replace: bool
):
    hook.run("CREATE TYPE names.mood AS ENUM ('happy', 'sad')")
    hook.run(f"CREATE TABLE names.ours (id int PRIMARY KEY, v {kind}); CREATE TABLE names.plain (id int, v {kind})")
    outcomes: list[Any] = []

    def by_insert() -> None:
        with hook.get_conn() as connection:
            connection.execute("INSERT INTO names.plain VALUES (%s, %s)", [1, value])

    def by_hook() -> None:
        hook.insert_rows("names.ours", [(1, value)], replace=replace, target_fields=["id", "v"] if replace else None)

    for run in (by_insert, by_hook):
        try:
            run()
            outcomes.append("stored")
        except psycopg.Error as error:
            outcomes.append(error.sqlstate)
    assert outcomes[0] == outcomes[1]
    assert hook.get_records("SELECT v::text FROM names.ours") == hook.get_records("SELECT v::text FROM names.plain")
    if outcomes[1] == "stored":
        assert copied == [by_copy]


def test_insert_rows_replaces_by_copy_and_the_last_of_two_rows_wins(
    hook: LakebaseHook, schema: str, copied: list[bool]
):
    hook.run('CREATE TABLE names.t ("Id" int PRIMARY KEY, "order" text, kept text DEFAULT \'d\')')
    hook.run("INSERT INTO names.t VALUES (1, 'old', 'k')")
    rows = [(1, "new"), (2, "first"), (2, "second")]
    hook.insert_rows("names.t", rows, target_fields=["Id", '"order"'], replace=True)
    assert hook.get_records("SELECT * FROM names.t ORDER BY 1") == [(1, "new", "k"), (2, "second", "d")]
    hook.insert_rows("names.t", [(2, "third"), (3, 4)], target_fields=["Id", "order"], replace=True, commit_every=1)
    assert hook.get_records('SELECT "order" FROM names.t ORDER BY "Id"') == [("new",), ("third",), ("4",)]
    assert copied == [True, True, False]


def test_insert_rows_refuses_rows_that_are_dicts_whose_names_it_would_insert(hook: LakebaseHook, schema: str):
    hook.run("CREATE TABLE names.t (a text, b text)")
    with pytest.raises(LakebaseSettingsError, match=r"a mapping as a row.*load\(\), which takes dicts"):
        hook.insert_rows("names.t", [("x", "y"), {"a": "x", "b": "y"}])
    assert hook.get_records("SELECT * FROM names.t") == []


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE VIEW names.target AS SELECT * FROM names.t",
        "CREATE TABLE names.target (LIKE names.t); CREATE RULE r AS ON INSERT TO names.target DO ALSO SELECT 1",
        "CREATE TABLE names.target (id int GENERATED BY DEFAULT AS IDENTITY, v text)",
    ],
)
def test_insert_rows_leaves_to_insert_what_only_insert_can_do(hook: LakebaseHook, schema: str, definition: str):
    hook.run(f"CREATE TABLE names.t (id int PRIMARY KEY, v text); {definition}")
    hook.insert_rows("names.target", [(1, "a"), (2, "b")])
    assert hook.get_records("SELECT id, v FROM names.target ORDER BY 1") == [(1, "a"), (2, "b")]


def test_insert_rows_refuses_a_value_for_an_identity_as_an_insert_does(hook: LakebaseHook, schema: str):
    hook.run("CREATE TABLE names.t (id int GENERATED ALWAYS AS IDENTITY, v text)")
    with pytest.raises(psycopg.errors.GeneratedAlways):
        hook.insert_rows("names.t", [(1, "a")])
    hook.insert_rows("names.t", [("a",)], target_fields=["v"])
    assert hook.get_records("SELECT * FROM names.t") == [(1, "a")]


@pytest.mark.parametrize("commit_every", [0, 1, 300, 1000])
def test_insert_rows_inserts_all_rows_whatever_it_commits(hook: LakebaseHook, schema: str, commit_every: int):
    hook.run("CREATE TABLE names.t (id int, v text)")
    hook.insert_rows("names.t", ((n, n if n == 777 else str(n)) for n in range(2500)), commit_every=commit_every)
    assert hook.get_first("SELECT count(*), sum(id), sum(v::int) FROM names.t") == (2500, 3123750, 3123750)


def test_insert_rows_commits_chunk_by_chunk_unless_told_otherwise(hook: LakebaseHook, schema: str):
    hook.run("CREATE TABLE names.t (id int PRIMARY KEY)")
    for commit_every, left in ((2, 4), (0, 4)):
        with pytest.raises(psycopg.errors.UniqueViolation):
            hook.insert_rows("names.t", [(n,) for n in (10, 11, 12, 13, 10)], commit_every=commit_every)
        assert hook.get_first("SELECT count(*) FROM names.t") == (left,)
        hook.insert_rows("names.t", [(n,) for n in (10, 11)], replace=True)


def test_a_table_is_dumped_and_loaded_in_postgres_text_format(hook: LakebaseHook, schema: str, tmp_path: Path):
    hook.run("CREATE TABLE names.t (id int, v text); INSERT INTO names.t VALUES (1, E'a\\tb'), (2, NULL), (3, '')")
    hook.bulk_dump("names.t", str(tmp_path / "dump"))
    assert (tmp_path / "dump").read_text() == "1\ta\\tb\n2\t\\N\n3\t\n"
    hook.run("CREATE TABLE names.copy (LIKE names.t)")
    hook.bulk_load("names.copy", str(tmp_path / "dump"))
    assert hook.get_records("SELECT * FROM names.copy") == [(1, "a\tb"), (2, None), (3, "")]


def test_copy_expert_runs_a_copy_of_ones_own(hook: LakebaseHook, schema: str, tmp_path: Path):
    hook.run("CREATE TABLE names.t (id int, v text)")
    (tmp_path / "in").write_text("1;a\n")
    hook.copy_expert("COPY names.t FROM STDIN (DELIMITER ';')", str(tmp_path / "in"))
    hook.copy_expert("COPY (SELECT v, id FROM names.t) TO STDOUT (FORMAT csv)", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "a,1\n"
    with pytest.raises(LakebaseSettingsError, match="not a COPY between the server and a file"):
        hook.copy_expert("COPY names.t FROM '/etc/passwd'", str(tmp_path / "in"))


def test_a_missing_file_is_refused_and_a_failed_dump_leaves_the_one_before(
    hook: LakebaseHook, schema: str, tmp_path: Path
):
    hook.run("CREATE TABLE names.t (id int)")
    for load in (
        lambda path: hook.bulk_load("names.t", path),
        lambda path: hook.copy_expert("COPY names.t FROM STDIN", path),
    ):
        with pytest.raises(FileNotFoundError):
            load(str(tmp_path / "missing"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "dump").write_text("before")
    with pytest.raises(psycopg.errors.DivisionByZero):
        hook.copy_expert(
            "COPY (SELECT 1 / (g - 900) FROM generate_series(1, 1000) g) TO STDOUT", str(tmp_path / "dump")
        )
    assert [path.name for path in tmp_path.iterdir()] == ["dump"]
    assert (tmp_path / "dump").read_text() == "before"


def test_common_sqls_operators_insert_transfer_and_check(hook: LakebaseHook, schema: str):
    hook.run("CREATE TABLE names.a (id int PRIMARY KEY, v text); CREATE TABLE names.b (id int PRIMARY KEY, v text)")
    conn_id = "lakebase_default"
    rows = [(n, f"v{n}") for n in range(10)]
    SQLInsertRowsOperator(task_id="insert", conn_id=conn_id, table_name="names.a", rows=rows).execute({})
    for _ in range(2):
        GenericTransfer(
            task_id="transfer",
            sql="SELECT id, v FROM names.a",
            source_conn_id=conn_id,
            destination_conn_id=conn_id,
            destination_table="names.b",
            preoperator="TRUNCATE names.b",
            insert_args={"target_fields": ["id", "v"], "commit_every": 3, "replace": True},
        ).execute({})
    checks = {"id": {"null_check": {"equal_to": 0}, "max": {"equal_to": 9}}}
    SQLColumnCheckOperator(task_id="c", conn_id=conn_id, table="names.b", column_mapping=checks).execute({})
    rows_check = {"rows": {"check_statement": "count(*) = 10"}}
    SQLTableCheckOperator(task_id="t", conn_id=conn_id, table="names.b", checks=rows_check).execute({})
    SQLValueCheckOperator(task_id="v", conn_id=conn_id, sql="SELECT count(*) FROM names.b", pass_value=10).execute({})


def test_a_result_is_read_as_arrow(hook: LakebaseHook, schema: str):
    pa = pytest.importorskip("pyarrow")
    hook.run(
        """CREATE TABLE names.t (id int, "Name" text, at timestamptz, price numeric(6,2), tags text[], raw bytea);
        INSERT INTO names.t VALUES (1, '', '2026-01-01 00:00+01', 1.5, '{a,NULL}', '\\x00ff');
        INSERT INTO names.t (id) VALUES (2)"""
    )
    found = hook.get_arrow("SELECT * FROM names.t WHERE id < %s ORDER BY id -- the end", [3])
    assert found.schema.field("price").type == pa.decimal128(6, 2)
    assert found.to_pylist()[0] == {
        "id": 1,
        "Name": "",
        "at": datetime.datetime(2025, 12, 31, 23, tzinfo=datetime.UTC),
        "price": D("1.50"),
        "tags": ["a", None],
        "raw": b"\x00\xff",
    }
    assert found.to_pylist()[1] == {"id": 2, "Name": None, "at": None, "price": None, "tags": None, "raw": None}
    assert hook.get_arrow("SELECT 1 AS a, 2 AS a WHERE false").schema.names == ["a", "a"]
    hook.run("CREATE TABLE names.u (LIKE names.t)")
    for source in (hook.iter_arrow("SELECT * FROM names.t"), [found, found], found.to_batches()):
        hook.load(source, "names.u", mode="replace")
        assert hook.get_arrow("SELECT DISTINCT * FROM names.u WHERE id < 2").to_pylist() == found.to_pylist()[:1]
    assert hook.get_arrow("SELECT NULL::int AS only FROM generate_series(1, 3)").num_rows == 3


def test_arrow_comes_before_the_query_has_ended(hook: LakebaseHook, emulator: LakebaseEmulator):
    batches = hook.iter_arrow("SELECT g, repeat('x', 1000) FROM generate_series(1, 100_000_000) g")
    assert next(batches).num_rows > 0
    batches.close()  # type: ignore[attr-defined]
    with psycopg.connect(emulator.superuser_conninfo) as superuser:
        query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY (SELECT%'"
        assert superuser.execute(query).fetchone() == (0,)


def test_progress_is_told_while_rows_go(
    hook: LakebaseHook, schema: str, task_log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.progress.PROGRESS_SECONDS", 0.0)
    hook.run("CREATE TABLE names.t (id int, v text)")
    hook.load(((n, "confidential") for n in range(2000)), "names.t")
    told = task_log()
    assert "Loading into names.t, so far: 500 rows" in told
    assert "Loading into names.t, done: 2000 rows" in told
    assert "confidential" not in told
