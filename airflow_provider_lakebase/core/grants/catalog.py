"""What the catalog says of a role: what it holds, what gave it that, and what the connection's role may change.

Only pg_catalog is read, which every role may do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from airflow_provider_lakebase.core.grants.objects import COLUMN, SCHEMA, SEQUENCE, TABLE, Object
from airflow_provider_lakebase.core.grants.request import RoleRequest

PUBLIC = "public"  # no role can have this name
DATABASE_OWNER = "pg_database_owner"

# System roles: PostgreSQL's own, those of the service, and superusers.
_ROLES = """
    SELECT rolname,
        rolsuper OR rolname ~ '^(pg_|databricks_)' OR rolname = ANY ('{cloud_admin,neon_superuser}'),
        pg_has_role(oid, 'USAGE'), pg_has_role(oid, 'SET'), pg_has_role(oid, 'MEMBER WITH ADMIN OPTION')
    FROM pg_catalog.pg_roles
"""
_SESSION = """
    SELECT current_user, datname, pg_get_userbyid(datdba), current_setting('server_version_num')::int / 10000,
        has_database_privilege(oid, 'CREATE'),
        (SELECT rolcreaterole OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user)
    FROM pg_catalog.pg_database WHERE datname = current_database()
"""
_EXTENSION = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'databricks_auth')
"""
_IDENTITY = r"""
    SELECT label.label IS NOT NULL, rolcanlogin, upper(substring(label.label FROM '(?:^|,)\s*type=(\w+)'))
    FROM pg_catalog.pg_roles
    LEFT JOIN pg_catalog.pg_seclabels label
      ON label.objoid = pg_roles.oid AND label.objtype = 'role' AND label.provider = 'databricks_auth'
    WHERE rolname = %s
"""
_MEMBERSHIPS = """
    SELECT r.rolname, g.rolname, m.admin_option, m.inherit_option,
        EXISTS (SELECT FROM pg_catalog.pg_auth_members o WHERE o.roleid = m.roleid AND o.grantor = m.member)
    FROM pg_catalog.pg_auth_members m
    JOIN pg_catalog.pg_roles r ON r.oid = m.roleid JOIN pg_catalog.pg_roles g ON g.oid = m.grantor
    WHERE m.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s)
    ORDER BY 1, 2
"""
_MEMBERS = """
    WITH RECURSIVE members AS (
        SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s
        UNION SELECT member FROM pg_catalog.pg_auth_members JOIN members ON members.oid = roleid
    )
    SELECT pg_get_userbyid(oid) FROM members
"""
# Roles, each with those whose privileges it has.
_INHERITED = """
    SELECT base, rolname FROM unnest(%s::name[]) AS base
    JOIN pg_catalog.pg_roles r ON pg_has_role(base, r.oid, 'USAGE')
"""
# ``holders``: the identity, the roles whose privileges it may have, and PUBLIC. ``mine``: the roles whose privileges
# the connection's role has.
_OBJECTS = """
    WITH identity AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(identity)s),
    holders AS MATERIALIZED (
        SELECT oid FROM pg_catalog.pg_roles WHERE rolname = ANY (%(holders)s) UNION ALL SELECT 0
    ),
    mine AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_roles WHERE pg_has_role(oid, 'USAGE')),
    schemas AS MATERIALIZED (
        SELECT * FROM pg_catalog.pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> ALL ('{information_schema,__db_system}')
    ),
    members AS MATERIALIZED (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
    relations AS MATERIALIZED (
        SELECT c.oid, nspname, relname, relkind, relowner, relacl
        FROM pg_catalog.pg_class c JOIN schemas ON schemas.oid = relnamespace
        WHERE relkind = ANY ('{r,p,v,m,f,S}'::"char"[])
    ),
    objects AS (
        SELECT 'database' AS kind, '' AS schema, datname::text AS name, '' AS "column", '' AS arguments,
            oid, 'pg_database'::regclass AS class, datdba AS owner, coalesce(datacl, acldefault('d', datdba)) AS acl
        FROM pg_catalog.pg_database WHERE datname = current_database()
        UNION ALL
        SELECT 'schema', nspname, nspname, '', '', oid, 'pg_namespace'::regclass,
            nspowner, coalesce(nspacl, acldefault('n', nspowner))
        FROM schemas
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, nspname, relname, '', '',
            oid, 'pg_class'::regclass, relowner,
            coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
        FROM relations
        UNION ALL
        SELECT 'column', nspname, relname, attname, '', relations.oid, 'pg_class'::regclass, relowner, attacl
        FROM pg_catalog.pg_attribute JOIN relations ON relations.oid = attrelid
        WHERE attacl IS NOT NULL AND NOT attisdropped
        UNION ALL
        SELECT 'function', nspname, proname, '', oidvectortypes(proargtypes), p.oid, 'pg_proc'::regclass,
            proowner, coalesce(proacl, acldefault('f', proowner))
        FROM pg_catalog.pg_proc p JOIN schemas ON schemas.oid = pronamespace
        UNION ALL
        SELECT 'later ' || (
                '{"r": "tables", "S": "sequences", "f": "functions", "T": "types", "n": "schemas"}'
                ::jsonb ->> defaclobjtype::text
            ), coalesce(nspname, ''), pg_get_userbyid(defaclrole), '', '', d.oid,
            'pg_default_acl'::regclass, defaclrole, defaclacl
        FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = defaclnamespace
        WHERE defaclobjtype <> 'L'
    )
    SELECT kind, schema, name, "column", arguments, pg_get_userbyid(owner),
        EXISTS (SELECT FROM members WHERE classid = class AND objid = oid),
        (
            -- Not from relations, which would be read once for each sequence.
            SELECT ARRAY[nspname, relname, deptype::text] FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_class c ON c.oid = refobjid JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
            WHERE kind = 'sequence' AND classid = class AND objid = objects.oid AND refclassid = class
              AND refobjsubid > 0 AND deptype = ANY ('{a,i}') LIMIT 1
        ),
        (
            SELECT jsonb_agg(jsonb_build_array(
                privilege_type, is_grantable, pg_get_userbyid(grantor),
                CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, grantee = 0
            )) FROM aclexplode(acl) JOIN holders ON holders.oid = grantee
        ),
        (
            SELECT jsonb_agg(privilege_type) FROM aclexplode(acl)
            JOIN identity ON grantor = identity.oid WHERE grantor <> owner
        ),
        (SELECT jsonb_agg(privilege_type) FROM aclexplode(acl) JOIN mine ON mine.oid = grantee WHERE is_grantable)
    FROM objects ORDER BY kind, schema, name, "column", arguments
"""
_SIGNATURE = """
    SELECT coalesce(string_agg(coalesce(to_regtype(type)::text, type), ', ' ORDER BY number), '')
    FROM unnest(%s::text[]) WITH ORDINALITY AS argument (type, number)
"""
# A type modifier in parentheses and a quoted name may contain commas.
_ARGUMENT = re.compile(r'(?:"[^"]*"|\([^()]*\)|[^,])+')
_MODE = re.compile(r"(?:VARIADIC|INOUT|IN)\s+", re.IGNORECASE)
_NO_TYPE = (errors.SyntaxError, errors.InvalidName, errors.FeatureNotSupported, psycopg.DataError)
# Roles that have privileges without an access control list.
_PREDEFINED: dict[str, dict[str, tuple[str, ...]]] = {
    "pg_read_all_data": {TABLE: ("SELECT",), SEQUENCE: ("SELECT",), SCHEMA: ("USAGE",)},
    "pg_write_all_data": {TABLE: ("INSERT", "UPDATE", "DELETE"), SEQUENCE: ("UPDATE",), SCHEMA: ("USAGE",)},
    "pg_maintain": {TABLE: ("MAINTAIN",)},
}


