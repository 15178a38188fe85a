"""Synced tables as tasks: each operator in each situation that a pipeline or a dying worker brings about."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from _operations import Died, Store, Task, context, dying, resume, run
from _synced_tables import Policy, World, wait_for
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from databricks.sdk.service.postgres import SyncedTable

from airflow_provider_lakebase.exceptions import (
    LakebaseOperationError,
    LakebaseOperationTimeoutError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceRefusedError,
)
from airflow_provider_lakebase.operators.synced_table import LakebaseSyncTableOperator

WAIT = "airflow_provider_lakebase.operators._operation.wait_for"
SECONDS = 0.4


def sync(table: SyncedTable | list[SyncedTable], **arguments: Any) -> LakebaseSyncTableOperator:
    tables = table if isinstance(table, list) else [table]
    names = [full_name(each) for each in tables]
    return LakebaseSyncTableOperator(
        **{"task_id": "sync", "synced_table": names if isinstance(table, list) else names[0], **arguments}
    )


def full_name(table: SyncedTable) -> str:
    return str(table.name).removeprefix("synced_tables/")


def pipeline_of(table: SyncedTable) -> str:
    assert table.status
    return str(table.status.pipeline_id)


def updates(world: World, table: SyncedTable) -> list[str]:
    """Return the IDs of a pipeline's updates, the newest first."""
    return [str(each.update_id) for each in world.client.pipelines.list_updates(pipeline_of(table)).updates or []]


@pytest.mark.parametrize("deferrable", [False, True])
def test_it_starts_an_update_and_waits_for_the_version(world: World, deferrable: bool) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    version = world.publish(source, {"id": [1, 2]})
    result = run(sync(table, version=str(version), deferrable=deferrable))
    assert result.pop("seconds") > 0
    assert result == {
        "synced_table": full_name(table),
        "version": version,
        "state": "ONLINE_NO_PENDING_UPDATE",
        "pipeline_update": updates(world, table)[0],
    }
    assert len(updates(world, table)) == 2


