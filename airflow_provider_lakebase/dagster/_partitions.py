"""The SQL condition for an asset's partitions, from the metadata that Dagster's own I/O managers read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from datetime import datetime
from typing import Any, cast

import psycopg
from dagster import (
    AssetKey,
    InputContext,
    MultiPartitionKey,
    MultiPartitionsDefinition,
    OutputContext,
    PartitionsDefinition,
    TimeWindow,
    TimeWindowPartitionsDefinition,
)
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Table
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.dagster._owner import name_asset
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_NO_ROW = "false"
_TIMES = (1082, 1114, 1184)
"""OIDs of date, timestamp and timestamptz."""
_NAME = re.compile(r'"((?:[^"]|"")+)"|([a-z_]\w*)', re.IGNORECASE)


def partition_condition(context: OutputContext | InputContext, metadata: Mapping[str, Any]) -> str | None:
    """Return the condition that selects the rows of a context's partitions; None without partitions.

    :param context: of the asset that is written or read
    :param metadata: of the asset's definition, whose ``partition_expr`` is a column or an expression of SQL; with
        several dimensions, one for each of them
    :raises LakebaseSettingsError: if an expression is missing
    """
    if not context.has_asset_partitions:
        return None
    dimensions, keys = _dimensions(context, metadata), context.asset_partition_keys
    if not isinstance(context.asset_partitions_def, MultiPartitionsDefinition):
        return _condition(*dimensions[0], keys)
    names = [each.name for each in context.asset_partitions_def.partitions_defs]
    # Keys that differ in the last dimension only share a condition: that of a range of days stays short.
    grouped: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in keys:
        values = cast(MultiPartitionKey, key).keys_by_dimension
        grouped[tuple(values[name] for name in names[:-1])].append(values[names[-1]])
    return _any_of(
        " AND ".join(
            f"({_condition(*dimension, chosen)})"
            for dimension, chosen in zip(dimensions, [*([each] for each in group), last_keys], strict=True)
        )
        for group, last_keys in grouped.items()
    )


def check_expressions(
    session: psycopg.Connection[Any], table: sql.Composable, context: OutputContext | InputContext, metadata: Any
) -> None:
    """Refuse a ``partition_expr`` that Postgres does not know, or that is no time where the partitions are of time.

    Postgres would compare a text with the text of a time, which selects the rows of other days.

    :param session: an open session
    :param table: the asset's
    :param context: of the asset that is written or read
    :param metadata: of the asset's definition
    :raises LakebaseSettingsError: for the first such expression
    """
    for expression, definition in _dimensions(context, metadata) if context.has_asset_partitions else ():
        kind = _find_type(session, table, expression, context)
        if not isinstance(definition, TimeWindowPartitionsDefinition) or kind in _TIMES:
            continue
        ((name,),) = session.execute("SELECT format_type(%s::oid, NULL)", [kind]).fetchall()
        raise LakebaseSettingsError(
            f"The partitions of asset {name_asset(context.asset_key)} are of time, but its metadata 'partition_expr', "
            f"{expression}, is of type {name}",
            context=session_context(session),
            hint="Change the column to date, timestamp or timestamptz, or give an expression of such a type: "
            f"metadata={{'partition_expr': '({expression})::date'}}.",
        )


def check_column(table: Table, names: Container[str], context: OutputContext, metadata: Mapping[str, Any]) -> None:
    """Refuse rows that lack the column which says to which partition they belong.

    :param table: their target
    :param names: of the columns that the rows have
    :param context: of the asset that is written
    :param metadata: of the asset's definition
    :raises LakebaseSettingsError: for the first such column that gets no default either
    """
    for expression, _ in _dimensions(context, metadata) if context.has_asset_partitions else ():
        name = _column_name(expression)
        column = table.loadable.get(name)
        if column is not None and column.default is None and name not in names:
            raise LakebaseSettingsError(
                f"The rows of asset {name_asset(context.asset_key)} lack the column '{name}', which its metadata "
                "'partition_expr' names",
                hint="Return rows with that column, or correct 'partition_expr'.",
            )


def _find_type(
    session: psycopg.Connection[Any], table: sql.Composable, expression: str, context: OutputContext | InputContext
) -> int:
    """Return the OID of an expression's type; of a domain, that of its base type."""
    # WHERE, since the condition on partitions takes fewer expressions than a SELECT returns.
    query = sql.SQL("SELECT ({0}) FROM {1} WHERE ({0}) IS NULL LIMIT 0").format(sql.SQL(expression), table)
    try:
        columns = session.execute(query).description or []
    except psycopg.errors.InsufficientPrivilege:
        raise
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
        raise LakebaseSettingsError(
            f"The metadata 'partition_expr' of asset {name_asset(context.asset_key)} is {expression}, which is no "
            f"column or expression of its table: {error.diag.message_primary}",
            context=session_context(session),
            hint="Return rows with that column, or correct 'partition_expr'. It is SQL: a name with capital letters or "
            "spaces needs double quotes.",
        ) from None
    return columns[0].type_code


