"""The workspace as JSON, and back. No I/O.

Tokens, credentials, operations and all of Unity Catalog are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.branches import Branch
from airflow_provider_lakebase.emulator.model.endpoints import Endpoint
from airflow_provider_lakebase.emulator.model.projects import Project
from airflow_provider_lakebase.emulator.model.snapshots import Snapshot
from airflow_provider_lakebase.emulator.model.workspace import ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Container

    from airflow_provider_lakebase.emulator.model.errors import Json
    from airflow_provider_lakebase.emulator.model.workspace import Workspace


def save(workspace: Workspace) -> Json:
    """Return the workspace as JSON."""
    kinds = (workspace.projects, workspace.branches, workspace.endpoints, workspace.snapshots)
    projects, branches, endpoints, snapshots = ([each.saved() for each in kind.values()] for kind in kinds)
    return {
        "workspace_id": workspace.workspace_id,
        "identities": workspace.identities.saved(),
        "projects": projects,
        "branches": branches,
        "endpoints": endpoints,
        "snapshots": snapshots,
    }


def restore(workspace: Workspace, saved: Json, clusters: Container[str]) -> None:
    """Restore the saved workspace. All endpoints but the first are suspended.

    Leave out what was being made or removed when it was saved.

    :param clusters: the clusters that are complete
    """
    workspace.workspace_id = saved["workspace_id"]
    workspace.identities.restore(saved["identities"])
    workspace.projects.restore(Project.restored(each, workspace) for each in saved["projects"])
    workspace.branches.restore(
        Branch.restored(each, workspace)
        for each in saved["branches"]
        if each["uid"] in clusters and each["state"] != "INIT" and each["project"] in workspace.projects
    )
    workspace.projects.restore(each for each in list(workspace.projects.values()) if workspace.branches.of(each.name))
    workspace.endpoints.restore(
        Endpoint.restored(each, workspace.clock)
        for each in saved["endpoints"]
        if each["name"].split("/endpoints/")[0] in workspace.branches
    )
    workspace.endpoints.take_used_addresses()
    workspace.snapshots.restore(
        Snapshot.restored(each, workspace)
        for each in saved["snapshots"]
        if each["uid"] in clusters and each["ready"] and each["name"].split("/snapshots/")[0] in workspace.projects
    )
    contents = [each.contents for each in workspace.branches.values()]
    contents += [each.contents for each in workspace.snapshots.values()]
    for each in contents:
        workspace.identities.secrets.extend(each.passwords.values())
    first = workspace.endpoints.get(ENDPOINT)
    if first and not (workspace.asleep or first.disabled or workspace.branches.is_closed(first.branch)):
        first.move("wake")
        first.move("activate")
