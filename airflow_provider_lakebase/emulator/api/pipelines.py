"""The pipelines of synced tables over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json, not_imitated
from airflow_provider_lakebase.emulator.model.fields import read_flag, read_object
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_PIPELINE = "/api/2.0/pipelines/{pipeline=*}"


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.pipelines.require(call.values["pipeline"]).json()


def _start_update(workspace: Workspace, call: Call, caller: Principal) -> Json:
    pipeline = workspace.pipelines.require(call.values["pipeline"])
    # "development" says how the service runs the update, and changes nothing here.
    body = read_object("update", call.json(), {"full_refresh", "cause", "development"})
    update = workspace.pipelines.start(
        pipeline,
        full_refresh=read_flag("full_refresh", body.get("full_refresh", False)),
        cause=str(body.get("cause", "API_CALL")),
    )
    return {"update_id": update.update_id}


def _get_update(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return {"update": workspace.pipelines.update(call.values["pipeline"], call.values["update"]).json()}


def _list_updates(workspace: Workspace, call: Call, caller: Principal) -> Json:
    for option in ("max_results", "page_token", "until_update_id"):
        if option in call.query:
            raise not_imitated(f"the parameter '{option}'")
    return {"updates": [update.json() for update in workspace.pipelines.require(call.values["pipeline"]).updates]}


def _stop(workspace: Workspace, call: Call, caller: Principal) -> Json:
    workspace.pipelines.stop(workspace.pipelines.require(call.values["pipeline"]))
    return {}


ROUTES = [
    Route("GET", _PIPELINE, _get),
    Route("POST", f"{_PIPELINE}/updates", _start_update),
    Route("GET", f"{_PIPELINE}/updates", _list_updates),
    Route("GET", f"{_PIPELINE}/updates/{{update=*}}", _get_update),
    Route("POST", f"{_PIPELINE}/stop", _stop),
]
