"""An emulator of a Databricks workspace with Lakebase projects, on this machine.

It runs a real PostgreSQL; databricks-sdk and Postgres drivers talk to it unmodified. ``tests/contract`` lists what it
assumes about Lakebase, with sources. It shares no code with the provider, so that both are not wrong in the same way.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.emulator.model import arrow, saved_workspace
from airflow_provider_lakebase.emulator.model.clock import ObservedClock
from airflow_provider_lakebase.emulator.model.endpoints import READ_ONLY, Endpoint
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import ENDPOINT, PROJECT, Behaviour, Workspace
from airflow_provider_lakebase.emulator.postgres_port.binaries import MissingExtraError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from airflow_provider_lakebase.emulator.api.http import Request
    from airflow_provider_lakebase.emulator.data_directory import DataDirectory
    from airflow_provider_lakebase.emulator.postgres_port.gate import Login
    from airflow_provider_lakebase.emulator.server import Server

__all__ = ["LakebaseEmulator", "MissingExtraError", "Principal"]


class LakebaseEmulator(Behaviour):
    """The emulator: use it in a ``with`` statement, or call ``start`` and ``stop``. Only this machine can reach it.

    These attributes change its behaviour, before it starts and while it runs:

    - ``faults``: the faults to inject, see ``Faults``
    - ``wake_seconds``: how long a wake takes
    - ``credential_seconds``: the longest that a credential works, whatever its ``expire_time`` says; None (the default)
      follows ``expire_time``
    - ``max_sessions``: the largest number of sessions of an endpoint; None (the default) is PostgreSQL's own limit
    - ``operation_seconds``: the least that a long-running operation takes; with 0 (the default) it has ended when its
      request is answered
    - ``native_login``: whether roles with a PostgreSQL password may log in, also on the pooled host (default: False)
    - ``pipeline_seconds``: how long an update of synced tables takes at least (default: 0.2)
    - ``feed_flush_seconds``: how long a change feed takes to commit what was written (default: 0.2)

    :param wake_seconds: how long a wake takes, in seconds of real time
    :param suspend_timeout: seconds without traffic after which an endpoint suspends
    :param clock: returns seconds since 1970; credentials expire and endpoints suspend by it
    :param asleep: start with the first endpoint suspended
    :param pg_version: the version of PostgreSQL: 16, 17 or 18
    :param postgres_bindir: the folder of PostgreSQL's own programs to run, such as ``/usr/lib/postgresql/17/bin``
    :param opaque_credentials: make tokens and credentials random text instead of JWTs, which log filters hide: for
        tests that search for leaks
    :param port: the Postgres port, on the host of every endpoint; 0 is a free one
    :param workspace_port: the port of the workspace API; 0 is a free one
    :param https: serve the workspace API by HTTPS, with a certificate of ``ca_file``'s authority
    :param data_dir: a directory that keeps the workspace and all data until the next run; None (the default) keeps none
    """

    def __init__(
        self,
        *,
        wake_seconds: float = 0.5,
        suspend_timeout: float = 300.0,
        clock: Callable[[], float] = time.time,
        asleep: bool = False,
        pg_version: int = 18,
        postgres_bindir: str | os.PathLike[str] | None = None,
        opaque_credentials: bool = False,
        port: int = 0,
        workspace_port: int = 0,
        https: bool = False,
        data_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.endpoint = ENDPOINT
        self.wake_seconds = wake_seconds
        self._clock = ObservedClock(clock)
        self._running: Server | None = None
        self._ports: dict[str, Any] = {"port": port, "workspace_port": workspace_port, "https": https}
        self._state = Workspace(
            clock=self._clock,
            suspend_timeout=suspend_timeout,
            asleep=asleep,
            pg_version=pg_version,
            postgres_bindir=postgres_bindir,
            behaviour=self,
        )
        self._identities = self._state.identities
        self._identities.opaque = opaque_credentials
        self.administrator = self._identities.add_principal("Lakebase administrator", is_admin=True)
        self.service_principal = self.add_principal("Airflow")
        self._state.projects[PROJECT].owner = self.administrator.role
        self._data_dir = data_dir
        self._unchanged = saved_workspace.save(self._state)

    def start(self) -> Self:
        """Start the emulator and return it.

        Raise ``MissingExtraError`` if it cannot run here: without the extra ``[emulator]``, the version of PostgreSQL
        or Linux. Raise ``RuntimeError`` if PostgreSQL does not start, or if a port or ``data_dir`` is in use. Raise
        ``ValueError`` for a ``data_dir`` that is not the emulator's or of another version of PostgreSQL.
        """
        if self._running:
            raise RuntimeError("the emulator is already running")
        require_extra()
        # Imported only now: without the extra this import fails, and require_extra explains why.
        from airflow_provider_lakebase.emulator.api.control import Control
        from airflow_provider_lakebase.emulator.data_directory import DataDirectory
        from airflow_provider_lakebase.emulator.server import Server

        with contextlib.ExitStack() as opened:
            directory = opened.enter_context(DataDirectory(self._data_dir, self._state)) if self._data_dir else None
            if directory:
                self._restore(directory)
            self._running = Server(
                self._state,
                self.administrator,
                self._clock,
                Control(self, self._state).answer,
                **self._ports,
                data_directory=directory,
            )
        self._settings = self.settings
        self._process = os.getpid()
        return self

    def stop(self) -> None:
        """Stop the emulator, disconnect every client and remove its files; do nothing if it is not running.

        A ``data_dir`` stays. A forked child has no part in the emulator, so it does nothing there.
        """
        running, self._running = self._running, None
        if running and self._process == os.getpid():
            running.stop()
            self._unchanged = saved_workspace.save(self._state)

    def _restore(self, directory: DataDirectory) -> None:
        """Restore the workspace of the last run; raise ``ValueError`` if that would lose changes made since."""
        changed = saved_workspace.save(self._state) != self._unchanged
        if directory.restore():
            if changed:
                raise ValueError(f"data_dir={directory.path} has a workspace: add to it after the emulator has started")
            self.administrator, self.service_principal, *_ = self._identities.principals()

    def reset(self) -> None:
        """Restore the settings it started with: awake, enabled, no faults, no records. The data stays."""
        self.faults.clear()
        self.change(**{**self._settings, "wake_seconds": 0})
        for name in self._state.endpoints:
            self.enable(name)
        self.wake()
        self.change(**self._settings)
        self._server.web.requests.clear()
        self._server.gate.logins.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- addresses and connections

    @property
    def pg_version(self) -> int:
        """Return PostgreSQL's major version."""
        return self._state.pg_version

    @property
    def workspace_url(self) -> str:
        """Return the URL of the workspace API."""
        return self._server.web.url

    @property
    def port(self) -> int:
        """Return the Postgres port, which is the same on the host of every endpoint."""
        return self._server.port

    @property
    def ca_file(self) -> Path:
        """Return the PEM file of the certificate authority that signed the emulator's certificate."""
        return self._server.ca_file

    @property
    def ca_bundle(self) -> Path:
        """Return a PEM file with the public certificate authorities and that of ``ca_file``."""
        return self._server.ca_file.with_name("ca-bundle.pem")

    @property
    def superuser_conninfo(self) -> str:
        """Return a libpq connection string of the superuser, for the first branch.

        It needs no credential and wakes no endpoint. A server whose endpoints all sleep is started for it, and stopped
        some seconds after its last session has ended.
        """
        first = next(iter(self._state.branches.values()))
        return self._server.clusters.get(first.uid).visit()

    @property
    def connections(self) -> dict[str, str]:
        """Return the administrator's and the service principal's Airflow connections: JSON by connection id."""
        return {
            "lakebase_admin": self.connection(self.administrator),
            "lakebase_default": self.connection(self.service_principal),
        }

    def connection(self, principal: Principal) -> str:
        """Return an Airflow connection that signs in as a principal, as JSON."""
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
        """Add an identity to the workspace. It has no Postgres role yet.

        :param display_name: name to show; a user's e-mail address or a group's name is also its Postgres role
        :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``; any other raises ``ValueError``
        :param workspace_access: whether it has the entitlement *Workspace access*
        :param can_use_project: whether it has *Can Use* on the project
        """
        principal = self._identities.add_principal(
            display_name,
            identity_type=identity_type,
            workspace_access=workspace_access,
            can_use_project=can_use_project,
        )
        if self._running:
            self._running.publish_identities(self._state)
            self._state.keep()
        return principal

    def create_role(self, principal: Principal) -> None:
        """Create an identity's Postgres role, which may create schemas, on the first endpoint's branch.

        Do nothing if it exists.
        """
        self._server.create_role(self._endpoint(None).cluster, self.administrator, principal)

    def add_member(self, group: Principal, principal: Principal) -> None:
        """Make an identity a member of a group. It may then mint credentials for the group, with ``group_name``."""
        self._identities.add_member(group, principal)

    def issue_personal_access_token(self, principal: Principal) -> str:
        """Return a personal access token of an identity. It is valid for the workspace API, never for the database."""
        return self._identities.issue_personal_access_token(principal)

    def trust_identity_token(self, token: str, principal: Principal) -> None:
        """Accept an identity token of another identity provider in exchange for workspace tokens of ``principal``.

        The token is compared as text: it needs no signature and does not expire.
        """
        self._identities.trust_identity_token(token, principal)

    def expire_credentials(self) -> None:
        """Expire every database credential issued so far. Open sessions continue."""
        self._identities.expire_credentials()

    # -- Unity Catalog

    def publish(self, full_name: str, table: object, *, change_data_feed: bool | None = None) -> int:
        """Commit a table as the next version of ``catalog.schema.table`` in Unity Catalog; return its number, from 0.

        Synced tables read it. Continuous ones pick it up by themselves.

        :param table: a ``pyarrow.Table``, the path of a Parquet file or a pandas frame: all rows of the version
        :param change_data_feed: sets ``delta.enableChangeDataFeed``; None (the default) keeps it, and it is off at
            first

        Raise ``ValueError`` for a name of another form, or for a column of a type that Delta tables do not have.
        """
        columns, rows = arrow.read(table)
        return self._state.catalog.publish(full_name, columns, rows, change_data_feed)

    # -- endpoints, by resource name; None is the first one

    @property
    def state(self) -> str:
        """Return the state of the first endpoint: ``IDLE``, ``INIT`` or ``ACTIVE``."""
        return self.endpoint_state()

    @property
    def disabled(self) -> bool:
        """Return whether the first endpoint is disabled."""
        return self._endpoint(None).disabled

    def endpoint_state(self, endpoint: str | None = None) -> str:
        """Return the state of an endpoint: ``IDLE``, ``INIT`` or ``ACTIVE``."""
        return self._endpoint(endpoint).state

    def endpoint_host(self, endpoint: str | None = None, *, read_only: bool = False) -> str:
        """Return the host of an endpoint, or its read-only host; raise ``ValueError`` if it has no read-only host."""
        found = self._endpoint(endpoint)
        host = found.read_only_address if read_only else found.host
        if host is None:
            raise ValueError(f"{found.name} has no read-only host; call enable_readable_secondary")
        return host

    def add_endpoint(
        self,
        endpoint_id: str,
        *,
        endpoint_type: str = READ_ONLY,
        branch: str = "production",
        suspend_timeout: float | None = None,
    ) -> str:
        """Add an active endpoint, and its branch if it does not exist; return the endpoint's resource name.

        A new branch is a copy of the first one. Sessions on a read-only endpoint are read-only by default; unlike on
        Lakebase, they can turn that off.

        Raise ``ValueError`` if the endpoint exists or the branch already has a read-write endpoint, ``OSError`` if
        another program uses the port on its address.
        """
        added = self._state.add_endpoint(
            endpoint_id, endpoint_type=endpoint_type, branch=branch, suspend_timeout=suspend_timeout
        )
        try:
            self._open(added)
        except OSError:
            self._state.endpoints.discard(added)
            raise
        return added.name

    def remove_endpoint(self, endpoint: str) -> None:
        """Cut an endpoint's sessions and delete it from the workspace."""
        self._state.endpoints.remove(self._endpoint(endpoint))

    def create_branch(self, branch_id: str | None = None, *, source: str | None = None, project: str = PROJECT) -> str:
        """Make a branch that does not expire, with an endpoint ``primary``; return the branch's resource name.

        :param branch_id: its ID; None chooses one
        :param source: resource name of the branch to copy; None is the project's default branch
        """
        spec = {"no_expiry": True, **({"source_branch": source} if source else {})}
        branch_id = branch_id or f"branch-{uuid.uuid4().hex[:12]}"
        return str(self._state.branches.create(project, branch_id, {"spec": spec}).wait()["name"])

    def delete_branch(self, branch: str) -> None:
        """Cut the sessions of a branch and delete it for good."""
        self._state.branches.delete(branch, purge=True).wait()

    def enable_readable_secondary(self, endpoint: str | None = None) -> str:
        """Give a read-write endpoint a read-only host as well, and return that host."""
        found = self._endpoint(endpoint)
        host = self._state.endpoints.enable_readable_secondary(found)
        self._open(found)
        return host

    def suspend(self, endpoint: str | None = None) -> None:
        """Suspend an endpoint. When this returns, its sessions are cut with 57P01; the next login wakes it."""
        self._server.gate.suspend(self._endpoint(endpoint))

    def wake(self, endpoint: str | None = None) -> None:
        """Wake an endpoint and wait until it is active; raise ``RuntimeError`` if that fails."""
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
        """Allow logins to an endpoint again. It stays suspended until the next login."""
        self._endpoint(endpoint).set_disabled(False)

    @contextlib.contextmanager
    def refuse_connections(self) -> Iterator[None]:
        """Close the Postgres port inside the ``with`` block: new connections are refused, open sessions continue."""
        self._server.gate.shut()
        try:
            yield
        finally:
            self._server.gate.reopen()

    def _endpoint(self, name: str | None) -> Endpoint:
        found = self._state.endpoints.get(name or self.endpoint)
        if found is None:
            raise ValueError(f"there is no endpoint {name!r}; there are {', '.join(self._state.endpoints)}")
        return found

    def _open(self, endpoint: Endpoint) -> None:
        if self._running:
            self._running.gate.open(endpoint)

    # -- records of what happened

    @property
    def requests(self) -> list[Request]:
        """Return the HTTP requests so far, oldest first. Status 0 means that a fault left it unanswered."""
        return self._server.web.requests

    @property
    def logins(self) -> list[Login]:
        """Return the Postgres login attempts so far, oldest first."""
        return self._server.gate.logins

    @property
    def secrets(self) -> list[str]:
        """Return every client secret, token and credential issued so far, and every trusted identity token."""
        return self._identities.secrets

    @property
    def _server(self) -> Server:
        if self._running is None:
            raise RuntimeError("the emulator is not running; call start() or use it in a with statement")
        return self._running


def require_extra() -> None:
    """Raise ``MissingExtraError`` if no emulator can run here."""
    if sys.platform != "linux":
        raise MissingExtraError("The emulator needs Linux: run it in a container, in WSL or in CI.")
    if importlib.util.find_spec("cryptography") is None:
        raise MissingExtraError("The emulator needs cryptography: pip install 'airflow-provider-lakebase[emulator]'")
