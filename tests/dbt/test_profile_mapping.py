"""A connection becomes a profile with which dbt does what the hook does; the profile holds no secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cosmos import ProfileConfig, dataset
from cosmos.dataset import get_dataset_namespace
from cosmos.exceptions import CosmosValueError
from psycopg.pq import Conninfo

from airflow_provider_lakebase.assets import create_asset
from airflow_provider_lakebase.core.connection.fields import RESERVED_LIBPQ_KEYWORDS
from airflow_provider_lakebase.cosmos import _EXTRAS, _SECRETS, LakebaseProfileMapping, emit_assets
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from dbt.adapters.lakebase import LakebaseCredentials

ENDPOINT = {"endpoint": "projects/shop/branches/production/endpoints/primary"}
SERVICE_PRINCIPAL = {"conn_type": "lakebase", "host": "https://w", "login": "client", "password": "s3cret"}
CONNECTIONS: dict[str, dict[str, Any]] = {
    "a client secret": {**SERVICE_PRINCIPAL, "extra": ENDPOINT},
    "everything": {
        **SERVICE_PRINCIPAL,
        "schema": "shop",
        "port": 6543,
        "extra": {
            **ENDPOINT,
            "user": "group",
            "group_name": "group",
            "pg_host": "pg.example.com",
            "read_only": True,
            "sslmode": "verify-full",
            "sslrootcert": "/ca.pem",
            "wake_timeout": 300,
            "credential_ttl": "600",
            "options": "-c statement_timeout=5min",
            "keepalives_idle": 5,
            "sslpassword": "hunter2",
            "sqlalchemy_scheme": "",
            "project": "shop",
        },
    },
    "an identity token in a file": {
        **{name: SERVICE_PRINCIPAL[name] for name in ("conn_type", "host", "login")},
        "extra": {**ENDPOINT, "auth_type": "file-oidc", "oidc_token_filepath": "/token", "token_audience": "w"},
    },
    "a native password": {
        **{"conn_type": "lakebase", "login": "app", "password": "s3cret"},
        "extra": {"auth_type": "password", "pg_host": "pg.example.com"},
    },
    "a personal access token": {
        **{"conn_type": "lakebase", "extra": {**ENDPOINT, "user": "someone", "databricks_conn_id": "databricks"}}
    },
    "a service principal of Azure": {
        **{"conn_type": "lakebase", "extra": {**ENDPOINT, "user": "app", "databricks_conn_id": "azure"}}
    },
}
OTHERS = {
    "databricks": {
        "conn_type": "databricks",
        "host": "https://w",
        "extra": {"token": "dapi-s3cret", "other": "s3cret"},
    },
    "azure": {
        **{"conn_type": "databricks", "host": "https://w", "login": "app", "password": "azure-s3cret"},
        "extra": {"azure_tenant_id": "tenant"},
    },
}
SECRETS = ("s3cret", "hunter2")


@pytest.fixture
def mapping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LakebaseProfileMapping:
    for conn_id, connection in {"shop": CONNECTIONS[request.param], **OTHERS}.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    return LakebaseProfileMapping("shop", profile_args={"schema": "marts", "threads": 4})


def rendered(value: Any, variables: dict[str, str]) -> Any:
    """Return a part of a profile as dbt reads it."""
    if isinstance(value, dict):
        return {name: rendered(each, variables) for name, each in value.items()}
    found = re.fullmatch(r"\{\{ env_var\('(\w+)'\) \}\}", value) if isinstance(value, str) else None
    return variables[found[1]] if found else value


@pytest.mark.parametrize("mapping", CONNECTIONS, indirect=True)
def test_dbt_connects_as_the_hook_does(mapping: LakebaseProfileMapping):
    profile = yaml.safe_load(mapping.get_profile_file_contents("shop"))["shop"]["outputs"]["cosmos_target"]
    assert profile.pop("type") == "lakebase"
    assert profile.pop("threads") == 4
    assert not any(secret in str(profile) for secret in SECRETS)
    fields = rendered(profile, mapping.env_vars)
    LakebaseCredentials.validate(fields)
    credentials = LakebaseCredentials.from_dict(fields)
    assert credentials.schema == "marts"
    expected = LakebaseHook("shop").settings
    assert replace(credentials.settings, conn_id="shop") == expected
    assert not any(secret in f"{credentials!r}{credentials.connection_info()}" for secret in SECRETS)
    assert [name for name in mapping.env_vars if not name.startswith("DBT_ENV_SECRET_LAKEBASE_")] == []


@pytest.mark.parametrize("mapping", ["a client secret"], indirect=True)
def test_dbt_lists_nodes_with_a_profile_that_needs_no_connection(
    mapping: LakebaseProfileMapping, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AIRFLOW_CONN_SHOP")
    profile = yaml.safe_load(mapping.get_profile_file_contents("shop", use_mock_values=True))
    fields = profile["shop"]["outputs"]["cosmos_target"]
    assert fields.pop("type") == "lakebase"
    assert LakebaseCredentials.from_dict(fields).schema == "marts"


def test_dbt_that_failed_before_it_ran_anything_has_written_no_asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(CONNECTIONS["a client secret"]))
    profile = ProfileConfig("shop", "production", profile_mapping=LakebaseProfileMapping("shop"))
    emit_assets(str(tmp_path), context={"task": SimpleNamespace(profile_config=profile)})


@pytest.mark.parametrize(
    ("connection", "namespace"),
    [
        ("a client secret", "lakebase://w/shop/production"),
        ("a personal access token", "lakebase://w/shop/production"),
        ("a native password", None),
    ],
)
def test_cosmos_names_assets_as_loads_do(connection: str, namespace: str | None, monkeypatch: pytest.MonkeyPatch):
    for conn_id, each in {"shop": CONNECTIONS[connection], **OTHERS}.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(each))
    profile = ProfileConfig("shop", "production", profile_mapping=LakebaseProfileMapping("shop"))
    assert get_dataset_namespace(profile) == namespace


@pytest.mark.parametrize("name", ["client_secret", "token", "sslpassword", "pass", "password", "secrt"])
@pytest.mark.parametrize("place", [None, "databricks", "extra"])
def test_a_secret_in_the_dag_file_is_refused(name: str, place: str | None):
    secret = {name: "s3cret"}
    with pytest.raises(CosmosValueError, match=f"profile_args must not contain {place or name}") as raised:
        LakebaseProfileMapping("shop", profile_args={place: secret} if place else secret)
    assert "s3cret" not in str(raised.value)


def test_a_secret_below_a_field_of_the_profile_is_refused():
    with pytest.raises(CosmosValueError, match="profile_args holds a dict as endpoint"):
        LakebaseProfileMapping("shop", profile_args={"endpoint": {"token": "s3cret"}})


def test_an_unknown_extra_of_the_connection_is_named_and_gets_into_no_file(monkeypatch: pytest.MonkeyPatch):
    connection = {**SERVICE_PRINCIPAL, "extra": {**ENDPOINT, "sslpasword": "hunter2"}}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(connection))
    with pytest.raises(LakebaseSettingsError, match="Field 'sslpasword' is unknown") as raised:
        LakebaseProfileMapping("shop").get_profile_file_contents("shop")
    assert "hunter2" not in str(raised.value)


def test_each_keyword_of_libpq_is_a_field_or_a_secret_or_reserved():
    keywords = {each.keyword.decode() for each in Conninfo.get_defaults()}
    named = _EXTRAS | _SECRETS | RESERVED_LIBPQ_KEYWORDS
    assert keywords - named == set()
    # Those whose values libpq itself hides.
    hidden = {each.keyword.decode() for each in Conninfo.get_defaults() if each.dispchar == b"*"}
    assert hidden <= _SECRETS


@pytest.mark.parametrize("alias", ["plain", "a.b", "a/b", "Über % x", "a%2Fb"])
def test_a_model_of_any_name_has_the_asset_that_loads_name(alias: str, tmp_path: Path):
    node = {"resource_type": "model", "database": "db", "schema": "marts.x", "name": "model", "alias": alias}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"nodes": {"model.shop.model": node, "test.shop.t": {"resource_type": "test"}}}))
    place = {"host": "w", "project": "shop", "branch": "production", "database": "db", "schema": "marts.x"}
    uris = dataset.compute_model_outlet_uris(manifest, "lakebase://w/shop/production")
    assert uris == {"model.shop.model": [create_asset(**place, table=alias).uri]}
    # Other adapters' are as Cosmos has them.
    others = dataset.compute_model_outlet_uris(manifest, "postgres://w:5432")
    assert others["model.shop.model"][0].startswith("postgres://w:5432/db/marts/x/")


def test_a_wrong_field_of_the_connection_is_named(monkeypatch: pytest.MonkeyPatch):
    connection = {**SERVICE_PRINCIPAL, "extra": {"endpoint": "primary"}}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(connection))
    with pytest.raises(LakebaseSettingsError, match="Field 'endpoint'"):
        LakebaseProfileMapping("shop").profile  # noqa: B018


def test_a_dag_file_that_imports_it_loads_no_driver():
    heavy = ["databricks", "psycopg", "psycopg2", "dbt.adapters.postgres", "pyarrow"]
    program = f"import airflow_provider_lakebase.cosmos, sys; print([each for each in {heavy} if each in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"
