"""DbApiHook's contract, on a session that databricks-sdk and psycopg opened."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


@pytest.fixture
def table(hook: LakebaseHook) -> Iterator[str]:
    """A table with a key, a mixed-case column and a reserved word."""
    name = f"items_{uuid.uuid4().hex[:8]}"
    hook.run(
        f"""CREATE SCHEMA IF NOT EXISTS test;
        CREATE TABLE test.{name} (id int PRIMARY KEY, "Name" text, "order" jsonb)"""
    )
    yield f"test.{name}"
    hook.run(f"DROP TABLE test.{name}")


def everything(cursor: Any) -> Any:
    return cursor.fetchall()


def test_the_session_is_the_client_ids_in_the_connections_database(hook: LakebaseHook, emulator: LakebaseEmulator):
    client_id = emulator.service_principal.client_id
    assert hook.get_first("SELECT current_user, current_database()") == (client_id, "databricks_postgres")


def test_get_conn_returns_an_open_psycopg_connection(hook: LakebaseHook):
    connection = hook.get_conn()
    assert isinstance(connection, psycopg.Connection)
    assert not connection.closed
    assert not connection.autocommit
    connection.close()


def test_the_application_name_tells_provider_and_task(hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "a_dag_with_a_long_name_that_goes_on_and_on_and_on")
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "load_the_table")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "scheduled__2026-11-25T00:00:00+00:00")
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "2")
    (name,) = hook.get_first("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert name.startswith("airflow-provider-lakebase/")
    assert re.fullmatch(r"airflow-provider-lakebase/[\d.]+ [\w.]*\.load_the_table#[0-9a-f]{6}\.2", name)
    assert len(name) <= 63
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "another")
    (other,) = hook.get_first("SELECT current_setting('application_name')")
    assert other != name


def test_a_statement_with_parameters(hook: LakebaseHook):
    assert hook.get_records("SELECT %s::int + 1, %s::text", [1, "a"]) == [(2, "a")]
    assert hook.get_first("SELECT %(a)s::int", {"a": 3}) == (3,)


def test_several_statements_in_one_string_give_the_last_result(hook: LakebaseHook):
    assert hook.run("SELECT 1; SELECT 2", handler=everything) == [(2,)]


def test_several_statements_in_one_string_take_parameters(hook: LakebaseHook):
    sql = "CREATE TEMP TABLE t (a text); INSERT INTO t VALUES (%(a)s); SELECT a, '50%%' FROM t"
    assert hook.run(sql, parameters={"a": "it's; fine"}, handler=everything) == [("it's; fine", "50%")]


def test_a_statement_may_have_very_many_parameters(hook: LakebaseHook):
    places = ",".join(["%s"] * 20_000)
    assert hook.get_first(f"SELECT count(*) FROM unnest(ARRAY[{places}])", list(range(20_000))) == (20_000,)


def test_a_semicolon_in_a_literal_is_no_second_statement(hook: LakebaseHook):
    assert hook.get_first("SELECT ';' || %s::text; -- done", ["a"]) == (";a",)


def test_split_statements_and_lists_give_a_result_each(hook: LakebaseHook):
    split = hook.run("SELECT 1; SELECT 2", handler=everything, split_statements=True, return_last=False)
    assert split == [[(1,)], [(2,)]]
    assert hook.run(["SELECT 1", "SELECT 2"], handler=everything) == [[(1,)], [(2,)]]
    assert [each[0].name for each in hook.descriptions if each] == ["?column?", "?column?"]


def test_statements_of_one_run_are_one_transaction(hook: LakebaseHook, table: str):
    with pytest.raises(psycopg.errors.DivisionByZero):
        hook.run([f"INSERT INTO {table} (id) VALUES (1)", "SELECT 1/0"])
    assert hook.get_first(f"SELECT count(*) FROM {table}") == (0,)


def test_autocommit_takes_what_no_transaction_may_hold(hook: LakebaseHook, table: str):
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        hook.run(f"VACUUM {table}")
    hook.run(f"VACUUM {table}", autocommit=True)


def test_no_statement_is_an_error(hook: LakebaseHook):
    with pytest.raises(ValueError, match="empty"):
        hook.run("  ")


def test_a_dict_becomes_jsonb(hook: LakebaseHook):
    assert hook.get_first("SELECT %s -> 'a' ->> 'b'", [{"a": {"b": "c"}}]) == ("c",)


def test_values_come_back_as_they_were(hook: LakebaseHook):
    values = (
        decimal.Decimal("1.10"),
        uuid.UUID(int=1),
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        [1, 2],
        b"\x00\xff",
        None,
    )
    sql = "SELECT %s::numeric, %s::uuid, %s::date, %s::timestamptz, %s::int[], %s::bytea, %s::text"
    assert hook.get_first(sql, values) == values


def test_insert_rows(hook: LakebaseHook, table: str):
    hook.insert_rows(table, ([n, f"n{n}", {"n": n}] for n in range(2500)), ["id", "Name", "order"])
    assert hook.get_first(f"SELECT count(*), max(\"order\" ->> 'n') FROM {table}") == (2500, "999")


def test_insert_rows_in_one_transaction(hook: LakebaseHook, table: str):
    """PostgresHook inserts nothing here, and reports success."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        hook.insert_rows(table, [[1, "a", None], [2, "b", None], [1, "c", None]], commit_every=0)
    assert hook.get_first(f"SELECT count(*) FROM {table}") == (0,)
    hook.insert_rows(table, [[1, "a", None], [2, "b", None]], commit_every=0)
    assert hook.get_first(f"SELECT count(*) FROM {table}") == (2,)


