"""What administrators may do: the rights of ``databricks_superuser`` and of the project's owner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator

ATTRIBUTES = "rolcanlogin, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
GRANTS = """
SELECT privilege_type FROM pg_class, aclexplode(relacl)
WHERE oid = %s::regclass AND grantee = 'databricks_superuser'::regrole AND is_grantable ORDER BY 1
"""


@pytest.fixture(scope="module")
def creator(emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    """A session of a role that may create schemas and is no administrator."""
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute("CREATE ROLE maker LOGIN; GRANT CREATE ON DATABASE databricks_postgres TO maker")
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True, user="maker") as connection:
        connection.execute("CREATE SCHEMA made; CREATE TABLE made.item (id serial); INSERT INTO made.item VALUES (1)")
        connection.execute("CREATE SEQUENCE made.numbers; CREATE VIEW made.seen AS SELECT * FROM made.item")
        yield connection


@pytest.fixture
def owner(connect: Any) -> Iterator[psycopg.Connection[Any]]:
    with connect() as connection:
        yield connection


def test_owner_and_superuser_have_their_attributes(owner: psycopg.Connection[Any]) -> None:
    query = f"SELECT {ATTRIBUTES} FROM pg_roles WHERE rolname = "
    assert owner.execute(query + "current_user").fetchone() == (True, True, True, True, True)
    assert owner.execute(query + "'databricks_superuser'").fetchone() == (False, True, True, False, True)


def test_owner_has_all_rights_on_what_others_create_and_may_grant_them(
    creator: psycopg.Connection[Any], owner: psycopg.Connection[Any]
) -> None:
    expected = {"DELETE", "INSERT", "REFERENCES", "SELECT", "TRIGGER", "TRUNCATE", "UPDATE"}
    for name in ("made.item", "made.seen"):
        assert expected <= {privilege for (privilege,) in owner.execute(GRANTS, (name,))}
    assert owner.execute(GRANTS, ("made.numbers",)).fetchall() == [("SELECT",), ("UPDATE",), ("USAGE",)]
    owner.execute("GRANT USAGE ON SCHEMA made TO pg_monitor; GRANT SELECT, TRUNCATE ON made.item TO pg_monitor")
    owner.execute("CREATE TABLE made.by_owner (id int)")


def test_sequence_of_a_serial_column_is_not_granted(
    creator: psycopg.Connection[Any], owner: psycopg.Connection[Any]
) -> None:
    assert owner.execute(GRANTS, ("made.item_id_seq",)).fetchall() == []


def test_owner_sees_rows_that_a_policy_hides(creator: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
    creator.execute("ALTER TABLE made.item ENABLE ROW LEVEL SECURITY")
    assert owner.execute("SELECT count(*) FROM made.item").fetchone() == (1,)


def test_databases_that_the_owner_creates_have_the_same_grants(connect: Any, owner: psycopg.Connection[Any]) -> None:
    owner.execute("CREATE DATABASE second")
    with connect(dbname="second") as connection:
        connection.execute("CREATE TABLE public.item (id int)")
        assert ("TRUNCATE",) in connection.execute(GRANTS, ("public.item",)).fetchall()
        if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'").fetchone():
            connection.execute("CREATE EXTENSION pg_stat_statements")
            may = "SELECT has_function_privilege('pg_stat_statements_reset(oid, oid, bigint, boolean)', 'EXECUTE')"
            assert connection.execute(may).fetchone() == (True,)
    owner.execute("DROP DATABASE second")
