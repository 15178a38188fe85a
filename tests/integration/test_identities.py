"""Who connects, and where to: identities beside a client secret, branches, read-only sessions, native logins."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databricks.sdk.service.postgres import PostgresAPI

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.core.workspace.postgres_api import PostgresApi
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal
from airflow_provider_lakebase.exceptions import LakebaseSettingsError, LakebaseWorkspaceAccessError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

ME = ("GET", "/api/2.0/preview/scim/v2/Me")


@pytest.fixture
def connect(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LakebaseHook]:
    """Return a function that gives a hook on a connection of these fields; those of ``extra`` are added to it."""

    def connect(conn_id: str = "lakebase_chosen", conn_type: str = "lakebase", **fields: Any) -> LakebaseHook:
        common = {"conn_type": conn_type, "port": emulator.port}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**common, **fields}))
        return LakebaseHook(conn_id)

    return connect


@pytest.fixture
def person(emulator: LakebaseEmulator, admin: LakebaseHook) -> Principal:
    """A user with a role, whose name is the user's and not the client ID."""
    principal = emulator.add_principal(f"ada{len(emulator.secrets)}@example.com", identity_type="USER")
    admin.bootstrap_role(RoleRequest(principal.display_name, "USER"))
    return principal


def test_a_databricks_connection_lends_its_personal_access_token(
    emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook], person: Principal
):
    token = emulator.issue_personal_access_token(person)
    connect("warehouse", "databricks", host=emulator.workspace_url, password=token)
    hook = connect(extra={"databricks_conn_id": "warehouse", "endpoint": emulator.endpoint})
    for _ in range(2):
        assert hook.get_first("SELECT current_user") == (person.display_name,)
    asked = [request for request in emulator.requests if request.principal == person.client_id]
    assert sum((request.method, request.path) == ME for request in asked) == 1
    assert not any(request.path == "/oidc/v1/token" for request in asked)


def test_a_databricks_connection_lends_its_service_principal(
    emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook]
):
    principal = emulator.service_principal
    connect(
        "warehouse",
        "databricks",
        host=emulator.workspace_url,
        login=principal.client_id,
        password=principal.client_secret,
        extra={"service_principal_oauth": True},
    )
    hook = connect(extra={"databricks_conn_id": "warehouse", "endpoint": emulator.endpoint})
    assert hook.get_first("SELECT current_user") == (principal.client_id,)


def test_a_missing_databricks_connection_is_named(emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook]):
    connect("warehouse", "postgres", host="x")
    with pytest.raises(LakebaseSettingsError, match="Connection 'warehouse' is of type 'postgres'"):
        connect(extra={"databricks_conn_id": "warehouse", "endpoint": emulator.endpoint}).get_conn()


def test_an_expired_personal_access_token_is_told(emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook]):
    connect("warehouse", "databricks", host=emulator.workspace_url, password="dapi" + "0" * 32)
    hook = connect(extra={"databricks_conn_id": "warehouse", "endpoint": emulator.endpoint})
    with pytest.raises(LakebaseWorkspaceAccessError, match="Invalid access token"):
        hook.get_conn()


@pytest.mark.parametrize("kind", ["env-oidc", "file-oidc"])
def test_workload_identity_needs_no_secret(
    emulator: LakebaseEmulator,
    connect: Callable[..., LakebaseHook],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
):
    principal = emulator.service_principal
    emulator.trust_identity_token(f"identity-token-{kind}", principal)
    (tmp_path / "token").write_text(f"identity-token-{kind}")
    monkeypatch.setenv("WORKLOAD_TOKEN", f"identity-token-{kind}")
    where = (
        {"oidc_token_env": "WORKLOAD_TOKEN"} if kind == "env-oidc" else {"oidc_token_filepath": str(tmp_path / "token")}
    )
    hook = connect(
        host=emulator.workspace_url,
        login=principal.client_id,
        extra={"auth_type": kind, "endpoint": emulator.endpoint, **where},
    )
    assert hook.get_first("SELECT current_user") == (principal.client_id,)


