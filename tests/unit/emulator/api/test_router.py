from __future__ import annotations

import base64
import json
import urllib.parse

import pytest

from airflow_provider_lakebase.emulator.api.messages import Call, Reply
from airflow_provider_lakebase.emulator.api.router import answer
from airflow_provider_lakebase.emulator.model.endpoints import READ_WRITE
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import ENDPOINT, Workspace

NOW = 1_700_000_000.0
TOKEN = "/oidc/v1/token"
CREDENTIALS = "/api/2.0/postgres/credentials"


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(clock=lambda: NOW, suspend_timeout=90, asleep=True)


@pytest.fixture
def principal(workspace: Workspace) -> Principal:
    return workspace.identities.add_principal("p")


def ask(workspace: Workspace, method: str, path: str, authorization: str = "", body: bytes = b"") -> Reply:
    return answer(workspace, Call(method, "http://127.0.0.1:1", path, authorization, body))


def ask_as(workspace: Workspace, principal: Principal, method: str, path: str, body: object = None) -> Reply:
    token = workspace.identities.issue_workspace_token(principal)
    return ask(workspace, method, path, f"Bearer {token}", b"" if body is None else json.dumps(body).encode())


def _basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def test_secret_is_taken_from_the_header_or_the_form(workspace: Workspace, principal: Principal) -> None:
    grant = "grant_type=client_credentials"
    header = _basic(principal.client_id, principal.client_secret)
    form = f"{grant}&client_id={principal.client_id}&client_secret={principal.client_secret}"
    for reply in (
        ask(workspace, "POST", TOKEN, header, grant.encode()),
        ask(workspace, "POST", TOKEN, "", form.encode()),
    ):
        assert reply.status == 200
        assert reply.principal == principal.client_id
        assert workspace.identities.workspace_token_owner(reply.body["access_token"]) == principal


@pytest.mark.parametrize("header", ["", "Basic ???", "Basic " + base64.b64encode(b"\xff").decode(), _basic("a", "b")])
def test_unknown_client_is_refused(workspace: Workspace, header: str) -> None:
    reply = ask(workspace, "POST", TOKEN, header, b"grant_type=client_credentials")
    assert (reply.status, reply.body["error"], reply.principal) == (401, "invalid_client", None)


def test_other_grants_are_refused(workspace: Workspace) -> None:
    assert ask(workspace, "POST", TOKEN, "", b"grant_type=password").body["error"] == "unsupported_grant_type"
    assert ask(workspace, "GET", TOKEN).status == 405


@pytest.mark.parametrize("header", ["", "Bearer nothing", "Basic bm90aGluZw=="])
def test_workspace_token_is_required(workspace: Workspace, header: str) -> None:
    reply = ask(workspace, "GET", f"/api/2.0/postgres/{ENDPOINT}", header)
    assert (reply.status, reply.body["error_code"]) == (401, "UNAUTHENTICATED")


def test_a_defect_of_a_handler_is_answered_at_once(
    workspace: Workspace, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace.catalog, "require", lambda name: {}["gone"])
    reply = ask_as(workspace, principal, "GET", "/api/2.1/unity-catalog/tables/main.gold.customers")
    assert (reply.status, reply.body) == (500, {"error_code": "INTERNAL_ERROR", "message": "KeyError: 'gone'"})
    assert reply.principal == principal.client_id


def test_unknown_path_is_named(workspace: Workspace, principal: Principal) -> None:
    reply = ask_as(workspace, principal, "PUT", "/api/2.0/postgres/projects/demo")
    assert (reply.status, reply.body["error_code"]) == (501, "NOT_IMPLEMENTED")
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
    workspace: Workspace, principal: Principal, wish: dict[str, str], seconds: int
) -> None:
    reply = ask_as(workspace, principal, "POST", CREDENTIALS, {"endpoint": ENDPOINT, **wish})
    assert reply.status == 200
    issued = workspace.identities.credential(reply.body["token"])
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
def test_life_out_of_bounds_is_refused(workspace: Workspace, principal: Principal, wish: dict[str, object]) -> None:
    reply = ask_as(workspace, principal, "POST", CREDENTIALS, {"endpoint": ENDPOINT, **wish})
    assert (reply.status, reply.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_body_must_be_a_json_object(workspace: Workspace, principal: Principal) -> None:
    token = workspace.identities.issue_workspace_token(principal)
    for body in (b"{", b"[]", b"\xff"):
        assert ask(workspace, "POST", CREDENTIALS, f"Bearer {token}", body).body["error_code"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize("endpoint", ["projects/demo", "projects/demo/branches/production/endpoints/primary/more/x"])
def test_credential_needs_the_name_of_an_endpoint(workspace: Workspace, principal: Principal, endpoint: str) -> None:
    reply = ask_as(workspace, principal, "POST", CREDENTIALS, {"endpoint": endpoint})
    assert (reply.status, reply.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_missing_project_is_said_before_missing_rights(workspace: Workspace) -> None:
    stranger = workspace.identities.add_principal("s", can_use_project=False)
    assert ask_as(workspace, stranger, "GET", "/api/2.0/postgres/projects/other").status == 404
    assert ask_as(workspace, stranger, "GET", "/api/2.0/postgres/projects/demo").status == 403
    assert ask_as(workspace, stranger, "GET", "/api/2.0/postgres/projects").body == {"projects": []}


def _exchange(workspace: Workspace, **changes: str) -> Reply:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        **changes,
    }
    return ask(workspace, "POST", TOKEN, "", urllib.parse.urlencode(form).encode())


def test_identity_token_is_exchanged(workspace: Workspace, principal: Principal) -> None:
    workspace.identities.trust_identity_token("theirs", principal)
    reply = _exchange(workspace, subject_token="theirs", client_id=principal.client_id)
    assert reply.principal == principal.client_id
    assert workspace.identities.workspace_token_owner(reply.body["access_token"]) == principal
    assert _exchange(workspace, subject_token="theirs").body["error"] == "invalid_grant"
    assert _exchange(workspace, subject_token_type="saml").body["error"] == "invalid_request"


def test_group_credential_is_the_groups(workspace: Workspace, principal: Principal) -> None:
    group = workspace.identities.add_principal("g", identity_type="GROUP")
    wish = {"endpoint": ENDPOINT, "group_name": "g"}
    assert ask_as(workspace, principal, "POST", CREDENTIALS, wish).status == 403
    workspace.identities.add_member(group, principal)
    issued = workspace.identities.credential(ask_as(workspace, principal, "POST", CREDENTIALS, wish).body["token"])
    assert issued and issued.principal == group


def test_branch_lists_its_own_endpoints(workspace: Workspace, principal: Principal) -> None:
    added = workspace.add_endpoint("primary", endpoint_type=READ_WRITE, branch="dev")
    reply = ask_as(workspace, principal, "GET", "/api/2.0/postgres/projects/demo/branches/dev/endpoints")
    assert [each["name"] for each in reply.body["endpoints"]] == [added.name]
    assert reply.body["endpoints"][0]["status"]["hosts"] == {
        "host": "127.0.0.2",
        "read_write_pooled_host": "127.0.2.2",
    }
