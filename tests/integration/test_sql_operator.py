"""Tasks that run SQL: the provider's own operator, and common-sql's on its connection."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.providers.common.sql.operators.sql import (
    SQLCheckOperator,
    SQLColumnCheckOperator,
    SQLExecuteQueryOperator,
    SQLTableCheckOperator,
)

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseSettingsError, LakebaseWakeTimeoutError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator


def execute(sql: Any, **arguments: Any) -> Any:
    return LakebaseSQLOperator(task_id="query", sql=sql, **arguments).execute({})


def statements_running(emulator: LakebaseEmulator) -> int:
    with psycopg.connect(emulator.superuser_conninfo) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' "
            "AND pid <> pg_backend_pid()"
        ).fetchone()
    return row[0] if row else 0


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < seconds, "it did not happen in time"
        time.sleep(0.05)


def test_rows_are_the_result(emulator: LakebaseEmulator):
    assert execute("SELECT 1 AS a, %(b)s::text AS b", parameters={"b": "x"}) == [(1, "x")]


def test_without_xcom_nothing_is_fetched(emulator: LakebaseEmulator):
    assert execute("SELECT 1", do_xcom_push=False) is None


def test_lists_and_split_statements_give_a_result_each(emulator: LakebaseEmulator):
    assert execute(["SELECT 1", "SELECT 2"]) == [[(1,)], [(2,)]]
    assert execute("SELECT 1; SELECT 2", split_statements=True, return_last=False) == [[(1,)], [(2,)]]
    assert execute("SELECT 1; SELECT 2") == [(2,)]


def test_only_what_an_xcom_cannot_carry_becomes_text(emulator: LakebaseEmulator):
    sql = """
        SELECT 1, 1.5::numeric, true, '2026-01-02'::date, '2026-01-02 03:00+00'::timestamptz, '{"a": [1]}'::jsonb,
               ARRAY[1, 2], '01:02:03'::time, '\\x00ff'::bytea, '10.0.0.1'::inet, '[1,5)'::int4range, NULL
    """
    row = execute(sql)[0]
    assert row[:7] == (
        1,
        decimal.Decimal("1.5"),
        True,
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        {"a": [1]},
        [1, 2],
    )
    assert row[7:] == ("01:02:03", "\\x00ff", "10.0.0.1", "[1, 5)", None)


def test_every_result_fits_into_an_xcom(emulator: LakebaseEmulator):
    if sys.modules["airflow"].__version__.startswith("2."):
        from airflow.models.xcom import XCom

        serialize = XCom.serialize_value
    else:
        from airflow.sdk.serde import serialize
    sql = """
        SELECT 1, 1.5::numeric, now(), now()::date, now()::time, '1 day'::interval, gen_random_uuid(), '\\x00'::bytea,
               '10.0.0.0/8'::cidr, '08:00:2b:01:02:03'::macaddr, '[1,5)'::int4range, '{[1,2]}'::int4multirange,
               ARRAY['01:02'::time], '{"a": 1}'::json, 'a b'::tsvector, (1, 'x'), 1.5::float8, 'a'::name
    """
    serialize(execute(sql))


def test_neither_rows_nor_parameters_are_in_the_log(emulator: LakebaseEmulator, task_log: Callable[[], str]):
    execute(["SELECT %(a)s::text || '-row'", "SELECT 2"], parameters={"a": "confidential"})
    assert "Running statement: SELECT" in task_log()
    assert "confidential" not in task_log()


def test_a_wish_for_rows_in_the_log_is_refused():
    with pytest.raises(LakebaseSettingsError, match="show_return_value_in_logs would write rows to the log"):
        LakebaseSQLOperator(task_id="query", sql="SELECT 1", show_return_value_in_logs=True)


def test_template_fields_are_rendered(emulator: LakebaseEmulator, tmp_path: Path):
    operator = LakebaseSQLOperator(
        task_id="query",
        sql="SELECT {{ n }}",
        parameters={"a": "{{ n }}"},
        lakebase_conn_id="{{ conn_id }}",
        database="{{ database }}",
        endpoint="{{ endpoint }}",
        hook_params={"options": "-c work_mem={{ n }}MB"},
    )
    names = {"n": "7", "conn_id": "lakebase_admin", "database": "postgres", "endpoint": emulator.endpoint}
    operator.render_template_fields(names)  # type: ignore[arg-type]
    assert (operator.sql, operator.sql_parameters) == ("SELECT 7", {"a": "7"})
    operator.sql = "SELECT current_setting('work_mem'), current_user, current_database()"
    operator.sql_parameters = None
    assert operator.execute({}) == [("7MB", emulator.administrator.client_id, "postgres")]


def test_what_no_retry_can_help_fails_for_good(emulator: LakebaseEmulator, connect_as: Callable[..., str]):
    with pytest.raises(AirflowFailException, match="'endpoint' is malformed"):
        execute("SELECT 1", endpoint="nonsense")
    with pytest.raises(AirflowFailException, match="The Postgres role does not exist"):
        execute("SELECT 1", lakebase_conn_id=connect_as(emulator.add_principal("no role")))
    emulator.disable()
    with pytest.raises(AirflowFailException, match="disabled"):
        execute("SELECT 1")


def test_what_a_retry_may_help_does_not(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch):
    fields = json.loads(emulator.connections["lakebase_default"])
    fields["extra"]["wake_timeout"] = 2
    monkeypatch.setenv("AIRFLOW_CONN_IMPATIENT", json.dumps({**fields, "port": 1}))
    with pytest.raises(LakebaseWakeTimeoutError):
        execute("SELECT 1", lakebase_conn_id="impatient")


def test_errors_of_sql_pass_as_psycopg_raised_them(emulator: LakebaseEmulator):
    with pytest.raises(psycopg.errors.DivisionByZero):
        execute("SELECT 1 / 0")


def test_on_kill_cancels_the_statement_on_the_server(emulator: LakebaseEmulator):
    operator = LakebaseSQLOperator(task_id="query", sql="SELECT pg_sleep(60)")
    cancelled = threading.Event()

    def kill() -> None:
        wait_until(lambda: statements_running(emulator) == 1, 60)
        operator.on_kill()
        wait_until(lambda: statements_running(emulator) == 0, 30)
        cancelled.set()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        operator.execute({})
    thread.join()
    assert cancelled.is_set()


def test_on_kill_during_the_wake_sends_no_statement(emulator: LakebaseEmulator, hook: LakebaseHook):
    emulator.suspend()
    emulator.wake_seconds = 1.5
    operator = LakebaseSQLOperator(task_id="query", sql="CREATE TABLE public.never (id int)")
    timer = threading.Timer(0.5, operator.on_kill)
    timer.start()
    with pytest.raises(AirflowException, match="The hook was cancelled"):
        operator.execute({})
    timer.join()
    assert hook.get_first("SELECT to_regclass('public.never')") == (None,)


def test_conn_id_is_refused():
    with pytest.raises(LakebaseSettingsError, match="Use lakebase_conn_id"):
        LakebaseSQLOperator(task_id="query", sql="SELECT 1", conn_id="lakebase_admin")


def test_on_kill_without_a_statement_does_nothing(emulator: LakebaseEmulator):
    LakebaseSQLOperator(task_id="query", sql="SELECT 1").on_kill()


SLEEPING_TASK = """
import signal
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
operator = LakebaseSQLOperator(task_id="query", sql="SELECT pg_sleep(60)")
# As Airflow's task runner does.
signal.signal(signal.SIGTERM, lambda number, frame: operator.on_kill())
operator.execute({})
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_task_leaves_no_statement_running(emulator: LakebaseEmulator, how: signal.Signals):
    """SIGKILL lets nobody clean up: the server itself looks whether its client is still there."""
    task = subprocess.Popen([sys.executable, "-c", SLEEPING_TASK], env=dict(os.environ), stderr=subprocess.DEVNULL)
    wait_until(lambda: statements_running(emulator) == 1, 60)
    task.send_signal(how)
    wait_until(lambda: statements_running(emulator) == 0, 30)
    assert task.wait(60) != 0


