"""Give what a role has in one database to another role, in the transaction of a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.exceptions import LakebaseRoleError

# What depends on a role in the current database, or is shared by all; or only what it owns. Default privileges are
# handed over one by one. A user mapping has a password of this role alone; a temporary table ends with its session.
_DEPENDENCIES = """
    SELECT pg_describe_object(classid, objid, objsubid) FROM pg_catalog.pg_shdepend
    WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND refobjid = %(role)s
      AND dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
      AND (
          NOT %(owned)s
          OR deptype = 'o'
          AND classid NOT IN ('pg_catalog.pg_default_acl'::pg_catalog.regclass,
                              'pg_catalog.pg_user_mapping'::pg_catalog.regclass)
          AND NOT (
              classid = 'pg_catalog.pg_class'::pg_catalog.regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = objid AND relpersistence = 't')
          )
      )
    ORDER BY 1
"""
# Who has granted what is left on an object, as REVOKE names kind and object.
_GRANTORS = """
    SELECT DISTINCT kind, (pg_identify_object(classid, objid, 0)).identity, grantor.rolname
    FROM pg_catalog.pg_shdepend
    CROSS JOIN LATERAL (
        SELECT 'pg_class' AS class, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, relacl AS acl
        FROM pg_catalog.pg_class WHERE oid = objid
        UNION ALL SELECT 'pg_class', 'TABLE', attacl FROM pg_catalog.pg_attribute WHERE attrelid = objid
        UNION ALL SELECT 'pg_namespace', 'SCHEMA', nspacl FROM pg_catalog.pg_namespace WHERE oid = objid
        UNION ALL SELECT 'pg_database', 'DATABASE', datacl FROM pg_catalog.pg_database WHERE oid = objid
        UNION ALL SELECT 'pg_proc', 'ROUTINE', proacl FROM pg_catalog.pg_proc WHERE oid = objid
        UNION ALL SELECT 'pg_type', 'TYPE', typacl FROM pg_catalog.pg_type WHERE oid = objid
        UNION ALL SELECT 'pg_language', 'LANGUAGE', lanacl FROM pg_catalog.pg_language WHERE oid = objid
        UNION ALL SELECT 'pg_foreign_server', 'FOREIGN SERVER', srvacl
        FROM pg_catalog.pg_foreign_server WHERE oid = objid
        UNION ALL SELECT 'pg_largeobject', 'LARGE OBJECT', lomacl
        FROM pg_catalog.pg_largeobject_metadata WHERE oid = objid
    ) AS object
    CROSS JOIN LATERAL aclexplode(acl) AS held
    JOIN pg_catalog.pg_roles grantor ON grantor.oid = held.grantor
    WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND refobjid = %(role)s AND deptype = 'a'
      AND dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
      AND classid = ('pg_catalog.' || class)::pg_catalog.regclass AND held.grantee = %(role)s
    ORDER BY 1, 2, 3
"""
# No row if the session has the privileges of the role and may become it, or if it may not grant it to itself.
_MEMBERSHIP = """
    SELECT m.inherit_option, m.set_option
    FROM (SELECT %(role)s::regrole::oid AS role, quote_ident(current_user)::regrole::oid AS session) AS given
    LEFT JOIN pg_catalog.pg_auth_members m ON m.roleid = role AND m.member = session AND m.grantor = session
    WHERE NOT (pg_has_role(session, role, 'USAGE') AND pg_has_role(session, role, 'SET'))
      AND pg_has_role(session, role, 'USAGE WITH ADMIN OPTION')
