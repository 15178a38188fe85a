"""The resources of the workspace API as JSON."""

from __future__ import annotations

import datetime

from airflow_provider_lakebase.emulator.api.messages import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, PROJECT, READ_ONLY, Endpoint, State


def timestamp(seconds: float) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def me(principal: Principal) -> Json:
    """Return an identity as the SCIM API ``Me`` does."""
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": principal.scim_id,
        "userName": principal.role,
        "displayName": principal.display_name,
        "active": True,
        "entitlements": [{"value": "workspace-access"}],
    }


def project(state: State) -> Json:
    """Return the project's JSON."""
    return {
        **_common(PROJECT, state.project_uid, state.created_at),
        "status": {
            "default_branch": BRANCH,
            "display_name": PROJECT.split("/")[-1],
            "pg_version": state.postgres_version,
            "owner": state.owner,
            "enable_pg_native_login": state.behaviour.native_login,
            "history_retention_duration": "604800s",
            "branch_logical_size_limit_bytes": 8 * 2**40,
            "synthetic_storage_size_bytes": 0,
            "default_endpoint_settings": {
                "autoscaling_limit_min_cu": 1,
                "autoscaling_limit_max_cu": 1,
                "suspend_timeout_duration": _duration(state.suspend_timeout),
            },
        },
    }


def branch(state: State, name: str) -> Json:
    """Return a branch's JSON."""
    return {
        **_common(name, state.branches[name], state.created_at),
        "status": {
            "current_state": "READY",
            "default": name == BRANCH,
            "is_protected": False,
            "logical_size_bytes": 0,
            "state_change_time": timestamp(state.created_at),
        },
    }


def endpoint(endpoint: Endpoint) -> Json:
    """Return an endpoint's JSON, with its current state."""
    view = endpoint.view
    has_secondary = endpoint.endpoint_type != READ_ONLY and endpoint.read_only_address is not None
    computes = 2 if has_secondary else 1
    status: Json = {
        "endpoint_type": endpoint.endpoint_type,
        "current_state": view.state,
        "disabled": view.disabled,
        "autoscaling_limit_min_cu": 1,
        "autoscaling_limit_max_cu": 1,
        "suspend_timeout_duration": _duration(endpoint.suspend_timeout),
        "last_active_time": timestamp(view.last_active_at),
        "hosts": _hosts(endpoint),
        "group": {"min": computes, "max": computes, "enable_readable_secondaries": has_secondary},
        "settings": {},
    }
    if view.state == "INIT":
        status["pending_state"] = "ACTIVE"
    return {
        **_common(endpoint.name, endpoint.uid, endpoint.created_at),
        "update_time": timestamp(view.updated_at),
        "status": status,
    }


def page(state: State, path: str) -> str | None:
    """Return an HTML page for the web address of a project or branch; None for any other path."""
    project = f"/lakebase/projects/{state.project_uid}"
    pages = {project: PROJECT}
    for name, uid in state.branches.items():
        pages |= {f"{project}/branches/{uid}": name, f"{project}/branches/{uid}/sql-editor": f"SQL editor of {name}"}
    title = pages.get(path)
    return (
        title
        and f"<!doctype html><title>Lakebase emulator</title><h1>{title}</h1><p>A real workspace shows its page here."
    )


def _hosts(endpoint: Endpoint) -> Json:
    pooled = "read_only_pooled_host" if endpoint.endpoint_type == READ_ONLY else "read_write_pooled_host"
    hosts = {"host": endpoint.host, pooled: endpoint.pooled_host}
    if endpoint.read_only_address:
        hosts["read_only_host"] = endpoint.read_only_address
    return hosts


def _common(name: str, uid: str, created_at: float) -> Json:
    """Return the fields that every resource has: names, times, and the ID under a key such as ``branch_id``."""
    parent, kind, resource_id = ([""] + name.rsplit("/", 2))[-3:]
    id_field = {"projects": "project_id", "branches": "branch_id", "endpoints": "endpoint_id"}[kind]
    common = {
        "name": name,
        "uid": uid,
        id_field: resource_id,
        "create_time": timestamp(created_at),
        "update_time": timestamp(created_at),
    }
    return {**common, "parent": parent} if parent else common


def _duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds != int(seconds) else f"{int(seconds)}s"
