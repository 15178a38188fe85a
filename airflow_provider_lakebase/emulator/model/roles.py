"""The roles of a branch, as the API shows and changes them. PostgreSQL is asked each time: SQL changes them too."""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.errors import Json, invalid, not_found, refused
from airflow_provider_lakebase.emulator.model.fields import (
    read_flag,
    read_object,
    read_postgres_name,
    spec_of,
    timestamp,
)
from airflow_provider_lakebase.emulator.model.operations import EMPTY, Operation
from airflow_provider_lakebase.emulator.model.resources import id_of, parent_of
from airflow_provider_lakebase.emulator.model.role_statements import ATTRIBUTES, PostgresRole, Statements
from airflow_provider_lakebase.emulator.model.update_masks import masked_fields

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.branches import Branch
    from airflow_provider_lakebase.emulator.model.identities import Principal
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

OAUTH, PASSWORD, NO_LOGIN = "LAKEBASE_OAUTH_V1", "PG_PASSWORD_SCRAM_SHA_256", "NO_LOGIN"
_MEMBERSHIP = "DATABRICKS_SUPERUSER"
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_FIELDS = {"attributes", "auth_method", "identity_type", "membership_roles", "postgres_role"}
_PATHS = {
    "spec.membership_roles": ("spec.membership_roles",),
    **{f"spec.attributes.{name}": (f"spec.attributes.{name}",) for name in ATTRIBUTES},
    "spec": ("spec",),
    "*": ("spec",),
}
_FIXED = {
    f"spec.{name}": "it is set when the role is created and cannot change"
    for name in ("identity_type", "auth_method", "postgres_role")
}


@dataclass(frozen=True)
class Role:
    """A role of a branch."""

    branch: Branch
    postgres: PostgresRole
    role_id: str
    created_at: float

    @property
    def name(self) -> str:
        """Return its resource name."""
        return f"{self.branch.name}/roles/{self.role_id}"

    def json(self) -> Json:
        """Return it as the API does."""
        label = self.postgres.label
        identity = label.rpartition("type=")[2].upper() if label else "IDENTITY_TYPE_UNSPECIFIED"
        return {
            "name": self.name,
            "role_id": self.role_id,
            "parent": self.branch.name,
            "create_time": timestamp(self.created_at),
            "update_time": timestamp(self.created_at),
            "status": {
                "role_id": self.role_id,
                "postgres_role": self.postgres.name,
                "identity_type": identity,
                "auth_method": OAUTH if label else PASSWORD,
                "membership_roles": [_MEMBERSHIP] if self.postgres.is_superuser else [],
                "attributes": self.postgres.attributes,
            },
        }


