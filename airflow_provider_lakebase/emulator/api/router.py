"""The workspace API: finds the handler of each call, which reads or changes the workspace and returns JSON. No I/O."""

from __future__ import annotations

import uuid
from dataclasses import replace

from airflow_provider_lakebase.emulator.api import (
    branches,
    catalog,
    change_feeds,
    credentials,
    databases,
    endpoints,
    oauth,
    operations,
    permissions,
    pipelines,
    projects,
    roles,
    scim,
    snapshot_schedules,
    snapshots,
    synced_tables,
)
from airflow_provider_lakebase.emulator.api.access import require_project_of, require_workspace_access
from airflow_provider_lakebase.emulator.api.messages import Call, Reply
from airflow_provider_lakebase.emulator.api.routes import Table
from airflow_provider_lakebase.emulator.api.web_pages import web_page
from airflow_provider_lakebase.emulator.model.errors import ApiError, internal, not_imitated
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_ROUTES = Table(
    [
        *projects.ROUTES,
        *branches.ROUTES,
        *endpoints.ROUTES,
        *roles.ROUTES,
        *databases.ROUTES,
        *snapshots.ROUTES,
        *snapshot_schedules.ROUTES,
        *operations.ROUTES,
        *credentials.ROUTES,
        *permissions.ROUTES,
        *scim.ROUTES,
        *catalog.ROUTES,
        *synced_tables.ROUTES,
        *pipelines.ROUTES,
        *change_feeds.ROUTES,
    ]
)


def answer(workspace: Workspace, call: Call) -> Reply:
    """Answer one call."""
    workspace.expire()
    reply = _answer(workspace, call)
    if call.method != "GET":
        workspace.keep()
    return replace(reply, headers={"x-databricks-org-id": str(workspace.workspace_id), **reply.headers})


def _answer(workspace: Workspace, call: Call) -> Reply:
    caller: Principal | None = None
    try:
        if call.path in oauth.ROUTES:
            caller, body = oauth.ROUTES[call.path](workspace, call)
        elif (page := web_page(workspace, call.path)) and call.method == "GET":
            return Reply(200, page)
        else:
            caller = _caller(workspace, call)
            require_workspace_access(caller)
            found = _ROUTES.find(call)
            if found is None:
                raise not_imitated(f"{call.method} {call.path}")
            require_project_of(workspace, call, caller)
            handler, call = found
            body = handler(workspace, call, caller)
        return Reply(200, body, caller.client_id if caller else None)
    except ApiError as error:
        refusal = error
    except Exception as error:
        # A defect: without an answer, databricks-sdk would ask again for minutes.
        refusal = internal(error)
    return Reply(refusal.status, refusal.body, caller.client_id if caller else None)


def _caller(workspace: Workspace, call: Call) -> Principal:
    scheme, _, token = call.authorization.partition(" ")
    principal = workspace.identities.workspace_token_owner(token) if scheme.lower() == "bearer" else None
    if principal is None:
        raise ApiError(401, "UNAUTHENTICATED", f"Invalid access token. [ReqId: {uuid.uuid4()}]")
    return principal
