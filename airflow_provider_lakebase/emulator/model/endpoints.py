"""The endpoints of branches: their states, sizes and addresses. No I/O but that of the computes."""

from __future__ import annotations

import contextlib
import errno
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.endpoint_specs import FIXED, PATHS, Size, flat, resized
from airflow_provider_lakebase.emulator.model.errors import (
    ApiError,
    Json,
    already_exists,
    invalid,
    managed_by_parent,
    refused,
)
from airflow_provider_lakebase.emulator.model.fields import duration, read_id, required, spec_of, timestamp
from airflow_provider_lakebase.emulator.model.operations import EMPTY, Operation
from airflow_provider_lakebase.emulator.model.resources import Resources, id_of, parent_of
from airflow_provider_lakebase.emulator.model.update_masks import masked_fields

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.branches import Branch
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

READ_WRITE, READ_ONLY = "ENDPOINT_TYPE_READ_WRITE", "ENDPOINT_TYPE_READ_ONLY"

FIRST_ADDRESS = "127.0.0.1"
ADDRESSES = [FIRST_ADDRESS, *(f"127.0.0.{last}" for last in range(2, 255))]


_SAVED = ("name", "endpoint_type", "address", "cluster", "read_only_address", "uid", "created_at")


def pooled_address(address: str) -> str:
    """Return the address of the pooled host that belongs to an address."""
    return address.replace("127.0.0.", "127.0.2.", 1)


# (state, event) → new state. An event that is not listed for a state does not change it.
TRANSITIONS = {
    ("IDLE", "wake"): "INIT",
    ("INIT", "activate"): "ACTIVE",
    ("INIT", "suspend"): "IDLE",
    ("ACTIVE", "suspend"): "IDLE",
}


@dataclass(frozen=True)
class EndpointView:
    """The state of an endpoint at one moment."""

    state: str
    disabled: bool
    last_active_at: float
    updated_at: float


class Endpoint:
    """An endpoint: its state and its addresses.

    :param cluster: the name of its branch's cluster, which is the branch's uid
    """

    def __init__(
        self,
        name: str,
        endpoint_type: str,
        address: str,
        *,
        cluster: str,
        clock: Callable[[], float],
        size: Size,
        state: str = "ACTIVE",
    ) -> None:
        self.name = name
        self.endpoint_type = endpoint_type
        self.address = address
        self.cluster = cluster
        self.read_only_address = address if endpoint_type == READ_ONLY else None
        self.size = size
        self.uid = f"ep-{uuid.uuid4().hex[:20]}"
        self.created_at = clock()
        self._clock = clock
        self._lock = threading.Lock()
        self._view = EndpointView(state, size.disabled, self.created_at, self.created_at)

    @property
    def branch(self) -> str:
        """Return the resource name of its branch."""
        return parent_of(self.name)

    @property
    def suspend_timeout(self) -> float:
        """Return the seconds without traffic after which it suspends; infinite if it never does."""
        return self.size.suspend_timeout

    @suspend_timeout.setter
    def suspend_timeout(self, seconds: float) -> None:
        self.size = replace(self.size, suspend_timeout=seconds)

    @property
    def direct_addresses(self) -> list[str]:
        """Return the addresses of its hosts, without those of pooled hosts."""
        return list(dict.fromkeys([self.address, self.read_only_address or self.address]))

    @property
    def addresses(self) -> list[str]:
        """Return all its addresses."""
        return [*self.direct_addresses, *map(pooled_address, self.direct_addresses)]

    def is_pooled(self, address: str) -> bool:
        """Return whether an address belongs to a pooled host."""
        return address not in self.direct_addresses

    def is_read_only(self, address: str) -> bool:
        """Return whether an address belongs to a read-only host."""
        reader = self.read_only_address
        return reader is not None and address in (reader, pooled_address(reader))

    @property
    def host(self) -> str:
        """Return its host: a name or an address."""
        return "localhost" if self.address == FIRST_ADDRESS else self.address

    @property
    def pooled_host(self) -> str:
        """Return its pooled host: an address, since no other name than localhost resolves everywhere."""
        return pooled_address(self.address)

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

    def json(self) -> Json:
        """Return it as the API does, with its current state."""
        view, size = self.view, self.size
        status: Json = {
            "endpoint_id": id_of(self.name),
            "endpoint_type": self.endpoint_type,
            "current_state": view.state,
            "disabled": view.disabled,
            "autoscaling_limit_min_cu": size.min_cu,
            "autoscaling_limit_max_cu": size.max_cu,
            "last_active_time": timestamp(view.last_active_at),
            "hosts": self._hosts(),
            "group": {
                "min": size.computes,
                "max": size.computes,
                "enable_readable_secondaries": size.readable,
            },
            "settings": {},
        }
        if size.suspends:
            status["suspend_timeout_duration"] = duration(size.suspend_timeout)
        if view.state == "INIT":
            status["pending_state"] = "ACTIVE"
        return {
            "name": self.name,
            "uid": self.uid,
            "endpoint_id": id_of(self.name),
            "parent": self.branch,
            "create_time": timestamp(self.created_at),
            "update_time": timestamp(view.updated_at),
            "status": status,
        }

    def saved(self) -> Json:
        """Return all of it as JSON but whether it is awake."""
        plain = {name: getattr(self, name) for name in _SAVED}
        return {**plain, "size": asdict(self.size), "disabled": self.disabled, "updated_at": self.view.updated_at}

    @classmethod
    def restored(cls, saved: Json, clock: Callable[[], float]) -> Endpoint:
        """Return a saved one, suspended."""
        size, given = Size(**saved["size"]), {name: saved[name] for name in _SAVED[:4]}
        endpoint = cls(**given, clock=clock, size=size, state="IDLE")
        vars(endpoint).update({name: saved[name] for name in _SAVED})
        endpoint._view = EndpointView("IDLE", saved["disabled"], clock(), saved["updated_at"])
        return endpoint

    def _hosts(self) -> Json:
        pooled = "read_only_pooled_host" if self.endpoint_type == READ_ONLY else "read_write_pooled_host"
        hosts = {"host": self.host, pooled: self.pooled_host}
        if self.read_only_address:
            hosts["read_only_host"] = self.read_only_address
            hosts["read_only_pooled_host"] = pooled_address(self.read_only_address)
        return hosts