def test_a_version_that_is_there_starts_nothing(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    assert run(sync(table, version=0))["pipeline_update"] is None
    assert len(updates(world, table)) == 1


def test_without_a_version_what_was_published_before_the_task_is_there_after_it(world: World) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    version = world.publish(source, {"id": [1, 2]})
    assert run(sync(table))["version"] == version
    assert run(sync(table))["version"] == version  # a second task starts a second update
    assert len(updates(world, table)) == 3


def test_a_full_refresh_is_one(world: World) -> None:
    table = world.settled(world.source({"id": [1]}), scheduling_policy=Policy.TRIGGERED)
    update_id = run(sync(table, version=0, full_refresh=True))["pipeline_update"]
    update = world.client.pipelines.get_update(pipeline_of(table), update_id).update
    assert update and update.full_refresh


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_old_version_that_is_settled_is_waited_for(world: World, deferrable: bool) -> None:
    """The update is complete, and the state still tells the version before."""
    source = world.source({"id": [1]})
    table = world.settled(source)

    def publish_later() -> None:
        wait_for(lambda: len(updates(world, table)) == 2)
        world.settle(table)
        world.refresh_version = world.publish(source, {"id": [1, 2]})  # type: ignore[attr-defined]
        world.refresh(table)

    thread = threading.Thread(target=publish_later)
    thread.start()
    result = run(sync(table, version=1, deferrable=deferrable, operation_timeout=60))
    thread.join()
    assert (result["version"], result["state"]) == (1, "ONLINE_NO_PENDING_UPDATE")


def test_a_version_that_never_comes_ends_at_the_timeout(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    with pytest.raises(LakebaseOperationTimeoutError, match="to serve version 7"):
        run(sync(table, version=7, operation_timeout=0.5))
    with pytest.raises(LakebaseOperationTimeoutError, match="to serve version 7"):
        run(sync(table, version=7, operation_timeout=0.5, deferrable=True))


def test_an_update_at_work_is_adopted_and_followed_by_one_that_reads_the_version(world: World) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    world.emulator.pipeline_seconds = 2.0
    world.client.pipelines.start_update(pipeline_of(table))
    wait_for(lambda: state(world, table) == "ONLINE_TRIGGERED_UPDATE")
    world.emulator.pipeline_seconds = 0.02
    version = world.publish(source, {"id": [1, 2]})
    assert run(sync(table, version=version))["version"] == version
    assert len(updates(world, table)) in (2, 3)  # two, if the update had not read its source yet


def state(world: World, table: SyncedTable) -> str:
    status = world.client.postgres.get_synced_table(str(table.name)).status
    assert status and status.detailed_state
    return status.detailed_state.value.removeprefix("SYNCED_TABLE_")


def test_a_table_whose_first_load_is_at_work_is_waited_for(world: World) -> None:
    world.emulator.pipeline_seconds = SECONDS
    table = world.create(world.source({"id": [1]}))
    assert run(sync(table))["state"] == "ONLINE_NO_PENDING_UPDATE"
    assert len(updates(world, table)) == 1


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("is_online", [False, True])
def test_a_failed_pipeline_fails_the_task_in_the_services_words(
    world: World, deferrable: bool, is_online: bool
) -> None:
    source = world.source({"id": [1]} if is_online else {"id": [1, 1]})
    table = world.settled(source)
    world.publish(source, {"id": [1, 1]})
    with pytest.raises(AirflowFailException, match="Two rows of the source have the same primary key") as caught:
        run(sync(table, deferrable=deferrable))
    error = caught.value.__cause__
    assert isinstance(error, LakebaseOperationError)
    assert error.error_code == "SYNCED_TABLE_USER_ERROR.PRIMARY_KEY_CONSTRAINT_VIOLATION"
    assert error.operation.endswith(updates(world, table)[0])
    assert error.resource == table.name
    assert state(world, table) == ("ONLINE_PIPELINE_FAILED" if is_online else "OFFLINE_FAILED")
    # Once the source is right, the same table is brought up to date.
    world.publish(source, {"id": [1, 2]})
    assert run(sync(table))["state"] == "ONLINE_NO_PENDING_UPDATE"


def test_a_failure_of_the_service_is_retried(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    world.emulator.faults.fail_pipelines("no space")
    with pytest.raises(LakebaseOperationError, match="no space") as caught:
        run(sync(table))
    assert caught.value.retryable
    assert run(sync(table))["state"] == "ONLINE_NO_PENDING_UPDATE"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_retry_after_a_failed_update_starts_another(world: World, deferrable: bool) -> None:
    table = world.settled(world.source({"id": [1]}))
    world.emulator.faults.fail_pipelines("no space")
    kept = Store()
    with pytest.raises(LakebaseOperationError, match="no space"):
        run(sync(table, deferrable=deferrable), context(kept))
    retry = context(kept)
    retry["ti"].try_number = 2
    assert run(sync(table, deferrable=deferrable), retry)["pipeline_update"] == updates(world, table)[0]
    assert not kept.values


@pytest.mark.parametrize("is_online", [False, True])
def test_a_canceled_update_fails_the_task(world: World, is_online: bool) -> None:
    table = world.settled(world.source({"id": [1]})) if is_online else None
    world.emulator.pipeline_seconds = 5.0
    table = table or world.create(world.source({"id": [1]}))

    def stop() -> None:
        wait_for(lambda: len(updates(world, table)) == 1 + is_online)
        time.sleep(0.1)
        world.client.pipelines.stop(pipeline_of(table))

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(LakebaseOperationError, match="The update was canceled"):
        run(sync(table))
    thread.join()
    assert state(world, table) == ("ONLINE_NO_PENDING_UPDATE" if is_online else "OFFLINE")
    world.emulator.pipeline_seconds = 0.02
    assert run(sync(table))["state"] == "ONLINE_NO_PENDING_UPDATE"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_continuous_table_is_waited_for_while_its_update_goes_on(world: World, deferrable: bool) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source, scheduling_policy=Policy.CONTINUOUS)
    version = world.publish(source, {"id": [1, 2]})
    assert run(sync(table, version=version, deferrable=deferrable))["state"] == "ONLINE_CONTINUOUS_UPDATE"
    assert len(updates(world, table)) == 1
    with pytest.raises(AirflowFailException, match="Give the version") as caught:
        run(sync(table))
    assert isinstance(caught.value.__cause__, LakebaseSettingsError)
    with pytest.raises(AirflowFailException, match="Stop the pipeline first") as caught:
        run(sync(table, version=version, full_refresh=True))
    assert isinstance(caught.value.__cause__, LakebaseWorkspaceRefusedError)


def test_a_continuous_table_that_was_stopped_is_started(world: World) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source, scheduling_policy=Policy.CONTINUOUS)
    world.client.pipelines.stop(pipeline_of(table))
    wait_for(lambda: state(world, table) == "ONLINE")
    version = world.publish(source, {"id": [1, 2]})
    assert run(sync(table, version=version))["version"] == version


def test_a_continuous_table_that_fails_fails_the_task(world: World) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source, scheduling_policy=Policy.CONTINUOUS)
    version = world.publish(source, {"id": [1, 1]})
    wait_for(lambda: state(world, table) == "ONLINE_PIPELINE_FAILED")
    with pytest.raises(AirflowFailException, match="same primary key"):
        run(sync(table, version=version))


def test_tables_of_one_pipeline_share_an_update(world: World) -> None:
    first = world.settled(world.source({"id": [1]}))
    second = world.settled(world.source({"id": [1]}), existing_pipeline_id=pipeline_of(first))
    other = world.settled(world.source({"id": [1]}))
    result = run(sync([first, second, other], deferrable=True))
    assert result["synced_table"] == [full_name(each) for each in (first, second, other)]
    assert result["pipeline_update"] == {
        full_name(first): updates(world, first)[0],
        full_name(second): updates(world, first)[0],
        full_name(other): updates(world, other)[0],
    }
    assert (len(updates(world, first)), len(updates(world, other))) == (3, 2)


