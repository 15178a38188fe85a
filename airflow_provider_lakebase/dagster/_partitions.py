"""The SQL condition for an asset's partitions, from the metadata that Dagster's own I/O managers read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

from dagster import (
    InputContext,
    MultiPartitionKey,
    MultiPartitionsDefinition,
    OutputContext,
    PartitionsDefinition,
    TimeWindow,
    TimeWindowPartitionsDefinition,
)

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_NO_ROW = "false"


def partition_condition(context: OutputContext | InputContext, metadata: Mapping[str, Any]) -> str | None:
    """Return the condition that selects the rows of a context's partitions; None without partitions.

    :param context: of the asset that is written or read
    :param metadata: of the asset's definition, whose ``partition_expr`` is a column or an expression of SQL; with
        several dimensions, one for each of them
    :raises LakebaseSettingsError: if an expression is missing
    """
    if not context.has_asset_partitions:
        return None
    definition, keys = context.asset_partitions_def, context.asset_partition_keys
    expressions = metadata.get("partition_expr")
    if not isinstance(definition, MultiPartitionsDefinition):
        return _condition(_checked(expressions), definition, keys)
    dimensions = {each.name: each.partitions_def for each in definition.partitions_defs}
    by_name = expressions if isinstance(expressions, Mapping) else {}
    *outer, last = dimensions
    # Keys that differ in the last dimension only share a condition: that of a range of days stays short.
    grouped: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in keys:
        values = cast(MultiPartitionKey, key).keys_by_dimension
        grouped[tuple(values[name] for name in outer)].append(values[last])
    return _any_of(
        " AND ".join(
            f"({_condition(_checked(by_name.get(name), name), dimensions[name], chosen)})"
            for name, chosen in zip(dimensions, [*([each] for each in group), last_keys], strict=True)
        )
        for group, last_keys in grouped.items()
    )


def _checked(expression: Any, dimension: str = "") -> str:
    if isinstance(expression, str) and expression.strip():
        return expression
    of = f" for '{dimension}'" if dimension else ""
    example = f"{{'{dimension}': 'column'}}" if dimension else "'column'"
    raise LakebaseSettingsError(
        f"The asset has partitions, but its metadata has no 'partition_expr'{of}",
        hint=f"Name the column that says which partition a row belongs to: metadata={{'partition_expr': {example}}}.",
    )


def _condition(expression: str, definition: PartitionsDefinition[Any], keys: Iterable[str]) -> str:
    if isinstance(definition, TimeWindowPartitionsDefinition):
        return _any_of(
            f"{expression} >= {_literal(window.start.isoformat(' '))}"
            f" AND {expression} < {_literal(window.end.isoformat(' '))}"
            for window in _merge(definition.time_window_for_partition_key(key) for key in keys)
        )
    values = ", ".join(map(_literal, keys))
    return f"{expression} IN ({values})" if values else _NO_ROW


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
