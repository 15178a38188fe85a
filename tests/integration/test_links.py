"""What a task keeps for its links to the workspace, and when it keeps nothing."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lakebase import links
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.operators.branch import LakebaseCreateBranchOperator, LakebaseDeleteBranchOperator
from airflow_provider_lakebase.operators.endpoint import LakebaseUpdateEndpointOperator
from airflow_provider_lakebase.operators.load import LakebaseExportOperator
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator
from airflow_provider_lakebase.operators.snapshot import LakebaseDeleteSnapshotOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

PROJECT = "projects/demo"


class Task:
    """A task instance that keeps what is pushed."""

    dag_id, run_id, task_id, map_index, try_number = "etl", "today", "sql", -1, 1

    def __init__(self) -> None:
        self.task: Any = SimpleNamespace()
        self.xcoms: dict[str, Any] = {}

    @property
    def pushed(self) -> dict[str, Any]:
        """What is kept, wherever this Airflow has it."""
        pages = getattr(self.task, links.PAGES_ATTRIBUTE, None)
        return {links.XCOM_KEY: pages} if pages else self.xcoms

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


@pytest.fixture
def task() -> Task:
    return Task()


@pytest.fixture(autouse=True)
def no_fault_is_left(emulator: LakebaseEmulator) -> Iterator[None]:
    yield
    emulator.faults.clear()


def run(operator: Any, task: Task) -> None:
    operator.execute({"ti": task})


def test_a_task_keeps_the_addresses_of_project_branch_and_sql_editor(emulator: LakebaseEmulator, task: Task):
    run(LakebaseSQLOperator(task_id="sql", sql="SELECT 1"), task)
    pages = task.pushed[links.XCOM_KEY]
    titles = {}
    for page, address in pages.items():
        assert address.startswith(f"{emulator.workspace_url}/lakebase/projects/")
        with urllib.request.urlopen(address) as reply:
            titles[page] = reply.read().decode().partition("<h1>")[2].partition("</h1>")[0]
    branch = "projects/demo/branches/production"
    assert titles == {"project": "projects/demo", "branch": branch, "sql_editor": f"SQL editor of {branch}"}


def test_loads_exports_and_the_role_bootstrap_keep_them_too(emulator: LakebaseEmulator, tmp_path: Any):
    identity = emulator.service_principal.client_id
    for operator in (
        LakebaseExportOperator(task_id="export", sql="SELECT 1 AS one", destination=tmp_path / "one.csv"),
        LakebaseRoleBootstrapOperator(task_id="role", lakebase_conn_id="lakebase_admin", identity=identity),
    ):
        task = Task()
        run(operator, task)
        assert set(task.pushed[links.XCOM_KEY]) == {"project", "branch", "sql_editor"}
        assert operator.operator_extra_links == links.LINKS


def test_operators_of_branches_and_endpoints_keep_those_of_their_branch(emulator: LakebaseEmulator):
    branch, later = f"{PROJECT}/branches/linked", 3600
    for operator in (
        LakebaseCreateBranchOperator(task_id="create", branch_id="linked", ttl=later, wait_for_login=False),
        LakebaseUpdateEndpointOperator(task_id="update", endpoint=branch, max_cu=2),
        LakebaseDeleteBranchOperator(task_id="delete", branch_id="linked", purge=True),
    ):
        task = Task()
        run(operator, task)
        pages = task.pushed[links.XCOM_KEY]
        assert set(pages) == {"project", "branch", "sql_editor"}
        assert pages["branch"] != links_of_production(emulator)["branch"]
        assert operator.operator_extra_links == links.LINKS


def links_of_production(emulator: LakebaseEmulator) -> Any:
    task = Task()
    run(LakebaseSQLOperator(task_id="sql", sql="SELECT 1"), task)
    return task.pushed[links.XCOM_KEY]


def test_the_end_of_a_snapshot_has_no_links(emulator: LakebaseEmulator, task: Task):
    operator = LakebaseDeleteSnapshotOperator(task_id="delete", snapshot_id="nothing")
    run(operator, task)
    assert (task.pushed, operator.operator_extra_links) == ({}, ())


def test_a_task_whose_sql_fails_keeps_them_for_whoever_looks_into_it(emulator: LakebaseEmulator, task: Task):
    with pytest.raises(AirflowFailException):
        run(LakebaseSQLOperator(task_id="sql", sql="SELECT * FROM nowhere"), task)
    assert links.XCOM_KEY in task.pushed


def test_they_are_looked_up_while_the_statement_runs(emulator: LakebaseEmulator, task: Task):
    seen: list[str] = []
    before = len(emulator.requests)

    def handle(cursor: Any) -> Any:
        seen.extend(each.path for each in emulator.requests[before:])
        return cursor.fetchall()

    run(LakebaseSQLOperator(task_id="sql", sql="SELECT pg_sleep(1)", handler=handle), task)
    assert seen[-2:] == [f"/api/2.0/postgres/{name}" for name in ("projects/demo", "projects/demo/branches/production")]
    assert [each.path for each in emulator.requests[before:]] == seen
    assert task.pushed


def test_a_workspace_that_refuses_to_tell_costs_the_links_and_not_the_task(
    emulator: LakebaseEmulator, task: Task, task_log: Any
):
    run(LakebaseSQLOperator(task_id="sql", sql="SELECT 1"), Task())  # after which the host is known
    emulator.faults.answer("/projects/demo", status=403, message="not for you")
    run(LakebaseSQLOperator(task_id="sql", sql="SELECT 1"), task)
    assert task.pushed == {}
    assert "The task gets no links to the workspace" in task_log()


def test_a_workspace_that_does_not_answer_holds_a_task_for_a_bounded_time(
    emulator: LakebaseEmulator, task: Task, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(links, "ANSWER_SECONDS", 0.5)
    run(LakebaseSQLOperator(task_id="sql", sql="SELECT 1"), Task())  # after which the host is known
    emulator.faults.swallow("/projects/demo")
    started_at = time.monotonic()
    run(LakebaseSQLOperator(task_id="sql", sql="SELECT 1"), task)
    assert time.monotonic() - started_at < 20
    assert task.pushed == {}


def test_links_that_cannot_be_kept_cost_the_links_and_not_the_task(
    emulator: LakebaseEmulator, task: Task, task_log: Any
):
    class Full:
        def __setattr__(self, name: str, value: Any) -> None:
            raise OSError("the bucket of the XComs is full")

    def xcom_push(key: str, value: Any) -> None:
        raise OSError("the bucket of the XComs is full")

    task.task, task.xcom_push = Full(), xcom_push  # type: ignore[method-assign]
    assert LakebaseSQLOperator(task_id="sql", sql="SELECT 1").execute({"ti": task}) == [(1,)]
    assert "The task gets no links to the workspace: OSError" in task_log()
    with pytest.raises(AirflowFailException):
        run(LakebaseSQLOperator(task_id="sql", sql="SELECT * FROM nowhere"), task)


def test_a_link_is_read_from_the_operator_and_empty_where_nothing_was_kept(emulator: LakebaseEmulator):
    operator = LakebaseSQLOperator(task_id="sql", sql="SELECT 1")
    if links.AIRFLOW_V_3_0_PLUS:
        assert links.LINKS[0].get_link(operator, ti_key=None) == ""
    task = Task()
    task.task = operator
    run(operator, task)
    if links.AIRFLOW_V_3_0_PLUS:
        assert links.LINKS[0].get_link(operator, ti_key=None) == task.pushed[links.XCOM_KEY]["project"]


def test_nothing_is_asked_when_the_workspace_itself_was_the_trouble(emulator: LakebaseEmulator, task: Task):
    before = len(emulator.requests)
    with pytest.raises(AirflowFailException):
        run(LakebaseSQLOperator(task_id="sql", sql="SELECT 1", endpoint="projects/demo/branches/none"), task)
    assert task.pushed == {}
    assert [each.path for each in emulator.requests[before:] if each.path.endswith("/projects/demo")] == []


def test_asking_wakes_nothing(emulator: LakebaseEmulator, hook: Any, task: Task):
    emulator.suspend()
    context: Any = {"ti": task}
    with links.record_links(context, hook):
        pass
    assert links.XCOM_KEY in task.pushed
    assert emulator.state == "IDLE"
