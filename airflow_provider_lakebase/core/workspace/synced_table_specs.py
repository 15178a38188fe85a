"""What a synced table shall be: read from arguments, written as the API takes it, and compared with one that exists.

This module is light: operators import it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

POLICIES = ("snapshot", "triggered", "continuous")
_PIPELINE_FIELDS = ("budget_policy_id", "pipeline_channel", "storage_catalog", "storage_schema")
_OVERRIDE_FIELDS = ("column_name", "pg_type", "size")
_PG_TYPES = ("PG_SPECIFIC_TYPE_HALFVEC", "PG_SPECIFIC_TYPE_VARCHAR", "PG_SPECIFIC_TYPE_VECTOR")
_EXTRA_FIELDS = ("column_name", "column_type", "compute", "maintenance")
# They say how a table is made, not what it is.
_NOT_COMPARED = ("create_database_objects_if_missing", "accelerated_sync")
_FEED = "delta.enableChangeDataFeed"
_TABLE_NAME = re.compile(r"[^.\s`]+(\.[^.\s`]+){2}")
_DEFINITION = re.compile(r"\s*(\(|USING\s)", re.IGNORECASE)
# String constants, quoted names and comments, in which a parenthesis or ; means nothing.
_QUOTED = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/""", re.DOTALL
)
_READING = ("SELECT", "REFERENCES", "TRIGGER")


def synced_table_spec(
    *,
    source: str,
    key_columns: str | Sequence[str],
    policy: str,
    branch: str,
    postgres_database: str,
    create_database_objects_if_missing: bool = True,
    timeseries_key: str | None = None,
    existing_pipeline_id: str | None = None,
    new_pipeline_spec: Mapping[str, str] | None = None,
    type_overrides: Sequence[Mapping[str, Any]] = (),
    extra_columns: Sequence[Mapping[str, Any]] = (),
    accelerated_sync: bool | None = None,
) -> dict[str, Any]:
    """Return the ``spec`` of a synced table.

    :param source: name of the source in Unity Catalog
    :param key_columns: columns of the primary key
    :param policy: ``snapshot``, ``triggered`` or ``continuous``
    :param branch: resource name
    :param postgres_database: database
    :param create_database_objects_if_missing: also create database and schema
    :param timeseries_key: column of which the latest row of each key counts
    :param existing_pipeline_id: pipeline that it shares
    :param new_pipeline_spec: the pipeline that is made for it
    :param type_overrides: types of columns in Postgres
    :param extra_columns: generated columns
    :param accelerated_sync: whether the first load is accelerated
    :raises LakebaseSettingsError: for a value that is wrong
    """
    check_flags(
        create_database_objects_if_missing=create_database_objects_if_missing, accelerated_sync=accelerated_sync
    )
    if not isinstance(source, str) or not _TABLE_NAME.fullmatch(source):
        raise _wrong("source", source, "a name in Unity Catalog: 'catalog.schema.table'")
    if not isinstance(policy, str) or policy.lower() not in POLICIES:
        raise _wrong("policy", policy, "'snapshot', 'triggered' or 'continuous'")
    if existing_pipeline_id and new_pipeline_spec:
        hint = "Give one of them, or none."
        raise LakebaseSettingsError("existing_pipeline_id and new_pipeline_spec are given", hint=hint)
    spec: dict[str, Any] = {
        "source_table_full_name": source,
        "primary_key_columns": _read_columns(key_columns),
        "scheduling_policy": policy.upper(),
        "branch": branch,
        "postgres_database": postgres_database,
        "create_database_objects_if_missing": create_database_objects_if_missing,
        "timeseries_key": timeseries_key,
        "existing_pipeline_id": existing_pipeline_id,
        "new_pipeline_spec": _read_fields("new_pipeline_spec", new_pipeline_spec or {}, _PIPELINE_FIELDS),
        "type_overrides": _read_overrides(type_overrides),
        "extra_columns": _read_list("extra_columns", extra_columns, _EXTRA_FIELDS),
        "accelerated_sync": accelerated_sync,
    }
    return {name: value for name, value in spec.items() if value not in (None, "", [], {})}


def read_indexes(indexes: object) -> dict[str, str]:
    """Return the definitions of indexes by their names.

    :param indexes: a mapping of names to what follows ``ON <table>`` in ``CREATE INDEX``, or an empty sequence
    :raises LakebaseSettingsError: if it is something else
    """
    found = _read_mapping("indexes", indexes, "{'orders_by_customer': '(customer_id)'}")
    for name, definition in found.items():
        if not isinstance(definition, str) or not _DEFINITION.match(definition):
            wanted = "what follows ON <table> in CREATE INDEX, such as '(customer_id)' or 'USING gin (tags)'"
            raise _wrong(f"The index {name}", definition, wanted)
        if len(name.encode()) > 63:
            raise _wrong("The name of an index", name, "at most 63 bytes long")
        if not _is_one_clause(definition.strip().rstrip(";")):
            raise _wrong(f"The index {name}", definition, "one clause: without ';', and each parenthesis closed")
    return {name: definition.strip().rstrip(";") for name, definition in found.items()}


