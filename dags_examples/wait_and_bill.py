"""Wait, without a worker slot, until the day's orders are complete, then bill them once.

Both tasks wait in the triggerer. The sensor asks a query; the bill is one transaction, whose commit also enters the
task into the ledger, so that it is written once though the triggerer dies, the task is retried or cleared. The role of
`lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.query import LakebaseQuerySensor

with DAG(
    dag_id="wait_and_bill",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"day": "2026-01-01"},
    tags=["lakebase", "example"],
):
    # In earnest an application writes the orders, and says when it has written all of a day.
    create_orders = LakebaseSQLOperator(
        task_id="create_orders",
        sql="""
            CREATE SCHEMA IF NOT EXISTS billing;
            CREATE TABLE IF NOT EXISTS billing.orders (day date, amount numeric NOT NULL);
            CREATE TABLE IF NOT EXISTS billing.complete_days (day date PRIMARY KEY);
            CREATE TABLE IF NOT EXISTS billing.bills (day date, orders bigint NOT NULL, amount numeric);
            INSERT INTO billing.orders VALUES ('{{ params.day }}', 12.50), ('{{ params.day }}', 30);
            INSERT INTO billing.complete_days VALUES ('{{ params.day }}') ON CONFLICT DO NOTHING;
        """,
    )
    # [START sensor]
    wait_for_orders = LakebaseQuerySensor(
        task_id="wait_for_orders",
        sql="SELECT count(*) > 0 FROM billing.complete_days WHERE day = %(day)s",
        parameters={"day": "{{ params.day }}"},
        only_when_awake=True,
        deferrable=True,
        poke_interval=60,
        timeout=6 * 3600,
    )
    # [END sensor]
    # [START bill]
    bill = LakebaseSQLOperator(
        task_id="bill",
        sql="""
            INSERT INTO billing.bills
            SELECT day, count(*), sum(amount) FROM billing.orders WHERE day = %(day)s GROUP BY day
        """,
        parameters={"day": "{{ params.day }}"},
        deferrable=True,
        ledger_schema="airflow_lakebase",
    )
    # [END bill]
    report = LakebaseSQLOperator(task_id="report", sql="SELECT day, orders, amount FROM billing.bills ORDER BY day")

    create_orders >> wait_for_orders >> bill >> report
