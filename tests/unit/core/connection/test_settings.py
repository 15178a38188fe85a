"""What a connection may say, and how each mistake is named."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.core.connection.fields import POSTGRES_HOOK_EXTRAS, unknown_field
from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import ConnectionFields, LakebaseSettings, read_settings
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

ENDPOINT = "projects/shop/branches/production/endpoints/primary"
SECRET = "dose0123456789abcdef0123456789abcdef"


def read(endpoint: str | None = None, **changes: Any) -> LakebaseSettings:
    fields: dict[str, Any] = {
        "host": "https://shop.cloud.databricks.com",
        "login": "4f5c0f0a-0000-4000-8000-000000000001",
        "password": SECRET,
        "schema": None,
        "port": None,
        "extra": {"endpoint": ENDPOINT},
    }
    return read_settings(ConnectionFields("shop", **{**fields, **changes}), endpoint=endpoint)


def test_a_native_login_with_an_endpoint_is_told_that_it_has_no_use():
    extra = {"auth_type": "password", "pg_host": "ep-a.database.example"}
    with pytest.raises(LakebaseSettingsError, match="'endpoint' is not used with auth_type 'password'.*pg_host"):
        read(endpoint=ENDPOINT, login="etl", extra=extra)


def test_defaults_are_those_of_the_service():
    settings = read()
    assert settings.session.database == "databricks_postgres"
    assert settings.session.port == 5432
    assert settings.session.user == settings.require_identity().client_id == "4f5c0f0a-0000-4000-8000-000000000001"
    assert settings.require_identity().auth_type == "oauth-m2m"
    assert settings.session.sslmode == "require"
    assert settings.session.wake_timeout == 120
    assert settings.session.credential_ttl is None
    assert settings.session.pg_host is None


def test_the_secret_is_not_in_the_repr():
    assert SECRET not in repr(read())
    assert SECRET not in repr(ConnectionFields("a", password=SECRET, extra={"token": SECRET}))
    assert read().secrets == [SECRET]


def test_another_endpoint_brings_its_own_project():
    other = "projects/books/branches/production/endpoints/primary"
    settings = read(endpoint=other, extra={"endpoint": ENDPOINT, "project": "shop"})
    assert settings.require_project() == ResourceName("books")


def test_strings_of_a_uri_are_read_as_numbers():
    extra = {"endpoint": ENDPOINT, "wake_timeout": "30.5", "credential_ttl": "600"}
    settings = read(port="6543", extra=extra)
    assert (settings.session.port, settings.session.wake_timeout, settings.session.credential_ttl) == (6543, 30.5, 600)


def test_fields_left_alone_in_the_form_count_as_absent():
    settings = read(extra={"endpoint": ENDPOINT, "wake_timeout": None, "sslmode": "", "pg_host": None})
    assert (settings.session.wake_timeout, settings.session.sslmode, settings.session.pg_host) == (120, "require", None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://shop.cloud.databricks.com/", "https://shop.cloud.databricks.com"),
        ("shop.cloud.databricks.com", "https://shop.cloud.databricks.com"),
        (" https://shop.cloud.databricks.com ", "https://shop.cloud.databricks.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
    ],
)
def test_the_host_is_read_as_a_workspace_url(given: str, meant: str):
    assert read(host=given).require_identity().host == meant


def test_libpq_keywords_and_dbapi_hook_extras_pass():
    settings = read(extra={"endpoint": ENDPOINT, "keepalives_idle": 60, "placeholder": "%s"})
    assert settings.session.libpq == {"keepalives_idle": "60"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"host": None}, "'Host' is missing"),
        ({"host": "  "}, "'Host' is missing"),
        ({"login": ""}, "'Login' is missing"),
        ({"password": None}, "'Password' is missing"),
        ({"extra": {"endpoint": "projects/shop"}}, "'endpoint' is malformed: 'projects/shop'"),
        ({"extra": {"endpoint": "projects/Shop/branches/b/endpoints/e"}}, "'endpoint' is malformed"),
        ({"extra": {"endpoint": ENDPOINT + "\n"}}, "'endpoint' is malformed"),
        ({"extra": {"endpoint": 7}}, "'endpoint' is malformed: 7"),
        ({"host": "http://shop.cloud.databricks.com"}, "'Host' is not an https address"),
        ({"host": "http://127.0.0.1.evil.example"}, "'Host' is not an https address"),
        ({"host": "ftp://shop"}, "'Host' is not an https address"),
        ({"host": "https://shop.cloud.databricks.com/?o=12"}, "'Host' holds more than"),
        ({"host": "https://user:word@shop.cloud.databricks.com"}, "'Host' holds more than"),
        ({"port": 0.5}, "'Port' is 0.5"),
        ({"port": 0}, "'Port' is 0"),
        ({"port": "70000"}, "'Port' is '70000'"),
        ({"port": "x"}, "'Port' is 'x'"),
        ({"extra": {"endpoint": ENDPOINT, "sslmode": "disable"}}, "'sslmode' is 'disable'"),
        ({"extra": {"endpoint": ENDPOINT, "sslmode": "prefer"}}, "'sslmode' is 'prefer'"),
        ({"extra": {"endpoint": ENDPOINT, "pg_host": "ep-a-b-pooler.database.example"}}, "'pg_host' is a pooled host"),
        ({"extra": {"endpoint": ENDPOINT, "project": "books"}}, "'project' is books, but 'endpoint' is"),
        ({"extra": {"endpoint": ENDPOINT, "pg_host": "a:5432"}}, "'pg_host' is not a single host name"),
        ({"extra": {"endpoint": ENDPOINT, "wake_timeout": "soon"}}, "'wake_timeout' is 'soon'"),
        ({"extra": {"endpoint": ENDPOINT, "wake_timeout": 0}}, "'wake_timeout' is 0"),
        ({"extra": {"endpoint": ENDPOINT, "wake_timeout": "inf"}}, "'wake_timeout' is 'inf'"),
        ({"extra": {"endpoint": ENDPOINT, "wake_timeout": 1e10}}, "'wake_timeout' is 10000000000.0"),
        ({"host": "https://[bad"}, "'Host' is not an https address"),
        ({"extra": {"endpiont": ENDPOINT}}, "'endpiont' is unknown"),
        ({"extra": {"endpoint": ENDPOINT, "client_encoding": "LATIN1"}}, "'client_encoding' is not for the extra"),
        ({"extra": {"endpoint": ENDPOINT, "pg_host": "EP-X-POOLER.database.example"}}, "'pg_host' is a pooled host"),
        ({"extra": {"endpoint": ENDPOINT, "wake_timeout": True}}, "'wake_timeout' holds a bool"),
        ({"extra": {"endpoint": ENDPOINT, "credential_ttl": 299}}, "'credential_ttl' is 299"),
        ({"extra": {"endpoint": ENDPOINT, "credential_ttl": 3601}}, "'credential_ttl' is 3601"),
        ({"extra": {"endpoint": ENDPOINT, "credential_ttl": 600.5}}, "'credential_ttl' is 600.5"),
        ({"extra": {"endpoint": ENDPOINT, "options": {"a": 1}}}, "'options' holds a dict"),
        ({"extra": {"endpoint": ENDPOINT, "read_only": "perhaps"}}, "'read_only' is 'perhaps'"),
        ({"extra": {"endpoint": ENDPOINT, "auth_type": "kerberos"}}, "'auth_type' is 'kerberos'"),
        ({"extra": {"endpoint": ENDPOINT, "auth_type": "env-oidc"}}, "'oidc_token_env' is missing"),
        ({"extra": {"endpoint": ENDPOINT, "auth_type": "file-oidc"}}, "'oidc_token_filepath' is missing"),
        (
            {"extra": {"endpoint": ENDPOINT, "token_audience": "a"}},
            "'token_audience' is not used with auth_type 'oauth-m2m'",
        ),
        ({"extra": {"endpoint": ENDPOINT, "auth_type": "github-oidc"}}, "'Password' is not used with auth_type"),
        (
            {"extra": {"auth_type": "password", "pg_host": "a-pooler.example", "read_only": True}},
            "'read_only' does not work on a pooled host",
        ),
        (
            {"extra": {"endpoint": ENDPOINT, "pg_host": f"postgresql://x:{SECRET}@h/d"}},
            "'pg_host' is not a single host name",
        ),
        ({"extra": {"endpoint": f"https://x:{SECRET}@h"}}, "'endpoint' is malformed ("),
        ({"extra": {"auth_type": "password"}}, "'pg_host' is missing"),
        ({"extra": {"endpoint": ENDPOINT, "dbname": "x"}}, "'dbname' is not for the extra"),
        ({"extra": {"endpoint": ENDPOINT, "host": "x"}}, "'host' is not for the extra"),
        ({"extra": {"endpoint": ENDPOINT, "password": "x"}}, "'password' is not for the extra"),
        ({"extra": {"endpoint": ENDPOINT, "service": "x"}}, "'service' is not for the extra"),
    ],
)
def test_a_wrong_field_is_refused_with_a_sentence_that_names_it(changes: dict[str, Any], named: str):
    with pytest.raises(LakebaseSettingsError) as refused:
        read(**changes)
    message = str(refused.value)
    assert message.startswith(f"Field {named}")
    assert "connection 'shop'" in message
    assert message.endswith((".", "?"))
    assert SECRET not in message


def test_a_connection_without_an_endpoint_serves_what_needs_none():
    settings = read(extra={})
    assert settings.require_identity().host == "https://shop.cloud.databricks.com"
    with pytest.raises(LakebaseSettingsError, match="'endpoint' is missing .connection 'shop'.*Name it, as projects/"):
        settings.require_endpoint()


def test_a_native_login_cannot_ask_the_workspace():
    settings = read(host=None, extra={"auth_type": "password", "pg_host": "ep-a.database.example"})
    with pytest.raises(LakebaseSettingsError, match="A native Postgres login cannot use the workspace's API"):
        settings.require_identity()


def test_the_endpoint_may_come_from_the_hook_alone():
    assert str(read(endpoint=ENDPOINT, extra={}).endpoint) == ENDPOINT


def test_an_override_of_the_endpoint_forgets_the_connections_host():
    other = ENDPOINT.replace("production", "staging")
    settings = read(endpoint=other, extra={"endpoint": ENDPOINT, "pg_host": "ep-a.database.example"})
    assert (str(settings.endpoint), settings.session.pg_host) == (other, None)


def test_an_override_of_options_is_added_behind_the_connections():
    settings = read(extra={"endpoint": ENDPOINT, "options": "-c a=1"}).override(options="-c b=2")
    assert settings.session.libpq["options"] == "-c a=1 -c b=2"


def databricks(**changes: Any) -> ConnectionFields:
    return ConnectionFields("warehouse", **{"host": "shop.cloud.databricks.com", **changes})


@pytest.mark.parametrize(
    ("connection", "workspace"),
    [
        (databricks(password="dapi1"), {"auth_type": "pat", "token": "dapi1"}),
        (databricks(login="token", password="dapi1"), {"auth_type": "pat", "token": "dapi1"}),
        (databricks(extra={"token": "dapi1"}), {"auth_type": "pat", "token": "dapi1"}),
        (
            databricks(login="id", password="dose1", extra={"service_principal_oauth": True}),
            {"auth_type": "oauth-m2m", "client_id": "id", "client_secret": "dose1"},
        ),
        (
            databricks(login="id", password="word", extra={"azure_tenant_id": "t", "azure_resource_id": "/r"}),
            {
                "auth_type": "azure-client-secret",
                "azure_client_id": "id",
                "azure_client_secret": "word",
                "azure_tenant_id": "t",
                "azure_workspace_resource_id": "/r",
            },
        ),
    ],
)
def test_a_databricks_connection_gives_its_identity(connection: ConnectionFields, workspace: dict[str, str]):
    fields = ConnectionFields("shop", extra={"endpoint": ENDPOINT, "databricks_conn_id": "warehouse"})
    settings = read_settings(fields, databricks=connection)
    assert settings.identity == WorkspaceIdentity(
        "https://shop.cloud.databricks.com", workspace.pop("auth_type"), workspace
    )
    assert settings.session.user is None
    assert len(settings.secrets) == 1
    assert settings.secrets[0] not in repr(settings)


def test_a_databricks_connection_without_a_known_identity_is_refused():
    fields = ConnectionFields("shop", extra={"endpoint": ENDPOINT, "databricks_conn_id": "warehouse"})
    with pytest.raises(
        LakebaseSettingsError,
        match="'warehouse', named by.*holds no identity.*personal access token.*Complete it",
    ):
        read_settings(fields, databricks=databricks(login="ada@example.com", password="word"))


@pytest.mark.parametrize(
    "clash", [{"host": "x.example"}, {"login": "id"}, {"password": "p"}, {"extra": {"auth_type": "env-oidc"}}]
)
def test_two_identities_clash(clash: dict[str, Any]):
    extra = {"endpoint": ENDPOINT, "databricks_conn_id": "warehouse", **clash.pop("extra", {})}
    with pytest.raises(LakebaseSettingsError, match="clashes with 'databricks_conn_id'"):
        read_settings(ConnectionFields("shop", extra=extra, **clash), databricks=databricks(password="dapi1"))


def test_a_native_password_needs_no_workspace():
    extra = {"auth_type": "password", "pg_host": "ep-a-pooler.database.example"}
    settings = read(host=None, login="etl", password="word", extra=extra)
    assert (settings.session.user, settings.session.password) == ("etl", "word")
    assert (settings.identity, settings.endpoint) == (None, None)
    assert "word" not in repr(settings)


def test_workload_identity_needs_no_secret():
    extra = {"endpoint": ENDPOINT, "auth_type": "file-oidc", "oidc_token_filepath": "/var/run/token"}
    settings = read(password=None, extra=extra)
    assert settings.require_identity().keywords["oidc_token_filepath"] == "/var/run/token"
    assert "client_secret" not in settings.require_identity().keywords


def test_a_branch_may_stand_for_its_endpoint():
    settings = read(endpoint="projects/shop/branches/production", extra={})
    assert settings.endpoint == ResourceName("shop", "production")


def test_read_only_is_read_from_a_uri_and_overridden_by_the_hook():
    extra = {"endpoint": ENDPOINT, "read_only": "true"}
    assert read(extra=extra).session.read_only is True
    assert (
        read_settings(ConnectionFields("a", "h.example", "i", "p", extra=extra), read_only=False).session.read_only
        is False
    )


@pytest.mark.parametrize("value", ["x", True, {"a": "b"}])
@pytest.mark.parametrize("name", POSTGRES_HOOK_EXTRAS)
def test_an_extra_of_postgres_hook_is_answered_with_what_to_write(name: str, value: object):
    with pytest.raises(LakebaseSettingsError, match=f"Field '{name}' is for PostgresHook") as raised:
        read_settings(
            ConnectionFields(
                conn_id="moved",
                extra={"endpoint": ENDPOINT, name: value},
            )
        )
    assert POSTGRES_HOOK_EXTRAS[name] in str(raised.value)
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize("name", ["curser_kind", "sqlalchemy_options", "report", "userinfo", "iamrole"])
def test_only_a_near_name_is_suggested(name: str):
    assert "Did you mean" not in str(unknown_field("moved", name, ("user", "port", "options")))
    assert "Did you mean 'endpoint'" in str(unknown_field("moved", "endpiont", ()))
