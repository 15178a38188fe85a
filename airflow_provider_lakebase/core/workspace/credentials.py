"""Mint the credential that is the password of one session."""

from __future__ import annotations

import inspect
from typing import Any

from google.protobuf.duration_pb2 import Duration

from airflow_provider_lakebase.core.connection.settings import SessionSettings
from airflow_provider_lakebase.core.workspace.client import Workspace, WorkspaceClient
from airflow_provider_lakebase.core.workspace.light_sdk import DatabaseCredential, PostgresAPI, sdk_version
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError, LakebaseWorkspaceError


def mint_credential(workspace: Workspace, endpoint: str, session: SessionSettings, *, timeout: float) -> str:
    """Return a new database credential. Use it as password at once and keep it nowhere.

    It can open sessions until it expires; open sessions continue after that.

    :param workspace: mints it
    :param endpoint: resource name of the endpoint that it opens sessions on
    :param session: ``credential_ttl`` and ``group_name``
    :param timeout: seconds that it may take
    :raises LakebaseSettingsError: when ``group_name`` is set and the installed databricks-sdk cannot mint for groups
    :raises LakebaseWorkspaceError: when the workspace refuses, or does not answer in time
    """
    options = _credential_options(session, workspace.context)

    def generate(client: WorkspaceClient) -> DatabaseCredential:
        return client.postgres.generate_database_credential(endpoint=endpoint, **options)

    credential = workspace.call(generate, timeout=timeout)
    if not credential.token:
        raise LakebaseWorkspaceError("The workspace answered without a credential", context=workspace.context)
    return credential.token


def _credential_options(session: SessionSettings, context: ErrorContext) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if session.credential_ttl is not None:
        options["ttl"] = Duration(seconds=session.credential_ttl)
    if session.group_name is not None:
        if "group_name" not in inspect.signature(PostgresAPI.generate_database_credential).parameters:
            raise LakebaseSettingsError(
                f"databricks-sdk {sdk_version} cannot mint a credential for a group",
                context=context,
                hint="Install a databricks-sdk that can (0.120, or 0.123 to 0.133), or leave out 'group_name'.",
            )
        options["group_name"] = session.group_name
    return options
