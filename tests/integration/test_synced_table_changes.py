"""Create, recreate and delete synced tables as tasks, with the indexes, grants and views of their Postgres tables."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import psycopg
import pyarrow
import pytest
from _operations import Died, Store, Task, context, dying, run
from _synced_tables import Session, World
from airflow.providers.common.compat.sdk import AirflowFailException
from psycopg import sql

from airflow_provider_lakebase.exceptions import (
    LakebaseConflictError,
    LakebaseOperationError,
    LakebaseOperationTimeoutError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseSyncedTableError,
    LakebaseWorkspaceAccessError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.synced_table import (
    LakebaseCreateSyncedTableOperator,
    LakebaseDeleteSyncedTableOperator,
)

NUMBERS = itertools.count()
ADMIN = {"lakebase_conn_id": "lakebase_admin"}
WAIT = "airflow_provider_lakebase.operators._operation.wait_for"
VARCHAR = "PG_SPECIFIC_TYPE_VARCHAR"
WITH_ALL = {"indexes": {"by_name": "(name)"}, "grants": {"PUBLIC": ["SELECT"]}}


class Lake:
    """A name for a synced table, and what is there of it."""

    def __init__(self, world: World, session: Session) -> None:
        self.world = world
        self.session = session
        self.table = f"made_{next(NUMBERS)}"
        self.name = f"lake.synced.{self.table}"
        self.source = world.source({"id": [1, 2], "name": ["a", "b"]})
        self._first = len(world.emulator.requests)

    def create(self, **arguments: Any) -> LakebaseCreateSyncedTableOperator:
        given = {"source": self.source, "key_columns": ["id"], "policy": "snapshot", **ADMIN, **arguments}
        return LakebaseCreateSyncedTableOperator(task_id="create", synced_table=self.name, **given)

    def delete(self, **arguments: Any) -> LakebaseDeleteSyncedTableOperator:
        return LakebaseDeleteSyncedTableOperator(task_id="delete", synced_table=self.name, **{**ADMIN, **arguments})

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement with the table's name in place of ``{}``."""
        query = sql.SQL(statement).format(sql.Identifier("synced", self.table))  # type: ignore[arg-type]
        cursor = self.session.execute(query)
        return cursor.fetchall() if cursor.description else []

    @property
    def changes(self) -> list[str]:
        """The accepted requests so far that changed a synced table or a pipeline."""
        return [
            each.method
            for each in self.world.emulator.requests[self._first :]
            if each.method in ("POST", "DELETE") and each.status == 200
            if "/synced_tables" in each.path or "/pipelines/" in each.path
        ]

    def indexes(self) -> list[str]:
        query = "SELECT indexname FROM pg_indexes WHERE schemaname = 'synced' AND tablename = %s ORDER BY 1"
        return [name for (name,) in self.session.execute(query, [self.table]).fetchall()]

    def remembered(self) -> int:
        return int(
            self.session.execute("SELECT count(*) FROM airflow_lakebase.synced_table_recreations").fetchall()[0][0]
        )


@pytest.fixture
def lake(world: World) -> Iterator[Lake]:
    with world.connect() as session:
        lake = Lake(world, session)
        yield lake
        world.emulator.operation_seconds = 0
        with suppress(Exception):
            world.client.postgres.delete_synced_table(f"synced_tables/{lake.name}").wait()
        with suppress(psycopg.Error):
            lake.run("DROP TABLE IF EXISTS {} CASCADE")
        with suppress(psycopg.Error):
            session.execute("DELETE FROM airflow_lakebase.synced_table_recreations")


@pytest.mark.parametrize("deferrable", [False, True])
def test_it_creates_the_table_with_indexes_and_grants_and_a_second_run_changes_nothing(
    lake: Lake, deferrable: bool
) -> None:
    result = run(lake.create(deferrable=deferrable, **WITH_ALL))
    assert result.pop("seconds") > 0
    assert result.pop("state") in ("ONLINE", "ONLINE_NO_PENDING_UPDATE")
    assert result == {
        "synced_table": lake.name,
        "version": 0,
        "created": True,
        "recreated": False,
        "indexes": ["by_name"],
    }
    assert lake.run("SELECT * FROM {} ORDER BY 1") == [(1, "a"), (2, "b")]
    assert lake.indexes() == ["by_name", f"{lake.table}_pkey"]
    assert lake.run(f"SELECT has_table_privilege('public', 'synced.{lake.table}', 'SELECT')") == [(True,)]
    assert lake.changes == ["POST"]
    second = lake.create(deferrable=deferrable, **WITH_ALL)
    again = run(second)
    assert (again["created"], again["recreated"]) == (False, False)
    host = lake.world.emulator.workspace_url.removeprefix("http://")
    assert [inlet.uri for inlet in second.inlets] == [f"databricks://{host}/{lake.source.replace('.', '/')}"]
    assert lake.changes == ["POST"]


def test_what_a_rebuild_has_dropped_is_made_again(lake: Lake) -> None:
    run(lake.create(**WITH_ALL))
    lake.run("DROP INDEX synced.by_name")
    lake.run("REVOKE SELECT ON {} FROM PUBLIC")
    run(lake.create(**WITH_ALL))
    assert lake.indexes() == ["by_name", f"{lake.table}_pkey"]
    assert lake.run(f"SELECT has_table_privilege('public', 'synced.{lake.table}', 'SELECT')") == [(True,)]
    assert lake.changes == ["POST"]