class Endpoints(Resources[Endpoint]):
    """The endpoints of the workspace, and the addresses that they use."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("endpoint")
        self._workspace = workspace
        self._free = deque(ADDRESSES)

    def require_of(self, name: str) -> Endpoint:
        """Return an endpoint of a branch that is not deleted; raise ``ApiError`` 404 otherwise."""
        self._workspace.branches.require_ready(parent_of(name))
        return self.require(name)

    def writer_of(self, branch: str) -> Endpoint | None:
        """Return a branch's read-write endpoint."""
        return next((each for each in self.of(branch) if each.endpoint_type == READ_WRITE), None)

    # -- addresses; those given back go to the end, so that a client does not reach another endpoint by an old address

    def take_address(self) -> str:
        """Return an address that no endpoint uses; raise ``ValueError`` if there is none."""
        try:
            return self._free.popleft()
        except IndexError:
            raise ValueError(f"the emulator has only {len(ADDRESSES)} hosts") from None

    def enable_readable_secondary(self, endpoint: Endpoint) -> str:
        """Give an endpoint a read-only host if it has none; return that host's address."""
        if endpoint.read_only_address is None:
            endpoint.read_only_address = self.take_address()
        endpoint.size = replace(endpoint.size, computes=max(endpoint.size.computes, 2), readable=True)
        return endpoint.read_only_address

    def take_used_addresses(self) -> None:
        """Mark the addresses that no endpoint uses as free."""
        used = {address for each in self.values() for address in each.direct_addresses}
        self._free = deque(each for each in ADDRESSES if each not in used)

    # -- create

    def make(self, branch: Branch, endpoint_id: str, endpoint_type: str, size: Size, state: str = "ACTIVE") -> Endpoint:
        """Add an endpoint to a branch. Nothing listens to it yet."""
        endpoint = Endpoint(
            f"{branch.name}/endpoints/{endpoint_id}",
            endpoint_type,
            self.take_address(),
            cluster=branch.uid,
            clock=self._workspace.clock,
            size=size,
            state=state,
        )
        if size.readable:
            self.enable_readable_secondary(endpoint)
        self.add(endpoint)
        return endpoint

    def add_primary(self, branch: Branch, size: Size) -> None:
        """Add the endpoint that every branch has, and start it."""
        self._start(self.make(branch, "primary", READ_WRITE, size, state="IDLE"))

    def create(self, parent: str, endpoint_id: str | None, body: Json, *, replace_existing: bool = False) -> Operation:
        """Create an endpoint, or change the one of this ID if ``replace_existing``."""
        branch = self._workspace.branches.require_ready(parent)
        name = f"{parent}/endpoints/{read_id('endpoint_id', endpoint_id)}"
        spec = spec_of("endpoint", body) or {}
        fields = flat(spec)
        endpoint_type = required("endpoint.spec.endpoint_type", spec.get("endpoint_type"))
        if endpoint_type not in (READ_WRITE, READ_ONLY):
            raise invalid(f"Field 'endpoint.spec.endpoint_type' is {READ_WRITE} or {READ_ONLY}, not {endpoint_type!r}")
        with self._workspace.lock:
            existing = self.get(name)
            if existing and replace_existing:
                return self._change(existing, "create_endpoint", endpoint_type, fields)
            if existing:
                raise already_exists(self.kind)
            if endpoint_type == READ_WRITE and self.writer_of(parent):
                raise ApiError(409, "ALREADY_EXISTS", "read_write endpoint already exists")
            size = resized(branch.project.endpoint_size, fields)
            made: list[Endpoint] = []
            return self._workspace.operations.submit(
                name,
                "create_endpoint",
                lambda: self._start(made[0]),
                begin=lambda: made.append(self.make(branch, id_of(name), endpoint_type, size, state="IDLE")),
                undo=lambda: self.remove(made[0]),
            )

    def _start(self, endpoint: Endpoint) -> Json:
        """Accept logins and start the compute, unless it is disabled."""
        self._open(endpoint)
        if not endpoint.disabled:
            # If the wake fails, the endpoint is there and idle. The next login tries again.
            with contextlib.suppress(RuntimeError):
                self._workspace.computes.wake(endpoint)
        return endpoint.json()

    def _open(self, endpoint: Endpoint) -> None:
        """Accept logins, at another address if another program uses the port at this one."""
        while True:
            try:
                self._workspace.computes.open(endpoint)
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                endpoint.address = self.take_address()
                endpoint.read_only_address = endpoint.address if endpoint.endpoint_type == READ_ONLY else None
                if endpoint.size.readable:
                    self.enable_readable_secondary(endpoint)

    # -- update

    def update(self, name: str, body: Json, mask: str | None) -> Operation:
        """Change the fields that the mask names. A disabled endpoint suspends within a second."""
        fields = masked_fields(body, mask, PATHS, fixed=FIXED)
        flat(spec_of("endpoint", body) or {})
        endpoint = self.require_of(name)
        given = (body.get("spec") or {}).get("endpoint_type", endpoint.endpoint_type)
        return self._change(endpoint, "update_endpoint", given, fields)

    def _change(self, endpoint: Endpoint, method: str, endpoint_type: str, fields: Json) -> Operation:
        if endpoint_type != endpoint.endpoint_type:
            raise invalid(f"Field 'spec.endpoint_type': {FIXED['spec.endpoint_type']}; it is {endpoint.endpoint_type}")
        resized(replace(endpoint.size, disabled=endpoint.disabled), fields)
        return self._workspace.operations.submit(endpoint.name, method, lambda: self._resize(endpoint, fields))

    def _resize(self, endpoint: Endpoint, fields: Json) -> Json:
        size = resized(replace(endpoint.size, disabled=endpoint.disabled), fields)
        had_secondary, endpoint.size = endpoint.size.readable, size
        endpoint.set_disabled(size.disabled)
        if size.readable and not had_secondary:
            self.enable_readable_secondary(endpoint)
            self._workspace.computes.open(endpoint)
        elif had_secondary and not size.readable:
            self._workspace.computes.close(endpoint)
            self._give_back(endpoint.read_only_address)
            endpoint.read_only_address = None
            self._workspace.computes.open(endpoint)
        return endpoint.json()

    # -- delete

    def delete(self, name: str) -> Operation:
        """Delete a read-only endpoint."""
        endpoint = self.require_of(name)
        if endpoint.endpoint_type == READ_WRITE:
            raise managed_by_parent(
                f"Cannot delete read-write endpoint '{name}'. Read-write endpoints cannot be deleted."
            )
        if self._workspace.branches[endpoint.branch].is_protected:
            raise refused("cannot delete an endpoint of a protected branch")
        return self._workspace.operations.submit(name, "delete_endpoint", lambda: self.remove(endpoint))

    def remove(self, endpoint: Endpoint) -> Json:
        """Cut an endpoint's sessions and remove it."""
        self.discard(endpoint)
        self._workspace.computes.close(endpoint)
        for address in endpoint.direct_addresses:
            self._give_back(address)
        return EMPTY

    def _give_back(self, address: str | None) -> None:
        if address and address not in self._free:
            self._free.append(address)