def test_a_group_is_minted_for_where_the_sdk_can(
    emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook], admin: LakebaseHook
):
    group = emulator.add_principal(f"Engineers {len(emulator.secrets)}", identity_type="GROUP")
    emulator.add_member(group, emulator.service_principal)
    admin.bootstrap_role(RoleRequest(group.display_name, "GROUP"))
    fields = json.loads(emulator.connections["lakebase_default"])
    hook = connect(**{**fields, "extra": {**fields["extra"], "group_name": group.display_name}})
    if "group_name" in inspect.signature(PostgresAPI.generate_database_credential).parameters:
        assert hook.get_first("SELECT current_user") == (group.display_name,)
    else:
        with pytest.raises(LakebaseSettingsError, match="cannot mint a credential for a group.*Leave out 'group_name'"):
            hook.get_conn()


def test_a_native_login_asks_no_workspace(
    emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook], admin: LakebaseHook
):
    admin.run("CREATE ROLE native LOGIN PASSWORD 'a native word'")
    emulator.native_login = True
    try:
        before = len(emulator.requests)
        for host in ("localhost", "localhost-pooler"):
            extra = {"auth_type": "password", "pg_host": host, "hostaddr": "127.0.0.1"}
            hook = connect(login="native", password="a native word", schema="databricks_postgres", extra=extra)
            assert hook.get_first("SELECT current_user") == ("native",)
        assert hook.test_connection()[0] is True
        assert len(emulator.requests) == before
    finally:
        emulator.native_login = False
        admin.run("DROP ROLE native")


def test_a_branch_stands_for_its_one_read_write_endpoint(
    emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook]
):
    fields = json.loads(emulator.connections["lakebase_default"])
    branch = emulator.endpoint.rpartition("/endpoints/")[0]
    emulator.add_endpoint("reporting", endpoint_type="ENDPOINT_TYPE_READ_ONLY")
    hook = connect(**{**fields, "extra": {"endpoint": branch}})
    assert hook.get_first("SELECT 1") == (1,)
    assert hook.endpoint_status().name == emulator.endpoint


def test_a_branch_without_a_read_write_endpoint_lists_what_it_has(
    emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook]
):
    fields = json.loads(emulator.connections["lakebase_default"])
    emulator.add_endpoint("replica", endpoint_type="ENDPOINT_TYPE_READ_ONLY", branch="replicas")
    hook = connect(**{**fields, "extra": {"endpoint": "projects/demo/branches/replicas"}})
    with pytest.raises(LakebaseSettingsError, match="has no read-write endpoint: .*/replica.*Name the endpoint"):
        hook.get_conn()


def test_a_branch_with_several_endpoints_lists_them(hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch):
    """A branch has one read-write endpoint today, so the emulator refuses a second: the reply is made up here."""
    branch = "projects/demo/branches/crowded"
    status = {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE"}
    reply = [{"name": f"{branch}/endpoints/{name}", "status": status} for name in ("one", "two")]
    monkeypatch.setattr(PostgresApi, "list_all", lambda api, branch, collection: reply)
    with pytest.raises(LakebaseSettingsError, match="has several read-write endpoints: .*/one, .*/two"):
        LakebaseHook(endpoint=branch).get_conn()


def test_read_only_sessions_go_to_the_read_only_host_and_cannot_write(
    emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook]
):
    fields = json.loads(emulator.connections["lakebase_default"])
    hook = LakebaseHook(read_only=True)
    assert "@localhost:" in hook.get_uri()
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused:
        hook.run("CREATE TABLE public.nothing (id int)")
    assert any("write on a connection without 'read_only'" in note for note in refused.value.__notes__)
    endpoint = emulator.add_endpoint("readable", endpoint_type="ENDPOINT_TYPE_READ_WRITE", branch="readable")
    emulator.enable_readable_secondary(endpoint)
    extra = {"endpoint": endpoint, "read_only": True}
    secondary = connect(**{**fields, "extra": extra})
    writer = connect("writer", **{**fields, "extra": {"endpoint": endpoint}})
    assert secondary.get_uri() != writer.get_uri()
    assert secondary.get_first("SHOW transaction_read_only") == ("on",)
    assert writer.get_first("SHOW transaction_read_only") == ("off",)


def test_an_address_keeps_the_host_name(emulator: LakebaseEmulator, connect: Callable[..., LakebaseHook]):
    """The name does not resolve, so only ``hostaddr`` can have led there; the front end routes by the name."""
    fields = json.loads(emulator.connections["lakebase_default"])
    extra = {**fields["extra"], "pg_host": "ep-a.database.example", "hostaddr": "127.0.0.1"}
    hook = connect(**{**fields, "extra": extra})
    connection = hook.get_conn()
    assert (connection.info.host, connection.info.hostaddr) == ("ep-a.database.example", "127.0.0.1")
    connection.close()
