"""How assets become OpenLineage datasets."""

from __future__ import annotations

from types import SimpleNamespace

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_lakebase.assets import create_asset
from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings
from airflow_provider_lakebase.lineage.assets import convert_asset_to_openlineage

URI = "lakebase://my-workspace.cloud.databricks.com/shop/main/databricks_postgres/sales/orders"


def test_a_dataset_has_the_branch_as_namespace_and_decoded_names():
    asset = create_asset(host="H", project="shop", branch="main", table="Größe/1")
    dataset = convert_asset_to_openlineage(asset, None)
    assert (dataset.namespace, dataset.name) == ("lakebase://h/shop/main", "databricks_postgres.public.Größe/1")


def test_a_hook_with_a_host_of_its_own_names_datasets_by_it():
    identity = WorkspaceIdentity("https://my-workspace.cloud.databricks.com", "oauth-m2m")
    endpoint = ResourceName.parse("projects/shop/branches/main/endpoints/primary")
    settings = LakebaseSettings("c", identity, endpoint, SessionSettings(pg_host="Ep-1.example.com"))
    dataset = convert_asset_to_openlineage(Asset(uri=URI), SimpleNamespace(settings=settings))
    assert (dataset.namespace, dataset.name) == (
        "postgres://ep-1.example.com:5432",
        "databricks_postgres.sales.orders",
    )
