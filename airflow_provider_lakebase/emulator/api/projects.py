"""Projects over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.paging import page
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.permissions import CAN_USE
from airflow_provider_lakebase.emulator.model.workspace import Workspace


def _create(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.projects.create(call.query.get("project_id"), call.json(), caller).json()


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.projects.require(call.name).json()


def _list(workspace: Workspace, call: Call, caller: Principal) -> Json:
    show_deleted = call.flag("show_deleted")
    usable = [each for each in workspace.projects.values() if each.access.allows(caller, CAN_USE)]
    return page(call, "projects", [each.json() for each in usable if show_deleted or each.deleted_at is None])


def _update(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.projects.update(call.name, call.json(), call.query.get("update_mask")).json()


def _delete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.projects.delete(call.name, purge=call.flag("purge")).json()


def _undelete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.projects.undelete(call.name).json()


_ALL = "/api/2.0/postgres/projects"
_ONE = "/api/2.0/postgres/{name=projects/*}"

ROUTES = [
    Route("POST", _ALL, _create),
    Route("GET", _ALL, _list),
    Route("GET", _ONE, _get),
    Route("PATCH", _ONE, _update),
    Route("DELETE", _ONE, _delete),
    Route("POST", f"{_ONE}/undelete", _undelete),
]