"""
# What a role's default privileges add to those of Postgres, and what they take away from PUBLIC.
_DEFAULTS = """
    WITH defaults AS (
        SELECT defaclobjtype AS kind, nspname AS schema, defaclacl AS acl,
            CASE WHEN nspname IS NULL
                THEN acldefault(CASE defaclobjtype WHEN 'S' THEN 's' ELSE defaclobjtype END, defaclrole)
            END AS usual
        FROM pg_catalog.pg_default_acl LEFT JOIN pg_catalog.pg_namespace n ON n.oid = defaclnamespace
        WHERE defaclrole = %(role)s
    )
    SELECT true AS is_grant, kind, schema, rolname, privilege_type, is_grantable
    FROM defaults, aclexplode(acl) LEFT JOIN pg_catalog.pg_roles r ON r.oid = grantee
    WHERE grantee NOT IN (%(role)s, %(heir)s)
      AND NOT EXISTS (
          SELECT FROM aclexplode(usual) AS u
          WHERE u.grantee = aclexplode.grantee AND u.privilege_type = aclexplode.privilege_type
      )
    UNION ALL
    SELECT false, kind, schema, NULL, privilege_type, false
    FROM defaults, aclexplode(usual)
    WHERE grantee = 0
      AND NOT EXISTS (
          SELECT FROM aclexplode(acl) AS a
          WHERE a.grantee = 0 AND a.privilege_type = aclexplode.privilege_type
      )
"""
_SCHEMAS = "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspowner = %(role)s ORDER BY 1"
# Whoever gets a function or type has to have CREATE on its schema at that moment. For tables, that is not asked.
_SCHEMAS_OF_OTHERS = """
    SELECT DISTINCT nspname FROM pg_catalog.pg_shdepend
    JOIN pg_catalog.pg_namespace n ON quote_ident(nspname) = (pg_identify_object(classid, objid, 0)).schema
    WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND refobjid = %(role)s AND deptype = 'o'
      AND dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND classid <> 'pg_catalog.pg_class'::pg_catalog.regclass
      AND NOT has_schema_privilege(%(heir)s, n.oid, 'CREATE')
      AND has_schema_privilege(n.oid, 'CREATE WITH GRANT OPTION')
    ORDER BY 1