def test_insert_rows_replaces_by_primary_key(hook: LakebaseHook, table: str):
    columns = ["id", "Name"]
    hook.insert_rows(table, [[1, "a"], [2, "b"]], columns)
    hook.insert_rows(table, [[2, "B"], [3, "c"]], columns, replace=True)
    assert hook.get_records(f'SELECT id, "Name" FROM {table} ORDER BY id') == [(1, "a"), (2, "B"), (3, "c")]


def test_insert_rows_replaces_without_columns_named(hook: LakebaseHook, table: str):
    for name in ("a", "b"):
        hook.insert_rows(table, [[1, name, {"n": 1}]], replace=True)
    assert hook.get_records(f"SELECT * FROM {table}") == [(1, "b", {"n": 1})]


def test_insert_rows_replaces_by_a_named_key(hook: LakebaseHook, table: str):
    hook.run(f'CREATE UNIQUE INDEX ON {table} ("Name")')
    for number in (1, 2):
        hook.insert_rows(table, [[number, "a"]], ["id", "Name"], replace=True, replace_index=["Name"])
    assert hook.get_records(f'SELECT id, "Name" FROM {table}') == [(2, "a")]


def test_insert_rows_refuses_to_replace_without_a_key(hook: LakebaseHook, table: str):
    hook.run(f"ALTER TABLE {table} DROP CONSTRAINT {table.split('.')[1]}_pkey")
    with pytest.raises(ValueError, match="no primary key: pass replace_index"):
        hook.insert_rows(table, [[1, "a"]], ["id", "Name"], replace=True)


def test_insert_rows_takes_names_with_a_percent_sign(hook: LakebaseHook, table: str):
    hook.run(f'ALTER TABLE {table} RENAME COLUMN "Name" TO "share %"')
    for share in ("10", "20"):
        hook.insert_rows(table, [[1, share]], ["id", "share %"], replace=True)
    assert hook.get_first(f'SELECT id, "share %" FROM {table}') == (1, "20")


def test_an_error_of_a_statement_is_noted_with_the_place(hook: LakebaseHook):
    with pytest.raises(psycopg.errors.UndefinedTable) as failed:
        hook.run("SELECT * FROM nothing_here")
    assert "connection 'lakebase_default', endpoint projects/demo" in failed.value.__notes__[0]


