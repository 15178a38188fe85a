"""Drop a role: give what it owns to another role in every database, then drop its grants and the role.

The changes are tried out in every database and rolled back, before the first one is made: what Postgres would refuse
is known while nothing has changed. Each database is then one transaction, the last one with the drop of the role. A
process that dies between two of them leaves the role, which is found again with what it still has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.grants.declaration import role_error
from airflow_provider_lakebase.core.grants.hand_over import (
    Role,
    drop_privileges,
    hand_over,
    inherit_from,
    owned_objects,
    require_nothing_left,
)
from airflow_provider_lakebase.core.grants.request import check_role_name
from airflow_provider_lakebase.exceptions import (
    NO_CONTEXT,
    ErrorContext,
    LakebaseError,
    LakebaseOutcomeUnknownError,
    LakebaseRoleError,
    LakebaseSettingsError,
)

log = logging.getLogger(__name__)

Connect = Callable[[str | None], AbstractContextManager[psycopg.Connection[Any]]]
"""Opens a session in a database, not in autocommit; None is the connection's own database."""

ADMIN_HINT = (
    "Connect as the identity that created the roles, such as the project's owner, or let it grant you the admin "
    "option. The role that gets the objects needs CREATE on their schemas."
)
LOCK_SECONDS = 10
"""Seconds to wait for a lock on an object, unless the session sets lock_timeout. Other sessions queue meanwhile."""
_ROLE = """
    SELECT r.oid, r.rolname,
        r.oid < 16384 OR r.rolsuper
            OR label.label IS NULL AND r.rolname ~ '^(databricks_|(cloud_admin|neon_superuser)$)',
        r.rolname IN (current_user, session_user),
        array(SELECT datname::text FROM pg_catalog.pg_database WHERE datdba = r.oid ORDER BY datname),
        pg_has_role(current_user, r.oid, 'USAGE WITH ADMIN OPTION')
    FROM pg_catalog.pg_roles r
    LEFT JOIN pg_catalog.pg_seclabels label
      ON label.objoid = r.oid AND label.objtype = 'role' AND label.provider = 'databricks_auth'
    WHERE r.rolname = %s
"""
# pg_shdepend tells of all databases, whichever the session is in.
_DATABASES = """
    SELECT DISTINCT datname::text, datallowconn
    FROM pg_catalog.pg_shdepend JOIN pg_catalog.pg_database d ON d.oid = dbid
    WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND refobjid = %s AND datname <> current_database()
    ORDER BY datname
"""
_SESSIONS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE usesysid = %s
"""


@dataclass
class _Report:
    databases: dict[str, list[str]] = field(default_factory=dict)
    default_privileges: int = 0
    sessions: int = 0


def drop_role(
    connect: Connect, identity: str, *, reassign_owned_to: str | None = None, context: ErrorContext = NO_CONTEXT
) -> dict[str, Any]:
    """Drop the role of an identity, unless it is gone.

    :param connect: opens a session in a database
    :param identity: its name
    :param reassign_owned_to: role that gets its objects and default privileges in every database; None if it owns
        nothing
    :param context: connection and endpoint, for messages
    :raises LakebaseRoleError: if it could not be dropped; unless the message says otherwise, nothing was changed
    :returns: a report: ``identity``; ``role``, ``dropped`` or ``gone``; ``reassigned_to``; ``databases``, for each one
        what went to another role; ``default_privileges`` and ``sessions``, how many; ``changed``
    """
    _check_names(identity, reassign_owned_to)
    gone = {"identity": identity, "role": "gone", "reassigned_to": reassign_owned_to}
    with connect(None) as home:
        # Two of them, or one and a bootstrap, would fail with "tuple concurrently updated".
        home.execute("SELECT pg_advisory_lock(hashtext('airflow-provider-lakebase role bootstrap'))")
        role = _find_role(home, identity)
        if role is None:
            return {**gone, "databases": {}, "default_privileges": 0, "sessions": 0, "changed": False}
        drop = _Drop(connect, home, role, _find_heir(home, reassign_owned_to, context), context)
        _require_droppable(home, role, context)
        report = drop.run()
    return {**gone, "role": "dropped", **vars(report), "changed": True}


@dataclass(frozen=True)
class _Drop:
    connect: Connect
    home: psycopg.Connection[Any]
    role: Role
    heir: Role | None
    context: ErrorContext

    def run(self) -> _Report:
        others = self._other_databases()
        self.home.commit()
        for database in others:
            with self._explaining(database, "nothing was changed"), self.connect(database) as connection:
                self._hand_over(connection, _Report())
                connection.rollback()
        home = self.home.info.dbname
        with self._explaining(home, "nothing was changed"):
            self._hand_over(self.home, _Report())
            self.home.rollback()
        return self._carry_out([*others, home])

    def _carry_out(self, databases: Sequence[str]) -> _Report:
        report, (*others, home) = _Report(), databases
        for number, database in enumerate(others):
            with self._explaining(database, _done(others[:number])), self.connect(database) as connection:
                self._hand_over(connection, report)
                connection.commit()
            self._log(database, report)
        with self._explaining(home, _done(others)):
            self._hand_over(self.home, report, drop=True)
            self.home.commit()
        self._log(home, report)
        if report.sessions:
            log.info("Ended %d sessions of '%s'", report.sessions, self.role.name)
        log.info("Dropped role '%s'", self.role.name)
        return report

    def _hand_over(self, connection: psycopg.Connection[Any], report: _Report, *, drop: bool = False) -> None:
        """Give what the role has in a database to its heir, and drop the rest, in the session's transaction."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, true) WHERE current_setting('lock_timeout') = '0'",
                [f"{LOCK_SECONDS}s"],
            )
            owned = owned_objects(cursor, self.role)
            if owned and self.heir is None:
                raise _owns(self.role, owned)
            with inherit_from(cursor, self.role, *filter(None, [self.heir])):
                if self.heir is not None:
                    report.default_privileges += hand_over(cursor, self.role, self.heir)
                drop_privileges(cursor, self.role)
                if drop:
                    report.sessions = _count(cursor, _SESSIONS, self.role)
            require_nothing_left(cursor, self.role)
            if drop:
                cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(self.role.name)))
            if owned:
                report.databases[connection.info.dbname] = owned

    def _other_databases(self) -> list[str]:
        rows = self.home.execute(_DATABASES, [self.role.oid]).fetchall()
        closed = [name for name, allows_connections in rows if not allows_connections]
        if closed:
            what = f"Role '{self.role.name}' has objects or privileges in databases that allow no connections: "
            hint = "Let them allow connections (ALTER DATABASE … ALLOW_CONNECTIONS true), or drop them."
            raise role_error(what + ", ".join(closed), self.context, hint)
        return [name for name, _ in rows]

    @contextmanager
    def _explaining(self, database: str, outcome: str) -> Iterator[None]:
        """Raise errors as LakebaseRoleError, which names the database and says what was changed."""
        name = self.role.name
        try:
            yield
        except LakebaseOutcomeUnknownError as error:
            raise self._error(database, error.message, "whether it was changed is unknown", RETRY, True) from error
        except LakebaseError as error:
            raise self._error(database, error.message, outcome, error.hint, error.retryable) from error
        except errors.InsufficientPrivilege as error:
            told = f"Not permitted: {error.diag.message_primary}"
            raise self._error(database, told, outcome, ADMIN_HINT, False) from error
        except errors.LockNotAvailable as error:
            told = f"Another session holds a lock on an object of '{name}': {error.diag.message_primary}"
            raise self._error(database, told, outcome, "End that session, or try again later.", True) from error
        except (errors.DependentObjectsStillExist, errors.DeadlockDetected, errors.InternalError_) as error:
            # Made by its sessions in the meantime; or someone else changes the same roles.
            told = f"{error.diag.message_primary}: {error.diag.message_detail or 'changed by another session'}"
            raise self._error(database, told, outcome, RETRY, True) from error
        except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.IntegrityError) as error:
            raise self._error(database, str(error.diag.message_primary), outcome, "", False) from error

    def _error(self, database: str, told: str, outcome: str, hint: str, retryable: bool) -> LakebaseRoleError:
        what = f"Role '{self.role.name}' could not be dropped, because of database '{database}': {told}; {outcome}"
        return LakebaseRoleError(what, context=self.context, hint=hint, retryable=retryable)

    def _log(self, database: str, report: _Report) -> None:
        if given := report.databases.get(database):
            some = ", ".join(given[:20]) + (", …" if len(given) > 20 else "")
            heir = self.heir.name if self.heir else ""
            log.info("Gave %d objects in database '%s' to '%s': %s", len(given), database, heir, some)
        log.info("Dropped what '%s' was granted in database '%s'", self.role.name, database)


