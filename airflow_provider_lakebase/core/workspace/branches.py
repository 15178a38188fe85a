"""Create, delete and reset branches.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_lakebase.core.workspace.endpoint_changes import endpoint_settings
from airflow_provider_lakebase.core.workspace.operations import create, delete, undelete, update
from airflow_provider_lakebase.core.workspace.plans import Notes, Pending, noting
from airflow_provider_lakebase.core.workspace.resources import (
    Resource,
    find,
    is_deleted,
    is_settled,
    list_all,
    parent_of,
    read,
    status_of,
)
from airflow_provider_lakebase.core.workspace.specs import update_paths
from airflow_provider_lakebase.exceptions import (
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceRefusedError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

log = logging.getLogger(__name__)

IfExists = Literal["use", "replace", "fail"]
READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"
REQUESTED = "requested"
"""Note that this task has requested the branch, so that one that exists is its own."""
_FORMER = "former"
_GONE = "gone"
"""Note that the branch to reset was seen to be gone, so that one that exists has the data that it is to have."""
_COMPARED = ("source_branch", "source_branch_time", "source_branch_lsn", "source_snapshot")


@dataclass(frozen=True)
class CreateBranch:
    """Create a branch, unless it is there.

    :param resource: resource name
    :param spec: source and expiry, as the API takes them
    :param if_exists: what to do with a branch of that name which this task has not created
    :param begun_at: when the task's run began: a branch that is younger is the task's own. None if notes outlive a
        process, which then tell that
    """

    resource: str
    spec: Mapping[str, Any]
    if_exists: IfExists = "use"
    begun_at: datetime | None = None

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseResourceExistsError: for ``if_exists="fail"``, and for ``"use"`` if it has another source
        :raises LakebaseError: for ``"replace"``, before the branch is deleted, if it or its source does not allow that
        """
        branch = find(workspace, self.resource)
        if branch is None:
            return self._create(workspace, notes)
        if not is_settled(branch):
            return Pending(self.resource)
        if not self.is_own(branch, notes):
            if self.if_exists == "replace":
                require_deletable(workspace, branch)
                require_source(workspace, self.resource, self.spec)
                return _purge(workspace, self.resource)
            self._require_usable(workspace, branch)
        # Its endpoint appears together with it; but nobody promises that.
        return None if find_primary(workspace, self.resource) else Pending(self.resource)

    def is_own(self, branch: Resource, notes: Notes) -> bool:
        """Return whether this task has created the branch, in this try or an earlier one.

        :param branch: the branch
        :param notes: the task's notes
        """
        created_at = branch.get("create_time")
        is_younger = bool(self.begun_at and created_at and datetime.fromisoformat(created_at) >= self.begun_at)
        return bool(notes.get(REQUESTED)) or is_younger

    def _create(self, workspace: Workspace, notes: Notes) -> Pending:
        try:
            with noting(notes, REQUESTED):
                return Pending.of(self.resource, create(workspace, self.resource, self.spec))
        except LakebaseResourceExistsError:
            return purge_deleted(workspace, self.resource) or Pending(self.resource)
        except LakebaseResourceNotFoundError:
            self._require_source(workspace)
            raise

    def _require_source(self, workspace: Workspace) -> None:
        """Raise an error that names the source, if that is what is missing."""
        if source := self.spec.get("source_branch") or self.spec.get("source_snapshot"):
            read(workspace, source)

    def _require_usable(self, workspace: Workspace, branch: Resource) -> None:
        if self.if_exists == "fail":
            problem, hint = "The branch exists", "Choose another branch_id, or if_exists='use' or 'replace'."
            raise LakebaseResourceExistsError(problem, context=workspace.about(self.resource).context, hint=hint)
        status = status_of(branch)
        if difference := _differs(self.spec, status):
            raise LakebaseResourceExistsError(
                f"The branch exists, and {difference}",
                context=workspace.about(self.resource).context,
                hint="Choose another branch_id, or if_exists='replace'.",
            )
        log.info(
            "Branch %s exists and is used; it expires at %s", self.resource, status.get("expire_time") or "no time"
        )


