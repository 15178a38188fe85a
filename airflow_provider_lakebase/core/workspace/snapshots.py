"""Create snapshots, and change the schedule by which the workspace takes them.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.operations import Operation, create, update
from airflow_provider_lakebase.core.workspace.plans import Notes, Pending, noting
from airflow_provider_lakebase.core.workspace.resources import Resource, find, read, status_of
from airflow_provider_lakebase.exceptions import (
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

log = logging.getLogger(__name__)

REQUESTED = "requested"
"""Note that this task has requested the snapshot, so that one that exists is its own."""


@dataclass(frozen=True)
class CreateSnapshot:
    """Create a snapshot, unless it is there.

    :param resource: resource name
    :param spec: source and expiry, as the API takes them
    """

    resource: str
    spec: Mapping[str, Any]

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step. A snapshot has no state: one that is found counts as complete.

        :raises LakebaseResourceExistsError: if there is one of another branch, or from before the time asked for
        """
        snapshot = find(workspace, self.resource)
        if snapshot is None:
            return self._create(workspace, notes)
        found, wanted = status_of(snapshot).get("source_branch"), self.spec["source_branch"]
        if found and found != wanted:
            raise self._exists(workspace, f"The snapshot is of {found}, not {wanted}")
        if not notes.get(REQUESTED):
            self._check_moment(workspace, snapshot)
        return None

    def _check_moment(self, workspace: Workspace, snapshot: Resource) -> None:
        """Warn of a snapshot that may be of another moment than the one asked for: only its creation is known."""
        time, created = self.spec.get("source_branch_time"), snapshot.get("create_time")
        if time and created and datetime.fromisoformat(created) < datetime.fromisoformat(time):
            raise self._exists(workspace, f"The snapshot was taken at {created}, so it has no data of {time}")
        if moment := time or self.spec.get("source_branch_lsn"):
            log.warning(
                "Snapshot %s exists and is used. The workspace does not tell of what moment its data is: check that it "
                "is of %s, or choose another snapshot_id",
                self.resource,
                moment,
            )

    def _exists(self, workspace: Workspace, problem: str) -> LakebaseResourceExistsError:
        context = workspace.about(self.resource).context
        return LakebaseResourceExistsError(problem, context=context, hint="Choose another snapshot_id.")

    def _create(self, workspace: Workspace, notes: Notes) -> Pending:
        try:
            with noting(notes, REQUESTED):
                return Pending.of(self.resource, create(workspace, self.resource, self.spec))
        except LakebaseResourceExistsError:
            return Pending(self.resource)
        except LakebaseResourceNotFoundError:
            read(workspace, self.spec["source_branch"])  # raises an error that names it, if that is what is missing
            raise


def schedule_of(branch: str) -> str:
    """Return the resource name of a branch's snapshot schedule.

    :param branch: resource name
    """
    return f"{branch}/snapshot-schedule"


def change_cadence(workspace: Workspace, branch: str, field: str, cadence: Mapping[str, Any] | None) -> Operation:
    """Start to change one cadence of a branch's snapshot schedule.

    An update replaces the whole list, so the others are read and sent again: two that run at once may lose one change.

    :param workspace: the workspace
    :param branch: resource name
    :param field: ``daily_schedule``, ``weekly_schedule`` or ``monthly_schedule``
    :param cadence: when, and ``retention``; None removes it
    """
    name = schedule_of(branch)
    others = [each for each in read(workspace, name).get("schedule") or () if field not in each]
    schedule = [*others, dict(cadence)] if cadence else others
    return update(workspace, name, {"schedule": schedule}, "schedule")
