"""Decide whether another attempt to open a session can succeed, from what the attempts so far have shown.

No I/O happens here, and the clock is handed in.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from tenacity import wait_random_exponential

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.catalog_postgres import find_postgres_rule
from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry
from airflow_provider_lakebase.exceptions import (
    LakebaseResourceNotFoundError,
    LakebaseWakeTimeoutError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceUnreachableError,
)

BACK_OFF = wait_random_exponential(multiplier=0.25, max=8)
"""Wait between two attempts: exponential with full jitter, in seconds."""
ROLE_PROPAGATION_SECONDS = 60.0
"""Seconds that a new role may take until the front end knows it."""
HELD_SECONDS = 1.0
"""Seconds after which a login counts as held by the front end while the endpoint wakes."""
WORKSPACE_SILENT = "the workspace has not answered yet"


class LoginRetries:
    """The attempts to open one session.

    :param settings: the connection
    :param clock: returns seconds; only differences count
    """

    def __init__(self, settings: LakebaseSettings, clock: Callable[[], float]) -> None:
        self.waits_for = WORKSPACE_SILENT
        """What the next attempt waits for, for the log."""
        self.refresh_address = False
        """Whether the next attempt looks the host up again."""
        self._settings = settings
        self._clock = clock
        self._started_at = self._connecting_since = clock()
        self._address_known = False
        self._has_refreshed = False
        self._was_waking = False
        self._refusals = 0
        self._rule: ErrorRule | None = None
        self._login_error: psycopg.OperationalError | None = None
        self._propagating_since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the first attempt began."""
        return self._clock() - self._started_at

    @property
    def seconds_left(self) -> float:
        """Seconds until ``wake_timeout``, but at least 0.1."""
        return max(self._settings.session.wake_timeout - self.seconds, 0.1)

    def looking_up(self) -> bool:
        """Record that an attempt looks up the host; return whether to do so again when the host is known."""
        refresh, self.refresh_address = self.refresh_address, False
        self._address_known = False
        return refresh

    def looked_up(self) -> None:
        """Record that the attempt knows the host."""
        self._address_known = True

    def connecting(self) -> None:
        """Record that the attempt connects to Postgres now."""
        self._connecting_since = self._clock()
        if self.waits_for == WORKSPACE_SILENT:
            self.waits_for = "it is waking"

    def may_retry(self, error: BaseException | None) -> bool:
        """Return whether another attempt can succeed.

        :param error: the exception that the last attempt raised
        """
        if isinstance(error, LakebaseWorkspaceError):
            return self._after_workspace_error(error)
        if isinstance(error, psycopg.OperationalError):
            return self._after_login_error(error)
        return False

    def to_error(self, error: psycopg.OperationalError | LakebaseWorkspaceError) -> Exception:
        """Translate the error that ended the attempts; return it unchanged if the catalog does not know it."""
        rule = self._rule
        if isinstance(error, LakebaseWorkspaceError):
            is_passing = rule is not None and rule.retry in (Retry.WAKING, Retry.ROLE_PROPAGATING)
            if self._login_error is None or not error.retryable or not is_passing:
                return error
            error = self._login_error
        if rule is None:
            error.add_note(str(self._settings.context))
            return error
        if rule.retry is Retry.WAKING or (rule.retry is Retry.ROLE_PROPAGATING and self._is_propagating()):
            message = f"No session within {self._settings.session.wake_timeout:.3g} s. {rule.describe(str(error))}"
            return LakebaseWakeTimeoutError(message, context=self._settings.context, hint=rule.hint)
        return rule.to_error(str(error), self._settings.context)

    def _after_workspace_error(self, error: LakebaseWorkspaceError) -> bool:
        if isinstance(error, LakebaseResourceNotFoundError) and self._address_known and not self._has_refreshed:
            # The endpoint that was found earlier is gone; a branch may have another one by now.
            return self._refresh()
        self.waits_for = "the workspace does not answer as it should"
        return error.retryable and not isinstance(error, LakebaseWorkspaceUnreachableError)

    def _after_login_error(self, error: psycopg.OperationalError) -> bool:
        self._login_error, self._rule = error, find_postgres_rule(str(error))
        if self._rule is None:
            return False
        self.waits_for, retry = self._rule.meaning, self._rule.retry
        self._was_waking |= retry is Retry.WAKING or self._clock() - self._connecting_since >= HELD_SECONDS
        self._refusals += retry is Retry.IF_WAKING
        if retry is Retry.ROLE_PROPAGATING and self._propagating_since is None:
            self._propagating_since = self._clock()
        # A branch reset moves the host, so a host that does not answer is looked up once more.
        is_lost = self._rule.error is LakebaseResourceNotFoundError and not self._settings.session.pg_host
        if not self._has_refreshed and (is_lost or retry is Retry.WAKING):
            return self._refresh()
        return (
            retry is Retry.WAKING
            or (retry is Retry.ROLE_PROPAGATING and self._is_propagating())
            or (retry is Retry.IF_WAKING and self._was_waking and self._refusals == 1)
        )

    def _refresh(self) -> bool:
        self.refresh_address = self._has_refreshed = True
        return True

    def _is_propagating(self) -> bool:
        since = self._propagating_since
        return since is not None and self._clock() - since < ROLE_PROPAGATION_SECONDS