RETRY = "Run it again: it goes on where this one has stopped."


def _check_names(identity: str, heir: str | None) -> None:
    check_role_name("identity", identity)
    if heir is not None:
        check_role_name("reassign_owned_to", heir)
    if heir == identity:
        raise LakebaseSettingsError(f"reassign_owned_to is {heir!r}", hint="Pass the name of another role.")


def _find_role(session: psycopg.Connection[Any], name: str) -> Role | None:
    row = session.execute(_ROLE, [name]).fetchone()
    return Role(*row) if row else None


def _find_heir(session: psycopg.Connection[Any], name: str | None, context: ErrorContext) -> Role | None:
    heir = _find_role(session, name) if name else None
    if name and heir is None:
        hint = "Correct reassign_owned_to, or create that role with LakebaseRoleBootstrapOperator."
        raise role_error(f"There is no role '{name}'", context, hint)
    if heir and heir.is_system:
        raise role_error(f"'{name}' is a system role", context, "Name another role with reassign_owned_to.")
    return heir


def _require_droppable(session: psycopg.Connection[Any], role: Role, context: ErrorContext) -> None:
    if role.is_system:
        raise role_error(f"'{role.name}' is a system role", context, "It is not dropped. Choose another role.")
    if role.is_current:
        hint = "Connect as another identity, such as the project's owner."
        raise role_error(f"'{role.name}' is the role of this session", context, hint)
    for database in ("databricks_postgres", session.info.dbname):
        if database in role.databases:
            hint = "Make another role its owner first: ALTER DATABASE … OWNER TO …."
            raise role_error(f"'{role.name}' is the owner of database '{database}'", context, hint)
    may_create = "SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolcreaterole OR rolsuper)"
    if not role.is_administered or session.execute(may_create).fetchone() is None:
        what = f"Not permitted: the session's role has no admin option on '{role.name}', or may not create roles"
        raise role_error(what, context, f"{ADMIN_HINT} Or pass route='api'.")


def _owns(role: Role, owned: Sequence[str]) -> LakebaseRoleError:
    some = ", ".join(owned[:5]) + (f" and {len(owned) - 5} more" if len(owned) > 5 else "")
    return LakebaseRoleError(f"it owns {some}", hint="Name the role that gets them with reassign_owned_to.")


def _count(cursor: psycopg.Cursor[Any], query: str, role: Role) -> int:
    row = cursor.execute(query, [role.oid]).fetchone()
    return row[0] if row else 0


def _done(databases: Sequence[str]) -> str:
    return f"it has nothing left in {', '.join(databases)}" if databases else "nothing was changed"
