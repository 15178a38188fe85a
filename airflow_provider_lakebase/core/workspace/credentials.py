"""Mint the credential that is the password of one session."""

from __future__ import annotations

from airflow_provider_lakebase.core.connection.settings import SessionSettings
from airflow_provider_lakebase.core.workspace.client import Workspace
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
    body = {"endpoint": endpoint}
    if session.credential_ttl is not None:
        body["ttl"] = f"{session.credential_ttl}s"
    if session.group_name is not None:
        _require_groups(workspace.context)
        body["group_name"] = session.group_name
    token = workspace.call(lambda client: client.postgres.generate_credential(body).get("token"), timeout=timeout)
    if not token:
        raise LakebaseWorkspaceError("The workspace answered without a credential", context=workspace.context)
    return str(token)


def _require_groups(context: ErrorContext) -> None:
    """Refuse groups unless the installed databricks-sdk has them: the API may ignore a field that it does not know."""
    import inspect

    from databricks.sdk.service.postgres import PostgresAPI
    from databricks.sdk.version import __version__ as sdk_version

    if "group_name" not in inspect.signature(PostgresAPI.generate_database_credential).parameters:
        raise LakebaseSettingsError(
            f"databricks-sdk {sdk_version} cannot mint a credential for a group",
            context=context,
            hint="None from 0.134 to 0.162 can. Leave out 'group_name', or install a newer one that can.",
        )
