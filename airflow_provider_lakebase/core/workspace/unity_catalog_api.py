"""The requests to Unity Catalog that the provider sends, and their answers as the API's own JSON.

A test compares the requests with those that databricks-sdk sends.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_lakebase.core.workspace.json_api import send
from airflow_provider_lakebase.core.workspace.light_sdk import ApiClient


class UnityCatalogApi:
    """The API, called as one identity.

    :param client: signs in and sends
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get_table(self, full_name: str) -> dict[str, Any]:
        """Return a table or view, with its columns.

        :param full_name: ``catalog.schema.table``
        """
        return send(self._client, "GET", f"/api/2.1/unity-catalog/tables/{full_name}", query={})
