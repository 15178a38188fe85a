"""Change feeds as tasks: what is checked before one is created, tries that die, and the sensor that waits for one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from _clients import open_session
from _operations import PROJECT, Changes, Store, context, dying, resume, run, through_the_database
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_lakebase.core.workspace import change_feed_progress, plans
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import (
    LakebaseChangeFeedError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators.change_feed import (
    LakebaseCreateChangeFeedOperator,
    LakebaseDeleteChangeFeedOperator,
)
from airflow_provider_lakebase.sensors import change_feed as sensors
from airflow_provider_lakebase.sensors.change_feed import LakebaseChangeFeedSensor
from airflow_provider_lakebase.triggers.change_feed import LakebaseChangeFeedSensorTrigger

FEED = f"{PROJECT}/branches/production/databases/databricks-postgres/cdf-configs/outlet"
SPEC = {"postgres_schema": "outlet", "catalog": "main", "schema": "history"}
FULL = "ALTER TABLE outlet.{0} REPLICA IDENTITY FULL"


@pytest.fixture
def outlet(emulator: LakebaseEmulator, hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch) -> Iterator[LakebaseHook]:
    """A schema of the service principal's, with a table that a feed can replicate; removed after the test."""
    monkeypatch.setattr(plans, "FIRST_PAUSE_SECONDS", 0.02)
    former, emulator.feed_flush_seconds = emulator.feed_flush_seconds, 0.05
    hook.run(
        "CREATE SCHEMA outlet; CREATE TABLE outlet.orders (id int PRIMARY KEY, amount int);"
        "ALTER TABLE outlet.orders REPLICA IDENTITY FULL; INSERT INTO outlet.orders VALUES (1, 10)"
    )
    yield hook
    emulator.faults.clear()
    emulator.operation_seconds = 0
    emulator.feed_flush_seconds = former
    emulator.wake()
    workspace = LakebaseWorkspaceHook()
    for feed in workspace.list_change_feeds():
        workspace.delete_change_feed(str(feed.name))
    hook.run("DROP SCHEMA outlet CASCADE")


def create(**arguments: Any) -> LakebaseCreateChangeFeedOperator:
    return LakebaseCreateChangeFeedOperator(**{"task_id": "create", **SPEC, **arguments})


def delete(**arguments: Any) -> LakebaseDeleteChangeFeedOperator:
    return LakebaseDeleteChangeFeedOperator(**{"task_id": "delete", "change_feed": "outlet", **arguments})


def feeds() -> list[str | None]:
    return [each.name for each in LakebaseWorkspaceHook().list_change_feeds()]


def identity(hook: LakebaseHook, table: str) -> str:
    return str(hook.get_first(f"SELECT relreplident::text FROM pg_class WHERE oid = 'outlet.{table}'::regclass")[0])