def test_a_change_fails_and_says_what_differs(lake: Lake) -> None:
    run(lake.create())
    with pytest.raises(AirflowFailException, match="primary_key_columns is ") as caught:
        run(lake.create(key_columns=["name"]))
    assert isinstance(caught.value.__cause__, LakebaseResourceExistsError)
    assert lake.changes == ["POST"]


SETUP = (
    "CREATE INDEX remembered ON {} (name) WHERE id > 0",
    "CREATE UNIQUE INDEX remembered_unique ON {} (lower(name), id)",
    "CREATE ROLE remembered_reader",
    "CREATE ROLE remembered_granter",
    "GRANT USAGE, CREATE ON SCHEMA synced TO remembered_granter",
    "GRANT SELECT ON {} TO remembered_granter WITH GRANT OPTION",
    "GRANT SELECT (name) ON {} TO remembered_reader",
    "GRANT remembered_granter TO CURRENT_USER",
    "SET ROLE remembered_granter; GRANT SELECT ON {} TO remembered_reader; RESET ROLE",
    "COMMENT ON TABLE {} IS 'it''s gold'",
    "COMMENT ON COLUMN {}.name IS '100%'",
    "COMMENT ON INDEX synced.remembered IS 'an index'",
    "ALTER TABLE {} ADD CONSTRAINT checked CHECK (id > 0), ADD CONSTRAINT remembered_key UNIQUE (id, name)",
    "COMMENT ON CONSTRAINT checked ON {} IS 'positive'",
    "ALTER TABLE {} REPLICA IDENTITY FULL, SET (autovacuum_enabled = false, toast.autovacuum_enabled = false)",
    "ALTER TABLE {} ALTER name SET STATISTICS 7, ALTER name SET (n_distinct = -0.5), ALTER name SET STORAGE EXTERNAL",
    "CREATE RULE remembered_rule AS ON INSERT TO {} DO ALSO NOTHING",
    "CREATE STATISTICS synced.remembered_statistics ON id, name FROM {}",
    'CREATE VIEW synced."First" WITH (security_barrier) AS SELECT id, name AS "Name" FROM {}',
    'CREATE MATERIALIZED VIEW synced.second AS SELECT count(*) AS n, max("Name") AS last FROM synced."First"',
    "CREATE VIEW synced.third AS SELECT n FROM synced.second, {} WHERE id = 1",
    "CREATE UNIQUE INDEX remembered_second ON synced.second (n)",
    "COMMENT ON INDEX synced.remembered_second IS 'of a view'",
    "COMMENT ON MATERIALIZED VIEW synced.second IS 'counts'",
    "ALTER MATERIALIZED VIEW synced.second ALTER last SET STATISTICS 7, ALTER last SET STORAGE EXTERNAL",
    'COMMENT ON COLUMN synced."First"."Name" IS \'renamed\'',
    "GRANT SELECT ON synced.third TO remembered_reader",
    "CREATE RULE ignored AS ON INSERT TO synced.third DO INSTEAD NOTHING",
    "COMMENT ON RULE ignored ON synced.third IS 'read only'",
    "ALTER VIEW synced.third ALTER n SET DEFAULT 3",
    "REVOKE DELETE ON synced.third FROM CURRENT_USER",
    'ALTER VIEW synced."First" OWNER TO remembered_granter',
)
CATALOGUE = """
    WITH object AS (
        SELECT c.oid, relname, relkind, relacl, reloptions, relowner::regrole::text AS owner FROM pg_class c
        JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'synced'
    )
    SELECT 'relation', relname, relkind::text, owner, reloptions::text, (
        SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(relacl) AS a
    ), CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) WHEN relkind = 'i' THEN pg_get_indexdef(oid)
        || (SELECT indisvalid FROM pg_index WHERE indexrelid = oid) END FROM object
    UNION ALL
    SELECT 'comment', relname, objsubid::text, description, NULL, NULL, NULL
    FROM object JOIN pg_description ON objoid = oid AND classoid = 'pg_class'::regclass
    UNION ALL
    SELECT 'column', relname, attname, attacl::text, attstattarget::text, NULL, NULL
    FROM object JOIN pg_attribute ON attrelid = oid AND attnum > 0 WHERE relkind IN ('r', 'v', 'm')
    UNION ALL
    SELECT 'constraint', conname, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'), NULL, NULL, NULL
    FROM object o JOIN pg_constraint k ON conrelid = o.oid WHERE contype <> 'n'
    UNION ALL
    SELECT 'rule', rulename, pg_get_ruledef(r.oid), obj_description(r.oid, 'pg_rewrite'), NULL, NULL, NULL
    FROM object o JOIN pg_rewrite r ON ev_class = o.oid
    UNION ALL
    SELECT 'default', relname, adnum::text, pg_get_expr(adbin, adrelid), NULL, NULL, NULL
    FROM object o JOIN pg_attrdef ON adrelid = o.oid
    UNION ALL
    SELECT 'settings', relname, relreplident::text, attoptions::text, attstorage::text, (
        SELECT t.reloptions::text FROM pg_class t WHERE t.oid = c.reltoastrelid), attname
    FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 WHERE c.oid IN (SELECT oid FROM object)
        AND relkind IN ('r', 'm')
    UNION ALL
    SELECT 'statistics', stxname, pg_get_statisticsobjdef(oid), NULL, NULL, NULL, NULL FROM pg_statistic_ext
    ORDER BY 1, 2, 3, 4, 5, 6, 7
"""


def decorate(lake: Lake) -> list[tuple[Any, ...]]:
    """Hang things on the Postgres table, and return the catalogue."""
    for statement in SETUP:
        lake.run(statement)
    return lake.session.execute(CATALOGUE).fetchall()


