"""Branches as tasks: each operator in each situation that a workspace, a worker or a triggerer can bring about."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from _operations import (
    PROJECT,
    Changes,
    Died,
    Store,
    branches_and_snapshots,
    context,
    dying,
    first_event,
    remove_all,
    resume,
    run,
    without_data,
)
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_lakebase.core.workspace import operations, plans
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import (
    LakebaseAuthenticationError,
    LakebaseConflictError,
    LakebaseError,
    LakebaseLimitError,
    LakebaseOperationError,
    LakebaseOperationTimeoutError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceRefusedError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators.branch import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
    LakebaseResetBranchOperator,
)

BRANCH = f"{PROJECT}/branches/try-it"
PRODUCTION = f"{PROJECT}/branches/production"
WAIT = "airflow_provider_lakebase.operators._operation.wait_for"
SECONDS = 0.08
"""How long operations take."""


@pytest.fixture
def real(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LakebaseEmulator]:
    """The emulator, whose operations take time; branches are removed after the test."""
    monkeypatch.setattr(plans, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(plans, "LONGEST_PAUSE_SECONDS", 0.1)
    before = branches_and_snapshots()
    emulator.operation_seconds = SECONDS
    yield emulator
    remove_all(emulator, before)


@pytest.fixture
def workspace(real: LakebaseEmulator) -> Iterator[LakebaseEmulator]:
    """The same, with branches that have no data, so that hundreds of them cost nothing."""
    before = branches_and_snapshots()
    with without_data(real):
        yield real
        remove_all(real, before)


@pytest.fixture
def branches() -> LakebaseWorkspaceHook:
    return LakebaseWorkspaceHook()


def create(**arguments: Any) -> LakebaseCreateBranchOperator:
    defaults = {"task_id": "create", "branch_id": "try-it", "ttl": 3600, "wait_for_login": False}
    return LakebaseCreateBranchOperator(**{**defaults, **arguments})


def delete(**arguments: Any) -> LakebaseDeleteBranchOperator:
    return LakebaseDeleteBranchOperator(**{"task_id": "delete", "branch_id": "try-it", **arguments})


def reset(**arguments: Any) -> LakebaseResetBranchOperator:
    return LakebaseResetBranchOperator(**{"task_id": "reset", "branch_id": "try-it", **arguments})


@dataclass(frozen=True)
class Case:
    """An operator: what it needs, what it changes, and a part of the method and resource of its operation."""

    make: Callable[..., Any]
    needs_branch: bool
    changes: list[str]
    method: str
    ends_with_branch: bool

    def prepare(self, emulator: LakebaseEmulator) -> None:
        if self.needs_branch:
            emulator.create_branch("try-it", source=PRODUCTION)

    def is_done(self, hook: LakebaseWorkspaceHook) -> bool:
        return (BRANCH in [each.name for each in hook.list_branches()]) is self.ends_with_branch


CASES = {
    "create": Case(create, False, ["POST branches"], "create_branch", True),
    "delete": Case(delete, True, ["DELETE try-it"], "delete_branch", False),
    "reset": Case(reset, True, ["DELETE try-it", "POST branches"], "delete_branch", True),
}


@pytest.fixture(params=CASES, ids=lambda name: str(name))
def case(request: pytest.FixtureRequest, workspace: LakebaseEmulator) -> Case:
    found = CASES[request.param]
    found.prepare(workspace)
    return found


@pytest.fixture(params=[False, True], ids=["worker", "triggerer"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@contextmanager
def losing_an_answer(method: str) -> Iterator[None]:
    """Lose the answer to the first request that changes a branch: databricks-sdk sends it again."""
    send, lost = requests.adapters.HTTPAdapter.send, []

    def lose(self: Any, request: Any, **arguments: Any) -> Any:
        answer = send(self, request, **arguments)
        if request.method == method and "/branches" in request.url and not lost:
            lost.append(answer)
            raise requests.ConnectionError("Connection aborted")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.adapters.HTTPAdapter, "send", lose)
        yield
    assert lost


# ── each operator, in each situation ──


def test_it_runs_with_a_bare_context(case: Case, deferrable: bool, workspace: Any, branches: Any):
    changes = Changes(workspace)
    run(case.make(deferrable=deferrable), {})
    assert changes.seen == case.changes
    assert case.is_done(branches)


@pytest.mark.parametrize("name", ["create", "delete"])
def test_a_second_run_changes_nothing(name: str, workspace: Any, branches: Any):
    case = CASES[name]
    case.prepare(workspace)
    run(case.make())
    changes = Changes(workspace)
    run(case.make())
    assert changes.seen == []
    assert case.is_done(branches)


@pytest.mark.parametrize("store", [Store, lambda: None], ids=["3.3", "before 3.3"])
@pytest.mark.parametrize("name", ["create", "delete"])
def test_a_try_that_died_after_its_request_is_taken_up(name: str, store: Any, workspace: Any, branches: Any):
    case, kept = CASES[name], store()
    case.prepare(workspace)
    changes = Changes(workspace)
    with dying(WAIT):
        case.make().execute(context(kept))
    run(case.make(), context(kept))
    assert changes.seen == case.changes
    assert case.is_done(branches)


@pytest.mark.parametrize("wait", [0, 1])
def test_a_reset_that_died_at_any_wait_is_taken_up(wait: int, workspace: Any, branches: LakebaseWorkspaceHook):
    CASES["reset"].prepare(workspace)
    former, store, changes = branches.get_branch("try-it").uid, Store(), Changes(workspace)
    from airflow_provider_lakebase.operators import _operation

    waits, wait_for = iter(range(10)), _operation.wait_for

    def die_at(*args: Any, **kwargs: Any) -> None:
        if next(waits) == wait:
            raise Died
        wait_for(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(_operation, "wait_for", die_at)
        reset().execute(context(store))
    run(reset(), context(store))
    assert changes.seen == CASES["reset"].changes
    assert branches.get_branch("try-it").uid != former
    assert store.values == {}


def test_a_triggerer_that_died_is_replaced(case: Case, workspace: Any, branches: Any):
    changes, operator = Changes(workspace), case.make(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(Store()))

    async def die() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first_event(deferred.value.trigger), 0.05)

    asyncio.run(die())
    resume(operator, deferred.value, context(Store()))
    assert changes.seen == case.changes
    assert case.is_done(branches)


def test_an_identity_without_permission_is_refused_with_the_remedy(
    case: Case, deferrable: bool, workspace: Any, connect_as: Any
):
    stranger = connect_as(workspace.add_principal("stranger", can_use_project=False))
    changes = Changes(workspace)
    with pytest.raises(AirflowFailException, match="Grant it") as failed:
        run(case.make(lakebase_conn_id=stranger, deferrable=deferrable))
    error = failed.value.__cause__
    assert isinstance(error, LakebaseWorkspaceAccessError)
    assert (error.conn_id, error.resource, error.error_code) == (stranger, BRANCH, "PERMISSION_DENIED")
    assert changes.seen == []


@pytest.mark.parametrize("make", [create, delete, reset])
def test_a_missing_project_is_named(make: Any, workspace: Any):
    with pytest.raises(AirflowFailException, match="does not exist") as failed:
        run(make(project="nothing"))
    error = failed.value.__cause__
    assert isinstance(error, LakebaseResourceNotFoundError)
    assert error.resource in ("projects/nothing", "projects/nothing/branches/try-it")


@pytest.mark.parametrize("name", ["delete", "reset"])
def test_an_operation_in_progress_is_waited_for(name: str, deferrable: bool, workspace: Any, branches: Any):
    CASES[name].prepare(workspace)
    workspace.operation_seconds = 0.4

    def expire() -> None:
        with suppress(LakebaseResourceNotFoundError):  # the task may have deleted it before the hook returns it
            branches.expire_branch("try-it", ttl=1800)

    other = threading.Thread(target=expire)
    other.start()
    time.sleep(0.1)
    workspace.operation_seconds = 0.1
    changes = Changes(workspace)
    run(CASES[name].make(deferrable=deferrable))
    other.join()
    assert changes.seen == CASES[name].changes


def test_a_conflict_that_does_not_end_is_the_error_of_the_task(case: Case, deferrable: bool, workspace: Any):
    workspace.faults.answer("branches", status=409, times=500)
    workspace.faults.answer("try-it", status=409, times=500)
    with pytest.raises(LakebaseConflictError, match="Try again") as failed:
        run(case.make(deferrable=deferrable, operation_timeout=0.3))
    assert failed.value.retryable


def test_a_conflict_that_lasts_defers_a_task_less_and_less_often(
    workspace: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise LakebaseConflictError("Another operation is in progress", retryable=True)

    monkeypatch.setattr("airflow_provider_lakebase.core.workspace.branches.create", refuse)
    operator, kept, pauses = create(deferrable=True), context(Store()), []

    def go_on(step: Callable[..., Any], *event: Any) -> Any:
        with pytest.raises(TaskDeferred) as deferred:
            step(kept, *event)
        trigger: Any = deferred.value.trigger
        pauses.append(trigger.pause)
        return asyncio.run(first_event(trigger)).payload

    event = go_on(operator.execute)
    for _ in range(5):
        event = go_on(operator.execute_complete, event)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (plans.FIRST_PAUSE_SECONDS, plans.LONGEST_PAUSE_SECONDS)
    go_on(operator.execute)  # a retry begins anew
    assert pauses[-1] == plans.FIRST_PAUSE_SECONDS


def test_a_template_that_renders_anew_after_a_deferral_makes_no_second_branch(workspace: LakebaseEmulator):
    kept, changes = context(Store()), Changes(workspace)
    with pytest.raises(TaskDeferred) as deferred:
        create(branch_id="first", deferrable=True).execute(kept)
    with pytest.raises(AirflowFailException, match="branch_id rendered differently after the wait") as failed:
        resume(create(branch_id="second", deferrable=True), deferred.value, kept)
    assert isinstance(failed.value.__cause__, LakebaseSettingsError)
    assert f"wait for {PROJECT}/branches/first, and now names {PROJECT}/branches/second" in str(failed.value)
    assert changes.seen == ["POST branches"]


@pytest.mark.parametrize("fault", [429, 503, "drop"])
@pytest.mark.parametrize("part", ["branches", "operations"])
def test_a_passing_failure_changes_nothing(case: Case, part: str, fault: int | str, workspace: Any, branches: Any):
    if isinstance(fault, int):
        workspace.faults.answer(part, status=fault, times=2, retry_after=0)
    else:
        workspace.faults.drop(part)
    changes = Changes(workspace)
    run(case.make())
    assert changes.seen == case.changes
    assert case.is_done(branches)


DELETIONS = {
    "replace": (lambda: create(if_exists="replace"), False, True),
    "reset": (reset, False, True),
    "purge": (lambda: delete(purge=True), False, False),
    "purge what is deleted": (lambda: delete(purge=True), True, False),
    "create over what is deleted": (create, True, True),
}


@pytest.mark.parametrize("name", DELETIONS)
def test_a_deletion_whose_answer_was_lost_is_taken_as_done(name: str, workspace: Any, branches: Any):
    make, is_deleted, ends_with_branch = DELETIONS[name]
    workspace.create_branch("try-it")
    former = branches.get_branch("try-it").uid
    if is_deleted:
        branches.delete_branch("try-it")
    workspace.operation_seconds = 0
    store = Store()
    with losing_an_answer("DELETE"):
        run(make(), context(store))
    left = {each.name: each.uid for each in branches.list_branches(show_deleted=True)}
    assert (BRANCH in left) is ends_with_branch
    assert left.get(BRANCH) != former
    assert store.values == {}


def test_a_retry_of_a_reset_whose_deletion_is_refused_keeps_what_to_put_back(
    workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook
) -> None:
    run(create(ttl=None, no_expiry=True))
    branches.protect_branch("try-it")
    store = Store()
    with dying(WAIT):  # its protection is removed
        reset().execute(context(store))

    def refuse(*_: Any, **__: Any) -> None:
        raise LakebaseWorkspaceRefusedError("The branch is frozen")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(AirflowFailException, match="is frozen"):
        patch.setattr("airflow_provider_lakebase.core.workspace.branches.delete", refuse)
        run(reset(), context(store))
    run(reset(), context(store))
    status = branches.get_branch("try-it").status
    assert status is not None
    assert status.is_protected


@pytest.mark.parametrize("status", [500, 504])
def test_polls_that_databricks_sdk_does_not_repeat_are_repeated(
    case: Case, status: int, deferrable: bool, workspace: Any, branches: Any
):
    workspace.faults.answer("operations", status=status, times=2)
    changes = Changes(workspace)
    run(case.make(deferrable=deferrable))
    assert changes.seen == case.changes
    assert case.is_done(branches)


def test_a_workspace_that_fails_time_and_again_fails_the_task_for_a_retry(case: Case, workspace: Any):
    workspace.faults.answer("branches", status=500, times=500)
    with pytest.raises(LakebaseWorkspaceError) as failed:
        run(case.make())
    assert failed.value.retryable
    assert failed.value.error_code == "INTERNAL_ERROR"


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "BAD_REQUEST"])
def test_an_operation_that_fails_raises_its_error(case: Case, code: str, deferrable: bool, workspace: Any):
    workspace.faults.fail_operations(case.method, error_code=code, message="the disk is full")
    with pytest.raises((LakebaseOperationError, AirflowFailException), match="the disk is full") as failed:
        run(case.make(deferrable=deferrable))
    error = failed.value if code == "INTERNAL_ERROR" else failed.value.__cause__
    assert isinstance(error, LakebaseOperationError)
    assert error.retryable is (code == "INTERNAL_ERROR")
    assert (error.conn_id, error.resource, error.error_code) == ("lakebase_default", BRANCH, code)
    assert error.operation.startswith(f"{BRANCH}/operations/")
    assert error.hint


def test_a_retry_after_a_failed_operation_begins_anew(case: Case, workspace: Any, branches: Any):
    workspace.faults.fail_operations(case.method)
    store = Store()
    with pytest.raises(LakebaseOperationError):
        run(case.make(), context(store))
    run(case.make(), context(store))
    assert case.is_done(branches)


@pytest.mark.parametrize("store", [Store, lambda: None], ids=["3.3", "before 3.3"])
def test_an_operation_that_outlasts_its_deadline_is_taken_up_by_a_retry(
    case: Case, deferrable: bool, store: Any, workspace: Any, branches: Any
):
    workspace.operation_seconds = 0.6
    changes, kept = Changes(workspace), store()
    with pytest.raises(LakebaseOperationTimeoutError, match="a retry waits for it") as failed:
        run(case.make(deferrable=deferrable, operation_timeout=0.2), context(kept))
    assert failed.value.retryable
    assert (failed.value.conn_id, failed.value.resource) == ("lakebase_default", BRANCH)
    assert failed.value.operation.startswith(f"{BRANCH}/operations/")
    first = changes.seen
    assert first == case.changes[:1]
    if case.make is reset and kept is None:
        return  # the retry cannot know how the branch was, see below
    workspace.operation_seconds = 0.1
    run(case.make(deferrable=deferrable), context(kept))
    assert changes.seen == case.changes
    assert case.is_done(branches)


def test_the_task_links_to_the_pages_of_its_branch(case: Case, deferrable: bool, workspace: Any, branches: Any):
    uid = branches.get_branch("try-it").uid if case.needs_branch else None
    ran = context()
    run(case.make(deferrable=deferrable), ran)
    pages = ran["ti"].task._lakebase_pages
    if case.ends_with_branch:
        uid = branches.get_branch("try-it").uid
    assert pages["branch"].endswith(f"/branches/{uid}")
    assert pages["branch"].startswith(pages["project"])


def test_the_links_of_a_branch_that_is_gone_are_those_from_before(workspace: LakebaseEmulator):
    store, later = Store(), context()
    workspace.create_branch("try-it")
    with dying(WAIT):
        delete(purge=True).execute(context(store))
    run(delete(purge=True), {**later, "task_state_store": store})
    assert later["ti"].task._lakebase_pages["branch"]
    workspace.create_branch("try-it")
    with pytest.raises(TaskDeferred) as deferred:
        delete(deferrable=True, purge=True).execute(context())
    resumed = context()
    resume(delete(deferrable=True, purge=True), deferred.value, resumed)
    assert resumed["ti"].task._lakebase_pages["branch"]


def test_each_try_counts_its_own_failures(workspace: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plans, "MAX_FAILURES", 1)
    store = Store()
    workspace.faults.answer("branches", status=500, times=3)
    with pytest.raises(LakebaseWorkspaceError):
        run(create(), context(store))
    workspace.faults.answer("branches", status=500)
    assert run(create(), context(store))["created"] is True


def test_triggers_that_wait_for_one_operation_share_its_polls(workspace: LakebaseEmulator):
    workspace.operation_seconds = 0.4
    with pytest.raises(TaskDeferred) as deferred:
        create(deferrable=True).execute({})
    before = len(workspace.requests)

    async def wait() -> None:
        await asyncio.gather(*(first_event(deferred.value.trigger) for _ in range(30)))

    asyncio.run(wait())
    polls = [each for each in workspace.requests[before:] if "operations" in each.path]
    assert 1 < len(polls) < 8


# ── create ──


def test_the_result_tells_where_the_branch_is(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    result = run(create())
    endpoint = branches.get_endpoint(BRANCH)
    assert endpoint.status is not None
    assert endpoint.status.hosts is not None
    expire_time = datetime.fromisoformat(result.pop("expire_time"))
    assert result == {
        "branch": BRANCH,
        "endpoint": f"{BRANCH}/endpoints/primary",
        "host": endpoint.status.hosts.host,
        "created": True,
    }
    assert abs(expire_time - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)


def test_the_service_principal_logs_in_without_a_bootstrap(deferrable: bool, real: LakebaseEmulator):
    """The first logins are refused, as they are for up to a minute."""
    real.faults.refuse_logins("External authorization failed", times=2)
    before = len(real.logins)
    result = run(create(wait_for_login=True, deferrable=deferrable))
    assert [each.outcome == "ok" for each in real.logins[before:]] == [False, False, True]
    assert LakebaseHook(endpoint=result["endpoint"]).get_first("SELECT 1") == (1,)
    assert LakebaseHook(endpoint=result["branch"]).get_first("SELECT 1") == (1,)


def test_a_login_that_is_refused_for_good_fails_the_task(deferrable: bool, real: LakebaseEmulator):
    real.faults.refuse_logins('role "x" does not exist', times=50)
    with pytest.raises(AirflowFailException, match="does not exist") as failed:
        run(create(wait_for_login=True, deferrable=deferrable))
    error = failed.value.__cause__
    assert isinstance(error, LakebaseAuthenticationError)
    assert (error.conn_id, error.resource) == ("lakebase_default", f"{BRANCH}/endpoints/primary")
    assert error.hint


def test_without_wait_for_login_it_opens_no_session(workspace: LakebaseEmulator):
    before = len(workspace.logins)
    run(create())
    assert len(workspace.logins) == before


def test_a_branch_that_exists_is_used(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    workspace.create_branch("try-it")
    uid = branches.get_branch("try-it").uid
    changes = Changes(workspace)
    assert run(create())["created"] is False
    assert run(create(source="production"))["created"] is False
    assert (changes.seen, branches.get_branch("try-it").uid) == ([], uid)


def test_a_branch_of_another_source_is_not_used(workspace: LakebaseEmulator):
    workspace.create_branch("other")
    workspace.create_branch("try-it")
    with pytest.raises(AirflowFailException, match="its source_branch is") as failed:
        run(create(source="other"))
    assert isinstance(failed.value.__cause__, LakebaseResourceExistsError)


@pytest.mark.parametrize("name", ["source_snapshot", "source_time", "source_lsn"])
def test_a_branch_of_no_such_moment_is_not_used(name: str, workspace: Any, branches: LakebaseWorkspaceHook):
    branches.create_snapshot("before", "production", ttl=3600)
    workspace.create_branch("try-it")
    source = {"source_snapshot": "before", "source_time": datetime.now(UTC), "source_lsn": "0/1"}[name]
    with pytest.raises(AirflowFailException, match="The branch exists, and it has no source_") as failed:
        run(create(**{name: source}))
    assert isinstance(failed.value.__cause__, LakebaseResourceExistsError)
    run(create(branch_id="same", **{name: source}))
    assert run(create(branch_id="same", **{name: source}))["created"] is False


def test_a_branch_of_a_snapshot_is_not_used_for_one_of_a_branch(workspace: Any, branches: LakebaseWorkspaceHook):
    branches.create_snapshot("before", "production", ttl=3600)
    run(create(source_snapshot="before"))
    with pytest.raises(AirflowFailException, match="it has no source_branch, but .*production is asked for"):
        run(create(source="production"))


def test_a_branch_that_exists_is_replaced(
    deferrable: bool, workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook
):
    workspace.create_branch("try-it")
    uid = branches.get_branch("try-it").uid
    changes = Changes(workspace)
    now = datetime.now(UTC)
    replace = create(if_exists="replace", source="production", source_time=now, deferrable=deferrable)
    assert run(replace, context(Store()))["created"] is True
    assert changes.seen == ["DELETE try-it", "POST branches"]
    assert branches.get_branch("try-it").uid != uid


@pytest.mark.parametrize("if_exists", ["use", "replace", "fail"])
def test_a_retry_knows_the_branch_of_an_earlier_try(if_exists: Any, workspace: LakebaseEmulator):
    store = Store()
    with dying(WAIT):
        create(if_exists=if_exists).execute(context(store))
    changes = Changes(workspace)
    assert run(create(if_exists=if_exists), context(store))["created"] is True
    assert changes.seen == []


@pytest.mark.parametrize("if_exists", ["use", "replace", "fail"])
def test_without_a_store_a_retry_knows_it_by_its_age(if_exists: Any, workspace: LakebaseEmulator):
    this_run = SimpleNamespace(start_date=datetime.now(UTC) - timedelta(seconds=1))
    with dying(WAIT):
        create(if_exists=if_exists).execute(context(dag_run=this_run))
    changes = Changes(workspace)
    retry = context(dag_run=this_run)
    retry["ti"].try_number = 2
    assert run(create(if_exists=if_exists), retry)["created"] is True
    assert changes.seen == []


@pytest.mark.parametrize("store", [Store, lambda: None], ids=["3.3", "before 3.3"])
def test_of_two_tasks_that_create_it_at_once_one_has_created_it(store: Any, workspace: LakebaseEmulator) -> None:
    this_run, changes = SimpleNamespace(start_date=datetime.now(UTC) - timedelta(seconds=1)), Changes(workspace)
    both_have_looked = threading.Barrier(2, timeout=60)

    def create_both(*arguments: Any) -> Any:
        both_have_looked.wait()
        return operations.create(*arguments)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr("airflow_provider_lakebase.core.workspace.branches.create", create_both)
        tries = [pool.submit(run, create(), context(store(), dag_run=this_run)) for _ in range(2)]
        assert sorted(each.result()["created"] for each in tries) == [False, True]
    assert changes.seen == ["POST branches"]


def test_a_branch_whose_first_answer_was_lost_is_the_tasks_own(workspace: LakebaseEmulator) -> None:
    with losing_an_answer("POST"):
        assert run(create(if_exists="fail"), context(Store()))["created"] is True


def test_a_task_that_was_cleared_begins_anew(workspace: LakebaseEmulator):
    store = Store()
    run(create(if_exists="replace"), context(store))
    assert store.values == {}
    changes = Changes(workspace)
    run(create(if_exists="replace"), context(store))
    assert changes.seen == ["DELETE try-it", "POST branches"]


def test_a_branch_that_exists_can_fail_the_task(workspace: LakebaseEmulator):
    workspace.create_branch("try-it")
    with pytest.raises(AirflowFailException, match="The branch exists"):
        run(create(if_exists="fail"))


def test_a_protected_branch_is_not_replaced(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    workspace.create_branch("try-it")
    branches.protect_branch("try-it")
    changes = Changes(workspace)
    with pytest.raises(AirflowFailException, match="is protected"):
        run(create(if_exists="replace"))
    assert changes.seen == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"source": "nothing"}, "does not exist"),
        ({"source_snapshot": "nothing"}, "does not exist"),
        ({"source": "try-it"}, "be its own source"),
        ({"source": "expires"}, "a branch that expires"),
        ({"source": "deleted"}, "a branch that is deleted"),
        ({"source_time": "2020-01-01T00:00:00Z"}, "source_time is 2020.*the history of the source is from"),
        ({"source": "production", "source_time": "2999-01-01T00:00:00Z"}, "source_time is 2999"),
    ],
)
def test_a_branch_is_not_replaced_from_a_source_that_cannot_be_copied(
    source: Any, words: str, workspace: LakebaseEmulator
) -> None:
    workspace.create_branch("try-it")
    LakebaseWorkspaceHook().create_branch("expires", ttl=3600)
    LakebaseWorkspaceHook().create_branch("deleted", ttl=3600)
    LakebaseWorkspaceHook().delete_branch("deleted")
    changes = Changes(workspace)
    with pytest.raises(AirflowFailException, match=words) as failed:
        run(create(if_exists="replace", **source))
    assert isinstance(failed.value.__cause__, LakebaseError)
    assert changes.seen == []


def test_a_deleted_branch_that_keeps_its_name_is_purged(deferrable: bool, workspace: LakebaseEmulator):
    run(create())
    run(delete())
    assert run(create(deferrable=deferrable))["created"] is True


def test_a_missing_source_is_named(workspace: LakebaseEmulator):
    for source in ({"source": "nothing"}, {"source_snapshot": "nothing"}):
        with pytest.raises(AirflowFailException) as failed:
            run(create(**source))
        error = failed.value.__cause__
        assert isinstance(error, LakebaseResourceNotFoundError)
        assert error.resource.endswith("/nothing")


def test_a_source_is_sought_in_the_project_of_the_branch(workspace: LakebaseEmulator):
    operator = create(branch_id="projects/other/branches/try-it", source="production")
    plan = operator.plan({}, TaskNotes({}))  # type: ignore[typeddict-item]
    assert plan.spec["source_branch"] == "projects/other/branches/production"


def test_a_text_is_no_flag():
    for make, flag in ((create, "wait_for_login"), (create, "no_expiry"), (delete, "purge")):
        with pytest.raises(LakebaseSettingsError, match=f"{flag} is 'False'"):
            make(**{flag: "False"})


def test_a_branch_that_expires_is_no_source(workspace: LakebaseEmulator):
    run(create(branch_id="other"))
    with pytest.raises(AirflowFailException, match="such a branch cannot be copied"):
        run(create(source="other"))


def test_a_branch_that_expires_is_not_protected(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    run(create())
    with pytest.raises(LakebaseWorkspaceRefusedError, match="cannot both be protected and expire"):
        branches.protect_branch("try-it")


def test_a_refused_request_leaves_no_claim_on_the_name(workspace: LakebaseEmulator):
    store = Store()
    with pytest.raises(AirflowFailException):
        run(create(source="nothing", if_exists="fail"), context(store))
    workspace.create_branch("try-it")
    with pytest.raises(AirflowFailException, match="The branch exists"):
        run(create(if_exists="fail"), context(store))


def test_a_failed_operation_leaves_no_claim_on_the_name(workspace: LakebaseEmulator):
    store = Store()
    workspace.faults.fail_operations("create_branch")
    with pytest.raises(LakebaseOperationError):
        run(create(if_exists="fail"), context(store))
    workspace.create_branch("try-it", source=PRODUCTION)  # someone else's
    with pytest.raises(AirflowFailException, match="The branch exists"):
        run(create(if_exists="fail"), context(store))


def test_a_claim_on_another_name_is_none_on_this_one(workspace: LakebaseEmulator):
    store = Store()
    with dying(WAIT):
        create(branch_id="first", if_exists="fail").execute(context(store))
    workspace.create_branch("second", source=PRODUCTION)
    with pytest.raises(AirflowFailException, match="The branch exists"):
        run(create(branch_id="second", if_exists="fail"), context(store))


def test_a_branch_that_was_made_anew_after_a_failed_reset_is_reset(workspace: LakebaseEmulator, branches: Any):
    workspace.create_branch("try-it", source=PRODUCTION)
    store = Store()
    workspace.faults.fail_operations("delete_branch")
    with pytest.raises(LakebaseOperationError):
        run(reset(), context(store))
    branches.delete_branch("try-it", purge=True)
    workspace.create_branch("try-it", source=PRODUCTION)
    changes = Changes(workspace)
    run(reset(), context(store))
    assert changes.seen == ["DELETE try-it", "POST branches"]


def test_too_many_branches_are_an_error_that_a_retry_helps(workspace: LakebaseEmulator):
    workspace.operation_seconds = 0
    for number in range(10 - len(LakebaseWorkspaceHook().list_branches())):
        workspace.create_branch(f"b{number}")
    changes = Changes(workspace)
    with pytest.raises(LakebaseLimitError, match="limit") as failed:
        run(create())
    assert failed.value.retryable
    assert changes.seen == []
    workspace.delete_branch(f"{PROJECT}/branches/b0")
    assert run(create())["created"] is True


def test_a_branch_id_is_derived_from_the_task(workspace: LakebaseEmulator):
    store = Store()
    with dying(WAIT):
        create(branch_id=None).execute(context(store))
    changes = Changes(workspace)
    first = run(create(branch_id=None), context(store))
    assert re.fullmatch(rf"{PROJECT}/branches/etl-branch-[0-9a-f]{{10}}", first["branch"])
    assert changes.seen == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ttl": None}, "No expiry is given"),
        ({"no_expiry": True}, "ttl and no_expiry are given"),
        ({"branch_id": "Try It"}, "is not the ID of a branch"),
        ({"branch_id": 0}, "is not the ID of a branch"),
        ({"branch_id": None}, "no task instance"),
        ({"source_lsn": "5"}, "log sequence number"),
    ],
)
def test_wrong_arguments_fail_before_anything_is_sent(arguments: Any, words: str, workspace: LakebaseEmulator):
    before = len(workspace.requests)
    with pytest.raises(AirflowFailException, match=words) as failed:
        run(create(**arguments))
    assert isinstance(failed.value.__cause__, LakebaseSettingsError)
    assert len(workspace.requests) == before


def test_a_connection_may_name_a_project_instead_of_an_endpoint(workspace: Any, monkeypatch: pytest.MonkeyPatch):
    import json

    connection = json.loads(workspace.connections["lakebase_default"])
    connection["extra"] = {"project": "demo"}
    monkeypatch.setenv("AIRFLOW_CONN_PLAIN", json.dumps(connection))
    assert run(create(lakebase_conn_id="plain"))["branch"] == BRANCH
    connection["extra"] = {}
    monkeypatch.setenv("AIRFLOW_CONN_PLAIN", json.dumps(connection))
    with pytest.raises(AirflowFailException, match="'project' is missing"):
        run(create(lakebase_conn_id="plain"))
    assert run(delete(lakebase_conn_id="plain", branch_id=BRANCH)) is None


def test_of_twenty_branches_at_once_those_beyond_the_limit_succeed_later(workspace: LakebaseEmulator):
    made, limited = [], []
    free = 10 - len(LakebaseWorkspaceHook().list_branches())

    def try_one(number: int) -> None:
        try:
            made.append(LakebaseWorkspaceHook().create_branch(f"b{number}", ttl=3600).name)
        except LakebaseLimitError:
            limited.append(number)

    with ThreadPoolExecutor(20) as tasks:
        list(tasks.map(try_one, range(20)))
    assert (len(made), len(limited)) == (free, 20 - free)
    for branch in made:
        run(delete(branch_id=branch, purge=True))
    for number in limited[:free]:
        run(create(branch_id=f"b{number}"))


def test_rows_of_a_branch_are_its_own_and_a_past_time_has_past_rows(real: LakebaseEmulator, hook: LakebaseHook):
    hook.run("CREATE SCHEMA branching CREATE TABLE events (id int); INSERT INTO branching.events VALUES (1)")
    time.sleep(0.2)
    moment = datetime.now(UTC)
    time.sleep(0.2)
    hook.run("INSERT INTO branching.events VALUES (2)")
    try:
        branch = run(create(wait_for_login=True))["endpoint"]
        past = run(create(branch_id="past", source_time=moment, wait_for_login=True))["endpoint"]
        LakebaseHook(endpoint=branch).run("INSERT INTO branching.events VALUES (3)")
        ids = {name: LakebaseHook(endpoint=name).get_records("TABLE branching.events") for name in (None, branch, past)}
        assert ids == {None: [(1,), (2,)], branch: [(1,), (2,), (3,)], past: [(1,)]}
        with pytest.raises(AirflowFailException, match="history|oldest|earl|before") as failed:
            run(create(branch_id="older", source_time=moment - timedelta(days=400)))
        assert isinstance(failed.value.__cause__, LakebaseSettingsError | LakebaseWorkspaceRefusedError)
    finally:
        hook.run("DROP SCHEMA branching CASCADE")


# ── delete ──


def test_a_missing_branch_is_a_success(workspace: LakebaseEmulator):
    changes = Changes(workspace)
    run(delete())
    run(delete(purge=True))
    assert changes.seen == []


def test_a_deleted_branch_can_be_undeleted_unless_it_was_purged(workspace: Any, branches: LakebaseWorkspaceHook):
    workspace.create_branch("try-it")
    run(delete())
    branches.undelete_branch("try-it")
    assert BRANCH in [each.name for each in branches.list_branches()]
    run(delete())
    run(delete(purge=True))
    assert BRANCH not in [each.name for each in branches.list_branches(show_deleted=True)]


def test_what_may_not_be_deleted_is_refused_with_the_remedy(workspace: Any, branches: LakebaseWorkspaceHook):
    workspace.create_branch("try-it")
    workspace.create_branch("child", source=BRANCH)
    changes = Changes(workspace)
    expected = {
        "production": "Make another branch the default one",
        "try-it": "projects/demo/branches/child.*Delete these first",
    }
    for branch, remedy in expected.items():
        with pytest.raises(AirflowFailException, match=remedy) as failed:
            run(delete(branch_id=branch))
        assert isinstance(failed.value.__cause__, LakebaseWorkspaceRefusedError)
    assert changes.seen == []
    branches.protect_branch("child")
    with pytest.raises(AirflowFailException, match="Remove its protection"):
        run(delete(branch_id="child"))


# ── reset ──


def test_expiry_protection_and_endpoint_settings_are_put_back(workspace: Any, branches: LakebaseWorkspaceHook):
    run(create(branch_id="try-it", ttl=None, no_expiry=True))
    branches.protect_branch("try-it")
    branches.update_endpoint(BRANCH, min_cu=2, max_cu=4, suspend_timeout=600)
    branches.create_endpoint("try-it", "reader", min_cu=1, max_cu=2)
    before = branches.get_branch("try-it")
    result = run(reset(), context(Store()))
    after = branches.get_branch("try-it")
    assert after.uid != before.uid
    assert after.status is not None
    assert after.status.is_protected
    assert after.status.expire_time is None
    assert after.status.source_branch == PRODUCTION
    endpoints = {str(each.endpoint_id): each.status for each in branches.list_endpoints("try-it")}
    primary, reader = endpoints["primary"], endpoints["reader"]
    assert primary is not None
    assert reader is not None
    assert (primary.autoscaling_limit_min_cu, primary.autoscaling_limit_max_cu) == (2, 4)
    assert primary.suspend_timeout_duration is not None
    assert primary.suspend_timeout_duration.ToSeconds() == 600
    assert (reader.autoscaling_limit_min_cu, reader.autoscaling_limit_max_cu) == (1, 2)
    assert result["endpoint"] == f"{BRANCH}/endpoints/primary"


def test_an_expiry_is_put_back_as_it_was(workspace: Any, branches: LakebaseWorkspaceHook):
    expected = run(create())["expire_time"]
    run(reset())
    status = branches.get_branch("try-it").status
    assert status is not None
    assert status.expire_time is not None
    assert abs(status.expire_time.ToDatetime(UTC) - datetime.fromisoformat(expected)) < timedelta(seconds=1)


def test_a_branch_with_children_or_without_a_parent_is_not_reset(workspace: LakebaseEmulator):
    workspace.create_branch("try-it")
    workspace.create_branch("child", source=BRANCH)
    changes = Changes(workspace)
    for branch, words in (("try-it", "child branches"), ("production", "no parent branch")):
        with pytest.raises(AirflowFailException, match=words):
            run(reset(branch_id=branch))
    with pytest.raises(AirflowFailException, match="does not exist"):
        run(reset(branch_id="nothing"))
    assert changes.seen == []


def test_a_protected_default_branch_is_refused_before_it_is_changed(workspace: Any, branches: LakebaseWorkspaceHook):
    run(create(ttl=None, no_expiry=True))
    branches.protect_branch("try-it")

    def make_default(name: str) -> None:
        spec = {"spec": {"default_branch": name}}
        plan = plans.OneOperation(PROJECT, lambda where: operations.update(where, PROJECT, spec, "spec.default_branch"))
        plans.carry_out(branches.workspace, plan, timeout=10)

    make_default(BRANCH)
    changes = Changes(workspace)
    try:
        with pytest.raises(AirflowFailException, match="Make another branch the default one") as failed:
            run(reset())
        assert isinstance(failed.value.__cause__, LakebaseWorkspaceRefusedError)
        assert changes.seen == []
    finally:
        make_default(PRODUCTION)


def test_a_reset_after_a_failed_deletion_puts_back_what_holds_by_then(workspace: Any, branches: LakebaseWorkspaceHook):
    run(create(ttl=None, no_expiry=True))
    branches.protect_branch("try-it")
    store = Store()
    workspace.faults.fail_operations("delete_branch")
    with pytest.raises(LakebaseOperationError):
        run(reset(), context(store))
    branches.update_endpoint(BRANCH, min_cu=2, max_cu=4)
    run(reset(), context(store))
    branch, endpoint = branches.get_branch("try-it").status, branches.get_endpoint(BRANCH).status
    assert branch is not None
    assert endpoint is not None
    assert branch.is_protected
    assert (endpoint.autoscaling_limit_min_cu, endpoint.autoscaling_limit_max_cu) == (2, 4)


def test_a_branch_that_was_made_anew_after_a_failed_deletion_is_reset(workspace: Any, branches: LakebaseWorkspaceHook):
    run(create())
    store = Store()
    workspace.faults.fail_operations("delete_branch")
    with pytest.raises(LakebaseOperationError):
        run(reset(), context(store))
    run(create(if_exists="replace"))
    made = branches.get_branch("try-it").uid
    run(reset(), context(store))
    assert branches.get_branch("try-it").uid != made


@pytest.mark.parametrize("is_older", [False, True], ids=["younger than the run", "older than the run"])
def test_without_a_store_a_retry_warns_if_an_earlier_try_may_have_lost_settings(
    is_older: bool, workspace: LakebaseEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.create_branch("try-it")
    begun_at = datetime.now(UTC) + (timedelta(minutes=1) if is_older else -timedelta(minutes=1))
    this_run = SimpleNamespace(start_date=begun_at)
    first, retry = context(dag_run=this_run), context(dag_run=this_run)
    retry["ti"].try_number = 2
    run(reset(), first)
    assert "was created or changed after this run began" not in caplog.text
    run(reset(), retry)
    assert ("was created or changed after this run began" in caplog.text) is not is_older


def test_without_a_store_a_reset_that_died_midway_says_that_the_branch_is_gone(workspace: LakebaseEmulator):
    workspace.create_branch("try-it")
    with dying(WAIT):
        reset().execute(context())
    time.sleep(0.15)
    with pytest.raises(AirflowFailException, match="Before Airflow 3.3 it can be missing"):
        run(reset(), context())