@dataclass(frozen=True)
class RoleFacts:
    """What the connection's role is to another role.

    :param is_system: whether the service or PostgreSQL made the other role
    :param has_privileges: whether it has the other's privileges
    :param can_set: whether it can SET ROLE to the other
    :param is_admin: whether it may make others members, itself included
    """

    is_system: bool = False
    has_privileges: bool = False
    can_set: bool = False
    is_admin: bool = False


@dataclass(frozen=True)
class Held:
    """A privilege that the identity has.

    :param object: what on
    :param privilege: as SQL writes it
    :param holder: the role that has it: the identity, one that it inherits from, or ``PUBLIC``
    :param grantor: who granted it; empty if that is no grant
    :param grantable: whether the holder may grant it
    """

    object: Object
    privilege: str
    holder: str
    grantor: str = ""
    grantable: bool = False


@dataclass(frozen=True)
class Membership:
    """A direct membership of the identity.

    :param role: the role that it is a member of
    :param grantor: who granted it
    :param admin: whether with ADMIN OPTION
    :param inherits: whether the identity has the role's privileges
    :param passed_on: whether the identity has made others members
    """

    role: str
    grantor: str
    admin: bool
    inherits: bool
    passed_on: bool


@dataclass(frozen=True)
class Catalog:
    """What the catalog of one database says.

    :param user: the connection's role
    :param database: its name
    :param database_owner: its owner
    :param version: major version of Postgres
    :param may_create: whether the connection's role has CREATE on the database
    :param may_create_roles: whether it has CREATEROLE, which is not inherited
    :param extension: whether the extension is installed
    :param label: whether the identity's role has a Databricks identity; None if there is no such role
    :param can_login: whether that role may log in
    :param identity_type: type of that identity, as its label tells; None if it tells none
    :param roles: all roles
    :param objects: all objects outside system schemas
    :param held: what the identity, the roles of ``inherited`` and PUBLIC hold on them
    :param passed_on: what the identity has granted to others
    :param grantable: what the connection's role may grant without being the owner
    :param memberships: of the identity
    :param members: roles that are members of the identity, also indirectly, and itself
    :param inherited: the roles that it is a direct member of, or is to be, with those whose privileges they have
    :param signatures: types of arguments, as requested and as the catalog writes them; None for what names no types
    """

    user: str
    database: str
    database_owner: str
    version: int
    may_create: bool
    may_create_roles: bool
    extension: bool
    label: bool | None
    can_login: bool
    identity_type: str | None
    roles: dict[str, RoleFacts]
    objects: list[Object]
    held: list[Held]
    passed_on: set[tuple[Object, str]]
    grantable: dict[Object, set[str]]
    memberships: list[Membership]
    members: set[str]
    inherited: dict[str, set[str]]
    signatures: dict[str, str | None]

    def role(self, name: str) -> RoleFacts:
        """Return what the connection's role is to a role.

        :param name: the role, which may not exist yet: whoever creates it administers it
        """
        return self.roles.get(name, RoleFacts(is_admin=True))


