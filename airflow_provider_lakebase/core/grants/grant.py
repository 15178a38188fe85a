"""The grants of a role: which objects lack a privilege, and the statement that gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.core.ledger import PRIVILEGES as LEDGER_PRIVILEGES
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseRoleError

OWNER_HINT = "Connect as the project's owner, or as the owner of the objects named."
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
class Grant:
    """Privileges of a role on a set of objects.

    :param role: Postgres role, unquoted
    :param privileges: privileges, as SQL writes them
    :param what: the objects, as a report names them
    :param objects: query for the objects' names and access control lists
    :param give: the GRANT, with placeholders for ``privileges``, ``names`` and ``role``
    :param schema: the objects' schema, unquoted
    :param kinds: values of ``relkind``, for relations
    """

    role: str
    privileges: Sequence[str]
    what: str
    objects: str
    give: sql.SQL
    schema: str = ""
    kinds: Sequence[str] = ()

    def ensure(self, cursor: psycopg.Cursor[Any], context: ErrorContext) -> str | None:
        """Grant the privileges where they are missing.

        :param cursor: of an open session
        :param context: connection and endpoint, for messages
        :raises LakebaseRoleError: if Postgres accepted the GRANT, but it had no effect
        :returns: a description of what was granted, or None if nothing was missing
        """
        missing = self.missing(cursor)
        if not missing:
            return None
        names = sql.SQL(", ").join(sql.Identifier(*filter(None, name)) for name in missing)
        words = sql.SQL(", ").join(map(sql.SQL, self.privileges))
        cursor.execute(self.give.format(privileges=words, names=names, role=sql.Identifier(self.role)))
        if still := self.missing(cursor):
            some = ", ".join(name[-1] for name in still[:5])
            what = f"{', '.join(self.privileges)} on {self.what}: the GRANT had no effect on {some}"
            raise role_error(what, context, OWNER_HINT)
        count = f" ({len(missing)})" if self.objects is _RELATIONS else ""
        return f"{', '.join(self.privileges)} on {self.what}{count}"

    def missing(self, cursor: psycopg.Cursor[Any]) -> list[tuple[str | None, str]]:
        """Return schema and name of the objects on which the role lacks a privilege.

        :param cursor: of an open session
        """
        query = _MISSING.replace("{objects}", self.objects)
        return cursor.execute(
            query,
            {"role": self.role, "privileges": list(self.privileges), "schema": self.schema, "kinds": list(self.kinds)},
        ).fetchall()


def plan_grants(request: RoleRequest) -> list[Grant]:
    """Return the grants of a request, in the order in which they are made.

    :param request: the identity and its privileges
    """
    on_database = ["CONNECT", "CREATE"] if request.create_on_database else ["CONNECT"]
    give = sql.SQL("GRANT {privileges} ON DATABASE {names} TO {role}")
    grants = [Grant(request.identity, on_database, "the database", _DATABASE, give)]
    for schema in request.schemas:
        grants += _schema_grants(request, schema)
    if request.ledger_schema is not None:
        grants += _ledger_grants(request.identity, request.ledger_schema)
    return [grant for grant in grants if grant.privileges]


def _schema_grants(request: RoleRequest, schema: str) -> list[Grant]:
    role, within = request.identity, f"in schema {schema}"
    give = sql.SQL("GRANT {privileges} ON SCHEMA {names} TO {role}")
    grants = [Grant(role, ["USAGE"], f"schema {schema}", _SCHEMAS, give, schema)]
    kinds = (("TABLE", request.privileges, _TABLE_KINDS), ("SEQUENCE", request.sequence_privileges, _SEQUENCE_KINDS))
    for kind, privileges, relkinds in kinds:
        give = sql.SQL(f"GRANT {{privileges}} ON {kind} {{names}} TO {{role}}")
        grants.append(Grant(role, privileges, f"{kind.lower()}s {within}", _RELATIONS, give, schema, relkinds))
        if request.default_privileges:
            give = sql.SQL(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {{names}} GRANT {{privileges}} ON {kind}S TO {{role}}")
            what = f"later {kind.lower()}s {within}"
            grants.append(Grant(role, privileges, what, _DEFAULTS, give, schema, [relkinds[0]]))
    return grants


def _ledger_grants(role: str, schema: str) -> list[Grant]:
    on_schema = sql.SQL("GRANT {privileges} ON SCHEMA {names} TO {role}")
    on_table = sql.SQL("GRANT {privileges} ON TABLE {names} TO {role}")
    what = f"tables in schema {schema}"
    return [
        Grant(role, ["USAGE"], f"schema {schema}", _SCHEMAS, on_schema, schema),
        Grant(role, LEDGER_PRIVILEGES, what, _RELATIONS, on_table, schema, _TABLE_KINDS),
    ]


def role_error(message: str, context: ErrorContext, hint: str) -> LakebaseRoleError:
    """Return the error of a bootstrap that was rolled back.

    :param message: what happened
    :param context: connection and endpoint
    :param hint: what to do about it
    """
    return LakebaseRoleError(f"{message}; nothing was changed", context=context, hint=hint)
