"""Change feeds to Unity Catalog."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from _clients import open_session, workspace_client
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import AlreadyExists, BadRequest, NotFound
from databricks.sdk.service import postgres as sdk
from psycopg import sql

from airflow_provider_lakebase.emulator import LakebaseEmulator

BRANCH = "projects/demo/branches/production"
DATABASE = f"{BRANCH}/databases/databricks-postgres"

Session = psycopg.Connection[Any]

pytestmark = pytest.mark.skipif(not hasattr(sdk, "CdfConfig"), reason="this SDK has no change feeds")


@pytest.fixture(scope="module")
def client(emulator: LakebaseEmulator) -> WorkspaceClient:
    emulator.feed_flush_seconds = 0.05
    return workspace_client(emulator)


@pytest.fixture(scope="module")
def session(emulator: LakebaseEmulator) -> Iterator[Session]:
    with open_session(emulator) as session:
        yield session


@pytest.fixture
def feed(client: WorkspaceClient, session: Session) -> Iterator[sdk.CdfConfig]:
    session.execute("CREATE SCHEMA feeds")
    config = sdk.CdfConfig(catalog="main", schema="history", postgres_schema="feeds")
    feed = client.postgres.create_cdf_config(DATABASE, config).wait()
    yield feed
    client.postgres.delete_cdf_config(str(feed.name), force=True).wait()
    session.execute("DROP SCHEMA feeds CASCADE")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def statuses(client: WorkspaceClient, feed: sdk.CdfConfig) -> dict[str, sdk.CdfStatus]:
    return {str(each.postgres_table): each for each in client.postgres.list_cdf_statuses(str(feed.name))}


@pytest.mark.belief(
    "a table is SNAPSHOTTING and then STREAMING; committed_lsn reaches what was written before, and the Unity Catalog "
    "table is lb_<table>_history",
    source="databricks-sdk-py service/postgres.py CdfStatus; Databricks docs, Lakebase: Lakehouse Sync",
    sure="documented",
)
def test_a_feed_commits_up_to_what_was_written_before(
    client: WorkspaceClient, session: Session, feed: sdk.CdfConfig
) -> None:
    session.execute("CREATE TABLE feeds.orders (id int)")
    session.execute("ALTER TABLE feeds.orders REPLICA IDENTITY FULL")
    session.execute("INSERT INTO feeds.orders VALUES (1)")
    assert statuses(client, feed)["orders"].state == sdk.CdfState.CDF_STATE_SNAPSHOTTING
    lsn = session.execute("SELECT pg_current_wal_lsn()").fetchall()[0][0]
    deadline = time.monotonic() + 60
    while True:
        status = client.postgres.get_cdf_status(f"{feed.name}/cdf-statuses/orders")
        committed = status.state == sdk.CdfState.CDF_STATE_STREAMING and session.execute(
            "SELECT %s::pg_lsn >= %s::pg_lsn", (status.committed_lsn, lsn)
        ).fetchall() == [(True,)]
        if committed:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (status.uc_table, status.status_detail) == ("main.history.lb_orders_history", None)


@pytest.mark.belief(
    "committed_lsn of a table does not advance while nothing is written to it, whatever is written to other tables",
    source="databricks-solutions/lakets website/docs/guides/how-it-works/tiering-and-retention.md: The durability gate",
    sure="seen in the field",
)
def test_an_idle_table_stands_still(client: WorkspaceClient, session: Session, feed: sdk.CdfConfig) -> None:
    for name in ("idle", "busy"):
        session.execute(sql.SQL("CREATE TABLE feeds.{} (id int)").format(sql.Identifier(name)))
        session.execute(sql.SQL("ALTER TABLE feeds.{} REPLICA IDENTITY FULL").format(sql.Identifier(name)))
        session.execute(sql.SQL("INSERT INTO feeds.{} VALUES (1)").format(sql.Identifier(name)))
    wait_until(lambda: statuses(client, feed)["idle"].committed_lsn is not None)
    before = statuses(client, feed)
    session.execute("INSERT INTO feeds.busy VALUES (2)")
    wait_until(lambda: statuses(client, feed)["busy"].committed_lsn != before["busy"].committed_lsn)
    assert statuses(client, feed)["idle"] == before["idle"]


@pytest.mark.belief(
    "the ID of a feed matches [a-z][a-z0-9_]{0,62}, so it has no hyphens",
    source="databricks-sdk-py service/postgres.py create_cdf_config; the text of the error from the field",
    sure="documented",
)
def test_the_id_of_a_feed_has_no_hyphens(client: WorkspaceClient, session: Session) -> None:
    config = sdk.CdfConfig("main", "history", "public")
    with pytest.raises(BadRequest, match="Invalid cdf_config_id 'my-feed'"):
        client.postgres.create_cdf_config(DATABASE, config, cdf_config_id="my-feed")


@pytest.mark.belief(
    "a feed skips tables without REPLICA IDENTITY FULL, partitioned ones, and empty ones until they have a row; the "
    "words of status_detail are guesses",
    source="Databricks docs, Lakebase: Lakehouse Sync; datajoint/datajoint-python#1447; field reports of empty tables",
    sure="seen in the field",
)
def test_what_a_feed_skips_says_why(client: WorkspaceClient, session: Session, feed: sdk.CdfConfig) -> None:
    session.execute("CREATE TABLE feeds.no_identity (id int)")
    session.execute("CREATE TABLE feeds.parts (id int) PARTITION BY RANGE (id)")
    session.execute("CREATE TABLE feeds.part PARTITION OF feeds.parts FOR VALUES FROM (0) TO (10)")
    session.execute("CREATE TABLE feeds.empty (id int)")
    session.execute("ALTER TABLE feeds.empty REPLICA IDENTITY FULL")
    found = {name: (status.state, status.status_detail) for name, status in statuses(client, feed).items()}
    assert {state for state, _ in found.values()} == {sdk.CdfState.CDF_STATE_SKIPPED}
    assert {name: str(detail).split(".")[0] for name, (_, detail) in found.items()} == {
        "no_identity": "Table does not have REPLICA IDENTITY FULL",
        "parts": "Partitioned tables are not supported",
        "empty": "Table is empty",
    }
    session.execute("INSERT INTO feeds.empty VALUES (1)")
    assert statuses(client, feed)["empty"].state == sdk.CdfState.CDF_STATE_SNAPSHOTTING


@pytest.mark.belief(
    "a feed cannot be changed, a Postgres schema has one, and its ID is the schema's name by default; the error code "
    "of a second one is a guess",
    source="databricks-sdk-py service/postgres.py CdfConfig",
    sure="documented",
)
def test_a_feed_can_be_read_listed_and_deleted(client: WorkspaceClient, session: Session, feed: sdk.CdfConfig) -> None:
    assert client.postgres.get_cdf_config(f"{DATABASE}/cdf-configs/feeds") == feed
    assert list(client.postgres.list_cdf_configs(DATABASE)) == [feed]
    with pytest.raises(AlreadyExists):
        client.postgres.create_cdf_config(DATABASE, sdk.CdfConfig("main", "other", "feeds"), cdf_config_id="other")
    client.postgres.delete_cdf_config(str(feed.name)).wait()
    with pytest.raises(NotFound, match="cdf config id not found"):
        client.postgres.get_cdf_config(str(feed.name))
    client.postgres.create_cdf_config(DATABASE, sdk.CdfConfig("main", "history", "feeds")).wait()


@pytest.mark.belief(
    "a feed is possible in the database databricks_postgres only; the errors are guesses",
    source="Databricks docs, Lakebase: Lakehouse Sync",
    sure="documented",
)
def test_a_feed_of_another_database_or_of_no_schema_is_refused(client: WorkspaceClient, session: Session) -> None:
    config = sdk.CdfConfig("main", "history", "nowhere")
    session.execute("CREATE DATABASE no_feeds")
    with pytest.raises(BadRequest, match="database 'databricks_postgres' only"):
        client.postgres.create_cdf_config(f"{BRANCH}/databases/no-feeds", config)
    with pytest.raises(Exception, match="'nowhere' does not exist"):
        client.postgres.create_cdf_config(DATABASE, config).wait()
    assert list(client.postgres.list_cdf_configs(DATABASE)) == []
