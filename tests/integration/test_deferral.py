"""What waits in the triggerer: the triggers on an event loop, as Airflow runs them, and what their tasks make of it."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor
from airflow_provider_lakebase.sensors.query import LakebaseQuerySensor
from airflow_provider_lakebase.triggers import query
from airflow_provider_lakebase.triggers import query as query_module
from airflow_provider_lakebase.triggers.endpoint import LakebaseEndpointTrigger
from airflow_provider_lakebase.triggers.query import LakebaseQuerySensorTrigger, LakebaseQueryTrigger
from airflow_provider_lakebase.triggers.statement import LakebaseStatementTrigger


class Task(SimpleNamespace):
    dag_id = "etl"
    run_id = "today"
    task_id = "statement"
    map_index = -1

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep nothing."""


CONTEXT: Any = {"ti": Task()}


def through_the_database(trigger: BaseTrigger) -> BaseTrigger:
    """Return the trigger as a triggerer gets it: by class path and JSON."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    made: BaseTrigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert type(made) is type(trigger)
    return made


async def first_event(trigger: BaseTrigger) -> TriggerEvent:
    async for event in through_the_database(trigger).run():
        return event
    raise AssertionError("the trigger ended without an event")


def defer(task: Any) -> BaseTrigger:
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(CONTEXT)
    assert deferred.value.method_name == "execute_complete"
    trigger: BaseTrigger = deferred.value.trigger
    return trigger


def run_deferred(task: Any) -> Any:
    """Run a task as a worker and a triggerer do together."""
    event = asyncio.run(first_event(defer(task)))
    return task.execute_complete(CONTEXT, json.loads(json.dumps(event.payload)))


def statement(sql: Any, **arguments: Any) -> LakebaseSQLOperator:
    return LakebaseSQLOperator(**{"task_id": "statement", "sql": sql, "deferrable": True, **arguments})


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < seconds, "it did not happen in time"
        time.sleep(0.05)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    await asyncio.wait_for(asyncio.to_thread(wait_until, condition, seconds), seconds + 1)


@pytest.fixture
def schema(hook: LakebaseHook) -> Iterator[str]:
    hook.run("DROP SCHEMA IF EXISTS deferral CASCADE; CREATE SCHEMA deferral; CREATE TABLE deferral.t (id int)")
    yield "deferral"
    hook.run("DROP SCHEMA deferral CASCADE")


@pytest.fixture
def superuser(emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        yield connection


def running(superuser: psycopg.Connection[Any], text: str = "%pg_sleep(%") -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()"
    return int(superuser.execute(query, [text]).fetchall()[0][0])


# ── the endpoint sensor ──


def test_a_sensor_on_an_endpoint_that_is_awake_is_done_without_deferring(emulator: LakebaseEmulator):
    LakebaseEndpointSensor(task_id="wait", deferrable=True).execute(CONTEXT)
    LakebaseEndpointSensor(task_id="wait", deferrable=True, wake=False).execute(CONTEXT)


def test_a_sensor_defers_before_it_probes_and_the_triggerer_wakes_the_endpoint(emulator: LakebaseEmulator):
    emulator.suspend()
    task = LakebaseEndpointSensor(task_id="wait", deferrable=True, poke_interval=1, timeout=60)
    trigger = defer(task)
    assert emulator.state == "IDLE"
    event = asyncio.run(first_event(trigger))
    assert emulator.state == "ACTIVE"
    task.execute_complete(CONTEXT, event.payload)


def test_many_waiters_for_one_endpoint_share_its_readings_and_the_probe(emulator: LakebaseEmulator):
    emulator.suspend()
    emulator.wake_seconds = 4  # before Airflow 3.3, triggers read their connections one after the other
    LakebaseHook().endpoint_status()  # signs in
    calls, logins = len(emulator.requests), len(emulator.logins)

    async def wait() -> list[TriggerEvent]:
        triggers = [LakebaseEndpointTrigger(poll_interval=0.5 + n / 100) for n in range(15)]
        return await asyncio.gather(*map(first_event, triggers))

    assert {event.payload["status"] for event in asyncio.run(wait())} == {"success"}
    assert len(emulator.logins) - logins == 1
    assert len(emulator.requests) - calls <= 16  # one about every 0.45 s


def test_a_waiter_that_comes_during_a_probe_is_served_by_it(emulator: LakebaseEmulator):
    emulator.suspend()
    emulator.wake_seconds = 2

    async def wait() -> None:
        waiting = [asyncio.create_task(first_event(LakebaseEndpointTrigger(poll_interval=1)))]
        await asyncio.sleep(1)
        waiting += [
            asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=wake, poll_interval=60)))
            for wake in (True, False)
        ]
        await asyncio.wait_for(asyncio.gather(*waiting), 10)

    asyncio.run(wait())


def test_those_who_only_watch_are_told_by_the_reading_of_the_most_eager(emulator: LakebaseEmulator):
    emulator.suspend()
    logins = len(emulator.logins)

    async def wait() -> float:
        lazy = asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=False, poll_interval=60)))
        await asyncio.sleep(0.5)
        eager = asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=False, poll_interval=0.3)))
        await asyncio.sleep(0.5)
        assert not lazy.done() and not eager.done()
        emulator.wake()
        started_at = time.monotonic()
        await asyncio.gather(lazy, eager)
        return time.monotonic() - started_at

    assert asyncio.run(wait()) < 1
    assert len(emulator.logins) == logins


def test_a_waiter_that_is_cancelled_leaves_the_others_waiting_and_the_last_one_ends_the_poll(
    emulator: LakebaseEmulator,
):
    emulator.suspend()

    async def wait() -> None:
        waiting = [
            asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=False, poll_interval=0.2))) for _ in range(3)
        ]
        await asyncio.sleep(0.5)
        waiting[0].cancel()
        await asyncio.sleep(0.5)
        assert not waiting[1].done()
        emulator.wake()
        await waiting[1]
        await waiting[2]
        emulator.suspend()
        alone = asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=False, poll_interval=0.2)))
        await asyncio.sleep(0.5)
        alone.cancel()
        await asyncio.sleep(0.5)
        calls = len(emulator.requests)
        await asyncio.sleep(1)
        assert len(emulator.requests) == calls

    asyncio.run(wait())


def test_a_workspace_that_fails_for_a_while_fails_no_wait(emulator: LakebaseEmulator):
    emulator.suspend()

    async def wait() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=False, poll_interval=0.2)))
        await asyncio.sleep(0.5)
        emulator.faults.answer("/endpoints/", status=503, times=50)
        await asyncio.sleep(1)
        emulator.wake()
        emulator.faults.clear()
        payload: dict[str, Any] = (await waiting).payload
        return payload

    assert asyncio.run(wait()) == {"status": "success"}


@pytest.mark.parametrize("wake", [True, False])
def test_an_endpoint_that_waiting_does_not_help_fails_each_waiter_with_the_cause(
    emulator: LakebaseEmulator, wake: bool
):
    emulator.suspend()

    async def wait() -> list[TriggerEvent]:
        waiting = [
            asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=wake, poll_interval=0.2))) for _ in range(3)
        ]
        emulator.disable()
        return await asyncio.gather(*waiting)

    for event in asyncio.run(wait()):
        assert event.payload["error"] == "LakebaseEndpointDisabledError"
        with pytest.raises(AirflowFailException, match="disabled.*'lakebase_default'.*Enable"):
            LakebaseEndpointSensor(task_id="wait").execute_complete(CONTEXT, event.payload)


# ── SQL ──

VALUES = """
    SELECT 1 AS a, 1.50::numeric, 'x'::text, '2026-01-01'::date, timestamptz '2026-01-01 10:00+03', '{1,2}'::int[],
    '{"a": 1}'::jsonb, NULL, '\\x00ff'::bytea, interval '1 day', true, 'NaN'::float8, '[1,3)'::int4range,
    ARRAY[timestamptz '2026-01-01 10:00+03'], '{}'::text[]
