"""Synced tables over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.access import require_use_of_branch
from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.fields import required
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.missing_database import require_database
from airflow_provider_lakebase.emulator.model.operations import EMPTY
from airflow_provider_lakebase.emulator.model.synced_table import SyncedTable
from airflow_provider_lakebase.emulator.model.synced_table_spec import read_spec
from airflow_provider_lakebase.emulator.model.workspace import Workspace


def _create(workspace: Workspace, call: Call, caller: Principal) -> Json:
    table_id = required("synced_table_id", call.query.get("synced_table_id"))
    spec = read_spec(table_id, call.json(), workspace.postgres_catalogs.database_of(table_id.partition(".")[0]))
    branch = workspace.branches.require_ready(spec.branch)
    require_use_of_branch(workspace, branch.name, caller)
    tables = workspace.synced_tables

    def work() -> Json:
        require_database(
            workspace.clusters, branch.uid, spec.database, creator=caller, create_missing=spec.create_missing
        )
        return tables.provision(table, caller.role).json()

    with workspace.lock:
        table = tables.make(spec, branch.uid)
        return workspace.operations.submit(
            table.name,
            "create_synced_table",
            work,
            begin=lambda: tables.add(table),
            undo=lambda: tables.discard(table),
        ).json()


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return _require(workspace, call, caller).json()


def _delete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    table = _require(workspace, call, caller)

    def work() -> Json:
        workspace.synced_tables.delete(table)
        return EMPTY

    return workspace.operations.submit(table.name, "delete_synced_table", work).json()


def _require(workspace: Workspace, call: Call, caller: Principal) -> SyncedTable:
    table = workspace.synced_tables.require(call.name)
    require_use_of_branch(workspace, table.spec.branch, caller)
    return table


ROUTES = [
    Route("POST", "/api/2.0/postgres/synced_tables", _create),
    Route("GET", "/api/2.0/postgres/{name=synced_tables/*}", _get),
    Route("DELETE", "/api/2.0/postgres/{name=synced_tables/*}", _delete),
]