def _column_name(expression: str) -> str:
    """Return the name of the column, unquoted, if an expression is no more than that."""
    if found := _NAME.fullmatch(expression.strip()):
        return found[1].replace('""', '"') if found[1] else found[2].lower()
    return ""


def _dimensions(
    context: OutputContext | InputContext, metadata: Mapping[str, Any]
) -> list[tuple[str, PartitionsDefinition[Any]]]:
    """Return expression and definition of each dimension of the partitions."""
    definition, expressions = context.asset_partitions_def, metadata.get("partition_expr")
    if not isinstance(definition, MultiPartitionsDefinition):
        return [(_checked(expressions, context.asset_key), definition)]
    by_name = expressions if isinstance(expressions, Mapping) else {}
    return [
        (_checked(by_name.get(each.name), context.asset_key, each.name), each.partitions_def)
        for each in definition.partitions_defs
    ]


def _checked(expression: Any, asset: AssetKey, dimension: str = "") -> str:
    if isinstance(expression, str) and expression.strip():
        return expression
    of = f" for '{dimension}'" if dimension else ""
    example = f"{{'{dimension}': 'column'}}" if dimension else "'column'"
    raise LakebaseSettingsError(
        f"Asset {name_asset(asset)} has partitions, but its metadata has no 'partition_expr'{of}",
        hint=f"Name the column that says which partition a row belongs to: metadata={{'partition_expr': {example}}}.",
    )


def _condition(expression: str, definition: PartitionsDefinition[Any], keys: Iterable[str]) -> str:
    if isinstance(definition, TimeWindowPartitionsDefinition):
        return _any_of(
            f"({expression}) >= {_literal(window.start.isoformat(' '))}"
            f" AND ({expression}) < {_literal(window.end.isoformat(' '))}"
            for window in _merge(definition.time_window_for_partition_key(key) for key in keys)
        )
    values = ", ".join(map(_literal, keys))
    return f"({expression}) IN ({values})" if values else _NO_ROW


def _any_of(conditions: Iterable[str]) -> str:
    found = list(conditions)
    return found[0] if len(found) == 1 else " OR ".join(f"({each})" for each in found) or _NO_ROW


def _merge(windows: Iterable[TimeWindow]) -> list[TimeWindow]:
    """Join windows that follow each other without a gap."""
    # datetime compares two times of one zone without their offset, and an hour comes twice when summer time ends.
    merged: list[TimeWindow] = []
    for window in sorted(windows, key=lambda each: each.start.timestamp()):
        if merged and merged[-1].end.timestamp() >= window.start.timestamp():
            end = max(merged[-1].end, window.end, key=datetime.timestamp)
            merged[-1] = TimeWindow(merged[-1].start, end)
        else:
            merged.append(window)
    return merged


def _literal(text: str) -> str:
    """Return a text as a literal of SQL, whose type the column decides."""
    quoted = text.replace("'", "''")
    return " E'{}'".format(quoted.replace("\\", "\\\\")) if "\\" in text else f"'{quoted}'"