def undecorate(lake: Lake) -> None:
    lake.run("DROP TABLE IF EXISTS {} CASCADE")
    lake.run("DROP OWNED BY remembered_granter")
    lake.run("DROP ROLE remembered_reader, remembered_granter")


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_recreate_puts_back_what_was_on_the_table(lake: Lake, deferrable: bool) -> None:
    run(lake.create(**WITH_ALL))
    before = decorate(lake)
    lake.source = lake.world.source({"id": [7], "name": ["z"], "more": [1.5]})
    result = run(lake.create(on_change="recreate", deferrable=deferrable, **WITH_ALL))
    assert (result["created"], result["recreated"]) == (False, True)
    after = lake.session.execute(CATALOGUE).fetchall()
    assert [row for row in after if "more" not in row] == before
    assert lake.run("SELECT n, last FROM synced.second") == [(1, "z")]
    assert lake.changes == ["POST", "DELETE", "POST"]
    assert lake.remembered() == 0
    run(lake.create(on_change="recreate", **WITH_ALL))
    assert lake.changes == ["POST", "DELETE", "POST"]
    undecorate(lake)


def test_what_cannot_be_put_back_is_named_before_anything_is_deleted(lake: Lake) -> None:
    run(lake.create())
    for statement in (
        "CREATE VIEW synced.of_name AS SELECT name FROM {}",
        "CREATE INDEX on_name ON {} (name)",
        "COMMENT ON COLUMN {}.name IS 'gone'",
        "CREATE TABLE synced.refers (id bigint REFERENCES {})",
        "CREATE FUNCTION synced.takes({}) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE {} ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY all_rows ON {} USING (true)",
    ):
        lake.run(statement)
    lake.source = lake.world.source({"id": [1]})
    with pytest.raises(AirflowFailException) as caught:
        run(lake.create(on_change="recreate"))
    error = caught.value.__cause__
    assert isinstance(error, LakebaseSyncedTableError)
    for text in (
        "view synced.of_name needs column name, which the source does not have",
        "index synced.on_name needs column name, which the source does not have",
        "a comment needs column name, which the source does not have",
        "constraint refers_id_fkey on table synced.refers",
        f"function synced.takes(synced.{lake.table})",
        f"policy all_rows on table synced.{lake.table}",
        f"row security of synced.{lake.table}",
    ):
        assert text in error.objects
    assert lake.changes == ["POST"]
    assert lake.remembered() == 0
    lake.run("DROP TABLE {} CASCADE")
    lake.run("DROP TABLE synced.refers")


def test_a_view_of_a_role_that_cannot_be_acted_as_is_named_before_anything_is_deleted(lake: Lake) -> None:
    run(lake.create(grants={"PUBLIC": ["SELECT"]}))
    stranger = lake.world.emulator.add_principal("Owner of a view")
    lake.session.execute("SELECT databricks_create_role(%s::text, 'SERVICE_PRINCIPAL')", [stranger.role])
    lake.session.execute(f'GRANT USAGE, CREATE ON SCHEMA synced TO "{stranger.role}"')
    with lake.world.connect(stranger) as session:
        session.execute(f"CREATE VIEW synced.of_a_stranger AS SELECT * FROM synced.{lake.table}")
        with pytest.raises(AirflowFailException, match=r"view synced.of_a_stranger, since .* may not act as its owner"):
            run(lake.create(key_columns=["name"], on_change="recreate"))
        session.execute("DROP VIEW synced.of_a_stranger")
    assert lake.changes == ["POST"]


def test_a_source_or_a_key_that_is_missing_is_told_before_anything_is_deleted(lake: Lake) -> None:
    run(lake.create())
    with pytest.raises(AirflowFailException, match="has no column other") as caught:
        run(lake.create(key_columns=["other"], on_change="recreate"))
    assert isinstance(caught.value.__cause__, LakebaseSettingsError)
    lake.source = "main.gold.nothing"
    with pytest.raises(AirflowFailException, match=r"main\.gold\.nothing") as caught:
        run(lake.create(on_change="recreate"))
    assert isinstance(caught.value.__cause__, LakebaseResourceNotFoundError)
    assert lake.changes == ["POST"]


def test_what_the_service_would_refuse_is_told_before_anything_is_deleted(lake: Lake) -> None:
    lake.source = "main.gold.without_feed"
    lake.world.emulator.publish(lake.source, pyarrow.table({"id": [1], "name": ["a"]}))
    run(lake.create())
    for arguments, text in (
        ({"policy": "triggered"}, "has no change data feed"),
        ({"key_columns": ["Id"]}, "has no column Id .*Write id as the source has it"),
        ({"existing_pipeline_id": "nope"}, "There is no pipeline 'nope'"),
        ({"type_overrides": [{"column_name": "Name", "pg_type": VARCHAR, "size": 3}]}, "has no column Name"),
        ({"type_overrides": [{"column_name": "name", "pg_type": "varchar"}]}, "The pg_type of column name"),
        ({"extra_columns": [{"column_name": "name", "column_type": "text", "compute": "id"}]}, "has a column name"),
    ):
        with pytest.raises(AirflowFailException, match=text) as caught:
            run(lake.create(on_change="recreate", **arguments))
        is_pipeline = "existing_pipeline_id" in arguments
        kind = LakebaseResourceNotFoundError if is_pipeline else LakebaseSettingsError
        assert isinstance(caught.value.__cause__, kind)
    assert lake.changes == ["POST"]
    assert lake.remembered() == 0
    assert lake.run("SELECT * FROM {}") == [(1, "a")]


