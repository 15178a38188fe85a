"""The specification of a synced table: read from a request, checked, and turned into Postgres columns. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_lakebase.emulator.model.catalog import Column, SourceTable
from airflow_provider_lakebase.emulator.model.errors import Json, invalid
from airflow_provider_lakebase.emulator.model.fields import (
    read_choice,
    read_flag,
    read_object,
    read_objects,
    read_text,
    required,
    spec_of,
)

#: The longest name that PostgreSQL keeps.
MAX_NAME = 63

SNAPSHOT, TRIGGERED, CONTINUOUS = "SNAPSHOT", "TRIGGERED", "CONTINUOUS"

_NAME = re.compile(r"[A-Za-z0-9_]+")
_CATALOG = re.compile(r"[^.\s/]+")
_SIZED = {
    "PG_SPECIFIC_TYPE_VARCHAR": "varchar",
    "PG_SPECIFIC_TYPE_VECTOR": "vector",
    "PG_SPECIFIC_TYPE_HALFVEC": "halfvec",
}
# They say how the service runs the pipeline, and change nothing here.
_PIPELINE_FIELDS = {"budget_policy_id", "pipeline_channel", "storage_catalog", "storage_schema"}
_FIELDS = {
    "accelerated_sync",
    "branch",
    "create_database_objects_if_missing",
    "existing_pipeline_id",
    "extra_columns",
    "new_pipeline_spec",
    "postgres_database",
    "primary_key_columns",
    "scheduling_policy",
    "source_table_full_name",
    "timeseries_key",
    "type_overrides",
}
_POSTGRES_TYPES = {
    "bigint": "bigint",
    "binary": "bytea",
    "boolean": "boolean",
    "date": "date",
    "double": "double precision",
    "float": "real",
    "int": "integer",
    "smallint": "smallint",
    "string": "text",
    "timestamp": "timestamp with time zone",
    "timestamp_ntz": "timestamp without time zone",
    "tinyint": "smallint",
}


@dataclass(frozen=True)
class ExtraColumn:
    """A generated column that exists only in Postgres."""

    name: str
    postgres_type: str
    expression: str


@dataclass(frozen=True)
class PostgresColumn:
    """A column of the Postgres table; a generated one has an expression."""

    name: str
    postgres_type: str
    not_null: bool = False
    expression: str | None = None


@dataclass(frozen=True)
class Spec:
    """What a request asks for. ``schema`` and ``table`` name the Postgres table."""

    synced_table_id: str
    source: str
    primary_key: tuple[str, ...]
    policy: str
    branch: str
    database: str
    create_missing: bool
    existing_pipeline_id: str | None
    timeseries_key: str | None
    overrides: dict[str, str]
    extra_columns: tuple[ExtraColumn, ...]

    @property
    def schema(self) -> str:
        """Return the Postgres schema."""
        return self.synced_table_id.split(".")[1]

    @property
    def table(self) -> str:
        """Return the Postgres table."""
        return self.synced_table_id.split(".")[2]

    def postgres_columns(self, columns: Sequence[Column]) -> list[PostgresColumn]:
        """Return the columns of the Postgres table for those of the source."""
        copied = [
            PostgresColumn(
                column.name,
                self.overrides.get(column.name) or postgres_type(column.type_text),
                not_null=column.name in self.primary_key,
            )
            for column in columns
        ]
        extra = [PostgresColumn(each.name, each.postgres_type, False, each.expression) for each in self.extra_columns]
        return copied + extra


def postgres_type(type_text: str) -> str:
    """Return the Postgres type that stores a Databricks type."""
    if type_text.startswith("decimal("):
        return "numeric" + type_text.removeprefix("decimal")
    if type_text.startswith(("array<", "map<", "struct<")):
        return "jsonb"
    return _POSTGRES_TYPES[type_text]


def read_spec(synced_table_id: str, body: Json, registered_database: str | None) -> Spec:
    """Read a request; raise ``ApiError`` for a field that is unknown, missing or malformed.

    :param registered_database: the Postgres database of the synced table's catalog, if that is a Lakebase catalog
    """
    spec = read_object("spec", spec_of("synced_table", body), _FIELDS)
    return Spec(
        synced_table_id=_read_synced_table_id(synced_table_id),
        source=_read_source(spec),
        primary_key=_read_primary_key(spec),
        policy=_read_policy(spec),
        branch=read_text("spec.branch", spec.get("branch", "")),
        database=_read_database(spec, registered_database),
        create_missing=read_flag(
            "spec.create_database_objects_if_missing", spec.get("create_database_objects_if_missing", True)
        ),
        existing_pipeline_id=_read_pipeline(spec),
        timeseries_key=_read_optional(spec, "timeseries_key"),
        overrides=_read_overrides(spec.get("type_overrides")),
        extra_columns=_read_extra_columns(spec.get("extra_columns")),
    )


def check_against_source(spec: Spec, source: SourceTable) -> None:
    """Raise ``ApiError`` unless the source has the columns that the specification names, and a feed if it needs one."""
    columns = {column.name: column for column in source.latest.columns}
    named = [*spec.primary_key, *([spec.timeseries_key] if spec.timeseries_key else []), *spec.overrides]
    for name in named:
        if name not in columns:
            raise invalid(f"Column {name} does not exist in the source table {spec.source}.")
    for name in spec.primary_key:
        if postgres_type(columns[name].type_text) == "jsonb":
            raise invalid(f"Column {name} of type {columns[name].type_text} cannot be part of the primary key.")
    for extra in spec.extra_columns:
        if extra.name in columns:
            raise invalid(f"Column {extra.name} of extra_columns already exists in the source table {spec.source}.")
    if spec.policy != SNAPSHOT and not source.change_data_feed:
        raise invalid(
            f"Source table {spec.source} must have change data feed enabled for the scheduling policy {spec.policy}. "
            f"Run ALTER TABLE {spec.source} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)."
        )


def _read_synced_table_id(synced_table_id: str) -> str:
    parts = required("synced_table_id", synced_table_id).split(".")
    if len(parts) != 3 or not _CATALOG.fullmatch(parts[0]) or not all(_NAME.fullmatch(part) for part in parts[1:]):
        raise invalid(
            "Field 'synced_table_id' must be <catalog>.<schema>.<table>, where schema and table match pattern "
            f"^[A-Za-z0-9_]+$, got '{synced_table_id}'"
        )
    if any(len(part) > MAX_NAME for part in parts[1:]):
        raise invalid(f"Field 'synced_table_id': schema and table have at most {MAX_NAME} characters")
    return synced_table_id


def _read_source(spec: Json) -> str:
    source = read_text("spec.source_table_full_name", spec.get("source_table_full_name", ""))
    if len(source.split(".")) != 3 or not all(source.split(".")):
        raise invalid(f"Field 'spec.source_table_full_name' must be <catalog>.<schema>.<table>, got '{source}'")
    return source


def _read_primary_key(spec: Json) -> tuple[str, ...]:
    names = spec.get("primary_key_columns")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise invalid("Field 'spec.primary_key_columns' is required, expected a list of column names")
    if len(set(names)) < len(names):
        raise invalid("Field 'spec.primary_key_columns' names a column twice")
    return tuple(names)


def _read_policy(spec: Json) -> str:
    policy = read_text("spec.scheduling_policy", spec.get("scheduling_policy", ""))
    if policy not in (SNAPSHOT, TRIGGERED, CONTINUOUS):
        raise invalid(f"Field 'spec.scheduling_policy' must be SNAPSHOT, TRIGGERED or CONTINUOUS, got '{policy}'")
    return policy


def _read_database(spec: Json, registered: str | None) -> str:
    database = read_text("spec.postgres_database", spec.get("postgres_database") or registered or "")
    if not _NAME.fullmatch(database) or len(database) > MAX_NAME:
        raise invalid(f"Field 'spec.postgres_database' must match pattern ^[A-Za-z0-9_]+$, got '{database}'")
    if registered and database != registered:
        raise invalid(f"Field 'spec.postgres_database' must be '{registered}', the database of the catalog")
    return database


def _read_pipeline(spec: Json) -> str | None:
    read_choice("spec", spec, ("existing_pipeline_id", "new_pipeline_spec"))
    read_object("spec.new_pipeline_spec", spec.get("new_pipeline_spec"), _PIPELINE_FIELDS)
    return _read_optional(spec, "existing_pipeline_id")


def _read_optional(spec: Json, name: str) -> str | None:
    value = spec.get(name)
    return None if value in (None, "") else read_text(f"spec.{name}", value)


def _read_overrides(overrides: Any) -> dict[str, str]:
    types = {}
    for override in read_objects("spec.type_overrides", overrides, {"column_name", "pg_type", "size"}):
        name = read_text("spec.type_overrides.column_name", override.get("column_name", ""))
        kind, size = read_text("spec.type_overrides.pg_type", override.get("pg_type", "")), override.get("size")
        if kind not in _SIZED:
            raise invalid(f"Field 'spec.type_overrides.pg_type' is one of {', '.join(_SIZED)}, not {kind!r}")
        if type(size) is not int or size < 1:
            raise invalid(f"Field 'spec.type_overrides': {kind} of column {name} needs a size")
        types[name] = f"{_SIZED[kind]}({size})"
    return types


def _read_extra_columns(columns: Any) -> tuple[ExtraColumn, ...]:
    extra = []
    known = {"column_name", "column_type", "compute", "maintenance"}
    for column in read_objects("spec.extra_columns", columns, known):
        name, kind, expression = (
            read_text(f"spec.extra_columns.{field}", column.get(field, ""))
            for field in ("column_name", "column_type", "compute")
        )
        if column.get("maintenance", "STORED_GENERATED") != "STORED_GENERATED":
            raise invalid("Field 'spec.extra_columns': maintenance must be STORED_GENERATED")
        extra.append(ExtraColumn(name, kind, expression))
    return tuple(extra)
