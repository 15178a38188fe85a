"""Synced tables that are due together are read together; each fails, backs off and ends on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable
from airflow_provider_lakebase.exceptions import LakebaseEndpointDisabledError, LakebaseWorkspaceError
from airflow_provider_lakebase.triggers._shared_poll import SharedPolls
from airflow_provider_lakebase.triggers._tables_poll import TableWaiter, _Table

SETTINGS = LakebaseSettings("c", WorkspaceIdentity("https://w.cloud.databricks.com", "oauth-m2m"))


class TablesHook:
    """Answers readings of tables with states by name; an exception is what reading one, or all, gives."""

    def __init__(self, answers: dict[str, list[Any]], seconds: float = 0.0) -> None:
        self.tables, self.seconds = answers, seconds
        self.calls: list[list[str]] = []

    async def read_settings_async(self) -> LakebaseSettings:
        return SETTINGS

    async def _read_synced_tables_async(self, settings: LakebaseSettings, names: Sequence[str]) -> dict[str, Any]:
        self.calls.append(list(names))
        await asyncio.sleep(self.seconds)
        found = {}
        for name in names:
            answers = self.tables[name]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is not None:
                found[name] = answer
        return found


def state(version: int) -> SyncedTable:
    return SyncedTable("", "ONLINE", version=version)


async def wait_for_tables(hook: TablesHook, *names: str, interval: float = 0.05) -> list[Any]:
    polls = SharedPolls.of_running_loop()
    waiting = [polls.wait_for_table(hook, name, lambda table: table.version == 1, interval) for name in names]  # type: ignore[arg-type]
    return await asyncio.gather(*waiting, return_exceptions=True)


def test_tables_that_are_due_together_are_read_together_and_the_poll_ends_with_the_last_waiter(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("airflow_provider_lakebase.triggers._tables_poll.FIRST_GUESS_SECONDS", 0.001)
    hook = TablesHook({"a": [state(0), state(1)], "b": [state(1)], "c": [state(0), state(1)]})

    async def run() -> None:
        polls = SharedPolls.of_running_loop()
        assert [each.version for each in await wait_for_tables(hook, "a", "b", "c", "a", interval=0.2)] == [1] * 4
        assert polls._polls == {}

    asyncio.run(run())
    first, *later = hook.calls
    assert sorted(first) == ["a", "b", "c"]
    assert sorted(sum(later, [])) == ["a", "c"]


def test_a_table_whose_thread_had_no_time_for_it_is_read_at_once():
    hook = TablesHook({"a": [state(1)], "b": [None, state(1)]})

    async def run() -> None:
        async with asyncio.timeout(1):
            await wait_for_tables(hook, "a", "b", interval=60.0)

    asyncio.run(run())
    assert hook.calls[-1] == ["b"]


def test_a_table_that_cannot_be_read_fails_its_waiters_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("airflow_provider_lakebase.triggers._tables_poll.FIRST_BACK_OFF_SECONDS", 0.01)
    gone = LakebaseEndpointDisabledError("gone")
    hook = TablesHook({"a": [LakebaseWorkspaceError("busy"), state(1)], "b": [state(0), gone], "c": [state(1)]})
    a, b, c = asyncio.run(wait_for_tables(hook, "a", "b", "c"))
    assert (a.version, b, c.version) == (1, gone, 1)


def test_a_table_that_fails_time_and_again_is_read_less_and_less_often():
    table = _Table("a", [TableWaiter("a", lambda table: False, 1.0, ready=Future())])  # type: ignore[arg-type]
    pauses = []
    for _ in range(8):
        table.take(LakebaseWorkspaceError("busy"), 0.0)
        table.plan()
        pauses.append(table.due_at)
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    table.take(state(0), 0.0)
    table.plan()
    assert 0.8 <= table.due_at <= 1.0


def test_a_reading_that_takes_long_is_not_shared_by_many():
    names = [str(number) for number in range(8)]
    hook = TablesHook({name: [state(0), state(1)] for name in names}, seconds=0.05)
    asyncio.run(wait_for_tables(hook, *names, interval=0.2))
    assert {len(call) for call in hook.calls[8:]} == {1}  # a tenth of the interval is less than one takes


def test_a_wait_for_a_table_that_is_cancelled_leaves_the_others():
    hook = TablesHook({"a": [state(0)], "b": [state(0)] * 3 + [state(1)]})

    async def run() -> None:
        polls = SharedPolls.of_running_loop()
        left = asyncio.create_task(wait_for_tables(hook, "a"))
        stays = asyncio.create_task(wait_for_tables(hook, "b"))
        await asyncio.sleep(0.02)
        left.cancel()
        async with asyncio.timeout(2):
            assert [each.version for each in await stays] == [1]
        assert polls._polls == {}
        assert "a" not in hook.calls[-1]

    asyncio.run(run())
