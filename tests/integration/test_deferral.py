"""What waits in the triggerer: the triggers on an event loop, as Airflow runs them, and what their tasks make of it."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor
from airflow_provider_lakebase.triggers.endpoint import LakebaseEndpointTrigger


class Task(SimpleNamespace):
    dag_id = "etl"
    run_id = "today"
    task_id = "statement"
    map_index = -1


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


def test_a_sensor_defers_before_it_knocks_and_the_triggerer_wakes_the_endpoint(emulator: LakebaseEmulator):
    emulator.suspend()
    task = LakebaseEndpointSensor(task_id="wait", deferrable=True, poke_interval=1, timeout=60)
    trigger = defer(task)
    assert emulator.state == "IDLE"
    event = asyncio.run(first_event(trigger))
    assert emulator.state == "ACTIVE"
    task.execute_complete(CONTEXT, event.payload)


def test_many_waiters_for_one_endpoint_share_its_readings_and_the_knock(emulator: LakebaseEmulator):
    emulator.suspend()
    emulator.wake_seconds = 1.5
    LakebaseHook().endpoint_status()  # signs in
    calls, logins = len(emulator.calls), len(emulator.logins)

    async def wait() -> list[TriggerEvent]:
        triggers = [LakebaseEndpointTrigger(poll_interval=0.5 + n / 100) for n in range(100)]
        return await asyncio.gather(*map(first_event, triggers))

    assert {event.payload["status"] for event in asyncio.run(wait())} == {"success"}
    assert len(emulator.logins) - logins == 1
    assert len(emulator.calls) - calls <= 5


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
        calls = len(emulator.calls)
        await asyncio.sleep(1)
        assert len(emulator.calls) == calls

    asyncio.run(wait())


def test_a_workspace_that_fails_for_a_while_fails_no_wait(emulator: LakebaseEmulator):
    emulator.suspend()

    async def wait() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(LakebaseEndpointTrigger(wake=False, poll_interval=0.2)))
        await asyncio.sleep(0.5)
        emulator.faults.fail_calls(503, times=20)
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
