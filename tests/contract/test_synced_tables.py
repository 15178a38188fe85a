"""Synced tables: what is in Postgres, who may do what with it, and what pipelines do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow
import pytest
from _clients import workspace_client
from _synced_tables import Policy, Session, World, postgres_name, rows, run, state, wait_for
from databricks.sdk.errors import NotFound, ResourceConflict
from databricks.sdk.service.postgres import SyncedTable
from psycopg import errors

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal


@pytest.fixture(scope="module")
def world(emulator: LakebaseEmulator) -> World:
    return World(emulator)


@pytest.fixture(scope="module")
def session(world: World) -> Iterator[Session]:
    """Return a session of the administrator, a member of databricks_superuser."""
    with world.connect() as session:
        session.execute("CREATE SCHEMA app")
        yield session


@pytest.fixture(scope="module")
def ordinary(world: World, session: Session) -> Principal:
    return world.make_role(session, "Reader of synced tables")


@pytest.fixture(scope="module")
def reader(world: World, ordinary: Principal) -> Iterator[Session]:
    """Return a session of an ordinary role."""
    with world.connect(ordinary) as session:
        yield session


def message(table: SyncedTable) -> str:
    assert table.status
    return str(table.status.message)


@pytest.mark.belief(
    "the operation that creates a synced table ends before its first load; reading the table then tells its status and "
    "no spec",
    source="databricks/cli bundle/direct/dresources/postgres_synced_table.go; field reports (`terraform apply` returns "
    "before ONLINE)",
    sure="seen in the field",
)
def test_create_ends_before_the_first_load(world: World, session: Session) -> None:
    created = world.create(world.source({"id": [1]}))
    assert state(created) == "PROVISIONING"
    assert (created.spec, world.client.postgres.get_synced_table(str(created.name)).spec) == (None, None)
    assert state(world.settle(created)) == "ONLINE_NO_PENDING_UPDATE"


@pytest.mark.belief(
    "a source table that does not exist is refused: 404 TABLE_DOES_NOT_EXIST",
    source="databricks/cli#5765; the message from Unity Catalog's own",
    sure="seen in the field",
)
def test_the_source_must_exist(world: World, session: Session) -> None:
    world.source({"id": [1]})
    with pytest.raises(NotFound, match=r"Table 'main\.gold\.nothing' does not exist"):
        world.create("main.gold.nothing")


@pytest.mark.belief(
    "types become Postgres's as in the table of the documentation: nested ones become jsonb",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables",
    sure="documented",
)
def test_types(world: World, session: Session) -> None:
    source = world.source(
        {
            "id": pyarrow.array([1, 2], pyarrow.int64()),
            "name": ["é", None],
            "tags": [["a", "b"], None],
            "raw": [b"\x00\xff", None],
            "at": pyarrow.array([0, None], pyarrow.timestamp("us", "UTC")),
        }
    )
    table = world.settled(source)
    found = rows(session, table)
    assert (found[0][:4], found[1]) == ((1, "é", ["a", "b"], b"\x00\xff"), (2, None, None, None, None))
    assert found[0][4].timestamp() == 0
    kinds = session.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
        "ORDER BY attnum",
        (postgres_name(table).as_string(),),
    ).fetchall()
    assert [kind for (kind,) in kinds] == ["bigint", "text", "jsonb", "bytea", "timestamp with time zone"]


@pytest.mark.belief(
    "a role named databricks_writer_<OID of the database> owns a synced table; nobody can become it",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables; the role's name from field reports",
    sure="seen in the field",
)
def test_a_system_role_owns_the_table(world: World, session: Session) -> None:
    table = world.settled(world.source({"id": [1]}))
    query = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = %s::regclass"
    owner = session.execute(query, (postgres_name(table).as_string(),)).fetchall()[0][0]
    oid = session.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchall()[0][0]
    assert owner == f"databricks_writer_{oid}"
    for statement in (f"SET ROLE {owner}", f"GRANT {owner} TO CURRENT_USER"):
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(statement)


@pytest.mark.belief(
    "an ordinary role reads a synced table after a grant, and gets 42501 when it writes; a member of "
    "databricks_superuser can write, and breaks the sync",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables",
    sure="documented",
)
def test_an_ordinary_role_may_not_write(world: World, session: Session, reader: Session, ordinary: Principal) -> None:
    table = world.settled(world.source({"id": [1]}))
    with pytest.raises(errors.InsufficientPrivilege):
        rows(reader, table)
    run(session, f'GRANT SELECT ON {{}} TO "{ordinary.role}"', table)
    assert rows(reader, table) == [(1,)]
    for statement in ("INSERT INTO {} VALUES (2)", "DELETE FROM {}", "TRUNCATE {}", "CREATE INDEX ON {} (id)"):
        with pytest.raises(errors.InsufficientPrivilege):
            run(reader, statement, table)
    run(session, "INSERT INTO {} VALUES (2)", table)


@pytest.mark.belief(
    "the identity that created a synced table reads, indexes and drops it, and grants SELECT, without being a member "
    "of databricks_superuser; it cannot write",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables (operations allowed in Postgres); "
    "field reports",
    sure="seen in the field",
)
def test_the_creator(world: World, session: Session, reader: Session, ordinary: Principal) -> None:
    creator = world.make_role(session, "Creator of a synced table")
    table = world.settled(world.source({"id": [1]}), client=workspace_client(world.emulator, creator))
    with world.connect(creator) as own:
        assert rows(own, table) == [(1,)]
        run(own, "CREATE INDEX ON {} (id)", table)
        run(own, f'GRANT SELECT ON {{}} TO "{ordinary.role}"', table)
        assert rows(reader, table) == [(1,)]
        for statement in ("INSERT INTO {} VALUES (2)", "UPDATE {} SET id = 2", "DELETE FROM {}", "TRUNCATE {}"):
            with pytest.raises(errors.InsufficientPrivilege):
                run(own, statement, table)
        run(own, "DROP TABLE {}", table)


@pytest.mark.belief(
    "a schema that is missing is made and belongs to the caller, who gets a Postgres role if there is none",
    source="databricks-sdk-py service/postgres.py (create_database_objects_if_missing; the role is said of catalogs); "
    "field reports (the deployer owns the schema)",
    sure="inferred",
)
def test_the_schema_is_made_for_the_caller(world: World, session: Session) -> None:
    creator = world.emulator.add_principal("Newcomer to synced tables")
    table = world.settled(
        world.source({"id": [1]}), client=workspace_client(world.emulator, creator), schema="new_schema"
    )
    with world.connect(creator) as own:
        assert rows(own, table) == [(1,)]
    owner = session.execute("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'new_schema'").fetchall()
    assert owner == [(f'"{creator.role}"',)]


@pytest.mark.belief(
    "a refresh of a SNAPSHOT table puts a new table in its place: indexes and grants are gone",
    source="databrickslabs/ontobricks#112; another field report says that they stay, also for SNAPSHOT",
    sure="inferred",
)
def test_a_snapshot_refresh_rebuilds_the_table(
    world: World, session: Session, reader: Session, ordinary: Principal
) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    run(session, "CREATE INDEX kept_by_nobody ON {} (id)", table)
    run(session, f'GRANT SELECT ON {{}} TO "{ordinary.role}"', table)
    version = world.publish(source, {"id": [1, 2]})
    table = world.refresh(table)
    assert table.status and table.status.last_processed_commit_version == version
    assert rows(session, table) == [(1,), (2,)]
    assert session.execute("SELECT to_regclass('app.kept_by_nobody')").fetchall() == [(None,)]
    with pytest.raises(errors.InsufficientPrivilege):
        rows(reader, table)


@pytest.mark.belief(
    "a refresh of a TRIGGERED table changes it in place and adds new columns: indexes and grants stay; a full refresh "
    "rebuilds it",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables; field reports",
    sure="seen in the field",
)
def test_a_triggered_refresh_keeps_the_table(
    world: World, session: Session, reader: Session, ordinary: Principal
) -> None:
    source = world.source({"id": [1, 2, 3], "name": ["a", "b", "c"]})
    table = world.settled(source, scheduling_policy=Policy.TRIGGERED)
    run(session, "CREATE INDEX kept_by_changes ON {} (name)", table)
    run(session, f'GRANT SELECT ON {{}} TO "{ordinary.role}"', table)
    world.publish(source, {"id": [2, 3, 4], "name": ["b", "C", "d"], "age": [1, 2, 3]})
    table = world.refresh(table)
    assert rows(reader, table) == [(2, "b", 1), (3, "C", 2), (4, "d", 3)]
    index = "SELECT to_regclass('app.kept_by_changes')::text"
    assert session.execute(index).fetchall() == [("app.kept_by_changes",)]
    world.refresh(table, full_refresh=True)
    assert session.execute(index).fetchall() == [(None,)]


@pytest.mark.belief(
    "a changed type of a column fails a TRIGGERED table with COLUMN_TYPE_CHANGE_NOT_SUPPORTED; a full refresh helps",
    source="Databricks docs, SYNCED_TABLE_USER_ERROR error condition",
    sure="documented",
)
def test_a_changed_type(world: World, session: Session) -> None:
    source = world.source({"id": [1], "name": ["1"]})
    table = world.settled(source, scheduling_policy=Policy.TRIGGERED)
    world.publish(source, {"id": [1], "name": [1]})
    table = world.refresh(table)
    assert state(table) == "ONLINE_PIPELINE_FAILED"
    assert "[SYNCED_TABLE_USER_ERROR.COLUMN_TYPE_CHANGE_NOT_SUPPORTED]" in message(table)
    assert state(world.refresh(table, full_refresh=True)) == "ONLINE_NO_PENDING_UPDATE"


@pytest.mark.belief(
    "TRIGGERED and CONTINUOUS need the source's change data feed; the error is a guess",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables",
    sure="documented",
)
@pytest.mark.parametrize("policy", [Policy.TRIGGERED, Policy.CONTINUOUS])
def test_changes_need_a_feed(world: World, session: Session, policy: Policy) -> None:
    world.emulator.publish("main.gold.without_feed", pyarrow.table({"id": [1]}))
    with pytest.raises(Exception, match="delta.enableChangeDataFeed"):
        world.create("main.gold.without_feed", scheduling_policy=policy)


@pytest.mark.belief(
    "a CONTINUOUS table picks up a new version by itself, and its pipeline runs until it is stopped",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables; databricks-sdk-py "
    "service/postgres.py SyncedTableState",
    sure="documented",
)
def test_a_continuous_table(world: World, session: Session) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source, scheduling_policy=Policy.CONTINUOUS)
    assert state(table) == "ONLINE_CONTINUOUS_UPDATE"
    version = world.publish(source, {"id": [1, 2]})
    wait_for(lambda: world.version(table) == version)
    assert rows(session, table) == [(1,), (2,)]
    world.client.postgres.delete_synced_table(str(table.name)).wait()


@pytest.mark.belief(
    "an update that is started while another runs is refused: 409 `An active update already exists`",
    source="databricks-sdk-py service/pipelines.py start_update; the text from field reports, the error code a guess",
    sure="seen in the field",
)
def test_a_second_update_is_refused(world: World, session: Session) -> None:
    table = world.settled(world.source({"id": [1]}), scheduling_policy=Policy.CONTINUOUS)
    assert table.status
    with pytest.raises(ResourceConflict, match="An active update already exists"):
        world.client.pipelines.start_update(str(table.status.pipeline_id))
    world.client.postgres.delete_synced_table(str(table.name)).wait()


@pytest.mark.belief(
    "just after a trigger the table is still ONLINE_NO_PENDING_UPDATE with the version before",
    source="no source; the state follows the pipeline, which first waits for resources",
    sure="inferred",
)
def test_the_state_is_stale_after_a_trigger(world: World, session: Session) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    version = world.publish(source, {"id": [2]})
    world.emulator.pipeline_seconds = 2.0
    assert table.status
    world.client.pipelines.start_update(str(table.status.pipeline_id))
    stale = world.client.postgres.get_synced_table(str(table.name))
    world.emulator.pipeline_seconds = 0.02
    assert (state(stale), world.version(table)) == ("ONLINE_NO_PENDING_UPDATE", version - 1)
    world.client.postgres.delete_synced_table(str(table.name)).wait()


@pytest.mark.belief(
    "an update that has not reached RUNNING has not read its sources: it brings what is published until then",
    source="databricks-sdk-py service/pipelines.py UpdateInfoState; the names of its states",
    sure="inferred",
)
def test_an_update_that_prepares_has_not_read_its_sources(world: World, session: Session) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source)
    world.emulator.pipeline_seconds = 1.0
    assert table.status
    update_id = world.client.pipelines.start_update(str(table.status.pipeline_id)).update_id
    version = world.publish(source, {"id": [2]})
    update = world.client.pipelines.get_update(str(table.status.pipeline_id), str(update_id)).update
    world.emulator.pipeline_seconds = 0.02
    assert update and update.state and update.state.value not in ("RUNNING", "COMPLETED")
    world.settle(table)
    assert world.version(table) == version


@pytest.mark.belief(
    "the synced tables of one pipeline are updated together, and fail together",
    source="databricks-sdk-py service/postgres.py existing_pipeline_id; terraform-provider-databricks#5604",
    sure="inferred",
)
def test_tables_share_a_pipeline(world: World, session: Session) -> None:
    source, bad = world.source({"id": [1]}), world.source({"id": [1]})
    first = world.settled(source)
    assert first.status
    second = world.settled(bad, existing_pipeline_id=first.status.pipeline_id)
    assert second.status and second.status.pipeline_id == first.status.pipeline_id
    world.publish(bad, {"id": [1, 1]})
    world.refresh(first)
    found = [world.client.postgres.get_synced_table(str(table.name)) for table in (first, second)]
    assert [state(table) for table in found] == ["ONLINE_PIPELINE_FAILED"] * 2
    assert message(found[0]) == message(found[1])


@pytest.mark.belief(
    "rows with a null in the primary key are left out, and a time series key keeps the latest row of each key",
    source="Databricks docs, Lakebase: Serve lakehouse data with synced tables",
    sure="documented",
)
def test_keys(world: World, session: Session) -> None:
    source = world.source({"id": pyarrow.array([None, 1, 1], pyarrow.int64()), "at": [9, 2, 1]})
    assert rows(session, world.settled(source, timeseries_key="at")) == [(1, 2)]


@pytest.mark.belief(
    "two rows with one primary key fail the pipeline with SYNCED_TABLE_USER_ERROR.PRIMARY_KEY_CONSTRAINT_VIOLATION",
    source="Databricks docs, SYNCED_TABLE_USER_ERROR error condition; field reports",
    sure="documented",
)
def test_a_duplicate_key(world: World, session: Session) -> None:
    table = world.settled(world.source({"id": [1, 1]}))
    assert state(table) == "OFFLINE_FAILED"
    assert "[SYNCED_TABLE_USER_ERROR.PRIMARY_KEY_CONSTRAINT_VIOLATION]" in message(table)
    assert "Duplicate rows detected based on primary key." in message(table)


@pytest.mark.belief(
    "a null byte in a string fails the pipeline with SYNCED_TABLE_USER_ERROR.CHARACTER_NOT_IN_REPERTOIRE",
    source="Databricks docs, SYNCED_TABLE_USER_ERROR error condition",
    sure="documented",
)
@pytest.mark.parametrize("columns", [{"id": [1], "name": ["a\0b"]}, {"id": [1], "names": [["a\0b"]]}])
def test_a_null_byte(world: World, session: Session, columns: dict[str, Any]) -> None:
    table = world.settled(world.source(columns))
    assert state(table) == "OFFLINE_FAILED"
    assert "[SYNCED_TABLE_USER_ERROR.CHARACTER_NOT_IN_REPERTOIRE]" in message(table)
    assert session.execute("SELECT to_regclass(%s)", (postgres_name(table).as_string(),)).fetchall() == [(None,)]


@pytest.mark.belief(
    "a failed first load leaves OFFLINE_FAILED, a failed refresh ONLINE_PIPELINE_FAILED and the rows as they were",
    source="databricks-sdk-py service/postgres.py SyncedTableState; field reports",
    sure="seen in the field",
)
def test_failures(world: World, session: Session) -> None:
    world.emulator.faults.fail_pipelines("no space")
    table = world.settled(world.source({"id": [1]}))
    assert (state(table), message(table)) == ("OFFLINE_FAILED", "no space")
    table = world.refresh(table)
    world.emulator.faults.fail_pipelines("no space")
    table = world.refresh(table)
    assert (state(table), rows(session, table)) == ("ONLINE_PIPELINE_FAILED", [(1,)])


@pytest.mark.belief(
    "a view on the table stops a rebuild",
    source="Databricks docs, SYNCED_TABLE_USER_ERROR error condition, DEPENDENT_OBJECTS_STILL_EXIST (of columns); a "
    "field report of a table that is replaced",
    sure="inferred",
)
def test_a_view_stops_a_rebuild(world: World, session: Session) -> None:
    table = world.settled(world.source({"id": [1]}))
    run(session, "CREATE VIEW app.on_it AS SELECT * FROM {}", table)
    table = world.refresh(table)
    assert state(table) == "ONLINE_PIPELINE_FAILED"
    assert "DEPENDENT_OBJECTS_STILL_EXIST" in message(table)
    session.execute("DROP VIEW app.on_it")
    assert state(world.refresh(table)) == "ONLINE_NO_PENDING_UPDATE"


@pytest.mark.belief(
    "a delete leaves the Postgres table, and a new synced table of that name fails with ALREADY_EXISTS until it is "
    "dropped; that the operation fails, and not the request, is a guess",
    source="terraform-provider-databricks#5456; field reports",
    sure="seen in the field",
)
def test_a_left_over_table(world: World, session: Session) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source, table="left_over")
    world.client.postgres.delete_synced_table(str(table.name)).wait()
    with pytest.raises(NotFound, match="synced table id not found"):
        world.client.postgres.get_synced_table(str(table.name))
    assert rows(session, table) == [(1,)]
    with pytest.raises(Exception, match=r"ALREADY_EXISTS\] .*left_over"):
        world.create(source, table="left_over")
    with pytest.raises(NotFound):
        world.client.postgres.get_synced_table(str(table.name))
    run(session, "DROP TABLE {}", table)
    assert state(world.settled(source, table="left_over")) == "ONLINE_NO_PENDING_UPDATE"


@pytest.mark.belief(
    "a synced table that is created again has another uid; until the operation that deletes the former one ends, it is "
    "still there",
    source="databricks-sdk-py service/postgres.py SyncedTable.uid (the table's ID in Unity Catalog); no source for the "
    "delete",
    sure="inferred",
)
def test_another_uid(world: World, session: Session) -> None:
    source = world.source({"id": [1]})
    table = world.settled(source, table="created_again")
    world.emulator.operation_seconds = 0.2
    deleting = world.client.postgres.delete_synced_table(str(table.name))
    assert world.client.postgres.get_synced_table(str(table.name)).uid == table.uid
    deleting.wait()
    world.emulator.operation_seconds = 0
    run(session, "DROP TABLE {}", table)
    assert world.settled(source, table="created_again").uid not in (None, table.uid)


@pytest.mark.belief(
    "Unity Catalog tells a table's columns and, among its properties, its last version",
    source="databricks-sdk-py service/catalog.py TableInfo; delta.lastUpdateVersion in public answers of the API",
    sure="seen in the field",
)
def test_a_source_table(world: World) -> None:
    source = world.source({"id": [1], "name": ["a"]})
    world.publish(source, {"id": [1], "name": ["b"]})
    found = world.client.tables.get(source)
    assert [(column.name, column.type_text) for column in found.columns or []] == [("id", "bigint"), ("name", "string")]
    assert (found.properties or {})["delta.lastUpdateVersion"] == "1"