@pytest.fixture(params=[False, True], ids=["in the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_feed_is_created_once_and_deleted_once(
    outlet: LakebaseHook, emulator: LakebaseEmulator, deferrable: bool
) -> None:
    emulator.operation_seconds = 0.2
    changes, store = Changes(emulator), Store()
    result = run(create(deferrable=deferrable), context(store))
    assert result == {"change_feed": FEED, **SPEC, "created": True}
    emulator.suspend()
    assert run(create(deferrable=deferrable), context(store))["created"] is False
    assert emulator.state == "IDLE"  # the second run opens no session
    assert changes.seen == ["POST cdf-configs"]
    for _ in range(2):
        assert run(delete(deferrable=deferrable), context(store)) is None
    assert changes.seen == ["POST cdf-configs", "DELETE outlet"]
    assert store.values == {}


def test_the_faults_of_all_tables_are_told_before_anything_is_created_or_changed(
    outlet: LakebaseHook, emulator: LakebaseEmulator
) -> None:
    outlet.run(
        """
        CREATE TABLE outlet.no_identity (id int PRIMARY KEY);
        CREATE TABLE outlet.no_key (id int); ALTER TABLE outlet.no_key REPLICA IDENTITY FULL;
        CREATE TABLE outlet.neither (id int);
        CREATE TABLE outlet.parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE outlet.part PARTITION OF outlet.parts FOR VALUES FROM (0) TO (10);
        CREATE UNLOGGED TABLE outlet."Notes; x" (id int PRIMARY KEY);
        ALTER TABLE outlet."Notes; x" REPLICA IDENTITY FULL;
        CREATE VIEW outlet.totals AS SELECT 1 AS one
        """
    )
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute("CREATE TABLE outlet.foreigners (id int PRIMARY KEY)")
    changes = Changes(emulator)
    with pytest.raises(AirflowFailException) as caught:
        run(create())
    text = str(caught.value)
    for fault in (
        "'no_identity' does not have REPLICA IDENTITY FULL;",
        "'no_key' has no primary key;",
        "'neither' has no primary key and does not have REPLICA IDENTITY FULL;",
        "'parts' is partitioned",
        "'Notes; x' is unlogged",
    ):
        assert fault in text
    assert "'orders'" not in text and "'part'" not in text and "totals" not in text
    assert "nothing was created or changed" in text and "connection 'lakebase_default'" in text
    assert isinstance(caught.value.__cause__, LakebaseChangeFeedError)
    # With set_replica_identity, what the role does not own is told, and what it does is not changed either.
    with pytest.raises(AirflowFailException) as caught:
        run(create(set_replica_identity=True))
    assert "'foreigners' does not have REPLICA IDENTITY FULL, and the role does not own it" in str(caught.value)
    assert "'no_identity'" not in str(caught.value)
    assert identity(outlet, "no_identity") == "d"
    named = ["orders", "part", "totals", "nothing"]
    with pytest.raises(AirflowFailException) as caught:
        run(create(tables=named))
    for fault in ("'part' is a partition of another table", "'totals' is a view", "'nothing' does not exist"):
        assert fault in str(caught.value)
    assert changes.seen == [] and feeds() == []


def test_replica_identity_is_set_where_it_is_missing(outlet: LakebaseHook, task_log: Callable[[], str]) -> None:
    outlet.run('CREATE TABLE outlet."Odd ""name" (id int PRIMARY KEY); CREATE TABLE outlet.other (id int)')
    run(create(tables=["orders", 'Odd "name'], set_replica_identity=True))
    found = outlet.get_records(
        "SELECT relname, relreplident::text FROM pg_class WHERE relnamespace = 'outlet'::regnamespace AND relkind = 'r'"
    )
    assert dict(found) == {"orders": "f", 'Odd "name': "f", "other": "d"}
    assert feeds() == [FEED]
    assert "The feed leaves out 'other', which does not have REPLICA IDENTITY FULL" in task_log()


def test_a_table_that_is_locked_is_tried_again_later(
    outlet: LakebaseHook, emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_lakebase.core.replication.LOCK_TIMEOUT", "50ms")
    outlet.run("CREATE TABLE outlet.busy (id int PRIMARY KEY)")
    with open_session(emulator, emulator.service_principal) as session, session.transaction():
        session.execute("SELECT FROM outlet.busy")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run(create(set_replica_identity=True))
    run(create(set_replica_identity=True))
    assert identity(outlet, "busy") == "f"


def test_a_schema_that_is_missing_is_told(outlet: LakebaseHook) -> None:
    with pytest.raises(AirflowFailException, match="The Postgres schema 'nowhere' does not exist"):
        run(create(postgres_schema="nowhere"))
    assert feeds() == []


def test_another_feed_is_refused_and_what_differs_is_told(outlet: LakebaseHook, emulator: LakebaseEmulator) -> None:
    run(create())
    changes = Changes(emulator)
    with pytest.raises(AirflowFailException, match="its catalog is main, not lake") as caught:
        run(create(catalog="lake"))
    assert run(create(catalog="MAIN"))["created"] is False
    assert isinstance(caught.value.__cause__, LakebaseResourceExistsError)
    with pytest.raises(AirflowFailException, match=f"schema 'outlet' has a change feed already: {FEED}"):
        run(create(change_feed="second"))
    assert changes.seen == []


@pytest.mark.parametrize("has_store", [True, False], ids=["3.3", "before 3.3"])
def test_the_try_after_a_death_creates_no_second_feed(
    outlet: LakebaseHook, emulator: LakebaseEmulator, has_store: bool
) -> None:
    emulator.operation_seconds = 0.2
    changes, store = Changes(emulator), Store() if has_store else None
    with dying("airflow_provider_lakebase.operators._operation.wait_for"):
        run(create(), context(store))
    assert run(create(), context(store))["created"] is has_store
    with dying("airflow_provider_lakebase.operators._operation.wait_for"):
        run(delete(), context(store))
    run(delete(), context(store))
    assert changes.seen == ["POST cdf-configs", "DELETE outlet"]
    assert store is None or store.values == {}


def test_a_death_before_the_request_leaves_a_table_that_the_next_try_finds_ready(
    outlet: LakebaseHook, emulator: LakebaseEmulator
) -> None:
    outlet.run("CREATE TABLE outlet.other (id int PRIMARY KEY)")
    changes = Changes(emulator)
    with dying("airflow_provider_lakebase.core.workspace.change_feeds.create_flat"):
        run(create(set_replica_identity=True))
    assert identity(outlet, "other") == "f"
    run(create(set_replica_identity=True))
    assert changes.seen == ["POST cdf-configs"]


def test_two_at_once_create_one_feed(outlet: LakebaseHook, emulator: LakebaseEmulator) -> None:
    emulator.operation_seconds = 0.2
    changes = Changes(emulator)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: LakebaseWorkspaceHook().run(create().plan(context(), TaskNotes(context()))), range(4)))
    assert feeds() == [FEED]
    assert changes.seen == ["POST cdf-configs"]


