"""Replace a synced table when its source or its key changes, with the indexes, grants and views of its Postgres table.

The parameters say what the table shall be. A run that finds it so changes nothing. The identity creates the synced
table, so it may index it and grant on it.
"""

from __future__ import annotations

import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.sql.operators.sql import SQLTableCheckOperator

from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.operators.synced_table import LakebaseCreateSyncedTableOperator

with DAG(
    dag_id="schema_change",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"synced_table": "lake.serving.orders", "source": "main.gold.orders", "key": "id"},
    tags=["lakebase", "example"],
):
    # [START create]
    create = LakebaseCreateSyncedTableOperator(
        task_id="create",
        synced_table="{{ params.synced_table }}",
        source="{{ params.source }}",
        key_columns=["{{ params.key }}"],
        policy="snapshot",
        indexes={"orders_by_customer": "(customer_id)"},
        grants={"PUBLIC": ["SELECT"]},
        on_change="recreate",
    )
    # [END create]
    # A later replacement remembers this view, and puts it back.
    view = LakebaseSQLOperator(
        task_id="view",
        sql=[
            "GRANT USAGE ON SCHEMA serving TO PUBLIC",
            "CREATE OR REPLACE VIEW serving.orders_of_customers AS "
            "SELECT customer_id, count(*) AS orders FROM serving.orders GROUP BY customer_id",
        ],
    )
    check = SQLTableCheckOperator(
        task_id="check",
        conn_id="lakebase_default",
        table="serving.orders_of_customers",
        checks={"has_orders": {"check_statement": "sum(orders) > 0"}},
    )
    create >> view >> check
