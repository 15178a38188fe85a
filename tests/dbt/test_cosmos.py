"""Cosmos runs dbt on the emulator, whose clock passes the end of each credential as soon as it has been used."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import _demo as demo
import pytest

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
CREDENTIAL_SECONDS = 3600
DAGS = """
import datetime, pathlib

from airflow.providers.common.compat.sdk import DAG
from cosmos import DbtTaskGroup, ExecutionConfig, ExecutionMode, LoadMode, ProfileConfig, ProjectConfig, RenderConfig

from airflow_provider_lakebase.cosmos import LakebaseProfileMapping, emit_assets

for mode in (ExecutionMode.LOCAL, ExecutionMode.WATCHER):
    for project in pathlib.Path(__file__).parent.glob("*/dbt_project.yml"):
        name = f"{project.parent.name}_{mode.value}"
        with DAG(name, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), schedule=None) as dag:
            mapping = LakebaseProfileMapping("lakebase_default", profile_args={"schema": name, "threads": 1})
            DbtTaskGroup(
                group_id="dbt",
                project_config=ProjectConfig(project.parent),
                profile_config=ProfileConfig("lakebase", "airflow", profile_mapping=mapping),
                execution_config=ExecutionConfig(execution_mode=mode),
                render_config=RenderConfig(load_method=LoadMode.CUSTOM),
                operator_args={"callback": emit_assets} if mode is ExecutionMode.LOCAL else {},
            )
        globals()[name] = dag
"""
RUN = """
import sys
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb

initdb()
bag = DagBag()
assert not bag.import_errors, bag.import_errors
# dag.test() runs one task at a time: the one that others watch must be the first.
for dag in bag.dags.values():
    for producer in [task for task in dag.tasks if task.task_id.endswith("dbt_producer_watcher")]:
        for task in dag.tasks:
            if type(task).__name__.endswith("WatcherOperator") and task is not producer:
                task.set_upstream(producer)
print("parsed", flush=True)
for line in sys.stdin:
    print(bag.dags[line.strip()].test().state, flush=True)
