"""Load orders, wait until a change feed has written them to Unity Catalog, and hand on to what reads them there.

The role of `lakebase_default` is there already: flights_etl shows how. It may create the tables of the feed in Unity
Catalog.
"""

from __future__ import annotations

import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.operators.change_feed import LakebaseCreateChangeFeedOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.change_feed import LakebaseChangeFeedSensor


@task
def hand_on(catalog: str, schema: str) -> str:
    """Return the table that has the changes. In earnest this task starts the job that reads it."""
    return f"{catalog}.{schema}.lb_orders_history"


with DAG(
    dag_id="back_to_the_lakehouse",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"catalog": "main", "schema": "history"},
    tags=["lakebase", "example"],
):
    create_table = LakebaseSQLOperator(
        task_id="create_table",
        sql="""
            CREATE SCHEMA IF NOT EXISTS back_to_the_lakehouse;
            CREATE TABLE IF NOT EXISTS back_to_the_lakehouse.orders (id int PRIMARY KEY, amount numeric)
        """,
    )
    # [START feed]
    feed = LakebaseCreateChangeFeedOperator(
        task_id="feed",
        postgres_schema="back_to_the_lakehouse",
        catalog="{{ params.catalog }}",
        schema="{{ params.schema }}",
        set_replica_identity=True,
    )
    # [END feed]
    # [START wait]
    load = LakebaseSQLOperator(
        task_id="load",
        # The last statement, in the same transaction, returns the number that the feed has to reach.
        sql="""
            INSERT INTO back_to_the_lakehouse.orders SELECT id, 10.0 * id FROM generate_series(1, 10) AS id
            ON CONFLICT (id) DO UPDATE SET amount = excluded.amount + 1;
            SELECT pg_current_wal_insert_lsn()::text
        """,
        split_statements=True,
    )
    wait = LakebaseChangeFeedSensor(
        task_id="wait",
        change_feed="back_to_the_lakehouse",
        tables=["orders"],
        lsn="{{ ti.xcom_pull(task_ids='load')[0][0] }}",
        poke_interval=5,
        timeout=3600,
    )
    # [END wait]

    create_table >> feed >> load >> wait >> hand_on("{{ params.catalog }}", "{{ params.schema }}")
