"""Create the target table: from the schema of Parquet files or Arrow data, or by the types that the caller gives."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import psycopg

from airflow_provider_lakebase.core.bulk.byte_reader import Unreadable
from airflow_provider_lakebase.core.bulk.catalog import check_types, create_table, has_type, table_exists
from airflow_provider_lakebase.core.bulk.columns import check_new_names, match_names
from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.files import is_path, open_to_read
from airflow_provider_lakebase.core.bulk.formats import import_format, import_from_extra
from airflow_provider_lakebase.core.bulk.formats.row_parts import names_of_dicts
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.partitions import read_folders
from airflow_provider_lakebase.core.bulk.parts import reading_file
from airflow_provider_lakebase.core.bulk.source import ROWS_LABEL, ArrowSource, Dicts, Files, NamedRows, Source
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError


def create_table_for(connection: psycopg.Connection[Any], source: Source, table: str, options: LoadOptions) -> bool:
    """Create the target table unless it exists, and return whether it did not.

    :param connection: an open session
    :param source: the source to load
    :param table: the target, as in SQL
    :param options: of the load
    :raises LakebaseSettingsError: for a source without a schema, or a type that the database does not have
    :raises LakebaseLoadError: for an unreadable file, a name that no column can have, or a missing privilege
    """
    context = session_context(connection)
    types = dict(options.create_table) if isinstance(options.create_table, Mapping) else {}
    check_types(connection, types, "create_table")
    if table_exists(connection, table):
        return False
    if isinstance(source, Files) and not source.files and ("*" in types or not types):
        return False  # no file names the columns
    if types:
        names = _list_names(source, options, context) if "*" in types else list(types)
        definitions = define_by_types(types, names)
    elif isinstance(source, NamedRows) and source.types is not None:
        definitions = _define_by_query(connection, source.names, source.types, options)
    else:
        definitions = _define_by_schemas(source, options, context)
    return create_table(connection, table, definitions, options.key_columns or ())


def _define_by_schemas(source: Source, options: LoadOptions, context: ErrorContext) -> list[tuple[str, str, bool]]:
    """Return the columns of all files, or of the rows. The first file that has a column decides its type."""
    kinds: dict[str, str | None] = {}
    required: list[set[str]] = []
    for each in _one_by_one(source):
        label, schema = _read_schema(each, context)
        columns = define_columns(schema, options, label, context)
        for name, kind, _ in columns:
            kinds[name] = kinds.get(name) or kind
        required.append({name for name, _, nullable in columns if not nullable})
    for name in _folders(source, options, kinds, context):
        kinds[name] = (options.casts or {}).get(name, "text")
    if unknown := [name for name, kind in kinds.items() if kind is None]:
        raise LakebaseSettingsError(
            f"The source has no values for {', '.join(unknown)}, so it does not tell the type to create",
            context=context,
            hint="Create the table first, {name_type}, or {skip_column}.",
        )
    # A column that a file lacks may be NULL.
    never_null = set.intersection(*required)
    return [(name, kind, name not in never_null) for name, kind in kinds.items() if kind]


def define_by_types(types: Mapping[str, str], names: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Return name, type and nullability of each column to create.

    :param types: SQL type by column; that of ``"*"`` is for the columns that it does not list
    :param names: the columns
    """
    every = [*names, *(name for name in types if name not in names and name != "*")]
    return [(name, types.get(name, types.get("*", "")), True) for name in every]


def _define_by_query(
    connection: psycopg.Connection[Any], names: Sequence[str], types: Sequence[str], options: LoadOptions
) -> list[tuple[str, str, bool]]:
    """Return name, type and nullability of each column of a query on another Postgres database."""
    context = session_context(connection)
    targets = match_names(names, options.columns, ROWS_LABEL)
    check_new_names([target for target in targets if target is not None], ROWS_LABEL, context)
    definitions = []
    for name, target, kind in zip(names, targets, types, strict=True):
        if target is None:
            continue
        wanted = (options.casts or {}).get(target, kind)
        if not has_type(connection, wanted):
            raise LakebaseSettingsError(
                f"Column {name} is of type {wanted}, which is no type of a column in the target database",
                context=context,
                hint=f"Cast it in the query: {name}::text; or give the types: create_table={{'id': 'bigint', '*': …}}.",
            )
        definitions.append((target, wanted, True))
    return definitions


