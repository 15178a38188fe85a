"""The branches of projects: creating, changing and deleting them. Their data is in clusters."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.branch_sources import Source, read_source
from airflow_provider_lakebase.emulator.model.contents import Contents
from airflow_provider_lakebase.emulator.model.errors import (
    Json,
    already_exists,
    invalid,
    managed_by_parent,
    not_found,
    refused,
)
from airflow_provider_lakebase.emulator.model.expiry import CHOICE, read_expiry
from airflow_provider_lakebase.emulator.model.fields import read_flag, read_id, read_object, spec_of, timestamp
from airflow_provider_lakebase.emulator.model.operations import EMPTY, Operation
from airflow_provider_lakebase.emulator.model.resources import Resources, id_of, parent_of
from airflow_provider_lakebase.emulator.model.update_masks import masked_fields

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.projects import Project
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

MAX_UNARCHIVED = 10
DELETED_DAYS = 7

_SOURCE = ("source_branch", "source_branch_lsn", "source_branch_time", "source_snapshot")
_SPEC = {"is_protected", *CHOICE, *_SOURCE}
_EXPIRATION = tuple(f"spec.{name}" for name in CHOICE)
_PATHS = {
    "spec.is_protected": ("spec.is_protected",),
    "spec.expiration": _EXPIRATION,
    "spec": ("spec.is_protected", *_EXPIRATION),
}
_SAVED = (
    "name",
    "uid",
    "is_protected",
    "expires_at",
    "deleted_at",
    "snapshot_schedule",
    "created_at",
    "updated_at",
    "state",
    "state_changed_at",
)
_FIXED = {f"spec.{name}": "the source of a branch cannot change" for name in _SOURCE}


class Branch:
    """A branch. Its ``uid`` is also the name of its cluster."""

    def __init__(self, name: str, project: Project, *, clock: Callable[[], float]) -> None:
        self.name = name
        self.project = project
        self.uid = f"br-{uuid.uuid4().hex[:20]}"
        self.source: Source | None = None
        self.is_protected = False
        self.expires_at: float | None = None
        self.deleted_at: float | None = None
        self.snapshot_schedule: list[Json] = []
        self.contents = Contents(clock)
        self.created_at = self.updated_at = clock()
        self.move("INIT", self.created_at)

    @property
    def is_default(self) -> bool:
        """Return whether it is the project's default branch."""
        return self.project.default_branch == self.name

    @property
    def is_root(self) -> bool:
        """Return whether it came with the project: it has no source."""
        return self.source is None

    @property
    def purge_at(self) -> float | None:
        """Return when it is removed for good, after its deletion or its expiry."""
        if self.deleted_at is None:
            return self.expires_at
        return self.deleted_at + DELETED_DAYS * 86400

    def move(self, state: str, now: float) -> None:
        """Enter a state."""
        self.state = state
        self.state_changed_at = self.updated_at = now
        self.deleted_at = now if state == "DELETED" else None

    def json(self, size: int = 0) -> Json:
        """Return it as the API does, with the size of its data in bytes."""
        status: Json = {
            "branch_id": id_of(self.name),
            "current_state": self.state,
            "default": self.is_default,
            "is_protected": self.is_protected,
            "logical_size_bytes": size,
            "state_change_time": timestamp(self.state_changed_at),
            **(self.source.json() if self.source else {}),
        }
        if self.state == "INIT":
            status["pending_state"] = "READY"
        if self.expires_at is not None:
            status["expire_time"] = timestamp(self.expires_at)
        if self.deleted_at is not None and self.purge_at is not None:
            status |= {"delete_time": timestamp(self.deleted_at), "purge_time": timestamp(self.purge_at)}
        return {
            "name": self.name,
            "uid": self.uid,
            "branch_id": id_of(self.name),
            "parent": self.project.name,
            "create_time": timestamp(self.created_at),
            "update_time": timestamp(self.updated_at),
            "status": status,
        }

    def saved(self) -> Json:
        """Return all of it as JSON."""
        return {
            **{name: getattr(self, name) for name in _SAVED},
            "project": self.project.name,
            "source": self.source.saved() if self.source else None,
            "contents": self.contents.saved(),
        }

    @classmethod
    def restored(cls, saved: Json, workspace: Workspace) -> Branch:
        """Return a saved one."""
        branch = cls(saved["name"], workspace.projects[saved["project"]], clock=workspace.clock)
        branch.source = Source.restored(saved["source"], workspace.clock) if saved["source"] else None
        branch.contents = Contents.restored(saved["contents"], workspace.clock)
        vars(branch).update({name: saved[name] for name in _SAVED})
        return branch


