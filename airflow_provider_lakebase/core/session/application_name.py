"""Name sessions after the task that opens them, for ``pg_stat_activity``."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping

from airflow_provider_lakebase import __version__

PRODUCT = f"airflow-provider-lakebase/{__version__}"

# Postgres keeps no more.
_APPLICATION_NAME_BYTES = 63


def name_application(variables: Mapping[str, str]) -> str:
    """Return an ``application_name`` of at most 63 bytes, the most Postgres keeps, that ends with the task.

    The task is followed by six hexadecimal digits that identify its run, and the try number.

    :param variables: the environment; an orchestrator names the task in it, as Airflow does in ``AIRFLOW_CTX_…``
    """
    dag_id, task_id = variables.get("AIRFLOW_CTX_DAG_ID"), variables.get("AIRFLOW_CTX_TASK_ID")
    if not dag_id or not task_id:
        return PRODUCT
    run = variables.get("AIRFLOW_CTX_DAG_RUN_ID", "")
    mark = f"#{zlib.crc32(run.encode()) & 0xFFFFFF:06x}.{variables.get('AIRFLOW_CTX_TRY_NUMBER', '')}"
    return _name(dag_id, task_id, mark)


def name_statements(dag_id: str, task_id: str, task_instance: str) -> str:
    """Return an ``application_name`` that is the same for all tries of a task instance, and differs for any other.

    :param dag_id: the DAG's id
    :param task_id: the task's id
    :param task_instance: a text that identifies the task instance
    """
    return _name(dag_id, task_id, f"#{hashlib.sha256(task_instance.encode()).hexdigest()[:12]}")


def _name(dag_id: str, task_id: str, mark: str) -> str:
    room = _APPLICATION_NAME_BYTES - len(PRODUCT) - 1 - len(mark)
    task = f"{dag_id}.{task_id}".encode("ascii", "replace").decode()
    return f"{PRODUCT} {task[-room:]}{mark}"
