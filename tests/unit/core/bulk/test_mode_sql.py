"""The SQL of the write modes, from a plan and the names of a staging table."""

from __future__ import annotations

from dataclasses import replace

from psycopg import sql

from airflow_provider_lakebase.core.bulk import mode_sql
from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.plan import LoadPlan

ID = Column("id", "integer", "integer", -1, "int4", not_null=True)
NOTE = Column("note", "text", "text", -1, "text")
EXTRA = Column("extra", "text", "text", -1, "text")
TABLE = Table(
    name="t",
    oid=1,
    path=("s", "t"),
    columns=(ID, NOTE, EXTRA),
    keys=(("id",),),
    primary_key=("id",),
    rows_estimate=0,
    owned=True,
    row_security=False,
    has_incoming_fks=True,
    has_triggers=False,
    has_rules=False,
)
REPLACE = LoadPlan(TABLE, "replace", [ID, NOTE])
UPSERT = LoadPlan(TABLE, "upsert", [ID, NOTE], key_columns=["id"], update_columns=["note"])


class Staged:
    relation = sql.Identifier("pg_temp", "staged")
    row_order = sql.Identifier("staged_row")
    values = sql.SQL("id, note")


def text(statement: sql.Composable) -> str:
    return " ".join(statement.as_string(None).split())


def test_a_replace_deletes_the_rows_that_match_and_locks_out_writers():
    assert text(mode_sql.lock_table(REPLACE)) == 'LOCK TABLE "s"."t" IN SHARE ROW EXCLUSIVE MODE'
    assert text(mode_sql.delete_replaced(REPLACE)) == 'DELETE FROM "s"."t" AS target WHERE (true)'
    some = replace(REPLACE, replace_where="id > 1 OR id < 0")
    assert text(mode_sql.delete_replaced(some, sql.SQL("x"))) == (
        'DELETE FROM "s"."t" AS target WHERE (id > 1 OR id < 0) AND x'
    )


def test_staged_rows_are_inserted():
    assert text(mode_sql.insert_staged(REPLACE, Staged())) == (
        'INSERT INTO "s"."t" AS target ("id", "note") SELECT id, note FROM "pg_temp"."staged"'
    )


def test_one_statement_deletes_and_inserts_so_that_foreign_keys_see_the_result():
    statement = text(mode_sql.insert_staged(REPLACE, Staged(), deletion=mode_sql.delete_replaced(REPLACE)))
    assert statement.startswith('WITH gone AS (DELETE FROM "s"."t" AS target WHERE (true) RETURNING true) INSERT')
    assert statement.endswith("WHERE (SELECT count(*) FROM gone) >= 0")


def test_rows_outside_replace_where_are_counted():
    statement = text(mode_sql.insert_staged(replace(REPLACE, replace_where="id > 1"), Staged()))
    assert statement.endswith("SELECT count(*), count(*) FILTER (WHERE (id > 1) IS NOT TRUE) FROM written")


def test_an_identity_column_gets_the_given_values():
    plan = replace(REPLACE, columns=[replace(ID, identity="a")])
    assert "OVERRIDING SYSTEM VALUE" in text(mode_sql.insert_staged(plan, Staged()))


def test_an_upsert_goes_in_the_order_of_the_key():
    assert text(mode_sql.upsert_staged(UPSERT, Staged(), deduplicate=False)) == (
        'INSERT INTO "s"."t" AS target ("id", "note") SELECT "id", "note" FROM (SELECT id, note FROM '
        '"pg_temp"."staged") AS row ORDER BY "id" ON CONFLICT ("id") DO UPDATE SET "note" = excluded."note"'
    )


def test_the_last_row_of_a_key_wins_or_the_newest_version():
    last = text(mode_sql.upsert_staged(UPSERT, Staged(), deduplicate=True))
    assert 'SELECT DISTINCT ON ("id") * FROM' in last
    assert 'ORDER BY "id", "staged_row" DESC' in last
    newest = text(mode_sql.upsert_staged(replace(UPSERT, version_column="note"), Staged(), deduplicate=True))
    assert 'ORDER BY "id", "note" DESC NULLS LAST, "staged_row" DESC' in newest
    assert newest.endswith('WHERE target."note" IS NULL OR target."note" < excluded."note"')


def test_an_upsert_without_updates_does_nothing_to_existing_rows():
    assert text(mode_sql.upsert_staged(replace(UPSERT, update_columns=[]), Staged(), deduplicate=True)).endswith(
        'ON CONFLICT ("id") DO NOTHING'
    )


def test_a_row_that_is_kept_gets_defaults_for_columns_that_are_not_loaded():
    assert text(mode_sql.keep_stable_rows(REPLACE)) == (
        'ON CONFLICT ("id") DO UPDATE SET "note" = excluded."note", "extra" = DEFAULT'
    )