def test_what_the_service_refuses_after_the_delete_is_told_and_put_back_by_the_next_run(lake: Lake) -> None:
    run(lake.create())
    lake.run("CREATE VIEW synced.of_name AS SELECT name FROM {}")
    refused = {"type_overrides": [{"column_name": "name", "pg_type": VARCHAR}]}
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"needs a size(.|\n)*remembered in the schema airflow_lakebase"):
            run(lake.create(on_change="recreate", **refused))
    broken = {"extra_columns": [{"column_name": "up", "column_type": "text", "compute": "upper(nope)"}]}
    with pytest.raises(LakebaseOperationError, match='"nope" does not exist') as caught:
        run(lake.create(on_change="recreate", **broken))
    assert "are gone until the synced table serves rows again" in caught.value.__notes__[0]
    run(lake.create(on_change="recreate"))
    assert lake.run("SELECT name FROM synced.of_name ORDER BY 1") == [("a",), ("b",)]
    assert lake.remembered() == 0
    lake.run("DROP VIEW synced.of_name")


def test_what_was_not_put_back_stays_remembered_until_it_can_be(lake: Lake) -> None:
    run(lake.create())
    lake.run("CREATE INDEX on_name ON {} (lower(name))")
    lake.run("CREATE VIEW synced.of_name AS SELECT upper(name) FROM {}")
    lake.run("CREATE INDEX on_id ON {} (id)")
    lake.source = lake.world.source({"id": [1], "name": [1]})
    with pytest.raises(AirflowFailException, match="this was not put back") as caught:
        run(lake.create(on_change="recreate"))
    error = caught.value.__cause__
    assert isinstance(error, LakebaseSyncedTableError)
    assert [text.split(" (")[0] for text in error.objects] == ["view synced.of_name", 'index "synced"."on_name"']
    assert lake.remembered() == 1
    assert lake.indexes() == [f"{lake.table}_pkey", "on_id"]
    lake.source = lake.world.source({"id": [1], "name": ["x"]})
    run(lake.create(on_change="recreate"))
    assert lake.indexes() == [f"{lake.table}_pkey", "on_id", "on_name"]
    assert lake.run("SELECT * FROM synced.of_name") == [("X",)]
    assert lake.remembered() == 0
    lake.run("DROP VIEW synced.of_name")


def test_a_view_of_two_tables_that_are_recreated_at_once_is_put_back_by_a_retry(lake: Lake) -> None:
    run(lake.create())
    other = Lake(lake.world, lake.session)
    run(other.create())
    lake.run(f"CREATE VIEW synced.of_both AS SELECT id FROM {{}} JOIN synced.{other.table} USING (id)")
    die_at(lake, "drop_remembered", task={}, key_columns=["name"])
    die_at(other, "keep_record", task={}, key_columns=["name"])
    with pytest.raises(LakebaseSyncedTableError, match=r"view synced\.of_both \(relation .* does not exist") as caught:
        run(lake.create(key_columns=["name"], on_change="recreate"))
    assert caught.value.retryable
    run(other.create(key_columns=["name"], on_change="recreate"))
    run(lake.create(key_columns=["name"], on_change="recreate"))
    assert lake.run("SELECT count(*) FROM synced.of_both") == [(2,)]
    assert lake.remembered() == 0
    lake.run("DROP VIEW synced.of_both")
    run(other.delete())


def test_an_index_whose_name_another_relation_has_stays_remembered(lake: Lake) -> None:
    run(lake.create())
    lake.run("CREATE UNIQUE INDEX taken ON {} (name)")
    lake.run("CREATE TABLE synced.taker (name text)")
    die_at(lake, "put_back", task={}, key_columns=["name"])
    for statement, undo in (
        ("CREATE INDEX taken ON synced.taker (name)", "DROP INDEX synced.taken"),
        ("ALTER TABLE synced.taker RENAME TO taken", "DROP TABLE synced.taken"),
    ):
        lake.run(statement)
        with pytest.raises(AirflowFailException, match='index "synced"."taken"'):
            run(lake.create(key_columns=["name"], on_change="recreate"))
        assert lake.remembered() == 1
        lake.run(undo)
    run(lake.create(key_columns=["name"], on_change="recreate"))
    assert lake.indexes() == [f"{lake.table}_pkey", "taken"]


def test_the_rows_that_an_index_does_not_allow_are_not_told(lake: Lake) -> None:
    run(lake.create())
    lake.run("CREATE UNIQUE INDEX unique_name ON {} (name)")
    lake.source = lake.world.source({"id": [1, 2], "name": ["secret", "secret"]})
    with pytest.raises(AirflowFailException, match="could not create unique index") as caught:
        run(lake.create(on_change="recreate"))
    assert "secret" not in str(caught.value)


def test_a_recreate_replaces_a_table_whose_pipeline_cannot_follow_its_source(lake: Lake) -> None:
    run(lake.create(policy="triggered"))
    lake.run("CREATE VIEW synced.of_id AS SELECT id FROM {}")
    lake.world.publish(lake.source, {"id": [1], "name": [1]})
    found = lake.world.client.postgres.get_synced_table(f"synced_tables/{lake.name}")
    lake.world.refresh(found)
    with pytest.raises(AirflowFailException, match="COLUMN_TYPE_CHANGE_NOT_SUPPORTED"):
        run(lake.create(policy="triggered"))
    run(lake.create(policy="triggered", on_change="recreate"))
    assert lake.run("SELECT * FROM {}") == [(1, 1)]
    assert lake.run("SELECT * FROM synced.of_id") == [(1,)]
    lake.run("DROP VIEW synced.of_id")


