"""The identity of a load in the ledger: the run that it belongs to, its asset and its partition."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import quote

from dagster import AssetCheckExecutionContext, AssetExecutionContext, DagsterRun, DagsterRunStatus, OpExecutionContext

StepContext: TypeAlias = AssetExecutionContext | AssetCheckExecutionContext | OpExecutionContext
DIRECT_RUN_ID = "EPHEMERAL"
"""What Dagster gives as run id where an asset is called as a function, without a run."""


def name_load(context: StepContext, part: str | None) -> str | None:
    """Return the identity of a load, the same for every attempt at it; None outside a run.

    :param context: of the asset or op that loads
    :param part: name of the load, where the asset loads several sources into one table
    """
    step = op_context(context)
    if is_direct(step):
        return None
    facts = {"run_id": [_original_run_id(step)], **_name_step(step)}
    facts |= {name: [value] for name, value in {**name_partition(step), "part": part}.items() if value}
    # Quoted, no value can look like another one, or like the next fact.
    quoted = {name: "/".join(quote(value, safe=":") for value in values) for name, values in facts.items()}
    return " ".join(f"{name}={values}" for name, values in quoted.items())


def name_attempt(context: StepContext) -> tuple[Any, ...] | None:
    """Return a key that identifies this attempt at a step; None outside a run.

    :param context: of the asset or op
    """
    step = op_context(context)
    if is_direct(step):
        return None
    return step.run_id, step.op_handle, step.get_mapping_key(), step.retry_number


def is_direct(step: OpExecutionContext) -> bool:
    """Return whether the asset or op was called as a function, without a run.

    :param step: the op's context
    """
    return step.run_id == DIRECT_RUN_ID


def op_context(context: StepContext) -> OpExecutionContext:
    """Return the context of the op behind an asset or a check.

    :param context: of any kind
    """
    return context if isinstance(context, OpExecutionContext) else context.op_execution_context


def name_partition(step: OpExecutionContext) -> dict[str, str]:
    """Return the partition of a step, or the first and last of several, by name; nothing without partitions.

    :param step: the op's context
    """
    # A run may have a partition and an asset that has none.
    if step.has_assets_def and step.assets_def.partitions_def is None:
        return {}
    if is_direct(step):
        return {"partition": step.partition_key} if step.has_partition_key else {}
    if not step.has_partition_key and not step.has_partition_key_range:
        return {}
    keys = step.partition_key_range
    if keys.start == keys.end:
        return {"partition": keys.start}
    return {"partition_range_start": keys.start, "partition_range_end": keys.end}


def _name_step(step: OpExecutionContext) -> dict[str, list[str]]:
    """Return the asset, and the op if that does not follow from the asset.

    Where one op is behind several assets, Dagster numbers it anew in each job. Of several assets in one, the first in
    order stands for all, also where a run selects others of them.
    """
    keys = step.assets_def.node_keys_by_output_name.values() if step.has_assets_def else ()
    asset = min((list(key.path) for key in keys), default=[])
    place = list(step.op_handle.path)
    mapping_key = step.get_mapping_key()
    facts = {"asset": asset, "op": place[1:] if asset else place, "mapping_key": [mapping_key] if mapping_key else []}
    return {name: list(values) for name, values in facts.items() if values}


def _original_run_id(step: OpExecutionContext) -> str:
    """Return the first run of which this one is a repetition.

    Whoever runs a failed run again wants its work completed; whoever runs a successful one again wants it repeated.
    """
    run: DagsterRun = step.run
    while parent_id := run.tags.get("dagster/parent_run_id"):
        parent = step.instance.get_run_by_id(parent_id)
        if parent is None:  # it was deleted
            return run.tags.get("dagster/root_run_id", parent_id)
        if parent.status is DagsterRunStatus.SUCCESS:
            break
        run = parent
    return run.run_id
