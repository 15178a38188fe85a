"""Run a dbt project on Lakebase with Astronomer Cosmos: one Airflow task for each seed and model.

Cosmos and dbt stand beside Airflow here: `pip install 'airflow-provider-lakebase[cosmos,dbt]'`. Where dbt cannot share
Airflow's environment, dbt_flights.py shows how to run it in one of its own. The project is that of dbt_flights.py. Two
connections: `lakebase_admin`, an identity that may make roles, and `lakebase_default`, the service principal that does
the work. Each table that dbt writes is an event of its asset, and starts a second DAG.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG
from cosmos import DbtTaskGroup, ExecutionConfig, ExecutionMode, LoadMode, ProfileConfig, ProjectConfig, RenderConfig

from airflow_provider_lakebase.assets import create_asset
from airflow_provider_lakebase.cosmos import LakebaseProfileMapping
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

DELAYS = create_asset(
    host=os.environ.get("LAKEBASE_WORKSPACE", "my-workspace.cloud.databricks.com"),
    project="demo",
    branch="production",
    schema="dbt_cosmos",
    table="delays_by_airline",
)

with DAG(
    dag_id="dbt_cosmos",
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
    flights = DbtTaskGroup(
        group_id="flights",
        project_config=ProjectConfig(Path(__file__).with_name("dbt_flights")),
        profile_config=ProfileConfig(
            profile_name="lakebase",
            target_name="airflow",
            profile_mapping=LakebaseProfileMapping(
                "lakebase_default", profile_args={"schema": "dbt_cosmos", "threads": 4}
            ),
        ),
        execution_config=ExecutionConfig(execution_mode=ExecutionMode.WATCHER),
        render_config=RenderConfig(load_method=LoadMode.CUSTOM),
    )
    bootstrap_role >> flights

with DAG(
    dag_id="dbt_cosmos_report",
    description="Read what dbt_cosmos wrote, whenever it has",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=[DELAYS],
    catchup=False,
    tags=["lakebase", "example", "dbt"],
):
    LakebaseSQLOperator(
        task_id="report",
        sql="SELECT airline, flights, late FROM dbt_cosmos.delays_by_airline ORDER BY late DESC, airline LIMIT 5",
    )
