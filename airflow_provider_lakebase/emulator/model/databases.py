"""The databases of a branch, as the API shows and changes them. PostgreSQL is asked each time: SQL changes them too."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, invalid, not_found, refused
from airflow_provider_lakebase.emulator.model.fields import (
    read_id,
    read_object,
    read_postgres_name,
    read_text,
    spec_of,
    timestamp,
)
from airflow_provider_lakebase.emulator.model.operations import EMPTY, Operation
from airflow_provider_lakebase.emulator.model.resources import parent_of
from airflow_provider_lakebase.emulator.model.role_statements import Statements
from airflow_provider_lakebase.emulator.model.update_masks import masked_fields

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.branches import Branch
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

_FIELDS = ("postgres_database", "role")
_NAME = "database.spec.postgres_database"
_PATHS = {
    **{f"spec.{name}": (f"spec.{name}",) for name in _FIELDS},
    "spec": tuple(f"spec.{name}" for name in _FIELDS),
}


@dataclass(frozen=True)
class Database:
    """A database of a branch."""

    branch: Branch
    postgres_name: str
    owner: str
    database_id: str
    created_at: float

    @property
    def name(self) -> str:
        """Return its resource name."""
        return f"{self.branch.name}/databases/{self.database_id}"

    def json(self) -> Json:
        """Return it as the API does."""
        return {
            "name": self.name,
            "database_id": self.database_id,
            "parent": self.branch.name,
            "create_time": timestamp(self.created_at),
            "update_time": timestamp(self.created_at),
            "status": {
                "database_id": self.database_id,
                "postgres_database": self.postgres_name,
                "role": f"{self.branch.name}/roles/{self.branch.contents.role_ids.of(self.owner)[0]}",
            },
        }


class Databases:
    """The databases of all branches."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def of(self, branch: Branch) -> list[Database]:
        """Return a branch's databases."""
        found = self._statements(branch).databases()
        return [Database(branch, name, owner, *branch.contents.database_ids.of(name)) for name, owner in found]

    def require(self, name: str) -> Database:
        """Return a database; raise ``ApiError`` 404 if it does not exist."""
        branch = self._workspace.branches.require_ready(parent_of(name))
        for database in self.of(branch):
            if database.name == name:
                return database
        raise not_found("database")

    def create(self, parent: str, database_id: str | None, body: Json, *, replace_existing: bool = False) -> Operation:
        """Create a database, or change the one of this ID if ``replace_existing``."""
        branch = self._workspace.branches.require_ready(parent)
        given_id, database_id = database_id, read_id("database_id", database_id or f"db-{uuid.uuid4().hex[:8]}")
        spec = read_object("database.spec", spec_of("database", body), set(_FIELDS))
        postgres_name = read_postgres_name(_NAME, spec.get("postgres_database") or given_id or "")
        owner = self._owner(branch, spec.get("role", ""))
        for existing in self.of(branch):
            if existing.database_id == given_id and replace_existing:
                return self._change(existing, "create_database", postgres_name, owner)
            if existing.database_id == database_id or existing.postgres_name == postgres_name:
                raise refused("database with that name already exists")

        def work() -> Json:
            self._statements(branch).create_database(postgres_name, owner)
            branch.contents.database_ids.keep(postgres_name, database_id)
            return self.require(f"{parent}/databases/{database_id}").json()

        return self._workspace.operations.submit(f"{parent}/databases/{database_id}", "create_database", work)

    def update(self, name: str, body: Json, mask: str | None) -> Operation:
        """Rename a database or change its owner."""
        fields = masked_fields(body, mask, _PATHS)
        read_object("database.spec", spec_of("database", body), set(_FIELDS))
        database = self.require(name)
        owner = database.owner
        if "spec.role" in fields:
            owner = self._owner(database.branch, fields["spec.role"])
        postgres_name = read_postgres_name(_NAME, fields.get("spec.postgres_database", database.postgres_name))
        return self._change(database, "update_database", postgres_name, owner)

    def delete(self, name: str) -> Operation:
        """Drop a database and end its sessions."""
        database = self.require(name)

        def work() -> Json:
            self._statements(database.branch).drop_database(database.postgres_name)
            database.branch.contents.database_ids.forget(database.postgres_name)
            return EMPTY

        return self._workspace.operations.submit(name, "delete_database", work)

    def _change(self, database: Database, method: str, postgres_name: str, owner: str) -> Operation:
        def work() -> Json:
            statements = self._statements(database.branch)
            if owner != database.owner:
                statements.give_database(database.postgres_name, owner)
            if postgres_name != database.postgres_name:
                statements.rename_database(database.postgres_name, postgres_name)
                database.branch.contents.database_ids.rename(database.postgres_name, postgres_name)
            return self.require(database.name).json()

        return self._workspace.operations.submit(database.name, method, work)

    def _owner(self, branch: Branch, value: Any) -> str:
        role = read_text("database.spec.role", value)
        if not role.startswith(f"{branch.name}/roles/"):
            raise invalid(f"Field 'database.spec.role' must name a role of {branch.name}, not {role!r}")
        try:
            return self._workspace.roles.require(role).postgres.name
        except ApiError:
            raise invalid(f"Field 'database.spec.role' names a role that does not exist: {role!r}") from None

    def _statements(self, branch: Branch) -> Statements:
        return Statements(self._workspace.clusters, branch.uid)
