"""Make the Postgres role of a Databricks identity and grant it what its tasks need: once, idempotently, read back.

Roles that OAuth credentials can use are made by ``databricks_create_role`` of the extension ``databricks_auth``
(https://docs.databricks.com/aws/en/oltp/projects/postgres-roles); a plain ``CREATE ROLE`` cannot log in with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.core.ledger import PRIVILEGES as LEDGER_PRIVILEGES
from airflow_provider_lakebase.core.ledger import create_ledger
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext, LakebaseRoleError, LakebaseSettingsError

IDENTITY_TYPES = ("SERVICE_PRINCIPAL", "USER", "GROUP")
TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

_OWNER_REMEDY = (
    "Run it on the connection of the project's owner (lakebase_conn_id), or of the owner of the objects named."
)
_LABEL = """
    SELECT label.label IS NOT NULL FROM pg_catalog.pg_roles
    LEFT JOIN pg_catalog.pg_seclabels label
      ON label.objoid = pg_roles.oid AND label.objtype = 'role' AND label.provider = 'databricks_auth'
    WHERE rolname = %s
"""
# Objects of extensions are left out: they belong to the service, and a grant on one of them would fail the rest.
_RELATIONS = """
    SELECT nspname, relname,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE nspname = %(schema)s AND relkind = ANY (%(kinds)s::"char"[])
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
_SCHEMAS = """
    SELECT NULL AS nspname, nspname AS relname, coalesce(nspacl, acldefault('n', nspowner)) AS acl
    FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s
"""
_DATABASE = """
    SELECT NULL AS nspname, datname AS relname, coalesce(datacl, acldefault('d', datdba)) AS acl
    FROM pg_catalog.pg_database WHERE datname = current_database()
"""
_DEFAULTS = """
    SELECT NULL AS nspname, %(schema)s::name AS relname, (
        SELECT defaclacl FROM pg_catalog.pg_default_acl
        WHERE defaclrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
          AND defaclnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
          AND defaclobjtype = ANY (%(kinds)s::"char"[])
    ) AS acl
"""
_MISSING = """
    SELECT nspname, relname FROM ({objects}) AS object
    WHERE EXISTS (
        SELECT FROM unnest(%(privileges)s::text[]) AS wanted
        WHERE NOT EXISTS (
            SELECT FROM aclexplode(acl) AS held
            WHERE held.privilege_type = wanted
              AND held.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
        )
    ) ORDER BY nspname, relname
"""
_TABLE_KINDS = ["r", "p", "v", "m", "f"]
_SEQUENCE_KINDS = ["S"]