def _list_names(source: Source, options: LoadOptions, context: ErrorContext) -> list[str]:
    """Return the target columns that a source fills."""
    found: dict[str, None] = {}
    for each in _one_by_one(source):
        label, names = _source_names(each, options, context)
        matched = match_names(names, options.columns, label, optional=_optional(options))
        targets = [name for name in matched if name is not None]
        check_new_names(targets, label, context)
        found |= dict.fromkeys(targets)
    return [*found, *_folders(source, options, found, context)]


def _one_by_one(source: Source) -> Sequence[Source]:
    return [Files((file,)) for file in source.files] if isinstance(source, Files) and source.files else [source]


def _optional(options: LoadOptions) -> Container[str]:
    """Return the names that one file may lack, because another one, or a folder, may have them."""
    return options.columns if isinstance(options.columns, Mapping) else ()


def _folders(source: Source, options: LoadOptions, filled: Container[str], context: ErrorContext) -> list[str]:
    """Return the columns that only the partition folders of the files name."""
    wanted = options.columns
    found: dict[str, None] = {}
    for label in [file.label for file in source.files] if isinstance(source, Files) else ():
        names = [wanted.get(name, "") if isinstance(wanted, Mapping) else name for name in read_folders(label)]
        added = [name for name in names if name and name not in filled]
        check_new_names(added, label, context)
        found |= dict.fromkeys(added)
    return list(found)


def _source_names(source: Source, options: LoadOptions, context: ErrorContext) -> tuple[str, list[str]]:
    if _has_schema(source):
        label, schema = _read_schema(source, context)
        return label, list(schema.names)
    if isinstance(source, NamedRows):
        return ROWS_LABEL, list(source.names)
    if isinstance(source, Dicts):
        return ROWS_LABEL, names_of_dicts(options, source.names)
    if isinstance(source, Files) and is_path(source.files[0].opener):
        file = source.files[0]
        with reading_file(file.label, context), open_to_read(file.opener) as opened:
            try:
                names = import_format(file.format).read_names(opened, options)
            except BadValue as bad:
                place = f"{bad.unit or 'line'} {bad.number}"
                raise Unreadable(f"in {place}, {bad.reason}", "Correct the file.") from None
        if names is not None:
            return file.label, names
    raise LakebaseSettingsError(
        "create_table contains '*', but the source does not name its columns",
        context=context,
        hint="List every column in create_table instead. Arrow data, dicts, and files with names, given by their "
        "path, name their columns.",
    )


def _has_schema(source: Source) -> bool:
    return isinstance(source, ArrowSource) or (isinstance(source, Files) and source.files[0].kind.has_schema)


def _read_schema(source: Source, context: ErrorContext) -> tuple[str, Any]:
    if isinstance(source, Files) and source.files[0].kind.has_schema:
        file = source.files[0]
        with reading_file(file.label, context), open_to_read(file.opener) as opened:
            return file.label, import_format(file.format).read_schema(opened, file.label, context)
    if isinstance(source, ArrowSource):
        return ROWS_LABEL, source.schema
    raise LakebaseSettingsError(
        "create_table is True, but the source does not say the types of its columns",
        context=context,
        hint="Give the SQL type of each column: create_table={'id': 'bigint', '*': 'text'}.",
    )


def define_columns(
    schema: Any, options: LoadOptions, label: str, context: ErrorContext
) -> list[tuple[str, str | None, bool]]:
    """Return name, Postgres type and nullability of each column to create; None for the type of one without values.

    :param schema: Arrow schema of the source
    :param options: of the load
    :param label: the source's name in messages
    :param context: for errors
    """
    fields = import_from_extra("arrow").fields_to_load(schema, options.columns, ())
    targets = match_names([field.name for field in fields], options.columns, label, optional=_optional(options))
    check_new_names([target for target in targets if target is not None], label, context)
    types = import_from_extra("arrow_types")
    definitions = []
    for field, target in zip(fields, targets, strict=True):
        if target is None:
            continue
        kind = (options.casts or {}).get(target) or types.postgres_type(field.type)
        if kind is None and not types.has_no_values(field.type):
            what = f"Column {field.name} is of type {field.type}, which has no Postgres counterpart"
            hint = "Create the table first, {name_type}, or {skip_column}."
            raise LakebaseSettingsError(what, context=context, hint=hint)
        definitions.append((target, kind, field.nullable))
    return definitions
