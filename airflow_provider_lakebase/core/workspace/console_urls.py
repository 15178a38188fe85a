"""Find the URLs of a branch's pages in the workspace, without waking an endpoint.

Pages are named by uid: ``/lakebase/projects/<uid>/branches/<uid>``, as seen in use, but not documented. The page
``/sql-editor`` of a branch is inferred.
"""

from __future__ import annotations

from urllib.parse import quote

from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.workspace.client import Workspace
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError


def find_console_urls(workspace: Workspace, branch: ResourceName, database: str, *, timeout: float) -> dict[str, str]:
    """Return the URLs of ``project``, ``branch`` and ``sql_editor`` in the workspace.

    :param workspace: the workspace to ask
    :param branch: a branch or one of its endpoints
    :param database: the database that the SQL editor opens
    :param timeout: seconds that it may take
    :raises LakebaseWorkspaceError: when the workspace refuses, or returns no uids
    """
    project_name, branch_name = str(branch.up_to("project")), str(branch.up_to("branch"))
    uids = workspace.call(
        lambda client: [client.postgres.get(name).get("uid", "") for name in (project_name, branch_name)],
        timeout=timeout,
    )
    if not all(uids):
        raise LakebaseWorkspaceError("The workspace returned no uid of project or branch", context=workspace.context)
    project_page = f"{workspace.identity.host}/lakebase/projects/{uids[0]}"
    branch_page = f"{project_page}/branches/{uids[1]}"
    return {
        "project": project_page,
        "branch": branch_page,
        "sql_editor": f"{branch_page}/sql-editor?database={quote(database, safe='')}",
    }
