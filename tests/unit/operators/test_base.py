"""The arguments that all operators and sensors share, and the hook they lead to."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._arguments import create_hook, merge_hook_params
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin
from airflow_provider_lakebase.operators.load import LakebaseExportOperator, LakebaseLoadOperator
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor
from airflow_provider_lakebase.sensors.query import LakebaseQuerySensor
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator

TASKS: dict[Any, dict[str, Any]] = {
    LakebaseSQLOperator: {"sql": "SELECT 1"},
    LakebaseLoadOperator: {"source": "x.csv", "table": "t"},
    LakebaseExportOperator: {"table": "t", "destination": "x.csv"},
    LakebaseRoleBootstrapOperator: {"identity": "etl"},
    LakebaseEndpointSensor: {},
    LakebaseQuerySensor: {"sql": "SELECT 1"},
    SqlToLakebaseOperator: {"source_conn_id": "other", "sql": "SELECT 1", "table": "t"},
}
SHARED: dict[str, Any] = {
    "lakebase_conn_id": "lakebase_other",
    "endpoint": "projects/p/branches/b",
    "database": "sales",
    "read_only": False,
    "hook_params": {"options": "-c statement_timeout=5min"},
}


def shared_of(hook: Any) -> dict[str, Any]:
    found = {name: getattr(hook, name) for name in ("lakebase_conn_id", "endpoint", "database", "read_only")}
    return {**found, "hook_params": {"options": hook.options}}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_passes_the_shared_arguments_to_its_hook(task: Any):
    assert shared_of(task(task_id="t", **TASKS[task], **SHARED)._hook) == SHARED


@pytest.mark.parametrize("task", TASKS)
def test_default_args_and_mapped_tasks_may_give_them(task: Any):
    with DAG("d", schedule=None, default_args=SHARED):
        assert shared_of(task(task_id="t", **TASKS[task])._hook) == SHARED
        task.partial(task_id="mapped", **TASKS[task], read_only=True).expand(database=["a", "b"])


@pytest.mark.parametrize("task", TASKS)
def test_they_are_templates_and_killing_the_task_cancels_its_hook(task: Any, monkeypatch: pytest.MonkeyPatch):
    assert set(LakebaseOperatorMixin.template_fields) <= set(task.template_fields)
    operator, cancelled = task(task_id="t", **TASKS[task]), list[Any]()
    monkeypatch.setattr(type(operator._hook), "cancel", lambda hook: cancelled.append(hook))
    operator.on_kill()
    assert cancelled == [operator._hook]


@pytest.mark.parametrize("task", TASKS)
def test_hook_params_are_checked_when_the_dag_is_parsed_unless_they_are_a_template(task: Any):
    with pytest.raises(LakebaseSettingsError, match="database is given twice"):
        task(task_id="t", **TASKS[task], database="a", hook_params={"schema": "b"})
    task(task_id="t", **TASKS[task], hook_params="{{ params.hook }}")


def test_hook_params_complete_the_own_arguments():
    merged = merge_hook_params({"schema": "sales", "options": None, "log_sql": False}, endpoint="e", database=None)
    assert merged == {"endpoint": "e", "database": "sales", "log_sql": False}
    assert merge_hook_params(None, endpoint=None) == {}


@pytest.mark.parametrize(
    ("hook_params", "message"),
    [
        ("text", "hook_params is of type str"),
        ({"endpoint": "f"}, "endpoint is given twice"),
        ({"conn_id": "c"}, "hook_params contains conn_id"),
        ({"lakebase_conn_id": "c"}, "hook_params contains lakebase_conn_id"),
    ],
)
def test_hook_params_that_contradict_are_refused(hook_params: Any, message: str):
    with pytest.raises(LakebaseSettingsError, match=message):
        create_hook("lakebase_default", hook_params, endpoint="e")
