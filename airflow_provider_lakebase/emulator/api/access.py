"""Refuse callers that lack the rights for a request."""

from __future__ import annotations

import re

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.model.errors import ApiError
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.permissions import CAN_MANAGE, CAN_USE
from airflow_provider_lakebase.emulator.model.projects import Project
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_IN_PROJECT = re.compile(r"/api/2\.0/postgres/(projects/[^/]+)(/.*)?")
# Databases and roles need no more than "Can Use", also to change them.
_IN_BRANCH = re.compile(r"/branches/[^/]+/(databases|roles)(/.*)?")


def require_workspace_access(caller: Principal) -> None:
    """Raise ``ApiError`` 403 unless the caller has the entitlement."""
    if not caller.workspace_access:
        raise ApiError(
            403, "PERMISSION_DENIED", "This API is disabled for users without the workspace-access entitlement"
        )


def require_project_of(workspace: Workspace, call: Call, caller: Principal) -> None:
    """Raise ``ApiError`` if the path is in a project that does not exist, or for which the caller lacks the level."""
    match = _IN_PROJECT.fullmatch(call.path)
    # An operation outlives what it deleted.
    if match and not ("/operations/" in call.path and match[1] not in workspace.projects):
        changes = call.method != "GET" and not _IN_BRANCH.fullmatch(match[2] or "")
        require_level(caller, workspace.projects.require(match[1]), CAN_MANAGE if changes else CAN_USE)


def require_use_of_branch(workspace: Workspace, branch: str, caller: Principal) -> None:
    """Raise ``ApiError`` 403 unless the caller may use the project of a branch.

    Synced tables and catalogs outlive the project: then there is no permission to ask for.
    """
    project = workspace.projects.get(branch.split("/branches/")[0])
    if project:
        require_level(caller, project, CAN_USE)


def require_level(caller: Principal, project: Project, level: str) -> None:
    """Raise ``ApiError`` 403 unless the caller has a permission on the project."""
    if not project.access.allows(caller, level):
        wanted = "'Can Manage'" if level == CAN_MANAGE else "'Can Use' or 'Can Manage'"
        raise ApiError(
            403,
            "PERMISSION_DENIED",
            "The user is not authorized to make the request, please contact the workspace admin to assign the user "
            f"{caller.scim_id} {wanted} for Database project {project.uid}.",
        )
