from __future__ import annotations

from typing import Any

import pytest
from psycopg import sql

from airflow_provider_lakebase.emulator.model.change_feeds import ChangeFeed, ChangeFeeds, TableFeed
from airflow_provider_lakebase.emulator.model.errors import ApiError
from airflow_provider_lakebase.emulator.model.workspace import Behaviour

DATABASE = "projects/demo/branches/production/databases/databricks-postgres"
NAME = f"{DATABASE}/cdf-configs/app"


class World:
    """A database with one schema, its last log sequence number, and the time."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.lsn = "0/100"
        self.writes = 0
        self.tables: list[tuple[Any, ...]] = [("orders", False, True, True)]

    def clock(self) -> float:
        return self.now

    def write(self, lsn: str) -> None:
        self.lsn, self.writes = lsn, self.writes + 1

    def execute(self, cluster: str, database: str, query: Any, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if isinstance(query, sql.Composed):
            return [(self.writes,)]
        return self.tables if "pg_class" in query else [(1,)] * (params == ("app",))

    def current_lsn(self, cluster: str) -> str:
        return self.lsn


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def behaviour() -> Behaviour:
    behaviour = Behaviour()
    behaviour.feed_flush_seconds = 15.0
    return behaviour


@pytest.fixture
def feeds(world: World, behaviour: Behaviour) -> ChangeFeeds:
    return ChangeFeeds(world.clock, behaviour)


def create(feeds: ChangeFeeds, name: str = NAME, schema: str = "app", version: int = 17) -> ChangeFeed:
    feed = feeds.make(
        name, cluster="br-1", postgres_version=version, postgres_schema=schema, catalog="main", schema="history"
    )
    feeds.add(feed)
    return feed


def status(feeds: ChangeFeeds, world: World, table: str = "orders") -> TableFeed:
    return feeds.status(f"{NAME}/cdf-statuses/{table}", world)  # type: ignore[arg-type]


def test_a_table_is_snapshotting_until_a_flush_and_then_streaming(feeds: ChangeFeeds, world: World) -> None:
    create(feeds)
    assert status(feeds, world).json() == {
        "name": f"{NAME}/cdf-statuses/orders",
        "postgres_table": "orders",
        "uc_table": "main.history.lb_orders_history",
        "state": "CDF_STATE_SNAPSHOTTING",
        "create_time": "1970-01-01T00:16:40.000000Z",
    }
    world.now += 15
    body = status(feeds, world).json()
    assert (body["state"], body["committed_lsn"]) == ("CDF_STATE_STREAMING", "0/100")
    assert body["last_sync_time"] == "1970-01-01T00:16:55.000000Z"


def test_a_write_is_committed_a_flush_after_it_was_seen(feeds: ChangeFeeds, world: World) -> None:
    create(feeds)
    status(feeds, world)
    world.now += 15
    world.write("0/200")
    assert status(feeds, world).committed_lsn == "0/100"
    world.now += 14
    assert status(feeds, world).committed_lsn == "0/100"
    world.now += 1
    assert status(feeds, world).committed_lsn == "0/200"


def test_a_table_stands_still_while_others_are_written_to(feeds: ChangeFeeds, world: World) -> None:
    create(feeds)
    for _ in range(3):
        status(feeds, world)
        world.now += 15
        world.lsn += "0"
    assert (status(feeds, world).committed_lsn, status(feeds, world).synced_at) == ("0/100", 1_015.0)


@pytest.mark.parametrize("feed_id", ["App", "my-app", "1app", "a" * 64])
def test_an_id_has_small_letters_digits_and_underscores(feeds: ChangeFeeds, feed_id: str) -> None:
    with pytest.raises(ApiError, match=r"Invalid cdf_config_id '.+'\. Must match \[a-z\]\[a-z0-9_\]\{0,62\}"):
        create(feeds, f"{DATABASE}/cdf-configs/{feed_id}")


@pytest.mark.parametrize(
    ("table", "detail"),
    [
        (("orders", False, False, True), "does not have REPLICA IDENTITY FULL"),
        (("orders", True, True, True), "Partitioned tables are not supported"),
        (("orders", False, True, False), "Table is empty"),
    ],
)
def test_a_table_that_cannot_be_replicated_is_skipped_and_says_why(
    feeds: ChangeFeeds, world: World, table: tuple[Any, ...], detail: str
) -> None:
    world.tables = [table]
    create(feeds)
    body = status(feeds, world).json()
    assert body["state"] == "CDF_STATE_SKIPPED"
    assert detail in body["status_detail"]
    assert "committed_lsn" not in body


def test_a_skipped_table_is_included_as_soon_as_it_can_be(feeds: ChangeFeeds, world: World) -> None:
    world.tables = [("orders", False, False, True)]
    create(feeds)
    assert status(feeds, world).state == "SKIPPED"
    world.tables = [("orders", False, True, True)]
    assert (status(feeds, world).state, status(feeds, world).detail) == ("SNAPSHOTTING", "")


def test_a_feed_includes_tables_that_were_made_later(feeds: ChangeFeeds, world: World) -> None:
    create(feeds)
    world.tables = [*world.tables, ("customers", False, True, True)]
    assert status(feeds, world, "customers").state == "SNAPSHOTTING"


def test_a_dropped_table_is_terminated(feeds: ChangeFeeds, world: World) -> None:
    create(feeds)
    status(feeds, world)
    world.tables = []
    assert (status(feeds, world).state, status(feeds, world).detail) == ("TERMINATED", "The table was dropped.")


def test_a_table_is_terminated_on_request_and_stays_so(feeds: ChangeFeeds, world: World, behaviour: Behaviour) -> None:
    create(feeds)
    world.tables = [*world.tables, ("customers", False, True, True)]
    behaviour.faults.terminate_feed("orders", "replication slot lost")
    assert status(feeds, world, "customers").state == "SNAPSHOTTING"
    assert status(feeds, world).state == "TERMINATED"
    world.now += 60
    assert status(feeds, world).json()["status_detail"] == "replication slot lost"


def test_a_table_that_the_schema_never_had_is_not_found(feeds: ChangeFeeds, world: World) -> None:
    create(feeds)
    with pytest.raises(ApiError) as caught:
        status(feeds, world, "nothing")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("name", "schema", "code"),
    [(NAME, "other", "ALREADY_EXISTS"), (f"{DATABASE}/cdf-configs/second", "app", "ALREADY_EXISTS")],
)
def test_a_schema_has_one_feed_and_an_id_one_schema(feeds: ChangeFeeds, name: str, schema: str, code: str) -> None:
    create(feeds)
    with pytest.raises(ApiError) as caught:
        create(feeds, name, schema)
    assert (caught.value.status, caught.value.body["error_code"]) == (409, code)


def test_a_feed_needs_postgres_17(feeds: ChangeFeeds) -> None:
    with pytest.raises(ApiError, match="needs Postgres 17"):
        create(feeds, version=16)


def test_the_schema_of_a_feed_must_exist(feeds: ChangeFeeds, world: World) -> None:
    feeds.check_schema(create(feeds), world)  # type: ignore[arg-type]
    with pytest.raises(ApiError, match="'nowhere' does not exist"):
        feeds.check_schema(create(feeds, f"{DATABASE}/cdf-configs/x", "nowhere"), world)  # type: ignore[arg-type]