def read_grants(grants: object) -> dict[str, list[str]]:
    """Return privileges by role.

    :param grants: a mapping of roles to privileges, or an empty sequence
    :raises LakebaseSettingsError: if it is something else, or has a privilege to write
    """
    found: dict[str, list[str]] = {}
    for role, given in _read_mapping("grants", grants, "{'app': ['SELECT']}").items():
        words = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else []
        privileges = [str(word).strip().upper() for word in words]
        if not privileges or not set(privileges) <= set(_READING):
            hint = f"Choose from {', '.join(_READING)}: only its pipeline writes the table."
            raise LakebaseSettingsError(f"What grants has for {role} is {given!r}", hint=hint)
        found[role] = privileges
    return found


def columns_of(source: Mapping[str, Any]) -> list[str] | None:
    """Return the columns of a source, or None if its description has none.

    :param source: as Unity Catalog describes it
    """
    return [str(each.get("name")) for each in source.get("columns") or ()] or None


def require_source(spec: Mapping[str, Any], source: Mapping[str, Any], context: ErrorContext) -> None:
    """Refuse a spec that the service would refuse because of its source.

    :param spec: what the synced table shall be
    :param source: the source, as Unity Catalog describes it
    :param context: context for the error
    :raises LakebaseSettingsError: if the source lacks a column that the spec names, or a change data feed that it needs
    """
    name, columns = spec["source_table_full_name"], columns_of(source)
    if columns is not None:
        overridden = [each["column_name"] for each in spec.get("type_overrides", ())]
        named = [*spec["primary_key_columns"], *filter(None, [spec.get("timeseries_key")]), *overridden]
        if missing := [column for column in dict.fromkeys(named) if column not in columns]:
            written = {column.lower() for column in missing}
            similar = [column for column in columns if column.lower() in written]
            hint = "Nothing was changed." + (f" Write {', '.join(similar)} as the source has it." if similar else "")
            text = f"The source {name} has no column {', '.join(missing)}"
            raise LakebaseSettingsError(text, context=context, hint=hint)
        extra = [each.get("column_name") for each in spec.get("extra_columns", ())]
        if present := [column for column in columns if column in extra]:
            text = f"The source {name} has a column {', '.join(present)}, which extra_columns adds"
            raise LakebaseSettingsError(
                text, context=context, hint="Nothing was changed: rename the column in extra_columns."
            )
    properties = source.get("properties") or {}
    # The feed is a property of Delta tables. A description without any properties is incomplete.
    is_told = source.get("data_source_format") == "DELTA" and properties
    has_feed = str(properties.get(_FEED)).lower() == "true"
    if spec["scheduling_policy"] != "SNAPSHOT" and is_told and not has_feed:
        raise LakebaseSettingsError(
            f"The source {name} has no change data feed, which the policy {spec['scheduling_policy'].lower()} needs",
            context=context,
            hint=f"Nothing was changed. Run ALTER TABLE {name} SET TBLPROPERTIES ({_FEED} = true), or use snapshot.",
        )


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return in what two specs differ, as a message says it.

    :param wanted: what the synced table shall be
    :param found: what it is
    """
    names = [name for name in dict.fromkeys((*wanted, *found)) if name not in _NOT_COMPARED]
    return [
        f"{name} is {found.get(name)!r}, not {wanted.get(name)!r}"
        for name in names
        if _comparable(wanted.get(name)) != _comparable(found.get(name))
    ]


def not_compared(spec: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Return the fields that were given and of which nothing tells what they are.

    :param spec: what the synced table shall be
    :param known: fields of which something was found
    """
    return [name for name in spec if name not in (*_NOT_COMPARED, *known)]


def _is_one_clause(definition: str) -> bool:
    depth = 0
    for each in _QUOTED.sub(" ", definition):
        depth += (each == "(") - (each == ")")
        if depth < 0 or each in ";'\"":  # a quotation mark that is left is never closed
            return False
    return depth == 0


def _comparable(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return sorted(sorted((key, str(each[key])) for key in each) for each in value)
    return value or None


def _read_columns(columns: object) -> list[str]:
    found = [columns] if isinstance(columns, str) else list(columns) if isinstance(columns, Sequence) else []
    if not found or not all(isinstance(name, str) and name for name in found) or len(set(found)) < len(found):
        raise _wrong("key_columns", columns, "names of columns of the source, each once")
    return found


def _read_mapping(name: str, given: object, example: str) -> dict[str, Any]:
    if isinstance(given, Sequence) and not given:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) and key.strip() for key in given):
        raise _wrong(name, given, f"a mapping, such as {example}")
    return dict(given)


def _read_list(name: str, given: object, known: Sequence[str]) -> list[dict[str, Any]]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise _wrong(name, given, "a list of mappings")
    return [_read_fields(name, each, known) for each in given]


def _read_overrides(given: object) -> list[dict[str, Any]]:
    found = _read_list("type_overrides", given, _OVERRIDE_FIELDS)
    for each in found:
        name, kind = each.get("column_name"), each.get("pg_type")
        if not isinstance(name, str) or not name:
            raise _wrong("The column_name of type_overrides", name, "a column of the source")
        if kind not in _PG_TYPES:
            raise _wrong(f"The pg_type of column {name} in type_overrides", kind, f"one of {', '.join(_PG_TYPES)}")
    return found


def _read_fields(name: str, given: object, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not set(given) <= set(known):
        raise _wrong(name, given, f"a mapping of {', '.join(known)}")
    return dict(given)


def _wrong(name: str, value: object, wanted: str) -> LakebaseSettingsError:
    return LakebaseSettingsError(f"{name} is {value!r}", hint=f"It must be {wanted}.")
