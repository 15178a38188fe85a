"""Tasks that load and export: what a retry does, what an XCom holds, and what is left when one fails."""

from __future__ import annotations

import csv
import gzip
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseHook, ObjectStoragePath
from airflow.providers.postgres.hooks import postgres

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseExportOperator, LakebaseLoadOperator
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator

TABLE = "ops.t"


@pytest.fixture(autouse=True)
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run(
        f"""DROP SCHEMA IF EXISTS ops CASCADE; CREATE SCHEMA ops;
        CREATE TABLE {TABLE} (id int PRIMARY KEY, note text); CREATE TABLE ops.keyless (id int, note text)"""
    )
    yield
    hook.run("DROP SCHEMA ops CASCADE")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "t.csv"
    path.write_text("id,note\n1,a\n2,confidential\n")
    return str(path)


def run_of(run_id: str = "scheduled__2026-01-01", map_index: int | None = -1) -> Any:
    """Return the context of a task instance."""
    keep = lambda key, value: None  # noqa: E731
    return {"ti": SimpleNamespace(dag_id="d", run_id=run_id, task_id="load", map_index=map_index, xcom_push=keep)}


def load(source: Any, context: Any = None, table: str = "ops.keyless", **arguments: Any) -> dict[str, Any]:
    operator = LakebaseLoadOperator(task_id="load", source=source, table=table, **arguments)
    return operator.execute(context or run_of())


def transfer(conn_id: str, sql: str, table: str = "ops.keyless", **arguments: Any) -> dict[str, Any]:
    operator = SqlToLakebaseOperator(task_id="load", source_conn_id=conn_id, sql=sql, table=table, **arguments)
    return operator.execute(run_of())


def export(destination: Any, **arguments: Any) -> dict[str, Any]:
    return LakebaseExportOperator(task_id="export", destination=destination, **arguments).execute({})


def rows(hook: LakebaseHook, table: str = "ops.keyless") -> list[Any]:
    found: list[Any] = hook.get_records(f"SELECT id, note FROM {table} ORDER BY id, note")
    return found


def recorded(hook: LakebaseHook, ledger: str = "airflow_lakebase.loads") -> int:
    count: int = hook.get_first(f"SELECT count(*) FROM {ledger} WHERE target = 'ops.keyless'::regclass")[0]
    return count


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.02)


# ── loading files ──


def test_a_retried_append_loads_once(hook: LakebaseHook, file: str, task_log: Callable[[], str]):
    assert load(file)["already_loaded"] is False
    again = load(file)
    assert (again["already_loaded"], again["table"]) == (True, "ops.keyless")
    assert rows(hook) == [(1, "a"), (2, "confidential")]
    assert "dag_id=d run_id=scheduled__2026-01-01 task_id=load map_index=-1" in task_log()


def test_another_run_or_map_index_appends_again(hook: LakebaseHook, file: str):
    for context in (run_of(), run_of(map_index=None), run_of(map_index=0), run_of(map_index=1), run_of("manual__1")):
        load(file, context)
    assert len(rows(hook)) == 2 * 4


def test_without_a_task_instance_an_append_says_how_to_run_it(hook: LakebaseHook, file: str):
    operator = LakebaseLoadOperator(task_id="load", source=file, table="ops.keyless")
    with pytest.raises(AirflowFailException, match=r"no task instance.*dag\.test\(\), or .*exactly_once=False"):
        operator.execute({})
    assert rows(hook) == []


def test_without_exactly_once_every_try_appends_and_there_is_no_ledger(hook: LakebaseHook, file: str):
    for _ in range(2):
        load(file, {}, exactly_once=False)
    assert len(rows(hook)) == 4
    assert recorded(hook) == 0


def test_the_ledger_is_where_it_is_told_to_be(hook: LakebaseHook, file: str):
    for _ in range(2):
        load(file, ledger_schema="ops")
    assert len(rows(hook)) == 2
    assert (recorded(hook), recorded(hook, "ops.loads")) == (0, 1)


def test_a_failed_append_is_not_in_the_ledger(hook: LakebaseHook, file: str):
    good = Path(file).read_text()
    Path(file).write_text(f"{good}x,confidential\n")
    with pytest.raises(AirflowFailException) as refused:
        load(file)
    assert "confidential" not in str(refused.value)
    Path(file).write_text(good)
    assert load(file)["already_loaded"] is False
    assert len(rows(hook)) == 2


def test_replace_and_upsert_leave_the_same_rows_when_repeated(hook: LakebaseHook, file: str):
    hook.run(f"INSERT INTO {TABLE} VALUES (2, 'old'), (7, 'old')")
    for _ in range(2):
        assert load(file, {}, TABLE, mode="upsert", key_columns=["id"])["mode"] == "upsert"
    assert rows(hook, TABLE) == [(1, "a"), (2, "confidential"), (7, "old")]
    for _ in range(2):
        load(file, {}, TABLE, mode="replace", replace_where="id = 7 OR id < 3")
    assert rows(hook, TABLE) == [(1, "a"), (2, "confidential")]
    Path(file).write_text("id,note\n9,z\n")
    assert load(file, {}, TABLE, mode="replace")["already_loaded"] is False
    assert rows(hook, TABLE) == [(9, "z")]


