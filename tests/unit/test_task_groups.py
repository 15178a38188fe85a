"""The shape of a task group whose tasks run on a branch of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TriggerRule

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.task_groups import lakebase_branch


@pytest.fixture
def dag() -> DAG:
    with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as made:
        before, after = BaseOperator(task_id="before"), BaseOperator(task_id="after")
        with lakebase_branch("try_it", ttl=timedelta(hours=4), lakebase_conn_id="mine", retries=2) as branch:
            migrate = LakebaseSQLOperator(task_id="migrate", sql="SELECT 1", endpoint=branch.endpoint)
            migrate >> [BaseOperator(task_id="load"), BaseOperator(task_id="count")]
            BaseOperator(task_id="other")
        before >> branch >> after
    return made


def upstream(dag: DAG, task_id: str) -> set[str]:
    return set(dag.get_task(task_id).upstream_task_ids)


def test_all_tasks_run_between_setup_and_teardown(dag: DAG):
    assert upstream(dag, "try_it.create_branch") == {"before"}
    assert upstream(dag, "try_it.migrate") == {"try_it.create_branch"}
    assert upstream(dag, "try_it.other") == {"try_it.create_branch"}
    ends = {f"try_it.{name}" for name in ("load", "count", "other")}
    assert upstream(dag, "try_it.delete_branch") == {"try_it.create_branch", *ends}


def test_what_follows_does_not_wait_for_the_deletion(dag: DAG):
    assert upstream(dag, "after") == {f"try_it.{name}" for name in ("load", "count", "other")}


def test_the_branch_is_deleted_also_if_creating_it_fails(dag: DAG):
    create, delete = dag.get_task("try_it.create_branch"), dag.get_task("try_it.delete_branch")
    assert (create.is_setup, delete.is_teardown) == (True, True)
    assert delete.trigger_rule == TriggerRule.ALL_DONE


def test_both_tasks_get_the_arguments_that_they_share(dag: DAG):
    for name in ("create_branch", "delete_branch"):
        task: Any = dag.get_task(f"try_it.{name}")
        assert (task.lakebase_conn_id, task.retries) == ("mine", 2)


@pytest.mark.parametrize("expiry", [{}, {"ttl": 60, "expire_time": "2026-12-01T00:00:00Z"}])
def test_a_branch_needs_one_expiry(expiry: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError, match="needs an expiry"), lakebase_branch("try_it", **expiry):
        pass


def test_a_text_does_not_say_whether_the_branch_is_kept():
    group = lakebase_branch("try_it", ttl=60, keep_on_failure="False")  # type: ignore[arg-type]
    with pytest.raises(LakebaseSettingsError, match="keep_on_failure is 'False'"), group:
        pass
