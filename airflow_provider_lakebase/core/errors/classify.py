"""Decide whether an error is transient or permanent, and note on it which connection it is about."""

from __future__ import annotations

import re

from airflow_provider_lakebase.core.errors.catalog_postgres import find_postgres_rule
from airflow_provider_lakebase.core.errors.rules import Retry
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseError

READ_ONLY_SQLSTATE = "25006"

TRANSIENT_SQLSTATES = ("08", "40", "53200", "53300", "53400", "55P03", "57P01", "57P02", "57P03")
"""SQLSTATEs, or their first characters, of errors after which the same statement may succeed later."""
PERMANENT_SQLSTATES = ("42", "0A", READ_ONLY_SQLSTATE)
"""SQLSTATEs, or their first characters, of statements that Postgres refuses whenever they are run."""

_LOST_SESSION = re.compile(
    r"connection is (lost|closed)|consuming input failed|sending .* failed|could not (send|receive) data"
)


def is_transient(error: BaseException) -> bool:
    """Return whether the same attempt may succeed later without any change.

    That holds for a lost session, a conflict of transactions, and an endpoint or workspace that does not answer. It
    does not hold for a statement that timed out, a refused login, and a login that failed for an unknown reason.

    :param error: the exception that an attempt raised
    """
    if isinstance(error, LakebaseError):
        return error.retryable
    import psycopg

    if not isinstance(error, psycopg.OperationalError):
        return False
    if error.sqlstate:
        return error.sqlstate.startswith(TRANSIENT_SQLSTATES)
    rule = find_postgres_rule(str(error))
    return rule.retry is Retry.WAKING if rule else _LOST_SESSION.search(str(error)) is not None


def is_permanent(error: Exception) -> bool:
    """Return whether the same attempt would fail again.

    :param error: the exception that the attempt raised
    """
    if isinstance(error, LakebaseError):
        return not error.retryable
    return str(getattr(error, "sqlstate", None) or "").startswith(PERMANENT_SQLSTATES)


def is_from_postgres(error: BaseException) -> bool:
    """Return whether psycopg raised an error, without importing psycopg.

    :param error: any error
    """
    return hasattr(error, "sqlstate") and not isinstance(error, LakebaseError)


def add_context(error: BaseException, context: ErrorContext) -> None:
    """Note the connection on an error of a SQL statement, which is raised unchanged.

    :param error: any error; only psycopg's get a note
    :param context: the session's connection, endpoint, database and role
    """
    if not is_from_postgres(error):
        return
    error.add_note(str(context))
    if getattr(error, "sqlstate", None) == READ_ONLY_SQLSTATE:
        error.add_note("The session is read-only: write on a connection without 'read_only'.")
