"""What waits in the triggerer, on a whole Airflow: scheduler, triggerer, workers and, on Airflow 3, the API server."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from _stack import Stack, wait_until
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

KILLS = int(os.environ.get("LAKEBASE_TRIGGERER_KILLS", "2"))
"""How often the triggerer is killed in each of its tests; the whole of CI has 20 minutes."""

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
HEADER = """
import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor
"""
WAITING = """
with DAG("waiting", schedule="@once", start_date=datetime.datetime(2026, 1, 1)):
    awake = LakebaseEndpointSensor(task_id="awake", deferrable=True, poke_interval=1, timeout=120)
    statement = LakebaseSQLOperator(
        task_id="statement", sql="SELECT 'row_that_no_log_shows' FROM pg_sleep(5)", deferrable=True
    )
    awake >> statement
"""
WATCHED = """
from airflow.sdk import Asset, AssetWatcher
from airflow_provider_lakebase.triggers.query import LakebaseQueryTrigger

trigger = LakebaseQueryTrigger(
    "SELECT id FROM stack.orders WHERE NOT taken FOR UPDATE SKIP LOCKED",
    mark="UPDATE stack.orders SET taken = true WHERE id = ANY(%(taken)s)",
    poll_interval=2,
    only_when_awake=True,
)
orders = Asset("orders", watchers=[AssetWatcher(name="new_orders", trigger=trigger)])
with DAG("watched", schedule=[orders]):
    LakebaseSQLOperator(task_id="note", sql="INSERT INTO stack.notes VALUES (1)")
"""
INSERT = "INSERT INTO stack.{table} SELECT n FROM generate_series(1, 1000) n, pg_sleep({seconds})"
KILLED = """
with DAG("killed", schedule="@once", start_date=datetime.datetime(2026, 1, 1)):
    LakebaseSQLOperator(task_id="recorded", sql="{recorded}", deferrable=True, ledger_schema="stack")
    LakebaseSQLOperator(task_id="plain", sql="{plain}", deferrable=True)
"""
SLEEPING = """
with DAG("sleeping", schedule="@once", start_date=datetime.datetime(2026, 1, 1)):
    LakebaseEndpointSensor(task_id="awake", deferrable=True, wake=False, poke_interval=1, timeout=600)
"""
CLEARED = """
with DAG("cleared", schedule="@once", start_date=datetime.datetime(2026, 1, 1)):
    LakebaseSQLOperator(task_id="long", sql="SELECT pg_sleep(600)", deferrable=True)
"""
BRANCHES = """
import os, pathlib, signal
from airflow_provider_lakebase.operators import _operation
from airflow_provider_lakebase.operators.branch import LakebaseCreateBranchOperator

wait_for = _operation.wait_for

def die_once(*args, **kwargs):
    marker = pathlib.Path("{marker}")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    wait_for(*args, **kwargs)

_operation.wait_for = die_once
again = {{"retries": 2, "retry_delay": datetime.timedelta(seconds=1)}}
with DAG("branches", schedule="@once", start_date=datetime.datetime(2026, 1, 1), default_args=again):
    LakebaseCreateBranchOperator(task_id="in_worker", ttl=3600, if_exists="fail")
    LakebaseCreateBranchOperator(task_id="in_triggerer", ttl=3600, if_exists="fail", deferrable=True)