"""
_KINDS = {
    "r": "TABLES",
    "S": "SEQUENCES",
    "f": "FUNCTIONS",
    "T": "TYPES",
    "n": "SCHEMAS",
    "L": "LARGE OBJECTS",
}


@dataclass(frozen=True)
class Role:
    """A role, and what the session may do with it.

    :param oid: its OID
    :param name: its name
    :param is_system: whether it belongs to Postgres or to the service
    :param is_current: whether it is the session's own
    :param databases: names of the databases that it owns
    :param is_administered: whether the session may grant it to others
    """

    oid: int
    name: str
    is_system: bool
    is_current: bool
    databases: Sequence[str]
    is_administered: bool


def owned_objects(cursor: psycopg.Cursor[Any], role: Role) -> list[str]:
    """Return descriptions of what a role owns in the current database, and of the databases that it owns.

    :param cursor: of an open session
    :param role: the role
    """
    return [text for (text,) in cursor.execute(_DEPENDENCIES, {"role": role.oid, "owned": True}).fetchall()]


def hand_over(cursor: psycopg.Cursor[Any], role: Role, heir: Role) -> int:
    """Give a role's objects and default privileges to another role.

    :param cursor: of an open session, which has the privileges of both
    :param role: the role
    :param heir: the role that gets them
    :returns: how many default privileges there were
    """
    defaults = cursor.execute(_DEFAULTS, {"role": role.oid, "heir": heir.oid}).fetchall()
    for is_grant, kind, schema, grantee, privilege, is_grantable in defaults:
        within = sql.SQL(" IN SCHEMA {}").format(sql.Identifier(schema)) if schema else sql.SQL("")
        cursor.execute(
            sql.SQL(
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {{heir}}{{within}} {'GRANT' if is_grant else 'REVOKE'} {privilege} "
                f"ON {_KINDS[kind]} {'TO' if is_grant else 'FROM'} {{grantee}}"
                f"{' WITH GRANT OPTION' if is_grantable else ''}"
            ).format(
                heir=sql.Identifier(heir.name),
                within=within,
                grantee=sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC"),
            )
        )
    to, roles = sql.Identifier(heir.name), {"role": role.oid, "heir": heir.oid}
    # First, since REASSIGN OWNED takes a schema and the functions in it in any order.
    for (schema,) in cursor.execute(_SCHEMAS, roles).fetchall():
        cursor.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(sql.Identifier(schema), to))
    opened = [sql.Identifier(name) for (name,) in cursor.execute(_SCHEMAS_OF_OTHERS, roles).fetchall()]
    for schema in opened:
        cursor.execute(sql.SQL("GRANT CREATE ON SCHEMA {} TO {}").format(schema, to))
    cursor.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(sql.Identifier(role.name), to))
    for schema in opened:
        cursor.execute(sql.SQL("REVOKE CREATE ON SCHEMA {} FROM {}").format(schema, to))
    return len(defaults)


def drop_privileges(cursor: psycopg.Cursor[Any], role: Role) -> None:
    """Revoke everything that a role was granted. Refuse if it owns an object: DROP OWNED would drop that too.

    :param cursor: of an open session, which has the privileges of the role
    :param role: the role
    :raises LakebaseRoleError: if it owns anything
    """
    if owned := owned_objects(cursor, role):
        raise LakebaseRoleError(f"REASSIGN OWNED has left {', '.join(owned[:5])}", hint="Give these away by hand.")
    cursor.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role.name)))
    # Postgres revokes in the name of one of the session's roles, which may be databricks_superuser in place of the
    # owner who has granted. What that leaves is revoked as who has granted it.
    for kind, identity, grantor in cursor.execute(_GRANTORS, {"role": role.oid}).fetchall():
        name = sql.Identifier(grantor)
        with _granted(cursor, name):
            if not cursor.execute("SELECT 1 WHERE pg_has_role(current_user, %s, 'SET')", [grantor]).fetchone():
                continue
            cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(name))
            revoke = sql.SQL(f"REVOKE ALL ON {kind} {{}} FROM {{}} CASCADE")
            cursor.execute(revoke.format(sql.SQL(identity), sql.Identifier(role.name)))
            cursor.execute("SET LOCAL ROLE NONE")


def require_nothing_left(cursor: psycopg.Cursor[Any], role: Role) -> None:
    """Refuse to go on if a role still has something in the current database.

    A REVOKE by a role that has not made the grant can succeed with only a warning.

    :param cursor: of an open session
    :param role: the role
    :raises LakebaseRoleError: if it has
    """
    left = [text for (text,) in cursor.execute(_DEPENDENCIES, {"role": role.oid, "owned": False}).fetchall()]
    if left:
        what = f"the session's role may not revoke its privileges on {', '.join(left[:5])}"
        raise LakebaseRoleError(what, hint="Connect as the owner of these objects, or as who made the grants.")


@contextmanager
def inherit_from(cursor: psycopg.Cursor[Any], *roles: Role) -> Iterator[None]:
    """Let the session have the privileges of roles, where it may grant them to itself.

    The creator of a role has the admin option on it and nothing else. Afterwards its memberships are as they were.

    :param cursor: of an open session, in a transaction
    :param roles: the roles
    """
    with ExitStack() as memberships:
        for role in roles:
            memberships.enter_context(_granted(cursor, sql.Identifier(role.name)))
        yield


@contextmanager
def _granted(cursor: psycopg.Cursor[Any], role: sql.Identifier) -> Iterator[None]:
    found = cursor.execute(_MEMBERSHIP, {"role": role.as_string(cursor)}).fetchone()
    if found is None:
        yield
        return
    cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE").format(role))
    yield
    inherit, set_option = found
    if inherit is None:
        cursor.execute(sql.SQL("REVOKE {} FROM CURRENT_USER").format(role))
    else:
        options = sql.SQL(f"GRANT {{}} TO CURRENT_USER WITH INHERIT {inherit}, SET {set_option}")
        cursor.execute(options.format(role))