def test_the_arguments_of_an_upsert_reach_it(hook: LakebaseHook, tmp_path: Path):
    hook.run("CREATE TABLE ops.versions (id int PRIMARY KEY, note text, kept text, version int)")
    hook.run("INSERT INTO ops.versions VALUES (1, 'old', 'kept', 5), (2, 'old', 'kept', 5)")
    path = tmp_path / "versions.csv"
    path.write_text("key,note,kept,version\n 1,new,lost,4\n2,new,lost,6\n")
    arguments: dict[str, Any] = {
        "mode": "upsert",
        "key_columns": ["id"],
        "columns": {"key": "id", "note": "note", "kept": "kept", "version": "version"},
        "casts": {"id": "int"},
        "update_columns": ["note", "version"],
        "version_column": "version",
    }
    load(str(path), {}, "ops.versions", **arguments)
    assert hook.get_records("SELECT * FROM ops.versions ORDER BY id") == [
        (1, "old", "kept", 5),
        (2, "new", "kept", 6),
    ]
    path.write_text("key,note,kept,version\n2,b,x,7\n2,c,x,7\n")
    with pytest.raises(AirflowFailException):
        load(str(path), {}, "ops.versions", **arguments, duplicates="error")


def test_several_files_are_loaded_together_or_not_at_all(hook: LakebaseHook, file: str, tmp_path: Path):
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(b"id,note\n3,c\n"))
    missing = tmp_path / "missing.csv"
    with pytest.raises(FileNotFoundError, match="missing.csv"):
        load([file, str(other), str(missing)])
    assert rows(hook) == []
    missing.write_text("id,note\n4,d\n")
    assert load([file, str(other), str(missing)])["rows"] == 4
    assert [row[0] for row in rows(hook)] == [1, 2, 3, 4]


def test_an_empty_list_of_files_is_refused_and_replaces_nothing(hook: LakebaseHook, file: str):
    load(file)
    with pytest.raises(AirflowFailException, match="source is an empty list"):
        load([], mode="replace")
    assert len(rows(hook)) == 2


def test_a_url_is_read_through_object_storage(
    hook: LakebaseHook, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    load(f"file://{file}")
    monkeypatch.setenv("AIRFLOW_CONN_STORAGE", json.dumps({"conn_type": "generic"}))
    load(f"file://{file}", run_of("with a connection"), source_conn_id="storage")
    load(ObjectStoragePath(f"file://{file}"), run_of("as a path"))
    load([ObjectStoragePath(f"file://{file}")], run_of("as a list"), source_conn_id="storage")
    assert len(rows(hook)) == 8
    with pytest.raises(FileNotFoundError, match="missing.csv"):
        load(f"file://{tmp_path}/missing.csv", source_conn_id="storage", mode="replace")


def test_a_table_is_created_from_a_parquet_file(hook: LakebaseHook, tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"id": [1, 2], "note": ["a", None]}), tmp_path / "t.parquet")
    for _ in range(2):
        load(str(tmp_path / "t.parquet"), {}, "ops.made", mode="upsert", key_columns=["id"], create_table=True)
    assert rows(hook, "ops.made") == [(1, "a"), (2, None)]


def test_lines_of_json_and_the_text_for_null(hook: LakebaseHook, tmp_path: Path):
    (tmp_path / "t.txt").write_text('{"id": 1, "note": "a"}\n{"note": null, "id": 2}\n')
    load(str(tmp_path / "t.txt"), format="jsonl")
    (tmp_path / "t.csv").write_text("3,NA\n4,x\n")
    load(str(tmp_path / "t.csv"), run_of("other"), header=False, null="NA", columns=["id", "note"])
    assert rows(hook) == [(1, "a"), (2, None), (3, None), (4, "x")]


def test_no_row_is_in_the_xcom_or_in_the_log(hook: LakebaseHook, file: str, task_log: Callable[[], str]):
    result = load(file)
    assert set(result) == {"table", "mode", "rejected", "rows", "seconds", "already_loaded"}
    assert (result["table"], result["mode"], result["rows"]) == ("ops.keyless", "append", 2)
    json.dumps(result)
    assert "Loading into ops.keyless, done: 2 rows" in task_log()
    assert "confidential" not in json.dumps(result) + task_log()


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "merge"},
        {"mode": "upsert", "duplicates": "first"},
        {"table": "ops.nothing"},
        {"format": "xml"},
        {"endpoint": "nonsense"},
    ],
)
def test_what_no_retry_can_help_fails_for_good(hook: LakebaseHook, file: str, arguments: dict[str, Any]):
    with pytest.raises(AirflowFailException):
        load(file, **arguments)


def test_every_mapped_task_loads_its_own_file_once(hook: LakebaseHook, file: str):
    mapped = LakebaseLoadOperator.partial(task_id="load", table="ops.keyless").expand(source=[file, file])
    assert mapped.operator_class is LakebaseLoadOperator


