"""The token endpoint and the discovery documents."""

from __future__ import annotations

import base64
import urllib.parse

import pytest

from airflow_provider_lakebase.emulator.api import oauth
from airflow_provider_lakebase.emulator.api.messages import TOKEN_PATH, Call, OAuthError
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import State


@pytest.fixture
def state() -> State:
    return State(clock=lambda: 0.0, suspend_timeout=300.0, asleep=False)


@pytest.fixture
def principal(state: State) -> Principal:
    return state.identities.add_principal("Airflow")


def ask(state: State, authorization: str = "", method: str = "POST", **form: str) -> dict[str, object]:
    body = urllib.parse.urlencode(form).encode()
    call = Call(method, "http://127.0.0.1:1", TOKEN_PATH, authorization, body)
    return oauth.ROUTES[TOKEN_PATH](state, call)[1]


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def refused(state: State, authorization: str = "", method: str = "POST", **form: str) -> tuple[int, str]:
    with pytest.raises(OAuthError) as raised:
        ask(state, authorization, method, **form)
    return raised.value.status, raised.value.body["error"]


def test_client_id_and_secret_come_by_basic_authentication_or_in_the_form(state: State, principal: Principal):
    names = {"client_id": principal.client_id, "client_secret": principal.client_secret}
    by_form = ask(state, grant_type="client_credentials", **names)
    by_header = ask(state, basic(*names.values()), grant_type="client_credentials")
    for reply in (by_form, by_header):
        assert state.identities.workspace_token_owner(str(reply["access_token"])) == principal
        assert (reply["token_type"], reply["expires_in"]) == ("Bearer", 3600)


@pytest.mark.parametrize("header", ["Basic !", "Basic /w==", "Basic " + base64.b64encode(b"nobody:x").decode()])
def test_a_wrong_or_broken_header_is_an_invalid_client(state: State, header: str):
    assert refused(state, header, grant_type="client_credentials") == (401, "invalid_client")


def test_an_unknown_grant_and_another_method_are_refused(state: State):
    assert refused(state, grant_type="password") == (400, "unsupported_grant_type")
    assert refused(state, method="GET") == (405, "invalid_request")


def test_a_trusted_identity_token_is_exchanged(state: State, principal: Principal):
    state.identities.trust_identity_token("outside", principal)
    form = {"grant_type": oauth.TOKEN_EXCHANGE, "subject_token_type": oauth.JWT, "client_id": principal.client_id}
    reply = ask(state, subject_token="outside", **form)
    assert state.identities.workspace_token_owner(str(reply["access_token"])) == principal
    assert refused(state, subject_token="other", **form) == (400, "invalid_grant")
    form["subject_token_type"] = "saml"
    assert refused(state, subject_token="outside", **form) == (400, "invalid_request")


def test_discovery_leads_to_the_token_endpoint(state: State):
    call = Call("GET", "http://127.0.0.1:1", "", "", b"")
    _, config = oauth.ROUTES["/.well-known/databricks-config"](state, call)
    _, server = oauth.ROUTES["/oidc/.well-known/oauth-authorization-server"](state, call)
    assert config["oidc_endpoint"] == server["issuer"]
    assert server["token_endpoint"] == f"http://127.0.0.1:1{TOKEN_PATH}"
