"""Endpoints and snapshots as tasks: each operator in each situation that a workspace or a dying worker brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from _operations import PROJECT, Changes, Store, context, dying, first_event, resume, run
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_lakebase.core.workspace import plans
from airflow_provider_lakebase.core.workspace.endpoint_changes import UpdateEndpoint
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import (
    LakebaseConflictError,
    LakebaseOperationError,
    LakebaseOperationTimeoutError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceRefusedError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators.branch import LakebaseCreateBranchOperator
from airflow_provider_lakebase.operators.endpoint import (
    LakebaseCreateEndpointOperator,
    LakebaseDeleteEndpointOperator,
    LakebaseRestoreEndpointOperator,
    LakebaseUpdateEndpointOperator,
)
from airflow_provider_lakebase.operators.snapshot import (
    LakebaseCreateSnapshotOperator,
    LakebaseDeleteSnapshotOperator,
)

PRODUCTION = f"{PROJECT}/branches/production"
PRIMARY = f"{PRODUCTION}/endpoints/primary"
READER = f"{PRODUCTION}/endpoints/reader"
SNAPSHOT = f"{PROJECT}/snapshots/before"
WAIT = "airflow_provider_lakebase.operators._operation.wait_for"
SECONDS = 0.08
FORMER = {"endpoint": PRIMARY, "max_cu": 8.0, "suspend_timeout": 300}


@pytest.fixture
def workspace(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LakebaseEmulator]:
    """The emulator, whose operations take time; afterwards everything is as it was."""
    monkeypatch.setattr(plans, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(plans, "LONGEST_PAUSE_SECONDS", 0.1)
    hook = LakebaseWorkspaceHook("lakebase_admin")
    former = settings(hook)
    emulator.operation_seconds = SECONDS
    yield emulator
    emulator.faults.clear()
    emulator.operation_seconds = 0
    hook.update_endpoint(PRIMARY, **former)
    hook.delete_endpoint(READER)
    hook.delete_snapshot("before")
    hook.delete_branch("back", purge=True)


@pytest.fixture
def hook() -> LakebaseWorkspaceHook:
    return LakebaseWorkspaceHook()


def settings(hook: LakebaseWorkspaceHook, endpoint: str = PRIMARY) -> dict[str, Any]:
    status = hook.get_endpoint(endpoint).status
    assert status is not None
    suspend = status.suspend_timeout_duration
    return {
        "min_cu": status.autoscaling_limit_min_cu,
        "max_cu": status.autoscaling_limit_max_cu,
        "suspend_timeout": suspend.ToSeconds() if suspend else None,
        "disabled": bool(status.disabled),
    }


def update(**arguments: Any) -> LakebaseUpdateEndpointOperator:
    return LakebaseUpdateEndpointOperator(**{"task_id": "update", "max_cu": 4, "suspend_timeout": "600", **arguments})


def restore(**arguments: Any) -> LakebaseRestoreEndpointOperator:
    return LakebaseRestoreEndpointOperator(**{"task_id": "restore", "former": FORMER, **arguments})


def create(**arguments: Any) -> LakebaseCreateEndpointOperator:
    return LakebaseCreateEndpointOperator(
        **{"task_id": "create", "branch_id": "production", "endpoint_id": "reader", **arguments}
    )


def delete(**arguments: Any) -> LakebaseDeleteEndpointOperator:
    return LakebaseDeleteEndpointOperator(**{"task_id": "delete", "endpoint": READER, **arguments})


def take(**arguments: Any) -> LakebaseCreateSnapshotOperator:
    return LakebaseCreateSnapshotOperator(
        **{"task_id": "take", "snapshot_id": "before", "source": "production", "ttl": 86400, **arguments}
    )


def drop(**arguments: Any) -> LakebaseDeleteSnapshotOperator:
    return LakebaseDeleteSnapshotOperator(**{"task_id": "drop", "snapshot_id": "before", **arguments})


def is_updated(hook: LakebaseWorkspaceHook) -> bool:
    found = settings(hook)
    return (found["max_cu"], found["suspend_timeout"]) == (4, 600)


def is_restored(hook: LakebaseWorkspaceHook) -> bool:
    found = settings(hook)
    return (found["max_cu"], found["suspend_timeout"]) == (8, 300)


def has_reader(hook: LakebaseWorkspaceHook) -> bool:
    return READER in [each.name for each in hook.list_endpoints("production")]


def has_snapshot(hook: LakebaseWorkspaceHook) -> bool:
    return SNAPSHOT in [each.name for each in hook.list_snapshots()]


@dataclass(frozen=True)
class Case:
    """An operator, what it needs and changes, and the operation and resource that are its own."""

    make: Callable[..., Any]
    change: str
    method: str
    resource: str
    is_done: Callable[[LakebaseWorkspaceHook], bool]
    prepare: Callable[[LakebaseWorkspaceHook], object] = lambda hook: None

    def is_once(self, changes: Changes, kept: Store | None) -> bool:
        """Return whether two tries have changed it once.

        Without a store, an update that ends between the second try's look and its request is sent again, and changes
        nothing.
        """
        sent = changes.seen
        return sent == [self.change] or (kept is None and self.make in (update, restore) and sent == [self.change] * 2)


CASES = {
    "update": Case(update, "PATCH primary", "update_endpoint", PRIMARY, is_updated),
    "restore": Case(
        restore,
        "PATCH primary",
        "update_endpoint",
        PRIMARY,
        is_restored,
        lambda hook: hook.update_endpoint(PRIMARY, max_cu=4, suspend_timeout=600),
    ),
    "create": Case(create, "POST endpoints", "create_endpoint", READER, has_reader),
    "delete": Case(
        delete,
        "DELETE reader",
        "delete_endpoint",
        READER,
        lambda hook: not has_reader(hook),
        lambda hook: hook.create_endpoint("production", "reader"),
    ),
    "snapshot": Case(take, "POST snapshots", "create_snapshot", SNAPSHOT, has_snapshot),
    "delete snapshot": Case(
        drop,
        "DELETE before",
        "delete_snapshot",
        SNAPSHOT,
        lambda hook: not has_snapshot(hook),
        lambda hook: hook.create_snapshot("before", "production", ttl=86400),
    ),
}


@pytest.fixture(params=CASES, ids=lambda name: str(name))
def case(request: pytest.FixtureRequest, workspace: LakebaseEmulator, hook: LakebaseWorkspaceHook) -> Case:
    found = CASES[request.param]
    workspace.operation_seconds = 0
    found.prepare(hook)
    workspace.operation_seconds = SECONDS
    return found


@pytest.fixture(params=[False, True], ids=["worker", "triggerer"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# ── each operator, in each situation ──


def test_it_runs_with_a_bare_context_and_a_second_run_changes_nothing(
    case: Case, deferrable: bool, workspace: Any, hook: Any
):
    changes, sessions = Changes(workspace), len(workspace.logins)
    run(case.make(deferrable=deferrable), {})
    run(case.make(deferrable=deferrable), {})
    assert changes.seen == [case.change]
    assert case.is_done(hook)
    assert len(workspace.logins) == sessions


@pytest.mark.parametrize("store", [Store, lambda: None], ids=["3.3", "before 3.3"])
def test_a_try_that_died_after_its_request_is_taken_up(case: Case, store: Any, workspace: Any, hook: Any):
    changes, kept = Changes(workspace), store()
    with dying(WAIT):
        case.make().execute(context(kept))
    run(case.make(), context(kept))
    assert case.is_once(changes, kept)
    assert case.is_done(hook)
    assert kept is None or kept.values == {}


def test_a_triggerer_that_died_is_replaced(case: Case, workspace: Any, hook: Any):
    changes, operator = Changes(workspace), case.make(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(Store()))

    async def die() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first_event(deferred.value.trigger), 0.03)

    asyncio.run(die())
    resume(operator, deferred.value, context(Store()))
    assert changes.seen == [case.change]
    assert case.is_done(hook)


def test_an_identity_without_permission_is_refused_with_the_remedy(
    case: Case, deferrable: bool, workspace: Any, connect_as: Any
):
    stranger = connect_as(workspace.add_principal("stranger", can_use_project=False))
    changes = Changes(workspace)
    with pytest.raises(AirflowFailException, match="Grant it") as failed:
        run(case.make(lakebase_conn_id=stranger, deferrable=deferrable))
    error = failed.value.__cause__
    assert isinstance(error, LakebaseWorkspaceAccessError)
    assert (error.conn_id, error.resource, error.error_code) == (stranger, case.resource, "PERMISSION_DENIED")
    assert changes.seen == []


@pytest.mark.parametrize(
    "operator",
    [
        update(endpoint=f"{PROJECT}/branches/nothing"),
        create(branch_id="nothing"),
        delete(endpoint=f"{PROJECT}/branches/nothing/endpoints/reader"),
        take(source="nothing"),
        drop(snapshot_id="projects/nothing/snapshots/before"),
    ],
    ids=lambda operator: operator.task_id,
)
def test_a_missing_parent_is_named(operator: Any, workspace: Any):
    with pytest.raises(AirflowFailException, match="does not exist") as failed:
        run(operator)
    error = failed.value.__cause__
    assert isinstance(error, LakebaseResourceNotFoundError)
    assert "nothing" in error.resource


def test_a_conflict_that_does_not_end_is_the_error_of_the_task(case: Case, deferrable: bool, workspace: Any):
    workspace.faults.answer(case.change.split()[1], status=409, times=500)
    with pytest.raises(LakebaseConflictError, match="Try again") as failed:
        run(case.make(deferrable=deferrable, operation_timeout=0.3))
    assert failed.value.retryable


@pytest.mark.parametrize(("part", "fault"), [("request", 429), ("request", 503), ("poll", "drop")])
def test_a_passing_failure_changes_nothing(case: Case, part: str, fault: int | str, workspace: Any, hook: Any):
    where = "operations" if part == "poll" else case.change.split()[1]
    if isinstance(fault, int):
        workspace.faults.answer(where, status=fault, times=2, retry_after=0)
    else:
        workspace.faults.drop(where)
    changes = Changes(workspace)
    run(case.make())
    assert changes.seen == [case.change]
    assert case.is_done(hook)


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "BAD_REQUEST"])
def test_an_operation_that_fails_raises_its_error(case: Case, code: str, deferrable: bool, workspace: Any):
    workspace.faults.fail_operations(case.method, error_code=code, message="the disk is full")
    with pytest.raises((LakebaseOperationError, AirflowFailException), match="the disk is full") as failed:
        run(case.make(deferrable=deferrable))
    error = failed.value if code == "INTERNAL_ERROR" else failed.value.__cause__
    assert isinstance(error, LakebaseOperationError)
    assert (error.conn_id, error.resource, error.error_code) == ("lakebase_default", case.resource, code)
    assert "/operations/" in error.operation
    assert error.hint


def test_a_retry_after_a_failed_operation_begins_anew(case: Case, workspace: Any, hook: Any):
    workspace.faults.fail_operations(case.method)
    store = Store()
    with pytest.raises(LakebaseOperationError):
        run(case.make(), context(store))
    run(case.make(), context(store))
    assert case.is_done(hook)


@pytest.mark.parametrize("store", [Store, lambda: None], ids=["3.3", "before 3.3"])
def test_an_operation_that_outlasts_its_deadline_is_taken_up_by_a_retry(
    case: Case, deferrable: bool, store: Any, workspace: Any, hook: Any
):
    workspace.operation_seconds = 0.5
    changes, kept = Changes(workspace), store()
    with pytest.raises(LakebaseOperationTimeoutError, match="a retry waits for it") as failed:
        run(case.make(deferrable=deferrable, operation_timeout=0.2), context(kept))
    assert failed.value.retryable
    assert (failed.value.conn_id, failed.value.resource) == ("lakebase_default", case.resource)
    run(case.make(deferrable=deferrable), context(kept))
    assert case.is_once(changes, kept)
    assert case.is_done(hook)


# ── update and restore ──


def test_the_former_values_of_what_is_changed_are_returned(deferrable: bool, workspace: Any, hook: Any):
    former = settings(hook)
    result = run(update(deferrable=deferrable))
    assert result == {"endpoint": PRIMARY, "max_cu": former["max_cu"], "suspend_timeout": former["suspend_timeout"]}
    run(restore(former=result, deferrable=deferrable))
    assert settings(hook) == former


def test_what_was_not_changed_is_not_restored(workspace: Any, hook: Any):
    result = run(update(suspend_timeout=None))
    hook.update_endpoint(suspend_timeout=900)
    run(restore(former=result))
    assert settings(hook)["suspend_timeout"] == 900


def test_an_endpoint_that_never_suspends_is_restored(workspace: Any, hook: Any):
    hook.update_endpoint(no_suspension=True)
    result = run(update())
    assert result["no_suspension"] is True
    run(restore(former=result))
    assert settings(hook)["suspend_timeout"] is None


def test_an_endpoint_is_disabled_and_enabled(workspace: Any, hook: Any):
    result = run(update(max_cu=None, suspend_timeout=None, disabled=True))
    assert (result, settings(hook)["disabled"]) == ({"endpoint": PRIMARY, "disabled": False}, True)
    run(restore(former=result))
    assert settings(hook)["disabled"] is False
    assert LakebaseHook().get_first("SELECT 1") == (1,)


def test_a_retry_still_knows_the_former_values(workspace: Any, hook: Any):
    former, store = settings(hook), Store()
    with dying(WAIT):
        update().execute(context(store))
    workspace.operation_seconds = 0
    hook.update_endpoint(suspend_timeout=600)  # waits until the request of the try that died holds
    result = run(update(), context(store))
    assert (result["max_cu"], result["suspend_timeout"]) == (former["max_cu"], former["suspend_timeout"])


@pytest.mark.parametrize("endpoint", [READER, PRIMARY], ids=["another", "the same"])
def test_a_try_that_failed_tells_no_later_one_the_former_values(endpoint: str, workspace: Any, hook: Any):
    store = Store()
    workspace.faults.fail_operations("update_endpoint")
    with pytest.raises(LakebaseOperationError):
        run(update(max_cu=6), context(store))
    workspace.faults.clear()
    if endpoint == READER:
        hook.create_endpoint("production", "reader", max_cu=2)
    else:
        hook.update_endpoint(endpoint, max_cu=2)
    assert run(update(endpoint=endpoint, suspend_timeout=None), context(store)) == {"endpoint": endpoint, "max_cu": 2}


def test_an_update_that_someone_else_has_undone_is_made_again(
    deferrable: bool, workspace: Any, hook: Any, task_log: Callable[[], str]
):
    former, store = settings(hook), Store()
    with dying(WAIT):
        update().execute(context(store))
    workspace.operation_seconds = 0
    hook.update_endpoint(max_cu=2, suspend_timeout=900)
    changes = Changes(workspace)
    result = run(update(deferrable=deferrable), context(store))
    assert is_updated(hook)
    assert changes.seen == ["PATCH primary"]
    assert (result["max_cu"], result["suspend_timeout"]) == (former["max_cu"], former["suspend_timeout"])
    assert "someone else has changed them since" in task_log()


def test_a_resource_that_settles_slowly_defers_a_task_less_and_less_often(workspace: Any):
    kept, pauses = context(Store()), []
    operator = update(deferrable=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpdateEndpoint, "advance", lambda *_: plans.Pending(PRIMARY))
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(kept)
        for _ in range(3):
            trigger: Any = deferred.value.trigger
            pauses.append(trigger.pause)
            event = asyncio.run(first_event(trigger)).payload
            with pytest.raises(TaskDeferred) as deferred:
                operator.execute_complete(kept, event)
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1]


def test_without_a_store_a_retry_says_that_it_does_not_know_them(workspace: Any, task_log: Callable[[], str]):
    workspace.operation_seconds = 0
    second = context()
    second["ti"].try_number = 2
    with dying(WAIT):
        update().execute(context())
    result = run(update(), second)
    assert result == {"endpoint": PRIMARY, "max_cu": None, "suspend_timeout": None}
    assert "its former values are not known" in task_log()
    with pytest.raises(AirflowFailException, match="former max_cu and suspend_timeout of .* is not known"):
        run(restore(former=result))


def test_without_a_store_a_retry_that_makes_the_change_knows_them(workspace: Any, hook: Any):
    second = context()
    second["ti"].try_number = 2
    assert run(update(), second)["suspend_timeout"] == 300


@pytest.mark.parametrize("make", [update, create, take], ids=["update", "create", "snapshot"])
def test_a_task_that_is_cleared_after_a_refusal_finds_no_note(make: Any, workspace: Any, connect_as: Any):
    principal, store = workspace.add_principal("reader"), Store()
    workspace._state.projects.require(PROJECT).access.grant(principal, "CAN_USE")
    reader = connect_as(principal)
    with pytest.raises(AirflowFailException, match="Can Manage"):
        run(make(lakebase_conn_id=reader), context(store))
    assert set(store.get("lakebase")) == {"planned"}


def test_values_that_are_no_settings_are_not_restored(workspace: Any):
    with pytest.raises(AirflowFailException, match="size is no setting of an endpoint"):
        run(restore(former={"endpoint": PRIMARY, "size": 3}))


@pytest.mark.parametrize("endpoint", [None, "", f"{PROJECT}/branches/production"])
def test_an_endpoint_that_is_not_named_in_full_is_not_deleted(endpoint: Any, workspace: Any, hook: Any):
    changes = Changes(workspace)
    with pytest.raises(AirflowFailException, match="is not the name of an endpoint"):
        run(delete(endpoint=endpoint))
    with pytest.raises(LakebaseSettingsError):
        hook.delete_endpoint(endpoint)
    assert changes.seen == []


@pytest.mark.parametrize("former", [None, {}, "{}", {"endpoint": None, "max_cu": 4}])
def test_without_former_values_nothing_is_restored(former: Any, workspace: Any):
    before = len(workspace.requests)
    with pytest.raises(AirflowFailException, match="no former values"):
        run(restore(former=former))
    assert len(workspace.requests) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_cu": None, "suspend_timeout": None}, "No setting of the endpoint is given"),
        ({"max_cu": 128}, "from 0.5 to 64"),
        ({"max_cu": "many"}, "a number"),
        ({"min_cu": 1, "max_cu": 32}, "at most 16 more"),
        ({"suspend_timeout": 30}, "from 60 s to 7 days"),
        ({"no_suspension": True}, "Give one of them"),
        ({"endpoint": "Primary!"}, "is not the ID"),
        ({"endpoint": 7}, "is not the ID"),
        ({"endpoint": ""}, "is not the ID"),
        ({"endpoint": 0}, "is not the ID"),
        ({"endpoint": f"{PRODUCTION}/endpoints/"}, "is not the ID"),
        ({"project": "other"}, f"{PRODUCTION} does not belong to projects/other"),
        ({"project": "other", "endpoint": PRIMARY}, f"{PRODUCTION} does not belong to projects/other"),
    ],
)
def test_wrong_settings_fail_before_anything_is_sent(arguments: Any, words: str, workspace: LakebaseEmulator):
    before = len(workspace.requests)
    with pytest.raises(AirflowFailException, match=words) as failed:
        run(update(**arguments))
    assert isinstance(failed.value.__cause__, LakebaseSettingsError)
    assert len(workspace.requests) == before


@pytest.mark.parametrize(
    ("make", "arguments", "parent"),
    [
        ("create", {"branch_id": "other", "endpoint_id": READER}, f"{PROJECT}/branches/other"),
        ("create", {"project": "other", "branch_id": PRODUCTION}, "projects/other"),
        ("delete", {"project": "other"}, "projects/other"),
        ("restore", {"project": "other"}, "projects/other"),
        ("drop", {"project": "other", "snapshot_id": SNAPSHOT}, "projects/other"),
    ],
)
def test_a_resource_of_another_place_is_refused(make: str, arguments: Any, parent: str, workspace: LakebaseEmulator):
    before = len(workspace.requests)
    with pytest.raises(AirflowFailException, match=f"does not belong to {parent}"):
        run(globals()[make](**arguments))
    assert len(workspace.requests) == before


def test_a_size_that_does_not_fit_the_present_one_changes_nothing(workspace: Any):
    changes = Changes(workspace)
    with pytest.raises(AirflowFailException, match="at most 16 more"):
        run(update(max_cu=64))
    assert changes.seen == []


# ── read-only endpoints ──


def test_a_read_only_endpoint_serves_sessions_that_read(workspace: Any):
    result = run(create(min_cu="0.5", max_cu=1))
    assert result == {"endpoint": READER, "host": result["host"], "created": True}
    assert LakebaseHook(endpoint=READER).get_first("SELECT 1") == (1,)
    assert run(create())["created"] is False


def test_a_retry_knows_the_endpoint_of_an_earlier_try(workspace: Any):
    store = Store()
    with dying(WAIT):
        create().execute(context(store))
    assert run(create(), context(store))["created"] is True


def test_an_endpoint_of_other_settings_is_not_used(workspace: Any):
    run(create(max_cu=2))
    with pytest.raises(
        AirflowFailException, match=r"its max_cu is 2\.?0?, not 1.*LakebaseUpdateEndpointOperator"
    ) as failed:
        run(create(max_cu=1))
    assert isinstance(failed.value.__cause__, LakebaseResourceExistsError)


def test_an_endpoint_of_another_suspension_is_not_used(workspace: Any, hook: Any):
    run(create(suspend_timeout=600))
    with pytest.raises(AirflowFailException, match=r"its suspend_timeout is 600, not no_suspension=True"):
        run(create(no_suspension=True))
    hook.update_endpoint(READER, no_suspension=True)
    with pytest.raises(AirflowFailException, match=r"its no_suspension is True, not suspend_timeout=600"):
        run(create(suspend_timeout=600))


def test_a_read_write_endpoint_is_neither_used_nor_deleted(workspace: Any):
    with pytest.raises(AirflowFailException, match="not ENDPOINT_TYPE_READ_ONLY"):
        run(create(endpoint_id="primary"))
    with pytest.raises(AirflowFailException) as failed:
        run(delete(endpoint=PRIMARY))
    assert isinstance(failed.value.__cause__, LakebaseWorkspaceRefusedError)


# ── snapshots ──


def test_a_branch_of_a_snapshot_has_the_rows_of_its_time(workspace: Any, hook: Any):
    table = LakebaseHook("lakebase_admin")
    table.run("DROP TABLE IF EXISTS taken; CREATE TABLE taken AS SELECT 1 AS n")
    result = run(take())
    assert (result["snapshot"], result["source"], result["created"]) == (SNAPSHOT, PRODUCTION, True)
    assert result["expire_time"]
    table.run("UPDATE taken SET n = 2")
    branch = run(
        LakebaseCreateBranchOperator(task_id="back", branch_id="back", ttl=3600, source_snapshot=result["snapshot"])
    )
    assert LakebaseHook("lakebase_admin", endpoint=branch["endpoint"]).get_first("SELECT n FROM taken") == (1,)
    table.run("DROP TABLE taken")
    with suppress(AirflowFailException):
        run(drop())


def test_a_snapshot_has_by_default_the_branch_of_the_connection_and_the_name_of_the_task(workspace: Any, hook: Any):
    result = run(take(snapshot_id=None, source=None), context(Store()))
    try:
        assert result["source"] == PRODUCTION
        assert result["snapshot"].startswith(f"{PROJECT}/snapshots/etl-branch-")
    finally:
        hook.delete_snapshot(result["snapshot"])


def test_a_snapshot_that_may_be_of_another_moment_is_used_with_a_warning(
    workspace: LakebaseEmulator, hook: LakebaseWorkspaceHook, caplog: pytest.LogCaptureFixture
) -> None:
    moment = datetime.now(UTC)
    run(take(source_time=moment), context(Store()))
    assert "does not tell of what moment" not in caplog.text
    assert run(take(source_time=moment), context(Store()))["created"] is False
    assert "does not tell of what moment" in caplog.text
    with pytest.raises(AirflowFailException, match="so it has no data of") as failed:
        run(take(source_time=moment + timedelta(hours=1)))
    assert isinstance(failed.value.__cause__, LakebaseResourceExistsError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ttl": None}, "No expiry is given"),
        ({"snapshot_id": "Before!"}, "is not the ID of a snapshot"),
        ({"snapshot_id": 0}, "is not the ID of a snapshot"),
        ({"source": 0}, "is not the ID of a branch"),
        ({"source_time": "noon"}, "ISO 8601"),
        ({"snapshot_id": None}, "no task instance to derive snapshot_id from"),
    ],
)
def test_a_wrong_snapshot_fails_before_anything_is_sent(arguments: Any, words: str, workspace: LakebaseEmulator):
    before = len(workspace.requests)
    with pytest.raises(AirflowFailException, match=words):
        run(take(**arguments))
    assert len(workspace.requests) == before
