"""The permissions on projects over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.access import require_level
from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, invalid
from airflow_provider_lakebase.emulator.model.fields import read_object, read_objects
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.permissions import CAN_MANAGE, CAN_USE, LEVELS
from airflow_provider_lakebase.emulator.model.projects import Project
from airflow_provider_lakebase.emulator.model.resources import id_of
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_NAMES = {"SERVICE_PRINCIPAL": "service_principal_name", "USER": "user_name", "GROUP": "group_name"}
_MEANINGS = {
    "CAN_CREATE": "Can create projects",
    "CAN_USE": "Can use the project's resources",
    "CAN_MANAGE": "Can manage the project's resources and permissions",
}


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    project = workspace.projects.require_ready(f"projects/{call.values['id']}")
    require_level(caller, project, CAN_USE)
    return _json(project)


def _levels(workspace: Workspace, call: Call, caller: Principal) -> Json:
    workspace.projects.require_ready(f"projects/{call.values['id']}")
    return {"permission_levels": [{"permission_level": each, "description": _MEANINGS[each]} for each in LEVELS]}


def _set(workspace: Workspace, call: Call, caller: Principal) -> Json:
    """Replace all permissions."""
    project, levels = _change(workspace, call, caller)
    project.access.replace({principal.client_id: level for principal, level in levels})
    return _json(project)


def _update(workspace: Workspace, call: Call, caller: Principal) -> Json:
    """Add permissions to those that are there."""
    project, levels = _change(workspace, call, caller)
    for principal, level in levels:
        project.access.grant(principal, level)
    return _json(project)


def _change(workspace: Workspace, call: Call, caller: Principal) -> tuple[Project, list[tuple[Principal, str]]]:
    project = workspace.projects.require_ready(f"projects/{call.values['id']}")
    require_level(caller, project, CAN_MANAGE)
    body = read_object("permissions", call.json(), {"access_control_list"})
    known = {*_NAMES.values(), "permission_level"}
    entries = read_objects("access_control_list", body.get("access_control_list"), known)
    return project, [_entry(workspace, entry) for entry in entries]


def _entry(workspace: Workspace, entry: Json) -> tuple[Principal, str]:
    level = entry.get("permission_level")
    if level not in LEVELS:
        raise invalid(f"Field 'permission_level' must be one of {', '.join(LEVELS)}, not {level!r}")
    for identity_type, field in _NAMES.items():
        if entry.get(field):
            for principal in workspace.identities.principals():
                if (principal.identity_type, principal.role) == (identity_type, entry[field]):
                    return principal, str(level)
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Principal: {entry[field]} does not exist")
    raise invalid(f"One of {', '.join(_NAMES.values())} is required")


def _json(project: Project) -> Json:
    return {
        "object_id": f"/database-projects/{id_of(project.name)}",
        "object_type": "database-projects",
        "access_control_list": [
            {
                _NAMES[principal.identity_type]: principal.role,
                "display_name": principal.display_name,
                "all_permissions": [{"permission_level": level, "inherited": principal.is_admin}],
            }
            for principal, level in project.access.entries()
        ],
    }


_ONE = "/api/2.0/permissions/database-projects/{id=*}"

ROUTES = [
    Route("GET", _ONE, _get),
    Route("GET", f"{_ONE}/permissionLevels", _levels),
    Route("PUT", _ONE, _set),
    Route("PATCH", _ONE, _update),
]