@pytest.mark.parametrize("deferrable", [False, True])
def test_five_mapped_tasks_on_one_pipeline_start_one_update(world: World, deferrable: bool) -> None:
    tables = [world.settled(world.source({"id": [1]}))]
    for _ in range(4):
        tables.append(world.settled(world.source({"id": [1]}), existing_pipeline_id=pipeline_of(tables[0])))
    before = len(updates(world, tables[0]))
    world.emulator.pipeline_seconds = 1.2
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda table=table: results.append(run(sync(table, deferrable=deferrable))))
        for table in tables
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each["pipeline_update"] for each in results] == [updates(world, tables[0])[0]] * 5
    assert len(updates(world, tables[0])) == before + 1


@pytest.mark.parametrize("full_refresh", [False, True])
@pytest.mark.parametrize("store", [True, False])
def test_a_retry_after_a_death_waits_for_the_update_that_is_at_work(
    world: World, store: bool, full_refresh: bool
) -> None:
    table = world.settled(world.source({"id": [1]}))
    world.emulator.pipeline_seconds = SECONDS
    kept = Store() if store else None
    dag_run = SimpleNamespace(start_date=datetime.now(UTC))
    with dying(WAIT):
        run(sync(table, full_refresh=full_refresh), context(kept, dag_run=dag_run))
    retry = context(kept, dag_run=dag_run)
    retry["ti"].try_number = 2
    result = run(sync(table, full_refresh=full_refresh), retry)
    assert result["pipeline_update"] == updates(world, table)[0]
    assert len(updates(world, table)) == 2
    assert not (kept and kept.values)


def test_a_task_whose_run_is_cleared_does_not_take_the_update_of_before(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    kept = Store()
    with dying(WAIT):
        run(sync(table), context(kept, dag_run=SimpleNamespace(start_date=datetime.now(UTC))))
    world.settle(table)
    cleared = context(kept, dag_run=SimpleNamespace(start_date=datetime.now(UTC) + timedelta(minutes=5)))
    assert run(sync(table), cleared)["pipeline_update"] == updates(world, table)[0]
    assert len(updates(world, table)) == 3


def test_a_retry_after_the_trigger_was_lost_waits_for_the_same_update(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    world.emulator.pipeline_seconds = SECONDS
    kept = Store()
    operator = sync(table, deferrable=True)
    with pytest.raises(TaskDeferred):
        operator.execute(context(kept))
    with pytest.raises(TaskDeferred) as deferred:
        sync(table, deferrable=True).execute(context(kept))
    assert resume(operator, deferred.value, context(kept))["pipeline_update"] == updates(world, table)[0]
    assert len(updates(world, table)) == 2


def test_an_answer_that_is_lost_starts_no_second_update(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_lakebase.core.workspace import syncs

    table = world.settled(world.source({"id": [1]}))
    world.emulator.pipeline_seconds = SECONDS
    start = syncs.start_update

    def die(*arguments: Any, **options: Any) -> Any:
        start(*arguments, **options)
        raise Died

    kept = Store()
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(syncs, "start_update", die)
        run(sync(table), context(kept))
    run(sync(table), context(kept))
    assert len(updates(world, table)) == 2


def test_what_is_wrong_is_told_at_once(world: World) -> None:
    for arguments, text in (
        ({"synced_table": "app.t"}, "synced_table is 'app.t'"),
        ({"synced_table": []}, "No synced table is given"),
        ({"synced_table": None}, "synced_table is None"),
        ({"synced_table": 5}, "synced_table is 5"),
        ({"synced_table": [None]}, "synced_table is None"),
        ({"synced_table": "lake.app.t", "version": "newest"}, "version is 'newest'"),
    ):
        with pytest.raises(AirflowFailException, match=text):
            run(LakebaseSyncTableOperator(task_id="sync", **arguments))  # type: ignore[arg-type]
    with pytest.raises(AirflowFailException, match="synced table id not found") as caught:
        run(LakebaseSyncTableOperator(task_id="sync", synced_table="lake.app.nothing"))
    assert isinstance(caught.value.__cause__, LakebaseResourceNotFoundError)


def test_it_links_to_the_branch_and_emits_the_tables_asset(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    events: dict[Any, Any] = {}

    class Events(dict[Any, Any]):
        def __missing__(self, asset: Any) -> Any:
            self[asset] = events[asset.uri] = SimpleNamespace(extra={})
            return self[asset]

    operator = sync(table, version=0)
    task = Task(task=operator)
    run(operator, {"ti": task, "outlet_events": Events()})
    (uri,) = events
    assert uri.startswith("lakebase://")
    assert uri.endswith("/demo/production/databricks_postgres/" + "/".join(full_name(table).split(".")[1:]))
    assert events[uri].extra == {"synced_table": full_name(table), "version": 0}
    assert operator._lakebase_pages["branch"]  # type: ignore[attr-defined]
    other = LakebaseSyncTableOperator(task_id="x", synced_table=full_name(table), version=0)
    assert run(other)["version"] == 0  # outside a task
