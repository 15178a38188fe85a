"""Create the Postgres role of a Databricks identity and grant it privileges: idempotently, and read back.

Roles that OAuth credentials can use are created by ``databricks_create_role`` of the extension ``databricks_auth``
(https://docs.databricks.com/aws/en/oltp/projects/postgres-roles); a role made by a plain ``CREATE ROLE`` cannot log in
with them.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.grants.grant import OWNER_HINT, plan_grants, role_error
from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.core.ledger import create_ledger
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext

_LABEL = """
    SELECT label.label IS NOT NULL FROM pg_catalog.pg_roles
    LEFT JOIN pg_catalog.pg_seclabels label
      ON label.objoid = pg_roles.oid AND label.objtype = 'role' AND label.provider = 'databricks_auth'
    WHERE rolname = %s
"""


def bootstrap_role(
    connection: psycopg.Connection[Any], request: RoleRequest, *, context: ErrorContext = NO_CONTEXT
) -> dict[str, Any]:
    """Create the role and its grants in one transaction.

    Only missing privileges are granted, and every grant is read back, because a GRANT by a role that may not give the
    privilege can succeed with only a warning. A second run changes nothing.

    :param connection: an open session of a role that may create roles, not in autocommit
    :param request: the identity and its privileges
    :param context: connection and endpoint, for messages
    :raises LakebaseRoleError: if the role was not created or a grant failed; nothing was changed
    :returns: a report: ``identity``, ``identity_type``, ``database``; ``extension``, ``role`` and ``ledger``, each
        ``found`` or ``created``; ``granted``, one description for each grant; ``changed``
    """
    try:
        with connection.transaction(), connection.cursor() as cursor:
            return _bootstrap(cursor, request, context)
    except errors.InsufficientPrivilege as error:
        raise role_error(f"Not permitted: {error.diag.message_primary}", context, OWNER_HINT) from error


def _bootstrap(cursor: psycopg.Cursor[Any], request: RoleRequest, context: ErrorContext) -> dict[str, Any]:
    # Two concurrent bootstraps would fail with "tuple concurrently updated".
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('airflow-provider-lakebase role bootstrap'))")
    _check_schemas(cursor, request, context)
    extension = _create_extension(cursor, context)
    role = _create_role(cursor, request, context)
    ledger = _prepare_ledger(cursor, request)
    granted = [text for grant in plan_grants(request) if (text := grant.ensure(cursor, context))]
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
        raise role_error(f"Schema '{rows[0][0]}' does not exist", context, "Create it, or remove it from 'schemas'.")


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
        hint = "Check that the connection is to Lakebase; other Postgres servers do not have the extension."
        raise role_error("Extension databricks_auth is not available on this server", context, hint) from error
    return "created"


def _create_role(cursor: psycopg.Cursor[Any], request: RoleRequest, context: ErrorContext) -> str:
    if not _role_found(cursor, request, context):
        try:
            with cursor.connection.transaction():
                create = sql.SQL("SELECT {}(%s::text, %s::text)").format(_create_role_function(cursor))
                cursor.execute(create, [request.identity, request.identity_type])
            return "created"
        except (errors.DuplicateObject, errors.UniqueViolation):
            # Someone else created it in the meantime.
            _role_found(cursor, request, context)
        except errors.InvalidParameterValue as error:
            what = f"The workspace has no {request.identity_type} '{request.identity}': {error.diag.message_primary}"
            hint = "Pass a service principal's client ID (not its name), a user's e-mail or a group's display name."
            raise role_error(what, context, hint) from error
    return "found"


def _create_role_function(cursor: psycopg.Cursor[Any]) -> sql.Identifier:
    """Return the function's name qualified by its extension's schema, which may not be on the search path."""
    schema = cursor.execute(
        "SELECT nspname FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace n ON n.oid = extnamespace "
        "WHERE extname = 'databricks_auth'"
    ).fetchall()[0][0]
    return sql.Identifier(schema, "databricks_create_role")


def _role_found(cursor: psycopg.Cursor[Any], request: RoleRequest, context: ErrorContext) -> bool:
    row = cursor.execute(_LABEL, [request.identity]).fetchone()
    if row is not None and not row[0]:
        raise role_error(
            f"Role '{request.identity}' has no Databricks identity, so no credential can log in as it",
            context,
            "Drop or rename that role, which a plain CREATE ROLE made, and run this again.",
        )
    return row is not None
