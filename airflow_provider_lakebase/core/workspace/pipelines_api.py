"""The requests to ``/api/2.0/pipelines`` that the provider sends, and their answers as the API's own JSON.

A test compares the requests with those that databricks-sdk sends.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_lakebase.core.workspace.json_api import send
from airflow_provider_lakebase.core.workspace.light_sdk import ApiClient

_ROOT = "/api/2.0/pipelines"


class PipelinesApi:
    """The API, called as one identity.

    :param client: signs in and sends
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get(self, pipeline_id: str) -> dict[str, Any]:
        """Return a pipeline with its latest updates, the newest first.

        :param pipeline_id: its ID
        """
        return send(self._client, "GET", f"{_ROOT}/{pipeline_id}")

    def get_update(self, pipeline_id: str, update_id: str) -> dict[str, Any]:
        """Return an update.

        :param pipeline_id: ID of its pipeline
        :param update_id: its ID
        """
        return send(self._client, "GET", f"{_ROOT}/{pipeline_id}/updates/{update_id}").get("update") or {}

    def start_update(self, pipeline_id: str, *, full_refresh: bool) -> str:
        """Start an update of all tables of a pipeline; return its ID.

        :param pipeline_id: ID of the pipeline
        :param full_refresh: build the tables anew
        """
        body = {"full_refresh": True} if full_refresh else {}
        return str(send(self._client, "POST", f"{_ROOT}/{pipeline_id}/updates", body=body)["update_id"])
