"""Projects: creating, changing and deleting them, with everything in them."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.endpoint_specs import Size
from airflow_provider_lakebase.emulator.model.errors import Json, already_exists, invalid, not_found, refused
from airflow_provider_lakebase.emulator.model.fields import (
    SET_BY_THE_SERVICE,
    read_flag,
    read_id,
    read_object,
    timestamp,
)
from airflow_provider_lakebase.emulator.model.operations import EMPTY, Operation
from airflow_provider_lakebase.emulator.model.permissions import CAN_MANAGE, AccessList
from airflow_provider_lakebase.emulator.model.project_specs import FIXED, PATHS, Settings, changed, flat, initial_size
from airflow_provider_lakebase.emulator.model.resources import Resources, id_of
from airflow_provider_lakebase.emulator.model.update_masks import masked_fields

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.branches import Branch
    from airflow_provider_lakebase.emulator.model.identities import Principal
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

DELETED_DAYS = 7

_SAVED = ("name", "uid", "owner", "default_branch", "created_at", "updated_at", "deleted_at")
_BODY = {"spec", "initial_branch_spec", "initial_endpoint_spec", "project_id", *SET_BY_THE_SERVICE}


class Project:
    """A project."""

    def __init__(self, name: str, workspace: Workspace, *, owner: str, settings: Settings, access: AccessList) -> None:
        self.name = name
        self.uid = str(uuid.uuid4())
        self.owner = owner
        self._workspace = workspace
        self.settings = settings
        self.access = access
        self.default_branch = f"{name}/branches/production"
        self.created_at = self.updated_at = workspace.clock()
        self.deleted_at: float | None = None

    @property
    def endpoint_size(self) -> Size:
        """Return the size of a new endpoint."""
        return self.settings.endpoint_size

    @property
    def native_login(self) -> bool:
        """Return whether roles with a password may log in, as the project's or the emulator's settings say."""
        return self.settings.native_login or self._workspace.behaviour.native_login

    @property
    def purge_at(self) -> float | None:
        """Return when it is removed for good, after its deletion."""
        return None if self.deleted_at is None else self.deleted_at + DELETED_DAYS * 86400

    def json(self) -> Json:
        """Return it as the API does."""
        found: Json = {
            "name": self.name,
            "uid": self.uid,
            "project_id": id_of(self.name),
            "create_time": timestamp(self.created_at),
            "update_time": timestamp(self.updated_at),
            "status": {
                "project_id": id_of(self.name),
                "default_branch": self.default_branch,
                "pg_version": self._workspace.pg_version,
                "owner": self.owner,
                "branch_logical_size_limit_bytes": 8 * 2**40,
                "synthetic_storage_size_bytes": 0,
                **self.settings.json(),
                "enable_pg_native_login": self.native_login,
            },
        }
        if self.deleted_at is not None and self.purge_at is not None:
            found |= {"delete_time": timestamp(self.deleted_at), "purge_time": timestamp(self.purge_at)}
        return found

    def saved(self) -> Json:
        """Return all of it as JSON."""
        plain = {name: getattr(self, name) for name in _SAVED}
        return {**plain, "settings": asdict(self.settings), "access": self.access.saved()}

    @classmethod
    def restored(cls, saved: Json, workspace: Workspace) -> Project:
        """Return a saved one."""
        access = AccessList.restored(workspace.identities, saved["access"])
        settings = Settings.restored(saved["settings"])
        project = cls(saved["name"], workspace, owner=saved["owner"], settings=settings, access=access)
        vars(project).update({name: saved[name] for name in _SAVED})
        return project


class Projects(Resources[Project]):
    """The projects of the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("project")
        self._workspace = workspace

    def require_ready(self, name: str) -> Project:
        """Return a project that is not deleted; raise ``ApiError`` 404 otherwise."""
        project = self.require(name)
        if project.deleted_at is not None:
            raise not_found(self.kind)
        return project

    def add_first(self, name: str, suspend_timeout: float) -> Project:
        """Add the project that the emulator begins with. Its owner is set later."""
        access = AccessList(self._workspace.identities, came_with_emulator=True)
        project = self._new(name, Settings(id_of(name), Size(suspend_timeout)), "", access)
        self.add(project)
        return project

    def create(self, project_id: str | None, body: Json, owner: Principal) -> Operation:
        """Create a project with a branch ``production``, which has an endpoint ``primary``."""
        name = f"projects/{read_id('project_id', project_id)}"
        read_object("project", body, _BODY)
        spec = body.get("spec") or {}
        fields = flat(spec)
        self._require_version(spec.get("pg_version", self._workspace.pg_version))
        base = Settings(id_of(name), Size(self._workspace.suspend_timeout))
        settings = changed(base, fields)
        if spec.get("default_branch"):
            raise invalid("Field 'project.spec.default_branch' cannot be set before the branch exists")
        branch_spec = read_object("project.initial_branch_spec", body.get("initial_branch_spec"), {"is_protected"})
        is_protected = read_flag("project.initial_branch_spec.is_protected", branch_spec.get("is_protected", False))
        size = initial_size(settings.endpoint_size, body.get("initial_endpoint_spec") or {})
        access = AccessList(self._workspace.identities, came_with_emulator=False)
        access.grant(owner, CAN_MANAGE)
        with self._workspace.lock:
            if name in self:
                raise already_exists(self.kind, " in the workspace")
            project = self._new(name, settings, owner.role, access)
            branches: list[Branch] = []

            def begin() -> None:
                self.add(project)
                branches.append(self._workspace.branches.add_root(project, is_protected=is_protected))

            return self._workspace.operations.submit(
                name,
                "create_project",
                lambda: self._provision(project, branches[0], size, owner),
                begin=begin,
                undo=lambda: self._purge(project),
            )

    def _new(self, name: str, settings: Settings, owner: str, access: AccessList) -> Project:
        return Project(name, self._workspace, owner=owner, settings=settings, access=access)

    def _require_version(self, version: object) -> None:
        if version != self._workspace.pg_version:
            raise invalid(
                f"Field 'project.spec.pg_version' must be {self._workspace.pg_version}, the version that this emulator "
                f"was started with, not {version!r}"
            )

    def _provision(self, project: Project, branch: Branch, size: Size, owner: Principal) -> Json:
        self._workspace.clusters.create(branch.uid)
        self._workspace.roles.make_owner(branch, owner)
        self._workspace.endpoints.add_primary(branch, size)
        return project.json()

    # -- update

    def update(self, name: str, body: Json, mask: str | None) -> Operation:
        """Change the fields that the mask names."""
        fields = masked_fields(body, mask, PATHS, fixed=FIXED, lists={"spec.custom_tags"})
        read_object("project", body, _BODY)
        flat(body.get("spec") or {})
        project = self.require_ready(name)
        changed(project.settings, fields)
        default = fields.get("spec.default_branch")
        if default is not None:
            self._require_default(project, str(default))

        def work() -> Json:
            project.settings = changed(project.settings, fields)
            project.default_branch = str(default or project.default_branch)
            project.updated_at = self._workspace.clock()
            return project.json()

        return self._workspace.operations.submit(name, "update_project", work)

    def _require_default(self, project: Project, name: str) -> None:
        if not name.startswith(f"{project.name}/branches/"):
            raise invalid(f"Field 'spec.default_branch' must name a branch of {project.name}, not {name!r}")
        if self._workspace.branches.require_ready(name).expires_at is not None:
            raise refused("a branch that expires cannot be the default branch")

    # -- delete

    def delete(self, name: str, *, purge: bool) -> Operation:
        """Delete a project and all that is in it: for good, or so that it can be undeleted for a week."""
        project = self.require(name) if purge else self.require_ready(name)
        protected = [each.name for each in self._workspace.branches.of(name) if each.is_protected]
        if protected:
            raise refused(f"cannot delete a project with a protected branch: {protected[0]}")
        work = self._purge if purge else self._delete
        return self._workspace.operations.submit(name, "delete_project", lambda: work(project))

    def undelete(self, name: str) -> Operation:
        """Restore a deleted project."""
        project = self.require(name)
        if project.deleted_at is None:
            raise refused(f"project {name} is not deleted")
        return self._workspace.operations.submit(name, "undelete_project", lambda: self._undelete(project))

    def expire(self) -> None:
        """Remove the deleted projects whose time has come."""
        for project in list(self.values()):
            is_due = project.purge_at is not None and project.purge_at <= self._workspace.clock()
            if is_due and not self._workspace.operations.is_busy(project.name):
                self._purge(project)

    def _delete(self, project: Project) -> Json:
        project.deleted_at = self._workspace.clock()
        for branch in self._workspace.branches.of(project.name):
            self._workspace.branches.close(branch)
        return EMPTY

    def _undelete(self, project: Project) -> Json:
        project.deleted_at = None
        for branch in self._workspace.branches.of(project.name):
            self._workspace.branches.reopen(branch)
        return EMPTY

    def _purge(self, project: Project) -> Json:
        self.discard(project)
        for snapshot in self._workspace.snapshots.of(project.name):
            self._workspace.snapshots.remove(snapshot)
        for branch in self._workspace.branches.of(project.name):
            self._workspace.branches.purge(branch)
        return EMPTY
