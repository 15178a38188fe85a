"""The requests to ``/api/2.0/postgres`` that the provider sends, and their answers as the API's own JSON.

databricks-sdk signs in, sends, retries and names errors. Its classes for these answers are left out: the module that
has them takes a task as long to import as psycopg. A test compares the requests with those that it sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_lakebase.core.workspace.json_api import send
from airflow_provider_lakebase.core.workspace.light_sdk import ApiClient

_ROOT = "/api/2.0/postgres"
_ID_FIELDS = {
    "branches": "branch_id",
    "cdf-configs": "cdf_config_id",
    "databases": "database_id",
    "endpoints": "endpoint_id",
    "roles": "role_id",
    "snapshots": "snapshot_id",
    "synced_tables": "synced_table_id",
}


class PostgresApi:
    """The API, called as one identity.

    :param client: signs in and sends
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get(self, name: str) -> dict[str, Any]:
        """Return a project, branch, endpoint, database, role, snapshot, snapshot schedule, synced table or operation.

        :param name: resource name
        """
        return self._send("GET", f"/{name}")

    def list_all(self, parent: str, collection: str, **query: Any) -> list[dict[str, Any]]:
        """Return the resources of a collection, from all pages.

        :param parent: resource name of what they belong to
        :param collection: as paths have it, such as ``branches`` or ``cdf-configs``
        :param query: for example ``show_deleted=True``
        """
        found: list[dict[str, Any]] = []
        page_token: dict[str, str] = {}
        while True:
            page = self._send("GET", f"/{parent}/{collection}", query={**query, **page_token})
            found += page.get(collection.replace("-", "_"), ())
            if not page.get("next_page_token"):
                return found
            page_token = {"page_token": page["next_page_token"]}

    def create(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Start to create a resource; return the operation.

        :param name: resource name
        :param body: the resource
        """
        path, _, resource_id = name.rpartition("/")
        query = {_ID_FIELDS[path.rpartition("/")[2]]: resource_id}
        return self._send("POST", f"/{path}", query=query, body=dict(body))

    def update(self, name: str, body: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
        """Start to update a branch, endpoint or snapshot schedule; return the operation.

        :param name: resource name
        :param body: the resource
        :param paths: fields to update
        """
        return self._send("PATCH", f"/{name}", query={"update_mask": ",".join(paths)}, body=dict(body))

    def delete(self, name: str, **query: Any) -> dict[str, Any]:
        """Start to delete a resource; return the operation.

        :param name: resource name
        :param query: for example ``purge=True``
        """
        return self._send("DELETE", f"/{name}", query=query) if query else self._send("DELETE", f"/{name}")

    def undelete(self, name: str) -> dict[str, Any]:
        """Start to undelete a branch; return the operation.

        :param name: resource name
        """
        return self._send("POST", f"/{name}/undelete", body={})

    def generate_credential(self, body: Mapping[str, str]) -> dict[str, Any]:
        """Mint a database credential.

        :param body: ``endpoint``, and where given ``ttl`` and ``group_name``
        """
        return self._send("POST", "/credentials", body=dict(body))

    def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        return send(self._client, method, f"{_ROOT}{path}", **content)
