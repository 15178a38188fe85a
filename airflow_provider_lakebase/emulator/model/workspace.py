"""The workspace: its identities, and its resources by kind.

No I/O. The clock is a parameter (seconds since 1970). All methods are thread-safe.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.emulator.faults import Faults
from airflow_provider_lakebase.emulator.model.branches import Branches
from airflow_provider_lakebase.emulator.model.catalog import UnityCatalog
from airflow_provider_lakebase.emulator.model.change_feeds import ChangeFeeds
from airflow_provider_lakebase.emulator.model.databases import Databases
from airflow_provider_lakebase.emulator.model.endpoints import READ_ONLY, READ_WRITE, Endpoint, Endpoints
from airflow_provider_lakebase.emulator.model.identities import Identities, Principal
from airflow_provider_lakebase.emulator.model.operations import Operations
from airflow_provider_lakebase.emulator.model.pipelines import Pipelines
from airflow_provider_lakebase.emulator.model.postgres_catalogs import PostgresCatalogs
from airflow_provider_lakebase.emulator.model.projects import Projects
from airflow_provider_lakebase.emulator.model.roles import Roles
from airflow_provider_lakebase.emulator.model.snapshot_schedules import SnapshotSchedules
from airflow_provider_lakebase.emulator.model.snapshots import Snapshots
from airflow_provider_lakebase.emulator.model.synced_tables import SyncedTables

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.data_plane import Clusters, Computes

PROJECT = "projects/demo"
BRANCH = f"{PROJECT}/branches/production"
ENDPOINT = f"{BRANCH}/endpoints/primary"


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
    #: Seconds that an operation takes at least; with 0 it has ended when its request is answered.
    operation_seconds: float = 0.0
    #: Seconds that an update of a pipeline takes at least; loading the rows comes on top.
    pipeline_seconds: float = 0.2
    #: Seconds until a change feed has committed what was written.
    feed_flush_seconds: float = 0.2

    def __init__(self) -> None:
        #: The faults to inject.
        self.faults = Faults()

    @property
    def settings(self) -> dict[str, Any]:
        """Return the current values of the attributes."""
        return {name: getattr(self, name) for name in Behaviour.__annotations__}

    def change(self, **settings: Any) -> None:
        """Set attributes; raise ``ValueError`` for an unknown one, or a number below 0."""
        for name, value in settings.items():
            if name not in Behaviour.__annotations__:
                raise ValueError(f"there is no setting {name!r}; there are {', '.join(Behaviour.__annotations__)}")
            if value is not None and not value >= 0:
                raise ValueError(f"{name} cannot be {value}")
            setattr(self, name, value)


class Workspace:
    """The workspace. ``clusters`` and ``computes`` are set by the server when it starts."""

    clusters: Clusters
    computes: Computes

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        suspend_timeout: float,
        asleep: bool,
        pg_version: int = 18,
        postgres_bindir: str | os.PathLike[str] | None = None,
        behaviour: Behaviour | None = None,
    ) -> None:
        self.clock = clock
        self.suspend_timeout = suspend_timeout
        self.asleep = asleep
        self.pg_version = pg_version
        self.postgres_bindir = postgres_bindir
        self.behaviour = behaviour or Behaviour()
        self.identities = Identities(clock)
        #: Called after changes; writes the workspace to its data directory, if it has one.
        self.keep: Callable[[], object] = lambda: None
        self.operations = Operations(self.behaviour, lambda: self.keep())
        self.workspace_id = secrets.randbelow(9 * 10**15) + 10**15
        #: Held while a request is checked and its resource is made, so that two requests do not make the same one.
        self.lock = threading.RLock()
        self.projects = Projects(self)
        self.branches = Branches(self)
        self.endpoints = Endpoints(self)
        self.snapshots = Snapshots(self)
        self.snapshot_schedules = SnapshotSchedules(self)
        self.roles = Roles(self)
        self.databases = Databases(self)
        self.catalog = UnityCatalog(clock)
        self.postgres_catalogs = PostgresCatalogs(clock)
        self.pipelines = Pipelines(clock, self.behaviour)
        self.synced_tables = SyncedTables(self.catalog, self.pipelines, clock)
        self.change_feeds = ChangeFeeds(clock, self.behaviour)
        project = self.projects.add_first(PROJECT, suspend_timeout)
        self.endpoints.make(self.branches.add_root(project), "primary", READ_WRITE, project.endpoint_size)
        if asleep:
            self.endpoints[ENDPOINT].move("suspend")

    def expire(self) -> None:
        """Remove what has expired, as of the clock."""
        with self.lock:
            self.projects.expire()
            self.branches.expire()
            self.snapshots.expire()

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
        with self.lock:
            if name in self.endpoints:
                raise ValueError(f"{name} already exists")
            if endpoint_type == READ_WRITE and self.endpoints.writer_of(branch_name):
                raise ValueError(f"read_write endpoint already exists in {branch_name}; a branch has one")
            if branch_name not in self.branches:
                self.branches.add_copy(branch_name, self.projects[PROJECT])
            size = self.projects[PROJECT].endpoint_size
            if suspend_timeout is not None:
                size = replace(size, suspend_timeout=suspend_timeout)
            return self.endpoints.make(self.branches[branch_name], endpoint_id, endpoint_type, size)

    def forget_data(self) -> None:
        """Forget what was made of the data of an earlier run."""
        for kind in (self.snapshots, self.synced_tables, self.change_feeds, self.postgres_catalogs):
            kind.restore([])

    def native_login(self, endpoint: Endpoint) -> bool:
        """Return whether roles with a password may log in to an endpoint."""
        branch = self.branches.get(endpoint.branch)
        return branch is not None and branch.project.native_login

    def issue_credential(self, principal: Principal, expires_at: float, *, read_only: bool = False) -> str:
        """Issue a database credential valid until ``expires_at``, or for ``credential_seconds`` if that is shorter."""
        early = self.behaviour.credential_seconds
        if early is not None:
            expires_at = min(expires_at, self.clock() + early)
        return self.identities.issue_credential(principal, expires_at, read_only=read_only)