"""
STATEMENTS: list[tuple[Any, dict[str, Any]]] = [
    (VALUES, {"hook_params": {"options": "-c timezone=Europe/Berlin"}}),
    ("SELECT 1 WHERE false", {}),
    ("SELECT %s::int AS a WHERE false", {"parameters": [1], "handler": lambda c: [name[0] for name in c.description]}),
    ("WITH x AS (INSERT INTO deferral.t VALUES (3) RETURNING id) SELECT id FROM x WHERE false", {}),
    ("INSERT INTO deferral.t VALUES (1), (2)", {}),
    ("INSERT INTO deferral.t VALUES (%(a)s) RETURNING id", {"parameters": {"a": 7}}),
    ("WITH x AS (SELECT 1) INSERT INTO deferral.t SELECT * FROM x", {}),
    ("-- a comment\nSELECT 1; SELECT %s, 'a;b'", {"parameters": (4,)}),
    (["SELECT 1", "SELECT 2"], {}),
    ("SELECT 1; SELECT 2", {"split_statements": True, "return_last": False}),
    ("SELECT 1; SELECT 2", {"split_statements": True}),
    ("SET LOCAL work_mem = '5MB'; SHOW work_mem", {}),
    ("SELECT 1 AS a, 2 AS b", {"handler": lambda cursor: [column[0] for column in cursor.description]}),
    ("SELECT 1", {"handler": lambda cursor: (cursor.rowcount, cursor.fetchone(), cursor.fetchmany(2), list(cursor))}),
    ("SELECT 1", {"do_xcom_push": False}),
    ("INSERT INTO deferral.t VALUES " + ", ".join(f"({n})" for n in range(9000)), {}),
    ("DO $$ BEGIN INSERT INTO deferral.t VALUES (1); END $$; SELECT '50%', $$;$$", {}),
    ("/* set */ ((SELECT 1)) -- done", {}),
    ("EXPLAIN (COSTS off) SELECT 1", {}),
    ("SELECT 1;\n-- done", {}),
    ("SELECT 'a\\'; SELECT 'b;c', E'\\';', \"a;b\".* FROM (SELECT 1) AS \"a;b\"", {}),
    ("SELECT %s, '\\'; SELECT ';'", {"parameters": ["x"]}),
    ("/* a /* ; */ b; */ SELECT 1 /* /* ; */ ; */", {}),
    (
        "DROP FUNCTION IF EXISTS deferral.f; CREATE FUNCTION deferral.f() RETURNS int "
        "BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT deferral.f()",
        {},
    ),
    ("SAVEPOINT a; INSERT INTO deferral.t VALUES (9); ROLLBACK TO SAVEPOINT a; SELECT 1", {}),
    ("SET LOCAL timezone = 'Asia/Tokyo'; SELECT timestamptz '2026-01-01 10:00+03'", {}),
    ("SELECT 'infinity'::timestamptz", {"do_xcom_push": False}),
    ("SELECT %s, 5 / %s, pg_typeof(%s)::text, %s", {"parameters": [1.5, 2.0, 7, None]}),
    ("SELECT 1 AS atomic; SELECT 2", {}),
    ("CREATE OR REPLACE RULE r AS ON INSERT TO deferral.t DO ALSO (SELECT 1; SELECT 2); SELECT 3", {}),
    ("SELECT E'a'\n'b\\';c'", {}),
    ("SELECT FROM generate_series(1, 3)", {"handler": lambda cursor: cursor.rowcount}),
    ("SELECT 'a%' LIKE 'a%'", {"parameters": []}),
    (
        "SELECT NULL, '' FROM generate_series(1, 3)",
        {"handler": lambda c: [(x.name, x.type_code) for x in c.description]},
    ),
    (
        "WITH x AS (INSERT INTO deferral.t VALUES (3) RETURNING id) SELECT id AS a, 'a' b FROM x WHERE false",
        {"handler": lambda cursor: [column.name for column in cursor.description]},
    ),
    ("WITH x AS (SELECT 1) INSERT INTO deferral.t SELECT * FROM x", {"handler": lambda cursor: cursor.rowcount}),
    ("TABLE deferral.t", {}),
]


@pytest.mark.parametrize(("sql", "arguments"), STATEMENTS)
def test_a_deferred_statement_has_the_result_of_one_that_is_not(schema: str, sql: Any, arguments: dict[str, Any]):
    plain = statement(sql, **arguments, deferrable=False).execute(CONTEXT)
    assert repr(run_deferred(statement(sql, **arguments))) == repr(plain)


def test_a_deferred_statement_is_applied_and_rows_do_not_reach_the_log(
    hook: LakebaseHook, schema: str, task_log: Callable[[], str]
):
    sql = "INSERT INTO deferral.t SELECT n FROM generate_series(770001, 770003) n RETURNING id"
    event = asyncio.run(first_event(defer(statement(sql))))
    assert "770002" in str(event.payload)
    assert "770002" not in f"{event!r} {event} {task_log()}"
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (3,)


def test_what_no_parameter_shows_is_in_no_repr():
    trigger = LakebaseStatementTrigger(["SELECT %s"], "name", parameters=["confidential"])
    assert "confidential" not in repr(trigger)


@pytest.mark.parametrize(
    ("sql", "arguments", "message"),
    [
        ("COPY deferral.t TO STDOUT", {}, "COPY cannot be deferred: its data.*deferrable=False"),
        ("SELECT 1; /* now */ commit", {}, "COMMIT cannot be deferred: .*one transaction"),
        ("BEGIN", {}, "BEGIN cannot be deferred"),
        ("SET work_mem = '1MB'", {}, "SET cannot be deferred: .*SET LOCAL, or libpq's 'options'"),
        ("LISTEN x", {}, "LISTEN cannot be deferred"),
        ("INSERT INTO t VALUES (77); COMMIT/* */; SELECT nope", {}, "COMMIT cannot be deferred"),
        ("SELECT 'C:\\'; COMMIT; SELECT 'D:\\'", {}, "COMMIT cannot be deferred"),
        ("SET/**/work_mem = '1MB'", {}, "SET cannot be deferred"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1", {}, "SET cannot be deferred"),
        ("SELECT %s", {"parameters": [date(2026, 1, 1)]}, "parameters cannot be deferred: JSON .*Pass them as text"),
    ],
)
def test_what_cannot_be_deferred_is_refused_before_it_is(sql: str, arguments: dict[str, Any], message: str):
    with pytest.raises(AirflowFailException, match=message):
        statement(sql, **arguments).execute(CONTEXT)


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("sql", ["", []])
def test_no_sql_is_refused(sql: Any, deferrable: bool):
    with pytest.raises(ValueError, match="List of SQL statements is empty"):
        statement(sql, deferrable=deferrable).execute(CONTEXT)


def test_autocommit_cannot_be_deferred_and_a_ledger_needs_it():
    with pytest.raises(LakebaseSettingsError, match="autocommit cannot be deferred"):
        statement("SELECT 1", autocommit=True)
    with pytest.raises(LakebaseSettingsError, match="ledger_schema is given, but the task is not deferrable"):
        statement("SELECT 1", ledger_schema="airflow_lakebase", deferrable=False)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 60000)",
        "SELECT generate_series(1, 100000000)",
        "SELECT NULL FROM generate_series(1, 300000)",
        "SELECT FROM generate_series(1, 300000)",
        "SELECT repeat(chr(1), 12000)",
        "INSERT INTO deferral.t SELECT generate_series(1, 30000) RETURNING id",
    ],
)
def test_a_result_too_large_for_an_event_is_refused_and_nothing_is_applied(hook: LakebaseHook, schema: str, sql: str):
    started_at = time.monotonic()
    with pytest.raises(AirflowFailException, match="more than 48 KiB; the transaction was rolled back.*export it"):
        run_deferred(statement(f"INSERT INTO deferral.t VALUES (1); {sql}"))
    assert time.monotonic() - started_at < 40
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (0,)


def test_an_error_of_postgres_arrives_as_psycopgs_own_with_the_place(schema: str):
    with pytest.raises(psycopg.errors.DivisionByZero, match="zero\nconnection 'lakebase_default', endpoint"):
        run_deferred(statement("SELECT 1 / 0 FROM deferral.t UNION SELECT 1 / 0"))


REFUSED = {
    "no privilege": ("SELECT * FROM pg_catalog.pg_authid", AirflowFailException),
    "no such table": ("SELECT * FROM deferral.nowhere", AirflowFailException),
    "no SQL": ("SELEKT 1", AirflowFailException),
    "not supported": ("SELECT max(id) FROM deferral.t FOR UPDATE", AirflowFailException),
    "a write where only reading is allowed": (
        "SET LOCAL transaction_read_only = on; INSERT INTO deferral.t VALUES (1)",
        AirflowFailException,
    ),
    "a value of the database": ("SELECT 1 / 0", psycopg.errors.DivisionByZero),
    "a key that is there": ("INSERT INTO deferral.u VALUES (1)", psycopg.errors.UniqueViolation),
    "a statement that takes too long": (
        "SET LOCAL statement_timeout = 100; SELECT pg_sleep(5)",
        psycopg.errors.QueryCanceled,
    ),
}


@pytest.mark.parametrize(("sql", "raised"), REFUSED.values(), ids=REFUSED)
def test_one_rule_says_which_error_of_a_statement_spends_retries(
    hook: LakebaseHook, schema: str, sql: str, raised: Any
):
    hook.run("CREATE TABLE deferral.u (id int PRIMARY KEY); INSERT INTO deferral.u VALUES (1)")
    with pytest.raises(raised):
        statement(sql, deferrable=False).execute(CONTEXT)
    with pytest.raises(raised):
        run_deferred(statement(sql))
    if not sql.startswith(("INSERT", "SET")):
        for deferrable in (False, True):
            with pytest.raises(raised):
                LakebaseQuerySensor(task_id="wait", sql=sql, deferrable=deferrable).execute(CONTEXT)


@pytest.mark.parametrize("table", ["pg_catalog.pg_authid", "deferral.nowhere"])
def test_a_load_that_postgres_refuses_spends_no_retries_either(schema: str, tmp_path: Path, table: str):
    (tmp_path / "rows.csv").write_text("id\n1\n")
    with pytest.raises(AirflowFailException):
        LakebaseLoadOperator(task_id="load", source=str(tmp_path / "rows.csv"), table=table).execute(CONTEXT)


def test_the_last_day_of_the_calendar_arrives():
    arguments: dict[str, Any] = {"hook_params": {"options": "-c timezone=America/New_York"}}
    sql = "SELECT timestamptz '9999-12-31 18:00:00'"
    plain = statement(sql, deferrable=False, **arguments).execute(CONTEXT)
    assert run_deferred(statement(sql, **arguments)) == plain


def test_what_nobody_can_read_is_found_out_before_the_commit(hook: LakebaseHook, schema: str):
    with pytest.raises(psycopg.DataError):
        run_deferred(statement("INSERT INTO deferral.t VALUES (1) RETURNING id, 'infinity'::timestamptz"))
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (0,)


def test_parameters_and_the_words_of_postgres_do_not_reach_the_triggerers_log(schema: str):
    event = asyncio.run(first_event(defer(statement("SELECT nope, %s", parameters=["confidential"]))))
    assert (
        f"{event!r} {event}"
        == "TriggerEvent<error, UndefinedColumn, 42703> TriggerEvent<error, UndefinedColumn, 42703>"
    )
    with pytest.raises(AirflowFailException) as raised:
        statement("SELECT 1").execute_complete(CONTEXT, event.payload)
    assert "confidential" not in str(raised.value)


@pytest.mark.parametrize(
    ("sql", "arguments"), [("VACUUM deferral.t", {"autocommit": True}), ("SET work_mem = '1MB'", {}), ("SELECT 1", {})]
)
def test_what_the_configuration_wants_deferred_is_run_here_where_it_cannot_be(
    schema: str, monkeypatch: pytest.MonkeyPatch, sql: str, arguments: dict[str, Any]
):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    task = LakebaseSQLOperator(task_id="statement", sql=sql, **arguments)
    if sql == "SELECT 1":
        defer(task)
    else:
        task.execute(CONTEXT)


def test_an_error_that_a_function_made_up_arrives_too(schema: str):
    with pytest.raises(psycopg.DatabaseError, match="boom"):
        run_deferred(statement("DO $$ BEGIN RAISE EXCEPTION 'boom' USING ERRCODE = 'AB123'; END $$"))
    with pytest.raises(psycopg.DatabaseError, match="^x{8000}"):
        run_deferred(statement("DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 1000000); END $$"))


def test_times_that_nobody_could_read_are_refused_before_the_commit(hook: LakebaseHook, schema: str):
    with pytest.raises(AirflowFailException, match="DateStyle was changed"):
        run_deferred(
            statement("SET LOCAL datestyle = 'german'; INSERT INTO deferral.t VALUES (1) RETURNING date '2026-02-03'")
        )
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (0,)


def test_parameters_that_do_not_fit_are_an_error(schema: str):
    with pytest.raises(AirflowFailException, match="has 2 placeholders, but 1 parameters are given"):
        run_deferred(statement("SELECT %s, %s", parameters=[1]))


def test_settings_that_cannot_work_fail_the_task_for_good():
    with pytest.raises(AirflowFailException, match="endpoint"):
        run_deferred(statement("SELECT 1", endpoint="projects/demo/branches/production/endpoints/none"))


def test_a_statement_that_is_cancelled_ends_on_the_server(schema: str, superuser: psycopg.Connection[Any]):
    trigger = defer(statement("INSERT INTO deferral.t SELECT 1 FROM pg_sleep(60)"))

    async def cancel() -> None:
        task = asyncio.create_task(first_event(trigger))
        await until(lambda: running(superuser) == 1, 10)
        task.cancel()
        await until(lambda: running(superuser) == 0, 5)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


def test_a_second_run_ends_the_session_of_the_first_and_never_runs_beside_it(
    schema: str, hook: LakebaseHook, superuser: psycopg.Connection[Any]
):
    """As after a triggerer that died, or is believed to have."""
    trigger = defer(statement("INSERT INTO deferral.t SELECT 1 FROM pg_sleep(1.5)"))
    most = 0

    async def both() -> list[TriggerEvent]:
        first = asyncio.create_task(first_event(trigger))
        await until(lambda: running(superuser) == 1, 10)
        second = asyncio.create_task(first_event(trigger))
        watched = asyncio.create_task(asyncio.to_thread(watch))
        events = await asyncio.gather(first, second)
        await watched
        return events

    def watch() -> None:
        nonlocal most
        until_then = time.monotonic() + 2
        while time.monotonic() < until_then:
            most = max(most, running(superuser))

    first, second = asyncio.run(both())
    assert first.payload["sqlstate"] == "57P01"
    assert second.payload["status"] == "success"
    assert most == 1
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (1,)


def test_with_a_ledger_a_second_run_finds_that_the_first_was_committed(hook: LakebaseHook, schema: str):
    task = statement("INSERT INTO deferral.t VALUES (1)", ledger_schema="deferral")
    trigger = defer(task)
    asyncio.run(first_event(trigger))  # its event is lost
    again = asyncio.run(first_event(trigger))
    assert task.execute_complete(CONTEXT, again.payload) is None
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (1,)
    assert hook.get_first("SELECT rows, target_name FROM deferral.loads") == (1, "statements")


def test_with_a_ledger_a_commit_whose_answer_was_lost_is_found(
    hook: LakebaseHook, schema: str, monkeypatch: pytest.MonkeyPatch
):
    commit, lost = AsyncLakebaseSession.commit, []

    async def lose(session: AsyncLakebaseSession) -> None:
        wrote = (await (await session.execute("SELECT count(*) FROM deferral.t")).fetchone() or (0,))[0]
        await commit(session)
        if wrote and not lost:
            lost.append(session)
            raise LakebaseOutcomeUnknownError("lost")

    monkeypatch.setattr(AsyncLakebaseSession, "commit", lose)
    run_deferred(statement("INSERT INTO deferral.t VALUES (1)", ledger_schema="deferral"))
    assert lost
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (1,)


# ── queries ──


def test_a_query_that_is_true_already_needs_no_triggerer(schema: str):
    for sql in ("SELECT 1", "SELECT false; SELECT true"):
        LakebaseQuerySensor(task_id="wait", sql=sql, deferrable=True).execute(CONTEXT)
    defer(LakebaseQuerySensor(task_id="wait", sql="SELECT 0", deferrable=True))


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_query_sensor_that_may_fail_is_skipped(schema: str, deferrable: bool):
    sensor = LakebaseQuerySensor(
        task_id="wait", sql="SELECT * FROM deferral.nowhere", soft_fail=True, deferrable=deferrable
    )
    with pytest.raises(AirflowSkipException):
        sensor.execute(CONTEXT)


def test_a_query_sensor_waits_until_the_first_cell_is_true(hook: LakebaseHook, schema: str):
    hook.run("INSERT INTO deferral.t VALUES (0)")
    task = LakebaseQuerySensor(
        task_id="wait",
        sql="SELECT max(id) FROM deferral.t WHERE id < %(most)s",
        parameters={"most": 9},
        poke_interval=0.2,
        deferrable=True,
    )

    async def wait() -> TriggerEvent:
        waiting = asyncio.create_task(first_event(defer(task)))
        await asyncio.sleep(1)
        assert not waiting.done()
        await asyncio.to_thread(hook.run, "INSERT INTO deferral.t VALUES (1)")
        return await waiting

    task.execute_complete(CONTEXT, asyncio.run(wait()).payload)
    assert task.poke(CONTEXT) is True
    for sql in ("SELECT false; SELECT true", "SET LOCAL work_mem = '4MB'; SELECT true", "SELECT 'a%' LIKE 'a%'"):
        assert asyncio.run(first_event(LakebaseQuerySensorTrigger(sql, parameters=[]))).payload == {"status": "success"}
    started_at = time.monotonic()
    asyncio.run(first_event(LakebaseQuerySensorTrigger("SELECT generate_series(1, 100000000)")))
    assert time.monotonic() - started_at < 40
    with pytest.raises(AirflowFailException, match="parameters .*cannot be deferred"):
        LakebaseQuerySensor(task_id="wait", sql="SELECT %s", parameters=[b"x"], deferrable=True).execute(CONTEXT)
    hook.run("UPDATE deferral.t SET id = 0")
    assert task.poke(CONTEXT) is False


def test_a_query_sensor_goes_on_when_its_session_is_cut_and_ends_at_an_error_of_the_query(
    hook: LakebaseHook, schema: str, emulator: LakebaseEmulator
):
    task = LakebaseQuerySensor(
        task_id="wait", sql="SELECT count(*) FROM deferral.t", poke_interval=0.2, deferrable=True
    )

    async def wait() -> TriggerEvent:
        waiting = asyncio.create_task(first_event(defer(task)))
        for _ in range(3):
            await asyncio.sleep(0.3)
            emulator.suspend()
        await asyncio.to_thread(hook.run, "INSERT INTO deferral.t VALUES (1)")
        return await waiting

    assert asyncio.run(wait()).payload == {"status": "success"}
    task.sql = "SELECT nope"
    with pytest.raises(AirflowFailException, match="nope"):
        run_deferred(task)


class Clock:
    """Lets a trigger sleep without waiting, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self._sleep = asyncio.sleep
        monkeypatch.setattr(query_module.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await self._sleep(0.01)


def test_an_hour_of_polls_only_when_awake_opens_no_session_on_a_sleeping_endpoint(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
):
    emulator.suspend()
    logins, clock = len(emulator.logins), Clock(monkeypatch)
    triggers = [
        LakebaseQuerySensorTrigger("SELECT true", poll_interval=60, only_when_awake=True),
        LakebaseQueryTrigger("SELECT 1", mark="SELECT %(taken)s", poll_interval=60, only_when_awake=True),
    ]

    async def hour(trigger: Any) -> None:
        waiting = asyncio.create_task(first_event(trigger))
        clock.seconds = 0
        while clock.seconds < 3600:
            await clock._sleep(0.01)
        assert not waiting.done()
        waiting.cancel()

    for trigger in triggers:
        asyncio.run(hour(trigger))
    assert emulator.state == "IDLE"
    assert len(emulator.logins) == logins

    async def awake() -> TriggerEvent:
        emulator.wake()
        return await first_event(triggers[0])

    assert asyncio.run(awake()).payload == {"status": "success"}


@pytest.mark.parametrize(("interval", "warned"), [(60, True), (100_000, False)])
def test_an_interval_that_never_lets_the_endpoint_sleep_is_warned_of(
    emulator: LakebaseEmulator, task_log: Callable[[], str], interval: float, warned: bool
):
    asyncio.run(first_event(LakebaseQuerySensorTrigger("SELECT true", poll_interval=interval)))
    assert ("never lets endpoint" in task_log()) is warned


@pytest.fixture(autouse=True)
def events_are_stored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "STORING_SECONDS", 0.05)


