"""The state of the workspace: its identities, and one project with its branches and endpoints.

No I/O. The clock is a parameter (seconds since 1970). All methods are thread-safe.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from airflow_provider_lakebase.emulator.faults import Faults
from airflow_provider_lakebase.emulator.model.identities import Identities, Principal

PROJECT = "projects/demo"
BRANCH = f"{PROJECT}/branches/production"
ENDPOINT = f"{BRANCH}/endpoints/primary"
READ_WRITE, READ_ONLY = "ENDPOINT_TYPE_READ_WRITE", "ENDPOINT_TYPE_READ_ONLY"

FIRST_ADDRESS = "127.0.0.1"
ADDRESSES = [FIRST_ADDRESS, *(f"127.0.0.{last}" for last in range(2, 33))]

# (state, event) → new state. An event that is not listed for a state does not change it.
TRANSITIONS = {
    ("IDLE", "wake"): "INIT",
    ("INIT", "activate"): "ACTIVE",
    ("INIT", "suspend"): "IDLE",
    ("ACTIVE", "suspend"): "IDLE",
}


class Behaviour:
    """The attributes of the emulator that may change while it runs."""

    #: Seconds that a wake takes.
    wake_seconds: float = 0.5
    #: Longest time that a credential works, in seconds, whatever its expire_time says; None follows expire_time.
    credential_seconds: float | None = None
    #: Largest number of sessions of an endpoint; None is PostgreSQL's own limit.
    max_sessions: int | None = None
    #: Whether roles with a PostgreSQL password may log in.
    native_login: bool = False

    def __init__(self) -> None:
        #: The faults to inject.
        self.faults = Faults()


@dataclass(frozen=True)
class EndpointView:
    """The state of an endpoint at one moment."""

    state: str
    disabled: bool
    last_active_at: float
    updated_at: float


class Endpoint:
    """An endpoint: its state and its addresses."""

    def __init__(
        self, name: str, endpoint_type: str, address: str, *, clock: Callable[[], float], suspend_timeout: float
    ) -> None:
        self.name = name
        self.endpoint_type = endpoint_type
        self.address = address
        self.read_only_address = address if endpoint_type == READ_ONLY else None
        self.suspend_timeout = suspend_timeout
        self.uid = f"ep-{uuid.uuid4().hex[:20]}"
        self.created_at = clock()
        self._clock = clock
        self._lock = threading.Lock()
        self._view = EndpointView("ACTIVE", False, self.created_at, self.created_at)

    @property
    def branch(self) -> str:
        """Return the resource name of its branch."""
        return self.name.split("/endpoints/")[0]

    @property
    def addresses(self) -> list[str]:
        """Return all its addresses."""
        return list(dict.fromkeys([self.address, self.read_only_address or self.address]))

    @property
    def host(self) -> str:
        """Return its host: a name or an address."""
        return "localhost" if self.address == FIRST_ADDRESS else self.address

    @property
    def pooled_host(self) -> str:
        """Return the name of its pooled host. It does not resolve: connect to the address of its host."""
        return "localhost-pooler" if self.address == FIRST_ADDRESS else f"{self.name.split('/')[-1]}-pooler.localhost"

    @property
    def view(self) -> EndpointView:
        """Return the current state. Reading it does not wake the endpoint."""
        with self._lock:
            return self._view

    @property
    def state(self) -> str:
        """Return ``IDLE``, ``INIT`` or ``ACTIVE``."""
        return self.view.state

    @property
    def disabled(self) -> bool:
        """Return whether it is disabled."""
        return self.view.disabled

    def move(self, event: str) -> bool:
        """Apply the event ``wake``, ``activate`` or ``suspend``; return whether the state changed."""
        now = self._clock()
        with self._lock:
            state = TRANSITIONS.get((self._view.state, event))
            if state is None:
                return False
            active_at = self._view.last_active_at if event == "suspend" else now
            self._view = replace(self._view, state=state, last_active_at=active_at, updated_at=now)
            return True

    def set_disabled(self, disabled: bool) -> None:
        """Disable or enable logins and wakes."""
        now = self._clock()
        with self._lock:
            self._view = replace(self._view, disabled=disabled, updated_at=now)

    def touch(self) -> None:
        """Record traffic, which postpones the suspend."""
        now = self._clock()
        with self._lock:
            self._view = replace(self._view, last_active_at=now)

    def suspend_is_due(self) -> bool:
        """Return whether it is active and had no traffic for ``suspend_timeout`` seconds."""
        view = self.view
        return view.state == "ACTIVE" and self._clock() - view.last_active_at >= self.suspend_timeout


class State:
    """The workspace: its identities and one project, whose endpoints all lead to the same data."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        suspend_timeout: float,
        asleep: bool,
        postgres_version: int = 18,
        behaviour: Behaviour | None = None,
    ) -> None:
        self.clock = clock
        self.suspend_timeout = suspend_timeout
        self.postgres_version = postgres_version
        self.behaviour = behaviour or Behaviour()
        self.identities = Identities(clock)
        self.owner = ""
        self.created_at = clock()
        self.workspace_id = secrets.randbelow(9 * 10**15) + 10**15
        self.project_uid = str(uuid.uuid4())
        self.branches = {BRANCH: f"br-{uuid.uuid4().hex[:20]}"}
        self.endpoints: dict[str, Endpoint] = {}
        self._lock = threading.Lock()
        self._addresses = iter(ADDRESSES)
        self.add_endpoint("primary", endpoint_type=READ_WRITE)
        if asleep:
            self.endpoints[ENDPOINT].move("suspend")

    def add_endpoint(
        self, endpoint_id: str, *, endpoint_type: str, branch: str = "production", suspend_timeout: float | None = None
    ) -> Endpoint:
        """Add an active endpoint, and its branch if it does not exist.

        Raise ``ValueError`` if the endpoint exists or the branch already has a read-write endpoint.
        """
        branch_name = f"{PROJECT}/branches/{branch}"
        name = f"{branch_name}/endpoints/{endpoint_id}"
        if endpoint_type not in (READ_WRITE, READ_ONLY):
            raise ValueError(f"endpoint_type is {READ_WRITE} or {READ_ONLY}, not {endpoint_type!r}")
        with self._lock:
            if name in self.endpoints:
                raise ValueError(f"{name} already exists")
            if endpoint_type == READ_WRITE and any(
                (each.branch, each.endpoint_type) == (branch_name, READ_WRITE) for each in self.endpoints.values()
            ):
                raise ValueError(f"read_write endpoint already exists in {branch_name}; a branch has one")
            timeout = self.suspend_timeout if suspend_timeout is None else suspend_timeout
            endpoint = Endpoint(name, endpoint_type, self._address(), clock=self.clock, suspend_timeout=timeout)
            self.branches.setdefault(branch_name, f"br-{uuid.uuid4().hex[:20]}")
            self.endpoints = {**self.endpoints, name: endpoint}
        return endpoint

    def remove_endpoint(self, endpoint: Endpoint) -> None:
        """Remove an endpoint that was deleted or could not be opened. Its address is not reused."""
        with self._lock:
            self.endpoints = {name: each for name, each in self.endpoints.items() if each is not endpoint}

    def enable_readable_secondary(self, endpoint: Endpoint) -> str:
        """Give an endpoint a read-only host if it has none; return that host's address."""
        with self._lock:
            if endpoint.read_only_address is None:
                endpoint.read_only_address = self._address()
            return endpoint.read_only_address

    def _address(self) -> str:
        try:
            return next(self._addresses)
        except StopIteration:
            raise ValueError(f"the emulator has only {len(ADDRESSES)} hosts") from None

    def issue_credential(self, principal: Principal, expires_at: float) -> str:
        """Issue a database credential valid until ``expires_at``, or for ``credential_seconds`` if that is shorter."""
        early = self.behaviour.credential_seconds
        if early is not None:
            expires_at = min(expires_at, self.clock() + early)
        return self.identities.issue_credential(principal, expires_at)
