"""Who shares a poll: the waiters of one event loop, for one endpoint, with one identity."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.workspace.operations import Operation
from airflow_provider_lakebase.core.workspace.plans import Pending
from airflow_provider_lakebase.exceptions import LakebaseEndpointDisabledError, LakebaseWorkspaceError
from airflow_provider_lakebase.triggers._shared_poll import SharedPolls

IDENTITY = WorkspaceIdentity("https://w.cloud.databricks.com", "oauth-m2m")
SETTINGS = LakebaseSettings("c", IDENTITY, ResourceName.parse("projects/p/branches/b/endpoints/e"))


class Hook:
    """Answers readings with one state or error after another, the last one for ever."""

    def __init__(self, *answers: str | Exception, settings: LakebaseSettings = SETTINGS) -> None:
        self.answers, self.settings, self.readings = list(answers), settings, 0

    async def read_settings_async(self) -> LakebaseSettings:
        return self.settings

    async def endpoint_status_async(self, settings: LakebaseSettings, *, timeout: float) -> Any:
        self.readings += 1
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(state=answer)


async def wait(*hooks: Any) -> None:
    polls = SharedPolls.of_running_loop()
    await asyncio.gather(*(polls.wait_until_ready(hook, wake=False, interval=0.01) for hook in hooks))


def test_waiters_share_readings_and_the_last_one_ends_the_poll():
    hook = Hook("IDLE", "INIT", "ACTIVE")

    async def run() -> None:
        await wait(hook, hook, hook)
        assert hook.readings == 3
        assert SharedPolls.of_running_loop()._polls == {}

    asyncio.run(run())


def test_other_endpoints_and_identities_are_polled_on_their_own():
    elsewhere = replace(SETTINGS, endpoint=ResourceName.parse("projects/p/branches/b/endpoints/f"))
    someone = replace(SETTINGS, identity=WorkspaceIdentity("https://other.cloud.databricks.com", "oauth-m2m"))
    hooks = [Hook("ACTIVE"), Hook("ACTIVE", settings=elsewhere), Hook("ACTIVE", settings=someone)]
    asyncio.run(wait(*hooks))
    assert [hook.readings for hook in hooks] == [1, 1, 1]


def test_an_endpoint_is_polled_for_its_state_and_for_its_changes_at_once():
    class WorkspaceHook(Hook):
        async def poll_async(self, settings: LakebaseSettings, pending: Pending) -> Operation:
            return Operation("", is_done=True)

    async def run() -> None:
        polls, state, changes = SharedPolls.of_running_loop(), Hook("IDLE", "ACTIVE"), WorkspaceHook("")
        pending = Pending(str(SETTINGS.endpoint))
        await asyncio.gather(wait(state), polls.wait_until_over(changes, pending))  # type: ignore[arg-type]
        assert state.readings == 2

    asyncio.run(run())


def test_a_transient_error_is_retried_and_any_other_fails_each_waiter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("airflow_provider_lakebase.triggers._shared_poll.MAX_BACK_OFF_SECONDS", 0.01)
    asyncio.run(wait(Hook(LakebaseWorkspaceError("busy"), "ACTIVE")))
    hook = Hook("IDLE", LakebaseEndpointDisabledError("disabled"))

    async def run() -> None:
        polls = SharedPolls.of_running_loop()
        waiting = [polls.wait_until_ready(hook, wake=False, interval=0.01) for _ in range(3)]  # type: ignore[arg-type]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [LakebaseEndpointDisabledError] * 3

    asyncio.run(run())


def test_a_reading_is_shared_up_to_its_age():
    async def run() -> None:
        polls, hook = SharedPolls.of_running_loop(), Hook("IDLE")
        for max_age, readings in ((0.0, 1), (60.0, 1), (0.0, 2)):
            await polls.read_status(hook, SETTINGS, max_age=max_age)  # type: ignore[arg-type]
            assert hook.readings == readings

    asyncio.run(run())


def test_an_event_loop_shares_nothing_with_another_and_its_polls_end_with_it():
    async def current() -> SharedPolls:
        assert SharedPolls.of_running_loop() is SharedPolls.of_running_loop()
        return SharedPolls.of_running_loop()

    first, second = asyncio.run(current()), asyncio.run(current())
    assert first is not second
    assert first not in SharedPolls._by_loop.values()


def test_loops_of_other_threads_may_come_while_closed_ones_are_dropped(monkeypatch: pytest.MonkeyPatch):
    by_loop: dict[Any, Any] = {}
    monkeypatch.setattr(SharedPolls, "_by_loop", by_loop)

    class Other:
        def is_closed(self) -> bool:
            by_loop[object()] = SharedPolls()  # as another thread may do at this moment
            return True

    by_loop[Other()] = SharedPolls()

    async def run() -> SharedPolls:
        return SharedPolls.of_running_loop()

    assert asyncio.run(run()) in by_loop.values()
    assert len(by_loop) == 2
