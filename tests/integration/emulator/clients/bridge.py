"""databricks-ai-bridge: its pools, its SQLAlchemy engine, and its client that makes roles and grants."""

import asyncio
import os

import databricks_ai_bridge.lakebase as bridge
from databricks.sdk import WorkspaceClient
from sqlalchemy import text

ENDPOINT, READER = os.environ["LAKEBASE_ENDPOINT"], os.environ["READER"]
# It has no setting for the port. This changes nothing if the emulator could have 5432.
bridge.DEFAULT_PORT = int(os.environ["PGPORT"])
workspace = WorkspaceClient()


def pools() -> None:
    for place in (
        {"autoscaling_endpoint": ENDPOINT},
        {"project": "demo", "branch": "production"},
        {"branch": "projects/demo/branches/production"},
    ):
        pool = bridge.LakebasePool(workspace_client=workspace, **place)
        with pool.connection() as connection:
            row = connection.execute("SELECT session_user AS name").fetchone()
        pool.close()
        assert row["name"] == workspace.config.client_id, row


async def asynchronous() -> None:
    async with bridge.AsyncLakebasePool(autoscaling_endpoint=ENDPOINT, workspace_client=workspace) as pool:
        async with pool.connection() as connection:
            assert await (await connection.execute("SELECT 2 AS n")).fetchall() == [{"n": 2}]
    engine = bridge.AsyncLakebaseSQLAlchemy(autoscaling_endpoint=ENDPOINT, workspace_client=workspace).engine
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 3"))).scalar() == 3
    await engine.dispose()


def roles_and_grants() -> None:
    with bridge.LakebaseClient(autoscaling_endpoint=ENDPOINT, workspace_client=workspace) as client:
        client.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        client.execute("CREATE SCHEMA bridge")
        client.execute("CREATE TABLE bridge.item (id serial PRIMARY KEY)")
        client.create_role(READER, "SERVICE_PRINCIPAL")
        client.grant_schema(READER, [bridge.SchemaPrivilege.USAGE], ["bridge"])
        client.grant_all_tables_in_schema(READER, [bridge.TablePrivilege.SELECT], ["bridge"])
        client.grant_all_sequences_in_schema(READER, [bridge.SequencePrivilege.USAGE], ["bridge"])
        (row,) = client.execute("SELECT has_table_privilege(%s, 'bridge.item', 'SELECT') AS may", (READER,))
        assert row["may"] is True


pools()
asyncio.run(asynchronous())
roles_and_grants()
