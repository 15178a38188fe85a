from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model.catalog import Column, Row, UnityCatalog
from airflow_provider_lakebase.emulator.model.data_plane import TablePlace
from airflow_provider_lakebase.emulator.model.errors import ApiError
from airflow_provider_lakebase.emulator.model.pipelines import Pipelines, SyncError
from airflow_provider_lakebase.emulator.model.synced_table import TRANSITIONS, SyncedTable
from airflow_provider_lakebase.emulator.model.synced_table_spec import read_spec
from airflow_provider_lakebase.emulator.model.synced_tables import SyncedTables
from airflow_provider_lakebase.emulator.model.workspace import Behaviour

SOURCE = "main.gold.customers"
ID, NAME = Column("id", "bigint"), Column("name", "string")


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Writer:
    """Postgres tables as dictionaries by primary key; ``calls`` are the methods that were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.on_write: Callable[[], None] = lambda: None
        self.rows: set[Row] = set()

    def prepare(self, place: TablePlace, **options: Any) -> None:
        self.calls.append(f"prepare {place.database} {place.schema}.{place.table}")
        if self.error:
            raise self.error

    def rebuild(self, place: TablePlace, columns: Any, primary_key: Any, rows: Iterable[Row]) -> None:
        self.calls.append("rebuild")
        self._write(rows, set())

    def apply(
        self, place: TablePlace, added: Any, columns: Any, primary_key: Any, gone: Sequence[Row], rows: Iterable[Row]
    ) -> None:
        self.calls.append(f"apply -{len(gone)} columns +{len(added)}")
        self._write(rows, {row for row in self.rows if row[:1] not in gone})

    def _write(self, rows: Iterable[Row], kept: set[Row]) -> None:
        new = kept | set(rows)
        self.on_write()
        if self.error:
            raise self.error
        self.rows = new


class World:
    """Synced tables whose pipelines end at once, and everything around them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.behaviour = Behaviour()
        self.behaviour.pipeline_seconds = 0.0
        self.catalog = UnityCatalog(self.clock)
        self.pipelines = Pipelines(self.clock, self.behaviour, lambda run: run())
        self.tables = SyncedTables(self.catalog, self.pipelines, self.clock)
        self.writer = self.tables.writer = Writer()

    def publish(self, *rows: Row, columns: Sequence[Column] = (ID, NAME)) -> int:
        return self.catalog.publish(SOURCE, columns, rows, change_data_feed=True)

    def create(self, table: str = "customers", **changes: Any) -> SyncedTable:
        spec = {
            "source_table_full_name": SOURCE,
            "primary_key_columns": ["id"],
            "scheduling_policy": "SNAPSHOT",
            "branch": "projects/demo/branches/production",
            "postgres_database": "databricks_postgres",
            **changes,
        }
        created = self.tables.make(read_spec(f"lake.app.{table}", {"spec": spec}, None), "br-1")
        self.tables.add(created)
        return self.tables.provision(created, "me")

    def refresh(self, table: SyncedTable, *, full: bool = False) -> str:
        pipeline = self.pipelines.require(str(table.pipeline_id))
        return self.pipelines.start(pipeline, full_refresh=full).state


@pytest.fixture
def world() -> World:
    world = World()
    world.publish((1, "a"), (2, "b"))
    return world


def test_a_created_table_has_the_rows_of_the_latest_version(world: World) -> None:
    table = world.create()
    assert world.writer.calls == ["prepare databricks_postgres app.customers", "rebuild"]
    assert world.writer.rows == {(1, "a"), (2, "b")}
    status = table.json()["status"]
    assert status["detailed_state"] == "SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE"
    assert status["last_processed_commit_version"] == 0
    assert status["last_sync_time"] == "1970-01-01T00:16:40.000000Z"
    assert status["pipeline_id"] == table.pipeline_id
    assert status["unity_catalog_provisioning_state"] == "ACTIVE"