def test_default_args_reach_every_argument(hook: LakebaseHook, file: str):
    defaults = {"lakebase_conn_id": "lakebase_admin", "mode": "replace", "null": "NA", "table": "ops.other"}
    operator = LakebaseLoadOperator(task_id="load", source=file, default_args=defaults)
    assert {name: getattr(operator, name) for name in defaults} == defaults


def test_template_fields_are_rendered(emulator: LakebaseEmulator, hook: LakebaseHook, file: str, tmp_path: Path):
    names: Any = {"n": "id", "conn_id": "lakebase_default", "day": "2026-01-01", "folder": str(tmp_path)}
    operator = LakebaseLoadOperator(
        task_id="load",
        source=["{{ folder }}/t.csv"],
        table="{{ 'ops' }}.t",
        mode="{{ 'upsert' }}",
        key_columns=["{{ n }}"],
        columns={"id": "{{ n }}", "note": "note"},
        casts={"id": "{{ 'int' }}"},
        replace_where="{{ n }} > 1",
        source_conn_id="{{ conn_id }}",
        lakebase_conn_id="{{ conn_id }}",
        hook_params={"options": "-c work_mem={{ 7 }}MB"},
    )
    operator.render_template_fields(names)
    assert operator.source == [file]
    assert (operator.table, operator.mode, operator.key_columns) == ("ops.t", "upsert", ["id"])
    assert (operator.columns, operator.casts) == ({"id": "id", "note": "note"}, {"id": "int"})
    assert (operator.replace_where, operator.hook_params) == ("id > 1", {"options": "-c work_mem=7MB"})
    assert operator.source_conn_id == operator.lakebase_conn_id == "lakebase_default"
    operator.source_conn_id = operator.replace_where = None
    assert operator.execute(run_of())["rows"] == 2
    exporting = LakebaseExportOperator(
        task_id="export", sql="SELECT '{{ day }}'", destination="{{ folder }}/{{ day }}.csv", header=False
    )
    exporting.render_template_fields(names)
    assert exporting.execute({})["destination"] == f"{tmp_path}/2026-01-01.csv"
    assert (tmp_path / "2026-01-01.csv").read_text() == "2026-01-01\n"


def test_a_connection_that_is_gone_once_the_rows_are_there_costs_the_event_and_not_the_load(
    hook: LakebaseHook, file: str, monkeypatch: pytest.MonkeyPatch
):
    """As when the secrets backend fails in between."""
    operator = LakebaseLoadOperator(task_id="load", source=file, table="ops.t", mode="replace")
    load_of = operator._hook.load

    def fail(hook: LakebaseHook) -> None:
        raise ConnectionError("the secrets backend is down")

    def load_and_lose_the_connection(*arguments: Any, **keywords: Any) -> Any:
        result = load_of(*arguments, **keywords)
        monkeypatch.setattr(LakebaseHook, "settings", property(fail))
        return result

    monkeypatch.setattr(operator._hook, "load", load_and_lose_the_connection)
    assert operator.execute(run_of())["rows"] == 2


# ── a COMMIT whose answer is lost ──


@pytest.fixture
def slow_commit(hook: LakebaseHook) -> Callable[[float], None]:
    """Return a function that makes a COMMIT of rows take that many seconds; 0 undoes it."""

    def slow_commit(seconds: float) -> None:
        hook.run("DROP FUNCTION IF EXISTS ops.slow CASCADE")
        if seconds:
            hook.run(
                f"""CREATE FUNCTION ops.slow() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN IF NEW.id = 2 THEN PERFORM pg_sleep({seconds}); END IF; RETURN NULL; END';
                CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ops.keyless DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION ops.slow()"""
            )

    return slow_commit


def committing(emulator: LakebaseEmulator) -> bool:
    with psycopg.connect(emulator.superuser_conninfo) as connection:
        found = connection.execute(
            "SELECT FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'"
        ).fetchone()
    return found is not None


def execute_and_cut_the_commit(emulator: LakebaseEmulator, operator: Any) -> None:
    def cut() -> None:
        wait_until(lambda: committing(emulator))
        (connection,) = operator._hook._in_use
        wire = socket.socket(fileno=connection.fileno())
        wire.shutdown(socket.SHUT_RDWR)
        wire.detach()

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        operator.execute(run_of())
    finally:
        thread.join()


@pytest.mark.parametrize("seconds", [1.5, 30], ids=["committed", "not committed"])
@pytest.mark.parametrize("arguments", [{}, {"mode": "replace"}], ids=["append", "replace"])
def test_a_lost_commit_is_retried_and_loads_once(
    emulator: LakebaseEmulator,
    hook: LakebaseHook,
    file: str,
    slow_commit: Callable[[float], None],
    seconds: float,
    arguments: dict[str, Any],
):
    """The server looks for its client every 2 s: a COMMIT of 1.5 s passes, and one of 30 s does not."""
    slow_commit(seconds)
    operator = LakebaseLoadOperator(task_id="load", source=file, table="ops.keyless", **arguments)
    with pytest.raises(AirflowException, match="The next try finds out") as unknown:
        execute_and_cut_the_commit(emulator, operator)
    assert not isinstance(unknown.value, AirflowFailException)
    assert isinstance(unknown.value.__cause__, LakebaseOutcomeUnknownError)
    wait_until(lambda: not committing(emulator))
    slow_commit(0)
    result = load(file, **arguments)
    assert result["already_loaded"] is (seconds == 1.5 and not arguments)
    assert rows(hook) == [(1, "a"), (2, "confidential")]