def test_insert_rows_of_no_rows(hook: LakebaseHook, table: str):
    hook.insert_rows(table, [])
    assert hook.get_first(f"SELECT count(*) FROM {table}") == (0,)


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
def test_data_frames(hook: LakebaseHook, df_type: Any):
    frame = hook.get_df("SELECT n, n::text AS t FROM generate_series(1, 3) n", df_type=df_type)
    assert list(frame.columns) == ["n", "t"]
    assert list(frame["n"]) == [1, 2, 3]
    assert list(hook.get_df("SELECT %s::int AS n", [5], df_type=df_type)["n"]) == [5]
    assert list(hook.get_df("SELECT %(n)s::int AS n", {"n": 5}, df_type=df_type)["n"]) == [5]


@pytest.mark.parametrize("df_type", ["pandas", "polars"])
def test_data_frames_by_chunks(hook: LakebaseHook, df_type: Any):
    query = "SELECT generate_series(1, %s) AS n"
    frames = list(hook.get_df_by_chunks(query, [10], chunksize=4, df_type=df_type))
    assert [len(frame) for frame in frames] == [4, 4, 2]
    assert [n for frame in frames for n in frame["n"]] == list(range(1, 11))


def test_an_unknown_kind_of_data_frame_is_refused(hook: LakebaseHook):
    with pytest.raises(ValueError, match="'pandas' or 'polars'"):
        hook.get_df("SELECT 1", df_type="spark")  # type: ignore[arg-type]


def test_urls_hold_where_and_as_whom_but_no_password(hook: LakebaseHook, emulator: LakebaseEmulator):
    expected = f"{emulator.service_principal.client_id}@localhost:{emulator.port}/databricks_postgres?sslmode=require"
    assert hook.get_uri() == f"postgresql://{expected}"
    assert str(hook.sqlalchemy_url) == f"postgresql+psycopg://{expected}"


def test_sqlalchemy_1_is_refused_with_a_sentence(hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch):
    """Airflow 2.11 brings SQLAlchemy 1.4, which has no dialect for psycopg 3."""
    monkeypatch.setattr(sqlalchemy, "__version__", "1.4.54")
    with pytest.raises(LakebaseSettingsError, match="SQLAlchemy 1.4.54 cannot use psycopg 3"):
        hook.get_sqlalchemy_engine()


if sqlalchemy.__version__.startswith("2."):

    def test_a_sqlalchemy_engine_opens_its_sessions_through_the_hook(hook: LakebaseHook, emulator: LakebaseEmulator):
        engine = hook.get_sqlalchemy_engine()
        with engine.connect() as connection:
            user = connection.execute(sqlalchemy.text("SELECT current_user")).scalar()
        assert user == emulator.service_principal.client_id
        emulator.suspend()
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
        engine.dispose()

    def test_an_asynchronous_engine_opens_its_sessions_through_the_hook(hook: LakebaseHook, emulator: LakebaseEmulator):
        async def use() -> list[Any]:
            engine = hook.get_async_sqlalchemy_engine()
            users = []
            for _ in range(2):
                async with engine.connect() as connection:
                    users.append((await connection.execute(sqlalchemy.text("SELECT current_user"))).scalar())
                await asyncio.to_thread(emulator.suspend)
            await engine.dispose()
            return users

        assert asyncio.run(use()) == [emulator.service_principal.client_id] * 2

    def test_the_inspector_reads_tables(hook: LakebaseHook, table: str):
        schema, name = table.split(".")
        assert name in hook.inspector.get_table_names(schema=schema)
        assert {"name": "id", "type": "INTEGER"} in hook.get_table_schema(name, schema=schema)
        hook.inspector.bind.engine.dispose()


def test_test_connection(hook: LakebaseHook, emulator: LakebaseEmulator, connect_as: Callable[..., str]):
    status, message = hook.test_connection()
    assert status is True
    assert message.startswith(
        f"Connected to database databricks_postgres as role {hook.settings.session.user}, PostgreSQL 18"
    )
    assert message.endswith("The server was not verified; set 'sslmode' to 'verify-full' in the extra to verify it.")
    assert "The endpoint was ACTIVE." in message


def test_notices_of_the_server_are_in_the_log(hook: LakebaseHook, task_log: Callable[[], str]):
    hook.run("DO $$ BEGIN RAISE WARNING 'half of it was skipped'; END $$")
    assert "WARNING: half of it was skipped" in task_log()


