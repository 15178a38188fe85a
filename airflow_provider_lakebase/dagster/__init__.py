"""Databricks Lakebase for Dagster. Needs the extra ``[dagster]``, and loads nothing of Airflow's."""

from airflow_provider_lakebase.dagster.authentication import (
    AzureDevOpsOidc,
    EnvironmentOidc,
    FileOidc,
    GitHubOidc,
    PostgresPassword,
    ServicePrincipal,
)
from airflow_provider_lakebase.dagster.branch import LakebaseBranchResource
from airflow_provider_lakebase.dagster.component import LakebaseConnectionComponent
from airflow_provider_lakebase.dagster.io_manager import LakebaseIOManager
from airflow_provider_lakebase.dagster.resource import LakebaseResource
from airflow_provider_lakebase.dagster.sensors import build_rows_sensor, build_synced_tables_sensor

__all__ = [
    "AzureDevOpsOidc",
    "EnvironmentOidc",
    "FileOidc",
    "GitHubOidc",
    "LakebaseBranchResource",
    "LakebaseConnectionComponent",
    "LakebaseIOManager",
    "LakebaseResource",
    "PostgresPassword",
    "ServicePrincipal",
    "build_rows_sensor",
    "build_synced_tables_sensor",
]
