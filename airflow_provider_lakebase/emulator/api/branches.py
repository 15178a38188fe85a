"""Branches over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.paging import page
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace


def _create(workspace: Workspace, call: Call, caller: Principal) -> Json:
    branch_id, replace = call.query.get("branch_id"), call.flag("replace_existing")
    return workspace.branches.create(call.parent, branch_id, call.json(), replace_existing=replace).json()


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.branches.json(workspace.branches.require(call.name))


def _list(workspace: Workspace, call: Call, caller: Principal) -> Json:
    show_deleted = call.flag("show_deleted")
    found = [each for each in workspace.branches.of(call.parent) if show_deleted or each.deleted_at is None]
    return page(call, "branches", [workspace.branches.json(each) for each in found])


def _update(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.branches.update(call.name, call.json(), call.query.get("update_mask")).json()


def _delete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.branches.delete(call.name, purge=call.flag("purge")).json()


def _undelete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.branches.undelete(call.name).json()


_ALL = "/api/2.0/postgres/{parent=projects/*}/branches"
_ONE = "/api/2.0/postgres/{name=projects/*/branches/*}"

ROUTES = [
    Route("POST", _ALL, _create),
    Route("GET", _ALL, _list),
    Route("GET", _ONE, _get),
    Route("PATCH", _ONE, _update),
    Route("DELETE", _ONE, _delete),
    Route("POST", f"{_ONE}/undelete", _undelete),
]
