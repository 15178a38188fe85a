"""An emulator with a catalog: publish sources, make synced tables and wait for their pipelines."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pyarrow
from _clients import open_session, workspace_client
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.postgres import (
    SyncedTable,
    SyncedTableState,
    SyncedTableSyncedTableSpec,
    SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy,
)
from psycopg import sql

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal

BRANCH = "projects/demo/branches/production"
Policy = SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy
State = SyncedTableState
Session = psycopg.Connection[Any]


class World:
    """An emulator, its administrator's client, and sessions of its identities. The Postgres schema is ``app``."""

    # Of all worlds: several in a process share an emulator, and each source has to be a new one.
    _numbers = itertools.count()

    def __init__(self, emulator: LakebaseEmulator) -> None:
        emulator.pipeline_seconds = 0.02
        self.emulator = emulator
        self.client = workspace_client(emulator)

    def connect(self, principal: Principal | None = None) -> Session:
        return open_session(self.emulator, principal)

    def make_role(self, session: Session, display_name: str) -> Principal:
        """Add a service principal with an ordinary role that may use the schema."""
        principal = self.emulator.add_principal(display_name)
        session.execute("SELECT databricks_create_role(%s::text, 'SERVICE_PRINCIPAL')", (principal.role,))
        session.execute(sql.SQL("GRANT USAGE ON SCHEMA app TO {}").format(sql.Identifier(principal.role)))
        return principal

    def publish(self, source: str, columns: dict[str, Any]) -> int:
        return self.emulator.publish(source, pyarrow.table(columns), change_data_feed=True)

    def source(self, columns: dict[str, Any]) -> str:
        """Publish a new source table, and return its name."""
        name = f"main.gold.source_{next(self._numbers)}"
        self.publish(name, columns)
        return name

    def create(self, source: str, client: WorkspaceClient | None = None, **changes: Any) -> SyncedTable:
        """Create a synced table, ``app.t_<number>`` in Postgres; return it when its operation has ended."""
        catalog, schema = changes.pop("catalog", "lake"), changes.pop("schema", "app")
        table = changes.pop("table", None) or f"t_{next(self._numbers)}"
        spec: dict[str, Any] = {
            "source_table_full_name": source,
            "primary_key_columns": ["id"],
            "scheduling_policy": Policy.SNAPSHOT,
            "branch": BRANCH,
            "postgres_database": "databricks_postgres",
            **changes,
        }
        postgres = (client or self.client).postgres
        request = SyncedTable(spec=SyncedTableSyncedTableSpec(**spec))
        return postgres.create_synced_table(request, f"{catalog}.{schema}.{table}").wait()

    def settled(self, source: str, **changes: Any) -> SyncedTable:
        """Create a synced table, and return it when its first update has ended."""
        return self.settle(self.create(source, **changes))

    def settle(self, table: SyncedTable) -> SyncedTable:
        """Wait until the table's pipeline is idle, or until a continuous one streams."""
        while True:
            found = self.client.postgres.get_synced_table(str(table.name))
            assert found.status
            updates = self.client.pipelines.get(str(found.status.pipeline_id)).latest_updates or []
            ended = updates[0].state and updates[0].state.value in ("COMPLETED", "FAILED", "CANCELED")
            if ended or found.status.detailed_state == State.SYNCED_TABLE_ONLINE_CONTINUOUS_UPDATE:
                return self.client.postgres.get_synced_table(str(table.name))
            time.sleep(0.01)

    def version(self, table: SyncedTable) -> int | None:
        """Return the source's version that the table has now."""
        status = self.client.postgres.get_synced_table(str(table.name)).status
        return status.last_processed_commit_version if status else None

    def refresh(self, table: SyncedTable, **options: Any) -> SyncedTable:
        assert table.status
        self.client.pipelines.start_update(str(table.status.pipeline_id), **options)
        return self.settle(table)


def postgres_name(table: SyncedTable) -> sql.Identifier:
    return sql.Identifier(*str(table.name).removeprefix("synced_tables/").split(".")[1:])


def rows(session: Session, table: SyncedTable) -> list[tuple[Any, ...]]:
    return session.execute(sql.SQL("SELECT * FROM {} ORDER BY 1").format(postgres_name(table))).fetchall()


def run(session: Session, statement: str, table: SyncedTable) -> None:
    session.execute(sql.SQL(statement).format(postgres_name(table)))  # type: ignore[arg-type]


def state(table: SyncedTable) -> str:
    assert table.status and table.status.detailed_state
    return table.status.detailed_state.value.removeprefix("SYNCED_TABLE_")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
