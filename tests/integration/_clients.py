"""Clients of an emulator: databricks-sdk on its workspace, and psycopg on its database."""

from __future__ import annotations

from typing import Any

import psycopg
from databricks.sdk import WorkspaceClient

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal


def workspace_client(emulator: LakebaseEmulator, principal: Principal | None = None) -> WorkspaceClient:
    """Return a client of the workspace, by default the administrator's."""
    who = principal or emulator.administrator
    return WorkspaceClient(
        host=emulator.workspace_url, client_id=who.client_id, client_secret=who.client_secret, auth_type="oauth-m2m"
    )


def open_session(emulator: LakebaseEmulator, principal: Principal | None = None) -> psycopg.Connection[Any]:
    """Open a session on the first endpoint, by default the administrator's, with a new credential."""
    who = principal or emulator.administrator
    return psycopg.connect(
        host="localhost",
        port=emulator.port,
        user=who.role,
        password=workspace_client(emulator, who).postgres.generate_database_credential(emulator.endpoint).token,
        dbname="databricks_postgres",
        sslmode="require",
        autocommit=True,
    )
