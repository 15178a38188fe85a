"""The request for a role and its privileges: plain values, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

IDENTITY_TYPES = ("SERVICE_PRINCIPAL", "USER", "GROUP")
TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


@dataclass(frozen=True)
class RoleRequest:
    """The identity that gets a role, and the privileges of that role.

    :param identity: client ID of a service principal, e-mail of a user, or display name of a group; case-sensitive
    :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``
    :param schemas: schemas to grant USAGE on
    :param privileges: privileges on the tables and views in them
    :param default_privileges: also grant the privileges on what the current role creates there later
    :param create_on_database: grant CREATE on the database, so that the role can own schemas
    :param ledger_schema: schema of the ledger of loads, which is created and granted on; None for no ledger
    :raises LakebaseSettingsError: for an invalid value
    """

    identity: str
    identity_type: str = "SERVICE_PRINCIPAL"
    schemas: Sequence[str] = ("public",)
    privileges: Sequence[str] = ("SELECT", "INSERT", "UPDATE", "DELETE")
    default_privileges: bool = True
    create_on_database: bool = False
    ledger_schema: str | None = LEDGER_SCHEMA

    def __post_init__(self) -> None:
        if not isinstance(self.identity, str) or not self.identity.strip():
            raise LakebaseSettingsError("identity is empty", hint="Pass the service principal's client ID.")
        if self.identity_type not in IDENTITY_TYPES:
            raise _not_one_of("identity_type", self.identity_type, IDENTITY_TYPES)
        for name in ("schemas", "privileges"):
            if not isinstance(getattr(self, name), list | tuple):
                kind = type(getattr(self, name)).__name__
                raise LakebaseSettingsError(f"{name} is of type {kind}", hint="Pass a list of names.")
        for privilege in self.privileges:
            if privilege not in TABLE_PRIVILEGES:
                raise _not_one_of("privileges", privilege, TABLE_PRIVILEGES)

    @property
    def sequence_privileges(self) -> list[str]:
        """Privileges on sequences that go with those on tables: an INSERT draws values from them."""
        if {"INSERT", "UPDATE"} & set(self.privileges):
            return ["SELECT", "USAGE"]
        return ["SELECT"] if "SELECT" in self.privileges else []


def _not_one_of(name: str, value: object, choices: Sequence[str]) -> LakebaseSettingsError:
    return LakebaseSettingsError(f"{name} contains {value!r}", hint=f"Choose from {', '.join(choices)}.")
