"""A task instance's identity for the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def name_task_instance(context: Context) -> str:
    """Name the task instance as no other one is named, and all of its tries alike.

    :param context: Airflow's, of the task
    """
    if "ti" not in context:
        hint = "Run it as a task, for example by dag.test(), or give the operator exactly_once=False."
        raise LakebaseSettingsError("There is no task instance whose load could be done once", hint=hint)
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    return f"dag_id={ti.dag_id} run_id={ti.run_id} task_id={ti.task_id} map_index={map_index}"
