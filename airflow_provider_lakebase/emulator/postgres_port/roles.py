"""The roles of a cluster, their labels and passwords."""

from __future__ import annotations

from psycopg import sql

from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.postgres_port import superuser
from airflow_provider_lakebase.emulator.postgres_port.cluster import Cluster

LABEL_PROVIDER = "databricks_auth"

# One statement, so that it needs no session of its own. The role belongs to its creator, as if it had signed in.
_CREATE = """
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN
        SET LOCAL SESSION AUTHORIZATION {creator};
        CREATE EXTENSION IF NOT EXISTS databricks_auth;
        PERFORM public.databricks_create_role({name}, {kind});
        GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {database} TO {role};
    END IF;
END
$do$
"""


def create_administrator(cluster: Cluster, owner: Principal, database: str) -> None:
    """Create ``databricks_superuser`` and the project owner's role, which owns the database."""
    names = {"owner": sql.Identifier(owner.role), "database": sql.Identifier(database)}
    for statement in superuser.ROLES:
        cluster.execute(sql.SQL(statement).format(**names))
    for each in ("template1", database):
        cluster.execute_in(each, superuser.DATABASE)
    cluster.execute(
        "INSERT INTO pg_catalog.pg_shseclabel (objoid, classoid, provider, label) "
        "SELECT oid, 'pg_catalog.pg_authid'::regclass, %s, %s FROM pg_catalog.pg_roles WHERE rolname = %s",
        (LABEL_PROVIDER, owner.label, owner.role),
    )


def create_role_statement(creator: Principal, principal: Principal, database: str) -> sql.Composed:
    """Return the statement that creates an identity's role, with CREATE on the database, unless the role exists."""
    return sql.SQL(_CREATE).format(
        creator=sql.Identifier(creator.role),
        name=sql.Literal(principal.role),
        kind=sql.Literal(principal.identity_type),
        role=sql.Identifier(principal.role),
        database=sql.Identifier(database),
    )


def role_label(cluster: Cluster, role: str) -> tuple[bool, str | None]:
    """Return whether the role exists, and its ``databricks_auth`` label if it has one."""
    rows = cluster.execute(
        "SELECT s.label FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_shseclabel s ON s.objoid = r.oid "
        "AND s.classoid = 'pg_catalog.pg_authid'::regclass AND s.provider = %s WHERE r.rolname = %s",
        (LABEL_PROVIDER, role),
    )
    return (True, rows[0][0]) if rows else (False, None)


def password_secret(cluster: Cluster, role: str) -> str | None:
    """Return a role's stored password secret; None if it has none or it has expired."""
    rows = cluster.execute(
        "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s "
        "AND (rolvaliduntil IS NULL OR rolvaliduntil > now())",
        (role,),
    )
    return rows[0][0] if rows else None
