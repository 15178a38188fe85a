"""Sensors on rows and on synced tables, evaluated as Dagster's daemon does."""

import datetime
import json
from collections.abc import Iterator
from typing import Any

import pytest
from _synced_tables import World
from dagster import AssetKey, RunRequest, asset, build_sensor_context

from airflow_provider_lakebase.dagster import LakebaseResource, build_rows_sensor, build_synced_tables_sensor
from airflow_provider_lakebase.emulator import LakebaseEmulator


@asset
def orders() -> None: ...


def evaluate(sensor: Any, lakebase: LakebaseResource, cursor: str | None = None) -> Any:
    with build_sensor_context(cursor=cursor, resources={"lakebase": lakebase}) as context:
        return sensor.evaluate_tick(context)


def test_rows_are_found_once(lakebase: LakebaseResource, schema: str):
    lakebase.connect_and_execute(
        f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.orders (id int, at timestamptz DEFAULT now());"
        f"INSERT INTO {schema}.orders SELECT * FROM generate_series(1, 3)"
    )
    sensor = build_rows_sensor(
        "new_orders",
        sql=f"SELECT id FROM {schema}.orders WHERE id > coalesce(%(cursor)s, '0')::int ORDER BY id",
        target=[orders],
    )
    found = evaluate(sensor, lakebase)
    assert found.cursor == "3"
    assert [request.run_key for request in found.run_requests] == ["new_orders:3"]
    assert not evaluate(sensor, lakebase, found.cursor).run_requests


def test_a_time_is_a_cursor_and_each_row_may_have_a_run(lakebase: LakebaseResource, schema: str):
    lakebase.connect_and_execute(
        f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.orders (id int, at timestamptz);"
        f"INSERT INTO {schema}.orders VALUES (1, '2026-01-01 00:00:00.000001+00'), (2, '2026-01-01 00:00:00.000002+00')"
    )
    sensor = build_rows_sensor(
        "new_orders",
        sql=f"SELECT at, id FROM {schema}.orders WHERE at > coalesce(%(cursor)s, '-infinity')::timestamptz ORDER BY at",
        target=[orders],
        run_requests=lambda rows: [RunRequest(run_key=f"order {number}") for _, number in rows],
    )
    found = evaluate(sensor, lakebase, "2026-01-01 00:00:00.000001+00:00")
    assert [request.run_key for request in found.run_requests] == ["order 2"]
    assert datetime.datetime.fromisoformat(found.cursor).microsecond == 2
    assert not evaluate(sensor, lakebase, found.cursor).run_requests


def test_a_suspended_endpoint_is_woken_only_if_told(lakebase: LakebaseResource, emulator: LakebaseEmulator):
    quiet = build_rows_sensor("quiet", sql="SELECT 1 WHERE %(cursor)s IS NULL", target=[orders])
    waking = build_rows_sensor("waking", sql="SELECT 1 WHERE %(cursor)s IS NULL", target=[orders], wake=True)
    emulator.suspend()
    skipped = evaluate(quiet, lakebase)
    assert "IDLE" in skipped.skip_message
    assert lakebase.endpoint_status().state == "IDLE"
    assert evaluate(waking, lakebase).run_requests
    assert evaluate(quiet, lakebase).run_requests


@pytest.fixture
def synced_table(emulator: LakebaseEmulator) -> Iterator[str]:
    world = World(emulator)
    table = world.settled(world.source({"id": [1]}), schema="dagster")
    yield str(table.name).removeprefix("synced_tables/")
    world.client.postgres.delete_synced_table(str(table.name)).wait()
    with world.connect() as session:
        session.execute("DROP SCHEMA dagster CASCADE")


def test_a_new_version_of_a_synced_table_is_reported_once(
    lakebase: LakebaseResource, emulator: LakebaseEmulator, synced_table: str
):
    sensor = build_synced_tables_sensor("synced", synced_tables=[synced_table], target=[orders])
    emulator.suspend()
    found = evaluate(sensor, lakebase)
    (event,) = found.asset_events
    assert event.asset_key == AssetKey(synced_table.split("."))
    version = event.metadata["lakebase/version"].value
    assert [request.run_key for request in found.run_requests] == [f"change 1: {synced_table}@{version}"]
    assert not evaluate(sensor, lakebase, found.cursor).run_requests
    # As if the table was created again since, which begins its versions again.
    seen = json.loads(found.cursor)
    seen["versions"][synced_table] = version + 5
    (request,) = evaluate(sensor, lakebase, json.dumps(seen)).run_requests
    assert request.run_key == f"change 2: {synced_table}@{version}"
    assert lakebase.endpoint_status().state == "IDLE"
