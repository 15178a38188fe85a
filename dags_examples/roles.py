"""Give an owner, a loader and a reader exactly what they need in a database of their own, and retire an old identity.

Four connections: `lakebase_admin`, an identity that may make roles; `lakebase_owner`, whose role owns the tables;
`lakebase_default`, which loads; and `lakebase_reader`. The params name the service principal that did the work before,
and the endpoint of a branch to try all of it on. A run can be repeated: the second one changes nothing.
"""

from __future__ import annotations

import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lakebase.operators.database import LakebaseCreateDatabaseOperator
from airflow_provider_lakebase.operators.role import LakebaseDropRoleOperator, LakebaseRoleBootstrapOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

ADMIN = {"lakebase_conn_id": "lakebase_admin"}
PLACE = {"endpoint": "{{ params.endpoint }}", "database": "{{ params.database }}"}
OWNER = "{{ conn.lakebase_owner.login }}"

with DAG(
    dag_id="roles",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    # Without an endpoint, it is that of the connections.
    params={"database": "shop", "endpoint": "", "retired": "00000000-0000-0000-0000-000000000000"},
    tags=["lakebase", "example"],
):
    # [START database]
    create_database = LakebaseCreateDatabaseOperator(
        task_id="create_database",
        **ADMIN,
        database="{{ params.database }}",
        branch="{{ params.endpoint or conn.lakebase_admin.extra_dejson.endpoint }}",
    )
    # [END database]
    # [START roles]
    owner = LakebaseRoleBootstrapOperator(
        task_id="owner", **ADMIN, **PLACE, identity=OWNER, schemas=[], owned_schemas=["sales"], ledger_schema=None
    )
    loader = LakebaseRoleBootstrapOperator(
        task_id="loader",
        **ADMIN,
        **PLACE,
        identity="{{ conn.lakebase_default.login }}",
        schemas={"sales": "write"},
        created_by=[OWNER],
        ledger_schema=None,
    )
    reader = LakebaseRoleBootstrapOperator(
        task_id="reader",
        **ADMIN,
        **PLACE,
        identity="{{ conn.lakebase_reader.login }}",
        schemas={"sales": "read"},
        created_by=[OWNER],
        ledger_schema=None,
        prune=True,
    )
    # [END roles]
    # [START drop]
    retire = LakebaseDropRoleOperator(
        task_id="retire", **ADMIN, **PLACE, identity="{{ params.retired }}", reassign_owned_to=OWNER
    )
    # [END drop]
    create_table = LakebaseSQLOperator(
        task_id="create_table",
        **PLACE,
        lakebase_conn_id="lakebase_owner",
        sql="CREATE TABLE IF NOT EXISTS sales.orders (id serial PRIMARY KEY, amount numeric NOT NULL)",
    )
    load = LakebaseSQLOperator(
        task_id="load",
        **PLACE,
        sql="INSERT INTO sales.orders (amount) SELECT amount FROM generate_series(1, 10) amount",
    )
    read = LakebaseSQLOperator(
        task_id="read",
        **PLACE,
        lakebase_conn_id="lakebase_reader",
        sql="SELECT count(*), sum(amount) FROM sales.orders",
    )

    create_database >> owner >> [loader, reader, retire]
    [loader, reader] >> create_table >> load >> read