async def events_of(trigger: LakebaseQueryTrigger, count: int) -> list[Any]:
    events: list[Any] = []
    async for event in trigger.run():
        events.append(event.payload)
        if len(events) == count:
            break
    return events


def test_a_watcher_claims_rows_and_marks_them_in_one_transaction(hook: LakebaseHook, schema: str):
    hook.run("CREATE TABLE deferral.orders (id text PRIMARY KEY, taken boolean NOT NULL DEFAULT false)")
    hook.run("INSERT INTO deferral.orders VALUES ('a'), ('b')")
    trigger = LakebaseQueryTrigger(
        "SELECT id FROM deferral.orders WHERE NOT taken FOR UPDATE SKIP LOCKED",
        mark="UPDATE deferral.orders SET taken = true WHERE id = ANY(%(taken)s)",
        poll_interval=0.2,
    )
    found: list[Any] = []

    async def watch() -> None:
        async for event in through_the_database(trigger).run():
            found.append(event.payload)

    async def run() -> None:
        watching = asyncio.create_task(watch())
        await until(lambda: hook.get_first("SELECT bool_and(taken) FROM deferral.orders") == (True,), 10)
        await asyncio.to_thread(hook.run, "INSERT INTO deferral.orders VALUES ('c')")
        await until(lambda: len(found) == 2, 10)
        await asyncio.sleep(0.5)
        watching.cancel()

    asyncio.run(run())
    assert found == [{"rows": 2}, {"rows": 1}]


