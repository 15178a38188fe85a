"""Run a dbt project on Lakebase: seeds, a view, two tables and their tests.

dbt cannot share Airflow's environment: install dbt-core and dbt-postgres into one of its own (requirements-dbt.txt has
versions that go together) and put the path of its program into the Airflow Variable `dbt_executable`; without that it
is the `dbt` of PATH. Two connections: `lakebase_admin`, an identity that may make roles, and `lakebase_default`, the
service principal that does the work. A run can be repeated: it leaves the same rows.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import tempfile
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor

PROJECT = Path(__file__).with_suffix("")
EXECUTABLE = "{{ var.value.get('dbt_executable', 'dbt') }}"


@task
def dbt(executable: str, command: str) -> None:
    """Run a dbt command; its output goes to the task's log, the credential to the environment of its process alone.

    That is why it is no BashOperator: Airflow stores what an operator's `env` was. All threads of dbt open their
    sessions with the one credential, which must be younger than 60 minutes when a session is opened.
    """
    arguments = [executable, command, "--project-dir", PROJECT, "--profiles-dir", PROJECT]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(  # noqa: S603 - no shell, and the executable is what this Airflow's administrator says
            arguments,
            env={
                "DBT_LOG_PATH": folder,
                "DBT_TARGET_PATH": folder,
                **os.environ,
                **LakebaseHook().libpq_environment(),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                print(line, end="")
        except BaseException:  # a time-out, for example
            process.terminate()
            raise
    if process.returncode:
        raise RuntimeError(f"dbt {command} failed with exit code {process.returncode}")


with DAG(
    dag_id="dbt_flights",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    tags=["lakebase", "example", "dbt"],
):
    bootstrap_role = LakebaseRoleBootstrapOperator(
        task_id="bootstrap_role",
        lakebase_conn_id="lakebase_admin",
        identity="{{ conn.lakebase_default.login }}",
        create_on_database=True,
    )
    wait_for_endpoint = LakebaseEndpointSensor(
        task_id="wait_for_endpoint", mode="reschedule", poke_interval=15, timeout=300
    )
    seed, run, test = (
        dbt.override(task_id=f"dbt_{command}")(EXECUTABLE, command) for command in ("seed", "run", "test")
    )
    report = LakebaseSQLOperator(
        task_id="report",
        sql="SELECT airline, flights, late FROM dbt_flights.delays_by_airline ORDER BY late DESC, airline LIMIT 5",
    )

    bootstrap_role >> wait_for_endpoint >> seed >> run >> test >> report
