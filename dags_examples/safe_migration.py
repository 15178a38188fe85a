"""Take a snapshot before a migration, and if a check fails afterwards, make a branch that shows how it was.

The snapshot is of the whole branch and expires after a week. To go back, point the application to the branch that was
made from it, or copy rows from there. The role of `lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import datetime

from airflow.providers.common.compat.sdk import DAG, TriggerRule
from airflow.providers.common.sql.operators.sql import SQLTableCheckOperator

from airflow_provider_lakebase.operators.branch import LakebaseCreateBranchOperator
from airflow_provider_lakebase.operators.snapshot import LakebaseCreateSnapshotOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

with DAG(
    dag_id="safe_migration",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"migration": "UPDATE safe_migration.prices SET price = price * 1.02"},
    tags=["lakebase", "example"],
):
    # In earnest an application has made the table.
    create_table = LakebaseSQLOperator(
        task_id="create_table",
        sql="""
            CREATE SCHEMA IF NOT EXISTS safe_migration;
            DROP TABLE IF EXISTS safe_migration.prices;
            CREATE TABLE safe_migration.prices AS SELECT id, 10.0 * id AS price FROM generate_series(1, 10) AS id
        """,
    )
    # [START migration]
    snapshot = LakebaseCreateSnapshotOperator(task_id="snapshot", ttl=datetime.timedelta(days=7))
    migrate = LakebaseSQLOperator(task_id="migrate", sql="{{ params.migration }}")
    check = SQLTableCheckOperator(
        task_id="check",
        conn_id="lakebase_default",
        table="safe_migration.prices",
        checks={"no_price_is_lost": {"check_statement": "count(price) = count(*) AND min(price) > 0"}},
    )
    show_before = LakebaseCreateBranchOperator(
        task_id="show_before", source_snapshot=snapshot.output["snapshot"], ttl=datetime.timedelta(days=2)
    )
    # Airflow leaves teardowns out when it says whether a run has failed: this one does not turn it green.
    show_before.as_teardown()
    show_before.trigger_rule = TriggerRule.ONE_FAILED
    # [END migration]

    create_table >> snapshot >> migrate >> check >> show_before
