"""Builders of sensors: on rows that a query finds, and on the versions of synced tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import date, time
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from uuid import UUID

import psycopg
from dagster import (
    AssetKey,
    AssetMaterialization,
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from airflow_provider_lakebase.core.session.connections import LakebaseSession
from airflow_provider_lakebase.core.sql.binding import bind, hide_values
from airflow_provider_lakebase.core.sql.split import split_statements
from airflow_provider_lakebase.core.workspace.client import Workspace
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable, read_table, synced_table_name
from airflow_provider_lakebase.dagster.resource import LakebaseResource
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

Rows = Sequence[tuple[Any, ...]]
DEFAULT_SECONDS = 60
MAX_ROWS = 1000
_QUERIES = (("SELECT",), ("WITH",), ("VALUES",), ("TABLE",))
# The text of others, such as bytes or lists, is Python's own. JSON of any kind may look like one of these.
_CURSORS = (str, int, float, Decimal, date, time, UUID, IPv4Address, IPv4Network, IPv6Address, IPv6Network)
_JSON = ("json", "jsonb")


def build_rows_sensor(
    name: str,
    *,
    sql: str,
    target: Any = None,
    run_requests: Callable[[Rows], Iterable[RunRequest]] | None = None,
    wake: bool = False,
    resource_key: str = "lakebase",
    minimum_interval_seconds: int = DEFAULT_SECONDS,
    default_status: DefaultSensorStatus = DefaultSensorStatus.STOPPED,
    **sensor_arguments: Any,
) -> SensorDefinition:
    """Return a sensor that requests runs when a query finds rows that it has not found before.

    The first column of the last row is the cursor: the query gets it as ``%(cursor)s``, at first NULL, and must return
    the rows after it, in its order: ``SELECT id FROM orders WHERE id > coalesce(%(cursor)s, '0')::bigint ORDER BY id``.
    At most 1,000 rows are read at once; the next evaluation reads on. Rows of the same cursor are read together, so no
    more than 1,000 rows may have the same one.

    Each query opens a session. While the endpoint is suspended, the sensor asks only for its state, and wakes nothing.
    But a query more often than the suspend timeout keeps the endpoint from suspending.

    :param name: of the sensor
    :param sql: one query, which is read through a cursor of Postgres
    :param target: jobs or assets to run
    :param run_requests: returns the runs for new rows; by default one run for all of them, with the cursor as run key
    :param wake: query a suspended endpoint too, which wakes it
    :param resource_key: of the :class:`LakebaseResource`
    :param minimum_interval_seconds: between two evaluations
    :param default_status: whether it runs once it is deployed
    :param sensor_arguments: further arguments of :func:`dagster.sensor`
    :raises LakebaseSettingsError: if the SQL is not one query
    """
    if [each.words[:1] in _QUERIES for each in split_statements(sql)] != [True]:
        raise LakebaseSettingsError(f"The SQL of the sensor {name} is not one query", hint="Give one SELECT.")

    @sensor(
        name=name,
        target=target,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        **sensor_arguments,
    )
    def look_for_rows(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        if not wake and (state := lakebase.endpoint_status().state) != "ACTIVE":
            return SkipReason(f"The endpoint is {state}, and the sensor does not wake it.")
        with lakebase.get_connection() as session:
            rows, kind = _read(session, name, sql, context.cursor)
        if not rows:
            return SkipReason("The query found no new rows.")
        rows = _whole_cursors(name, rows, kind)
        position = rows[-1][0]
        requests = run_requests(rows) if run_requests else [RunRequest(run_key=f"{name}:{position}")]
        return SensorResult(run_requests=list(requests), cursor=str(position))

    return look_for_rows


def _read(session: LakebaseSession, name: str, sql: str, position: str | None) -> tuple[Rows, str]:
    """Return one row more than an evaluation reads, if there are so many, and the type of their first column."""
    try:
        with hide_values(position), session.cursor(name="lakebase_rows") as cursor:
            cursor.execute(bind(session, sql, {"cursor": position}).encode())
            rows = cursor.fetchmany(MAX_ROWS + 1)
            return rows, cursor.description[0].type_display if cursor.description else ""
    except psycopg.DataError as error:
        # The original quotes the value.
        raise LakebaseSettingsError(
            f"Sensor {name}: the query meets a value that does not fit ({type(error).__name__})",
            context=session.context,
            hint="Check its casts, such as that of %(cursor)s, and leave out what Python does not hold, such as "
            "infinite times. If the query was changed, reset the sensor's cursor.",
        ) from None


def _whole_cursors(name: str, rows: Rows, kind: str) -> Rows:
    """Return the rows without those that the next evaluation reads, which are all of their cursor.

    :param name: of the sensor
    :param rows: at most one more than an evaluation reads
    :param kind: type of their first column in Postgres
    """
    last = rows[-1][0]
    if any(row[0] is None for row in rows):
        raise LakebaseSettingsError(
            f"Sensor {name}: the first column of a row is NULL, so it is no cursor",
            hint="Leave such rows out of the query.",
        )
    if not isinstance(last, _CURSORS) or kind in _JSON:
        raise LakebaseSettingsError(
            f"Sensor {name}: the first column is of type {kind}, which cannot be read back from the cursor's text",
            hint="Select a number, a text, a time or a UUID first, and order by it; or cast the column to text.",
        )
    if len(rows) <= MAX_ROWS:
        return rows
    # NaN is equal to itself in Postgres only.
    whole = [row for row in rows[:MAX_ROWS] if row[0] != last and str(row[0]) != str(last)]
    if not whole:
        what = f"more than {MAX_ROWS:,} rows have the same cursor, which cannot tell which of them were found"
        raise LakebaseSettingsError(
            f"Sensor {name}: {what}",
            hint="Select a first column that is unique, such as an id, and order by it; or combine several columns in "
            "one text, such as time and id; or return one row for all of them with GROUP BY.",
        )
    return whole


def build_synced_tables_sensor(
    name: str,
    *,
    synced_tables: Sequence[str],
    target: Any = None,
    resource_key: str = "lakebase",
    minimum_interval_seconds: int = DEFAULT_SECONDS,
    default_status: DefaultSensorStatus = DefaultSensorStatus.STOPPED,
    **sensor_arguments: Any,
) -> SensorDefinition:
    """Return a sensor on new versions of synced tables. It asks only the control plane, so it wakes no endpoint.

    For each table that serves another version than at the last evaluation, it reports a materialization of the asset
    ``catalog/schema/table``, with the metadata ``lakebase/version``, and requests a run of the target, if there is one.

    :param name: of the sensor
    :param synced_tables: names in Unity Catalog, ``catalog.schema.table``
    :param target: jobs or assets to run; not needed if assets depend on those of the tables
    :param resource_key: of the :class:`LakebaseResource`
    :param minimum_interval_seconds: between two evaluations
    :param default_status: whether it runs once it is deployed
    :param sensor_arguments: further arguments of :func:`dagster.sensor`
    """
    names = [synced_table_name(each) for each in synced_tables]

    @sensor(
        name=name,
        target=target,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        **sensor_arguments,
    )
    def look_for_versions(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        lakebase: LakebaseResource = getattr(context.resources, resource_key)
        workspace = Workspace.of(lakebase.settings)
        seen = json.loads(context.cursor or '{"versions": {}, "changes": 0}')
        known: dict[str, int] = seen["versions"]
        changed = []
        for table in (read_table(workspace, each) for each in names):
            if table.has_failed:
                context.log.warning(f"The synced table's pipeline has failed. {table}")
            if table.is_online and table.version is not None and known.get(table.full_name) != table.version:
                changed.append(table)
        if not changed:
            return SkipReason("No synced table serves a new version.")
        versions = {table.full_name: table.version for table in changed}
        changes = seen["changes"] + 1
        # Versions start again when a table is created again, and Dagster starts no second run for a key.
        run_key = f"change {changes}: " + ", ".join(f"{table}@{version}" for table, version in versions.items())
        return SensorResult(
            run_requests=[RunRequest(run_key=run_key)] if target is not None else [],
            asset_events=[_materialization(table) for table in changed],
            cursor=json.dumps({"versions": {**known, **versions}, "changes": changes}),
        )

    return look_for_versions


def _materialization(table: SyncedTable) -> AssetMaterialization:
    return AssetMaterialization(AssetKey(table.full_name.split(".")), metadata={"lakebase/version": table.version})