"""


@pytest.fixture(scope="module")
def stack(shared_emulator: LakebaseEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    hook = LakebaseHook()
    shared_emulator.wake()
    hook.run(
        """DROP SCHEMA IF EXISTS stack CASCADE; CREATE SCHEMA stack; CREATE TABLE stack.notes (n int);
        CREATE TABLE stack.orders (id int PRIMARY KEY, taken boolean NOT NULL DEFAULT false);
        CREATE TABLE stack.recorded (n int); CREATE TABLE stack.plain (n int)"""
    )
    variables = {f"AIRFLOW_CONN_{name.upper()}": value for name, value in shared_emulator.connections.items()}
    variables["LAKEBASE_WORKSPACE"] = shared_emulator.workspace_url.removeprefix("http://")
    stack = Stack(tmp_path_factory.mktemp("stack"), variables)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        if os.environ.get("LAKEBASE_STACK_LOGS"):
            Path(os.environ["LAKEBASE_STACK_LOGS"]).write_text(stack.logs())


def add_dag(stack: Stack, name: str, text: str) -> None:
    (stack.dags / f"{name}.py").write_text(HEADER + text)


def sessions(superuser: psycopg.Connection[Any], text: str) -> set[int]:
    """Return the process ids of the sessions that run such a statement."""
    query = "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()"
    return {pid for (pid,) in superuser.execute(query, [f"%{text}%"])}


def running(superuser: psycopg.Connection[Any], text: str) -> int:
    return len(sessions(superuser, text))


@pytest.fixture
def superuser(emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        yield connection


def test_a_dag_waits_and_runs_sql_without_a_worker(stack: Stack, emulator: LakebaseEmulator):
    emulator.suspend()
    # LocalExecutor reports a deferred task up to 5 s late. If its trigger has fired by then, Airflow fails the task.
    emulator.wake_seconds = 8
    add_dag(stack, "waiting", WAITING)
    seen: dict[str, set[str]] = {}
    held = set()

    def is_done() -> bool:
        states = stack.states("waiting")
        for task, state in states.items():
            seen.setdefault(task, set()).add(state)
        if "deferred" in states.values():
            held.update(set(states.values()) & {"running", "queued"})
        return stack.runs("waiting") in (["success"], ["failed"])

    wait_until(is_done, 400)
    assert stack.runs("waiting") == ["success"], stack.logs()
    assert all("deferred" in states for states in seen.values()) and len(seen) == 2
    assert not held
    assert emulator.state == "ACTIVE"
    assert "row_that_no_log_shows'" not in re.sub(r"Running statement: [^\n]*", "", stack.logs())


if AIRFLOW_V_3_0_PLUS:  # Airflow 2 has no asset watchers

    def test_a_row_that_a_watcher_finds_starts_a_dag_once(stack: Stack, hook: LakebaseHook):
        add_dag(stack, "watched", WATCHED)
        wait_until(lambda: stack.query("SELECT 1 FROM dag WHERE dag_id = 'watched'") != [], 240)
        hook.run("INSERT INTO stack.orders VALUES (1)")
        wait_until(lambda: stack.runs("watched") == ["success"], 90, f"the DAG did not run: {stack.runs('watched')}")
        time.sleep(6)
        assert stack.runs("watched") == ["success"]
        assert hook.get_first("SELECT count(*) FROM stack.notes") == (1,)


def test_a_load_starts_the_dag_that_is_scheduled_on_its_tables_asset(stack: Stack, hook: LakebaseHook):
    text = (EXAMPLES / "asset_scheduled.py").read_text()
    (stack.dags / "asset_scheduled.py").write_text(text.replace("schedule=None", 'schedule="@once"'))
    wait_until(lambda: stack.runs("asset_scheduled") == ["success"], 90, f"{stack.runs('asset_scheduled_load')}")
    assert stack.runs("asset_scheduled_load") == ["success"]
    assert hook.get_first("SELECT sum(airports) FROM asset_scheduled.airports_by_zone") == (1455,)


def test_a_deferred_statement_that_is_cleared_is_cancelled_on_the_server(
    stack: Stack, superuser: psycopg.Connection[Any]
):
    add_dag(stack, "cleared", CLEARED)
    wait_until(lambda: running(superuser, "pg_sleep(600)") == 1, 240)
    pid = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
    first = superuser.execute(pid).fetchall()
    stack.command("tasks", "clear", "cleared", "--yes")
    started_at = time.monotonic()
    wait_until(lambda: first[0] not in superuser.execute(pid).fetchall(), 30, "it runs on")
    print(f"cancelled {time.monotonic() - started_at:.1f} s after it was cleared")
    (stack.dags / "cleared.py").unlink()
    stack.command("dags", "delete", "cleared", "--yes")
    wait_until(lambda: running(superuser, "pg_sleep(600)") == 0, 120)


def test_a_wait_survives_triggerers_that_are_killed(stack: Stack, emulator: LakebaseEmulator):
    emulator.suspend()
    time.sleep(3)
    emulator.suspend()  # a watcher that had just seen it awake has woken it
    add_dag(stack, "sleeping", SLEEPING)
    wait_until(lambda: stack.states("sleeping").get("awake") == "deferred", 240)
    for _ in range(KILLS):
        enough = reads(emulator) + 2
        wait_until(partial(reads_reach, emulator, enough), 60, "nobody reads the endpoint's state")
        stack.kill_triggerer()
        stack.start_triggerer()
    assert stack.states("sleeping") == {"awake": "deferred"}
    emulator.wake()
    wait_until(lambda: stack.runs("sleeping") == ["success"], 240)


def reads_reach(emulator: LakebaseEmulator, count: int) -> bool:
    return reads(emulator) >= count


def reads(emulator: LakebaseEmulator) -> int:
    return sum("/endpoints/" in request.path for request in emulator.requests)


def test_statements_are_applied_once_whatever_becomes_of_triggerers(
    stack: Stack, superuser: psycopg.Connection[Any], hook: LakebaseHook
):
    tables = ("recorded", "plain")
    seen: dict[str, set[int]] = {table: set() for table in tables}
    at_once = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal at_once
        while not stop.is_set():
            for table in tables:
                found = sessions(superuser, f"INSERT INTO stack.{table} SELECT")
                seen[table] |= found
                at_once = max(at_once, len(found))
            time.sleep(0.02)

    def all_were_run(times: int) -> bool:
        return all(len(seen[table]) >= times for table in tables)

    sql = {table: INSERT.format(table=table, seconds=4) for table in tables}
    add_dag(stack, "killed", KILLED.format(**sql))
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        for number in range(1, KILLS + 1):
            wait_until(partial(all_were_run, number), 240, f"run {number} did not come: {seen}")
            stack.kill_triggerer()
            stack.start_triggerer()
        wait_until(lambda: stack.runs("killed") == ["success"], 240)
    finally:
        stop.set()
        watching.join()
    assert at_once == 1
    assert all_were_run(KILLS + 1)
    for table in tables:
        assert hook.get_first(f"SELECT count(*), count(DISTINCT n) FROM stack.{table}") == (1000, 1000)
    assert hook.get_first("SELECT count(*) FROM stack.loads") == (1,)


def test_a_branch_is_created_once_whatever_becomes_of_workers_and_triggerers(
    stack: Stack, emulator: LakebaseEmulator, tmp_path: Path
):
    def posts() -> int:
        return sum(each.method == "POST" and each.path.endswith("/branches") for each in emulator.requests)

    posted = posts()
    emulator.operation_seconds = 10
    try:
        add_dag(stack, "branches", BRANCHES.format(marker=tmp_path / "died"))
        wait_until(lambda: stack.states("branches").get("in_triggerer") == "deferred", 240)
        polls = sum("/operations/" in each.path for each in emulator.requests)
        wait_until(lambda: sum("/operations/" in each.path for each in emulator.requests) > polls, 240)
        stack.kill_triggerer()
        stack.start_triggerer()
        wait_until(lambda: stack.runs("branches") in (["success"], ["failed"]), 180, str(stack.states("branches")))
    finally:
        emulator.operation_seconds = 0
        made = [each for each in LakebaseWorkspaceHook().list_branches() if "branches-in-" in str(each.name)]
        for branch in made:
            emulator.delete_branch(str(branch.name))
    assert stack.runs("branches") == ["success"], stack.logs()[-20_000:]
    assert (tmp_path / "died").exists()
    assert (posts() - posted, len(made)) == (2, 2)
