"""The token endpoint and the discovery documents."""

from __future__ import annotations

import base64
import urllib.parse

import pytest

from airflow_provider_lakebase.emulator.api import oauth
from airflow_provider_lakebase.emulator.api.messages import TOKEN_PATH, Call, OAuthError
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(clock=lambda: 0.0, suspend_timeout=300.0, asleep=False)


@pytest.fixture
def principal(workspace: Workspace) -> Principal:
    return workspace.identities.add_principal("Airflow")


def ask(workspace: Workspace, authorization: str = "", method: str = "POST", **form: str) -> dict[str, object]:
    body = urllib.parse.urlencode(form).encode()
    call = Call(method, "http://127.0.0.1:1", TOKEN_PATH, authorization, body)
    return oauth.ROUTES[TOKEN_PATH](workspace, call)[1]


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def refused(workspace: Workspace, authorization: str = "", method: str = "POST", **form: str) -> tuple[int, str]:
    with pytest.raises(OAuthError) as raised:
        ask(workspace, authorization, method, **form)
    return raised.value.status, raised.value.body["error"]


def test_client_id_and_secret_come_by_basic_authentication_or_in_the_form(workspace: Workspace, principal: Principal):
    names = {"client_id": principal.client_id, "client_secret": principal.client_secret}
    by_form = ask(workspace, grant_type="client_credentials", **names)
    by_header = ask(workspace, basic(*names.values()), grant_type="client_credentials")
    for reply in (by_form, by_header):
        assert workspace.identities.workspace_token_owner(str(reply["access_token"])) == principal
        assert (reply["token_type"], reply["expires_in"]) == ("Bearer", 3600)


@pytest.mark.parametrize("header", ["Basic !", "Basic /w==", "Basic " + base64.b64encode(b"nobody:x").decode()])
def test_a_wrong_or_broken_header_is_an_invalid_client(workspace: Workspace, header: str):
    assert refused(workspace, header, grant_type="client_credentials") == (401, "invalid_client")


def test_an_unknown_grant_and_another_method_are_refused(workspace: Workspace):
    assert refused(workspace, grant_type="password") == (400, "unsupported_grant_type")
    assert refused(workspace, method="GET") == (405, "invalid_request")


def test_a_trusted_identity_token_is_exchanged(workspace: Workspace, principal: Principal):
    workspace.identities.trust_identity_token("outside", principal)
    form = {"grant_type": oauth.TOKEN_EXCHANGE, "subject_token_type": oauth.JWT, "client_id": principal.client_id}
    reply = ask(workspace, subject_token="outside", **form)
    assert workspace.identities.workspace_token_owner(str(reply["access_token"])) == principal
    assert refused(workspace, subject_token="other", **form) == (400, "invalid_grant")
    form["subject_token_type"] = "saml"
    assert refused(workspace, subject_token="outside", **form) == (400, "invalid_request")


def test_discovery_leads_to_the_token_endpoint(workspace: Workspace):
    call = Call("GET", "http://127.0.0.1:1", "", "", b"")
    _, config = oauth.ROUTES["/.well-known/databricks-config"](workspace, call)
    _, server = oauth.ROUTES["/oidc/.well-known/oauth-authorization-server"](workspace, call)
    assert config["oidc_endpoint"] == server["issuer"]
    assert server["token_endpoint"] == f"http://127.0.0.1:1{TOKEN_PATH}"