def test_neither_parameters_nor_rows_are_in_the_log(hook: LakebaseHook, table: str, task_log: Callable[[], str]):
    hook.get_records("SELECT %s::text || '-row'", ["confidential"])
    with pytest.raises(psycopg.errors.UndefinedColumn):
        hook.insert_rows(table, [[1, "confidential"]], ["id", "nothing"])
    assert "Running statement: SELECT" in task_log()
    assert "confidential" not in task_log()


def test_neither_parameters_are_in_the_lineage(hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch):
    sent: list[dict[str, Any]] = []
    for module in ("lakebase", "_queries"):
        name = f"airflow_provider_lakebase.hooks.{module}.send_sql_hook_lineage"
        monkeypatch.setattr(name, lambda **values: sent.append(values))
    hook.get_first("SELECT %s::text", ["confidential"])
    hook.get_df("SELECT %s::text", ["confidential"])
    assert [each["sql"] for each in sent] == ["SELECT %s::text", "SELECT %s::text"]
    assert "confidential" not in str(sent)


def test_a_long_statement_is_shortened_in_the_log(hook: LakebaseHook, task_log: Callable[[], str]):
    hook.run(f"SELECT '{'x' * 9000}'")
    assert 0 < len(task_log()) < 3000


def test_options_set_the_session(emulator: LakebaseEmulator):
    hook = LakebaseHook(options="-c statement_timeout=1234ms -c search_path=pg_catalog")
    sql = "SELECT current_setting('statement_timeout'), current_setting('search_path')"
    assert hook.get_first(sql) == ("1234ms", "pg_catalog")


def test_a_database_can_be_chosen_by_either_name(admin: LakebaseHook, emulator: LakebaseEmulator):
    admin.run("CREATE DATABASE elsewhere", autocommit=True)
    try:
        for chosen in ({"database": "elsewhere"}, {"schema": "elsewhere"}):
            hook = LakebaseHook("lakebase_admin", **chosen)
            assert hook.get_first("SELECT current_database()") == ("elsewhere",)
        admin.schema = "elsewhere"
        assert admin.get_first("SELECT current_database()") == ("elsewhere",)
    finally:
        LakebaseHook("lakebase_admin").run("DROP DATABASE elsewhere WITH (FORCE)", autocommit=True)


def test_the_hook_airflow_makes_gets_every_extra_and_ignores_them(emulator: LakebaseEmulator):
    connection = BaseHook.get_connection("lakebase_default")
    hook = connection.get_hook(hook_params=dict(connection.extra_dejson))
    assert isinstance(hook, LakebaseHook)
    assert hook.get_first("SELECT 1") == (1,)


