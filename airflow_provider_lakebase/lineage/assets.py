"""Assets as OpenLineage datasets, for Airflow's hook lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_provider_lakebase.assets import SCHEME
from airflow_provider_lakebase.lineage.names import namespace_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.common.compat.sdk import Asset


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """Return the OpenLineage dataset of an asset.

    :param asset: an asset with a ``lakebase://…`` URI
    :param lineage_context: the hook that reported it, or None
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    parts = urlsplit(asset.uri)
    project, branch, *table = parts.path.split("/")[1:]
    settings = getattr(lineage_context, "settings", None)
    namespace = namespace_of(settings) if settings else f"{SCHEME}://{parts.netloc}/{project}/{branch}"
    return Dataset(namespace=namespace, name=".".join(map(unquote, table)))
