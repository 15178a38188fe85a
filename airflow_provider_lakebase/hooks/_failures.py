"""Skip the retries of a task that cannot help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lakebase.core.errors.classify import is_permanent


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
