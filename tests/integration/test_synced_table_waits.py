"""The sensor and the triggers that wait for synced tables, which others bring up to date."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from _operations import first_event, run, through_the_database
from _synced_tables import World
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from databricks.sdk.service.postgres import SyncedTable

from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable as ReadTable
from airflow_provider_lakebase.core.workspace.synced_tables import read_tables
from airflow_provider_lakebase.exceptions import (
    LakebaseOperationError,
    LakebaseSettingsError,
    LakebaseWorkspaceError,
)
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.sensors.synced_table import LakebaseSyncedTableSensor
from airflow_provider_lakebase.triggers import _tables_poll
from airflow_provider_lakebase.triggers import synced_table as triggers
from airflow_provider_lakebase.triggers.synced_table import (
    LakebaseSyncedTableSensorTrigger,
    LakebaseSyncedTableTrigger,
)


def full_name(table: SyncedTable) -> str:
    return str(table.name).removeprefix("synced_tables/")


def sensor(table: SyncedTable, **arguments: Any) -> LakebaseSyncedTableSensor:
    return LakebaseSyncedTableSensor(
        **{"task_id": "wait", "synced_table": full_name(table), "poke_interval": 0.1, "timeout": 10, **arguments}
    )


@contextlib.contextmanager
def soon(work: Callable[[], object]) -> Iterator[None]:
    """Do some work in a thread, a little after the block has begun; the block ends after the work."""
    timer = threading.Timer(0.3, work)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@pytest.fixture(params=[False, True], ids=["in the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_version_is_waited_for_until_someone_syncs_it(world: World, deferrable: bool) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    version = world.publish(source, {"id": [1, 2]})
    with soon(lambda: world.refresh(table)):
        run(sensor(table, version=str(version), deferrable=deferrable))
    assert world.version(table) == version


def test_a_sync_that_began_later_is_waited_for(world: World, deferrable: bool) -> None:
    table = world.settled(world.source({"id": [1]}))
    run(sensor(table, newer_than="2026-01-01T00:00:00Z", deferrable=deferrable))
    now = datetime.now(UTC)
    with soon(lambda: world.refresh(table)):
        run(sensor(table, newer_than=now, deferrable=deferrable))
    status = world.client.postgres.get_synced_table(str(table.name)).status
    assert status and status.last_sync and status.last_sync.sync_start_time
    assert status.last_sync.sync_start_time.ToDatetime(UTC) > now


def test_a_version_that_is_served_is_there_although_the_pipeline_has_failed_since(
    world: World, deferrable: bool
) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    world.publish(source, {"id": [1, 1]})
    world.refresh(table)
    run(sensor(table, version=0, deferrable=deferrable))
    with pytest.raises(AirflowFailException, match="same primary key") as caught:
        run(sensor(table, version=1, deferrable=deferrable))
    assert isinstance(caught.value.__cause__, LakebaseOperationError)


def test_a_sensor_that_may_fail_is_skipped(world: World, deferrable: bool) -> None:
    table = world.settled(world.source({"id": [1, 1]}))
    with pytest.raises(AirflowSkipException):
        run(sensor(table, version=1, deferrable=deferrable, soft_fail=True))


def test_a_pipeline_that_fails_while_it_is_waited_for_fails_the_task(world: World) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    world.emulator.faults.fail_pipelines("no space")
    with soon(lambda: world.refresh(table)), pytest.raises(LakebaseOperationError, match="no space") as caught:
        run(sensor(table, version=1, deferrable=True))
    assert caught.value.retryable
    assert caught.value.resource == table.name


def test_what_is_wrong_is_told_at_once(world: World, deferrable: bool) -> None:
    table = world.settled(world.source({"id": [1]}))
    for arguments, text in (
        ({}, "Neither version nor newer_than is given"),
        ({"version": 1, "newer_than": datetime.now(UTC)}, "version and newer_than are given"),
        ({"newer_than": "yesterday"}, "newer_than is 'yesterday'"),
        ({"version": 1, "synced_table": "orders"}, "synced_table is 'orders'"),
        ({"version": 1, "synced_table": "lake.synced.nothing"}, "synced table id not found"),
    ):
        with pytest.raises(AirflowFailException, match=text):
            run(sensor(table, deferrable=deferrable, **arguments))


@pytest.mark.parametrize("fault", [429, 500, 503, "drop"])
def test_a_poll_that_fails_is_repeated(world: World, fault: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables_poll, "FIRST_BACK_OFF_SECONDS", 0.05)
    table = world.settled(world.source({"id": [1]}))
    if isinstance(fault, int):
        world.emulator.faults.answer("synced_tables", status=fault, retry_after=0)
    else:
        world.emulator.faults.drop("synced_tables")
    trigger = LakebaseSyncedTableSensorTrigger(full_name(table), version=0, poll_interval=0.1)
    assert asyncio.run(first_event(trigger)).payload["status"] == "success"


def test_of_tables_that_are_read_together_a_missing_one_fails_alone(world: World) -> None:
    tables = [full_name(world.settled(world.source({"id": [1]}))) for _ in range(2)]
    names = [tables[0], "lake.synced.nothing", tables[1]]

    async def wait_for_all() -> list[Any]:
        triggers = [LakebaseSyncedTableSensorTrigger(name, version=0, poll_interval=60.0) for name in names]
        return await asyncio.gather(*map(first_event, triggers))

    first, missing, last = (event.payload for event in asyncio.run(wait_for_all()))
    assert (first["status"], last["status"]) == ("success", "success")
    assert missing["error"] == "LakebaseResourceNotFoundError"
    assert missing["facts"]["context"]["resource"] == "synced_tables/lake.synced.nothing"


def test_a_reading_that_is_not_answered_in_time_is_an_error_of_its_table_alone(world: World) -> None:
    names = [str(world.settled(world.source({"id": [1]})).name) for _ in range(3)]
    world.emulator.faults.swallow(names[1].removeprefix("synced_tables/"))
    found = read_tables(LakebaseWorkspaceHook().workspace, names, timeout=0.5)
    assert isinstance(found[names[0]], ReadTable)
    assert isinstance(found[names[1]], LakebaseWorkspaceError)
    assert found[names[1]].retryable  # type: ignore[union-attr]
    assert names[2] not in found
    assert list(read_tables(LakebaseWorkspaceHook().workspace, names[2:], timeout=5)) == names[2:]


class State:
    """What an asset keeps, in place of Airflow's asset_state_store."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str) -> Any:
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


