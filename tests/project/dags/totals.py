from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

TABLE = "CREATE SCHEMA IF NOT EXISTS totals; CREATE TABLE IF NOT EXISTS totals.days (day date PRIMARY KEY)"
DAY = "INSERT INTO totals.days VALUES ('2026-11-01') ON CONFLICT DO NOTHING"

with DAG("totals", schedule=None, start_date=datetime(2026, 11, 1)) as dag:
    LakebaseSQLOperator(task_id="table", sql=TABLE) >> LakebaseSQLOperator(task_id="day", sql=DAY)
