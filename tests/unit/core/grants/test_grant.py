"""Which grants a request leads to, and what their statements are."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import sql

from airflow_provider_lakebase.core.grants.grant import Grant, plan_grants
from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseRoleError, LakebaseSettingsError


class Cursor:
    """Answers each search for missing objects in turn, and keeps the other statements."""

    def __init__(self, *missing: list[tuple[str | None, str]]) -> None:
        self.missing = list(missing)
        self.granted: list[str] = []

    def execute(self, query: Any, parameters: Any = None) -> Cursor:
        if isinstance(query, sql.Composed):
            self.granted.append(query.as_string(None))
        return self

    def fetchall(self) -> list[tuple[str | None, str]]:
        return self.missing.pop(0)


def ensure(grant: Grant, *missing: list[tuple[str | None, str]]) -> tuple[str | None, list[str]]:
    cursor: Any = Cursor(*missing)
    return grant.ensure(cursor, ErrorContext("admin")), cursor.granted


def test_the_grants_of_a_request_in_order():
    request = RoleRequest("etl", schemas=["shop"], privileges=["SELECT", "INSERT"], ledger_schema="ledger")
    assert [(grant.what, list(grant.privileges)) for grant in plan_grants(request)] == [
        ("the database", ["CONNECT"]),
        ("schema shop", ["USAGE"]),
        ("tables in schema shop", ["SELECT", "INSERT"]),
        ("later tables in schema shop", ["SELECT", "INSERT"]),
        ("sequences in schema shop", ["SELECT", "USAGE"]),
        ("later sequences in schema shop", ["SELECT", "USAGE"]),
        ("schema ledger", ["USAGE"]),
        ("tables in schema ledger", ["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ]


def test_a_request_without_options_grants_less():
    request = RoleRequest("etl", schemas=[], create_on_database=True, ledger_schema=None)
    assert [list(grant.privileges) for grant in plan_grants(request)] == [["CONNECT", "CREATE"]]
    request = RoleRequest("etl", privileges=["TRUNCATE"], default_privileges=False, ledger_schema=None)
    assert [grant.what for grant in plan_grants(request)] == [
        "the database",
        "schema public",
        "tables in schema public",
    ]


def test_a_grant_names_only_the_objects_that_lack_it_and_quotes_them():
    tables = plan_grants(RoleRequest('e"tl', schemas=["My Shop"], privileges=["SELECT"]))[2]
    report, granted = ensure(tables, [("My Shop", 'o"1'), ("My Shop", "b")], [])
    assert granted == ['GRANT SELECT ON TABLE "My Shop"."o""1", "My Shop"."b" TO "e""tl"']
    assert report == "SELECT on tables in schema My Shop (2)"


def test_default_privileges_are_granted_in_the_schema():
    later = plan_grants(RoleRequest("etl", privileges=["SELECT"]))[3]
    _, granted = ensure(later, [(None, "public")], [])
    assert granted == ['ALTER DEFAULT PRIVILEGES IN SCHEMA "public" GRANT SELECT ON TABLES TO "etl"']


def test_nothing_is_granted_if_nothing_is_missing():
    assert ensure(plan_grants(RoleRequest("etl"))[0], []) == (None, [])


def test_a_grant_without_effect_is_an_error():
    missing: list[tuple[str | None, str]] = [("public", "orders")]
    with pytest.raises(LakebaseRoleError, match="the GRANT had no effect on orders; nothing was changed .*admin"):
        ensure(plan_grants(RoleRequest("etl"))[2], missing, missing)


@pytest.mark.parametrize(
    ("privileges", "on_sequences"),
    [(["SELECT"], ["SELECT"]), (["UPDATE"], ["SELECT", "USAGE"]), (["DELETE"], []), ([], [])],
)
def test_privileges_on_sequences_follow_those_on_tables(privileges: list[str], on_sequences: list[str]):
    assert RoleRequest("etl", privileges=privileges).sequence_privileges == on_sequences


@pytest.mark.parametrize(
    "arguments",
    [{"identity": " "}, {"identity_type": "ROBOT"}, {"privileges": ["DROP"]}, {"schemas": "public"}, {"schemas": None}],
)
def test_an_invalid_request_is_refused(arguments: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError):
        RoleRequest(**{"identity": "etl", **arguments})
