"""Create the Postgres role of a Databricks identity and make its privileges what is declared, or tell how they differ.

Roles that OAuth credentials can use are created by ``databricks_create_role`` of the extension ``databricks_auth``
(https://docs.databricks.com/aws/en/oltp/projects/postgres-roles); a role made by a plain ``CREATE ROLE`` cannot log in
with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.grants.catalog import Catalog, read_catalog
from airflow_provider_lakebase.core.grants.changes import Change, plan_changes
from airflow_provider_lakebase.core.grants.declaration import Declaration, declare, role_error
from airflow_provider_lakebase.core.grants.drift import Drift, find_drift
from airflow_provider_lakebase.core.grants.report import report_database
from airflow_provider_lakebase.core.grants.request import IDENTITY_TYPES, RoleRequest
from airflow_provider_lakebase.core.ledger import create_ledger
from airflow_provider_lakebase.core.relations.records import create_records
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext

OWNER_HINT = "Connect as the project's owner, or as the owner of the objects named."
_ATTEMPTS = 5
# InvalidGrantOperation: a membership would be circular, or a role may not be granted by its grantor any more.
_REFUSALS = (errors.InsufficientPrivilege, errors.InvalidGrantOperation, errors.DependentObjectsStillExist)
# Others change the same roles, grants or objects at this moment.
_CONFLICTS = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,
    errors.UndefinedTable,
    errors.UndefinedObject,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
    errors.DuplicateSchema,
)


@dataclass(frozen=True)
class _Plan:
    catalog: Catalog
    declaration: Declaration
    drift: Drift
    changes: list[Change]


def bootstrap_role(
    connection: psycopg.Connection[Any],
    request: RoleRequest,
    *,
    dry_run: bool = False,
    prune: bool = False,
    whole_server: bool = True,
    check_permitted: bool = True,
    context: ErrorContext = NO_CONTEXT,
) -> dict[str, Any]:
    """Make the role of one database what is declared, in one transaction.

    Only what differs is changed, and read back, because a GRANT by a role that may not give the privilege can succeed
    with only a warning. A second run changes nothing.

    :param connection: an open session of a role that may create roles, not in autocommit
    :param request: the identity and what it is to have
    :param dry_run: whether only to tell, in a read-only transaction
    :param prune: whether to revoke what is not declared
    :param whole_server: whether to look at memberships too, which are the same in all databases
    :param check_permitted: whether to raise for what the connection's role may not do, in a dry run too
    :param context: connection and endpoint, for messages
    :raises LakebaseRoleError: if something could not be created, granted or revoked; nothing was changed
    :returns: the report of this database
    """
    run = _Run(request, prune, whole_server, context)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with connection.transaction(), connection.cursor() as cursor:
                return run.look(cursor, check_permitted) if dry_run else run.change(cursor)
        except _REFUSALS as error:
            raise role_error(f"Not permitted: {error.diag.message_primary}", context, OWNER_HINT) from error
        except (*_CONFLICTS, errors.InternalError_) as error:
            is_conflict = isinstance(error, _CONFLICTS) or "concurrently" in str(error)
            if attempt == _ATTEMPTS or not is_conflict:
                raise
    raise AssertionError


class _Run:
    def __init__(self, request: RoleRequest, prune: bool, whole_server: bool, context: ErrorContext) -> None:
        self._request = request
        self._prune = prune
        self._whole_server = whole_server
        self._context = context

    def look(self, cursor: psycopg.Cursor[Any], check_permitted: bool) -> dict[str, Any]:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        plan = self._plan(cursor)
        if check_permitted:
            self._check_permitted(plan)
        return self._report(plan)

    def change(self, cursor: psycopg.Cursor[Any]) -> dict[str, Any]:
        # Two concurrent bootstraps would fail with "tuple concurrently updated".
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('airflow-provider-lakebase role bootstrap'))")
        plan = self._plan(cursor)
        if not plan.catalog.extension:
            self._create_extension(cursor)
        if plan.catalog.label is None and not self._create_role(cursor, plan.catalog):
            # Someone else created it in the meantime, and may have granted to it.
            now = self._plan(cursor)
            plan = replace(now, catalog=replace(now.catalog, extension=plan.catalog.extension))
        return self._report(replace(plan, changes=self._make_all(cursor, plan)))

    def _make_all(self, cursor: psycopg.Cursor[Any], plan: _Plan) -> list[Change]:
        """Make the changes, and those for what others have created meanwhile; return them all."""
        made: list[Change] = []
        for _ in range(_ATTEMPTS):
            self._check_permitted(plan)
            for change in plan.changes:
                _make(cursor, plan.catalog, change)
            if not plan.changes:
                return made
            made += plan.changes
            plan = self._plan(cursor)
            self._require_none(change for change in plan.changes if change in made)
        self._require_none(plan.changes)
        return made

    def _plan(self, cursor: psycopg.Cursor[Any]) -> _Plan:
        catalog = read_catalog(cursor, self._request)
        self._check_identity(catalog)
        declaration = declare(self._request, catalog, self._context)
        drift = find_drift(self._request, catalog, declaration, prune=self._prune, whole_server=self._whole_server)
        changes = plan_changes(self._request, catalog, declaration, drift, prune=self._prune)
        return _Plan(catalog, declaration, drift, changes)

    def _report(self, plan: _Plan) -> dict[str, Any]:
        return report_database(
            self._request,
            plan.catalog,
            plan.declaration,
            plan.drift,
            plan.changes,
            whole_server=self._whole_server,
        )

    def _check_identity(self, catalog: Catalog) -> None:
        identity = self._request.identity
        if catalog.label is False:
            raise role_error(
                f"Role '{identity}' has no Databricks identity, so no credential can log in as it",
                self._context,
                "Drop or rename that role, which a plain CREATE ROLE made, and run this again.",
            )
        wanted, found = self._request.identity_type, catalog.identity_type
        if found in IDENTITY_TYPES and found != wanted:
            what = f"Role '{identity}' exists with the identity type {found}, so no {wanted} can log in as it"
            raise role_error(what, self._context, f"Pass identity_type='{found}', or correct the identity.")
        if catalog.label and not catalog.can_login:
            hint = f'Run ALTER ROLE "{identity}" LOGIN as a role that may.'
            raise role_error(f"Role '{identity}' may not log in", self._context, hint)

    def _check_permitted(self, plan: _Plan) -> None:
        user = plan.catalog.user
        lacks = [f"{change.action} {change.what}: {change.lack}" for change in plan.changes if change.lack]
        if lacks:
            more = f"; and {len(lacks) - 5} more" if len(lacks) > 5 else ""
            raise role_error(f"Not permitted: '{user}' may not {'; '.join(lacks[:5])}{more}", self._context, OWNER_HINT)

    def _require_none(self, changes: Iterable[Change]) -> None:
        left = [f"{change.action} {change.what}" for change in changes]
        if left:
            some = "; ".join(left[:5])
            raise role_error(f"The statement had no effect: {some}", self._context, OWNER_HINT)

    def _create_extension(self, cursor: psycopg.Cursor[Any]) -> None:
        try:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        except (errors.UndefinedFile, errors.FeatureNotSupported) as error:
            hint = "Check that the connection is to Lakebase; other Postgres servers do not have the extension."
            raise role_error(
                "Extension databricks_auth is not available on this server", self._context, hint
            ) from error

    def _create_role(self, cursor: psycopg.Cursor[Any], catalog: Catalog) -> bool:
        """Create the role; return whether it did not exist."""
        request = self._request
        try:
            with cursor.connection.transaction():
                create = sql.SQL("SELECT {}(%s::text, %s::text)").format(_create_role_function(cursor))
                cursor.execute(create, [request.identity, request.identity_type])
        except (errors.DuplicateObject, errors.UniqueViolation):
            return False
        except errors.InsufficientPrivilege as error:
            what = f"'{catalog.user}' may not create role '{request.identity}': {error.diag.message_primary}"
            hint = (
                f"It needs CREATEROLE and CREATE on database '{catalog.database}', and to log in with a credential. "
                "Connect as the project's owner."
            )
            raise role_error(f"Not permitted: {what}", self._context, hint) from error
        except errors.InvalidParameterValue as error:
            what = f"The workspace has no {request.identity_type} '{request.identity}': {error.diag.message_primary}"
            hint = "Pass a service principal's client ID (not its name), a user's e-mail or a group's display name."
            raise role_error(what, self._context, hint) from error
        return True


def _create_role_function(cursor: psycopg.Cursor[Any]) -> sql.Identifier:
    """Return the function's name qualified by its extension's schema, which may not be on the search path."""
    schema = cursor.execute(
        "SELECT nspname FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace n ON n.oid = extnamespace "
        "WHERE extname = 'databricks_auth'"
    ).fetchall()[0][0]
    return sql.Identifier(schema, "databricks_create_role")


def _make(cursor: psycopg.Cursor[Any], catalog: Catalog, change: Change) -> None:
    if change.new_ledger is not None:
        create_ledger(cursor, change.new_ledger)
        create_records(cursor.connection, change.new_ledger)
    with _borrowed(cursor, catalog.user, sorted(set(change.borrow))):
        if change.act_as is not None:
            cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(change.act_as)))
        for statement in change.statements:
            cursor.execute(statement)
        if change.act_as is not None:
            cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(catalog.user)))


@contextmanager
def _borrowed(cursor: psycopg.Cursor[Any], user: str, roles: Sequence[str]) -> Iterator[None]:
    """Make the connection's role a member of roles that it administers, for the block.

    Whoever creates a role may do so, but does not have its privileges. If the block raises, the transaction ends and
    the memberships with it.
    """
    names = {"user": sql.Identifier(user)}
    before = {role: _memberships(cursor, role, user) for role in roles}
    for role in roles:
        grant = sql.SQL("GRANT {role} TO {user} WITH INHERIT TRUE, SET TRUE")
        cursor.execute(grant.format(role=sql.Identifier(role), **names))
    yield
    for role in roles:
        cursor.execute(sql.SQL("REVOKE {role} FROM {user}").format(role=sql.Identifier(role), **names))
        after = _memberships(cursor, role, user)
        for grantor, options in before[role].items():
            if after.get(grantor) != options:
                _restore(cursor, role, user, grantor, options)


def _memberships(cursor: psycopg.Cursor[Any], role: str, user: str) -> dict[str, tuple[bool, bool, bool]]:
    rows = cursor.execute(
        "SELECT pg_get_userbyid(grantor), admin_option, inherit_option, set_option FROM pg_catalog.pg_auth_members "
        "WHERE pg_get_userbyid(roleid) = %s AND pg_get_userbyid(member) = %s",
        [role, user],
    ).fetchall()
    return {grantor: options for grantor, *options in rows}


def _restore(cursor: psycopg.Cursor[Any], role: str, user: str, grantor: str, options: Sequence[bool]) -> None:
    admin, inherit, set_ = (sql.SQL("TRUE" if option else "FALSE") for option in options)
    grant = sql.SQL("GRANT {} TO {} WITH ADMIN {}, INHERIT {}, SET {} GRANTED BY {}")
    names = map(sql.Identifier, (role, user))
    cursor.execute(grant.format(*names, admin, inherit, set_, sql.Identifier(grantor)))
