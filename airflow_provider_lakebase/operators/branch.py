"""Create, delete and reset branches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.branches import (
    CreateBranch,
    DeleteBranch,
    IfExists,
    ResetBranch,
    find_primary,
)
from airflow_provider_lakebase.core.workspace.resources import parent_of, read, status_of
from airflow_provider_lakebase.core.workspace.specs import (
    Duration,
    Time,
    check_flags,
    check_if_exists,
    expiry_spec,
    source_spec,
)
from airflow_provider_lakebase.operators._derived_id import id_of_task
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators._operation import LakebaseOperationOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lakebase.core.workspace.plans import Plan


class LakebaseCreateBranchOperator(LakebaseOperationOperator):
    """Create a branch: a copy of the data of another branch, with an endpoint of its own.

    It takes seconds, whatever the size. A branch that exists is used or replaced, or fails the task, as ``if_exists``
    says; one that an earlier try of the task has created is used in any case. A branch that is deleted but keeps its
    name is purged.

    :param branch_id: ID of the branch; by default one derived from DAG, task and run, the same in each try (templated)
    :param ttl: how long the branch lives, at most 30 days: ``timedelta`` or seconds (templated)
    :param expire_time: until when it lives, in place of ``ttl``: a ``datetime`` with a time zone, or ISO 8601
        (templated)
    :param no_expiry: True if it does not expire
    :param source: branch to copy; by default the project's default branch (templated)
    :param source_time: copy the data that it had at this time, within the project's history (templated)
    :param source_lsn: copy the data that it had at this log sequence number (templated)
    :param source_snapshot: snapshot to copy, in place of a branch (templated)
    :param if_exists: ``use`` the branch of that name, ``replace`` it, or ``fail``
    :param wait_for_login: the task is done when a login on the branch works, which wakes its endpoint; else when the
        workspace says that the branch is ready, up to a minute earlier
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "branch_id",
        "ttl",
        "expire_time",
        "source",
        "source_time",
        "source_lsn",
        "source_snapshot",
    )

    def __init__(
        self,
        *,
        branch_id: str | None = None,
        ttl: Duration | None = None,
        expire_time: Time | None = None,
        no_expiry: bool | None = None,
        source: str | None = None,
        source_time: Time | None = None,
        source_lsn: str | None = None,
        source_snapshot: str | None = None,
        if_exists: IfExists = "use",
        wait_for_login: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.branch_id = branch_id
        self.ttl = ttl
        self.expire_time = expire_time
        self.no_expiry = no_expiry
        self.source = source
        self.source_time = source_time
        self.source_lsn = source_lsn
        self.source_snapshot = source_snapshot
        self.if_exists = if_exists
        self.wait_for_login = wait_for_login
        check_flags(no_expiry=no_expiry, wait_for_login=wait_for_login)
        check_if_exists(if_exists)

    def plan(self, context: Context, notes: TaskNotes) -> CreateBranch:
        """Check the arguments, and return the branch to create."""
        branch_id = id_of_task(context, "branch_id") if self.branch_id in (None, "") else self.branch_id
        branch = self.hook.branch_name(branch_id)
        source = source_spec(
            parent_of(branch),
            source=self.source,
            source_time=self.source_time,
            source_lsn=self.source_lsn,
            source_snapshot=self.source_snapshot,
        )
        expiry = expiry_spec(ttl=self.ttl, expire_time=self.expire_time, no_expiry=self.no_expiry)
        return CreateBranch(branch, {**source, **expiry}, self.if_exists, _begun_at(context, notes))

    def needs_login(self) -> bool:
        """Return whether the task is done only when a login works."""
        return self.wait_for_login

    def login_endpoint(self, plan: Plan) -> str:
        """Return the branch's read-write endpoint."""
        return str((find_primary(self.hook.workspace, plan.resource) or {}).get("name"))

    def result(self, plan: CreateBranch, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``branch``, ``endpoint``, ``host``, ``expire_time`` and ``created``."""
        workspace = self.hook.workspace
        branch = read(workspace, plan.resource)
        endpoint = find_primary(workspace, plan.resource) or {}
        return {
            "branch": plan.resource,
            "endpoint": endpoint.get("name"),
            "host": (status_of(endpoint).get("hosts") or {}).get("host"),
            "expire_time": status_of(branch).get("expire_time"),
            "created": plan.is_own(branch, notes),
        }


class LakebaseDeleteBranchOperator(LakebaseOperationOperator):
    """Delete a branch. It is a success if the branch is gone.

    A protected branch, one with child branches, and the default branch are refused.

    :param branch_id: ID or resource name of the branch (templated)
    :param purge: delete it for good; else it can be undeleted for some days, and its name stays taken until a
        LakebaseCreateBranchOperator needs it
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperationOperator.template_fields, "branch_id")
    records_links_first = True

    def __init__(self, *, branch_id: str, purge: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_flags(purge=purge)
        self.branch_id = branch_id
        self.purge = purge

    def plan(self, context: Context, notes: TaskNotes) -> DeleteBranch:
        """Check the arguments, and return the branch to delete."""
        return DeleteBranch(self.hook.branch_name(self.branch_id), self.purge)


class LakebaseResetBranchOperator(LakebaseOperationOperator):
    """Give a branch the data that its parent has now. What was written on the branch is lost.

    The API has no reset, so the branch is purged and created again under its name. Its expiry, its protection and the
    settings of its endpoints are put back. A branch with child branches, one without a parent, and the default branch
    are refused.

    If a try dies, the next one goes on. Before Airflow 3.3 that one does not know how the branch was: it fails if the
    branch does not exist, and logs a warning if it was created or changed after the run began, because its protection,
    endpoint settings and read-only endpoints may be lost.

    :param branch_id: ID or resource name of the branch (templated)
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperationOperator.template_fields, "branch_id")

    def __init__(self, *, branch_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch_id = branch_id

    def plan(self, context: Context, notes: TaskNotes) -> ResetBranch:
        """Check the arguments, and return the branch to reset."""
        return ResetBranch(self.hook.branch_name(self.branch_id), _begun_at(context, notes))

    def result(self, plan: Plan, notes: TaskNotes) -> dict[str, Any]:
        """Return ``branch``, ``endpoint`` and ``host``; the host may differ from the former one."""
        endpoint = find_primary(self.hook.workspace, plan.resource) or {}
        host = (status_of(endpoint).get("hosts") or {}).get("host")
        return {"branch": plan.resource, "endpoint": endpoint.get("name"), "host": host}


def _begun_at(context: Context, notes: TaskNotes) -> datetime | None:
    """Return when the run began, if the try has no notes of those before it: what is younger may be theirs."""
    is_unknown = not notes.outlive_a_try and "dag_run" in context and context["ti"].try_number > 1
    return context["dag_run"].start_date if is_unknown else None