def test_a_table_that_others_created_is_compared_as_far_as_anything_tells(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    lake.world.settle(World.create(lake.world, lake.source, schema="synced", table=lake.table))
    run(lake.create())
    assert "Not compared, because nothing tells it: source_table_full_name, scheduling_policy" in caplog.text
    for arguments, text in (
        ({"key_columns": ["name"]}, "primary_key_columns"),
        ({"policy": "continuous"}, "scheduling_policy"),
        ({"existing_pipeline_id": "another"}, "existing_pipeline_id"),
    ):
        with pytest.raises(AirflowFailException, match=f"{text} is "):
            run(lake.create(**arguments))
    run(lake.create(key_columns=["name"], on_change="recreate"))
    assert lake.run("SELECT id FROM {} WHERE name = 'a'") == [(1,)]


def test_a_table_that_others_made_anew_is_not_recorded_as_what_it_may_not_be(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    run(lake.create())
    lake.world.client.postgres.delete_synced_table(f"synced_tables/{lake.name}").wait()
    lake.run("DROP TABLE {}")
    other = lake.world.source({"id": [3], "name": ["c"]})
    lake.world.settle(World.create(lake.world, other, schema="synced", table=lake.table))
    for _ in range(2):
        caplog.clear()
        run(lake.create())
        assert "Not compared, because nothing tells it: source_table_full_name" in caplog.text


def test_a_table_that_is_left_over_is_told_or_replaced(lake: Lake) -> None:
    run(lake.create())
    run(lake.delete(drop_table=False))
    lake.run("CREATE INDEX kept ON {} (name)")
    with pytest.raises(AirflowFailException, match="has left its Postgres table"):
        run(lake.create())
    assert run(lake.create(on_change="recreate"))["recreated"]
    assert lake.indexes() == ["kept", f"{lake.table}_pkey"]


def test_a_table_of_the_parent_branch_is_not_replaced_or_deleted_from_its_copy(lake: Lake) -> None:
    run(lake.create())
    branch = lake.world.emulator.create_branch("copy-of-synced")
    record = lake.session.execute("SELECT * FROM airflow_lakebase.synced_tables").fetchall()
    endpoint = f"{branch}/endpoints/primary"
    connection = json.loads(lake.world.emulator.connections["lakebase_admin"])
    connection["extra"]["endpoint"] = endpoint
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_COPY", json.dumps(connection))
        on_copy = {"lakebase_conn_id": "copy"}
        changed = lake.create(key_columns=["name"], on_change="recreate", **on_copy)
        for operator in (changed, lake.delete(**on_copy)):
            with pytest.raises(AirflowFailException, match="is in databricks_postgres of projects/demo/branches/prod"):
                run(operator)
        LakebaseHook("copy").run("DELETE FROM airflow_lakebase.synced_tables")
        for operator in (changed, lake.delete(**on_copy)):
            with pytest.raises(AirflowFailException, match="was copied from projects/demo/branches/production"):
                run(operator)
    lake.world.emulator.delete_branch(branch)
    assert record and lake.changes == ["POST"]


def test_an_ordinary_table_of_the_name_is_not_taken_for_that_of_a_table_elsewhere(lake: Lake) -> None:
    run(lake.create(postgres_database=f"db_{lake.table}"))
    lake.session.execute("CREATE SCHEMA IF NOT EXISTS synced")
    lake.run("CREATE TABLE {} (id int)")
    for operator in (lake.create(on_change="recreate"), lake.delete()):
        with pytest.raises(AirflowFailException, match="belongs to"):
            run(operator)
    assert lake.run("SELECT * FROM {}") == []
    assert lake.changes == ["POST"]


def test_an_ordinary_table_is_never_dropped(lake: Lake) -> None:
    run(lake.create())
    run(lake.delete())
    lake.run("CREATE TABLE {} (id int)")
    for operator in (lake.create(on_change="recreate"), lake.delete()):
        with pytest.raises(AirflowFailException, match="belongs to"):
            run(operator)
    assert lake.run("SELECT * FROM {}") == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_delete_drops_the_table_and_a_second_run_changes_nothing(lake: Lake, deferrable: bool) -> None:
    run(lake.create(deferrable=deferrable))
    expected = {"synced_table": lake.name, "deleted": True, "dropped": True}
    assert run(lake.delete(deferrable=deferrable)) == expected
    assert lake.run(f"SELECT to_regclass('synced.{lake.table}')") == [(None,)]
    assert run(lake.delete(deferrable=deferrable)) == {**expected, "deleted": False, "dropped": False}
    assert lake.changes == ["POST", "DELETE"]


@pytest.mark.parametrize("store", [True, False])
def test_the_try_after_a_death_adopts_what_was_requested(lake: Lake, store: bool) -> None:
    lake.world.emulator.operation_seconds = 0.1
    kept = Store() if store else None
    with dying(WAIT):
        run(lake.create(), context(kept))
    assert run(lake.create(), context(kept))["created"] is store
    with dying(WAIT):
        run(lake.delete(), context(kept))
    assert run(lake.delete(), context(kept))["dropped"]
    assert lake.changes == ["POST", "DELETE"]
    assert not (kept and kept.values)


def test_a_table_in_another_database_is_created_and_not_deleted_from_here(lake: Lake) -> None:
    database = f"db_{lake.table}"
    for created in (True, False):
        result = run(lake.create(postgres_database=database, indexes={"by_name": "(name)"}))
        assert result["created"] is created
    with pytest.raises(AirflowFailException, match="exists, but not in databricks_postgres"):
        run(lake.create())
    with pytest.raises(AirflowFailException, match="no Postgres table of its name is here"):
        run(lake.delete())
    assert run(lake.delete(postgres_database=database))["dropped"]
    assert lake.changes == ["POST", "DELETE"]


def test_a_delete_that_would_lose_a_view_is_refused(lake: Lake) -> None:
    run(lake.create())
    lake.run("CREATE VIEW synced.on_it AS SELECT * FROM {}")
    with pytest.raises(AirflowFailException, match="view synced.on_it") as caught:
        run(lake.delete())
    assert isinstance(caught.value.__cause__, LakebaseSyncedTableError)
    assert lake.changes == ["POST"]
    assert run(lake.delete(drop_table=False))["dropped"] is False
    assert lake.run("SELECT count(*) FROM synced.on_it") == [(2,)]
    lake.run("DROP VIEW synced.on_it")
    assert run(lake.delete()) == {"synced_table": lake.name, "deleted": False, "dropped": True}


@pytest.mark.parametrize("status", [429, 503])
def test_a_workspace_that_fails_twice_is_asked_again(lake: Lake, status: int) -> None:
    for operator in (lake.create(), lake.create(key_columns=["name"], on_change="recreate"), lake.delete()):
        fail_twice(lake.world, status)
        run(operator)
    assert lake.changes == ["POST", "DELETE", "POST", "DELETE"]


def fail_twice(world: World, status: int) -> None:
    world.emulator.faults.answer("/synced_tables", status=status, times=2, retry_after=0)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_first_load_that_fails_fails_the_task_and_a_later_try_loads_it(lake: Lake, deferrable: bool) -> None:
    lake.world.publish(lake.source, {"id": [1, 1], "name": ["a", "b"]})
    store = Store()
    with pytest.raises(AirflowFailException, match="the same primary key") as caught:
        run(lake.create(deferrable=deferrable), context(store))
    assert isinstance(caught.value.__cause__, LakebaseOperationError)
    lake.world.publish(lake.source, {"id": [1], "name": ["a"]})
    again = context(store)
    again["ti"].try_number = 2
    assert run(lake.create(deferrable=deferrable), again)["created"]
    assert lake.run("SELECT id FROM {}") == [(1,)]
    assert lake.changes == ["POST", "POST"]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_continuous_table_whose_first_load_fails_is_started_by_a_later_try(lake: Lake, deferrable: bool) -> None:
    arguments = {"policy": "continuous", "deferrable": deferrable, **WITH_ALL}
    lake.world.publish(lake.source, {"id": [1, 1], "name": ["a", "b"]})
    with pytest.raises(AirflowFailException, match="the same primary key"):
        run(lake.create(**arguments))
    with pytest.raises(AirflowFailException, match="the same primary key"):
        run(lake.create(**arguments))
    lake.world.publish(lake.source, {"id": [1], "name": ["a"]})
    assert run(lake.create(**arguments))["state"] == "ONLINE_CONTINUOUS_UPDATE"
    assert lake.changes == ["POST"] * 3
    assert "by_name" in lake.indexes()
    assert run(lake.create(**arguments))["state"] == "ONLINE_CONTINUOUS_UPDATE"


def test_a_first_load_that_was_canceled_is_made_again(lake: Lake) -> None:
    lake.world.emulator.pipeline_seconds = 5.0
    table = World.create(lake.world, lake.source, schema="synced", table=lake.table)
    assert table.status
    lake.world.client.pipelines.stop(str(table.status.pipeline_id))
    lake.world.emulator.pipeline_seconds = 0.02
    assert run(lake.create())["state"] == "ONLINE_NO_PENDING_UPDATE"


def test_a_table_that_serves_while_its_pipeline_has_failed_is_used(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    run(lake.create())
    lake.world.emulator.faults.fail_pipelines("no space")
    lake.world.refresh(lake.world.client.postgres.get_synced_table(f"synced_tables/{lake.name}"))
    assert run(lake.create())["state"] == "ONLINE_PIPELINE_FAILED"
    assert "its pipeline has failed: no space" in caplog.text


def test_it_outlasts_its_deadline_and_the_next_try_adopts_it(lake: Lake) -> None:
    lake.world.emulator.pipeline_seconds = 1.0
    for deferrable in (False, True):
        with pytest.raises(LakebaseOperationTimeoutError):
            run(lake.create(operation_timeout=0.2, deferrable=deferrable))
    assert run(lake.create())["state"].startswith("ONLINE")
    assert lake.changes == ["POST"]


def test_a_source_that_is_missing_is_told(lake: Lake) -> None:
    lake.source = "main.gold.nothing"
    with pytest.raises(AirflowFailException, match=r"main\.gold\.nothing") as caught:
        run(lake.create())
    assert isinstance(caught.value.__cause__, LakebaseResourceNotFoundError)
    query = "SELECT FROM airflow_lakebase.synced_tables WHERE name = %s"
    assert lake.session.execute(query, [f"synced_tables/{lake.name}"]).fetchall() == []


def test_a_second_task_waits_while_the_first_holds_the_table(lake: Lake, world: World) -> None:
    run(lake.create())
    lock = "SELECT {}(hashtext('airflow-provider-lakebase synced table'), hashtext(%s))"
    lake.session.execute(lock.format("pg_advisory_lock"), [f"synced_tables/{lake.name}"])  # type: ignore[arg-type]
    with pytest.raises(LakebaseConflictError, match="Another task"):
        run(lake.create(operation_timeout=0.2))
    lake.session.execute(lock.format("pg_advisory_unlock"), [f"synced_tables/{lake.name}"])  # type: ignore[arg-type]
    run(lake.create())


def test_two_tasks_that_recreate_one_table_make_it_once(lake: Lake) -> None:
    run(lake.create())
    lake.run("CREATE INDEX kept ON {} (name)")
    lake.world.emulator.operation_seconds = 0.2
    failures: list[BaseException] = []

    def recreate(name: str) -> None:
        task = {"ti": Task(task=SimpleNamespace(), task_id=name)}
        try:
            run(lake.create(key_columns=["name"], on_change="recreate", operation_timeout=60), task)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=recreate, args=[name]) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert lake.changes == ["POST", "DELETE", "POST"]
    assert lake.indexes() == ["kept", f"{lake.table}_pkey"]


def test_another_task_with_another_spec_does_not_take_a_recreate_over(lake: Lake) -> None:
    run(lake.create())
    one, two = ({"ti": Task(task=SimpleNamespace(), task_id=name)} for name in ("one", "two"))
    die_at(lake, "keep_record", key_columns=["name"], task=one)
    with pytest.raises(LakebaseConflictError, match="The task etl.one is replacing"):
        run(lake.create(key_columns=["id", "name"], on_change="recreate", operation_timeout=0.2), two)
    run(lake.create(key_columns=["id", "name"], on_change="recreate"), one)
    assert lake.remembered() == 0


def die_at(lake: Lake, step: str, *, task: Any, **arguments: Any) -> None:
    """Recreate the table, and die at a step in Postgres."""
    from airflow_provider_lakebase.core.relations.synced import SyncedTableSession

    def die(*_: Any, **__: Any) -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(SyncedTableSession, step, die)
        run(lake.create(on_change="recreate", **arguments), task)


@pytest.mark.parametrize("step", ["update", "drop_remembered", "keep_record", "put_back", "ensure"])
def test_the_try_after_a_death_goes_on(lake: Lake, step: str) -> None:
    run(lake.create())
    lake.run("CREATE INDEX kept ON {} (name)")
    lake.run("CREATE VIEW synced.on_it AS SELECT * FROM {}")
    lake.world.emulator.operation_seconds = 0.1
    die_at(lake, step, key_columns=["name"], task={})
    run(lake.create(key_columns=["name"], on_change="recreate"))
    assert lake.indexes() == ["kept", f"{lake.table}_pkey"]
    assert lake.run("SELECT count(*) FROM synced.on_it") == [(2,)]
    assert lake.changes == ["POST", "DELETE", "POST"]
    assert lake.remembered() == 0
    lake.run("DROP VIEW synced.on_it")


def test_an_index_that_a_kill_left_invalid_is_made_again(lake: Lake) -> None:
    run(lake.create(**WITH_ALL))
    lake.run("INSERT INTO {} VALUES (3, 'a')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        lake.run("CREATE UNIQUE INDEX CONCURRENTLY invalid ON {} (name)")
    lake.run("DELETE FROM {} WHERE id = 3")
    run(lake.create(indexes={"invalid": "(name)"}))
    query = "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = 'synced.invalid'::regclass"
    assert lake.run(query) == [(True, False)]


def test_what_is_wrong_is_told_at_once(lake: Lake) -> None:
    for arguments, text in (
        ({"policy": "sometimes"}, "policy is 'sometimes'"),
        ({"key_columns": []}, r"key_columns is \[\]"),
        ({"source": "orders"}, "source is 'orders'"),
        ({"indexes": {"by_name": "name"}}, "The index by_name is 'name'"),
        ({"indexes": {"by_name": "(name); DROP TABLE synced.t"}}, "The index by_name is .*without ';'"),
        ({"indexes": {"by_name": "(name"}}, "The index by_name is .*each parenthesis closed"),
        ({"indexes": ["name"]}, "indexes is "),
        ({"grants": {"app": ["INSERT"]}}, "What grants has for app is "),
        ({"grants": {"nobody": ["SELECT"]}}, "There is no role 'nobody'"),
        ({"branch": "projects/p/branch/x"}, "'projects/p/branch/x'"),
        ({"new_pipeline_spec": {"x": "y"}}, "new_pipeline_spec is "),
        ({"existing_pipeline_id": "x", "new_pipeline_spec": {"storage_schema": "y"}}, "are given"),
    ):
        with pytest.raises(AirflowFailException, match=text):
            run(lake.create(**arguments))
    with pytest.raises(LakebaseSettingsError, match="on_change is"):
        lake.create(on_change="replace")
    assert lake.changes == []


def test_an_index_whose_name_another_table_has_is_told_before_anything_is_created(lake: Lake) -> None:
    lake.session.execute("CREATE SCHEMA IF NOT EXISTS synced")
    lake.session.execute("CREATE TABLE synced.other (id int CONSTRAINT taken PRIMARY KEY)")
    try:
        with pytest.raises(AirflowFailException, match=r"synced\.taken is on another table"):
            run(lake.create(indexes={"taken": "(name)"}))
    finally:
        lake.session.execute("DROP TABLE synced.other")
    assert lake.changes == []


def test_an_index_whose_name_is_taken_is_told_before_anything_is_created(lake: Lake) -> None:
    lake.session.execute("CREATE SCHEMA IF NOT EXISTS synced")
    lake.session.execute("CREATE VIEW synced.taken AS SELECT 1 AS one")
    try:
        for name, text in (
            ("taken", r"synced\.taken cannot be made, because another relation has its name"),
            (lake.table, "cannot be made, because another relation has its name"),
            (f"{lake.table}_pkey", rf"is that of the primary key of synced\.{lake.table}"),
        ):
            with pytest.raises(AirflowFailException, match=text) as caught:
                run(lake.create(indexes={name: "(name)"}))
            assert isinstance(caught.value.__cause__, LakebaseSyncedTableError)
        assert lake.changes == []
        run(lake.create())
        with pytest.raises(AirflowFailException, match="is that of the primary key"):
            run(lake.create(indexes={f"{lake.table}_pkey": "(name)"}))
    finally:
        lake.session.execute("DROP VIEW synced.taken")


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_index_that_postgres_refuses_is_named_with_its_table(lake: Lake, deferrable: bool) -> None:
    for definition, text in (
        ("(nothing)", 'column "nothing" does not exist'),
        ("USING nothing (name)", 'access method "nothing" does not exist'),
        ("(name) WHERE", "syntax error"),
    ):
        with pytest.raises(
            AirflowFailException, match=f"Index synced.wrong of synced.{lake.table} cannot be made: {text}"
        ):
            run(lake.create(indexes={"wrong": definition}, deferrable=deferrable))
    with pytest.raises(LakebaseSyncedTableError, match="cannot be made: division by zero") as caught:
        run(lake.create(indexes={"wrong": "((id / (id - 1)))"}, deferrable=deferrable))
    assert caught.value.retryable  # the rows may change
    assert lake.indexes() == [f"{lake.table}_pkey"]
    run(lake.create(indexes={"wrong": "(name)"}, deferrable=deferrable))
    assert lake.changes == ["POST"]


def test_a_recreate_makes_an_index_as_it_is_declared_now(lake: Lake) -> None:
    run(lake.create(indexes={"declared": "(name)", "kept": "(name)"}))
    lake.run("COMMENT ON INDEX synced.declared IS 'a comment'")
    lake.run("CREATE INDEX other ON {} (name)")
    changed = {"declared": "(id)", "kept": "(name)"}
    run(lake.create(indexes=changed, policy="triggered", on_change="recreate"))
    query = "SELECT pg_get_indexdef('synced.declared'::regclass), obj_description('synced.declared'::regclass)"
    assert lake.run(query) == [(f"CREATE INDEX declared ON synced.{lake.table} USING btree (id)", "a comment")]
    assert lake.indexes() == ["declared", "kept", f"{lake.table}_pkey", "other"]
    assert lake.remembered() == 0


def test_a_branch_can_be_given_by_its_id(lake: Lake) -> None:
    assert run(lake.create(branch="production"))["created"]
    assert not run(lake.create())["created"]
    assert run(lake.delete(branch="production"))["dropped"]


def test_without_permission_nothing_is_begun(lake: Lake) -> None:
    stranger = lake.world.emulator.add_principal("Nobody's synced tables", can_use_project=False)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_STRANGER", lake.world.emulator.connection(stranger))
        for operator in (lake.create(lakebase_conn_id="stranger"), lake.delete(lakebase_conn_id="stranger")):
            with pytest.raises(AirflowFailException) as caught:
                run(operator)
            assert isinstance(caught.value.__cause__, LakebaseWorkspaceAccessError)
    assert lake.changes == []


WORKER = """
import json, os, sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from airflow_provider_lakebase.core.workspace import plans
from airflow_provider_lakebase.operators.synced_table import LakebaseCreateSyncedTableOperator

plans.FIRST_PAUSE_SECONDS, plans.LONGEST_PAUSE_SECONDS = 0.02, 0.05
for number, line in enumerate(sys.stdin):
    # The first run, which imports everything, is not forked.
    pid = os.fork() if number else 0
    if not pid:
        LakebaseCreateSyncedTableOperator(task_id="create", **json.loads(line)).execute({})
        if number:
            os._exit(0)
        continue
    print(pid, file=answers, flush=True)
    print(os.waitpid(pid, 0)[1], file=answers, flush=True)
"""
KILLS = int(os.environ.get("LAKEBASE_KILLS", "5"))


@pytest.mark.long
def test_a_recreate_that_is_killed_at_random_points_ends_with_everything_back(lake: Lake) -> None:
    run(lake.create(**WITH_ALL))
    before = decorate(lake)
    sources = itertools.cycle([lake.source, lake.world.source({"id": [1, 2], "name": ["a", "b"]})])
    unchanged = {"synced_table": lake.name, "source": next(sources), "key_columns": ["id"], "policy": "snapshot"}
    unchanged |= {"on_change": "recreate", **ADMIN, **WITH_ALL}
    lake.world.emulator.operation_seconds = 0.05
    random.seed(19)
    # How long a run takes, at first with all imports.
    seconds, killed = 3.0, 0
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, env=os.environ, stdin=pipe, stdout=pipe, stderr=null, text=True) as worker:
        assert worker.stdin and worker.stdout
        print(json.dumps(unchanged), file=worker.stdin, flush=True)
        while killed < KILLS:
            seen = len(lake.changes)
            arguments = {**unchanged, "source": next(sources)}
            began_at = time.monotonic()
            print(json.dumps(arguments), file=worker.stdin, flush=True)
            pid = int(worker.stdout.readline())
            kill = threading.Timer(random.uniform(0.0, seconds), os.kill, (pid, signal.SIGKILL))
            kill.start()
            status = int(worker.stdout.readline())
            kill.cancel()
            killed += status == signal.SIGKILL
            seconds = seconds if status else min(seconds, time.monotonic() - began_at)
            run(LakebaseCreateSyncedTableOperator(task_id="create", **arguments))
            assert lake.session.execute(CATALOGUE).fetchall() == before
            assert lake.changes[seen:] == ["DELETE", "POST"]
            assert lake.remembered() == 0
        worker.stdin.close()
    undecorate(lake)
