"""OpenLineage report of synced tables: from Unity Catalog to Postgres, by names alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.assets import workspace_host
from airflow_provider_lakebase.lineage.names import lakebase_database
from airflow_provider_lakebase.lineage.reports import table_dataset

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings


def report_synced_tables(settings: LakebaseSettings, sources: Mapping[str, str]) -> OperatorLineage[Any, Any]:
    """Return the sources and the Postgres tables of synced tables.

    A source is named as OpenLineage names tables of Databricks: namespace ``databricks://<workspace host>``, name
    ``catalog.schema.table``. Airflow's Databricks provider names them alike.

    :param settings: settings of the connection, whose branch and database have the tables
    :param sources: names of synced tables, each with that of its source; an empty one is not known
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    database, namespace = lakebase_database(settings), f"databricks://{workspace_host(settings)}"
    names = (table.split(".") for table in sources)
    return OperatorLineage(
        inputs=[Dataset(namespace=namespace, name=source) for source in dict.fromkeys(sources.values()) if source],
        outputs=[table_dataset(database, (schema, relation)) for _, schema, relation in names],
    )