async def versions(trigger: Any, count: int, between: Any = None, *, seconds: float = 5.0) -> list[int]:
    """Return the versions of the first events; call a function, in a thread, after each."""
    found = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), contextlib.aclosing(trigger.run()) as events:
            async for event in events:
                found.append(event.payload["version"])
                if between:
                    await asyncio.to_thread(between)
                if len(found) == count:
                    await asyncio.wait_for(anext(events), 0.6)  # so that it stores what it reported
    return found


def watch(table: SyncedTable, state: State | None) -> Any:
    trigger: Any = through_the_database(LakebaseSyncedTableTrigger(full_name(table), poll_interval=0.1))
    if state:
        trigger.asset_state_store = state
    return trigger


def test_each_new_version_is_an_event_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "STORING_SECONDS", 0.05)
    source = world.source({"id": [1]})
    table = world.settled(source)

    def publish() -> None:
        if (world.version(table) or 0) < 2:
            world.publish(source, {"id": [1]})
            world.refresh(table)

    state = State()
    before = len(world.emulator.requests)
    world.emulator.suspend()
    assert asyncio.run(versions(watch(table, state), 3, publish)) == [0, 1, 2]
    # A restarted triggerer goes on from there.
    assert asyncio.run(versions(watch(table, state), 1, seconds=0.6)) == []
    assert asyncio.run(versions(watch(table, None), 1)) == [2]
    paths = {each.path for each in world.emulator.requests[before:] if each.method == "POST"}
    assert not any("credentials" in path for path in paths)


def test_waiting_leaves_the_endpoint_asleep(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    world.emulator.suspend()
    run(sensor(table, version=0))
    run(sensor(table, newer_than="2026-01-01T00:00:00Z", deferrable=True))
    endpoint = LakebaseWorkspaceHook().get_endpoint()
    assert endpoint.status and endpoint.status.current_state
    assert endpoint.status.current_state.value == "IDLE"


def test_a_watcher_survives_errors(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "STORING_SECONDS", 0.0)
    missing = LakebaseSyncedTableTrigger("lake.synced.later", poll_interval=0.1)
    source = world.source({"id": [1]})
    with soon(lambda: world.settled(source, table="later")):
        assert asyncio.run(versions(missing, 1)) == [0]
    with pytest.raises(LakebaseSettingsError):
        LakebaseSyncedTableTrigger("orders")


def test_a_hundred_sensors_of_one_table_share_one_poll(world: World) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    version = world.publish(source, {"id": [1, 2]})

    async def wait_in_one_triggerer() -> list[Any]:
        arguments = {"synced_table": full_name(table), "version": version, "poll_interval": 0.2}
        waits = [anext(triggers.LakebaseSyncedTableSensorTrigger(**arguments).run()) for _ in range(100)]  # type: ignore[call-overload,arg-type]
        running = [asyncio.ensure_future(each) for each in waits]
        await asyncio.sleep(1)
        await asyncio.to_thread(world.refresh, table)
        return await asyncio.gather(*running)

    before = len(world.emulator.requests)
    events = asyncio.run(wait_in_one_triggerer())
    assert {event.payload["status"] for event in events} == {"success"}
    asked = [each for each in world.emulator.requests[before:] if each.path.endswith(str(table.name))]
    assert len(asked) < 30
