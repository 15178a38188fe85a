"""Events for the assets of tables that a task has loaded, which start the DAGs scheduled on them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def emit_event(operator: Any, context: Mapping[str, Any], uri: str, extra: Mapping[str, Any]) -> None:
    """Emit an event for an asset, as if it were an outlet of the task.

    Airflow drops the event if no DAG uses the asset.

    :param operator: the running task; the asset is added to its outlets
    :param context: the task's context
    :param uri: normalized URI of the asset
    :param extra: the event's extra; Airflow 3 loses it for an asset whose name is not its URI, unless the asset is
        declared as an outlet of the task
    """
    if "outlet_events" not in context:  # the operator runs outside a task
        return
    from airflow.providers.common.compat.sdk import Asset, AssetAlias
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    outlets = [each for each in operator.outlets if not isinstance(each, AssetAlias)]
    declared = next((each for each in outlets if _has_uri(each, uri, context)), None)
    try:
        event = context["outlet_events"][Asset(uri=uri) if declared is None else declared]
    except Exception as error:
        # The rows are committed, so the task must not fail.
        operator.log.warning("Asset %s could not be looked up, no event is emitted: %s", uri, error)
        return
    event.extra = {**event.extra, **extra}
    if declared is None:
        # A reference matches the asset whatever its name is. Looking the asset up here would log an error in each load
        # whose asset no DAG uses. Airflow 2 has no references.
        operator.outlets = [*operator.outlets, Asset.ref(uri=uri) if AIRFLOW_V_3_0_PLUS else Asset(uri=uri)]


def _has_uri(outlet: Any, uri: str, context: Mapping[str, Any]) -> bool:
    """Return whether an outlet is the asset. An outlet given by name is looked up, since it is known to exist."""
    found = getattr(outlet, "uri", None)
    if found is None and getattr(outlet, "name", None) is not None:
        with suppress(Exception):
            found = context["outlet_events"][outlet].key.uri
    return bool(found == uri)