def test_options_of_the_connection_are_not_given_twice(
    emulator: LakebaseEmulator, connect_as: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    fields = json.loads(emulator.connections["lakebase_default"])
    fields["extra"]["options"] = "-c work_mem=5MB"
    monkeypatch.setenv("AIRFLOW_CONN_WITH_OPTIONS", json.dumps(fields))
    hook = LakebaseHook("with_options", options="-c work_mem=5MB")
    assert hook.settings.session.libpq["options"] == "-c work_mem=5MB"
    assert hook.get_first("SHOW work_mem") == ("5MB",)


def test_a_misspelt_argument_is_named(emulator: LakebaseEmulator):
    with pytest.raises(LakebaseSettingsError, match="Field 'endpiont' is unknown.*Did you mean 'endpoint'"):
        LakebaseHook(endpiont="x").get_conn()


def test_a_misspelt_extra_is_named(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch):
    fields = json.loads(emulator.connections["lakebase_default"])
    fields["extra"]["keepalives_idel"] = 5
    monkeypatch.setenv("AIRFLOW_CONN_MISSPELT", json.dumps(fields))
    with pytest.raises(LakebaseSettingsError, match="'keepalives_idel' is unknown.*Did you mean 'keepalives_idle'"):
        LakebaseHook("misspelt").get_conn()


def test_a_connection_of_another_type_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_PG", "postgres://a:b@localhost/c")
    with pytest.raises(LakebaseSettingsError, match="Connection 'pg' is of type 'postgres'"):
        LakebaseHook("pg").get_conn()


WAYS_OF_COMMIT = [
    "commit",
    "connection",
    "transaction",
    "nested",
    "pipeline",
    "pipeline transaction",
    "execute",
    "several",
]


@pytest.fixture
def slow_commit(hook: LakebaseHook, table: str) -> Iterator[str]:
    """A table of which a COMMIT takes a second, so that the session can be cut meanwhile."""
    hook.run(
        f"""CREATE FUNCTION test.slow() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION test.slow()"""
    )
    yield f"INSERT INTO {table} (id) VALUES (1)"
    hook.run("DROP FUNCTION test.slow CASCADE")


@contextmanager
def cut_soon(connection: Any) -> Iterator[None]:
    wire = socket.socket(fileno=os.dup(connection.fileno()))
    threading.Timer(0.4, wire.shutdown, [socket.SHUT_RDWR]).start()
    try:
        yield
    finally:
        wire.close()


def commit_by(way: str, connection: Any, insert: bytes) -> None:
    if way == "connection":
        with connection:
            connection.execute(insert)
    elif way == "transaction":
        with connection.transaction():
            connection.execute(insert)
    elif way == "nested":
        with connection.transaction(), connection.transaction():
            connection.execute(insert)
    elif way == "pipeline":
        with connection.pipeline():
            connection.execute(insert)
            connection.commit()
    elif way == "pipeline transaction":
        with connection.pipeline(), connection.transaction():
            connection.execute(insert)
    elif way == "several":
        connection.execute(insert + b"; COMMIT")
    else:
        connection.execute(insert)
        connection.execute("/* now */ commit") if way == "execute" else connection.commit()


async def commit_async_by(way: str, connection: Any, insert: bytes) -> None:
    if way == "connection":
        async with connection:
            await connection.execute(insert)
    elif way == "transaction":
        async with connection.transaction():
            await connection.execute(insert)
    elif way == "nested":
        async with connection.transaction(), connection.transaction():
            await connection.execute(insert)
    elif way == "pipeline":
        async with connection.pipeline():
            await connection.execute(insert)
            await connection.commit()
    elif way == "pipeline transaction":
        async with connection.pipeline(), connection.transaction():
            await connection.execute(insert)
    elif way == "several":
        await connection.execute(insert + b"; COMMIT")
    else:
        await connection.execute(insert)
        await (connection.execute("/* now */ commit") if way == "execute" else connection.commit())


@pytest.mark.parametrize("way", WAYS_OF_COMMIT)
def test_a_commit_whose_answer_is_lost_is_told_apart(hook: LakebaseHook, slow_commit: str, way: str):
    """A deferred trigger holds COMMIT up, and the socket is shut meanwhile."""
    connection = hook.get_conn()
    try:
        with (
            cut_soon(connection),
            pytest.raises(LakebaseOutcomeUnknownError, match="lost after COMMIT.*connection 'lakebase_default'"),
        ):
            commit_by(way, connection, slow_commit.encode())
    finally:
        connection.close()


@pytest.mark.parametrize("way", WAYS_OF_COMMIT)
def test_an_asynchronous_commit_whose_answer_is_lost_is_told_apart(hook: LakebaseHook, slow_commit: str, way: str):
    async def lose() -> None:
        async with hook.open_async(hook.settings) as connection:
            with cut_soon(connection):
                await commit_async_by(way, connection, slow_commit.encode())

    with pytest.raises(LakebaseOutcomeUnknownError, match="lost after COMMIT.*connection 'lakebase_default'"):
        asyncio.run(lose())


def test_a_session_lost_before_commit_is_not_called_unknown(hook: LakebaseHook, table: str):
    connection = hook.get_conn()
    try:
        with cut_soon(connection), pytest.raises(psycopg.OperationalError), connection.transaction():
            connection.execute(f"INSERT INTO {table} (id) VALUES (1)".encode())
            connection.execute("SELECT CASE WHEN true THEN pg_sleep(2) END")
    finally:
        connection.close()
