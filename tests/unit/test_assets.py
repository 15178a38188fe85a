"""How the URIs of assets are written."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_lakebase.assets import asset_uri, create_asset
from airflow_provider_lakebase.assets import sanitize_uri as sanitize
from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

URI = "lakebase://my-workspace.cloud.databricks.com/shop/main/databricks_postgres/sales/orders"


def settings_of(endpoint: str = "projects/shop/branches/main/endpoints/primary", **fields: Any) -> LakebaseSettings:
    identity = WorkspaceIdentity("https://My-Workspace.cloud.databricks.com", "oauth-m2m")
    return LakebaseSettings("c", identity, ResourceName.parse(endpoint), SessionSettings(**fields))


@pytest.mark.parametrize("endpoint", ["projects/shop/branches/main", "projects/shop/branches/main/endpoints/reader"])
def test_every_endpoint_of_a_branch_has_the_same_assets(endpoint: str):
    assert asset_uri(settings_of(endpoint), "sales", "orders") == URI


def test_a_host_of_the_connections_changes_no_uri():
    assert asset_uri(settings_of(pg_host="ep-1.database.cloud.databricks.com"), "sales", "orders") == URI


def test_a_native_login_knows_no_workspace_and_so_no_asset():
    settings = LakebaseSettings("c", None, None, SessionSettings(pg_host="h", password="p", user="u"))
    assert asset_uri(settings, "sales", "orders") is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (URI, URI),
        (f"{URI}/", URI),
        ("LAKEBASE://My-Workspace.CLOUD.databricks.com:443/shop/main/databricks_postgres/sales/orders", URI),
        ("lakebase://h:8443/shop/main/d/s/t", "lakebase://h:8443/shop/main/d/s/t"),
        ("lakebase://[::1]:80/shop/main/d/s/t", "lakebase://[::1]:80/shop/main/d/s/t"),
        ("lakebase://h/shop/main/d/%53/Tab%6ce", "lakebase://h/shop/main/d/S/Table"),
        ("lakebase://h/shop/main/d/s/a%2fb%20c%C3%A9", "lakebase://h/shop/main/d/s/a%2Fb%20c%C3%A9"),
    ],
)
def test_airflow_writes_every_form_of_a_uri_alike(written: str, meant: str):
    assert Asset(uri=written).uri == meant
    assert Asset(uri=meant).uri == meant


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("lakebase://u@h/p/b/d/s/t", "must not contain a user or password"),
        ("lakebase://u:dose123@h/p/b/d/s/t", "must not contain a user or password"),
        ("lakebase://h/p/b/d/s/t?x=1", "must not contain a query"),
        ("lakebase://h/p/b/d/s/t#x", "or a fragment"),
        ("lakebase://h/p/b/d/s", "does not name a table"),
        ("lakebase://h/p/b/d/s/t/u", "does not name a table"),
        ("lakebase://h/p/b/d//t", "part of an asset's URI is empty"),
        ("lakebase:///p/b/d/s/t", "part of an asset's URI is empty"),
        ("lakebase://h/Shop/b/d/s/t", "project of an asset's URI is malformed: 'Shop'"),
        ("lakebase://h/p/b_1/d/s/t", "branch of an asset's URI is malformed: 'b_1'"),
        ("lakebase://h:x/p/b/d/s/t", "malformed port"),
    ],
)
def test_a_uri_that_names_no_table_is_refused_with_the_shape_it_should_have(uri: str, words: str):
    from urllib.parse import urlsplit

    with pytest.raises(LakebaseSettingsError, match=words) as caught:
        sanitize(urlsplit(uri))
    assert isinstance(caught.value, ValueError)
    assert "lakebase://<workspace host>/<project>/<branch>/<database>/<schema>/<table>" in str(caught.value)
    assert "dose123" not in str(caught.value)


def test_an_asset_is_made_from_names_as_they_are():
    asset = create_asset(host="H", project="shop", branch="main", table="Größe/1", extra={"owner": "me"})
    assert asset.uri == "lakebase://h/shop/main/databricks_postgres/public/Gr%C3%B6%C3%9Fe%2F1"
    assert asset.extra == {"owner": "me"}


def test_the_module_is_as_light_as_airflow_needs_it():
    program = "import airflow_provider_lakebase.assets, sys; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