class Branches(Resources[Branch]):
    """The branches of the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("branch")
        self._workspace = workspace

    def require_ready(self, name: str) -> Branch:
        """Return a branch that is not deleted; raise ``ApiError`` 404 otherwise."""
        self._workspace.projects.require_ready(name.split("/branches/")[0])
        branch = self.require(name)
        if branch.deleted_at is not None:
            raise not_found(self.kind)
        return branch

    def children(self, branch: Branch) -> list[Branch]:
        """Return its child branches that are not deleted."""
        return [each for each in self._live(branch.project) if each.source and each.source.branch == branch.name]

    def json(self, branch: Branch) -> Json:
        """Return a branch as the API does, with the size of its data."""
        return branch.json(self._workspace.clusters.size(branch.uid) if branch.state != "INIT" else 0)

    # -- create

    def create(self, parent: str, branch_id: str | None, body: Json, *, replace_existing: bool = False) -> Operation:
        """Create a branch with the data of its source, and its endpoint ``primary``."""
        project = self._workspace.projects.require_ready(parent)
        name = f"{parent}/branches/{read_id('branch_id', branch_id)}"
        spec = read_object("branch.spec", spec_of("branch", body), _SPEC)
        with self._workspace.lock:
            existing = self.get(name)
            if existing and replace_existing and existing.deleted_at is None:
                return self._change(existing, "create_branch", spec)
            if existing:
                raise already_exists(self.kind)
            self._require_room(project)
            branch = Branch(name, project, clock=self._workspace.clock)
            branch.expires_at = read_expiry("branch.spec", spec, branch.created_at)
            source = branch.source = read_source(self._workspace, project, spec)
            if spec.get("is_protected") is not None:
                branch.is_protected = read_flag("branch.spec.is_protected", spec["is_protected"])
                self._check(branch, branch.is_protected, branch.expires_at)
            return self._workspace.operations.submit(
                name,
                "create_branch",
                lambda: self._provision(branch, source),
                begin=lambda: self.add(branch),
                undo=lambda: self.purge(branch),
                source=source.branch or source.snapshot,
            )

    def add_root(self, project: Project, *, is_protected: bool = False) -> Branch:
        """Add the branch that a new project has. It is empty and gets its cluster with ``provision_root``."""
        branch = Branch(project.default_branch, project, clock=self._workspace.clock)
        branch.is_protected = is_protected
        branch.move("READY", branch.created_at)
        self.add(branch)
        return branch

    def add_copy(self, name: str, project: Project) -> None:
        """Add a copy of the default branch without any endpoint. It gets its cluster with its first one."""
        branch = Branch(name, project, clock=self._workspace.clock)
        branch.source = read_source(self._workspace, project, {})
        branch.move("READY", branch.created_at)
        self.add(branch)

    def _provision(self, branch: Branch, source: Source) -> Json:
        source.copy(self._workspace.clusters, branch.uid)
        branch.contents = source.contents.copy()
        if source.is_protected:
            self._workspace.roles.renew_passwords(branch)
        self._workspace.endpoints.add_primary(branch, branch.project.endpoint_size)
        branch.move("READY", self._workspace.clock())
        return self.json(branch)

    def _require_room(self, project: Project) -> None:
        if len(self._live(project)) >= MAX_UNARCHIVED:
            raise refused(
                f"The project has {MAX_UNARCHIVED} unarchived branches, which is the limit. Delete one first."
            )

    # -- update

    def update(self, name: str, body: Json, mask: str | None) -> Operation:
        """Change the fields that the mask names."""
        fields = masked_fields(body, mask, _PATHS, fixed=_FIXED)
        read_object("branch.spec", spec_of("branch", body), _SPEC)
        branch = self.require_ready(name)
        with self._workspace.lock:
            spec = {path.removeprefix("spec."): value for path, value in fields.items()}
            return self._change(branch, "update_branch", spec)

    def _change(self, branch: Branch, method: str, spec: Json) -> Operation:
        """Check what a spec changes now, and change it when the operation runs."""
        if any(spec.get(name) is not None for name in _SOURCE):
            given = {name: spec[name] for name in _SOURCE if spec.get(name) is not None}
            if not given.items() <= (branch.source.json() if branch.source else {}).items():
                raise invalid("the source of a branch cannot change")
        protected, expires_at = branch.is_protected, branch.expires_at
        if spec.get("is_protected") is not None:
            protected = read_flag("branch.spec.is_protected", spec["is_protected"])
        if any(spec.get(name) is not None for name in CHOICE):
            expires_at = read_expiry("branch.spec", spec, self._workspace.clock())
        self._check(branch, protected, expires_at)

        def work() -> Json:
            branch.is_protected, branch.expires_at = protected, expires_at
            branch.updated_at = self._workspace.clock()
            return self.json(branch)

        return self._workspace.operations.submit(branch.name, method, work)

    def _check(self, branch: Branch, protected: bool, expires_at: float | None) -> None:
        """Raise ``ApiError`` if a branch may not be protected, or may not expire."""
        if protected and expires_at is not None:
            raise refused("a protected branch cannot expire")
        if expires_at is not None and branch.is_default:
            raise refused("the default branch cannot expire")
        if expires_at is not None and self.children(branch):
            raise refused("a branch with children cannot expire")
        for other in self._live(branch.project) if protected else ():
            if other.is_protected and other is not branch:
                raise refused(f"a project has one protected branch at most, and {other.name} is protected")

    # -- delete

    def delete(self, name: str, *, purge: bool) -> Operation:
        """Delete a branch: for good, or so that it can be undeleted for a week."""
        self._workspace.projects.require_ready(parent_of(name))
        branch = self.require(name) if purge else self.require_ready(name)
        if branch.is_protected:
            raise refused("cannot delete protected branch")
        if branch.is_root or branch.is_default:
            raise managed_by_parent(
                f"Cannot delete root branch '{name}'. Root branches cannot be deleted independently."
            )
        children = self.children(branch)
        if children:
            raise refused(f"cannot delete a branch that has children: {', '.join(each.name for each in children)}")
        work = self.purge if purge else self._delete
        return self._workspace.operations.submit(name, "delete_branch", lambda: work(branch))

    def undelete(self, name: str) -> Operation:
        """Restore a deleted branch."""
        self._workspace.projects.require_ready(parent_of(name))
        branch = self.require(name)
        if branch.deleted_at is None:
            raise refused(f"branch {name} is not deleted")
        if branch.expires_at is not None and branch.expires_at <= self._workspace.clock():
            raise refused(f"branch {name} has expired since it was deleted")
        self._require_room(branch.project)
        return self._workspace.operations.submit(name, "undelete_branch", lambda: self._undelete(branch))

    def expire(self) -> None:
        """Remove the branches whose time has come."""
        now = self._workspace.clock()
        for branch in list(self.values()):
            is_due = branch.purge_at is not None and branch.purge_at <= now
            if is_due and not self._workspace.operations.is_busy(branch.name):
                self.purge(branch)

    def _delete(self, branch: Branch) -> Json:
        self.close(branch)
        branch.move("DELETED", self._workspace.clock())
        return EMPTY

    def _undelete(self, branch: Branch) -> Json:
        branch.move("READY", self._workspace.clock())
        self.reopen(branch)
        return EMPTY

    def is_closed(self, name: str) -> bool:
        """Return whether logins to a branch are refused: it, or its project, is deleted."""
        branch = self[name]
        return branch.deleted_at is not None or branch.project.deleted_at is not None

    def close(self, branch: Branch) -> None:
        """Refuse logins to a branch."""
        for endpoint in self._workspace.endpoints.of(branch.name):
            self._workspace.computes.close(endpoint)

    def reopen(self, branch: Branch) -> None:
        """Accept logins to a branch again, unless it is deleted."""
        for endpoint in self._workspace.endpoints.of(branch.name) if branch.deleted_at is None else ():
            self._workspace.computes.open(endpoint)

    def purge(self, branch: Branch) -> Json:
        """Remove a branch, its endpoints and its cluster. It is gone at once, also for logins."""
        self.discard(branch)
        for endpoint in self._workspace.endpoints.of(branch.name):
            self._workspace.endpoints.remove(endpoint)
        self._workspace.change_feeds.discard_of(branch.name)
        self._workspace.clusters.delete(branch.uid)
        return EMPTY

    def purge_tree(self, name: str) -> None:
        """Remove a branch and those made from it, whatever their state; do nothing if it does not exist."""
        branch = self.get(name)
        if branch:
            for other in self.of(branch.project.name):
                if other.source and other.source.branch == name:
                    self.purge_tree(other.name)
            self.purge(branch)

    def _live(self, project: Project) -> list[Branch]:
        return [each for each in self.of(project.name) if each.deleted_at is None]
