"""Bring a synced table to the version of its gold table that a job has written, index it, and check it.

The synced table is there already, made once in Unity Catalog from the gold table. Its owner runs this DAG: only the
owner may index it.
"""

from __future__ import annotations

import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.sql.operators.sql import SQLTableCheckOperator

from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.operators.synced_table import LakebaseSyncTableOperator

with DAG(
    dag_id="publish_gold",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"synced_table": "lake.gold.orders", "version": 0},
    tags=["lakebase", "example"],
):
    # [START sync]
    # The job that writes the gold table knows the version that it has committed.
    sync = LakebaseSyncTableOperator(
        task_id="sync", synced_table="{{ params.synced_table }}", version="{{ params.version }}"
    )
    # A rebuild of the table drops its indexes.
    index = LakebaseSQLOperator(
        task_id="index", sql="CREATE INDEX IF NOT EXISTS orders_by_customer ON gold.orders (customer_id)"
    )
    check = SQLTableCheckOperator(
        task_id="check",
        conn_id="lakebase_default",
        table="gold.orders",
        checks={"has_orders": {"check_statement": "count(*) > 0"}},
    )
    sync >> index >> check
    # [END sync]
