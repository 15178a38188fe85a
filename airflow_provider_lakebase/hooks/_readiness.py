"""Decide whether an endpoint is ready, for sensors that block and for triggers that do not."""

from __future__ import annotations

import logging
from types import TracebackType

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.classify import is_transient

PROBE_QUERY = "SELECT 1"
ACTIVE = "ACTIVE"
"""State of an endpoint that runs."""


class Probe:
    """One attempt to get an answer from an endpoint, which wakes it; use it as a context manager around the attempt.

    A transient error is logged and means that the endpoint is not ready yet. Any other error is raised.

    :param settings: the connection
    :param timeout: seconds the attempt may take
    :param log: logger for transient errors
    """

    def __init__(self, settings: LakebaseSettings, timeout: float, log: logging.Logger) -> None:
        self.settings = settings.with_wake_timeout(min(timeout, settings.session.wake_timeout))
        """Settings to open the session with, which respect the timeout."""
        self.is_answered = False
        """Whether the block ended without an error."""
        self._log = log

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.is_answered = error is None
        if error is None or not is_not_ready(error):
            return False
        self._log.info("Endpoint %s does not answer yet: %s", self.settings.endpoint, error)
        return True


def is_not_ready(error: BaseException) -> bool:
    """Return whether an error of a probe only means that the endpoint needs more time.

    :param error: the exception that the probe raised
    """
    return isinstance(error, TimeoutError) or is_transient(error)