"""


class EachLoginEndsTheHour:
    """Real time, and for each login more than the life of a credential.

    Only while sessions are opened one after the other: no hour passes between a credential and its own login.
    """

    emulator: LakebaseEmulator | None = None
    _logins = 0

    def __call__(self) -> float:
        if self.emulator:
            self._logins = len(self.emulator.logins)
        return time.time() + (CREDENTIAL_SECONDS + 60) * self._logins


class Airflow:
    """An Airflow with Cosmos, in one process; it takes ids of DAGs and answers how they ended."""

    def __init__(
        self, home: Path, emulator: LakebaseEmulator, clock: EachLoginEndsTheHour, process: subprocess.Popen[str]
    ) -> None:
        self.home, self.emulator, self.clock, self._process = home, emulator, clock, process
        self.printed: list[str] = []
        self.read_answer()

    def run(self, dag_id: str) -> None:
        """Run a DAG, which succeeds."""
        print(dag_id, file=self._process.stdin, flush=True)
        assert self.read_answer() == "success", self.log()[-4000:]

    def read_answer(self) -> str:
        """Return the next line that the process wrote for the tests; the others are the tasks' log."""
        for line in self._process.stdout or ():
            if line.strip() in ("parsed", "success", "failed"):
                return line.strip()
            self.printed.append(line)
        pytest.fail(self.log()[-4000:])

    def log(self) -> str:
        """Return all that was logged."""
        return "".join(self.printed) + (self.home / "log").read_text()

    def rows(self, query: str, *parameters: str) -> list[tuple[str, ...]]:
        """Query Airflow's database."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            return database.execute(query, parameters).fetchall()

    def asset_events(self, dag_id: str) -> set[str]:
        """Return the URIs of the assets for which a DAG emitted events."""
        query = "SELECT uri FROM asset JOIN asset_event ON asset_id = asset.id WHERE source_dag_id = ?"
        return {uri for (uri,) in self.rows(query, dag_id)}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("cosmos")
    dags = home / "dags"
    shutil.copytree(EXAMPLES / "dbt_flights", dags / "dbt_flights")
    shutil.copy(EXAMPLES / "dbt_cosmos.py", dags)
    (dags / "projects.py").write_text(DAGS)
    write_project(dags / "small", 2)
    write_project(dags / "twenty", 20)
    clock = EachLoginEndsTheHour()
    with (
        LakebaseEmulator(asleep=True, wake_seconds=0.1, opaque_credentials=True, clock=clock) as emulator,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("AIRFLOW_CONN_COSMOS_ADMIN", emulator.connections["lakebase_admin"])
        environment.setenv("AIRFLOW_CONN_COSMOS", emulator.connections["lakebase_default"])
        role = RoleRequest(emulator.service_principal.client_id, create_on_database=True)
        LakebaseHook("cosmos_admin").bootstrap_role(role)
        variables = demo.airflow_variables(home, emulator.connections) | {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__COSMOS__CACHE_DIR": str(home / "cache"),
            "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
            "LAKEBASE_WORKSPACE": emulator.workspace_url.removeprefix("http://"),
            "TMPDIR": str(home),
        }
        before = len(emulator.requests)
        pipe = subprocess.PIPE
        with (
            (home / "log").open("w") as log,
            subprocess.Popen(
                [sys.executable, "-c", RUN], env=variables, stdin=pipe, stdout=pipe, stderr=log, text=True
            ) as process,
        ):
            found = Airflow(home, emulator, clock, process)
            assert len(emulator.requests) == before, "parsing the DAG files asked the workspace"
            yield found


def write_project(folder: Path, models: int) -> None:
    """Write a dbt project: a chain of tables, each of which reads the one before."""
    (folder / "models").mkdir(parents=True)
    settings = {"send_anonymous_usage_stats": False, "use_colors": False}
    project = {"name": folder.name, "profile": "lakebase", "flags": settings}
    project["models"] = {folder.name: {"+materialized": "table"}}
    (folder / "dbt_project.yml").write_text(json.dumps(project))
    (folder / "models" / "model_1.sql").write_text("SELECT 1 AS number")
    for number in range(2, models + 1):
        sql = f"SELECT number + 1 AS number FROM {{{{ ref('model_{number - 1}') }}}}"
        (folder / "models" / f"model_{number}.sql").write_text(sql)


@pytest.mark.parametrize("mode", ["local", "watcher"])
def test_each_session_of_dbt_has_a_credential_of_its_own(airflow: Airflow, mode: str, leaks: Callable[..., list[str]]):
    check_project(airflow, f"small_{mode}", 2)
    check_secrets(airflow, leaks)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["local", "watcher"])
@pytest.mark.timeout(900)
def test_twenty_models_are_built_past_the_end_of_every_credential(airflow: Airflow, mode: str):
    check_project(airflow, f"twenty_{mode}", 20)


def check_project(airflow: Airflow, dag_id: str, models: int) -> None:
    """Run the DAG of a project; each login has a new credential, and the one before has expired."""
    emulator = airflow.emulator
    logins, minted = len(emulator.logins), credentials(emulator)
    airflow.clock.emulator = emulator
    airflow.run(dag_id)
    airflow.clock.emulator = None
    new = emulator.logins[logins:]
    assert len(new) >= models
    assert {login.outcome for login in new} == {"ok"}
    assert credentials(emulator) - minted == len(new)
    times = [login.time for login in new]
    assert min(later - earlier for earlier, later in zip(times, times[1:], strict=False)) > CREDENTIAL_SECONDS
    assert LakebaseHook("cosmos").get_first(f"SELECT number FROM {dag_id}.model_{models}") == (models,)
    host = emulator.workspace_url.removeprefix("http://")
    start = f"lakebase://{host}/demo/production/databricks_postgres/{dag_id}"
    assert airflow.asset_events(dag_id) == {f"{start}/model_{number}" for number in range(1, models + 1)}


def credentials(emulator: LakebaseEmulator) -> int:
    return sum(each.path.endswith("/credentials") and each.status == 200 for each in emulator.requests)


def check_secrets(airflow: Airflow, leaks: Callable[..., list[str]]) -> None:
    """No secret is in what Airflow, Cosmos and dbt have left, and the profiles name variables in their place."""
    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    profiles = [path.read_text() for path in files if path.name == "profiles.yml" and "cache" in str(path)]
    assert profiles
    assert all("DBT_ENV_SECRET_LAKEBASE_CLIENT_SECRET" in each for each in profiles)
    assert [path for path in files if leaks(path.read_bytes(), airflow.emulator.secrets)] == []
    assert "DAG TEST" in airflow.log()
    assert leaks(airflow.log().encode(), airflow.emulator.secrets) == []


def test_dbt_cosmos_runs_and_starts_the_dag_that_waits_for_its_table(airflow: Airflow, leaks: Callable[..., list[str]]):
    airflow.run("dbt_cosmos")
    query = "SELECT count(*), sum(flights), sum(late) FROM dbt_cosmos.delays_by_airline"
    assert LakebaseHook("cosmos").get_first(query)[:2] == (8, 61)
    (report,) = airflow.rows(
        "SELECT uri FROM asset JOIN dag_schedule_asset_reference ON asset_id = id WHERE dag_id = ?", "dbt_cosmos_report"
    )
    assert report[0] in airflow.asset_events("dbt_cosmos")
    airflow.run("dbt_cosmos_report")
    check_secrets(airflow, leaks)
