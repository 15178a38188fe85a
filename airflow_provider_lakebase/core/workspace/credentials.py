"""Mint the credential that is the password of one session."""

from __future__ import annotations

import inspect
from typing import Any

from databricks.sdk import WorkspaceClient
from databricks.sdk.service.postgres import DatabaseCredential, PostgresAPI
from databricks.sdk.version import __version__ as sdk_version
from google.protobuf.duration_pb2 import Duration

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.workspace.client import call_workspace
from airflow_provider_lakebase.exceptions import LakebaseSettingsError, LakebaseWorkspaceError


def mint_credential(settings: LakebaseSettings, endpoint: str, *, timeout: float) -> str:
    """Return a new database credential, to be used as password at once and kept nowhere.

    It opens sessions until it expires; an open session outlives it.

    :param settings: identity, ``credential_ttl`` and ``group_name``
    :param endpoint: resource name of the endpoint
    :param timeout: seconds that it may take
    :raises LakebaseSettingsError: when a group is named that the installed databricks-sdk cannot mint for
    :raises LakebaseWorkspaceError: when the workspace refuses, or one of its subclasses
    """
    wishes = _credential_options(settings)

    def generate(client: WorkspaceClient) -> DatabaseCredential:
        return client.postgres.generate_database_credential(endpoint=endpoint, **wishes)

    credential = call_workspace(settings, generate, timeout=timeout)
    if not credential.token:
        raise LakebaseWorkspaceError("The workspace answered without a credential", context=settings.context)
    return credential.token


def _credential_options(settings: LakebaseSettings) -> dict[str, Any]:
    wishes: dict[str, Any] = {}
    if settings.credential_ttl is not None:
        wishes["ttl"] = Duration(seconds=settings.credential_ttl)
    if settings.group_name is not None:
        if "group_name" not in inspect.signature(PostgresAPI.generate_database_credential).parameters:
            raise LakebaseSettingsError(
                f"databricks-sdk {sdk_version} cannot mint a credential for a group",
                context=settings.context,
                hint="Install a databricks-sdk that can (0.120, or 0.123 to 0.133), or leave out 'group_name'.",
            )
        wishes["group_name"] = settings.group_name
    return wishes
