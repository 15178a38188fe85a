"""Signing in without discovery: what databricks-sdk takes as known."""

from __future__ import annotations

import sys
from types import ModuleType

import databricks.sdk.core
import pytest

from airflow_provider_lakebase.core.connection.identity import AUTH_KINDS, DATABRICKS_KINDS, NATIVE, WorkspaceIdentity
from airflow_provider_lakebase.core.workspace import sdk_config
from airflow_provider_lakebase.core.workspace.sdk_config import KNOWN_SIGN_IN, TOKEN_PATH, DirectConfig

HOST = "https://adb-1.2.azuredatabricks.net"
FIELDS = {
    "oauth-m2m": {"client_id": "id", "client_secret": "dose"},
    "env-oidc": {"client_id": "id", "oidc_token_env": "IDENTITY_TOKEN"},
    "file-oidc": {"client_id": "id"},
    "pat": {"token": "dapi"},
    "azure-client-secret": {"azure_client_id": "id", "azure_client_secret": "s", "azure_tenant_id": "t"},
}


def test_tokens_are_asked_for_where_the_sdk_asks_for_them():
    assert TOKEN_PATH == databricks.sdk.core.OIDC_TOKEN_PATH


def test_every_kind_is_known_but_those_whose_audience_discovery_names():
    kinds = {*AUTH_KINDS, *(kind.auth_type for kind in DATABRICKS_KINDS)} - {NATIVE}
    assert kinds - KNOWN_SIGN_IN == {"github-oidc", "azure-devops-oidc"}
    assert kinds >= KNOWN_SIGN_IN


@pytest.mark.parametrize("auth_type", sorted(KNOWN_SIGN_IN))
def test_a_configuration_is_made_without_a_request(auth_type: str, monkeypatch: pytest.MonkeyPatch, tmp_path):
    """No socket can be opened: the host does not exist, and a request would raise."""
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **keywords: pytest.fail("a request"))
    monkeypatch.setenv("IDENTITY_TOKEN", "t")
    (tmp_path / "token").write_text("t")
    extra = {"oidc_token_filepath": str(tmp_path / "token")} if auth_type == "file-oidc" else {}
    config = DirectConfig.of(WorkspaceIdentity(HOST, auth_type, {**FIELDS[auth_type], **extra}))
    assert config.auth_type == auth_type
    assert config.databricks_oidc_endpoints.token_endpoint == f"{HOST}/oidc/v1/token"


@pytest.mark.parametrize("loaded", ["airflow", "dagster", "dbt", None])
def test_the_user_agent_names_the_program_that_runs(loaded: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sdk_config, "version", lambda package: "7.8.9")
    for name in sdk_config.CALLERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, loaded, ModuleType(loaded))
    agent = DirectConfig.of(WorkspaceIdentity(HOST, "pat", FIELDS["pat"])).user_agent
    assert [name for name in sdk_config.CALLERS if f" {name}/7.8.9" in agent] == [loaded] * bool(loaded)