def test_the_answer_leaves_out_the_specification(world: World) -> None:
    assert set(world.create().json()) == {"name", "synced_table_id", "uid", "create_time", "status"}


def test_a_snapshot_rebuilds_the_table_at_every_refresh(world: World) -> None:
    table = world.create()
    world.refresh(table)
    assert world.writer.calls[1:] == ["rebuild", "rebuild"]


def test_a_triggered_table_gets_the_changes_only(world: World) -> None:
    table = world.create(scheduling_policy="TRIGGERED")
    world.publish((1, "a"), (2, "B"), (3, "c"))
    world.refresh(table)
    assert world.writer.calls[-1] == "apply -1 columns +0"
    assert world.writer.rows == {(1, "a"), (2, "B"), (3, "c")}
    world.publish((3, "c"))
    world.refresh(table)
    assert world.writer.rows == {(3, "c")}
    assert table.json()["status"]["last_processed_commit_version"] == 2


def test_a_triggered_table_without_changes_is_left_alone(world: World) -> None:
    table = world.create(scheduling_policy="TRIGGERED")
    world.clock.now = 2_000.0
    assert world.refresh(table) == "COMPLETED"
    assert world.writer.calls[-1] == "rebuild"
    assert table.json()["status"]["last_sync"]["sync_end_time"] == "1970-01-01T00:33:20.000000Z"


def test_a_full_refresh_rebuilds_a_triggered_table(world: World) -> None:
    table = world.create(scheduling_policy="TRIGGERED")
    world.refresh(table, full=True)
    assert world.writer.calls[-1] == "rebuild"


def test_a_new_column_is_added_to_a_triggered_table(world: World) -> None:
    table = world.create(scheduling_policy="TRIGGERED")
    world.publish((1, "a", 5), (2, "b", None), columns=(ID, NAME, Column("age", "int")))
    world.refresh(table)
    assert world.writer.calls[-1] == "apply -2 columns +1"
    assert world.writer.rows == {(1, "a", 5), (2, "b", None)}


def test_columns_in_another_order_change_every_row(world: World) -> None:
    number, amount = Column("number", "int"), Column("amount", "int")
    world.publish((1, 5, 7), columns=(ID, number, amount))
    table = world.create(scheduling_policy="TRIGGERED")
    world.publish((1, 5, 7), columns=(ID, amount, number))
    world.refresh(table)
    assert world.writer.calls[-1] == "apply -1 columns +0"


@pytest.mark.parametrize(
    ("columns", "condition"),
    [
        ((ID, Column("name", "binary")), "COLUMN_TYPE_CHANGE_NOT_SUPPORTED"),
        ((ID,), "DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE"),
    ],
)
def test_another_change_of_the_columns_needs_a_full_refresh(
    world: World, columns: tuple[Column, ...], condition: str
) -> None:
    table = world.create(scheduling_policy="TRIGGERED")
    world.publish(*[(1, b"a")[: len(columns)]], columns=columns)
    assert world.refresh(table) == "FAILED"
    status = table.json()["status"]
    assert status["detailed_state"] == "SYNCED_TABLE_ONLINE_PIPELINE_FAILED"
    assert condition in status["message"]
    assert status["last_processed_commit_version"] == 0
    assert world.refresh(table, full=True) == "COMPLETED"
    assert table.json()["status"]["message"] == ""


@pytest.mark.parametrize("policy", ["SNAPSHOT", "TRIGGERED"])
def test_a_duplicate_key_fails_the_pipeline(world: World, policy: str) -> None:
    table = world.create(scheduling_policy=policy)
    world.publish((1, "a"), (1, "b"))
    assert world.refresh(table) == "FAILED"
    assert "SYNCED_TABLE_USER_ERROR.PRIMARY_KEY_CONSTRAINT_VIOLATION" in table.view.message
    assert "Key (id)=(1)" in table.view.message
    assert world.writer.rows == {(1, "a"), (2, "b")}


