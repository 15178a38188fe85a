"""Endpoints over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.paging import page
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace


def _create(workspace: Workspace, call: Call, caller: Principal) -> Json:
    endpoint_id, replace = call.query.get("endpoint_id"), call.flag("replace_existing")
    return workspace.endpoints.create(call.parent, endpoint_id, call.json(), replace_existing=replace).json()


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.endpoints.require_of(call.name).json()


def _list(workspace: Workspace, call: Call, caller: Principal) -> Json:
    workspace.branches.require_ready(call.parent)
    return page(call, "endpoints", [each.json() for each in workspace.endpoints.of(call.parent)])


def _update(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.endpoints.update(call.name, call.json(), call.query.get("update_mask")).json()


def _delete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.endpoints.delete(call.name).json()


_ALL = "/api/2.0/postgres/{parent=projects/*/branches/*}/endpoints"
_ONE = "/api/2.0/postgres/{name=projects/*/branches/*/endpoints/*}"

ROUTES = [
    Route("POST", _ALL, _create),
    Route("GET", _ALL, _list),
    Route("GET", _ONE, _get),
    Route("PATCH", _ONE, _update),
    Route("DELETE", _ONE, _delete),
]
