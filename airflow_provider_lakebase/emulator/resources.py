"""How the workspace API shows its resources: state in, JSON out."""

from __future__ import annotations

import datetime
from typing import Any

from airflow_provider_lakebase.emulator.gate import HOST, POOLED_HOST
from airflow_provider_lakebase.emulator.state import BRANCH, ENDPOINT, PROJECT, Principal, State

Json = dict[str, Any]


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as RFC 3339 in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def me(principal: Principal) -> Json:
    """Return an identity as SCIM shows it to itself."""
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": principal.scim_id,
        "userName": principal.role,
        "displayName": principal.display_name,
        "active": True,
        "entitlements": [{"value": "workspace-access"}],
    }


def project(state: State) -> Json:
    """Return the project."""
    return {
        **_common(state, PROJECT, state.project_uid),
        "status": {
            "default_branch": BRANCH,
            "display_name": PROJECT.split("/")[-1],
            "pg_version": state.postgres_version,
            "owner": state.owner,
            "enable_pg_native_login": False,
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


def branch(state: State) -> Json:
    """Return the branch."""
    return {
        **_common(state, BRANCH, state.branch_uid),
        "status": {
            "current_state": "READY",
            "default": True,
            "is_protected": False,
            "logical_size_bytes": 0,
            "state_change_time": timestamp(state.created_at),
        },
    }


def endpoint(state: State) -> Json:
    """Return the endpoint with the state it is in."""
    view = state.endpoint
    status: Json = {
        "endpoint_type": "ENDPOINT_TYPE_READ_WRITE",
        "current_state": view.state,
        "disabled": view.disabled,
        "autoscaling_limit_min_cu": 1,
        "autoscaling_limit_max_cu": 1,
        "suspend_timeout_duration": _duration(state.suspend_timeout),
        "last_active_time": timestamp(view.last_active_at),
        "hosts": {"host": HOST, "read_write_pooled_host": POOLED_HOST},
        "group": {"min": 1, "max": 1, "enable_readable_secondaries": False},
        "settings": {},
    }
    if view.state == "INIT":
        status["pending_state"] = "ACTIVE"
    return {
        **_common(state, ENDPOINT, state.endpoint_uid),
        "update_time": timestamp(view.updated_at),
        "status": status,
    }


def _common(state: State, name: str, uid: str) -> Json:
    """Return the fields that every resource has; its ID stands beside them under the name of its kind."""
    parent, kind, resource_id = ([""] + name.rsplit("/", 2))[-3:]
    id_field = {"projects": "project_id", "branches": "branch_id", "endpoints": "endpoint_id"}[kind]
    common = {
        "name": name,
        "uid": uid,
        id_field: resource_id,
        "create_time": timestamp(state.created_at),
        "update_time": timestamp(state.created_at),
    }
    return {**common, "parent": parent} if parent else common


def _duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds != int(seconds) else f"{int(seconds)}s"