def test_rows_without_a_key_are_left_out(world: World) -> None:
    world.publish((None, "x"), (1, "a"))
    world.create()
    assert world.writer.rows == {(1, "a")}


def test_a_time_series_key_keeps_the_latest_row_of_each_key(world: World) -> None:
    world.publish((1, "b"), (1, "c"), (1, "a"), (2, None), (2, "a"), (3, None))
    world.create(timeseries_key="name")
    assert world.writer.rows == {(1, "c"), (2, "a"), (3, None)}


def test_what_the_writer_refuses_fails_the_first_load_and_leaves_the_table_offline(world: World) -> None:
    world.writer.on_write = lambda: setattr(world.writer, "error", SyncError("refused"))
    status = world.create().json()["status"]
    assert (status["detailed_state"], status["message"]) == ("SYNCED_TABLE_OFFLINE_FAILED", "refused")
    assert "last_processed_commit_version" not in status


def test_a_table_comes_back_from_a_failure(world: World) -> None:
    world.behaviour.faults.fail_pipelines("no space")
    table = world.create()
    assert table.view.state == "OFFLINE_FAILED"
    world.refresh(table)
    assert table.view.state == "ONLINE_NO_PENDING_UPDATE"
    world.behaviour.faults.fail_pipelines("no space")
    world.refresh(table)
    assert table.view.state == "ONLINE_PIPELINE_FAILED"
    world.refresh(table)
    assert table.view.state == "ONLINE_NO_PENDING_UPDATE"


def test_states_and_progress_can_be_seen_during_an_update(world: World) -> None:
    seen: list[Any] = []
    world.writer.on_write = lambda: seen.append([table.json()["status"] for table in world.tables.values()][0])
    table = world.create()
    world.refresh(table)
    assert [status["detailed_state"] for status in seen] == [
        "SYNCED_TABLE_PROVISIONING_INITIAL_SNAPSHOT",
        "SYNCED_TABLE_ONLINE_TRIGGERED_UPDATE",
    ]
    assert seen[0]["ongoing_sync_progress"] == {
        "latest_version_currently_processing": 0,
        "synced_row_count": 0,
        "total_row_count": 2,
        "sync_progress_completion": 0.0,
    }
    assert "ongoing_sync_progress" not in table.json()["status"]


def test_an_update_that_waits_for_resources_shows_nothing_yet(world: World) -> None:
    table = world.create()
    states: list[str] = []
    pipelines = Pipelines(world.clock, world.behaviour, lambda run: states.append(table.view.state))
    pipeline = world.pipelines.require(str(table.pipeline_id))
    assert pipelines.start(pipeline, full_refresh=False).active
    assert states == ["ONLINE_NO_PENDING_UPDATE"]


