"""The specification of a synced table: its fields are those of the API, and two are compared by what they say."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from databricks.sdk.service.postgres import (
    NewPipelineSpec,
    SyncedTableSyncedTableSpec,
    SyncedTableSyncedTableSpecExtraColumn,
    SyncedTableSyncedTableSpecPgSpecificType,
    SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy,
    SyncedTableSyncedTableSpecTypeOverride,
)

from airflow_provider_lakebase.core.workspace import synced_table_specs
from airflow_provider_lakebase.core.workspace.synced_table_specs import (
    differences,
    not_compared,
    read_grants,
    read_indexes,
    require_source,
    synced_table_spec,
)
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

RENAMED = {
    "source": "source_table_full_name",
    "key_columns": "primary_key_columns",
    "policy": "scheduling_policy",
}
VARCHAR = "PG_SPECIFIC_TYPE_VARCHAR"
GIVEN: dict[str, Any] = {
    "source": "main.gold.orders",
    "key_columns": ["id"],
    "policy": "triggered",
    "branch": "projects/p/branches/b",
    "postgres_database": "d",
}


def fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_all_fields_of_the_sdk_can_be_given():
    given = {RENAMED.get(name, name) for name in inspect.signature(synced_table_spec).parameters}
    assert given == fields(SyncedTableSyncedTableSpec)
    assert set(synced_table_specs._PIPELINE_FIELDS) == fields(NewPipelineSpec)
    assert set(synced_table_specs._OVERRIDE_FIELDS) == fields(SyncedTableSyncedTableSpecTypeOverride)
    assert set(synced_table_specs._EXTRA_FIELDS) == fields(SyncedTableSyncedTableSpecExtraColumn)
    types = {kind.value for kind in SyncedTableSyncedTableSpecPgSpecificType}
    assert set(synced_table_specs._PG_TYPES) == {each for each in types if "UNSPECIFIED" not in each}
    policies = [policy.value.lower() for policy in SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy]
    assert set(synced_table_specs.POLICIES) == {each for each in policies if "unspecified" not in each}


def test_a_spec_is_what_the_sdk_writes():
    spec = synced_table_spec(
        **GIVEN,
        timeseries_key="at",
        new_pipeline_spec={"storage_catalog": "main", "storage_schema": "tmp"},
        type_overrides=[{"column_name": "v", "pg_type": "PG_SPECIFIC_TYPE_VECTOR", "size": 3}],
        extra_columns=[{"column_name": "x", "column_type": "text", "compute": "lower(y)"}],
    )
    assert SyncedTableSyncedTableSpec.from_dict(spec).as_dict() == spec


def test_specs_are_compared_by_what_they_say():
    spec = synced_table_spec(**GIVEN)
    assert differences(spec, {**spec, "create_database_objects_if_missing": False, "accelerated_sync": True}) == []
    assert differences(spec, {**spec, "timeseries_key": "at"}) == ["timeseries_key is 'at', not None"]
    assert differences({**spec, "timeseries_key": "at"}, spec) == ["timeseries_key is None, not 'at'"]
    overrides = [{"column_name": name, "pg_type": "t", "size": 1} for name in ("a", "b")]
    assert differences({"type_overrides": overrides}, {"type_overrides": overrides[::-1]}) == []
    assert differences({"primary_key_columns": ["a", "b"]}, {"primary_key_columns": ["b", "a"]}) != []
    assert not_compared(spec, ["branch"]) == [
        "source_table_full_name",
        "primary_key_columns",
        "scheduling_policy",
        "postgres_database",
    ]


@pytest.mark.parametrize("columns", ["id", ["id"], ("id",)])
def test_key_columns_are_a_name_or_names(columns: Any):
    assert synced_table_spec(**{**GIVEN, "key_columns": columns})["primary_key_columns"] == ["id"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "gold.orders"},
        {"source": None},
        {"key_columns": []},
        {"key_columns": ["id", "id"]},
        {"key_columns": [1]},
        {"policy": "hourly"},
        {"policy": None},
        {"create_database_objects_if_missing": "False"},
        {"existing_pipeline_id": "p", "new_pipeline_spec": {"storage_schema": "s"}},
        {"new_pipeline_spec": {"storage": "s"}},
        {"type_overrides": [{"column": "v"}]},
        {"type_overrides": {"v": "t"}},
        {"extra_columns": "x"},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError):
        synced_table_spec(**{**GIVEN, **wrong})


ORDERS = {
    "columns": [{"name": "id"}, {"name": "name"}],
    "data_source_format": "DELTA",
    "properties": {"delta.minReaderVersion": "1"},
}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"policy": "snapshot", "key_columns": ["Id"]}, "no column Id .*Write id as the source has it"),
        ({"policy": "snapshot", "timeseries_key": "at"}, "no column at"),
        ({"policy": "snapshot", "type_overrides": [{"column_name": "Name", "pg_type": VARCHAR}]}, "no column Name"),
        ({"policy": "snapshot", "extra_columns": [{"column_name": "name"}]}, "has a column name, which extra_columns"),
        ({}, "has no change data feed, which the policy triggered needs"),
    ],
)
def test_what_the_service_would_refuse_because_of_the_source_is_refused(changes: dict[str, Any], text: str):
    with pytest.raises(LakebaseSettingsError, match=text):
        require_source(synced_table_spec(**{**GIVEN, **changes}), ORDERS, ErrorContext(conn_id="lake"))


@pytest.mark.parametrize(
    "source",
    [
        {},
        {**ORDERS, "properties": {}},
        {**ORDERS, "data_source_format": "VIEW"},
        {**ORDERS, "properties": {"delta.enableChangeDataFeed": "true"}},
    ],
)
def test_a_source_of_which_nothing_is_wrong_or_known_is_left_to_the_service(source: dict[str, Any]):
    require_source(synced_table_spec(**GIVEN), source, ErrorContext())


def test_indexes_and_grants_are_mappings():
    assert read_indexes(()) == {}
    assert read_indexes({"a": " (id);", "b": "using gin (tags)"}) == {"a": "(id)", "b": "using gin (tags)"}
    assert read_grants({}) == {}
    assert read_grants({"app": "select", "admin": ["SELECT", "REFERENCES"]}) == {
        "app": ["SELECT"],
        "admin": ["SELECT", "REFERENCES"],
    }


@pytest.mark.parametrize(
    "definition",
    [
        "(name) WHERE name <> 'it''s; ('",
        '("a;b(", lower(name))',
        r"(id) WHERE name = E'\'); ' AND id > 0",
        "(id) WHERE name = $q$);'$q$",
        "(id) -- by id; (",
        "(id) /* ; */ INCLUDE (name)",
    ],
)
def test_what_is_quoted_in_a_definition_is_not_code(definition: str):
    assert read_indexes({"a": definition}) == {"a": definition}


@pytest.mark.parametrize(
    "definition", ["(name); DROP TABLE x", "(name", "(name))", "(id)) WHERE ((id > 0)", "(id) WHERE name = 'x", '("id)']
)
def test_a_definition_that_is_no_single_clause_is_refused(definition: str):
    with pytest.raises(LakebaseSettingsError, match="The index a is .*one clause"):
        read_indexes({"a": definition})


@pytest.mark.parametrize("wrong", [["id"], "id", {"a": "id"}, {"a": 1}, {1: "(id)"}, {"": "(id)"}, {"a" * 64: "(id)"}])
def test_other_indexes_are_refused(wrong: Any):
    with pytest.raises(LakebaseSettingsError):
        read_indexes(wrong)


@pytest.mark.parametrize(
    "wrong", [["app"], {"app": []}, {"app": ["INSERT"]}, {"app": "ALL"}, {"app": None}, {"": "SELECT"}]
)
def test_other_grants_are_refused(wrong: Any):
    with pytest.raises(LakebaseSettingsError):
        read_grants(wrong)
