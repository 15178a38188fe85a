"""Tasks on branches of their own: what is left when one fails, and when there are more than Lakebase allows."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import _demo as demo
import pytest
from _operations import PROJECT, Changes, Store, context, run
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseLimitError
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators.branch import LakebaseCreateBranchOperator, LakebaseDeleteBranchOperator

REPOSITORY = Path(__file__).parents[2]
PRODUCTION = f"{PROJECT}/branches/production"
DAGS = """
import sys
from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG, task, task_group

from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.task_groups import lakebase_branch

ARGUMENTS = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc)}

with DAG("kept", **ARGUMENTS) as kept:
    @task_group
    def try_each(sql):
        with lakebase_branch("try_it", ttl=timedelta(hours=4), keep_on_failure=True) as branch:
            LakebaseSQLOperator(task_id="divide", sql=sql, endpoint=branch.endpoint)

    try_each.expand(sql=["SELECT 1", "SELECT 1/0"])

with DAG("not_created", **ARGUMENTS) as not_created:
    with lakebase_branch("try_it", ttl=3600, retries=0) as branch:
        LakebaseSQLOperator(task_id="divide", sql="SELECT 1", endpoint=branch.endpoint)

if __name__ == "__main__":
    for line in sys.stdin:
        globals()[line.strip()].test()
        print("the run is over", file=sys.stderr, flush=True)
"""


@dataclass(frozen=True)
class Airflow:
    """An Airflow with the DAGs of this test."""

    home: Path
    process: subprocess.Popen[str]

    def run(self, dag_id: str) -> dict[tuple[str, int], str]:
        """Run a DAG, which fails; return the states of its tasks."""
        log = self.home / "log"
        runs = log.read_text().count("the run is over")
        print(dag_id, file=self.process.stdin, flush=True)
        while log.read_text().count("the run is over") == runs:
            assert self.process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.1)
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            assert database.execute("SELECT state FROM dag_run WHERE dag_id = ?", [dag_id]).fetchall() == [("failed",)]
            query = "SELECT task_id, map_index, state FROM task_instance WHERE dag_id = ?"
            found = database.execute(query, [dag_id]).fetchall()
            return {(task.rpartition(".")[2], index): state for task, index, state in found}


@pytest.fixture(scope="module")
def airflow(shared_emulator: LakebaseEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    (dags / "branch_groups.py").write_text(DAGS)
    variables = demo.airflow_variables(home, shared_emulator.connections) | {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    migrate = demo.run_airflow(variables, home / "migrate.log", "db", "migrate")
    assert migrate.wait(200) == 0
    command = [sys.executable, str(dags / "branch_groups.py")]
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True) as process,
    ):
        yield Airflow(home, process)


@pytest.fixture
def hook(emulator: LakebaseEmulator) -> Iterator[LakebaseWorkspaceHook]:
    """The workspace, whose branches are removed after the test."""
    workspace = LakebaseWorkspaceHook()
    yield workspace
    emulator.faults.clear()
    for branch in branches(workspace):
        workspace.delete_branch(branch, purge=True)


def branches(hook: LakebaseWorkspaceHook) -> list[str]:
    found = [str(each.name) for each in hook.list_branches(show_deleted=True)]
    return [name for name in found if name != PRODUCTION]


def test_the_branch_of_a_failed_task_is_kept_if_asked_for_and_its_page_logged(
    airflow: Airflow, hook: LakebaseWorkspaceHook
):
    assert airflow.run("kept") == {
        ("create_branch", 0): "success",
        ("create_branch", 1): "success",
        ("divide", 0): "success",
        ("divide", 1): "failed",
        ("delete_branch", 0): "success",
        ("delete_branch", 1): "success",
    }
    (kept,) = branches(hook)
    line, *_ = [each for each in (airflow.home / "log").read_text().splitlines() if f"Branch {kept} is kept" in each]
    status = hook.get_branch(kept).status
    assert status is not None
    assert status.expire_time is not None
    assert "/lakebase/projects/" in line


def test_a_branch_to_which_no_login_works_is_deleted(
    airflow: Airflow, hook: LakebaseWorkspaceHook, emulator: LakebaseEmulator
):
    emulator.faults.refuse_logins('role "x" does not exist', times=50)
    changes = Changes(emulator)
    assert airflow.run("not_created") == {
        ("create_branch", -1): "failed",
        ("divide", -1): "upstream_failed",
        ("delete_branch", -1): "success",
    }
    assert len(changes.seen) == 2
    assert branches(hook) == []


@pytest.mark.long
def test_twenty_branches_at_once_wait_for_the_limit_of_ten_and_none_is_left(
    hook: LakebaseWorkspaceHook, emulator: LakebaseEmulator
):
    changes = Changes(emulator)

    def mapped(map_index: int) -> list[LakebaseLimitError]:
        if not AIRFLOW_V_3_0_PLUS:  # it has this only in the thread that imports it
            from airflow.models import baseoperator

            baseoperator.ExecutorSafeguard._sentinel.callers = {}  # type: ignore[attr-defined]
        refused, store = [], Store()
        this = context(store)
        this["ti"].map_index = map_index
        while True:
            try:
                result = run(LakebaseCreateBranchOperator(task_id="c", ttl=3600, wait_for_login=False), this)
            except LakebaseLimitError as error:
                refused.append(error)
                time.sleep(0.1)  # Airflow's retry_delay
            else:
                break
        assert (result["created"], store.values) == (True, {})
        time.sleep(0.3)  # what it is for
        run(LakebaseDeleteBranchOperator(task_id="d", branch_id=result["branch"], purge=True), this)
        return refused

    with ThreadPoolExecutor(20) as workers:
        refused = [error for errors in workers.map(mapped, range(20)) for error in errors]
    assert len(refused) >= 11
    assert all(error.retryable and error.conn_id == "lakebase_default" for error in refused)
    assert "limit" in str(refused[0])
    assert sorted(each.split()[0] for each in changes.seen) == ["DELETE"] * 20 + ["POST"] * 20
    assert branches(hook) == []
