"""Create and delete snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.plans import DeleteResource
from airflow_provider_lakebase.core.workspace.resources import parent_of, read, status_of
from airflow_provider_lakebase.core.workspace.snapshots import REQUESTED, CreateSnapshot
from airflow_provider_lakebase.core.workspace.specs import Duration, Time, expiry_spec, source_spec
from airflow_provider_lakebase.operators._derived_id import id_of_task
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators._operation import LakebaseOperationOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseCreateSnapshotOperator(LakebaseOperationOperator):
    """Create a snapshot of a branch: its data, to go back to. A snapshot that exists is used. Its storage is billed.

    The workspace does not tell of what moment a snapshot is. So with ``source_time`` or ``source_lsn``, one that exists
    is used with a warning, or refused if it was taken before ``source_time``.

    To go back, create a branch from it: ``LakebaseCreateBranchOperator(source_snapshot=…)``.

    :param snapshot_id: ID of the snapshot; by default one derived from DAG, task and run, the same in each try
        (templated)
    :param source: ID or resource name of the branch, which must be a root branch; by default that of the connection's
        endpoint (templated)
    :param ttl: how long it is kept: ``timedelta`` or seconds (templated)
    :param expire_time: until when it is kept, in place of ``ttl``: a ``datetime`` with a time zone, or ISO 8601
        (templated)
    :param no_expiry: True if it does not expire
    :param source_time: of the data that the branch had at this time, within the project's history (templated)
    :param source_lsn: of the data that the branch had at this log sequence number (templated)
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "snapshot_id",
        "source",
        "ttl",
        "expire_time",
        "source_time",
        "source_lsn",
    )

    def __init__(
        self,
        *,
        snapshot_id: str | None = None,
        source: str | None = None,
        ttl: Duration | None = None,
        expire_time: Time | None = None,
        no_expiry: bool | None = None,
        source_time: Time | None = None,
        source_lsn: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.snapshot_id = snapshot_id
        self.source = source
        self.ttl = ttl
        self.expire_time = expire_time
        self.no_expiry = no_expiry
        self.source_time = source_time
        self.source_lsn = source_lsn

    def plan(self, context: Context, notes: TaskNotes) -> CreateSnapshot:
        """Check the arguments, and return the snapshot to create."""
        source = parent_of(self.hook.endpoint_name()) if self.source in (None, "") else self.source
        snapshot_id = id_of_task(context, "snapshot_id") if self.snapshot_id in (None, "") else self.snapshot_id
        name = self.hook.snapshot_name(snapshot_id)
        expiry = expiry_spec(ttl=self.ttl, expire_time=self.expire_time, no_expiry=self.no_expiry, longest=None)
        data = source_spec(parent_of(name), source=source, source_time=self.source_time, source_lsn=self.source_lsn)
        return CreateSnapshot(name, {**data, **expiry})

    def page_of(self, plan: CreateSnapshot) -> str:  # type: ignore[override]
        """Return the branch that the snapshot is of."""
        return str(plan.spec["source_branch"])

    def result(self, plan: CreateSnapshot, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``snapshot``, ``source``, ``expire_time`` and ``created``: whether this task has created it."""
        return {
            "snapshot": plan.resource,
            "source": plan.spec["source_branch"],
            "expire_time": status_of(read(self.hook.workspace, plan.resource)).get("expire_time"),
            "created": bool(notes.get(REQUESTED)),
        }


class LakebaseDeleteSnapshotOperator(LakebaseOperationOperator):
    """Delete a snapshot. It is a success if the snapshot is gone. Branches that were created from it stay.

    :param snapshot_id: ID or resource name of the snapshot (templated)
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperationOperator.template_fields, "snapshot_id")
    # The workspace's pages are those of branches.
    operator_extra_links = ()

    def __init__(self, *, snapshot_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.snapshot_id = snapshot_id

    def plan(self, context: Context, notes: TaskNotes) -> DeleteResource:
        """Check the arguments, and return the snapshot to delete."""
        return DeleteResource(self.hook.snapshot_name(self.snapshot_id))

    def page_of(self, plan: DeleteResource) -> None:  # type: ignore[override]
        """Return None: a snapshot has no page of its own."""
