"""A task group whose tasks run on a branch of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskGroup, TriggerRule
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.core.workspace.resources import find, status_of
from airflow_provider_lakebase.core.workspace.specs import Duration, Time, check_flags
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.links import find_branch_page
from airflow_provider_lakebase.operators._derived_id import id_of_task
from airflow_provider_lakebase.operators.branch import LakebaseCreateBranchOperator, LakebaseDeleteBranchOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

_FAILED = ("failed", "upstream_failed")


class LakebaseBranchGroup(TaskGroup):
    """What :func:`lakebase_branch` gives: the task group, and its branch."""

    create_branch: LakebaseCreateBranchOperator

    @property
    def branch(self) -> XComArg:
        """Resource name of the branch."""
        return self._result("branch")

    @property
    def endpoint(self) -> XComArg:
        """Resource name of its endpoint, for the ``endpoint`` of operators, sensors and transfers."""
        return self._result("endpoint")

    @property
    def host(self) -> XComArg:
        """Postgres host of its endpoint."""
        return self._result("host")

    def _result(self, key: str) -> XComArg:
        found: XComArg = self.create_branch.output[key]  # type: ignore[index]
        return found


@contextmanager
def lakebase_branch(
    group_id: str,
    *,
    ttl: Duration | None = None,
    expire_time: Time | None = None,
    source: str | None = None,
    source_time: Time | None = None,
    source_lsn: str | None = None,
    source_snapshot: str | None = None,
    wait_for_login: bool = True,
    keep_on_failure: bool = False,
    **kwargs: Any,
) -> Iterator[LakebaseBranchGroup]:
    """Put the tasks of a ``with`` block into a task group that has a branch of its own.

    The branch is created before them and deleted for good after them, also if one fails, as Airflow's setup and
    teardown. Its ID is derived from DAG, group and run. Give its ``endpoint`` to the tasks: what they write is not on
    the branch that was copied.

    If a worker dies for good or the deletion fails, the branch lives until it expires.

    :param group_id: ID of the task group
    :param ttl: how long the branch lives at most, up to 30 days: ``timedelta`` or seconds (templated)
    :param expire_time: until when it lives at most, in place of ``ttl``: a ``datetime`` with a time zone, or ISO 8601
        (templated)
    :param source: branch to copy; by default the project's default branch (templated)
    :param source_time: copy the data that it had at this time, within the project's history (templated)
    :param source_lsn: copy the data that it had at this log sequence number (templated)
    :param source_snapshot: snapshot to copy, in place of a branch (templated)
    :param wait_for_login: begin with the tasks when a login on the branch works; else when the workspace says that the
        branch is ready
    :param keep_on_failure: if a task of the group fails, leave the branch to its expiry, and log its page
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of both tasks, and their
        arguments of ``BaseOperator``, such as ``retries``
    :raises LakebaseSettingsError: unless one of ``ttl`` and ``expire_time`` is given
    """
    if (ttl is None) == (expire_time is None):
        raise LakebaseSettingsError("The branch needs an expiry", hint="Give one of ttl and expire_time.")
    check_flags(keep_on_failure=keep_on_failure)
    group = LakebaseBranchGroup(group_id)
    with group:
        group.create_branch = LakebaseCreateBranchOperator(
            task_id="create_branch",
            ttl=ttl,
            expire_time=expire_time,
            source=source,
            source_time=source_time,
            source_lsn=source_lsn,
            source_snapshot=source_snapshot,
            # What is left of an earlier run of the same task is not what its tasks begin with.
            if_exists="replace",
            wait_for_login=wait_for_login,
            **kwargs,
        )
        delete = _DeleteGroupBranch(
            task_id="delete_branch",
            create_task_id=group.create_branch.task_id,
            keep_on_failure=keep_on_failure,
            **kwargs,
        )
        delete.as_teardown(setups=group.create_branch.as_setup())  # type: ignore[no-untyped-call]
        # A branch may be there although the task that creates it has failed: it waits for a login, too.
        delete.trigger_rule = TriggerRule.ALL_DONE
        with delete:
            yield group


class _DeleteGroupBranch(LakebaseDeleteBranchOperator):
    """Delete the branch that another task of the group has created, whether that has succeeded or not."""

    custom_operator_name = LakebaseDeleteBranchOperator.__name__

    def __init__(self, *, create_task_id: str, keep_on_failure: bool, **kwargs: Any) -> None:
        super().__init__(branch_id="", purge=True, **kwargs)
        self.create_task_id = create_task_id
        self.keep_on_failure = keep_on_failure

    def execute(self, context: Context) -> None:
        """Delete the branch, unless it is kept."""
        with fail_without_retry():
            self.branch_id = id_of_task(context, "branch_id", self.create_task_id)
            if self.keep_on_failure and self._has_failed(context):
                self._log_kept()
            else:
                super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Go on after a wait in the triggerer."""
        self.branch_id = id_of_task(context, "branch_id", self.create_task_id)
        super().execute_complete(context, event)

    def _has_failed(self, context: Context) -> bool:
        """Return whether a task of the group has failed, in a mapped group one of the same map index."""
        ti, group_id = context["ti"], self.create_task_id.rpartition(".")[0]
        index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
        if AIRFLOW_V_3_0_PLUS:
            found = ti.get_task_states(ti.dag_id, map_index=index, task_group_id=group_id, run_ids=[ti.run_id])
            return any(state in _FAILED for state in found.get(ti.run_id, {}).values())
        run: Any = context["dag_run"]
        instances = run.get_task_instances(state=_FAILED)  # goes with Airflow 2
        return any(each.task_id.startswith(f"{group_id}.") and index in (None, each.map_index) for each in instances)

    def _log_kept(self) -> None:
        name = self.hook.branch_name(self.branch_id)
        if branch := find(self.hook.workspace, name):
            expiry, page = status_of(branch).get("expire_time"), find_branch_page(self.hook, name)
            self.log.warning("A task has failed. Branch %s is kept until %s: %s", name, expiry, page)
