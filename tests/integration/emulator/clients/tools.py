"""dbx-tools-postgres: what it finds by itself, both engines, locks, and messages by LISTEN and NOTIFY."""

import asyncio

from databricks.sdk import WorkspaceClient
from dbx_tools.postgres.advisory_lock import advisory_lock, try_advisory_lock
from dbx_tools.postgres.engine import PostgresEngineConfig, create_async_engine, create_engine
from dbx_tools.postgres.topic_bus import PostgresTopicBus
from sqlalchemy import text

workspace = WorkspaceClient()
engine = create_engine(workspace, PostgresEngineConfig())
with engine.connect() as connection:
    assert connection.execute(text("SELECT session_user")).scalar() == workspace.config.client_id
with advisory_lock(engine, "load"), try_advisory_lock(engine, "load") as second:
    assert second is None


async def messages() -> None:
    asynchronous = create_async_engine(workspace, PostgresEngineConfig())
    bus = PostgresTopicBus(asynchronous)
    await bus.start()
    received: asyncio.Queue = asyncio.Queue()
    await bus.listen("loads", received.put_nowait)
    await bus.broadcast("loads", {"type": "loaded", "body": {"rows": 3}})
    message = await asyncio.wait_for(received.get(), 10)
    assert (message.type, message.body) == ("loaded", {"rows": 3}), message
    await bus.close()
    await asynchronous.dispose()


asyncio.run(messages())
