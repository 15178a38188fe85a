"""Send requests to the workspace's API as databricks-sdk does, and return its answers as JSON."""

from __future__ import annotations

from typing import Any

from airflow_provider_lakebase.core.workspace.light_sdk import ApiClient


def send(client: ApiClient, method: str, path: str, **content: Any) -> dict[str, Any]:
    """Send a request, and return its answer.

    :param client: signs in and sends
    :param method: HTTP method
    :param path: path from the host's root
    :param content: ``query`` and ``body``
    """
    headers = {"Accept": "application/json"}
    if "body" in content:
        headers["Content-Type"] = "application/json"
    if workspace_id := client._cfg.workspace_id:
        headers["X-Databricks-Workspace-Id"] = workspace_id
    answer = client.do(method, path, headers=headers, **content)
    return answer if isinstance(answer, dict) else {}
