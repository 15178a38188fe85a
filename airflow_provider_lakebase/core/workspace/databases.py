"""Create databases in which identities can log in.

A database that a plain CREATE DATABASE made lacks the extension ``databricks_auth``, so that service principals cannot
log in to it (https://github.com/databricks-solutions/ai-dev-kit/issues/513).

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.operations import create, delete
from airflow_provider_lakebase.core.workspace.plans import Notes, Pending, noting
from airflow_provider_lakebase.core.workspace.resources import Resource, list_all, status_of
from airflow_provider_lakebase.core.workspace.roles import CreateRole, derive_id, require_role
from airflow_provider_lakebase.exceptions import LakebaseResourceExistsError, LakebaseResourceNotFoundError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

log = logging.getLogger(__name__)

REQUESTED = "requested"
"""Note that this task has requested the database, so that one that exists is its own."""


@dataclass(frozen=True)
class CreateDatabase:
    """Create a database and, before it, the role that owns it, unless they are there.

    :param database: name in Postgres
    :param owner: the identity whose role owns it
    :param is_owner_required: whether a database of that name must have this owner to be used
    """

    database: str
    owner: CreateRole
    is_owner_required: bool = True

    @property
    def branch(self) -> str:
        """Resource name of its branch."""
        return self.owner.branch

    @property
    def resource(self) -> str:
        """Resource name that the database gets; one that exists may have another."""
        return f"{self.branch}/databases/{derive_id(self.database)}"

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseResourceExistsError: if a database of that name exists and has another owner, or a role of the
            owner's name which it cannot log in as
        """
        found = find_database(workspace, self.branch, self.database)
        if found is not None and not self.is_owner_required:
            self._log_found(found, notes)
            return None
        if pending := self.owner.advance(workspace, notes):
            return pending
        owner = require_role(workspace, self.branch, self.owner.identity)
        if found is None:
            return self._create(workspace, notes, owner)
        self._require_owner(workspace, found, owner)
        self._log_found(found, notes)
        return None

    def _create(self, workspace: Workspace, notes: Notes, owner: Resource) -> Pending:
        spec = {"postgres_database": self.database, "role": owner["name"]}
        with noting(notes, REQUESTED):
            try:
                operation = create(workspace, self.resource, spec)
            except LakebaseResourceExistsError:
                # Made meanwhile, or the first answer was lost and databricks-sdk has sent the request again.
                if find_database(workspace, self.branch, self.database) is None:
                    raise
                return Pending(self.resource)
        log.info("Creating database '%s' on %s, owned by '%s'", self.database, self.branch, self.owner.identity)
        return Pending.of(self.resource, operation)

    def _log_found(self, database: Resource, notes: Notes) -> None:
        if not notes.get(REQUESTED):
            log.info("Database '%s' exists as %s; nothing was changed", self.database, database["name"])

    def _require_owner(self, workspace: Workspace, database: Resource, owner: Resource) -> None:
        owner_found = status_of(database).get("role")
        if owner_found in (None, owner["name"]):
            return
        roles = list_all(workspace, self.branch, "roles")
        name = next(
            (status_of(each).get("postgres_role") for each in roles if each["name"] == owner_found), owner_found
        )
        raise LakebaseResourceExistsError(
            f"Database '{self.database}' exists, and its owner is '{name}', not '{self.owner.identity}'",
            context=workspace.about(str(database["name"])).context,
            hint="Choose another name, or that owner; or let its owner give it away: ALTER DATABASE … OWNER TO ….",
        )


@dataclass(frozen=True)
class DeleteDatabase:
    """Drop a database with all that it holds, unless it is gone.

    :param branch: resource name
    :param database: name in Postgres
    """

    branch: str
    database: str

    @property
    def resource(self) -> str:
        """Resource name of the branch: that of the database is known to the workspace only."""
        return self.branch

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step."""
        found = find_database(workspace, self.branch, self.database)
        if found is None:
            return None
        try:
            return Pending.of(self.resource, delete(workspace, str(found["name"])))
        except LakebaseResourceNotFoundError:  # someone else has dropped it meanwhile
            return None


def find_database(workspace: Workspace, branch: str, postgres_database: str) -> dict[str, Any] | None:
    """Return a database by its name in Postgres, or None.

    :param workspace: the workspace
    :param branch: resource name
    :param postgres_database: its name
    """
    databases = list_all(workspace, branch, "databases")
    return next((each for each in databases if status_of(each).get("postgres_database") == postgres_database), None)
