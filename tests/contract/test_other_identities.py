"""Identities other than a service principal with a secret, and native Postgres passwords."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import PermissionDenied

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal

CREATE = "SELECT databricks_create_role(%s::text, %s::text)"
POOLED = {"host": "localhost-pooler", "hostaddr": "127.0.0.1"}


@pytest.fixture
def user(emulator: LakebaseEmulator, administrator: Any) -> Principal:
    """A user with a role."""
    name = f"user-{len(emulator.secrets)}@example.com"
    principal = emulator.add_principal(name, identity_type="USER")
    with administrator.connect() as connection:
        connection.execute(CREATE, (name, "USER"))
    return principal


@pytest.mark.belief(
    "a personal access token is valid for the workspace API and can mint credentials; a user's name is an e-mail "
    "address, which is also the name of the user's role",
    source="Databricks docs, Lakebase: Authentication; Manage Postgres roles",
    sure="documented",
)
def test_personal_access_token_mints(emulator: LakebaseEmulator, administrator: Any, user: Principal) -> None:
    token = emulator.issue_personal_access_token(user)
    client = WorkspaceClient(host=emulator.workspace_url, token=token, auth_type="pat")
    assert client.current_user.me().user_name == user.display_name
    credential = client.postgres.generate_database_credential(emulator.endpoint).token
    with administrator.connect(user=user.display_name, password=credential) as connection:
        assert connection.execute("SELECT session_user").fetchone() == (user.display_name,)


@pytest.mark.belief(
    "a token of another identity provider is exchanged for a workspace token by RFC 8693; the request names "
    "a service principal by client_id, and no user",
    source="databricks-sdk-py oidc.py DatabricksOidcTokenSource; Databricks docs: OAuth token federation",
    sure="documented",
)
def test_identity_token_is_exchanged(
    emulator: LakebaseEmulator, newcomer: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.trust_identity_token("a token of another provider", newcomer)
    monkeypatch.setenv("DATABRICKS_OIDC_TOKEN", "a token of another provider")
    client = WorkspaceClient(host=emulator.workspace_url, client_id=newcomer.client_id, auth_type="env-oidc")
    assert client.current_user.me().user_name == newcomer.client_id


@pytest.mark.belief(
    "an identity token that no federation policy accepts is refused by the token endpoint; the code is a guess",
    source="RFC 6749, section 5.2",
    sure="inferred",
)
def test_unknown_identity_token_is_refused(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_OIDC_TOKEN", "a token that nobody knows")
    client = WorkspaceClient(host=place.url, client_id=place.client_id, auth_type="env-oidc")
    with pytest.raises(ValueError, match="^invalid_"):
        client.current_user.me()


def _group_credential(place: Any, group: str) -> str:
    # No method of the SDK: most of its releases do not have group_name.
    body = {"endpoint": place.endpoint, "group_name": group}
    return str(place.client().api_client.do("POST", "/api/2.0/postgres/credentials", body=body)["token"])


@pytest.mark.belief(
    "a credential minted with group_name by a member of the group logs in as the role of the group",
    source="databricks-sdk-py 0.123 to 0.133, service/postgres.py generate_database_credential; gone from 0.134",
    sure="inferred",
)
def test_member_logs_in_as_its_group(emulator: LakebaseEmulator, administrator: Any) -> None:
    group = emulator.add_principal("analysts", identity_type="GROUP")
    emulator.add_member(group, emulator.administrator)
    with administrator.connect() as connection:
        connection.execute(CREATE, ("analysts", "GROUP"))
    credential = _group_credential(administrator, "analysts")
    with administrator.connect(user="analysts", password=credential) as connection:
        assert connection.execute("SELECT session_user").fetchone() == ("analysts",)


@pytest.mark.belief(
    "a request with the group_name of a group that the caller does not belong to gets 403",
    source="no source",
    sure="inferred",
)
def test_stranger_to_the_group_is_refused(emulator: LakebaseEmulator, administrator: Any) -> None:
    emulator.add_principal("others", identity_type="GROUP")
    with pytest.raises(PermissionDenied):
        _group_credential(administrator, "others")


@pytest.fixture
def native(emulator: LakebaseEmulator) -> Iterator[dict[str, str]]:
    """A role with a password of PostgreSQL's own, in a workspace that lets it in."""
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN PASSWORD 'pencil'")
        emulator.native_login = True
        yield {"user": "app", "password": "pencil"}
        emulator.native_login = False
        connection.execute("DROP ROLE app")


@pytest.mark.parametrize("host", [{}, POOLED], ids=["direct", "pooled"])
@pytest.mark.belief(
    "if native login is enabled, a role with a password can log in with it, also on the pooled host",
    source="Databricks docs, Lakebase: Connection pooling; Authentication",
    sure="documented",
)
def test_native_password_logs_in(administrator: Any, native: dict[str, str], host: dict[str, str]) -> None:
    with administrator.connect(**native, **host) as connection:
        assert connection.execute("SELECT session_user").fetchone() == ("app",)


@pytest.mark.belief(
    "if native login is not enabled, which is the default, a native password gets the error for a malformed credential",
    source="field reports of Lakebase Autoscaling",
    sure="seen in the field",
)
def test_native_password_is_refused_by_default(
    emulator: LakebaseEmulator, administrator: Any, native: dict[str, str]
) -> None:
    emulator.native_login = False
    assert "Provided authentication token is not a valid JWT encoding" in administrator.refusal(**native)


@pytest.mark.belief(
    "a wrong native password gets `password authentication failed for user '…'`",
    source="field reports; neondatabase/neon proxy/src/auth",
    sure="inferred",
)
def test_wrong_native_password_is_refused(administrator: Any, native: dict[str, str]) -> None:
    assert "password authentication failed for user 'app'" in administrator.refusal(user="app", password="pen")


@pytest.mark.belief(
    "the project's JSON says whether native login is enabled",
    source="databricks-sdk-py service/postgres.py ProjectStatus",
    sure="documented",
)
def test_project_shows_native_login(place: Any) -> None:
    status = place.client().postgres.get_project(place.endpoint.split("/branches/")[0]).status
    assert status.enable_pg_native_login in (True, False)