def test_a_watcher_that_dies_before_it_marked_tells_of_the_rows_again(hook: LakebaseHook, schema: str):
    hook.run("INSERT INTO deferral.t VALUES (1)")
    trigger = LakebaseQueryTrigger("SELECT id FROM deferral.t", mark="DELETE FROM deferral.t WHERE id = ANY(%(taken)s)")
    for _ in range(2):
        assert asyncio.run(events_of(trigger, 1)) == [{"rows": 1}]
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (1,)


def test_a_watcher_that_dies_while_its_event_is_stored_tells_of_the_rows_again(
    hook: LakebaseHook, schema: str, monkeypatch: pytest.MonkeyPatch
):
    hook.run("INSERT INTO deferral.t VALUES (1)")
    trigger = LakebaseQueryTrigger("SELECT id FROM deferral.t", mark="DELETE FROM deferral.t WHERE id = ANY(%(taken)s)")
    monkeypatch.setattr(query, "STORING_SECONDS", 30)

    async def die_with_the_event_in_memory() -> list[Any]:
        found: list[Any] = []

        async def watch() -> None:
            async for each in trigger.run():
                found.append(each.payload)

        watching = asyncio.create_task(watch())
        await until(lambda: bool(found), 10)
        await asyncio.sleep(0.5)  # the trigger goes on after it was heard
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        return found

    for _ in range(2):
        assert asyncio.run(die_with_the_event_in_memory()) == [{"rows": 1}]
    assert hook.get_first("SELECT count(*) FROM deferral.t") == (1,)


