"""Run operators that start long-running operations, as workers and triggerers do, and see what they send."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceRefusedError
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook

PROJECT = "projects/demo"


class NoClusters:
    """Branches without data, in place of a PostgreSQL for each, for tests of the control plane."""

    def create(self, cluster: str) -> None:
        """Do nothing, as all others."""

    def copy(self, source: str, target: str, *, time: float | None = None, lsn: str | None = None) -> None: ...

    def delete(self, cluster: str) -> None: ...

    def oldest_time(self, cluster: str) -> float:
        return 0.0

    def current_lsn(self, cluster: str) -> str:
        return "FFFFFFFF/FFFFFFFF"

    def size(self, cluster: str) -> int:
        return 0

    def execute(self, *arguments: Any) -> list[tuple[Any, ...]]:
        return []


class NoComputes:
    """Endpoints that wake and serve nothing."""

    def open(self, endpoint: Any) -> None: ...

    def close(self, endpoint: Any) -> None: ...

    def suspend(self, endpoint: Any) -> None:
        endpoint.move("suspend")

    def wake(self, endpoint: Any) -> None:
        endpoint.move("wake")
        endpoint.move("activate")


@contextmanager
def without_data(emulator: LakebaseEmulator) -> Iterator[None]:
    """Give new branches no data; remove them before the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator._state, "clusters", NoClusters())
        patch.setattr(emulator._state, "computes", NoComputes())
        yield


def branches_and_snapshots() -> set[str]:
    """Return the names of what a test may leave behind."""
    hook = LakebaseWorkspaceHook("lakebase_admin")
    return {str(each.name) for each in (*hook.list_branches(show_deleted=True), *hook.list_snapshots())}


def remove_all(emulator: LakebaseEmulator, but: set[str]) -> None:
    """Remove faults, branches and snapshots, but for those that were there before the test."""
    emulator.faults.clear()
    emulator.operation_seconds = 0
    hook = LakebaseWorkspaceHook("lakebase_admin")
    # Children go before their parents.
    while left := [each for each in hook.list_branches(show_deleted=True) if each.name not in but]:
        for branch in left:
            if branch.status and branch.status.is_protected:
                hook.protect_branch(str(branch.name), protected=False)
            with suppress(LakebaseWorkspaceRefusedError):
                hook.delete_branch(str(branch.name), purge=True)
    for snapshot in hook.list_snapshots():
        if snapshot.name not in but:
            hook.delete_snapshot(str(snapshot.name))


class Store:
    """What a task instance keeps for its next try, in place of Airflow's task_state_store."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


class Task(SimpleNamespace):
    """A task instance, for operators that ask for its names and links."""

    dag_id = "etl"
    run_id = "manual__2026-11-28"
    task_id = "branch"
    map_index = -1
    try_number = 1

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep the links, as Airflow 2 does."""
        self.task._lakebase_pages = value


def context(store: Store | None = None, **further: Any) -> Any:
    """Return the context of a try: with a store as on Airflow 3.3, without as before."""
    return {"ti": Task(task=SimpleNamespace()), **({"task_state_store": store} if store else {}), **further}


def run(operator: Any, context: Any = None) -> Any:
    """Run a task to its end, as a worker and a triggerer do together."""
    context = {} if context is None else context
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        return resume(operator, deferred, context)


def resume(operator: Any, deferred: TaskDeferred, context: Any) -> Any:
    """Run the trigger of a deferred task, and the rest of the task."""
    while True:
        event = asyncio.run(first_event(deferred.trigger))
        assert not deferred.kwargs  # dag.test() of Airflow 3 drops them
        try:
            return getattr(operator, deferred.method_name)(context, json.loads(json.dumps(event.payload)))
        except TaskDeferred as again:
            deferred = again


def through_the_database(trigger: BaseTrigger) -> BaseTrigger:
    """Return the trigger as a triggerer gets it: by class path and JSON."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    made: BaseTrigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    return made


async def first_event(trigger: BaseTrigger) -> TriggerEvent:
    async for event in through_the_database(trigger).run():
        return event
    raise AssertionError("the trigger ended without an event")


class Changes:
    """The requests that changed something in the workspace since it was made, those refused left out."""

    def __init__(self, emulator: LakebaseEmulator) -> None:
        self._emulator = emulator
        self._first = len(emulator.requests)

    @property
    def seen(self) -> list[str]:
        """Methods, each with the last part of its path."""
        changing = ("POST", "PATCH", "DELETE")
        return [
            f"{each.method} {each.path.rsplit('/', 1)[1]}"
            for each in self._emulator.requests[self._first :]
            if each.method in changing and each.status == 200 and f"/{PROJECT}" in each.path
        ]


class Died(BaseException):
    """In place of a worker's end by SIGKILL."""


@contextmanager
def dying(where: str) -> Iterator[None]:
    """Let a worker die when it begins to wait: after its request was accepted."""

    def die(*args: Any, **kwargs: Any) -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(where, die)
        yield
