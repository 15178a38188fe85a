"""Create and delete Postgres roles through the workspace's API, where no session can do it.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.operations import create, delete
from airflow_provider_lakebase.core.workspace.plans import Notes, Pending, noting
from airflow_provider_lakebase.core.workspace.resources import Resource, list_all, status_of
from airflow_provider_lakebase.exceptions import (
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceRefusedError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

log = logging.getLogger(__name__)

OAUTH = "LAKEBASE_OAUTH_V1"
ROLE_REQUESTED = "role_requested"
"""Note that this task has requested the role, so that one that exists is its own."""
DELETION_REQUESTED = "deletion_requested"
"""Note that there was a role to delete."""
_PREFIXES = {"SERVICE_PRINCIPAL": "sp", "USER": "user", "GROUP": "group"}
_SUPERUSER = "DATABRICKS_SUPERUSER"


@dataclass(frozen=True)
class CreateRole:
    """Create the role that an identity logs in as, unless it is there. It gets no memberships and no privileges.

    ``replace_existing`` of the API is not used: it overwrites the memberships of a role that exists.

    :param branch: resource name
    :param identity: client ID of a service principal, e-mail of a user, or display name of a group
    :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``
    :raises LakebaseSettingsError: for an identity that is empty, and for another type
    """

    branch: str
    identity: str
    identity_type: str = "SERVICE_PRINCIPAL"

    def __post_init__(self) -> None:
        if not isinstance(self.identity, str) or not self.identity.strip():
            hint = "Pass a service principal's client ID, a user's e-mail or a group's display name."
            raise LakebaseSettingsError(f"identity is {self.identity!r}", hint=hint)
        if self.identity_type not in _PREFIXES:
            hint = f"Choose from {', '.join(_PREFIXES)}."
            raise LakebaseSettingsError(f"identity_type is {self.identity_type!r}", hint=hint)

    @property
    def resource(self) -> str:
        """Resource name that the role gets; one that exists may have another."""
        return f"{self.branch}/roles/{derive_id(self.identity, prefix=_PREFIXES[self.identity_type])}"

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseResourceExistsError: if a role of that name exists which the identity cannot log in as
        """
        if role := find_role(workspace, self.branch, self.identity):
            self._require_login(workspace, role)
            return None
        # An identity's role logs in with OAuth. NO_LOGIN is documented for auth_method, and refused.
        spec = {"postgres_role": self.identity, "identity_type": self.identity_type, "auth_method": OAUTH}
        with noting(notes, ROLE_REQUESTED):
            try:
                operation = create(workspace, self.resource, spec)
            except LakebaseResourceExistsError:
                # Made meanwhile, or the first answer was lost and databricks-sdk has sent the request again.
                if find_role(workspace, self.branch, self.identity) is None:
                    raise
                return Pending(self.resource)
        log.info("Creating role '%s' on %s", self.identity, self.branch)
        return Pending.of(self.resource, operation)

    def _require_login(self, workspace: Workspace, role: Resource) -> None:
        status = status_of(role)
        identity_type, method = status.get("identity_type"), status.get("auth_method")
        if (identity_type or self.identity_type) == self.identity_type and (method or OAUTH) == OAUTH:
            return
        raise LakebaseResourceExistsError(
            f"Role '{self.identity}' exists, with identity type {identity_type} and auth_method {method}: no "
            f"{self.identity_type} can log in as it",
            context=workspace.about(str(role["name"])).context,
            hint="Pass its identity_type; if a plain CREATE ROLE made it, drop or rename it.",
        )


@dataclass(frozen=True)
class DeleteRole:
    """Delete a role, unless it is gone. What it owns goes to another role; its privileges end.

    :param branch: resource name
    :param role: Postgres role
    :param reassign_owned_to: Postgres role that gets what it owns, in every database; None if it owns nothing
    :raises LakebaseSettingsError: for the role itself
    """

    branch: str
    role: str
    reassign_owned_to: str | None = None

    def __post_init__(self) -> None:
        if self.reassign_owned_to == self.role:
            # Nobody would get what it owns, so it may be dropped with the role.
            raise LakebaseSettingsError("reassign_owned_to is the role itself", hint="Name another role.")

    @property
    def resource(self) -> str:
        """Resource name of the branch: that of the role is known to the workspace only."""
        return self.branch

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseWorkspaceRefusedError: for a member of ``databricks_superuser`` and the owner of
            ``databricks_postgres``; and for a role that owns something, without ``reassign_owned_to``
        :raises LakebaseResourceNotFoundError: if there is no role ``reassign_owned_to``
        """
        role = find_role(workspace, self.branch, self.role)
        if role is None:
            return None
        self._require_deletable(workspace, role)
        query: dict[str, Any] = {}
        if self.reassign_owned_to:
            query["reassign_owned_to"] = require_role(workspace, self.branch, self.reassign_owned_to)["name"]
        try:
            operation = delete(workspace, str(role["name"]), **query)
        except LakebaseResourceNotFoundError:  # someone else has deleted it meanwhile
            return None
        notes[DELETION_REQUESTED] = True
        log.info("Deleting role '%s' of %s", self.role, self.branch)
        return Pending.of(self.resource, operation)

    def _require_deletable(self, workspace: Workspace, role: Resource) -> None:
        owned = [
            str(status_of(each).get("postgres_database"))
            for each in list_all(workspace, self.branch, "databases")
            if status_of(each).get("role") == role["name"]
        ]
        if _SUPERUSER in (status_of(role).get("membership_roles") or ()) or "databricks_postgres" in owned:
            raise LakebaseWorkspaceRefusedError(
                f"Role '{self.role}' administers the project's databases",
                context=workspace.about(str(role["name"])).context,
                hint="It is not dropped. Choose another role.",
            )
        if owned and not self.reassign_owned_to:
            raise LakebaseWorkspaceRefusedError(
                f"Role '{self.role}' owns databases: {', '.join(owned)}",
                context=workspace.about(str(role["name"])).context,
                hint="Name the role that gets them with reassign_owned_to.",
            )


def find_role(workspace: Workspace, branch: str, postgres_role: str) -> dict[str, Any] | None:
    """Return a role by its name in Postgres, or None.

    :param workspace: the workspace
    :param branch: resource name
    :param postgres_role: its name
    """
    roles = list_all(workspace, branch, "roles")
    return next((each for each in roles if status_of(each).get("postgres_role") == postgres_role), None)


def require_role(workspace: Workspace, branch: str, postgres_role: str) -> dict[str, Any]:
    """Return a role by its name in Postgres.

    :param workspace: the workspace
    :param branch: resource name
    :param postgres_role: its name
    :raises LakebaseResourceNotFoundError: if there is none
    """
    if role := find_role(workspace, branch, postgres_role):
        return role
    raise LakebaseResourceNotFoundError(
        f"There is no role '{postgres_role}'",
        context=workspace.about(branch).context,
        hint="Correct its name, or create it with LakebaseRoleBootstrapOperator.",
    )


def derive_id(name: str, *, prefix: str = "") -> str:
    """Return a resource ID for a name of Postgres: the name itself where it is one, the same in each try.

    IDs begin with a letter, which many a client ID does not, and have no capitals, underscores or spaces.

    :param name: name of a role or database
    :param prefix: what the ID begins with
    """
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    wanted = "-".join(filter(None, [prefix, text]))
    if text == name and len(wanted) <= 63 and wanted[0].isalpha() and len(wanted) >= 4:
        return wanted
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{'' if wanted[:1].isalpha() else 'id-'}{wanted}"[:54].rstrip("-") + f"-{digest}"
