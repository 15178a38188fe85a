"""Snapshot schedules over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.snapshot_schedules.json(call.name)


def _update(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.snapshot_schedules.update(call.name, call.json(), call.query.get("update_mask")).json()


_ONE = "/api/2.0/postgres/{name=projects/*/branches/*/snapshot-schedule}"

ROUTES = [
    Route("GET", _ONE, _get),
    Route("PATCH", _ONE, _update),
]