class Roles:
    """The roles of all branches."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def of(self, branch: Branch) -> list[Role]:
        """Return a branch's roles."""
        return [
            Role(branch, each, *branch.contents.role_ids.of(each.name)) for each in self._statements(branch).roles()
        ]

    def require(self, name: str) -> Role:
        """Return a role; raise ``ApiError`` 404 if it does not exist."""
        branch = self._workspace.branches.require_ready(parent_of(name))
        for role in self.of(branch):
            if role.name == name:
                return role
        raise not_found("role", f'role_id:"{id_of(name)}"')

    # -- create

    def create(self, parent: str, role_id: str | None, body: Json, *, replace_existing: bool = False) -> Operation:
        """Create a role, or change the one of this ID if ``replace_existing``."""
        branch = self._workspace.branches.require_ready(parent)
        if not spec_of("role", body):
            raise invalid("Field 'role' is required and must contain at least one subfield with a non-default value!")
        spec = read_object("role.spec", body["spec"], _FIELDS)
        given_id, role_id = role_id, _read_id(role_id or f"role-{uuid.uuid4().hex[:8]}")
        name = read_postgres_name("role.spec.postgres_role", spec.get("postgres_role") or given_id or "")
        attributes, is_superuser = _attributes(spec), _is_superuser(spec)
        for existing in self.of(branch):
            if existing.role_id == given_id and replace_existing:
                return self._change(existing, "create_role", attributes, is_superuser)
            if existing.role_id == role_id or existing.postgres.name == name:
                raise refused("role with that name already exists")
        identity = self._identity(spec, name)
        password = None if identity else secrets.token_urlsafe(24)

        def work() -> Json:
            statements = self._statements(branch)
            statements.create_role(name, label=identity.label if identity else None, password=password)
            statements.change_role(
                name, attributes={key: True for key, on in attributes.items() if on}, is_superuser=is_superuser or None
            )
            branch.contents.role_ids.keep(name, role_id)
            if password:
                self._keep_password(branch, name, password)
            return self.require(f"{parent}/roles/{role_id}").json()

        return self._workspace.operations.submit(f"{parent}/roles/{role_id}", "create_role", work)

    def _identity(self, spec: Json, name: str) -> Principal | None:
        identity_type, method = spec.get("identity_type"), spec.get("auth_method")
        if method == NO_LOGIN:
            raise invalid("Creating roles with auth_method NO_LOGIN is not currently supported")
        if method not in (None, OAUTH, PASSWORD):
            raise invalid(f"Field 'role.spec.auth_method' is {OAUTH} or {PASSWORD}, not {method!r}")
        if (method or OAUTH) != (OAUTH if identity_type else method or OAUTH) or (
            method == OAUTH and not identity_type
        ):
            raise invalid(f"Field 'role.spec.auth_method' is {OAUTH} for identities, and {PASSWORD} for other roles")
        if not identity_type:
            return None
        for principal in self._workspace.identities.principals():
            if (principal.role, principal.identity_type) == (name, identity_type):
                return principal
        raise invalid(f"There is no identity {name!r} of type {identity_type} in the workspace")

    # -- update and delete

    def update(self, name: str, body: Json, mask: str | None) -> Operation:
        """Change memberships and attributes by the rules of the mask."""
        fields = masked_fields(body, mask, _PATHS, fixed=_FIXED, lists={"spec.membership_roles"})
        paths = [path.strip() for path in str(mask).split(",")]
        spec = read_object("role.spec", spec_of("role", body), _FIELDS)
        attributes, is_superuser = _attributes(spec), None
        if paths == ["spec"] or "spec.membership_roles" in paths or "*" in paths or "spec" in paths:
            is_superuser = _is_superuser(spec)
        if "*" in paths or ("spec" in paths and len(paths) > 1):
            missing = [each for each in ATTRIBUTES if each not in attributes]
            if missing:
                raise invalid(f"Field 'spec.attributes.{missing[0]}' is in update_mask but not provided in request")
        elif paths != ["spec"]:
            attributes = {each: on for each, on in attributes.items() if f"spec.attributes.{each}" in fields}
        return self._change(self.require(name), "update_role", attributes, is_superuser)

    def _change(self, role: Role, method: str, attributes: dict[str, bool], is_superuser: bool | None) -> Operation:
        def work() -> Json:
            self._statements(role.branch).change_role(
                role.postgres.name, attributes=attributes, is_superuser=is_superuser
            )
            return self.require(role.name).json()

        return self._workspace.operations.submit(role.name, method, work)

    def delete(self, name: str, *, reassign_owned_to: str | None) -> Operation:
        """Drop a role; its objects become those of the role that ``reassign_owned_to`` names."""
        role = self.require(name)
        heir = None
        if reassign_owned_to:
            heir = self._heir(role, reassign_owned_to)

        def work() -> Json:
            self._statements(role.branch).drop_role(role.postgres.name, heir=heir)
            role.branch.contents.role_ids.forget(role.postgres.name)
            return EMPTY

        return self._workspace.operations.submit(name, "delete_role", work)

    def reveal_password(self, name: str) -> str:
        """Return the password that a role was created with; raise ``ApiError`` if the API did not make it one."""
        role = self.require(name)
        password = role.branch.contents.passwords.get(role.postgres.name)
        if password is None:
            raise refused(f"role {role.postgres.name} does not authenticate with a password that was made for it")
        return password

    def make_owner(self, branch: Branch, owner: Principal) -> None:
        """Let an identity own the database of a new branch, with the rights of a project's owner."""
        statements = self._statements(branch)
        if owner.role not in [each.name for each in statements.roles()]:
            statements.create_role(owner.role, label=owner.label, password=None)
            statements.change_role(owner.role, attributes={"createdb": True, "createrole": True}, is_superuser=True)
        for database, _ in statements.databases():
            statements.give_database(database, owner.role)

    def renew_passwords(self, branch: Branch) -> None:
        """Give every role with a password a new one, as a copy of a protected branch has."""
        statements = self._statements(branch)
        for role in statements.roles():
            if role.label is None:
                password = secrets.token_urlsafe(24)
                statements.set_password(role.name, password)
                self._keep_password(branch, role.name, password)

    def _keep_password(self, branch: Branch, name: str, password: str) -> None:
        branch.contents.passwords[name] = password
        self._workspace.identities.secrets.append(password)

    def _heir(self, role: Role, name: str) -> str:
        for other in self.of(role.branch):
            if name in (other.name, other.role_id, other.postgres.name):
                return other.postgres.name
        raise not_found("role", f'role_id:"{id_of(f"/{name}")}"')

    def _statements(self, branch: Branch) -> Statements:
        return Statements(self._workspace.clusters, branch.uid)


def _read_id(role_id: str) -> str:
    if not _ID.fullmatch(role_id):
        raise invalid(f"Field role_id must match pattern ^{_ID.pattern}$, got '{role_id}'")
    if len(role_id) < 4:
        raise invalid(
            "Field 'role_id' must be 4-63 characters, start with a lowercase letter, and contain only lowercase "
            "letters, numbers and hyphens (RFC 1123)."
        )
    return role_id


def _attributes(spec: Json) -> dict[str, bool]:
    given = read_object("role.spec.attributes", spec.get("attributes"), set(ATTRIBUTES))
    return {name: read_flag(f"role.spec.attributes.{name}", value) for name, value in given.items()}


def _is_superuser(spec: Json) -> bool:
    memberships = spec.get("membership_roles") or []
    if not isinstance(memberships, list) or any(each != _MEMBERSHIP for each in memberships):
        raise invalid(f"Field 'role.spec.membership_roles' may contain {_MEMBERSHIP} only, not {memberships!r}")
    return bool(memberships)
