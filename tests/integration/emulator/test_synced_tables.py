"""What the emulator's synced tables are beyond ``tests/contract``: their states one by one, refusals and size."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from _synced_tables import BRANCH, Policy, Session, World, postgres_name, rows, state, wait_for
from databricks.sdk.errors import AlreadyExists, BadRequest, NotFound
from databricks.sdk.errors import NotImplemented as NotImitated
from databricks.sdk.service.pipelines import UpdateInfoState
from databricks.sdk.service.postgres import (
    Branch,
    BranchSpec,
    Catalog,
    CatalogCatalogSpec,
    NewPipelineSpec,
    SyncedTable,
)
from psycopg import sql

from airflow_provider_lakebase.emulator import LakebaseEmulator


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with LakebaseEmulator(wake_seconds=0.05) as emulator:
        yield World(emulator)


@pytest.fixture(scope="module")
def session(world: World) -> Iterator[Session]:
    with world.connect() as session:
        yield session


def test_every_state_is_seen_on_the_way(world: World) -> None:
    world.emulator.pipeline_seconds = 0.4
    try:
        seen: list[str] = []
        table = world.create(world.source({"id": [1]}))
        watch(world, table, seen, "ONLINE_NO_PENDING_UPDATE")
        assert table.status
        world.client.pipelines.start_update(str(table.status.pipeline_id))
        watch(world, table, seen, "ONLINE_TRIGGERED_UPDATE")
    finally:
        world.emulator.pipeline_seconds = 0.02
    assert seen == [
        "PROVISIONING",
        "PROVISIONING_PIPELINE_RESOURCES",
        "ONLINE",
        "ONLINE_NO_PENDING_UPDATE",
        "ONLINE_UPDATING_PIPELINE_RESOURCES",
        "ONLINE_TRIGGERED_UPDATE",
    ]
    world.settle(table)


def watch(world: World, table: SyncedTable, seen: list[str], last: str) -> None:
    """Note each state until the last one; PROVISIONING_INITIAL_SNAPSHOT passes too fast to be seen for sure."""
    while not seen or seen[-1] != last:
        now = state(world.client.postgres.get_synced_table(str(table.name)))
        if now != (seen or [""])[-1] and now != "PROVISIONING_INITIAL_SNAPSHOT":
            seen.append(now)


def test_an_update_can_be_read_listed_and_stopped(world: World) -> None:
    pipelines = world.client.pipelines
    table = world.settled(world.source({"id": [1]}), scheduling_policy=Policy.CONTINUOUS)
    assert table.status
    pipeline_id = str(table.status.pipeline_id)
    updates = pipelines.list_updates(pipeline_id).updates or []
    update = pipelines.get_update(pipeline_id, str(updates[0].update_id)).update
    assert update and update.state == UpdateInfoState.RUNNING
    pipelines.stop(pipeline_id)
    wait_for(lambda: state(world.client.postgres.get_synced_table(str(table.name))) == "ONLINE")
    update = pipelines.get_update(pipeline_id, str(updates[0].update_id)).update
    assert update and update.state == UpdateInfoState.CANCELED
    world.client.postgres.delete_synced_table(str(table.name)).wait()
    with pytest.raises(NotFound, match="pipeline"):
        pipelines.get(pipeline_id)


def test_what_a_database_lacks_is_made_or_refused(world: World) -> None:
    source = world.source({"id": [1]})
    options = {"postgres_database": "made_for_it", "table": "there"}
    with pytest.raises(Exception, match=r'NOT_FOUND\] database "made_for_it" does not exist'):
        world.create(source, create_database_objects_if_missing=False, **options)
    assert state(world.settled(source, **options)) == "ONLINE_NO_PENDING_UPDATE"
    with pytest.raises(Exception, match=r'NOT_FOUND\] schema "nowhere" does not exist'):
        world.create(source, create_database_objects_if_missing=False, schema="nowhere")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"primary_key_columns": ["nothing"]}, BadRequest, "Column nothing does not exist"),
        ({"branch": "projects/demo/branches/nothing"}, NotFound, "branch id not found"),
        ({"table": "not-a-name"}, BadRequest, "synced_table_id"),
        (
            {"existing_pipeline_id": "p", "new_pipeline_spec": NewPipelineSpec(storage_catalog="main")},
            BadRequest,
            "Only one of",
        ),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    world: World, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        world.create(world.source({"id": [1]}), **changes)


def test_a_lakebase_catalog_gives_its_tables_their_database(world: World) -> None:
    spec = CatalogCatalogSpec("databricks_postgres", branch=BRANCH)
    world.client.postgres.create_catalog(Catalog(spec=spec), "registered").wait()
    source = world.source({"id": [1]})
    with pytest.raises(BadRequest, match="must be 'databricks_postgres'"):
        world.create(source, catalog="registered", postgres_database="other")
    table = world.settled(source, catalog="registered", postgres_database=None)
    assert state(table) == "ONLINE_NO_PENDING_UPDATE"


def test_what_is_not_obeyed_is_refused(world: World) -> None:
    table = world.settled(world.source({"id": [1]}))
    assert table.status
    pipeline_id = str(table.status.pipeline_id)
    for call in (
        lambda: world.client.tables.get("main.gold.source_0", include_delta_metadata=True),
        lambda: world.client.tables.get(str(table.name).removeprefix("synced_tables/")),
        lambda: world.client.pipelines.list_updates(pipeline_id, max_results=1),
        lambda: world.client.pipelines.start_update(pipeline_id, full_refresh_selection=["t"]),
    ):
        with pytest.raises(NotImitated, match="does not imitate"):
            call()


def test_a_name_is_taken_once(world: World) -> None:
    source = world.source({"id": [1]})
    world.settled(source, table="taken")
    with pytest.raises(AlreadyExists):
        world.create(source, table="taken")


def test_a_table_that_somebody_else_made_is_not_replaced(world: World, session: Session) -> None:
    world.settled(world.source({"id": [1]}))
    world.emulator.pipeline_seconds = 2.0
    table = world.create(world.source({"id": [1]}), table="own")
    session.execute("CREATE TABLE app.own (mine text)")
    world.emulator.pipeline_seconds = 0.02
    table = world.settle(table)
    assert table.status and "not that of the synced table" in str(table.status.message)
    assert session.execute("SELECT * FROM app.own").description


def test_a_hundred_thousand_rows_take_seconds(world: World, session: Session) -> None:
    started = time.monotonic()
    table = world.settled(world.source({"id": range(100_000), "name": ["x"] * 100_000}))
    query = sql.SQL("SELECT count(*) FROM {}").format(postgres_name(table))
    assert session.execute(query).fetchall() == [(100_000,)]
    assert time.monotonic() - started < 60


def test_a_synced_table_is_on_its_branch_only(world: World, session: Session) -> None:
    spec = BranchSpec(no_expiry=True)
    branch = world.client.postgres.create_branch("projects/demo", Branch(spec=spec), "dev").wait()
    table = world.settled(world.source({"id": [1]}), branch=branch.name, table="on_dev")
    assert state(table) == "ONLINE_NO_PENDING_UPDATE"
    assert session.execute("SELECT to_regclass('app.on_dev')").fetchall() == [(None,)]
    world.client.postgres.delete_branch(str(branch.name), purge=True).wait()
    table = world.refresh(table)
    assert state(table) == "ONLINE_PIPELINE_FAILED"
    assert table.status and "CONNECTION_ERROR" in str(table.status.message)


def test_a_stop_of_the_emulator_ends_an_update_that_waits_for_a_lock() -> None:
    before = {thread.ident for thread in threading.enumerate()}
    emulator = LakebaseEmulator(wake_seconds=0.05).start()
    world = World(emulator)
    table = world.settled(world.source({"id": [1]}))
    with contextlib.closing(world.connect()) as reader:
        reader.execute("BEGIN")
        rows(reader, table)
        assert table.status
        world.client.pipelines.start_update(str(table.status.pipeline_id))
        wait_for(lambda: bool(reader.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall()))
        started = time.monotonic()
        emulator.stop()
        assert time.monotonic() - started < 60
    assert "lakebase-pipeline" not in [thread.name for thread in threading.enumerate() if thread.ident not in before]