def test_a_watcher_whose_mark_fails_tells_of_nothing(hook: LakebaseHook, schema: str, monkeypatch: pytest.MonkeyPatch):
    hook.run("INSERT INTO deferral.t VALUES (1)")
    clock = Clock(monkeypatch)

    async def watch(trigger: Any) -> list[Any]:
        trigger.asset_state_store = State()
        watching = asyncio.create_task(events_of(trigger, 1))
        while clock.seconds < 300:
            await clock._sleep(0.01)
        assert not watching.done()
        watching.cancel()
        return list(trigger.asset_state_store.values)

    refused: list[dict[str, str]] = [
        {"sql": "SELECT id FROM deferral.t", "mark": "UPDATE nope SET x = %(taken)s"},
        {"sql": "SELECT id, %(watermark)s::text FROM deferral.t", "watermark_column": "misspelt"},
        {"sql": "SELECT NULL AS id, %(watermark)s::text FROM deferral.t", "watermark_column": "id"},
    ]
    for arguments in refused:
        clock.seconds = 0
        assert asyncio.run(watch(LakebaseQueryTrigger(**arguments))) == []


def test_a_watcher_marks_by_the_first_column_whatever_the_others_are_called(hook: LakebaseHook, schema: str):
    hook.run("CREATE TABLE deferral.o (id int, c int); INSERT INTO deferral.o VALUES (1, 6), (2, 6), (6, 9)")
    trigger = LakebaseQueryTrigger(
        "SELECT id, c AS id FROM deferral.o WHERE c = 6",
        mark="DELETE FROM deferral.o WHERE id = ANY(%(taken)s)",
        poll_interval=0.1,
    )

    async def watch() -> None:
        watching = asyncio.create_task(events_of(trigger, 2))
        await until(lambda: hook.get_records("SELECT id FROM deferral.o") == [(6,)], 10)
        await asyncio.sleep(0.5)
        assert not watching.done()
        watching.cancel()

    asyncio.run(watch())