@dataclass(frozen=True)
class DeleteBranch:
    """Delete a branch, unless it is gone.

    :param resource: resource name
    :param purge: delete it for good, so that its name is free; else it can be undeleted for some days
    """

    resource: str
    purge: bool = False

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseWorkspaceRefusedError: for a protected branch, one with children, or the default branch
        """
        branch = find(workspace, self.resource)
        if branch is None:
            return purge_deleted(workspace, self.resource) if self.purge else None
        if not is_settled(branch):
            return Pending(self.resource)
        require_deletable(workspace, branch)
        if self.purge:
            return _purge(workspace, self.resource)
        try:
            return Pending.of(self.resource, delete(workspace, self.resource))
        except LakebaseResourceNotFoundError:  # it has expired meanwhile, or someone else has deleted it
            return None


@dataclass(frozen=True)
class UndeleteBranch:
    """Bring back a branch that was deleted and not purged.

    :param resource: resource name
    """

    resource: str

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step."""
        if not is_deleted(read(workspace, self.resource)):
            return None
        return Pending.of(self.resource, undelete(workspace, self.resource))


@dataclass(frozen=True)
class ResetBranch:
    """Give a branch the data that its parent has now, and keep its name, expiry, protection and endpoint settings.

    The API has no reset: the branch is purged and created again.

    :param resource: resource name
    :param begun_at: when the task's run began, for a retry that has no notes of the tries before it; else None
    """

    resource: str
    begun_at: datetime | None = None

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseWorkspaceRefusedError: for a branch without a parent, with children, or the default branch
        """
        noted: dict[str, Any] | None = notes.get(_FORMER)
        branch = find(workspace, self.resource)
        if branch is None:
            if noted is None:
                raise LakebaseResourceNotFoundError(
                    "The branch to reset does not exist",
                    context=workspace.about(self.resource).context,
                    hint="Create it. {died_midway}",
                )
            notes[_GONE] = True
            return self._create(workspace, noted)
        if not is_settled(branch):
            return Pending(self.resource)
        if noted and notes.get(_GONE):
            return self._put_back(workspace, branch, noted)
        former = self._describe(workspace, branch)
        if noted is None:
            self._warn_if_unknown(branch)
        else:  # others may have changed it, or made it anew, since a failed try has noted it
            is_same = branch.get("uid") == noted["uid"]
            former["is_protected"] |= is_same and noted["is_protected"]  # this the try may have changed itself
            notes[_FORMER] = former
        with noting(notes, _FORMER, former):
            return self._delete(workspace, branch)

    def _warn_if_unknown(self, branch: Resource) -> None:
        """Warn if an earlier try may have changed the branch, which cannot be told from changes by others."""
        times = [datetime.fromisoformat(branch[name]) for name in ("create_time", "update_time") if branch.get(name)]
        if self.begun_at and times and max(times) >= self.begun_at:
            log.warning(
                "Branch %s was created or changed after this run began. If an earlier try of this task has done that "
                "and died midway, the branch's protection, endpoint settings and read-only endpoints from before are "
                "not put back: check them",
                self.resource,
            )

    def _describe(self, workspace: Workspace, branch: Resource) -> dict[str, Any]:
        status = status_of(branch)
        if not status.get("source_branch") or status.get("source_snapshot"):
            raise LakebaseWorkspaceRefusedError(
                "The branch has no parent branch to reset it from",
                context=workspace.about(self.resource).context,
                hint="Only a branch that was created from another branch can be reset.",
            )
        require_not_default(workspace, branch)
        require_no_children(workspace, self.resource)
        require_source(workspace, self.resource, {"source_branch": status["source_branch"]})
        endpoints = list_all(workspace, self.resource, "endpoints")
        expiry = {"expire_time": status["expire_time"]} if status.get("expire_time") else {"no_expiry": True}
        return {
            "uid": branch.get("uid"),
            "spec": {"source_branch": status["source_branch"], **expiry},
            "is_protected": bool(status.get("is_protected")),
            "endpoints": {each["name"]: endpoint_settings(each) for each in endpoints},
        }

    def _delete(self, workspace: Workspace, branch: Resource) -> Pending:
        if status_of(branch).get("is_protected"):
            return _protect(workspace, self.resource, protected=False)
        return _purge(workspace, self.resource)

    def _create(self, workspace: Workspace, former: Mapping[str, Any]) -> Pending:
        try:
            return Pending.of(self.resource, create(workspace, self.resource, former["spec"]))
        except LakebaseResourceExistsError:
            return purge_deleted(workspace, self.resource) or Pending(self.resource)

    def _put_back(self, workspace: Workspace, branch: Resource, former: Mapping[str, Any]) -> Pending | None:
        endpoints = {each["name"]: each for each in list_all(workspace, self.resource, "endpoints")}
        if not endpoints:
            return Pending(self.resource)
        for name, wanted in former["endpoints"].items():
            if name not in endpoints:
                return Pending.of(name, create(workspace, name, wanted))
            if not is_settled(endpoints[name]):
                return Pending(name)
            found = endpoint_settings(endpoints[name])
            if changed := {field: value for field, value in wanted.items() if found.get(field) != value}:
                return Pending.of(name, update(workspace, name, {"spec": changed}, *update_paths(changed)))
        if former["is_protected"] and not status_of(branch).get("is_protected"):
            return _protect(workspace, self.resource, protected=True)
        return None


def find_primary(workspace: Workspace, branch: str) -> dict[str, Any] | None:
    """Return the read-write endpoint of a branch, or None.

    :param workspace: the workspace
    :param branch: resource name
    """
    endpoints = list_all(workspace, branch, "endpoints")
    return next((each for each in endpoints if status_of(each).get("endpoint_type") == READ_WRITE), None)


def require_deletable(workspace: Workspace, branch: Resource) -> None:
    """Refuse to delete a branch that the service would not delete.

    :param workspace: the workspace
    :param branch: the branch
    :raises LakebaseWorkspaceRefusedError: if it is protected, the default branch, or has children
    """
    status, name = status_of(branch), str(branch["name"])
    context = workspace.about(name).context
    if status.get("is_protected"):
        hint = "Remove its protection first{unprotect}."
        raise LakebaseWorkspaceRefusedError("The branch is protected", context=context, hint=hint)
    require_not_default(workspace, branch)
    require_no_children(workspace, name)


def require_not_default(workspace: Workspace, branch: Resource) -> None:
    """Refuse to delete the project's default branch.

    :param workspace: the workspace
    :param branch: the branch
    :raises LakebaseWorkspaceRefusedError: if it is that
    """
    if status_of(branch).get("default"):
        context = workspace.about(str(branch["name"])).context
        hint = "Make another branch the default one first, or delete the project."
        raise LakebaseWorkspaceRefusedError("It is the project's default branch", context=context, hint=hint)


def require_no_children(workspace: Workspace, name: str) -> None:
    """Refuse to delete a branch from which others were created.

    :param workspace: the workspace
    :param name: resource name of the branch
    :raises LakebaseWorkspaceRefusedError: if it has children
    """
    branches = list_all(workspace, parent_of(name), "branches")
    children = [str(each["name"]) for each in branches if status_of(each).get("source_branch") == name]
    if children:
        raise LakebaseWorkspaceRefusedError(
            f"The branch has child branches: {', '.join(children)}",
            context=workspace.about(name).context,
            hint="Delete these first.",
        )


def require_source(workspace: Workspace, name: str, spec: Mapping[str, Any]) -> None:
    """Refuse a source that cannot be copied, as far as that shows without copying it.

    A branch that is to be deleted and created again is lost if its source turns out to be wrong only then.

    :param workspace: the workspace
    :param name: resource name of the branch that is to be created again
    :param spec: its source, as fields of its ``spec``
    :raises LakebaseResourceNotFoundError: if the source does not exist
    :raises LakebaseWorkspaceRefusedError: if it is deleted or expires
    :raises LakebaseSettingsError: if it is the branch itself, or does not reach back to the time that is asked for
    """
    if snapshot := spec.get("source_snapshot"):
        read(workspace, snapshot)
        return
    source, time = spec.get("source_branch"), spec.get("source_branch_time")
    begins = [_require_copyable(workspace, name, source)] if source else []
    if time:
        _require_history(workspace, name, datetime.fromisoformat(time), begins)


def _require_copyable(workspace: Workspace, name: str, source: str) -> str | None:
    """Return when the source was created, if that is known."""
    context = workspace.about(source).context
    if source == name:
        hint = "Choose another source. To give the branch the data that its parent has now, reset it."
        raise LakebaseSettingsError("The branch would be its own source", context=context, hint=hint)
    found = read(workspace, source)
    if is_deleted(found):
        hint = "Undelete it, or choose another source."
        raise LakebaseWorkspaceRefusedError("The source is a branch that is deleted", context=context, hint=hint)
    if status_of(found).get("expire_time"):
        raise LakebaseWorkspaceRefusedError(
            "The source is a branch that expires, and such a branch cannot be copied",
            context=context,
            hint="Choose a source without an expiry, or remove its expiry.",
        )
    return found.get("create_time")


def _require_history(workspace: Workspace, name: str, time: datetime, begins: Iterable[str | None]) -> None:
    project = read(workspace, parent_of(name))
    now, kept = datetime.now(UTC), status_of(project).get("history_retention_duration")
    oldest = [datetime.fromisoformat(each) for each in (project.get("create_time"), *begins) if each]
    if kept:
        oldest.append(now - timedelta(seconds=float(kept.removesuffix("s"))))
    if time > now or any(time < each for each in oldest):
        begin = f"from {max(oldest).isoformat(timespec='seconds')} " if oldest else ""
        raise LakebaseSettingsError(
            f"source_time is {time.isoformat()}, and the history of the source is {begin}to now",
            context=workspace.about(name).context,
            hint="Choose a time within it. The branch was not replaced.",
        )


def purge_deleted(workspace: Workspace, name: str) -> Pending | None:
    """Purge a branch that is deleted and keeps its name; None if there is none.

    :param workspace: the workspace
    :param name: resource name
    """
    branches = list_all(workspace, parent_of(name), "branches", show_deleted=True)
    if not any(each.get("name") == name and is_deleted(each) for each in branches):
        return None
    log.info("Branch %s is deleted and could be undeleted; it is purged, so that its name is free", name)
    return _purge(workspace, name)


def _purge(workspace: Workspace, name: str) -> Pending:
    """Delete a branch for good, unless it is gone: then the next step finds that out, and goes on."""
    try:
        return Pending.of(name, delete(workspace, name, purge=True))
    # It has expired, someone else has deleted it, or the answer was lost and databricks-sdk has sent the request again.
    except LakebaseResourceNotFoundError:
        return Pending(name)


def _protect(workspace: Workspace, name: str, *, protected: bool) -> Pending:
    return Pending.of(name, update(workspace, name, {"spec": {"is_protected": protected}}, "spec.is_protected"))


def _differs(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """Return in words how a branch's source differs from the one that is asked for; an empty text if it does not."""
    for name in _COMPARED:
        wanted, found = spec.get(name), status.get(name)
        if not wanted:
            continue
        if not found:
            return f"it has no {name}, but {wanted} is asked for"
        if not _is_same(wanted, found):
            return f"its {name} is {found}, not {wanted}"
    if spec.get("source_branch") and (snapshot := status.get("source_snapshot")):
        return f"its source_snapshot is {snapshot}, but a branch is asked for"
    return ""


def _is_same(wanted: str, found: str) -> bool:
    if wanted.lower() == found.lower():
        return True
    try:
        return datetime.fromisoformat(wanted) == datetime.fromisoformat(found)
    except ValueError:
        return False
