"""The check behind the Test button of Airflow's connection form."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.exceptions import LakebaseWakeTimeoutError

if TYPE_CHECKING:
    import psycopg

ANSWER_SECONDS = 12.0
"""Seconds the check may take; up to ``wake_timeout`` if the endpoint is suspended."""


class ConnectionCheck:
    """Open a session stage by stage; ``stage`` is the current one.

    :param read_settings: reads the connection
    :param open_session: opens a session
    """

    def __init__(
        self,
        read_settings: Callable[[], LakebaseSettings],
        open_session: Callable[[LakebaseSettings], psycopg.Connection[Any]],
    ) -> None:
        self.stage = "settings"
        self._read_settings = read_settings
        self._open_session = open_session
        self._deadline = 0.0

    def walk(self) -> str:
        """Go through all stages and return a report.

        :raises LakebaseError: from the first stage that fails
        """
        from airflow_provider_lakebase.core.session.libpq import libpq_keywords

        settings = self._read_settings()
        libpq_keywords(settings, "")
        self._deadline = time.monotonic() + min(ANSWER_SECONDS, settings.session.wake_timeout)
        state = "" if settings.is_native else self._ask_workspace(settings)
        patience = (
            settings.session.wake_timeout
            if state in ("IDLE", "INIT")
            else min(settings.session.wake_timeout, self._left())
        )
        self.stage = "login"
        try:
            session = self._open_session(settings.with_wake_timeout(patience))
        except LakebaseWakeTimeoutError:
            self.stage = "network"
            raise
        with closing(session), _cut_after(session, max(self._left(), 3.0)):
            user, database, version = session.execute(
                "SELECT current_user, current_database(), current_setting('server_version')"
            ).fetchall()[0]
        found = f" The endpoint was {state}." if state else ""
        return f"Connected to database {database} as role {user}, PostgreSQL {version}.{found} {_verified(settings)}"

    def _ask_workspace(self, settings: LakebaseSettings) -> str:
        from airflow_provider_lakebase.core.workspace.client import Workspace
        from airflow_provider_lakebase.core.workspace.credentials import mint_credential
        from airflow_provider_lakebase.core.workspace.endpoints import read_endpoint

        self.stage = "workspace"
        workspace = Workspace.of(settings)
        workspace.require_reachable(timeout=self._left())
        self.stage = "identity"
        workspace.user_name(timeout=self._left())
        self.stage = "endpoint"
        status = read_endpoint(workspace, settings.require_endpoint(), timeout=self._left())
        status.require_enabled(settings.context)
        self.stage = "credential"
        mint_credential(workspace, status.name, settings.session, timeout=self._left())
        return status.state

    def _left(self) -> float:
        return max(self._deadline - time.monotonic(), 1.0)


def _verified(settings: LakebaseSettings) -> str:
    checked = {
        "verify-full": "The server's certificate and host name were verified.",
        "verify-ca": "The server's certificate was verified, but not its host name; 'verify-full' verifies both.",
    }
    return checked.get(
        settings.session.sslmode,
        "The server was not verified; set 'sslmode' to 'verify-full' in the extra to verify it.",
    )


@contextmanager
def _cut_after(session: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Close the session's socket after ``seconds``: a server may accept a login and then hang."""

    def cut() -> None:
        with socket.socket(fileno=os.dup(session.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
