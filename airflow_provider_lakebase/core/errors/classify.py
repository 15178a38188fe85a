"""Decide whether an error is transient."""

from __future__ import annotations

import re

from airflow_provider_lakebase.core.errors.catalog_postgres import find_postgres_rule
from airflow_provider_lakebase.core.errors.rules import Retry
from airflow_provider_lakebase.exceptions import LakebaseError

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