def test_a_retry_waits_for_the_lost_commit_that_still_runs(
    emulator: LakebaseEmulator, hook: LakebaseHook, file: str, slow_commit: Callable[[float], None]
):
    slow_commit(1.5)
    operator = LakebaseLoadOperator(task_id="load", source=file, table="ops.keyless")
    with pytest.raises(AirflowException, match="The next try finds out"):
        execute_and_cut_the_commit(emulator, operator)
    assert load(file)["already_loaded"] is True
    assert len(rows(hook)) == 2


def test_a_lost_commit_that_a_retry_might_repeat_fails_for_good(
    emulator: LakebaseEmulator, file: str, slow_commit: Callable[[float], None]
):
    slow_commit(1)
    operator = LakebaseLoadOperator(task_id="load", source=file, table="ops.keyless", exactly_once=False)
    with pytest.raises(AirflowFailException, match="lost after COMMIT"):
        execute_and_cut_the_commit(emulator, operator)


# ── exporting ──


def test_every_format_is_exported_and_can_be_loaded_again(hook: LakebaseHook, tmp_path: Path):
    hook.run("INSERT INTO ops.keyless VALUES (1, 'a'), (2, NULL), (3, 'x,\"y\"')")
    for suffix in ("csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "parquet"):
        path = tmp_path / f"out.{suffix}"
        result = export(str(path), table="ops.keyless")
        assert set(result) == {"destination", "files", "rows", "bytes", "seconds"}
        assert (result["destination"], result["rows"], result["bytes"] > 0) == (str(path), 3, True)
        load(str(path), {}, TABLE, mode="replace")
        assert rows(hook, TABLE) == rows(hook)
    assert sorted(os.listdir(tmp_path)) == sorted(
        f"out.{suffix}" for suffix in ("csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "parquet")
    )


def test_a_query_is_exported_with_its_parameters(emulator: LakebaseEmulator, tmp_path: Path):
    sql = "SELECT g AS id, %(note)s AS note FROM generate_series(1, 3) g"
    export(str(tmp_path / "out.txt"), sql=sql, parameters={"note": "confidential"}, format="csv", null="-")
    with open(tmp_path / "out.txt") as file:
        assert list(csv.reader(file)) == [["id", "note"], *([str(n), "confidential"] for n in (1, 2, 3))]


def test_an_export_to_a_url_overwrites_it(emulator: LakebaseEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_STORAGE", json.dumps({"conn_type": "generic"}))
    for n in (1, 2):
        export(f"file://{tmp_path}/out.csv", sql=f"SELECT {n}", header=False, destination_conn_id="storage")
    assert (tmp_path / "out.csv").read_text() == "2\n"
    assert os.listdir(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "parquet"])
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_query_that_fails_halfway_leaves_the_file_as_it_was(
    emulator: LakebaseEmulator, tmp_path: Path, suffix: str, prefix: str
):
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(psycopg.errors.DivisionByZero):
        export(f"{prefix}{path}", sql="SELECT 1 / (g - 50000) AS n FROM generate_series(1, 100000) g")
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("arguments", [{}, {"sql": "SELECT 1", "table": TABLE}])
def test_an_export_has_a_query_or_a_table(arguments: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError, match="either sql or table"):
        LakebaseExportOperator(task_id="export", destination="out.csv", **arguments)


def test_an_export_reads_its_query_from_a_file(emulator: LakebaseEmulator, tmp_path: Path):
    from airflow.providers.common.compat.sdk import DAG

    (tmp_path / "q.sql").write_text("SELECT {{ n }} AS n")
    with DAG("d", template_searchpath=str(tmp_path), schedule=None):
        operator = LakebaseExportOperator(task_id="export", sql="q.sql", destination=str(tmp_path / "out.csv"))
    operator.render_template_fields({"n": 42})  # type: ignore[arg-type]
    operator.execute({})
    assert (tmp_path / "out.csv").read_text() == "n\n42\n"


def test_killing_an_export_cancels_its_query(emulator: LakebaseEmulator, tmp_path: Path):
    operator = LakebaseExportOperator(task_id="export", sql="SELECT pg_sleep(60)", destination=str(tmp_path / "o.csv"))
    timer = threading.Timer(1, operator.on_kill)
    timer.start()
    started_at = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        operator.execute({})
    timer.join()
    assert time.monotonic() - started_at < 40
    assert os.listdir(tmp_path) == []


# ── from other databases ──


@pytest.fixture
def sqlite_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with closing(sqlite3.connect(tmp_path / "source.db")) as database, database:
        database.execute("CREATE TABLE s (id INTEGER, note TEXT)")
        database.executemany("INSERT INTO s VALUES (?, ?)", [(n, f"note {n}") for n in range(25_000)])
    connection = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "source.db")})
    monkeypatch.setenv("AIRFLOW_CONN_SQLITE_SOURCE", connection)
    return "sqlite_source"


