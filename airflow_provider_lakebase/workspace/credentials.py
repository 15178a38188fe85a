"""Mint the credential that is the password of one session."""

from __future__ import annotations

from databricks.sdk import WorkspaceClient
from databricks.sdk.service.postgres import DatabaseCredential
from google.protobuf.duration_pb2 import Duration

from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError
from airflow_provider_lakebase.settings import LakebaseSettings
from airflow_provider_lakebase.workspace.client import call_workspace


def mint_credential(settings: LakebaseSettings, *, timeout: float) -> str:
    """Return a new database credential, to be used as password at once and kept nowhere.

    It opens sessions until it expires; an open session outlives it.

    :param settings: endpoint, identity and ``credential_ttl``
    :param timeout: seconds that it may take
    :raises LakebaseWorkspaceError: when the workspace refuses, or one of its subclasses
    """
    credential = call_workspace(settings, lambda client: _generate(client, settings), timeout=timeout)
    if not credential.token:
        raise LakebaseWorkspaceError("The workspace answered without a credential", where=settings.where)
    return credential.token


def _generate(client: WorkspaceClient, settings: LakebaseSettings) -> DatabaseCredential:
    if settings.credential_ttl is None:
        return client.postgres.generate_database_credential(endpoint=settings.endpoint)
    ttl = Duration(seconds=settings.credential_ttl)
    return client.postgres.generate_database_credential(endpoint=settings.endpoint, ttl=ttl)
