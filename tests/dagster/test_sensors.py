"""Sensors on rows and on synced tables, evaluated as Dagster's daemon does."""

import datetime
import json
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from _synced_tables import World
from dagster import AssetKey, Failure, RunRequest, asset, build_sensor_context

from airflow_provider_lakebase.dagster import LakebaseResource, build_rows_sensor, build_synced_tables_sensor
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

SECRET = "a@s3cret"


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


def test_rows_of_the_same_cursor_are_read_together_and_none_is_lost(lakebase: LakebaseResource):
    sensor = build_rows_sensor(
        "pages",
        sql="SELECT id / 400, id FROM generate_series(0, 2099) AS id "
        "WHERE id / 400 > coalesce(%(cursor)s, '-1')::int ORDER BY id",
        target=[orders],
        run_requests=lambda rows: [RunRequest(run_key=str(number)) for _, number in rows],
    )
    cursor, ticks = None, []
    while requests := (found := evaluate(sensor, lakebase, cursor)).run_requests:
        cursor, ticks = found.cursor, [*ticks, [int(request.run_key) for request in requests]]
    assert [len(tick) for tick in ticks] == [800, 800, 500]
    assert sum(ticks, []) == [*range(2100)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "SELECT 'NaN'::float8 FROM generate_series(1, 1001) WHERE %(cursor)s IS NULL",
            "1,000 rows have the same cursor",
        ),
        ("SELECT NULL WHERE %(cursor)s IS NULL", "NULL"),
        ("SELECT NULLIF(i > 1, false) FROM generate_series(1, 1001) AS i WHERE %(cursor)s IS NULL", "NULL"),
        ("SELECT 'a'::bytea WHERE %(cursor)s IS NULL", "of type bytea"),
        ("SELECT '1'::jsonb WHERE %(cursor)s IS NULL", "of type jsonb"),
        ("SELECT '1 year'::interval WHERE %(cursor)s IS NULL", "of type interval"),
        ("SELECT ARRAY[1] WHERE %(cursor)s IS NULL", r"of type int4\[\]"),
    ],
)
def test_a_cursor_that_would_lose_rows_is_refused(lakebase: LakebaseResource, sql: str, message: str):
    sensor = build_rows_sensor("wrong", sql=sql, target=[orders], run_requests=lambda rows: pytest.fail("requested"))
    with pytest.raises(LakebaseSettingsError, match=f"Sensor wrong: .*{message}"):
        evaluate(sensor, lakebase)


@pytest.mark.parametrize("kind", ["numeric", "float8", "float4", "uuid", "inet", "timetz", "pg_lsn", "text", "bool"])
def test_a_cursor_comes_back_as_the_value_that_it_was(lakebase: LakebaseResource, kind: str):
    values = {"uuid": "6f1f7ad7-47e6-4ea4-b1c3-8cd10b3f7dcb", "inet": "10.0.0.1/8", "timetz": "10:00:00.1+02"}
    value = {**values, "pg_lsn": "0/1", "text": "o'%s", "bool": "true"}.get(kind, "0.1").replace("%", "%%")
    sql = f"SELECT v FROM (VALUES ($$%s$$::{kind})) AS rows (v) WHERE v = coalesce(%(cursor)s::{kind}, v)"
    sensor = build_rows_sensor("kinds", sql=sql.replace("%s", value, 1), target=[orders])
    found = evaluate(sensor, lakebase)
    assert evaluate(sensor, lakebase, found.cursor).cursor == found.cursor


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "INSERT INTO orders VALUES (1) RETURNING id", "-- nothing"])
def test_sql_that_is_not_one_query_is_refused(sql: str):
    with pytest.raises(LakebaseSettingsError, match="The SQL of the sensor wrong is not one query"):
        build_rows_sensor("wrong", sql=sql, target=[orders])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT email FROM (VALUES ('b@x')) AS rows (email) WHERE no_such_column > %(cursor)s",
        "SELECT email FROM (VALUES ('b@x')) AS rows (email) WHERE length(email) > %(cursor)s::int",
        "SELECT (%(cursor)s || email)::int FROM (VALUES ('b@x')) AS rows (email)",
        "SELECT 'infinity'::date WHERE %(cursor)s IS NOT NULL",
    ],
)
def test_errors_of_a_rows_sensor_show_no_values(lakebase: LakebaseResource, sql: str):
    sensor = build_rows_sensor("secrets", sql=sql, target=[orders])
    with pytest.raises(Failure) as refused:
        evaluate(sensor, lakebase, SECRET)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert "infinity" not in str(refused.value)


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
