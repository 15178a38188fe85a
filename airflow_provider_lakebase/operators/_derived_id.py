"""The ID of a branch or snapshot that a task derives from its DAG, its name and its run."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_MAX_ID = 63
_HASH_LENGTH = 10


def derive_id(dag_id: str, task_id: str, run_id: str, map_index: int | None = None) -> str:
    """Return the ID of what a task instance creates: readable, the same on each try, and different in each run.

    :param dag_id: of the DAG
    :param task_id: of the task
    :param run_id: of the run
    :param map_index: of a mapped task instance
    """
    index = -1 if map_index is None else map_index
    identity = repr((dag_id, task_id, run_id, index)).encode()
    digest = hashlib.sha256(identity).hexdigest()[:_HASH_LENGTH]
    words = re.sub(r"[^a-z0-9]+", "-", f"{dag_id}-{task_id}".lower()).strip("-")
    # The ID begins with a letter.
    readable = re.sub(r"^[^a-z]+", "", words)[: _MAX_ID - _HASH_LENGTH - 1].strip("-") or "task"
    return f"{readable}-{digest}"


def id_of_task(context: Context, argument: str, task_id: str | None = None) -> str:
    """Return the ID of what a task creates.

    :param context: the context of a task
    :param argument: the argument that would name it, for messages
    :param task_id: another task of the same run and map index, in place of the context's
    :raises LakebaseSettingsError: without a task instance
    """
    if "ti" not in context:
        hint = f"Pass {argument}, or run the operator as a task."
        raise LakebaseSettingsError(f"There is no task instance to derive {argument} from", hint=hint)
    ti = context["ti"]
    return derive_id(ti.dag_id, task_id or ti.task_id, ti.run_id, ti.map_index)
