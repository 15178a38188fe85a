"""Handle the errors of a task: add the connection to them, and skip retries that cannot help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lakebase.core.errors.classify import PERMANENT_SQLSTATES, READ_ONLY_SQLSTATE
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseError


@contextmanager
def fail_without_retry() -> Iterator[None]:
    """Raise ``AirflowFailException`` for errors that a retry cannot help, so that the task spends no retries on them.

    These are all :class:`LakebaseError` that are not retryable, and what Postgres refuses because of the statement or
    its role: SQLSTATEs of class 42 (syntax, names, privileges) and 0A (not supported), and a write in a read-only
    transaction. Errors that depend on rows in the database (classes 22 and 23) pass, because the rows may change.

    :raises AirflowFailException: with the message of the error, which is its cause
    """
    try:
        yield
    except Exception as error:
        if not is_permanent(error):
            raise
        raise AirflowFailException("\n".join([str(error), *getattr(error, "__notes__", ())])) from error


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
        error.add_note("The session is read-only: write on a connection or hook without 'read_only'.")
