"""The web addresses of projects and branches that links point to."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.model.workspace import Workspace


def web_page(workspace: Workspace, path: str) -> str | None:
    """Return an HTML page for the web address of a project or branch; None for any other path."""
    title = _titles(workspace).get(path)
    return (
        title
        and f"<!doctype html><title>Lakebase emulator</title><h1>{title}</h1><p>A real workspace shows its page here."
    )


def _titles(workspace: Workspace) -> dict[str, str]:
    titles = {f"/lakebase/projects/{each.uid}": each.name for each in workspace.projects.values()}
    for branch in workspace.branches.values():
        address = f"/lakebase/projects/{branch.project.uid}/branches/{branch.uid}"
        titles |= {address: branch.name, f"{address}/sql-editor": f"SQL editor of {branch.name}"}
    return titles