def read_catalog(cursor: psycopg.Cursor[Any], request: RoleRequest) -> Catalog:
    """Return what the catalog says.

    :param cursor: of an open session
    :param request: the identity, and the functions whose arguments to look up
    """
    identity = request.identity
    user, database, owner, version, may_create, may_create_roles = cursor.execute(_SESSION).fetchall()[0]
    role = cursor.execute(_IDENTITY, [identity]).fetchone()
    roles = {name: RoleFacts(*facts) for name, *facts in cursor.execute(_ROLES).fetchall()}
    memberships = [Membership(*row) for row in cursor.execute(_MEMBERSHIPS, [identity]).fetchall()]
    objects: list[Object] = []
    held: list[Held] = []
    passed_on: set[tuple[Object, str]] = set()
    grantable: dict[Object, set[str]] = {}
    inherited: dict[str, set[str]] = {}
    bases = {
        *(item.role for item in memberships),
        *(request.member_of or ()),
        *([DATABASE_OWNER] if owner == identity else []),
    }
    for base, name in cursor.execute(_INHERITED, [list(bases & set(roles))]).fetchall():
        inherited.setdefault(base, set()).add(name)
    holders = {identity}.union(*inherited.values())
    rows = cursor.execute(_OBJECTS, {"identity": identity, "holders": list(holders)}).fetchall()
    for *facts, held_here, passed_here, grantable_here in rows:
        item = _object(*facts)
        objects.append(item)
        held += [
            Held(item, privilege, PUBLIC if is_public else holder, grantor, may_grant)
            for privilege, may_grant, grantor, holder, is_public in held_here or ()
        ]
        passed_on |= {(item, privilege) for privilege in passed_here or ()}
        grantable[item] = set(grantable_here or ())
    # A REVOKE on a table is one on its columns too.
    passed_on |= {
        (Object(TABLE, item.object.schema, item.object.name), item.privilege)
        for item in held
        if item.object.kind == COLUMN and item.holder == identity and (item.object, item.privilege) in passed_on
    }
    held += _predefined(objects, sorted(holders & set(_PREDEFINED)))
    return Catalog(
        user=user,
        database=database,
        database_owner=owner,
        version=version,
        may_create=may_create,
        may_create_roles=may_create_roles,
        extension=cursor.execute(_EXTENSION).fetchall()[0][0],
        label=role[0] if role else None,
        can_login=bool(role and role[1]),
        identity_type=role[2] if role else None,
        roles=roles,
        objects=objects,
        held=held,
        passed_on=passed_on,
        grantable=grantable,
        memberships=memberships,
        members={name for (name,) in cursor.execute(_MEMBERS, [identity]).fetchall()},
        inherited=inherited,
        signatures={text: _signature(cursor, text) for *_, text in request.function_names if text is not None},
    )


def _object(
    kind: str,
    schema: str,
    name: str,
    column: str,
    arguments: str,
    owner: str,
    of_extension: bool,
    table: list[str] | None,
) -> Object:
    return Object(
        kind,
        schema,
        name,
        column,
        arguments,
        owner=owner,
        table=(table[0], table[1]) if table else None,
        is_serial=table is not None and table[2] == "a",
        of_extension=of_extension,
    )


def _signature(cursor: psycopg.Cursor[Any], arguments: str) -> str | None:
    """Return the types of a function's arguments as the catalog writes them; None if the text names no types."""
    types = [_MODE.sub("", item.strip()) for item in _ARGUMENT.findall(arguments[1:-1]) if item.strip()]
    try:
        with cursor.connection.transaction():
            return str(cursor.execute(_SIGNATURE, [types]).fetchall()[0][0])
    except _NO_TYPE:
        return None


def _predefined(objects: Iterable[Object], roles: Sequence[str]) -> list[Held]:
    return [
        Held(item, privilege, role)
        for item in objects
        for role in roles
        for privilege in _PREDEFINED[role].get(item.kind, ())
    ]
