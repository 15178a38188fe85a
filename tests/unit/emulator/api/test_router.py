from __future__ import annotations

import base64
import json
import urllib.parse
from dataclasses import replace

import pytest

from airflow_provider_lakebase.emulator.api.messages import Call, Reply
from airflow_provider_lakebase.emulator.api.router import answer
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import ENDPOINT, READ_WRITE, State

NOW = 1_700_000_000.0
TOKEN = "/oidc/v1/token"
CREDENTIALS = "/api/2.0/postgres/credentials"


@pytest.fixture
def state() -> State:
    return State(clock=lambda: NOW, suspend_timeout=90, asleep=True)


@pytest.fixture
def principal(state: State) -> Principal:
    return state.identities.add_principal("p")


def ask(state: State, method: str, path: str, authorization: str = "", body: bytes = b"") -> Reply:
    return answer(state, Call(method, "http://127.0.0.1:1", path, authorization, body))


def ask_as(state: State, principal: Principal, method: str, path: str, body: object = None) -> Reply:
    token = state.identities.issue_workspace_token(principal)
    return ask(state, method, path, f"Bearer {token}", b"" if body is None else json.dumps(body).encode())


def _basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def test_secret_is_taken_from_the_header_or_the_form(state: State, principal: Principal) -> None:
    grant = "grant_type=client_credentials"
    header = _basic(principal.client_id, principal.client_secret)
    form = f"{grant}&client_id={principal.client_id}&client_secret={principal.client_secret}"
    for reply in (ask(state, "POST", TOKEN, header, grant.encode()), ask(state, "POST", TOKEN, "", form.encode())):
        assert reply.status == 200
        assert reply.principal == principal.client_id
        assert state.identities.workspace_token_owner(reply.body["access_token"]) == principal


@pytest.mark.parametrize("header", ["", "Basic ???", "Basic " + base64.b64encode(b"\xff").decode(), _basic("a", "b")])
def test_unknown_client_is_refused(state: State, header: str) -> None:
    reply = ask(state, "POST", TOKEN, header, b"grant_type=client_credentials")
    assert (reply.status, reply.body["error"], reply.principal) == (401, "invalid_client", None)


def test_other_grants_are_refused(state: State) -> None:
    assert ask(state, "POST", TOKEN, "", b"grant_type=password").body["error"] == "unsupported_grant_type"
    assert ask(state, "GET", TOKEN).status == 405


@pytest.mark.parametrize("header", ["", "Bearer nothing", "Basic bm90aGluZw=="])
def test_workspace_token_is_required(state: State, header: str) -> None:
    reply = ask(state, "GET", f"/api/2.0/postgres/{ENDPOINT}", header)
    assert (reply.status, reply.body["error_code"]) == (401, "UNAUTHENTICATED")


def test_unknown_path_is_named(state: State, principal: Principal) -> None:
    reply = ask_as(state, principal, "PUT", "/api/2.0/postgres/projects/demo")
    assert (reply.status, reply.body["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert "PUT /api/2.0/postgres/projects/demo" in reply.body["message"]


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        ({}, 3600),
        ({"ttl": "300s"}, 300),
        ({"ttl": "450.5s"}, 450),
        ({"ttl": "3600s"}, 3600),
        ({"expire_time": "2023-11-14T22:43:20Z"}, 1800),
        ({"expire_time": "2023-11-14T22:43:20.123456789Z"}, 1800),
    ],
)
def test_credential_expires_when_asked_to(
    state: State, principal: Principal, wish: dict[str, str], seconds: int
) -> None:
    reply = ask_as(state, principal, "POST", CREDENTIALS, {"endpoint": ENDPOINT, **wish})
    assert reply.status == 200
    issued = state.identities.credential(reply.body["token"])
    assert issued and int(issued.expires_at - NOW) == seconds
    assert reply.body["expire_time"].endswith("Z")