@pytest.fixture
def postgres_source(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_SOURCE", postgres_connection(emulator))
    return "postgres_source"


def postgres_connection(emulator: LakebaseEmulator, **extra: Any) -> str:
    where: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(emulator.superuser_conninfo)
    return json.dumps(
        {
            "conn_type": "postgres",
            "host": where["host"],
            "login": where["user"],
            "port": int(where["port"]) if "port" in where else None,
            "schema": where.get("dbname"),
            "extra": extra,
        }
    )


def test_rows_come_from_sqlite_in_any_mode(hook: LakebaseHook, sqlite_source: str):
    for _ in range(2):
        result = transfer(sqlite_source, "SELECT note, id FROM s WHERE id < ?", parameters=[20_500])
    assert result["already_loaded"] is True
    assert hook.get_first("SELECT count(*), sum(id), max(note) FROM ops.keyless") == (
        20_500,
        sum(range(20_500)),
        "note 9999",
    )
    hook.run(f"INSERT INTO {TABLE} VALUES (1, 'old'), (70000, 'old')")
    for _ in range(2):
        result = transfer(sqlite_source, "SELECT * FROM s", TABLE, mode="upsert", key_columns=["id"])
    assert (result["rows"], result["mode"]) == (25_000, "upsert")
    assert hook.get_first(f"SELECT count(*) FROM {TABLE} WHERE note LIKE 'note %'") == (25_000,)
    transfer(sqlite_source, "SELECT * FROM s WHERE id = 3", TABLE, mode="replace")
    assert rows(hook, TABLE) == [(3, "note 3")]


def test_the_querys_columns_are_loaded_under_the_names_given(hook: LakebaseHook, sqlite_source: str):
    transfer(sqlite_source, "SELECT id AS a, note AS b FROM s WHERE id = 1", columns=["id", "note"])
    sql = "SELECT note, id + 1 AS a FROM s WHERE id = 1"
    transfer(sqlite_source, sql, columns={"a": "id"}, exactly_once=False)
    assert rows(hook) == [(1, "note 1"), (2, None)]
    with pytest.raises(AirflowFailException, match="columns names 'b', which the source does not have"):
        transfer(sqlite_source, sql, columns={"b": "id"}, mode="replace")


def test_a_query_without_rows_loads_none(hook: LakebaseHook, sqlite_source: str, postgres_source: str):
    for conn_id in (sqlite_source, postgres_source, "lakebase_default"):
        sql = "SELECT 1 AS id, 'a' AS note WHERE 1 = 2"
        assert transfer(conn_id, sql, mode="replace")["rows"] == 0
    assert rows(hook) == []


@pytest.mark.parametrize("cursor", [None, "dictcursor", "namedtuplecursor"])
def test_rows_come_from_postgres_whatever_its_cursors_rows_are(
    emulator: LakebaseEmulator, hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch, cursor: str | None
):
    extra = {"cursor": cursor} if cursor else {}
    monkeypatch.setenv("AIRFLOW_CONN_PG_ROWS", postgres_connection(emulator, **extra))
    sql = "SELECT 'a%%' || %(x)s AS note, g AS id FROM generate_series(1, 10001) g"
    transfer("pg_rows", sql, parameters={"x": "b"})
    transfer("pg_rows", "SELECT 'a%' AS note, 0 AS id", exactly_once=False)
    assert hook.get_first("SELECT count(*), min(note), max(note) FROM ops.keyless") == (10_002, "a%", "a%b")


def test_rows_come_from_another_lakebase_connection(hook: LakebaseHook, emulator: LakebaseEmulator):
    hook.run("INSERT INTO ops.keyless VALUES (1, 'a'), (2, NULL)")
    hook.run("GRANT USAGE ON SCHEMA ops TO PUBLIC; GRANT SELECT ON ops.keyless TO PUBLIC")
    result = transfer(
        "lakebase_admin", "SELECT id, note FROM ops.keyless", TABLE, source_hook_params={"read_only": True}
    )
    assert result["rows"] == 2
    assert rows(hook, TABLE) == [(1, "a"), (2, None)]


MEMORY_OF_A_TRANSFER = """
import resource, sys
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator
def run(count):
    sql = f"SELECT g AS id, repeat('x', 200) AS note FROM generate_series(1, {count}) g"
    SqlToLakebaseOperator(
        task_id="load", source_conn_id=sys.argv[1], sql=sql, table="ops.keyless", mode="replace"
    ).execute({})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
first = run(20_000)
print(run(int(sys.argv[2])) - first)
"""


@pytest.mark.long
@pytest.mark.parametrize("conn_id", ["postgres_source", "lakebase_default"])
def test_memory_does_not_grow_with_the_rows(hook: LakebaseHook, postgres_source: str, conn_id: str):
    """A million rows of 200 bytes are 200 MB and more where a driver fetches them all."""
    output = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_A_TRANSFER, conn_id, "1000000"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    assert hook.get_first("SELECT count(*) FROM ops.keyless") == (1_000_000,)
    assert float(output.split()[-1]) < 50


def sessions(emulator: LakebaseEmulator, pattern: str) -> int:
    with psycopg.connect(emulator.superuser_conninfo) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()", [pattern]
        ).fetchone()
    return row[0] if row else 0


