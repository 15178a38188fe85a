"""Snapshots of branches: clusters at rest. No I/O but that of the clusters."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.branch_sources import Source, read_branch_source
from airflow_provider_lakebase.emulator.model.contents import Contents
from airflow_provider_lakebase.emulator.model.errors import Json, already_exists, not_found, refused
from airflow_provider_lakebase.emulator.model.expiry import CHOICE, read_expiry
from airflow_provider_lakebase.emulator.model.fields import read_id, read_object, read_text, spec_of, timestamp
from airflow_provider_lakebase.emulator.model.operations import EMPTY, Operation
from airflow_provider_lakebase.emulator.model.resources import Resources, id_of

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

MAX_SNAPSHOTS = 10

_SAVED = ("name", "uid", "expires_at", "created_at", "ready", "size")


class Snapshot:
    """A snapshot. Its ``uid`` is also the name of its cluster."""

    def __init__(self, name: str, source: Source, *, expires_at: float | None, now: float) -> None:
        self.name = name
        self.uid = f"snap-{uuid.uuid4().hex[:20]}"
        self.source = source
        self.contents = source.contents.copy()
        self.expires_at = expires_at
        self.created_at = now
        self.ready = False
        self.size = 0

    def json(self) -> Json:
        """Return it as the API does."""
        status: Json = {"source_branch": self.source.branch, "full_size_bytes": self.size}
        if self.expires_at is None:
            status["no_expiry"] = True
        else:
            status["expire_time"] = timestamp(self.expires_at)
        return {
            "name": self.name,
            "uid": self.uid,
            "snapshot_id": id_of(self.name),
            "create_time": timestamp(self.created_at),
            "status": status,
        }

    def saved(self) -> Json:
        """Return all of it as JSON."""
        plain = {name: getattr(self, name) for name in _SAVED}
        return {**plain, "source": self.source.saved(), "contents": self.contents.saved()}

    @classmethod
    def restored(cls, saved: Json, workspace: Workspace) -> Snapshot:
        """Return a saved one."""
        source = Source.restored(saved["source"], workspace.clock)
        snapshot = cls(saved["name"], source, expires_at=None, now=0)
        snapshot.contents = Contents.restored(saved["contents"], workspace.clock)
        vars(snapshot).update({name: saved[name] for name in _SAVED})
        return snapshot


class Snapshots(Resources[Snapshot]):
    """The snapshots of the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("snapshot")
        self._workspace = workspace

    def require_ready(self, name: str) -> Snapshot:
        """Return a snapshot whose data are there; raise ``ApiError`` 404 otherwise."""
        snapshot = self.require(name)
        if not snapshot.ready:
            raise not_found(self.kind)
        return snapshot

    def create(self, parent: str, snapshot_id: str | None, body: Json) -> Operation:
        """Take a snapshot of a root branch, as it is or was."""
        project = self._workspace.projects.require_ready(parent)
        name = f"{parent}/snapshots/{read_id('snapshot_id', snapshot_id)}"
        known = {"source_branch", "source_branch_lsn", "source_branch_time", *CHOICE}
        spec = read_object("snapshot.spec", spec_of("snapshot", body), known)
        branch = read_text("snapshot.spec.source_branch", spec.get("source_branch", ""))
        with self._workspace.lock:
            if name in self:
                raise already_exists(self.kind)
            source = read_branch_source(self._workspace, project, branch, spec)
            if not self._workspace.branches[branch].is_root:
                raise refused(f"snapshots are taken of root branches only, and {branch} has a parent")
            if len(self.of(parent)) >= MAX_SNAPSHOTS:
                raise refused(f"The project has {MAX_SNAPSHOTS} snapshots, which is the limit. Delete one first.")
            now = self._workspace.clock()
            expires_at = (
                read_expiry("snapshot.spec", spec, now, longest=None) if any(each in spec for each in CHOICE) else None
            )
            snapshot = Snapshot(name, source, expires_at=expires_at, now=now)
            return self._workspace.operations.submit(
                name,
                "create_snapshot",
                lambda: self._take(snapshot),
                begin=lambda: self.add(snapshot),
                undo=lambda: self.remove(snapshot),
                source=branch,
            )

    def delete(self, name: str) -> Operation:
        """Delete a snapshot. Branches made from it stay."""
        snapshot = self.require(name)
        return self._workspace.operations.submit(name, "delete_snapshot", lambda: self.remove(snapshot))

    def expire(self) -> None:
        """Remove the snapshots whose time has come."""
        now = self._workspace.clock()
        for snapshot in list(self.values()):
            is_due = snapshot.expires_at is not None and snapshot.expires_at <= now
            if is_due and not self._workspace.operations.is_busy(snapshot.name):
                self.remove(snapshot)

    def _take(self, snapshot: Snapshot) -> Json:
        snapshot.source.copy(self._workspace.clusters, snapshot.uid)
        snapshot.size = self._workspace.clusters.size(snapshot.uid)
        snapshot.ready = True
        return snapshot.json()

    def remove(self, snapshot: Snapshot) -> Json:
        """Remove a snapshot and its cluster."""
        self.discard(snapshot)
        self._workspace.clusters.delete(snapshot.uid)
        return EMPTY