class State:
    """What Airflow 3.3 keeps of an asset."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = json.loads(json.dumps(value))


def test_a_watermark_lets_only_newer_rows_fire_across_restarts(hook: LakebaseHook, schema: str):
    hook.run("INSERT INTO deferral.t VALUES (1), (2)")
    sql = "SELECT id FROM deferral.t WHERE id > coalesce(%(watermark)s::int, 0) ORDER BY id"
    state, found = State(), []

    async def watch() -> None:
        trigger: Any = through_the_database(LakebaseQueryTrigger(sql, watermark_column="id", poll_interval=0.1))
        trigger.asset_state_store = state
        async for event in trigger.run():
            found.append(event.payload)

    async def restart(value: str) -> None:
        watching = asyncio.create_task(watch())
        await until(lambda: state.values.get("lakebase_watermark") == value, 10)
        await asyncio.sleep(0.3)
        watching.cancel()

    asyncio.run(restart("2"))
    hook.run("INSERT INTO deferral.t VALUES (3)")
    asyncio.run(restart("3"))
    assert found == [{"rows": 2}, {"rows": 1}]


def test_a_watcher_without_a_way_to_tell_of_rows_once_is_refused():
    for arguments in ({}, {"mark": "SELECT 1", "watermark_column": "id"}):
        with pytest.raises(LakebaseSettingsError, match="either mark or watermark_column"):
            LakebaseQueryTrigger("SELECT 1", **arguments)
    with pytest.raises(LakebaseSettingsError, match="nothing stores the watermark.*mark"):
        asyncio.run(events_of(LakebaseQueryTrigger("SELECT %(watermark)s", watermark_column="id"), 1))
    with pytest.raises(LakebaseSettingsError, match="does not use %.taken.s, so it would mark every row"):
        LakebaseQueryTrigger("SELECT 1", mark="UPDATE t SET taken = true")
    with pytest.raises(LakebaseSettingsError, match="does not use %.watermark.s, so it would find all rows again"):
        LakebaseQueryTrigger("SELECT 1", watermark_column="id")


# ── the event loop ──


def test_the_event_loop_is_never_held_up(emulator: LakebaseEmulator):
    emulator.suspend()
    emulator.wake_seconds = 1
    lags: list[float] = []
    # Earlier tests of this process may have left threads, which are not these waits'.
    threads: list[int] = []
    before = threading.active_count()

    async def measure() -> None:
        while True:
            started_at = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - started_at - 0.01)
            threads.append(threading.active_count() - before)

    async def wait() -> None:
        measuring = asyncio.create_task(measure())
        await asyncio.gather(*(first_event(LakebaseEndpointTrigger(poll_interval=0.5)) for _ in range(20)))
        await first_event(defer(statement("SELECT 1")))
        measuring.cancel()

    asyncio.run(wait())
    assert sorted(lags)[int(len(lags) * 0.95)] < 0.1
    assert max(threads) < 20
