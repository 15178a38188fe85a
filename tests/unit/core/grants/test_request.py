"""What a declaration means, and which ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.core.grants.request import READ, WRITE, RoleRequest, sequence_privileges
from airflow_provider_lakebase.exceptions import LakebaseSettingsError


def test_a_list_of_schemas_has_one_access_and_a_mapping_one_for_each():
    assert RoleRequest("etl", schemas=["a", "b"]).access == {"a": WRITE, "b": WRITE}
    assert RoleRequest("etl", schemas=["a"], privileges=["SELECT"]).access == {"a": ("SELECT",)}
    request = RoleRequest("etl", schemas={"a": "read", "b": "write", "c": "owner", "d": ["TRUNCATE", "CREATE"]})
    assert request.access == {"a": READ, "b": WRITE, "c": "owner", "d": ("TRUNCATE", "CREATE")}


def test_tables_and_functions_are_named_as_in_sql():
    request = RoleRequest("etl", tables={'Sales."Order ""1"""': "read"}, functions=['"F".Total(int, text)', "f.g"])
    assert request.table_privileges == {("sales", 'Order "1"'): READ}
    assert request.function_names == [("F", "total", "(int, text)"), ("f", "g", None)]


@pytest.mark.parametrize("other", ["S.T", 's."t"', " s.t "])
def test_two_spellings_of_one_table_are_refused(other: str):
    with pytest.raises(LakebaseSettingsError) as caught:
        RoleRequest("etl", tables={"s.t": "write", other: "read"})
    assert f"tables names one table as 's.t' and {other!r}" in str(caught.value)
    assert len(RoleRequest("etl", tables={"s.t": "write", 's."T"': "read"}).table_privileges) == 2


@pytest.mark.parametrize(
    ("privileges", "on_sequences"),
    [(["SELECT"], ["SELECT"]), (["UPDATE"], ["SELECT", "USAGE"]), (["DELETE"], []), ([], [])],
)
def test_privileges_on_sequences_follow_those_on_tables(privileges: list[str], on_sequences: list[str]):
    assert sequence_privileges(privileges) == on_sequences


@pytest.mark.parametrize(
    "arguments",
    [
        {"identity": " "},
        {"identity": None},
        {"identity": "a\0b"},
        {"identity": "é" * 32},
        {"identity_type": "ROBOT"},
        {"privileges": ["DROP"]},
        {"privileges": ["DROP"], "schemas": []},
        {"privileges": "SELECT"},
        {"schemas": "public"},
        {"schemas": None},
        {"schemas": {"": "read"}},
        {"schemas": {"a": None}},
        {"schemas": {"a": "read"}, "privileges": ["SELECT"]},
        {"tables": {"orders": "read"}},
        {"tables": {"a.b.c": "read"}},
        {"tables": {1: "read"}},
        {"functions": ["a.b(int"]},
        {"functions": "a.b"},
        {"owned_schemas": "a"},
        {"owned_schemas": ["a", "pg_a"]},
        {"owned_schemas": ["information_schema"]},
        {"owned_schemas": ["é" * 32]},
        {"member_of": "analysts"},
        {"member_of": ["etl"]},
        {"databases": []},
        {"ledger_schema": " "},
        {"ledger_schema": 1},
        {"ledger_schema": "pg_ledger"},
        {"ledger_schema": "y" * 64},
        {"create_on_database": "False"},
        {"default_privileges": "False"},
        {"default_privileges": False, "created_by": ["x"]},
        {"schemas": [], "created_by": ["x"]},
        {"schemas": {}, "created_by": []},
        {"schemas": [], "privileges": ["SELECT"]},
    ],
)
def test_an_invalid_declaration_is_refused(arguments: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError):
        RoleRequest(**{"identity": "etl", **arguments})
