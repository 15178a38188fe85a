"""How objects are named: in SQL, and in a report."""

from __future__ import annotations

import pytest

from airflow_provider_lakebase.core.grants.objects import Object, describe, grant_statement, owner_statement

ORDERS = Object("table", "My Shop", 'o"1')


@pytest.mark.parametrize(
    ("objects", "text", "statement"),
    [
        ([Object("database", "", "app")], "database app", 'GRANT SELECT ON DATABASE "app" TO "e""tl"'),
        ([Object("schema", "a", "a")], "schema a", 'GRANT SELECT ON SCHEMA "a" TO "e""tl"'),
        (
            [ORDERS, Object("table", "My Shop", "b")],
            '2 tables in schema "My Shop"',
            'GRANT SELECT ON TABLE "My Shop"."o""1", "My Shop"."b" TO "e""tl"',
        ),
        (
            [Object("column", "a", "b", "c"), Object("column", "a", "b", "D")],
            'columns c, "D" of table a.b',
            'GRANT SELECT ("c", "D") ON TABLE "a"."b" TO "e""tl"',
        ),
        (
            [Object("function", "a", "F", arguments="integer, text")],
            'function a."F"(integer, text)',
            'GRANT SELECT ON ROUTINE "a"."F"(integer, text) TO "e""tl"',
        ),
        (
            [Object("later tables", "a", "The Loader")],
            "later tables of 'The Loader' in schema a",
            'ALTER DEFAULT PRIVILEGES FOR ROLE "The Loader" IN SCHEMA "a" GRANT SELECT ON TABLES TO "e""tl"',
        ),
        (
            [Object("later schemas", "", "ada")],
            "later schemas of 'ada'",
            'ALTER DEFAULT PRIVILEGES FOR ROLE "ada" GRANT SELECT ON SCHEMAS TO "e""tl"',
        ),
    ],
)
def test_names_and_statements(objects: list[Object], text: str, statement: str):
    assert describe(objects) == text
    assert grant_statement(objects, ["SELECT"], 'e"tl').as_string(None) == statement


def test_revokes():
    revoke = grant_statement([ORDERS], ["SELECT", "INSERT"], "etl", revoke=True)
    assert revoke.as_string(None) == 'REVOKE SELECT, INSERT ON TABLE "My Shop"."o""1" FROM "etl"'
    option = grant_statement([Object("later tables", "a", "ada")], ["SELECT"], "etl", revoke=True, option=True)
    assert option.as_string(None) == (
        'ALTER DEFAULT PRIVILEGES FOR ROLE "ada" IN SCHEMA "a" REVOKE GRANT OPTION FOR SELECT ON TABLES FROM "etl"'
    )


def test_new_owners():
    assert owner_statement(ORDERS, "etl").as_string(None) == 'ALTER TABLE "My Shop"."o""1" OWNER TO "etl"'
    function = Object("function", "a", "f", arguments="")
    assert owner_statement(function, "etl").as_string(None) == 'ALTER ROUTINE "a"."f"() OWNER TO "etl"'
