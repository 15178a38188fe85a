"""Start a run when new orders are in a table, each order once: an asset with a watcher, for Airflow 3.

The triggerer asks for orders that nobody has taken and marks them in the same transaction, so that none is told of
twice. The table is made by the DAG's first run, started by hand; until then the watcher logs that it tries again. The
role of `lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import datetime

from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.triggers.query import LakebaseQueryTrigger

# [START watcher]
new_orders = Asset(
    "new_orders",
    watchers=[
        AssetWatcher(
            name="orders",
            trigger=LakebaseQueryTrigger(
                "SELECT id FROM new_orders.orders WHERE taken_at IS NULL ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED",
                mark="UPDATE new_orders.orders SET taken_at = now() WHERE id = ANY(%(taken)s)",
                poll_interval=60,
                only_when_awake=True,
            ),
        )
    ],
)
# [END watcher]

with DAG(
    dag_id="new_orders",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=[new_orders],
    catchup=False,
    tags=["lakebase", "example"],
):
    create_table = LakebaseSQLOperator(
        task_id="create_table",
        sql="""
            CREATE SCHEMA IF NOT EXISTS new_orders;
            CREATE TABLE IF NOT EXISTS new_orders.orders (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount numeric NOT NULL,
                taken_at timestamptz, shipped_at timestamptz
            )
        """,
    )
    ship = LakebaseSQLOperator(
        task_id="ship",
        sql="UPDATE new_orders.orders SET shipped_at = now() WHERE taken_at IS NOT NULL AND shipped_at IS NULL",
    )

    create_table >> ship
