"""SCIM, permissions, and the rights that routes need."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.api.messages import Call, Reply
from airflow_provider_lakebase.emulator.api.router import answer
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, ENDPOINT, PROJECT, Workspace

SCIM = "/api/2.0/preview/scim/v2"
PERMISSIONS = "/api/2.0/permissions/database-projects/demo"


@pytest.fixture
def admin(workspace: Workspace) -> Principal:
    return workspace.identities.add_principal("admin", is_admin=True)


def ask(workspace: Workspace, who: Principal, method: str, path: str, body: Any = None, **query: str) -> Reply:
    token = workspace.identities.issue_workspace_token(who)
    data = b"" if body is None else json.dumps(body).encode()
    return answer(workspace, Call(method, "http://127.0.0.1:1", path, f"Bearer {token}", data, query))


def test_identities_are_listed_by_kind_and_found_by_name(workspace: Workspace, admin: Principal) -> None:
    user = workspace.identities.add_principal("ann@example.com", identity_type="USER")
    group = workspace.identities.add_principal("Loaders", identity_type="GROUP")
    workspace.identities.add_member(group, user)
    for collection, name, who in (
        ("Users", "userName", user),
        ("Groups", "displayName", group),
        ("ServicePrincipals", "applicationId", admin),
    ):
        every = ask(workspace, admin, "GET", f"{SCIM}/{collection}").body
        assert [each["id"] for each in every["Resources"]] == [who.scim_id]
        wanted = f'{name} eq "{who.role.upper()}"'
        found = ask(workspace, admin, "GET", f"{SCIM}/{collection}", filter=wanted).body
        assert (found["totalResults"], found["Resources"][0]["id"]) == (1, who.scim_id)
        one = ask(workspace, admin, "GET", f"{SCIM}/{collection}/{who.scim_id}").body
        assert one == found["Resources"][0]
        assert ask(workspace, admin, "GET", f"{SCIM}/{collection}", filter=f"{name} eq none").body["Resources"] == []
        assert ask(workspace, admin, "GET", f"{SCIM}/{collection}/0").status == 404
    assert ask(workspace, admin, "GET", f"{SCIM}/Groups").body["Resources"][0]["members"][0]["value"] == user.scim_id
    assert ask(workspace, user, "GET", f"{SCIM}/Me").body["groups"] == [{"value": group.scim_id, "display": "Loaders"}]


def test_list_is_cut_as_asked(workspace: Workspace, admin: Principal) -> None:
    names = ["admin", *"abc"]
    for name in names[1:]:
        workspace.identities.add_principal(name)
    body = ask(workspace, admin, "GET", f"{SCIM}/ServicePrincipals", startIndex="2", count="2").body
    assert [each["displayName"] for each in body["Resources"]] == names[1:3]
    assert (body["totalResults"], body["startIndex"], body["itemsPerPage"]) == (4, 2, 2)


@pytest.mark.parametrize(
    ("query", "status"), [({"filter": "id sw 1"}, 501), ({"filter": 'color eq "red"'}, 400), ({"count": "x"}, 400)]
)
def test_what_a_list_cannot_do_is_said(
    workspace: Workspace, admin: Principal, query: dict[str, str], status: int
) -> None:
    assert ask(workspace, admin, "GET", f"{SCIM}/ServicePrincipals", **query).status == status


def test_identities_are_not_changed_over_http(workspace: Workspace, admin: Principal) -> None:
    reply = ask(workspace, admin, "POST", f"{SCIM}/Users", {"userName": "x"})
    assert (reply.status, reply.body["message"]) == (501, f"The emulator does not imitate POST {SCIM}/Users.")


def entries(reply: Reply) -> dict[str, str]:
    return {
        each["display_name"]: each["all_permissions"][0]["permission_level"]
        for each in reply.body["access_control_list"]
    }


def test_permissions_are_added_and_replaced(workspace: Workspace, admin: Principal) -> None:
    workspace.identities.add_principal("ann@example.com", identity_type="USER", can_use_project=False)
    workspace.identities.add_principal("Loaders", identity_type="GROUP", can_use_project=False)
    robot = workspace.identities.add_principal("robot")
    assert entries(ask(workspace, admin, "GET", PERMISSIONS)) == {"admin": "CAN_MANAGE", "robot": "CAN_MANAGE"}
    wish = {"access_control_list": [{"user_name": "ann@example.com", "permission_level": "CAN_USE"}]}
    assert entries(ask(workspace, admin, "PATCH", PERMISSIONS, wish))["ann@example.com"] == "CAN_USE"
    wish = {"access_control_list": [{"group_name": "Loaders", "permission_level": "CAN_MANAGE"}]}
    replaced = entries(ask(workspace, admin, "PUT", PERMISSIONS, wish))
    assert replaced == {"admin": "CAN_MANAGE", "Loaders": "CAN_MANAGE"}
    assert ask(workspace, robot, "GET", PERMISSIONS).status == 403
    levels = ask(workspace, admin, "GET", f"{PERMISSIONS}/permissionLevels").body["permission_levels"]
    assert [each["permission_level"] for each in levels] == ["CAN_CREATE", "CAN_USE", "CAN_MANAGE"]


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        ({"user_name": "nobody", "permission_level": "CAN_USE"}, 404),
        ({"permission_level": "CAN_USE"}, 400),
        ({"user_name": "nobody", "permission_level": "IS_OWNER"}, 400),
    ],
)
def test_bad_entry_is_refused(workspace: Workspace, admin: Principal, entry: dict[str, str], status: int) -> None:
    assert ask(workspace, admin, "PATCH", PERMISSIONS, {"access_control_list": [entry]}).status == status


def test_reading_needs_less_than_changing(workspace: Workspace, admin: Principal) -> None:
    user = workspace.identities.add_principal("user")
    workspace.projects[PROJECT].access.grant(user, "CAN_USE")
    api = "/api/2.0/postgres"
    assert ask(workspace, user, "GET", f"{api}/{BRANCH}").status == 200
    assert ask(workspace, user, "POST", f"{api}/credentials", {"endpoint": ENDPOINT}).status == 200
    for method, path in (
        ("POST", f"{PROJECT}/branches"),
        ("PATCH", ENDPOINT),
        ("DELETE", BRANCH),
        ("POST", f"{PROJECT}/snapshots"),
        ("DELETE", PROJECT),
    ):
        reply = ask(workspace, user, method, f"{api}/{path}")
        assert reply.status == 403
        assert f"assign the user {user.scim_id} 'Can Manage' for Database project" in reply.body["message"]
    assert ask(workspace, user, "PATCH", PERMISSIONS, {}).status == 403
    # Roles and databases need no more than the right to use the project.
    assert "role" in ask(workspace, user, "POST", f"{api}/{BRANCH}/roles", {}).body["message"]


def test_operation_outlives_its_project(workspace: Workspace, admin: Principal) -> None:
    done = ask(workspace, admin, "DELETE", f"/api/2.0/postgres/{PROJECT}", purge="true").body
    again = ask(workspace, admin, "GET", f"/api/2.0/postgres/{done['name']}")
    assert (again.status, again.body) == (200, done)


def test_read_only_credential_is_marked(workspace: Workspace, admin: Principal) -> None:
    def mint(*claims: dict[str, Any]) -> Reply:
        return ask(
            workspace, admin, "POST", "/api/2.0/postgres/credentials", {"endpoint": ENDPOINT, "claims": list(claims)}
        )

    for claims, read_only in (([], False), ([{"permission_set": "READ_ONLY"}], True)):
        issued = workspace.identities.credential(mint(*claims).body["token"])
        assert issued and issued.read_only == read_only
    assert mint({"permission_set": "WRITE"}).status == 400
    assert mint({"permission_set": "READ_ONLY", "resources": [{"table_name": "a.b.c"}]}).status == 501


def test_every_answer_names_the_workspace(workspace: Workspace, admin: Principal) -> None:
    for method, path in (("GET", f"{SCIM}/Me"), ("PUT", "/nowhere")):
        reply = ask(workspace, admin, method, path)
        assert reply.headers["x-databricks-org-id"] == str(workspace.workspace_id)