def test_a_timeout_leaves_no_statement_running(emulator: LakebaseEmulator):
    """Airflow's execution_timeout is an exception that a signal raises in the middle of the statement."""

    class TimedOut(BaseException):
        pass

    def time_out(number: int, frame: object) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, time_out)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(TimedOut):
            execute("SELECT pg_sleep(60)")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert statements_running(emulator) == 0


@pytest.fixture
def elsewhere(admin: LakebaseHook, emulator: LakebaseEmulator) -> Any:
    """Another database, with a table that the connection's own database does not have."""
    admin.run("CREATE DATABASE elsewhere", autocommit=True)
    LakebaseHook("lakebase_admin", database="elsewhere").run("CREATE TABLE t AS SELECT generate_series(1, 3) AS n")
    yield "elsewhere"
    admin.run("DROP DATABASE elsewhere WITH (FORCE)", autocommit=True)


def test_common_sqls_checks_check_the_database_they_name(elsewhere: str):
    arguments: dict[str, Any] = {"task_id": "check", "conn_id": "lakebase_admin", "database": elsewhere}
    good = {"n": {"min": {"equal_to": 1}, "max": {"equal_to": 3}, "null_check": {"equal_to": 0}}}
    SQLColumnCheckOperator(table="t", column_mapping=good, **arguments).execute({})
    with pytest.raises(AirflowException, match="max"):
        SQLColumnCheckOperator(table="t", column_mapping={"n": {"max": {"equal_to": 4}}}, **arguments).execute({})
    checks = {"three_rows": {"check_statement": "count(*) = 3"}}
    SQLTableCheckOperator(table="t", checks=checks, **arguments).execute({})
    SQLCheckOperator(sql="SELECT count(*) = 3 FROM t", **arguments).execute({})


def test_common_sqls_own_operator_runs(emulator: LakebaseEmulator):
    operator = SQLExecuteQueryOperator(task_id="query", conn_id="lakebase_default", sql="SELECT current_database()")
    assert operator.execute({}) == [("databricks_postgres",)]


def test_the_task_sql_decorator_runs(emulator: LakebaseEmulator, hook: LakebaseHook):
    from airflow.providers.common.sql.decorators.sql import _SQLDecoratedOperator

    operator = _SQLDecoratedOperator(
        task_id="query", conn_id="lakebase_default", python_callable=lambda: "SELECT 40 + 2", op_args=[], op_kwargs={}
    )
    assert operator.execute({}) == [(42,)]