def test_five_tables_share_a_pipeline_and_its_update(world: World) -> None:
    first = world.create()
    tables = [first, *(world.create(f"c{n}", existing_pipeline_id=first.pipeline_id) for n in range(4))]
    version = world.publish((9, "z"))
    world.refresh(first)
    assert {table.json()["status"]["last_processed_commit_version"] for table in tables} == {version}
    assert {table.pipeline_id for table in tables} == {first.pipeline_id}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"source_table_full_name": "main.gold.nothing"}, 404, "TABLE_DOES_NOT_EXIST"),
        ({"existing_pipeline_id": "nothing"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ({"table": "first"}, 409, "ALREADY_EXISTS"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(world: World, changes: dict[str, Any], status: int, code: str) -> None:
    world.create("first")
    with pytest.raises(ApiError) as caught:
        world.create(**changes)
    assert (caught.value.status, caught.value.body["error_code"]) == (status, code)
    assert list(world.tables) == ["synced_tables/lake.app.first"]


def test_a_pipeline_has_one_policy(world: World) -> None:
    first = world.create()
    with pytest.raises(ApiError, match="must be SNAPSHOT"):
        world.create("other", scheduling_policy="TRIGGERED", existing_pipeline_id=first.pipeline_id)


def test_a_source_has_twenty_synced_tables_at_most(world: World) -> None:
    for number in range(20):
        world.create(f"c{number}")
    with pytest.raises(ApiError, match="more than 20 synced table"):
        world.create("last")


@pytest.mark.parametrize(
    ("error", "code"), [(FileExistsError("it exists"), "ALREADY_EXISTS"), (LookupError("no schema"), "NOT_FOUND")]
)
def test_what_postgres_lacks_or_has_already_is_refused(world: World, error: Exception, code: str) -> None:
    world.writer.error = error
    with pytest.raises(ApiError) as caught:
        world.create()
    assert caught.value.body == {"error_code": code, "message": str(error)}
    assert world.pipelines.all() == []


def test_a_delete_removes_the_table_and_its_pipeline_and_nothing_in_postgres(world: World) -> None:
    table = world.create()
    calls = list(world.writer.calls)
    world.tables.delete(table)
    assert (list(world.tables), world.pipelines.all(), world.writer.calls) == ([], [], calls)


def test_a_continuous_table_picks_up_what_is_published() -> None:
    world = World()
    world.pipelines = Pipelines(world.clock, world.behaviour)
    world.tables = SyncedTables(world.catalog, world.pipelines, world.clock)
    world.tables.writer = world.writer
    world.publish((1, "a"))
    table = world.create(scheduling_policy="CONTINUOUS")
    wait_for(lambda: table.view.state == "ONLINE_CONTINUOUS_UPDATE")
    version = world.publish((1, "a"), (2, "b"))
    wait_for(lambda: table.view.synced is not None and table.view.synced.number == version)
    assert world.writer.rows == {(1, "a"), (2, "b")}
    assert table.view.state == "ONLINE_CONTINUOUS_UPDATE"
    world.publish((1, "a"), (1, "b"))
    wait_for(lambda: table.view.state == "ONLINE_PIPELINE_FAILED")
    world.pipelines.stop_all()
    world.pipelines.join()


def test_a_stop_of_the_first_load_leaves_the_table_offline() -> None:
    world = World()
    world.behaviour.pipeline_seconds = 600.0
    world.pipelines = Pipelines(world.clock, world.behaviour)
    world.tables = SyncedTables(world.catalog, world.pipelines, world.clock)
    world.tables.writer = world.writer
    world.publish((1, "a"))
    table = world.create()
    assert table.view.state == "PROVISIONING"
    world.pipelines.stop_all()
    world.pipelines.join()
    assert table.view.state == "OFFLINE"


def test_every_state_of_the_service_can_be_reached() -> None:
    assert {*TRANSITIONS.values(), "PROVISIONING"} == {
        "PROVISIONING",
        "PROVISIONING_PIPELINE_RESOURCES",
        "PROVISIONING_INITIAL_SNAPSHOT",
        "ONLINE",
        "ONLINE_CONTINUOUS_UPDATE",
        "ONLINE_TRIGGERED_UPDATE",
        "ONLINE_UPDATING_PIPELINE_RESOURCES",
        "ONLINE_NO_PENDING_UPDATE",
        "ONLINE_PIPELINE_FAILED",
        "OFFLINE",
        "OFFLINE_FAILED",
    }


def wait_for(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_synced_tables_do_not_share_a_postgres_table(world: World) -> None:
    world.publish((1, "Ann"))
    body = {
        "source_table_full_name": SOURCE,
        "primary_key_columns": ["id"],
        "scheduling_policy": "SNAPSHOT",
        "branch": "projects/demo/branches/production",
        "postgres_database": "databricks_postgres",
    }
    specs = [read_spec(f"{catalog}.gold.copy", {"spec": body}, None) for catalog in ("main", "other")]
    world.tables.add(world.tables.make(specs[0], "br-1"))
    with pytest.raises(ApiError, match=r"main\.gold\.copy already has the Postgres table"):
        world.tables.make(specs[1], "br-1")
    world.tables.make(specs[1], "br-2")
