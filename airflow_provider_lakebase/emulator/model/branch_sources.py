"""The source of a new branch: a branch, as it is or was, or a snapshot. No I/O but that of the clusters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.contents import Contents
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, invalid, refused
from airflow_provider_lakebase.emulator.model.fields import read_choice, read_text, read_time, timestamp

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.data_plane import Clusters
    from airflow_provider_lakebase.emulator.model.projects import Project
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True)
class Source:
    """Where a copy comes from.

    :param cluster: the name of the cluster to copy
    :param contents: what belongs to its data
    :param branch: the name of the branch to which the cluster belongs, or None
    :param snapshot: the name of the snapshot to which the cluster belongs, or None
    :param time: the moment to copy, in seconds since 1970, or None
    :param lsn: the log sequence number to copy, or None
    :param is_protected: whether it is a protected branch
    """

    cluster: str
    contents: Contents
    branch: str | None = None
    snapshot: str | None = None
    time: float | None = None
    lsn: str | None = None
    is_protected: bool = False

    def copy(self, clusters: Clusters, target: str) -> None:
        """Copy the cluster; raise ``ApiError`` if the moment is outside of its history."""
        try:
            clusters.copy(self.cluster, target, time=self.time, lsn=self.lsn)
        except ValueError as error:
            raise invalid(str(error)) from None

    def json(self) -> Json:
        """Return the fields of a status that name the source."""
        found: Json = {"source_branch": self.branch, "source_snapshot": self.snapshot, "source_branch_lsn": self.lsn}
        if self.time is not None:
            found["source_branch_time"] = timestamp(self.time)
        return {name: value for name, value in found.items() if value is not None}

    def saved(self) -> Json:
        """Return it as JSON, without the contents, which are needed only until the copy exists."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "contents"}

    @classmethod
    def restored(cls, saved: Json, clock: Callable[[], float]) -> Source:
        """Return a saved one."""
        return cls(contents=Contents(clock), **saved)


def read_source(workspace: Workspace, project: Project, spec: Json) -> Source:
    """Return the source that a branch's spec names; by default the project's default branch, as it is now.

    Raise ``ApiError`` if it does not exist, or if the moment lies outside of what it keeps.
    """
    if spec.get("source_snapshot") is not None:
        return _snapshot(workspace, project, spec)
    name = read_text("spec.source_branch", spec.get("source_branch") or project.default_branch)
    source = read_branch_source(workspace, project, name, spec)
    if workspace.branches[str(source.branch)].expires_at is not None:
        raise refused("a branch that expires cannot have children")
    return source


def read_branch_source(workspace: Workspace, project: Project, name: str, spec: Json) -> Source:
    """Return a branch as a source, at the time or log sequence number that the spec gives."""
    if not name.startswith(f"{project.name}/branches/"):
        raise invalid(f"Field 'source_branch' must name a branch of {project.name}, not {name!r}")
    branch = workspace.branches.require_ready(name)
    if branch.state != "READY":
        raise ApiError(409, "ABORTED", f"{name} is not ready: its state is {branch.state}.")
    source = Source(branch.uid, branch.contents, branch=name, is_protected=branch.is_protected)
    point = read_choice("spec", spec, ("source_branch_time", "source_branch_lsn"))
    if point == "source_branch_time":
        return replace(source, time=_time(workspace, project, branch.uid, spec[point]))
    if point == "source_branch_lsn":
        return replace(source, lsn=_lsn(workspace, branch.uid, spec[point]))
    return source


def _snapshot(workspace: Workspace, project: Project, spec: Json) -> Source:
    for name in ("source_branch", "source_branch_lsn", "source_branch_time"):
        if spec.get(name) is not None:
            raise invalid(f"Field 'spec.{name}' must be empty if 'spec.source_snapshot' is set")
    name = read_text("spec.source_snapshot", spec["source_snapshot"])
    if not name.startswith(f"{project.name}/snapshots/"):
        raise invalid(f"Field 'spec.source_snapshot' must name a snapshot of {project.name}, not {name!r}")
    snapshot = workspace.snapshots.require_ready(name)
    return Source(snapshot.uid, snapshot.contents, snapshot=name)


def _time(workspace: Workspace, project: Project, cluster: str, value: object) -> float:
    moment, now = read_time("spec.source_branch_time", value), workspace.clock()
    oldest = max(workspace.clusters.oldest_time(cluster), now - project.settings.history_seconds)
    if not oldest <= moment <= now:
        raise invalid(
            f"Field 'spec.source_branch_time' is outside of the branch's history, which is from {timestamp(oldest)} "
            f"to {timestamp(now)}"
        )
    return moment


def _lsn(workspace: Workspace, cluster: str, value: object) -> str:
    lsn = str(value)
    if not _LSN.fullmatch(lsn):
        raise invalid(f"Field 'spec.source_branch_lsn' is not a log sequence number such as '0/16B3748': {lsn!r}")
    current = workspace.clusters.current_lsn(cluster)
    if _number(lsn) > _number(current):
        raise invalid(f"Field 'spec.source_branch_lsn' is outside of the branch's history, which ends at {current}")
    return lsn


def _number(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)
