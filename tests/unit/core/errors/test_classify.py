"""Which errors may pass by themselves."""

from __future__ import annotations

import psycopg
import pytest

from airflow_provider_lakebase.core.errors.classify import PERMANENT_SQLSTATES, TRANSIENT_SQLSTATES, is_transient
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseWakeTimeoutError, LakebaseWorkspaceError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LakebaseWakeTimeoutError("slept"), True),
        (LakebaseLoadError("bad row"), False),
        (LakebaseWorkspaceError("refused", retryable=False), False),
        (psycopg.errors.SerializationFailure("x"), True),
        (psycopg.errors.DeadlockDetected("x"), True),
        (psycopg.errors.AdminShutdown("x"), True),
        (psycopg.errors.QueryCanceled("statement timeout"), False),
        (psycopg.errors.UndefinedTable("x"), False),
        (psycopg.OperationalError("the connection is lost"), True),
        (psycopg.OperationalError("Couldn't connect to compute node"), True),
        (psycopg.OperationalError("OAuth: User is not authorized"), False),
        (psycopg.OperationalError("the moon is made of cheese"), False),
        (ValueError("x"), False),
    ],
)
def test_is_transient(error: Exception, expected: bool):
    assert is_transient(error) is expected


def test_no_sqlstate_is_both_transient_and_permanent():
    assert not set(TRANSIENT_SQLSTATES) & set(PERMANENT_SQLSTATES)
