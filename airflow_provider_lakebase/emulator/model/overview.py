"""The workspace at a glance: resources within resources, and open sessions. No I/O but that of the clusters."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_SESSIONS = """
    SELECT usename::text, datname::text, application_name, coalesce(state, '') FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND usename <> current_user ORDER BY backend_start
"""
_COLUMNS = ("user", "database", "application_name", "state")


def projects(workspace: Workspace) -> list[Json]:
    """Return the projects as the API does, each with its ``branches``, each with its ``endpoints``."""
    return [
        {
            **project.json(),
            "branches": [
                {**branch.json(), "endpoints": [each.json() for each in workspace.endpoints.of(branch.name)]}
                for branch in workspace.branches.of(project.name)
            ],
        }
        for project in workspace.projects.values()
    ]


def sessions(workspace: Workspace) -> list[Json]:
    """Return the sessions of awake branches. One that sleeps has none, and stays asleep."""
    found = []
    for branch in workspace.branches.values():
        if any(each.state == "ACTIVE" for each in workspace.endpoints.of(branch.name)):
            try:
                rows = workspace.clusters.execute(branch.uid, "postgres", _SESSIONS)
            except KeyError:  # purged in this moment
                continue
            found += [{"branch": branch.name, **dict(zip(_COLUMNS, row, strict=True))} for row in rows]
    return found
