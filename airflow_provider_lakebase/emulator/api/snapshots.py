"""Snapshots over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.paging import page
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace


def _create(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.snapshots.create(call.parent, call.query.get("snapshot_id"), call.json()).json()


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.snapshots.require(call.name).json()


def _list(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return page(call, "snapshots", [each.json() for each in workspace.snapshots.of(call.parent)])


def _delete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.snapshots.delete(call.name).json()


_ALL = "/api/2.0/postgres/{parent=projects/*}/snapshots"
_ONE = "/api/2.0/postgres/{name=projects/*/snapshots/*}"

ROUTES = [
    Route("POST", _ALL, _create),
    Route("GET", _ALL, _list),
    Route("GET", _ONE, _get),
    Route("DELETE", _ONE, _delete),
]
