"""The requests to ``/api/2.0/postgres`` that the provider sends, and their answers as the API's own JSON.

databricks-sdk signs in, sends, retries and names errors. Its classes for these answers are left out: the module that
has them takes a task as long to import as psycopg. A test compares the requests with those that it sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_lakebase.core.workspace.light_sdk import ApiClient

_ROOT = "/api/2.0/postgres"


class PostgresApi:
    """The API, called as one identity.

    :param client: signs in and sends
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get(self, name: str) -> dict[str, Any]:
        """Return a project, branch or endpoint.

        :param name: resource name
        """
        return self._send("GET", f"/{name}")

    def list_endpoints(self, branch: str) -> list[dict[str, Any]]:
        """Return the endpoints of a branch.

        :param branch: resource name
        """
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {}
        while True:
            page = self._send("GET", f"/{branch}/endpoints", query=query)
            found += page.get("endpoints", ())
            if not page.get("next_page_token"):
                return found
            query = {"page_token": page["next_page_token"]}

    def generate_credential(self, body: Mapping[str, str]) -> dict[str, Any]:
        """Mint a database credential.

        :param body: ``endpoint``, and where given ``ttl`` and ``group_name``
        """
        return self._send("POST", "/credentials", body=dict(body))

    def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if "body" in content:
            headers["Content-Type"] = "application/json"
        if workspace_id := self._client._cfg.workspace_id:
            headers["X-Databricks-Workspace-Id"] = workspace_id
        answer = self._client.do(method, f"{_ROOT}{path}", headers=headers, **content)
        return answer if isinstance(answer, dict) else {}
