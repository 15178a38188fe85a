"""Each way of proving an identity works with the unmodified databricks-sdk."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from _clients import workspace_client
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import PermissionDenied
from psycopg import sql

from airflow_provider_lakebase.emulator import LakebaseEmulator


@pytest.fixture(scope="module", params=[18, 16])
def emulator(request: pytest.FixtureRequest) -> Any:
    with LakebaseEmulator(wake_seconds=0.05, pg_version=request.param) as running:
        with psycopg.connect(running.superuser_conninfo, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION databricks_auth")
        yield running


def test_personal_access_token_mints_credentials(emulator: LakebaseEmulator, connect: Any) -> None:
    token = emulator.issue_personal_access_token(emulator.administrator)
    client = WorkspaceClient(host=emulator.workspace_url, token=token, auth_type="pat")
    assert client.current_user.me().user_name == emulator.administrator.client_id
    connect(password=client.postgres.generate_database_credential(emulator.endpoint).token).close()
    with pytest.raises(psycopg.OperationalError, match="not a valid JWT encoding"):
        connect(password=token)


@pytest.mark.parametrize("source", ["env-oidc", "file-oidc"])
@pytest.mark.parametrize("kind", ["SERVICE_PRINCIPAL", "USER"])
def test_identity_token_is_exchanged(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, kind: str
) -> None:
    principal = emulator.add_principal(f"{uuid.uuid4()}@example.com", identity_type=kind)
    token = f"token-of-another-provider-{uuid.uuid4()}"
    emulator.trust_identity_token(token, principal)
    env, file = {"oidc_token_env": "TOKEN_OF_THE_POD"}, {"oidc_token_filepath": str(tmp_path / "t")}
    monkeypatch.setenv("TOKEN_OF_THE_POD", token)
    (tmp_path / "t").write_text(token)
    client_id = principal.client_id if kind == "SERVICE_PRINCIPAL" else None
    where = env if source == "env-oidc" else file
    # WorkspaceClient itself does not take these two.
    config = Config(host=emulator.workspace_url, client_id=client_id, auth_type=source, **where)
    client = WorkspaceClient(config=config)
    assert client.current_user.me().user_name == principal.role
    assert client.postgres.generate_database_credential(emulator.endpoint).token in emulator.secrets


def test_identity_token_that_nobody_trusts_is_refused(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_OIDC_TOKEN", "of nobody")
    client_id = emulator.service_principal.client_id
    client = WorkspaceClient(host=emulator.workspace_url, client_id=client_id, auth_type="env-oidc")
    with pytest.raises(ValueError, match="invalid_grant"):
        client.current_user.me()


def _group_credential(emulator: LakebaseEmulator, group: str) -> str:
    client = workspace_client(emulator)
    # No method of the SDK: most of its releases do not have group_name.
    body = {"endpoint": emulator.endpoint, "group_name": group}
    reply: Any = client.api_client.do("POST", "/api/2.0/postgres/credentials", body=body)
    return str(reply["token"])


def test_member_logs_in_as_its_group(emulator: LakebaseEmulator, connect: Any) -> None:
    group = emulator.add_principal("analysts", identity_type="GROUP")
    with connect() as connection:
        connection.execute("SELECT databricks_create_role('analysts', 'GROUP')")
    with pytest.raises(PermissionDenied, match="not a member"):
        _group_credential(emulator, "analysts")
    emulator.add_member(group, emulator.administrator)
    with connect(user="analysts", password=_group_credential(emulator, "analysts")) as connection:
        assert connection.execute("SELECT session_user").fetchone() == ("analysts",)


@pytest.fixture
def native(emulator: LakebaseEmulator) -> Any:
    """A role with a password of PostgreSQL's own."""
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN PASSWORD 'pencil'")
        emulator.native_login = True
        yield {"user": "app", "password": "pencil"}
        emulator.native_login = False
        connection.execute("DROP ROLE app")


POOLED = {"host": "127.0.2.1"}


@pytest.mark.parametrize("host", [{}, POOLED], ids=["direct", "pooled"])
def test_native_password_logs_in(connect: Any, native: dict[str, str], host: dict[str, str]) -> None:
    with connect(**native, **host) as connection:
        assert connection.execute("SELECT session_user").fetchone() == ("app",)


def test_native_password_must_be_right_and_valid(
    emulator: LakebaseEmulator, connect: Any, native: dict[str, str]
) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed for user 'app'"):
        connect(user="app", password="pen")
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        connection.execute("ALTER ROLE app VALID UNTIL '2020-01-01'")
    with pytest.raises(psycopg.OperationalError, match="not a valid JWT encoding"):
        connect(**native)


def test_native_password_is_refused_unless_allowed(
    emulator: LakebaseEmulator, connect: Any, native: dict[str, str]
) -> None:
    emulator.native_login = False
    with pytest.raises(psycopg.OperationalError, match="not a valid JWT encoding"):
        connect(**native)
    with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
        connect(**native, **POOLED)


def test_credential_opens_no_pooled_host_and_no_native_role(
    emulator: LakebaseEmulator, connect: Any, native: dict[str, str]
) -> None:
    with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
        connect(**POOLED)
    with pytest.raises(psycopg.OperationalError, match="OAuth: User is not authorized"):
        connect(user="app")
    connect().close()


def test_role_with_an_odd_name_and_password(emulator: LakebaseEmulator, connect: Any) -> None:
    name, password = 'Zoë "the app"', "pass word'"
    emulator.native_login = True
    try:
        with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
            statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
            superuser.execute(statement)
        connect(user=name, password=password).close()
    finally:
        emulator.native_login = False