@dataclass(frozen=True)
class RoleRequest:
    """Say which identity gets a role and what it may do.

    :param identity: client ID of a service principal, e-mail of a user, or display name of a group; case-sensitive
    :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``
    :param schemas: schemas to grant on
    :param privileges: privileges on their tables and views
    :param default_privileges: grant the same on what the current role makes in them later
    :param create_on_database: grant CREATE on the database, so that the role can own schemas of its own
    :param ledger_schema: schema of the ledger of loads, made and granted on; None for none
    :raises LakebaseSettingsError: for a value that cannot be
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
            raise LakebaseSettingsError("identity is empty", hint="Give the service principal's client ID.")
        if self.identity_type not in IDENTITY_TYPES:
            raise _not_one_of("identity_type", self.identity_type, IDENTITY_TYPES)
        for name in ("schemas", "privileges"):
            if not isinstance(getattr(self, name), list | tuple):
                kind = type(getattr(self, name)).__name__
                raise LakebaseSettingsError(f"{name} is of type {kind}", hint="Give a list of names.")
        for privilege in self.privileges:
            if privilege not in TABLE_PRIVILEGES:
                raise _not_one_of("privileges", privilege, TABLE_PRIVILEGES)

    @property
    def sequence_privileges(self) -> list[str]:
        """Return what the table privileges need on sequences: an INSERT draws from them."""
        if {"INSERT", "UPDATE"} & set(self.privileges):
            return ["SELECT", "USAGE"]
        return ["SELECT"] if "SELECT" in self.privileges else []


def bootstrap_role(
    connection: psycopg.Connection[Any], request: RoleRequest, *, context: ErrorContext = NO_CONTEXT
) -> dict[str, Any]:
    """Make the role and its grants in one transaction, and return what was found and done.

    Only what is missing is granted, and every grant is read back: a GRANT by a role that may not give it can do nothing
    and only warn. A second run changes nothing.

    :param connection: an open session of a role that may create roles, not in autocommit
    :param request: who gets what
    :param context: connection and endpoint, for messages
    :raises LakebaseRoleError: when the role or a grant cannot be had; nothing was changed
    :returns: ``identity``, ``identity_type``, ``database``, ``extension``, ``role`` and ``ledger`` (``found`` or
        ``created``), ``granted`` (a sentence a grant) and ``changed``
    """
    try:
        with connection.transaction(), connection.cursor() as cursor:
            return _bootstrap(cursor, request, context)
    except errors.InsufficientPrivilege as error:
        raise _role_error(f"Not permitted: {error.diag.message_primary}", context, _OWNER_REMEDY) from error


def _bootstrap(cursor: psycopg.Cursor[Any], request: RoleRequest, context: ErrorContext) -> dict[str, Any]:
    # Two bootstraps at once would fail with "tuple concurrently updated".
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('airflow-provider-lakebase role bootstrap'))")
    _check_schemas(cursor, request, context)
    extension = _create_extension(cursor, context)
    role = _create_role(cursor, request, context)
    ledger = _prepare_ledger(cursor, request)
    granted = [text for grant in _grants(cursor, request) if (text := grant.ensure(cursor, context))]
    database = cursor.execute("SELECT current_database()").fetchone()
    return {
        "identity": request.identity,
        "identity_type": request.identity_type,
        "database": database[0] if database else None,
        "extension": extension,
        "role": role,
        "ledger": ledger,
        "granted": granted,
        "changed": bool(granted) or "created" in (extension, role, ledger),
    }


def _check_schemas(cursor: psycopg.Cursor[Any], request: RoleRequest, context: ErrorContext) -> None:
    rows = cursor.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE name NOT IN (SELECT nspname FROM pg_catalog.pg_namespace)",
        [list(request.schemas)],
    ).fetchall()
    if rows:
        raise _role_error(f"There is no schema '{rows[0][0]}'", context, "Create it, or leave it out of 'schemas'.")


def _prepare_ledger(cursor: psycopg.Cursor[Any], request: RoleRequest) -> str | None:
    if request.ledger_schema is None:
        return None
    return "created" if create_ledger(cursor, request.ledger_schema) else "found"


def _create_extension(cursor: psycopg.Cursor[Any], context: ErrorContext) -> str:
    if cursor.execute("SELECT FROM pg_catalog.pg_extension WHERE extname = 'databricks_auth'").fetchone() is not None:
        return "found"
    try:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
    except (errors.UndefinedFile, errors.FeatureNotSupported) as error:
        hint = "Check that the connection leads to Lakebase: other Postgres servers have no Databricks identities."
        raise _role_error("The extension databricks_auth is not to be had", context, hint) from error
    return "created"


def _create_role(cursor: psycopg.Cursor[Any], request: RoleRequest, context: ErrorContext) -> str:
    if not _role_found(cursor, request, context):
        try:
            with cursor.connection.transaction():
                create = sql.SQL("SELECT {}(%s::text, %s::text)").format(_create_role_function(cursor))
                cursor.execute(create, [request.identity, request.identity_type])
            return "created"
        except (errors.DuplicateObject, errors.UniqueViolation):
            # Made by someone else since it was looked for.
            _role_found(cursor, request, context)
        except errors.InvalidParameterValue as error:
            what = f"The workspace knows no {request.identity_type} '{request.identity}': {error.diag.message_primary}"
            hint = "Give a service principal's client ID (not its name), a user's e-mail or a group's display name."
            raise _role_error(what, context, hint) from error
    return "found"


def _create_role_function(cursor: psycopg.Cursor[Any]) -> sql.Identifier:
    """Return the function by the schema of its extension, which need not be on the search path."""
    schema = cursor.execute(
        "SELECT nspname FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace n ON n.oid = extnamespace "
        "WHERE extname = 'databricks_auth'"
    ).fetchall()[0][0]
    return sql.Identifier(schema, "databricks_create_role")


def _role_found(cursor: psycopg.Cursor[Any], request: RoleRequest, context: ErrorContext) -> bool:
    row = cursor.execute(_LABEL, [request.identity]).fetchone()
    if row is not None and not row[0]:
        raise _role_error(
            f"Role '{request.identity}' exists without a Databricks identity, so no credential can log in as it",
            context,
            "Drop or rename that role (it was made by CREATE ROLE), then run this again.",
        )
    return row is not None


@dataclass(frozen=True)
class _Grant:
    """A set of privileges on a set of objects: which objects lack them, and how to give them."""

    role: str
    privileges: Sequence[str]
    what: str
    objects: str
    give: sql.SQL
    schema: str = ""
    kinds: Sequence[str] = ()

    def ensure(self, cursor: psycopg.Cursor[Any], context: ErrorContext) -> str | None:
        """Grant what is missing and say so, or return None when nothing is."""
        missing = self.missing(cursor)
        if not missing:
            return None
        names = sql.SQL(", ").join(sql.Identifier(*filter(None, name)) for name in missing)
        words = sql.SQL(", ").join(map(sql.SQL, self.privileges))
        cursor.execute(self.give.format(privileges=words, names=names, role=sql.Identifier(self.role)))
        if still := self.missing(cursor):
            some = ", ".join(name[-1] for name in still[:5])
            what = f"{', '.join(self.privileges)} on {self.what} was granted without effect: {some}"
            raise _role_error(what, context, _OWNER_REMEDY)
        count = f" ({len(missing)})" if self.objects is _RELATIONS else ""
        return f"{', '.join(self.privileges)} on {self.what}{count}"

    def missing(self, cursor: psycopg.Cursor[Any]) -> list[tuple[str | None, str]]:
        query = _MISSING.replace("{objects}", self.objects)
        return cursor.execute(
            query,
            {"role": self.role, "privileges": list(self.privileges), "schema": self.schema, "kinds": list(self.kinds)},
        ).fetchall()


def _grants(cursor: psycopg.Cursor[Any], request: RoleRequest) -> list[_Grant]:
    on_database = ["CONNECT", "CREATE"] if request.create_on_database else ["CONNECT"]
    give = sql.SQL("GRANT {privileges} ON DATABASE {names} TO {role}")
    grants = [_Grant(request.identity, on_database, "the database", _DATABASE, give)]
    for schema in request.schemas:
        grants += _schema_grants(request, schema)
    if request.ledger_schema is not None:
        grants += _ledger_grants(request.identity, request.ledger_schema)
    return [grant for grant in grants if grant.privileges]


def _schema_grants(request: RoleRequest, schema: str) -> list[_Grant]:
    role, within = request.identity, f"in schema {schema}"
    give = sql.SQL("GRANT {privileges} ON SCHEMA {names} TO {role}")
    grants = [_Grant(role, ["USAGE"], f"schema {schema}", _SCHEMAS, give, schema)]
    kinds = (("TABLE", request.privileges, _TABLE_KINDS), ("SEQUENCE", request.sequence_privileges, _SEQUENCE_KINDS))
    for kind, privileges, relkinds in kinds:
        give = sql.SQL(f"GRANT {{privileges}} ON {kind} {{names}} TO {{role}}")
        grants.append(_Grant(role, privileges, f"{kind.lower()}s {within}", _RELATIONS, give, schema, relkinds))
        if request.default_privileges:
            give = sql.SQL(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {{names}} GRANT {{privileges}} ON {kind}S TO {{role}}")
            what = f"later {kind.lower()}s {within}"
            grants.append(_Grant(role, privileges, what, _DEFAULTS, give, schema, [relkinds[0]]))
    return grants


def _ledger_grants(role: str, schema: str) -> list[_Grant]:
    on_schema = sql.SQL("GRANT {privileges} ON SCHEMA {names} TO {role}")
    on_table = sql.SQL("GRANT {privileges} ON TABLE {names} TO {role}")
    what = f"tables in schema {schema}"
    return [
        _Grant(role, ["USAGE"], f"schema {schema}", _SCHEMAS, on_schema, schema),
        _Grant(role, LEDGER_PRIVILEGES, what, _RELATIONS, on_table, schema, _TABLE_KINDS),
    ]


def _role_error(what: str, context: ErrorContext, hint: str) -> LakebaseRoleError:
    return LakebaseRoleError(f"{what}; nothing was changed", context=context, hint=hint)


def _not_one_of(name: str, value: object, choices: Sequence[str]) -> LakebaseSettingsError:
    return LakebaseSettingsError(f"{name} holds {value!r}", hint=f"Choose from {', '.join(choices)}.")