@pytest.mark.parametrize("conn_id", ["postgres_source", "lakebase_default"])
def test_a_query_that_fails_halfway_loads_nothing_and_says_why(
    emulator: LakebaseEmulator, hook: LakebaseHook, postgres_source: str, conn_id: str
):
    sql = "SELECT 1 / (g - 50000) AS id, 'halfway' AS note FROM generate_series(1, 100000) g"
    with pytest.raises(Exception, match="division by zero") as failed:
        transfer(conn_id, sql)
    assert type(failed.value).__name__ == "DivisionByZero"
    assert rows(hook) == []
    wait_until(lambda: sessions(emulator, "%halfway%") + sessions(emulator, "FETCH%sql_to_lakebase%") == 0)


def test_a_row_the_table_cannot_take_fails_for_good_and_is_not_shown(
    hook: LakebaseHook, sqlite_source: str, task_log: Callable[[], str]
):
    with pytest.raises(AirflowFailException) as refused:
        transfer(sqlite_source, "SELECT 'confidential' AS id, 'confidential' AS note")
    assert "confidential" not in str(refused.value) + task_log()
    assert rows(hook) == []


def test_a_source_that_runs_no_query_is_refused(
    emulator: LakebaseEmulator, sqlite_source: str, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(AirflowFailException, match="sql returns no rows"):
        transfer(sqlite_source, "CREATE TABLE other (id int)")
    monkeypatch.setenv("AIRFLOW_CONN_FILES", json.dumps({"conn_type": "fs"}))
    with pytest.raises(AirflowFailException, match="'files' has the hook FSHook, which cannot run SQL"):
        transfer("files", "SELECT 1")


@pytest.mark.parametrize("conn_id", ["postgres_source", "lakebase_default"])
def test_killing_a_transfer_cancels_the_query_on_the_source(
    emulator: LakebaseEmulator, hook: LakebaseHook, postgres_source: str, conn_id: str
):
    operator = SqlToLakebaseOperator(
        task_id="load", source_conn_id=conn_id, sql="SELECT 1 AS id, pg_sleep(60)::text AS note", table="ops.keyless"
    )
    timer = threading.Timer(1.5, operator.on_kill)
    timer.start()
    started_at = time.monotonic()
    with pytest.raises(Exception, match="canceling statement"):
        operator.execute(run_of())
    timer.join()
    assert time.monotonic() - started_at < 40
    wait_until(lambda: sessions(emulator, "%pg_sleep(60)%") == 0)


def test_killing_a_transfer_stops_the_load(emulator: LakebaseEmulator, hook: LakebaseHook, sqlite_source: str):
    sql = "WITH RECURSIVE c (id) AS (SELECT 1 UNION ALL SELECT id % 9 + 1 FROM c) SELECT id, 'endless' AS note FROM c"
    operator = SqlToLakebaseOperator(task_id="load", source_conn_id=sqlite_source, sql=sql, table="ops.keyless")
    timer = threading.Timer(1.5, operator.on_kill)
    timer.start()
    started_at = time.monotonic()
    with pytest.raises((AirflowException, psycopg.errors.QueryCanceled)):
        operator.execute(run_of())
    timer.join()
    assert time.monotonic() - started_at < 40
    assert rows(hook) == []


KILLED_TRANSFER = """
import signal, sys
from types import SimpleNamespace
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator
operator = SqlToLakebaseOperator(
    task_id="load", source_conn_id=sys.argv[1], sql="SELECT 1 AS id, pg_sleep(60)::text AS note", table="ops.keyless"
)
# As Airflow's task runner does.
signal.signal(signal.SIGTERM, lambda number, frame: operator.on_kill())
ti = SimpleNamespace(dag_id="d", run_id="r", task_id="load", map_index=-1, xcom_push=lambda key, value: None)
operator.execute({"ti": ti})
"""


def test_a_terminated_transfer_leaves_no_query_running(emulator: LakebaseEmulator):
    """The signal arrives in the thread that waits for the source."""
    task = subprocess.Popen([sys.executable, "-c", KILLED_TRANSFER, "lakebase_default"], stderr=subprocess.DEVNULL)
    wait_until(lambda: sessions(emulator, "COPY (SELECT 1 AS id, pg_sleep%") == 1, 60)
    task.terminate()
    try:
        assert task.wait(60) != 0
    finally:
        task.kill()
    wait_until(lambda: sessions(emulator, "%pg_sleep(60)%") == 0)


def test_killing_a_transfer_before_it_began_does_nothing(emulator: LakebaseEmulator):
    SqlToLakebaseOperator(task_id="load", source_conn_id="none", sql="SELECT 1", table="t").on_kill()


def test_the_fields_of_a_transfer_are_rendered(hook: LakebaseHook, sqlite_source: str):
    operator = SqlToLakebaseOperator(
        task_id="load",
        source_conn_id="{{ source }}",
        sql="SELECT id, note FROM s WHERE id = {{ n }} AND note = ?",
        parameters=["note {{ n }}"],
        table="ops.{{ table }}",
        source_hook_params={"log_sql": "{{ n }}"},
    )
    operator.render_template_fields({"source": sqlite_source, "n": "7", "table": "keyless"})  # type: ignore[arg-type]
    assert operator.source_hook_params == {"log_sql": "7"}
    assert operator.execute(run_of())["rows"] == 1
    assert rows(hook) == [(7, "note 7")]


# ── Tables that a query makes ──

EVERY_TYPE = """
    SELECT 1::smallint AS a, 2::int AS b, 3::bigint AS c, 1.5::numeric(10,2) AS d, 1.25::numeric AS e, 1.5::real AS f,
        'x'::varchar(20) AS g, 'x'::char(3) AS h, 'y' AS i, b'101'::bit(3) AS j, b'1'::varbit(5) AS k, true AS l,
        DATE '2026-01-01' AS m, NULL::timestamptz AS n, '{"a": 1}'::jsonb AS o, ARRAY['x']::varchar(7)[] AS p,
        ARRAY[1.5]::numeric(5,1)[] AS q, '00000000-0000-0000-0000-000000000005'::uuid AS r, '\\x00ff'::bytea AS s,
        1200::numeric(3,-2) AS t, NULL::inet AS u, NULL::name AS v, NULL::int4range AS w
"""
DECLARED = [
    *("smallint", "integer", "bigint", "numeric(10,2)", "numeric", "real", "character varying(20)", "character(3)"),
    *("text", "bit(3)", "bit varying(5)", "boolean", "date", "timestamp with time zone", "jsonb"),
    *("character varying(7)[]", "numeric(5,1)[]", "uuid", "bytea", "numeric(3,-2)", "inet", "name", "int4range"),
]
# The oldest version of PostgresHook has psycopg2 only.
DRIVERS = ["psycopg2", *(["psycopg"] if hasattr(postgres, "register_default_adapters") else []), "LakebaseHook"]
COLUMNS = """SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"""


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, postgres_source: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The driver that reads the connection ``postgres_source``, or the other connection."""
    if request.param != "LakebaseHook":
        monkeypatch.setattr(postgres, "USE_PSYCOPG3", request.param == "psycopg", raising=False)
        connection: Any = BaseHook.get_connection(postgres_source)
        with closing(connection.get_hook().get_conn()) as opened:
            assert type(opened).__module__.partition(".")[0] == request.param
    return str(request.param)


def source_of(driver: str) -> str:
    return "lakebase_admin" if driver == "LakebaseHook" else "postgres_source"


def test_a_query_on_postgres_makes_its_table_with_the_types_of_its_columns(hook: LakebaseHook, driver: str):
    for _ in range(2):
        transfer(source_of(driver), EVERY_TYPE, "ops.made", create_table=True, key_columns=["c"], mode="upsert")
    found = hook.get_records(COLUMNS, ["ops.made"])
    # psycopg2 says the same of bit(3) as of a bit without a length.
    bit = '"bit"' if driver == "psycopg2" else "bit(3)"
    expected = [bit if kind == "bit(3)" else kind for kind in DECLARED]
    assert [kind for _, kind, _ in found] == expected
    assert [name for name, _, required in found if required] == ["c"]
    stored = "SELECT to_jsonb(t) FROM ({}) AS t"
    assert hook.get_first(stored.format("SELECT * FROM ops.made")) == hook.get_first(stored.format(EVERY_TYPE))


@pytest.mark.parametrize("cursor", [None, "dictcursor"])
def test_the_columns_of_a_table_keep_their_types(
    emulator: LakebaseEmulator,
    hook: LakebaseHook,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    cursor: str | None,
):
    monkeypatch.setenv(
        "AIRFLOW_CONN_POSTGRES_SOURCE", postgres_connection(emulator, **({"cursor": cursor} if cursor else {}))
    )
    hook.run(
        """CREATE DOMAIN ops.positive AS numeric(6,2) CHECK (value > 0); CREATE TABLE ops.source (
        a timestamp(3), b time(2), c interval(0), d timestamptz(1), e bit(3), f ops.positive, g varchar(5))"""
    )
    hook.run("CREATE VIEW ops.viewed AS SELECT a, b, c, d FROM ops.source; GRANT USAGE ON SCHEMA ops TO PUBLIC")
    hook.run("GRANT SELECT ON ALL TABLES IN SCHEMA ops TO PUBLIC")
    transfer(source_of(driver), "SELECT g, f, e, d, c, b, a FROM ops.source", "ops.made", create_table=True)
    kinds = [kind for _, kind, _ in hook.get_records(COLUMNS, ["ops.made"])]
    times = [
        "timestamp(1) with time zone",
        "interval(0)",
        "time(2) without time zone",
        "timestamp(3) without time zone",
    ]
    assert kinds == ["character varying(5)", "numeric(6,2)", "bit(3)", *times]
    transfer(source_of(driver), "SELECT d, c, b, a FROM ops.viewed", "ops.made_too", create_table=True)
    assert [kind for _, kind, _ in hook.get_records(COLUMNS, ["ops.made_too"])] == times


def test_renamed_skipped_and_cast_columns_make_the_table(hook: LakebaseHook, driver: str):
    sql = "SELECT 7 AS a, '2026-01-02' AS b, 'skipped' AS c"
    options = {"columns": {"b": "day", "a": "id"}, "casts": {"day": "date"}}
    transfer(source_of(driver), sql, "ops.made", create_table=True, key_columns=["id"], **options)
    assert hook.get_records(COLUMNS, ["ops.made"]) == [("id", "integer", True), ("day", "date", False)]
    assert hook.get_first("SELECT id, day::text FROM ops.made") == (7, "2026-01-02")


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        (
            "SELECT 1 AS id, 'sad'::only_there.mood AS feeling",
            "Column feeling is of type only_there.mood, which is no type",
        ),
        ("SELECT 1 AS id, array['sad'::only_there.mood] AS feeling", r"Column feeling is of type only_there.mood\[\]"),
        ("SELECT ROW(1, 2) AS pair", "Column pair is of type record, which is no type.*pair::text.*create_table="),
    ],
)
def test_a_type_that_the_target_lacks_is_refused_by_its_column(
    hook: LakebaseHook, emulator: LakebaseEmulator, postgres_source: str, sql: str, match: str
):
    """The target is another database of the server, in which the type does not exist."""
    LakebaseHook("lakebase_admin").run("CREATE SCHEMA only_there; CREATE TYPE only_there.mood AS ENUM ('sad')")
    LakebaseHook("lakebase_admin").run("GRANT USAGE ON SCHEMA only_there TO PUBLIC")
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as session:
        session.execute("CREATE DATABASE another")
    try:
        with pytest.raises(AirflowFailException, match=match):
            transfer(
                postgres_source,
                sql,
                "public.made",
                create_table=True,
                mode="replace",
                database="another",
                lakebase_conn_id="lakebase_admin",
            )
    finally:
        with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as session:
            session.execute("DROP DATABASE another WITH (FORCE)")
        LakebaseHook("lakebase_admin").run("DROP SCHEMA only_there CASCADE")


def test_a_type_of_the_users_that_the_target_has_too_is_used(hook: LakebaseHook, postgres_source: str):
    hook.run("CREATE TYPE ops.mood AS ENUM ('sad', 'ok')")
    transfer(postgres_source, "SELECT 'ok'::ops.mood AS feeling", "ops.made", create_table=True)
    assert hook.get_records(COLUMNS, ["ops.made"]) == [("feeling", "ops.mood", False)]


def test_a_driver_with_vague_types_makes_a_table_by_a_mapping_only(hook: LakebaseHook, sqlite_source: str):
    sql = "SELECT id, note FROM s WHERE id < 3"
    with pytest.raises(
        AirflowFailException, match=r"does not say the types.*create_table=\{'id': 'bigint', '\*': 'text'\}"
    ):
        transfer(sqlite_source, sql, "ops.made", create_table=True)
    transfer(sqlite_source, sql, "ops.made", create_table={"id": "bigint", "*": "text"}, key_columns=["id"])
    assert hook.get_records(COLUMNS, ["ops.made"]) == [("id", "bigint", True), ("note", "text", False)]
    assert rows(hook, "ops.made") == [(n, f"note {n}") for n in range(3)]


def test_a_query_without_rows_makes_its_table(hook: LakebaseHook, driver: str):
    transfer(source_of(driver), "SELECT 1::bigint AS id WHERE false", "ops.made", create_table=True)
    assert hook.get_records(COLUMNS, ["ops.made"]) == [("id", "bigint", False)]


def test_a_column_that_a_query_has_and_the_table_lacks_is_added_with_its_type(hook: LakebaseHook, driver: str):
    sql = "SELECT 1 AS id, 1.5::numeric(10,2) AS price, 'x'::varchar(9) AS code"
    transfer(source_of(driver), sql, "ops.keyless", new_columns="add")
    kinds = [("id", "integer"), ("note", "text"), ("price", "numeric(10,2)"), ("code", "character varying(9)")]
    assert [(name, kind) for name, kind, _ in hook.get_records(COLUMNS, ["ops.keyless"])] == kinds
    assert hook.get_first("SELECT id, note, price::text, code FROM ops.keyless") == (1, None, "1.50", "x")
