"""Whether another attempt to open a session follows, decided without a server and without waiting."""

from __future__ import annotations

import psycopg
import pytest

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings
from airflow_provider_lakebase.core.session.retry import WORKSPACE_SILENT, LoginRetries
from airflow_provider_lakebase.exceptions import (
    LakebaseAuthenticationError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceUnreachableError,
)

BUSY = psycopg.OperationalError("Couldn't connect to compute node")
REFUSED = psycopg.OperationalError("OAuth: User is not authorized")
PROPAGATING = psycopg.OperationalError("External authorization failed")
DISABLED = psycopg.OperationalError("Control plane request failed: endpoint is disabled")
UNKNOWN = psycopg.OperationalError("the moon is made of cheese")


class Attempts:
    """Attempts of which each takes the seconds that it is given."""

    def __init__(self, **session: object) -> None:
        identity = WorkspaceIdentity("https://w.example", "oauth-m2m")
        endpoint = ResourceName("p", "b", "e")
        self.now = 0.0
        settings = LakebaseSettings("c", identity, endpoint, SessionSettings(**session))  # type: ignore[arg-type]
        self.retries = LoginRetries(settings, lambda: self.now)

    def fail(self, error: Exception, seconds: float = 0.1) -> bool:
        self.retries.looking_up()
        self.retries.looked_up()
        self.retries.connecting()
        self.now += seconds
        return self.retries.may_retry(error)


def test_an_endpoint_that_wakes_is_tried_again():
    attempts = Attempts()
    assert all(attempts.fail(BUSY) for _ in range(20))
    assert "does not answer yet" in attempts.retries.waits_for


@pytest.mark.parametrize("error", [DISABLED, UNKNOWN, LakebaseSettingsError("wrong"), KeyError("x"), None])
def test_an_error_that_does_not_pass_ends_the_attempts(error: Exception):
    assert not Attempts().fail(error)


def test_a_refused_login_is_tried_again_once_and_only_while_the_endpoint_wakes():
    assert not Attempts().fail(REFUSED)
    attempts = Attempts()
    assert attempts.fail(BUSY)
    assert attempts.fail(REFUSED)
    assert not attempts.fail(REFUSED)


def test_a_login_that_was_held_for_a_second_counts_as_waking():
    assert Attempts().fail(REFUSED, seconds=1.5)


def test_a_new_role_gets_sixty_seconds_to_propagate():
    attempts = Attempts()
    assert attempts.fail(PROPAGATING)
    assert attempts.fail(PROPAGATING, seconds=58)
    assert not attempts.fail(PROPAGATING, seconds=3)
    assert type(attempts.retries.to_error(PROPAGATING)) is LakebaseAuthenticationError


def test_a_host_that_does_not_answer_is_looked_up_again_once():
    attempts = Attempts()
    attempts.fail(BUSY)
    assert attempts.retries.looking_up()
    attempts.fail(BUSY)
    assert not attempts.retries.looking_up()


def test_an_endpoint_that_is_gone_is_looked_up_again_once_unless_the_attempt_already_did():
    gone = LakebaseResourceNotFoundError("gone")
    attempts = Attempts()
    attempts.retries.looking_up()
    assert not attempts.retries.may_retry(gone)
    assert attempts.fail(gone)
    assert not attempts.fail(gone)


def test_a_workspace_is_tried_again_unless_it_refuses_or_cannot_be_reached():
    assert Attempts().fail(LakebaseWorkspaceError("503"))
    assert not Attempts().fail(LakebaseWorkspaceAccessError("403"))
    assert not Attempts().fail(LakebaseWorkspaceUnreachableError("no route"))


def test_the_log_says_what_is_waited_for():
    retries = Attempts().retries
    assert retries.waits_for == WORKSPACE_SILENT
    retries.connecting()
    assert retries.waits_for == "it is waking"


def test_an_unknown_login_error_is_raised_as_it_came_with_the_context_added():
    attempts = Attempts()
    attempts.fail(UNKNOWN)
    assert attempts.retries.to_error(UNKNOWN) is UNKNOWN
    assert "connection 'c'" in UNKNOWN.__notes__[0]


def test_a_workspace_error_after_a_wake_does_not_hide_why_the_endpoint_did_not_wake():
    attempts = Attempts(wake_timeout=30)
    attempts.fail(BUSY)
    error = attempts.retries.to_error(LakebaseWorkspaceError("503"))
    assert type(error) is LakebaseWakeTimeoutError
    assert "No session within 30 s" in str(error)
    assert error.conn_id == "c"
    assert error.retryable
