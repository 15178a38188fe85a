"""Names of task instances, for the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def name_task_instance(context: Context) -> str:
    """Return a name that is the same for all tries of a task instance, and differs from any other's.

    :param context: the task's context
    :raises LakebaseSettingsError: outside a task
    """
    if "ti" not in context:
        hint = "Run the operator as a task, for example with dag.test(), or pass exactly_once=False."
        raise LakebaseSettingsError("There is no task instance to record in the ledger", hint=hint)
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    return f"dag_id={ti.dag_id} run_id={ti.run_id} task_id={ti.task_id} map_index={map_index}"
