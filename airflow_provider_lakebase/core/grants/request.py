"""The declaration of a role: what an identity is to have, as plain values, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

IDENTITY_TYPES = ("SERVICE_PRINCIPAL", "USER", "GROUP")
TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
READ = ("SELECT",)
WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")
WRITING = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
ACCESS = {"read": READ, "write": WRITE}
OWNER = "owner"

_NAME = r'"(?:[^"]|"")+"|[^\s".()]+'
_QUALIFIED = re.compile(rf"\s*({_NAME})\.({_NAME})\s*")
_FUNCTION = re.compile(rf"\s*({_NAME})\.({_NAME})\s*(\(.*\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class RoleRequest:
    """The identity that gets a role, and what that role is to have.

    :param identity: client ID of a service principal, e-mail of a user, or display name of a group; case-sensitive
    :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``
    :param schemas: schemas to grant on: a list, whose tables all get ``privileges``; or a mapping of each schema to its
        access: ``"read"`` (SELECT), ``"write"`` (SELECT, INSERT, UPDATE, DELETE), ``"owner"`` (the schema and what
        is in it become the identity's), or a list of privileges on its tables, where CREATE is the one on the schema.
        Sequences get what goes with that. On synced tables nothing to write is granted: only their pipelines may
    :param privileges: privileges on the tables of a list of schemas; by default those of ``"write"``
    :param default_privileges: also grant them on what is created in these schemas later
    :param created_by: roles whose new tables and sequences get the default privileges; by default the connection's own
        role, with an empty list none
    :param tables: mapping of a table or view, with its schema, to ``"read"``, ``"write"`` or a list of privileges
    :param functions: functions to grant EXECUTE on, such as ``sales.total(int)``, with only the types of the arguments
    :param owned_schemas: schemas of the identity's own, which are created if they do not exist
    :param member_of: roles to be a direct member of; None to leave memberships as they are
    :param create_on_database: grant CREATE on the database, so that the identity can create schemas
    :param ledger_schema: schema of the ledger of loads, which is created and granted on; None for no ledger
    :param databases: databases in which all this holds; by default the connection's
    :raises LakebaseSettingsError: for an invalid value
    """

    identity: str
    identity_type: str = "SERVICE_PRINCIPAL"
    schemas: Sequence[str] | Mapping[str, str | Sequence[str]] = ("public",)
    privileges: Sequence[str] | None = None
    default_privileges: bool = True
    create_on_database: bool = False
    ledger_schema: str | None = LEDGER_SCHEMA
    created_by: Sequence[str] | None = None
    tables: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    functions: Sequence[str] = ()
    owned_schemas: Sequence[str] = ()
    member_of: Sequence[str] | None = None
    databases: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_role_name("identity", self.identity)
        if self.identity_type not in IDENTITY_TYPES:
            hint = f"Choose from {', '.join(IDENTITY_TYPES)}."
            raise LakebaseSettingsError(f"identity_type is {self.identity_type!r}", hint=hint)
        for name in ("default_privileges", "create_on_database"):
            if not isinstance(getattr(self, name), bool):
                raise LakebaseSettingsError(f"{name} is {getattr(self, name)!r}", hint="Pass True or False.")
        for name in ("created_by", "member_of", "databases", "privileges"):
            if getattr(self, name) is not None:
                _check_names(name, getattr(self, name))
        for name in ("functions", "owned_schemas"):
            _check_names(name, getattr(self, name))
        if self.ledger_schema is not None:
            _check_names("ledger_schema", [self.ledger_schema])
            _check_new_schema("ledger_schema", self.ledger_schema)
        for schema in self.owned_schemas:
            _check_new_schema("owned_schemas", schema)
        _ = self.access, self.table_privileges, self.function_names
        self._check_combinations()

    def _check_combinations(self) -> None:
        if isinstance(self.schemas, Mapping) and self.privileges is not None:
            hint = "Name the privileges of each schema in the mapping, or pass schemas as a list."
            raise LakebaseSettingsError("privileges is given beside a mapping of schemas", hint=hint)
        if self.created_by is not None and not self.default_privileges:
            hint = "Leave out created_by, or pass default_privileges=True."
            raise LakebaseSettingsError("created_by is given without default_privileges", hint=hint)
        for name in ("privileges", "created_by"):
            if getattr(self, name) is not None and not self.schemas:
                hint = f"Name the schemas that it applies to, or leave out {name}."
                raise LakebaseSettingsError(f"{name} is given without schemas", hint=hint)
        if self.databases is not None and not self.databases:
            raise LakebaseSettingsError("databases is empty", hint="Leave it out for the connection's database.")

        if self.identity in (self.member_of or ()):
            raise LakebaseSettingsError("member_of contains the identity itself", hint="Name other roles.")

    @property
    def access(self) -> dict[str, str | Sequence[str]]:
        """Return the access to each schema: ``owner``, or the privileges on its tables and ``CREATE``."""
        if isinstance(self.schemas, Mapping):
            wanted = dict(self.schemas)
        else:
            _check_names("schemas", self.schemas)
            wanted = dict.fromkeys(self.schemas, WRITE if self.privileges is None else self.privileges)
        _check_names("schemas", list(wanted))
        _privileges("privileges", WRITE if self.privileges is None else self.privileges, "CREATE")
        for name in set(wanted) & set(self.owned_schemas):
            raise LakebaseSettingsError(
                f"Schema '{name}' is in schemas and in owned_schemas", hint="An owner needs no grant: name it once."
            )
        return {name: OWNER if value == OWNER else _privileges(name, value, "CREATE") for name, value in wanted.items()}

    @property
    def table_privileges(self) -> dict[tuple[str, str], Sequence[str]]:
        """Return the privileges on each table of ``tables``, by schema and name."""
        if not isinstance(self.tables, Mapping):
            hint = """Pass a mapping, such as {"sales.orders": "read"}."""
            raise LakebaseSettingsError(f"tables is of type {type(self.tables).__name__}", hint=hint)
        found: dict[tuple[str, str], Sequence[str]] = {}
        spellings: dict[tuple[str, str], str] = {}
        for text, access in self.tables.items():
            name = _split_name(text)
            if name in found:
                hint = "Name each table once. Without quotes, upper and lower case are the same, as in SQL."
                raise LakebaseSettingsError(f"tables names one table as {spellings[name]!r} and {text!r}", hint=hint)
            spellings[name] = text
            found[name] = _privileges(text, access)
        return found

    @property
    def function_names(self) -> list[tuple[str, str, str | None]]:
        """Return schema, name and arguments in parentheses, if there are any, of the functions."""
        names = []
        for text in self.functions:
            match = _FUNCTION.fullmatch(text)
            if match is None:
                raise _not_qualified("functions", text, "sales.total(int)")
            names.append((_unquote(match[1]), _unquote(match[2]), match[3]))
        return names


def sequence_privileges(on_tables: Sequence[str]) -> list[str]:
    """Return the privileges on sequences that go with those on tables: an INSERT draws values from them.

    :param on_tables: privileges on tables
    """
    if {"INSERT", "UPDATE"} & set(on_tables):
        return ["SELECT", "USAGE"]
    return ["SELECT"] if "SELECT" in on_tables else []


def _privileges(name: str, access: Any, *further: str) -> tuple[str, ...]:
    """Return the privileges that an access to a schema or table means."""
    choices = (*ACCESS, *((OWNER,) if further else ()))
    if isinstance(access, str):
        if access not in ACCESS:
            hint = f"Choose from {', '.join(choices)}, or pass a list of privileges."
            raise LakebaseSettingsError(f"The access to '{name}' is {access!r}", hint=hint)
        return ACCESS[access]
    if not isinstance(access, list | tuple):
        hint = f"Choose from {', '.join(choices)}, or pass a list of privileges."
        raise LakebaseSettingsError(f"The access to '{name}' is of type {type(access).__name__}", hint=hint)
    for privilege in access:
        if privilege not in (*TABLE_PRIVILEGES, *further):
            hint = f"Choose from {', '.join((*TABLE_PRIVILEGES, *further))}."
            where = name if name == "privileges" else f"The access to '{name}'"
            raise LakebaseSettingsError(f"{where} contains {privilege!r}", hint=hint)
    return tuple(access)


def check_role_name(argument: str, name: Any) -> None:
    """Refuse a name that no role can have. Postgres would cut one that is too long, and find another role by the rest.

    :param argument: for the message
    :param name: of the role
    :raises LakebaseSettingsError: if it is empty, contains NUL or has more than 63 bytes
    """
    if not isinstance(name, str) or not name.strip():
        hint = "Pass a service principal's client ID, a user's e-mail or a group's display name."
        raise LakebaseSettingsError(f"{argument} is {name!r}", hint=hint)
    if "\0" in name or len(name.encode()) > 63:
        raise LakebaseSettingsError(f"{argument} is {name!r}", hint="A role's name has 63 bytes at most, and no NUL.")


def _check_names(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple):
        raise LakebaseSettingsError(f"{name} is of type {type(value).__name__}", hint="Pass a list of names.")
    for item in value:
        if not isinstance(item, str) or not item.strip() or "\0" in item:
            raise LakebaseSettingsError(f"{name} contains {item!r}", hint="Pass a list of names.")


def _check_new_schema(argument: str, name: str) -> None:
    """Refuse the name of a schema that cannot be created. Postgres would cut one that is too long."""
    if name.startswith("pg_") or name in ("information_schema", "__db_system") or len(name.encode()) > 63:
        hint = "A schema's name has 63 bytes at most, and must not be that of a system schema or begin with pg_."
        raise LakebaseSettingsError(f"{argument} has the schema {name!r}", hint=hint)


def _split_name(text: Any) -> tuple[str, str]:
    match = _QUALIFIED.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise _not_qualified("tables", text, "sales.orders")
    return _unquote(match[1]), _unquote(match[2])


def _unquote(name: str) -> str:
    """Return a name of SQL as the catalog has it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _not_qualified(name: str, value: object, example: str) -> LakebaseSettingsError:
    hint = f"Write schema and name as in SQL, such as {example}, quoted where necessary."
    return LakebaseSettingsError(f"{name} contains {value!r}", hint=hint)