@pytest.mark.parametrize(
    "wish",
    [
        {"ttl": "299s"},
        {"ttl": "299.9s"},
        {"ttl": "3601s"},
        {"ttl": "1h"},
        {"ttl": 600},
        {"expire_time": "2023-11-14T22:14:00Z"},
        {"expire_time": "2023-11-15T00:00:00Z"},
        {"expire_time": "tomorrow"},
    ],
)
def test_life_out_of_bounds_is_refused(state: State, principal: Principal, wish: dict[str, object]) -> None:
    reply = ask_as(state, principal, "POST", CREDENTIALS, {"endpoint": ENDPOINT, **wish})
    assert (reply.status, reply.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_body_must_be_a_json_object(state: State, principal: Principal) -> None:
    token = state.identities.issue_workspace_token(principal)
    for body in (b"{", b"[]", b"\xff"):
        assert ask(state, "POST", CREDENTIALS, f"Bearer {token}", body).body["error_code"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize("endpoint", ["projects/demo", "projects/demo/branches/production/endpoints/primary/more/x"])
def test_credential_needs_the_name_of_an_endpoint(state: State, principal: Principal, endpoint: str) -> None:
    reply = ask_as(state, principal, "POST", CREDENTIALS, {"endpoint": endpoint})
    assert (reply.status, reply.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_missing_project_is_said_before_missing_rights(state: State) -> None:
    stranger = state.identities.add_principal("s", can_use_project=False)
    assert ask_as(state, stranger, "GET", "/api/2.0/postgres/projects/other").status == 404
    assert ask_as(state, stranger, "GET", "/api/2.0/postgres/projects/demo").status == 403
    assert ask_as(state, stranger, "GET", "/api/2.0/postgres/projects").body == {"projects": []}


def _exchange(state: State, **changes: str) -> Reply:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        **changes,
    }
    return ask(state, "POST", TOKEN, "", urllib.parse.urlencode(form).encode())


def test_identity_token_is_exchanged(state: State, principal: Principal) -> None:
    state.identities.trust_identity_token("theirs", principal)
    reply = _exchange(state, subject_token="theirs", client_id=principal.client_id)
    assert reply.principal == principal.client_id
    assert state.identities.workspace_token_owner(reply.body["access_token"]) == principal
    assert _exchange(state, subject_token="theirs").body["error"] == "invalid_grant"
    assert _exchange(state, subject_token_type="saml").body["error"] == "invalid_request"


def test_group_credential_is_the_groups(state: State, principal: Principal) -> None:
    group = state.identities.add_principal("g", identity_type="GROUP")
    wish = {"endpoint": ENDPOINT, "group_name": "g"}
    assert ask_as(state, principal, "POST", CREDENTIALS, wish).status == 403
    state.identities.add_member(group, principal)
    issued = state.identities.credential(ask_as(state, principal, "POST", CREDENTIALS, wish).body["token"])
    assert issued and issued.principal == group


@pytest.mark.parametrize(
    ("mask", "body"),
    [("spec.disabled", {"spec": {"disabled": "yes"}}), ("spec", {"spec": {"disabled": True}}), ("", {})],
)
def test_only_disabled_can_be_updated(state: State, principal: Principal, mask: str, body: object) -> None:
    token = state.identities.issue_workspace_token(principal)
    call = Call("PATCH", "", f"/api/2.0/postgres/{ENDPOINT}", f"Bearer {token}", json.dumps(body).encode())
    reply = answer(state, replace(call, query={"update_mask": mask}))
    assert (reply.status, reply.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert not state.endpoints[ENDPOINT].disabled


def test_branch_lists_its_own_endpoints(state: State, principal: Principal) -> None:
    added = state.add_endpoint("primary", endpoint_type=READ_WRITE, branch="dev")
    reply = ask_as(state, principal, "GET", "/api/2.0/postgres/projects/demo/branches/dev/endpoints")
    assert [each["name"] for each in reply.body["endpoints"]] == [added.name]
    assert reply.body["endpoints"][0]["status"]["hosts"] == {
        "host": "127.0.0.2",
        "read_write_pooled_host": "primary-pooler.localhost",
    }
