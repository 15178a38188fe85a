from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model.catalog import Column, UnityCatalog
from airflow_provider_lakebase.emulator.model.errors import ApiError
from airflow_provider_lakebase.emulator.model.synced_table_spec import (
    PostgresColumn,
    Spec,
    check_against_source,
    postgres_type,
    read_spec,
)

NAME = "lake.app.customers"


def body(**changes: Any) -> dict[str, Any]:
    spec = {
        "source_table_full_name": "main.gold.customers",
        "primary_key_columns": ["id"],
        "scheduling_policy": "SNAPSHOT",
        "branch": "projects/demo/branches/production",
        "postgres_database": "databricks_postgres",
        **changes,
    }
    return {"spec": {name: value for name, value in spec.items() if value is not None}}


def spec(name: str = NAME, registered: str | None = None, **changes: Any) -> Spec:
    return read_spec(name, body(**changes), registered)


def refusal(name: str = NAME, registered: str | None = None, **changes: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        spec(name, registered, **changes)
    return caught.value


def test_a_request_is_read() -> None:
    found = spec(timeseries_key="at", new_pipeline_spec={"storage_catalog": "main", "storage_schema": "tmp"})
    assert (found.schema, found.table) == ("app", "customers")
    assert (found.source, found.primary_key, found.policy) == ("main.gold.customers", ("id",), "SNAPSHOT")
    assert (found.database, found.create_missing, found.existing_pipeline_id) == ("databricks_postgres", True, None)
    assert found.timeseries_key == "at"


@pytest.mark.parametrize(
    "name", ["customers", "app.customers", "lake.my-app.customers", "lake.app.my customers", f"lake.app.{'x' * 64}"]
)
def test_a_name_that_postgres_cannot_have_is_refused(name: str) -> None:
    assert "Field 'synced_table_id'" in str(refusal(name))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"source_table_full_name": None}, "spec.source_table_full_name"),
        ({"source_table_full_name": "gold.customers"}, "spec.source_table_full_name"),
        ({"primary_key_columns": None}, "spec.primary_key_columns"),
        ({"primary_key_columns": []}, "spec.primary_key_columns"),
        ({"primary_key_columns": ["id", "id"]}, "names a column twice"),
        ({"scheduling_policy": "HOURLY"}, "SNAPSHOT, TRIGGERED or CONTINUOUS"),
        ({"branch": None}, "spec.branch"),
        ({"postgres_database": None}, "spec.postgres_database"),
        ({"postgres_database": "my-db"}, "spec.postgres_database"),
        ({"create_database_objects_if_missing": "yes"}, "create_database_objects_if_missing"),
        ({"existing_pipeline_id": "p", "new_pipeline_spec": {"storage_catalog": "main"}}, "Only one of"),
        ({"type_overrides": [{"column_name": "id", "pg_type": "PG_SPECIFIC_TYPE_UNSPECIFIED"}]}, "pg_type"),
        ({"type_overrides": [{"column_name": "id", "pg_type": "PG_SPECIFIC_TYPE_VECTOR"}]}, "needs a size"),
        ({"extra_columns": [{"column_name": "x", "column_type": "text"}]}, "spec.extra_columns"),
        (
            {"extra_columns": [{"column_name": "x", "column_type": "text", "compute": "1", "maintenance": "TRIGGER"}]},
            "STORED_GENERATED",
        ),
    ],
)
def test_a_field_that_is_missing_or_malformed_is_refused(changes: dict[str, Any], part: str) -> None:
    error = refusal(**changes)
    assert (error.status, error.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert part in str(error)


@pytest.mark.parametrize("changes", [{"surprise": 1}, {"new_pipeline_spec": {"surprise": 1}}])
def test_an_unknown_field_is_refused(changes: dict[str, Any]) -> None:
    assert "surprise" in str(refusal(**changes))


def test_a_lakebase_catalog_gives_the_database() -> None:
    assert spec(registered="sales", postgres_database=None).database == "sales"
    assert "must be 'sales'" in str(refusal(registered="sales", postgres_database="other"))


@pytest.mark.parametrize(
    ("databricks", "postgres"),
    [
        ("tinyint", "smallint"),
        ("bigint", "bigint"),
        ("decimal(10,2)", "numeric(10,2)"),
        ("float", "real"),
        ("string", "text"),
        ("binary", "bytea"),
        ("timestamp", "timestamp with time zone"),
        ("timestamp_ntz", "timestamp without time zone"),
        ("array<struct<a:int>>", "jsonb"),
        ("map<string,int>", "jsonb"),
    ],
)
def test_types_are_mapped_as_documented(databricks: str, postgres: str) -> None:
    assert postgres_type(databricks) == postgres


def test_overrides_and_extra_columns_shape_the_postgres_table() -> None:
    found = spec(
        type_overrides=[{"column_name": "name", "pg_type": "PG_SPECIFIC_TYPE_VARCHAR", "size": 20}],
        extra_columns=[{"column_name": "upper_name", "column_type": "text", "compute": "upper(name)"}],
    )
    assert found.postgres_columns([Column("id", "bigint"), Column("name", "string")]) == [
        PostgresColumn("id", "bigint", not_null=True),
        PostgresColumn("name", "varchar(20)"),
        PostgresColumn("upper_name", "text", expression="upper(name)"),
    ]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"primary_key_columns": ["nothing"]}, "Column nothing does not exist"),
        ({"primary_key_columns": ["tags"]}, "cannot be part of the primary key"),
        ({"timeseries_key": "nothing"}, "Column nothing does not exist"),
        ({"extra_columns": [{"column_name": "id", "column_type": "int", "compute": "1"}]}, "already exists"),
        ({"scheduling_policy": "TRIGGERED"}, "change data feed"),
        ({"scheduling_policy": "CONTINUOUS"}, "change data feed"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(changes: dict[str, Any], part: str) -> None:
    catalog = UnityCatalog(lambda: 0.0)
    catalog.publish("main.gold.customers", [Column("id", "bigint"), Column("tags", "array<string>")], [])
    with pytest.raises(ApiError, match=part):
        check_against_source(spec(**changes), catalog.require("main.gold.customers"))
