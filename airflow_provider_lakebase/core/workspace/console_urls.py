"""Find where the workspace shows a branch. None of it wakes an endpoint.

The pages are named by uid: ``/lakebase/projects/<uid>/branches/<uid>``, as seen in use; no documentation says so. That
the SQL editor of a branch is at ``/sql-editor`` is inferred.
"""

from __future__ import annotations

from urllib.parse import quote

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.workspace.client import call_workspace
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError


def find_pages(settings: LakebaseSettings, *, timeout: float) -> dict[str, str]:
    """Return the addresses of ``project``, ``branch`` and ``sql_editor`` in the workspace.

    :param settings: which branch, as whom
    :param timeout: seconds that it may take
    :raises LakebaseWorkspaceError: when the workspace refuses, or does not say what they are named by
    """
    branch = settings.endpoint.partition("/endpoints/")[0]
    project = branch.partition("/branches/")[0]
    uids = call_workspace(
        settings,
        lambda client: (client.postgres.get_project(project).uid, client.postgres.get_branch(branch).uid),
        timeout=timeout,
    )
    if not all(uids):
        raise LakebaseWorkspaceError(
            "The workspace does not say the uids of project and branch", context=settings.context
        )
    project_page = f"{settings.workspace['host']}/lakebase/projects/{uids[0]}"
    branch_page = f"{project_page}/branches/{uids[1]}"
    return {
        "project": project_page,
        "branch": branch_page,
        "sql_editor": f"{branch_page}/sql-editor?database={quote(settings.database, safe='')}",
    }