def test_an_operation_that_fails_fails_the_task_and_a_retry_creates_it(
    outlet: LakebaseHook, emulator: LakebaseEmulator
) -> None:
    emulator.faults.fail_operations("create_cdf_config", error_code="RESOURCE_EXHAUSTED", message="no workers")
    with pytest.raises(Exception, match="no workers"):
        run(create())
    run(create())
    assert feeds() == [FEED]


def test_what_is_wrong_with_arguments_is_told_before_anything_is_sent(
    outlet: LakebaseHook, emulator: LakebaseEmulator
) -> None:
    before = len(emulator.requests)
    for operator, text in (
        (create(change_feed="my-feed"), "'my-feed' is not the ID of a change feed"),
        (create(catalog=""), "catalog is ''"),
        (create(catalog="main.history"), "catalog is 'main.history'.*two arguments"),
        (create(tables=[]), r"tables is \[\]"),
        (create(set_replica_identity="False"), "set_replica_identity is 'False'"),
        (delete(drop_tables="yes"), "drop_tables is 'yes'"),
        (delete(change_feed=f"{PROJECT}/branches/x/cdf-configs/y"), "is not the ID of a change feed"),
    ):
        with pytest.raises(AirflowFailException, match=text) as caught:
            run(operator)
        assert isinstance(caught.value.__cause__, LakebaseSettingsError)
    assert len(emulator.requests) == before


def test_the_hook_reads_feeds_as_the_sdks_objects(outlet: LakebaseHook) -> None:
    workspace = LakebaseWorkspaceHook()
    made = workspace.create_change_feed(**SPEC)
    assert workspace.create_change_feed("outlet", **SPEC) == workspace.get_change_feed("outlet", "production") == made
    assert (made.name, made.catalog) == (FEED, "main")
    (status,) = workspace.list_change_feed_tables(FEED)
    assert (status.postgres_table, status.uc_table) == ("orders", "main.history.lb_orders_history")
    workspace.delete_change_feed("outlet", drop_tables=True)
    workspace.delete_change_feed("outlet")
    with pytest.raises(LakebaseResourceNotFoundError):
        workspace.get_change_feed("outlet")


# The sensor


def sensor(**arguments: Any) -> LakebaseChangeFeedSensor:
    defaults = {"task_id": "wait", "change_feed": "outlet", "tables": "orders", "poke_interval": 0.05, "timeout": 10}
    return LakebaseChangeFeedSensor(**{**defaults, **arguments})


def write(hook: LakebaseHook, table: str = "orders") -> str:
    """Write a row, and return the number that the transaction has read."""
    sql = f"INSERT INTO outlet.{table} SELECT max(id) + 1 FROM outlet.{table}; SELECT pg_current_wal_insert_lsn()::text"
    result: Any = hook.run(sql, handler=lambda cursor: cursor.fetchone() if cursor.description else None)
    return str((result[-1] if isinstance(result, list) else result)[0])


def committed(table: str = "orders") -> str | None:
    found = {each.postgres_table: each for each in LakebaseWorkspaceHook().list_change_feed_tables("outlet")}
    return found[table].committed_lsn if table in found else None


