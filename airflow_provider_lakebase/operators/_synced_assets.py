"""Assets of synced tables: the source in Unity Catalog, and the table in Postgres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.assets import asset_uri, unity_catalog_uri
from airflow_provider_lakebase.operators._asset_events import emit_event

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
    from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable


def name_inlet(operator: Any, settings: LakebaseSettings, source: str) -> None:
    """Add the source of a synced table to the inlets of the running task, unless it is among them.

    :param operator: the running task
    :param settings: the connection
    :param source: name of the source in Unity Catalog; empty if it is not known
    """
    from airflow.providers.common.compat.sdk import Asset

    if not source:
        return
    uri = unity_catalog_uri(settings, source)
    if uri not in [getattr(inlet, "uri", None) for inlet in operator.inlets]:
        operator.inlets = [*operator.inlets, Asset(uri=uri)]


def emit_synced(operator: Any, context: Mapping[str, Any], settings: LakebaseSettings, table: SyncedTable) -> None:
    """Emit an event for the asset of a table, which triggers the DAGs that are scheduled on it.

    :param operator: the running task
    :param context: the task's context
    :param settings: settings that name its branch and its database
    :param table: the table
    """
    if not is_in_project(settings, table):
        operator.log.info("No event is emitted for %s: the connection names no branch of its project", table.full_name)
        return
    _, schema, relation = table.full_name.split(".")
    if uri := asset_uri(settings, schema, relation):
        operator.log.info("Synced asset %s", uri)
        emit_event(operator, context, uri, {"synced_table": table.full_name, "version": table.version})


def is_in_project(settings: LakebaseSettings, table: SyncedTable) -> bool:
    """Return whether a table is in the project of a connection that names a branch.

    :param settings: the connection
    :param table: the table
    """
    endpoint = settings.endpoint
    return endpoint is not None and str(endpoint.up_to("project")) == table.project