def streaming(table: str = "orders") -> str:
    """Wait until the feed has committed something of a table."""
    deadline = time.monotonic() + 60
    while not (lsn := committed(table)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return lsn


def test_what_was_committed_before_is_waited_for(
    outlet: LakebaseHook, emulator: LakebaseEmulator, deferrable: bool
) -> None:
    run(create())
    streaming()
    emulator.feed_flush_seconds = 0.3
    lsn = write(outlet)
    began = time.monotonic()
    run(sensor(deferrable=deferrable))
    assert time.monotonic() - began > 0.2
    assert change_feed_progress.lsn_number(committed() or "") >= change_feed_progress.lsn_number(lsn)  # type: ignore[operator]


def test_a_number_is_waited_for_without_a_session(
    outlet: LakebaseHook, emulator: LakebaseEmulator, deferrable: bool
) -> None:
    run(create())
    streaming()
    lsn = write(outlet)
    emulator.suspend()
    logins = len(emulator.logins)
    run(sensor(lsn=f" {lsn.lower()} ", tables=["orders"], deferrable=deferrable))
    assert emulator.state == "IDLE"
    assert len(emulator.logins) == logins


def test_now_is_read_once_also_when_it_is_kept_over_reschedules(
    outlet: LakebaseHook, emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(create())
    streaming()
    emulator.feed_flush_seconds = 60
    write(outlet)
    read, store = [], Store()
    monkeypatch.setattr(sensors, "read_current_lsn", lambda *_: read.append(1) or "0/1A")
    for _ in range(3):  # each reschedule makes a new operator
        operator = sensor(mode="reschedule")
        operator._wanted(context(store))
    assert read == [1]
    # Another try begins anew, since the tasks before it may have run again.
    again = context(store)
    again["ti"].try_number = 2
    sensor(mode="reschedule")._wanted(again)
    assert read == [1, 1]
    with pytest.raises(LakebaseSettingsError, match="after each reschedule"):
        sensor(mode="reschedule")._wanted(context())
    sensor(mode="reschedule", lsn="0/1A")._wanted(context())


def test_now_is_kept_over_a_deferral(outlet: LakebaseHook, emulator: LakebaseEmulator) -> None:
    run(create())
    streaming()
    emulator.feed_flush_seconds = 0.3
    write(outlet)
    store, operator = Store(), sensor(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(store))
    emulator.suspend()
    resume(sensor(deferrable=True), deferred.value, context(store))
    assert emulator.state == "IDLE"
    assert store.values == {}


def test_an_idle_table_does_not_hold_up_the_others(
    outlet: LakebaseHook, emulator: LakebaseEmulator, deferrable: bool, task_log: Callable[[], str]
) -> None:
    outlet.run(
        "CREATE TABLE outlet.idle (id int PRIMARY KEY);" + FULL.format("idle") + "; INSERT INTO outlet.idle VALUES (1)"
    )
    run(create())
    streaming("idle"), streaming("orders")
    write(outlet)
    before = committed("idle")
    run(sensor(tables=["orders", "idle"], idle_after=0.5, deferrable=deferrable))
    assert committed("idle") == before
    written = task_log()
    assert "The table counts as idle" in written
    assert "idle: STREAMING, committed up to" in written


def test_an_idle_table_does_not_reach_a_number_that_was_read_after_its_last_write(
    outlet: LakebaseHook, emulator: LakebaseEmulator
) -> None:
    run(create())
    streaming()
    outlet.run("CREATE TABLE outlet.elsewhere (id int)")
    lsn = outlet.get_first("SELECT pg_current_wal_insert_lsn()::text")[0]
    for arguments in ({"lsn": lsn, "idle_after": 0.1}, {"idle_after": None}):
        with pytest.raises(AirflowException, match="timed out"):
            run(sensor(timeout=0.4, **arguments))


def test_a_table_that_is_left_out_fails_the_task_with_the_services_words(
    outlet: LakebaseHook, deferrable: bool
) -> None:
    outlet.run("CREATE TABLE outlet.left_out (id int PRIMARY KEY); INSERT INTO outlet.left_out VALUES (1)")
    run(create(tables="orders"))
    streaming()
    write(outlet)
    with pytest.raises(AirflowFailException, match="Table does not have REPLICA IDENTITY FULL") as caught:
        run(sensor(tables=["orders", "left_out"], lsn="0/1", deferrable=deferrable))
    error = caught.value.__cause__
    assert isinstance(error, LakebaseChangeFeedError)
    assert (error.error_code, error.resource) == ("CDF_STATE_SKIPPED", FEED)
    assert "'left_out', which is SKIPPED" in str(error)


def test_a_table_whose_replication_ends_while_it_is_waited_for_fails_the_task(
    outlet: LakebaseHook, emulator: LakebaseEmulator, deferrable: bool
) -> None:
    run(create())
    streaming()
    emulator.feed_flush_seconds = 60
    lsn = write(outlet)
    threading.Timer(0.3, lambda: emulator.faults.terminate_feed("orders", "slot lost")).start()
    with pytest.raises(AirflowFailException, match="'orders', which is TERMINATED: slot lost") as caught:
        run(sensor(lsn=lsn, deferrable=deferrable))
    assert caught.value.__cause__.error_code == "CDF_STATE_TERMINATED"  # type: ignore[union-attr]


def test_a_table_that_the_feed_does_not_know_is_told(
    outlet: LakebaseHook, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setattr(change_feed_progress, "APPEARING_SECONDS", 0.3)
    run(create())
    streaming()
    with pytest.raises(
        AirflowFailException, match="'outlet.orders', which it does not know.*knows these tables: orders"
    ):
        run(sensor(lsn="0/1", tables=["outlet.orders"], deferrable=deferrable))


def test_a_table_gets_its_first_row_while_it_is_waited_for(outlet: LakebaseHook, deferrable: bool) -> None:
    outlet.run("CREATE TABLE outlet.empty (id int PRIMARY KEY);" + FULL.format("empty"))
    run(create())
    threading.Timer(0.3, lambda: outlet.run("INSERT INTO outlet.empty VALUES (1)")).start()
    run(sensor(tables="empty", lsn="0/1", deferrable=deferrable))
    assert committed("empty")


def test_a_table_that_stays_empty_is_told(outlet: LakebaseHook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed_progress, "APPEARING_SECONDS", 0.2)
    outlet.run("CREATE TABLE outlet.empty (id int PRIMARY KEY);" + FULL.format("empty"))
    run(create())
    with pytest.raises(AirflowFailException, match="'empty', which is SKIPPED: Table is empty"):
        run(sensor(tables="empty", lsn="0/1"))


def test_a_feed_that_has_no_statuses_yet_is_no_missing_one(outlet: LakebaseHook, emulator: LakebaseEmulator) -> None:
    run(create())
    lsn = streaming()
    emulator.faults.answer("/cdf-statuses", status=404, times=2)
    run(sensor(lsn=lsn))
    assert emulator.faults.pending == []


def test_a_sensor_that_may_fail_is_skipped(outlet: LakebaseHook, deferrable: bool) -> None:
    with pytest.raises(AirflowSkipException):
        run(sensor(lsn="0/1", deferrable=deferrable, soft_fail=True))


def test_a_feed_of_another_branch_is_checked_and_waited_for_there(
    outlet: LakebaseHook, emulator: LakebaseEmulator
) -> None:
    branch = emulator.create_branch()
    try:
        there = LakebaseHook(endpoint=branch)
        there.run("CREATE TABLE outlet.there (id int PRIMARY KEY); INSERT INTO outlet.there VALUES (1)")
        with pytest.raises(AirflowFailException, match="'there' does not have REPLICA IDENTITY FULL"):
            run(create(branch=branch))
        feed = run(create(branch=branch, set_replica_identity=True))["change_feed"]
        assert feed.startswith(branch) and feeds() == []
        run(sensor(change_feed=feed, tables=["there", "orders"], idle_after=0.5))
        run(delete(branch=branch.rsplit("/", 1)[1]))
        assert LakebaseWorkspaceHook().list_change_feeds(branch) == []
    finally:
        emulator.delete_branch(branch)


def test_sensors_of_one_feed_share_one_poll(outlet: LakebaseHook, emulator: LakebaseEmulator) -> None:
    run(create())
    streaming()
    emulator.suspend()
    triggers = [LakebaseChangeFeedSensorTrigger(FEED, ["orders"], "F/0", time.time(), 1.0, poll_interval=0.2)] * 50

    async def wait_in_one_triggerer() -> list[Any]:
        return await asyncio.gather(*(anext(through_the_database(each).run()) for each in triggers))  # type: ignore[call-overload]

    before = len(emulator.requests)
    events = asyncio.run(wait_in_one_triggerer())
    assert [event.payload["idle"] for event in events] == [[f"orders: STREAMING, committed up to {committed()}"]] * 50
    asked = [each for each in emulator.requests[before:] if each.path.endswith("/cdf-statuses")]
    assert 0 < len(asked) < 15
    assert emulator.state == "IDLE"


def test_a_workspace_that_fails_is_asked_again(
    outlet: LakebaseHook, emulator: LakebaseEmulator, deferrable: bool
) -> None:
    run(create())
    lsn = streaming()
    emulator.faults.answer("/cdf-statuses", status=500, times=2)
    run(sensor(lsn=lsn, deferrable=deferrable))


def test_what_is_wrong_with_the_sensor_is_told_at_once(outlet: LakebaseHook, deferrable: bool) -> None:
    run(create())
    for arguments, text in (
        ({"lsn": "yesterday"}, "lsn is 'yesterday'"),
        ({"lsn": None}, "lsn is None"),
        ({"tables": []}, "tables is"),
        ({"tables": [1]}, "tables is"),
        ({"idle_after": -1}, "idle_after is -1"),
        ({"change_feed": "My-feed"}, "'My-feed' is not the ID"),
        ({"change_feed": "nothing", "lsn": "0/1"}, "cdf config id not found"),
    ):
        with pytest.raises(AirflowFailException, match=text):
            run(sensor(deferrable=deferrable, **arguments))
