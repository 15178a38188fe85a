"""The hook for the workspace's control plane: what a project has, without the rows. It opens no session.

Every DAG file that uses its operators imports this module, so modules that load databricks-sdk are imported inside
functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_lakebase.core.connection.fields import CONNECTION_TYPE, DEFAULT_CONN_ID
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, databricks_conn_id, read_settings
from airflow_provider_lakebase.core.daemon_thread import run_in_daemon_thread, start_in_daemon_thread
from airflow_provider_lakebase.core.workspace import operations
from airflow_provider_lakebase.core.workspace.branches import (
    CreateBranch,
    DeleteBranch,
    IfExists,
    ResetBranch,
    UndeleteBranch,
)
from airflow_provider_lakebase.core.workspace.change_feed_progress import TableFeed, list_statuses, read_feeds
from airflow_provider_lakebase.core.workspace.change_feeds import (
    FEEDS,
    CreateChangeFeed,
    DeleteChangeFeed,
    database_of,
    feed_name,
    feed_spec,
)
from airflow_provider_lakebase.core.workspace.databases import CreateDatabase, DeleteDatabase, find_database
from airflow_provider_lakebase.core.workspace.endpoint_changes import READ_ONLY, CreateEndpoint, UpdateEndpoint
from airflow_provider_lakebase.core.workspace.operations import POLL_SECONDS
from airflow_provider_lakebase.core.workspace.plans import (
    OPERATION_SECONDS,
    DeleteResource,
    OneOperation,
    Pending,
    Plan,
    carry_out,
    poll,
)
from airflow_provider_lakebase.core.workspace.resources import REQUEST_SECONDS, list_all, parent_of, read, status_of
from airflow_provider_lakebase.core.workspace.roles import DELETION_REQUESTED, CreateRole, DeleteRole, require_role
from airflow_provider_lakebase.core.workspace.snapshots import CreateSnapshot, change_cadence, schedule_of
from airflow_provider_lakebase.core.workspace.specs import (
    Duration,
    Time,
    check_flags,
    check_if_exists,
    compute_spec,
    expiry_spec,
    read_duration,
    require_within,
    resource_name,
    source_spec,
)
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable, read_tables
from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseSettingsError
from airflow_provider_lakebase.hooks._connection import connection_fields
from airflow_provider_lakebase.hooks._masking import mask, mask_async

if TYPE_CHECKING:
    from databricks.sdk.service.postgres import (
        Branch,
        CdfConfig,
        CdfStatus,
        Database,
        Endpoint,
        Role,
        Snapshot,
        SnapshotSchedule,
    )

    from airflow_provider_lakebase.core.workspace.client import Workspace
    from airflow_provider_lakebase.core.workspace.operations import Operation

Cadence = Literal["daily", "weekly", "monthly"]
SERVICE_PRINCIPAL = "SERVICE_PRINCIPAL"


class LakebaseWorkspaceHook(BaseHook):
    """Manage the branches, endpoints, databases, roles, snapshots and change feeds of a Lakebase project.

    It needs no endpoint, opens no session and wakes nothing. A method that changes something waits until the change is
    done, at most 10 minutes. What the methods return are databricks-sdk's own objects.

    Branches, endpoints and snapshots are named by their IDs, or by their full names:
    ``projects/<project>/branches/<branch>``. Databases and roles are named as in Postgres.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param project: ID of the project; by default that of the connection's ``endpoint``, else its extra ``project``
    """

    conn_name_attr = "lakebase_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = "Databricks Lakebase"

    def __init__(self, lakebase_conn_id: str = DEFAULT_CONN_ID, project: str | None = None) -> None:
        super().__init__()
        self.lakebase_conn_id = lakebase_conn_id
        self.project = project

    @cached_property
    def settings(self) -> LakebaseSettings:
        """The connection, which is read once.

        :raises LakebaseSettingsError: if a field is missing, wrong or unknown
        """
        fields = connection_fields(self.lakebase_conn_id, self.get_connection(self.lakebase_conn_id), CONNECTION_TYPE)
        source = databricks_conn_id(fields)
        databricks = connection_fields(source, self.get_connection(source), "databricks") if source else None
        settings = read_settings(fields, databricks=databricks)
        for secret in settings.secrets:
            mask(secret)
        return settings

    async def read_settings_async(self) -> LakebaseSettings:
        """Read the connection anew and return :attr:`settings`, without blocking the event loop.

        :raises LakebaseSettingsError: if a field is missing, wrong or unknown
        """
        from airflow.providers.common.compat.connection import get_async_connection

        conn_id = self.lakebase_conn_id
        fields = connection_fields(conn_id, await get_async_connection(conn_id), CONNECTION_TYPE)
        source = databricks_conn_id(fields)
        databricks = connection_fields(source, await get_async_connection(source), "databricks") if source else None
        settings = read_settings(fields, databricks=databricks)
        await mask_async(settings.secrets)
        return settings

    @property
    def workspace(self) -> Workspace:
        """The workspace, called as the connection's identity.

        :raises LakebaseSettingsError: for a native Postgres login, which has none
        """
        from airflow_provider_lakebase.core.workspace.client import Workspace

        return Workspace.of(self.settings)

    async def poll_async(self, settings: LakebaseSettings, pending: Pending) -> Operation | None:
        """Poll an operation or resource once, without blocking the event loop.

        :param settings: from :meth:`read_settings_async`
        :param pending: the operation or resource
        :returns: the operation, if the wait is over
        """
        return await run_in_daemon_thread(partial(_poll, settings, pending))

    async def _read_synced_tables_async(
        self, settings: LakebaseSettings, names: Sequence[str]
    ) -> dict[str, SyncedTable | LakebaseError]:
        """Return the states of synced tables, without blocking the event loop, as ``read_tables`` does.

        :param settings: from :meth:`read_settings_async`
        :param names: resource names
        """
        return await run_in_daemon_thread(partial(_read_tables, settings, names))

    async def _read_feeds_async(self, settings: LakebaseSettings, name: str) -> list[TableFeed]:
        """Return how far a change feed has replicated its tables, without blocking the event loop.

        :param settings: from :meth:`read_settings_async`
        :param name: resource name
        """
        return await run_in_daemon_thread(partial(_read_feeds, settings, name))

    def project_name(self, project: str | None = None) -> str:
        """Return the resource name of the project.

        :param project: ID or resource name, in place of the hook's
        :raises LakebaseSettingsError: if none is named
        """
        return str(self.settings.require_project(project or self.project))

    def branch_name(self, branch: str) -> str:
        """Return the resource name of a branch.

        :param branch: ID or resource name
        :raises LakebaseSettingsError: if it is malformed, or belongs to another project
        """
        return resource_name(self._project_of(branch), "branches", branch)

    def endpoint_name(self, endpoint: str | None = None) -> str:
        """Return the resource name of an endpoint.

        :param endpoint: resource name of an endpoint, or of a branch, which means its ``primary``; by default the
            connection's
        :raises LakebaseSettingsError: if it is malformed, belongs to another project, or none is named
        """
        if endpoint is None:
            endpoint = str(self.settings.require_endpoint())
        branch, names_endpoint, endpoint_id = str(endpoint).partition("/endpoints/")
        return resource_name(self.branch_name(branch), "endpoints", endpoint_id if names_endpoint else "primary")

    def endpoint_to_delete(self, endpoint: str) -> str:
        """Return the resource name of an endpoint that is named in full: nothing is deleted by default.

        :param endpoint: resource name
        :raises LakebaseSettingsError: if it is something else
        """
        if "/endpoints/" not in str(endpoint):
            hint = "Give its resource name: projects/<project>/branches/<branch>/endpoints/<endpoint>."
            raise LakebaseSettingsError(f"{endpoint!r} is not the name of an endpoint", hint=hint)
        return self.endpoint_name(endpoint)

    def snapshot_name(self, snapshot: str) -> str:
        """Return the resource name of a snapshot.

        :param snapshot: ID or resource name
        :raises LakebaseSettingsError: if it is malformed, or belongs to another project
        """
        return resource_name(self._project_of(snapshot), "snapshots", snapshot)

    def change_feed_name(self, change_feed: str, branch: str | None = None) -> str:
        """Return the resource name of a change feed.

        :param change_feed: ID or resource name
        :param branch: ID or resource name of its branch; by default that of the connection's endpoint
        :raises LakebaseSettingsError: if it is malformed, belongs to another project or branch, or no branch is named
        """
        name = feed_name(lambda: self._branch_or_default(branch), change_feed)
        return require_within(self._project_of(name) if branch is None else self._branch_or_default(branch), name)

    def get_branch(self, branch: str) -> Branch:
        """Return a branch.

        :param branch: ID or resource name
        :raises LakebaseResourceNotFoundError: if it does not exist
        """
        from databricks.sdk.service.postgres import Branch

        return Branch.from_dict(read(self.workspace, self.branch_name(branch)))

    def list_branches(self, project: str | None = None, *, show_deleted: bool = False) -> list[Branch]:
        """Return the branches of a project.

        :param project: ID or resource name, in place of the hook's
        :param show_deleted: also return those that are deleted and can be undeleted
        """
        query = {"show_deleted": True} if show_deleted else {}
        found = list_all(self.workspace, self.project_name(project), "branches", **query)
        from databricks.sdk.service.postgres import Branch

        return [Branch.from_dict(each) for each in found]

    def create_branch(
        self,
        branch: str,
        *,
        ttl: Duration | None = None,
        expire_time: Time | None = None,
        no_expiry: bool | None = None,
        source: str | None = None,
        source_time: Time | None = None,
        source_lsn: str | None = None,
        source_snapshot: str | None = None,
        if_exists: IfExists = "use",
        timeout: float = OPERATION_SECONDS,
    ) -> Branch:
        """Create a branch. A login on it may be refused for up to a minute.

        :param branch: ID
        :param ttl: how long it lives, at most 30 days: ``timedelta`` or seconds
        :param expire_time: until when it lives, in place of ``ttl``
        :param no_expiry: True if it does not expire
        :param source: branch to copy; by default the project's default branch
        :param source_time: copy the data that it had at this time
        :param source_lsn: copy the data that it had at this log sequence number
        :param source_snapshot: snapshot to copy, in place of a branch
        :param if_exists: ``use`` the branch of that name, ``replace`` it, or ``fail``
        :param timeout: seconds that it may take
        :raises LakebaseSettingsError: unless exactly one expiry is given, and for other arguments that are wrong
        :raises LakebaseResourceExistsError: if a branch of that name exists which is not to be used
        """
        check_if_exists(if_exists)
        name = self.branch_name(branch)
        project = parent_of(name)
        source_fields = source_spec(
            project, source=source, source_time=source_time, source_lsn=source_lsn, source_snapshot=source_snapshot
        )
        spec = {**source_fields, **expiry_spec(ttl=ttl, expire_time=expire_time, no_expiry=no_expiry)}
        self.run(CreateBranch(name, spec, if_exists), timeout=timeout)
        return self.get_branch(name)

    def delete_branch(self, branch: str, *, purge: bool = False, timeout: float = OPERATION_SECONDS) -> None:
        """Delete a branch; do nothing if it is gone.

        :param branch: ID or resource name
        :param purge: delete it for good, so that its name is free; else it can be undeleted for some days
        :param timeout: seconds that it may take
        :raises LakebaseWorkspaceRefusedError: for a protected branch, one with children, or the default branch
        """
        check_flags(purge=purge)
        self.run(DeleteBranch(self.branch_name(branch), purge), timeout=timeout)

    def reset_branch(self, branch: str, *, timeout: float = OPERATION_SECONDS) -> Branch:
        """Give a branch the data that its parent has now.

        The API has no reset: the branch is purged and created again under its name. Its expiry, its protection and the
        settings of its endpoints are put back.

        :param branch: ID or resource name
        :param timeout: seconds that it may take
        :raises LakebaseWorkspaceRefusedError: for a branch without a parent, or with children
        """
        name = self.branch_name(branch)
        self.run(ResetBranch(name), timeout=timeout)
        return self.get_branch(name)

    def undelete_branch(self, branch: str, *, timeout: float = OPERATION_SECONDS) -> Branch:
        """Bring back a branch that was deleted and not purged.

        :param branch: ID or resource name
        :param timeout: seconds that it may take
        """
        name = self.branch_name(branch)
        self.run(UndeleteBranch(name), timeout=timeout)
        return self.get_branch(name)

    def protect_branch(self, branch: str, protected: bool = True, *, timeout: float = OPERATION_SECONDS) -> Branch:
        """Protect a branch from being deleted, or no longer.

        :param branch: ID or resource name
        :param protected: whether it is protected; a project has at most one such branch
        :param timeout: seconds that it may take
        """
        check_flags(protected=protected)
        return self._update_branch(branch, {"is_protected": protected}, "spec.is_protected", timeout)

    def expire_branch(
        self,
        branch: str,
        *,
        ttl: Duration | None = None,
        expire_time: Time | None = None,
        no_expiry: bool | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> Branch:
        """Change when a branch expires.

        :param branch: ID or resource name
        :param ttl: how long it lives from its creation, at most 30 days: ``timedelta`` or seconds
        :param expire_time: until when it lives, in place of ``ttl``
        :param no_expiry: True if it does not expire
        :param timeout: seconds that it may take
        :raises LakebaseSettingsError: unless exactly one is given
        """
        spec = expiry_spec(ttl=ttl, expire_time=expire_time, no_expiry=no_expiry)
        return self._update_branch(branch, spec, "spec.expiration", timeout)

    def get_endpoint(self, endpoint: str | None = None) -> Endpoint:
        """Return an endpoint, without waking it.

        :param endpoint: resource name of an endpoint, or of a branch, which means its ``primary``; by default the
            connection's
        :raises LakebaseResourceNotFoundError: if it does not exist
        """
        from databricks.sdk.service.postgres import Endpoint

        return Endpoint.from_dict(read(self.workspace, self.endpoint_name(endpoint)))

    def list_endpoints(self, branch: str) -> list[Endpoint]:
        """Return the endpoints of a branch.

        :param branch: ID or resource name
        """
        found = list_all(self.workspace, self.branch_name(branch), "endpoints")
        from databricks.sdk.service.postgres import Endpoint

        return [Endpoint.from_dict(each) for each in found]

    def create_endpoint(
        self,
        branch: str,
        endpoint_id: str,
        *,
        min_cu: float | None = None,
        max_cu: float | None = None,
        suspend_timeout: Duration | None = None,
        no_suspension: bool | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> Endpoint:
        """Create a read-only endpoint; do nothing if it is there.

        :param branch: ID or resource name of its branch
        :param endpoint_id: its ID
        :param min_cu: least compute units, from 0.5
        :param max_cu: most compute units, up to 64, and at most 16 more than the least
        :param suspend_timeout: time without use after which it is suspended, from 60 s to 7 days
        :param no_suspension: True if it is never suspended
        :param timeout: seconds that it may take
        :raises LakebaseResourceExistsError: if there is a read-write endpoint of that name
        """
        name = resource_name(self.branch_name(branch), "endpoints", endpoint_id)
        settings = compute_spec(
            min_cu=min_cu, max_cu=max_cu, suspend_timeout=suspend_timeout, no_suspension=no_suspension
        )
        self.run(CreateEndpoint(name, {"endpoint_type": READ_ONLY, **settings}), timeout=timeout)
        return self.get_endpoint(name)

    def update_endpoint(
        self,
        endpoint: str | None = None,
        *,
        min_cu: float | None = None,
        max_cu: float | None = None,
        suspend_timeout: Duration | None = None,
        no_suspension: bool | None = None,
        disabled: bool | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> Endpoint:
        """Change settings of an endpoint, and wait until they hold. What is not given stays as it is.

        :param endpoint: resource name of an endpoint, or of a branch, which means its ``primary``; by default the
            connection's
        :param min_cu: least compute units, from 0.5
        :param max_cu: most compute units, up to 64, and at most 16 more than the least
        :param suspend_timeout: time without use after which it is suspended, from 60 s to 7 days
        :param no_suspension: True if it is never suspended
        :param disabled: whether it refuses connections; neither a login nor the console enables it again
        :param timeout: seconds that it may take
        """
        name = self.endpoint_name(endpoint)
        spec = compute_spec(
            min_cu=min_cu,
            max_cu=max_cu,
            suspend_timeout=suspend_timeout,
            no_suspension=no_suspension,
            disabled=disabled,
        )
        self.run(UpdateEndpoint(name, spec), timeout=timeout)
        return self.get_endpoint(name)

    def delete_endpoint(self, endpoint: str, *, timeout: float = OPERATION_SECONDS) -> None:
        """Delete a read-only endpoint; do nothing if it is gone.

        :param endpoint: resource name
        :param timeout: seconds that it may take
        :raises LakebaseWorkspaceRefusedError: for a read-write endpoint, which belongs to its branch
        """
        self.run(DeleteResource(self.endpoint_to_delete(endpoint)), timeout=timeout)

    def get_snapshot(self, snapshot: str) -> Snapshot:
        """Return a snapshot.

        :param snapshot: ID or resource name
        :raises LakebaseResourceNotFoundError: if it does not exist
        """
        from databricks.sdk.service.postgres import Snapshot

        return Snapshot.from_dict(read(self.workspace, self.snapshot_name(snapshot)))

    def list_snapshots(self, project: str | None = None) -> list[Snapshot]:
        """Return the snapshots of a project.

        :param project: ID or resource name, in place of the hook's
        """
        found = list_all(self.workspace, self.project_name(project), "snapshots")
        from databricks.sdk.service.postgres import Snapshot

        return [Snapshot.from_dict(each) for each in found]

    def create_snapshot(
        self,
        snapshot: str,
        source: str,
        *,
        ttl: Duration | None = None,
        expire_time: Time | None = None,
        no_expiry: bool | None = None,
        source_time: Time | None = None,
        source_lsn: str | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> Snapshot:
        """Create a snapshot of a branch; do nothing if it is there. Its storage is billed.

        :param snapshot: ID
        :param source: ID or resource name of the branch, which must be a root branch
        :param ttl: how long it is kept: ``timedelta`` or seconds
        :param expire_time: until when it is kept, in place of ``ttl``
        :param no_expiry: True if it does not expire
        :param source_time: of the data that the branch had at this time
        :param source_lsn: of the data that the branch had at this log sequence number
        :param timeout: seconds that it may take
        :raises LakebaseResourceExistsError: if there is one of another branch
        :raises LakebaseSettingsError: unless exactly one expiry is given
        """
        name = self.snapshot_name(snapshot)
        project = parent_of(name)
        source_fields = source_spec(project, source=source, source_time=source_time, source_lsn=source_lsn)
        expiry = expiry_spec(ttl=ttl, expire_time=expire_time, no_expiry=no_expiry, longest=None)
        spec = {**source_fields, **expiry}
        self.run(CreateSnapshot(name, spec), timeout=timeout)
        return self.get_snapshot(name)

    def delete_snapshot(self, snapshot: str, *, timeout: float = OPERATION_SECONDS) -> None:
        """Delete a snapshot; do nothing if it is gone.

        :param snapshot: ID or resource name
        :param timeout: seconds that it may take
        """
        self.run(DeleteResource(self.snapshot_name(snapshot)), timeout=timeout)

    def get_snapshot_schedule(self, branch: str) -> SnapshotSchedule:
        """Return when the workspace takes snapshots of a branch by itself.

        :param branch: ID or resource name
        """
        from databricks.sdk.service.postgres import SnapshotSchedule

        return SnapshotSchedule.from_dict(read(self.workspace, schedule_of(self.branch_name(branch))))

    def change_snapshot_cadence(
        self,
        branch: str,
        cadence: Cadence,
        schedule: Mapping[str, Any] | None,
        *,
        retention: Duration | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> SnapshotSchedule:
        """Change one cadence of a branch's snapshot schedule, and leave the others.

        An update of the API replaces the whole schedule. The others are therefore read and sent again: if two changes
        run at once, one may be lost.

        :param branch: ID or resource name
        :param cadence: ``daily``, ``weekly`` or ``monthly``
        :param schedule: when, in UTC: ``{"hour": 3}``, with ``day_of_week`` (``"MONDAY"``) or ``day`` (1 to 31); None
            removes the cadence
        :param retention: how long its snapshots are kept, at least an hour: ``timedelta`` or seconds
        :param timeout: seconds that it may take
        :raises LakebaseSettingsError: unless schedule and retention are given together
        """
        if cadence not in ("daily", "weekly", "monthly"):
            raise LakebaseSettingsError(f"cadence is {cadence!r}", hint="It must be 'daily', 'weekly' or 'monthly'.")
        if (schedule is None) != (retention is None):
            hint = "Give both, or schedule=None alone to remove the cadence."
            raise LakebaseSettingsError("Only one of schedule and retention is given", hint=hint)
        name, field, value = self.branch_name(branch), f"{cadence}_schedule", None
        if schedule is not None and retention is not None:
            value = {field: dict(schedule), "retention": f"{read_duration('retention', retention)}s"}
        self._run_one(schedule_of(name), lambda workspace: change_cadence(workspace, name, field, value), timeout)
        return self.get_snapshot_schedule(name)

    def get_change_feed(self, change_feed: str, branch: str | None = None) -> CdfConfig:
        """Return a change feed.

        :param change_feed: ID or resource name
        :param branch: ID or resource name of its branch; by default that of the connection's endpoint
        :raises LakebaseResourceNotFoundError: if it does not exist
        """
        found = read(self.workspace, self.change_feed_name(change_feed, branch))
        from databricks.sdk.service.postgres import CdfConfig

        return CdfConfig.from_dict(found)

    def list_change_feeds(self, branch: str | None = None) -> list[CdfConfig]:
        """Return the change feeds of a branch.

        :param branch: ID or resource name; by default that of the connection's endpoint
        """
        found = list_all(self.workspace, database_of(self._branch_or_default(branch)), FEEDS)
        from databricks.sdk.service.postgres import CdfConfig

        return [CdfConfig.from_dict(each) for each in found]

    def list_change_feed_tables(self, change_feed: str, branch: str | None = None) -> list[CdfStatus]:
        """Return how far a change feed has replicated each of its tables, without waking an endpoint.

        :param change_feed: ID or resource name
        :param branch: ID or resource name of its branch; by default that of the connection's endpoint
        :raises LakebaseResourceNotFoundError: if it does not exist
        """
        found = list_statuses(self.workspace, self.change_feed_name(change_feed, branch))
        from databricks.sdk.service.postgres import CdfStatus

        return [CdfStatus.from_dict(each) for each in found]

    def create_change_feed(
        self,
        change_feed: str | None = None,
        *,
        postgres_schema: str,
        catalog: str,
        schema: str,
        branch: str | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> CdfConfig:
        """Create a change feed; do nothing if it is there.

        This opens no session, so it checks no table. LakebaseCreateChangeFeedOperator does.

        :param change_feed: ID; by default the name of the Postgres schema
        :param postgres_schema: schema in Postgres whose tables it replicates
        :param catalog: catalog in Unity Catalog that it writes to
        :param schema: schema in this catalog
        :param branch: ID or resource name of its branch; by default that of the connection's endpoint
        :param timeout: seconds that it may take
        :raises LakebaseResourceExistsError: if there is another feed of its name, or of the Postgres schema
        """
        spec = feed_spec(postgres_schema=postgres_schema, catalog=catalog, schema=schema)
        name = self.change_feed_name(change_feed or postgres_schema, branch)
        self.run(CreateChangeFeed(name, spec), timeout=timeout)
        return self.get_change_feed(name)

    def delete_change_feed(
        self,
        change_feed: str,
        branch: str | None = None,
        *,
        drop_tables: bool = False,
        timeout: float = OPERATION_SECONDS,
    ) -> None:
        """Delete a change feed; do nothing if it is gone.

        :param change_feed: ID or resource name
        :param branch: ID or resource name of its branch; by default that of the connection's endpoint
        :param drop_tables: also drop the tables in Unity Catalog that it has written
        :param timeout: seconds that it may take
        """
        check_flags(drop_tables=drop_tables)
        self.run(DeleteChangeFeed(self.change_feed_name(change_feed, branch), drop_tables), timeout=timeout)

    def list_databases(self, branch: str | None = None) -> list[Database]:
        """Return the databases of a branch.

        :param branch: ID or resource name; by default the branch of the connection's endpoint
        """
        found = list_all(self.workspace, self._branch_or_default(branch), "databases")
        from databricks.sdk.service.postgres import Database

        return [Database.from_dict(each) for each in found]

    def create_database(
        self,
        database: str,
        *,
        branch: str | None = None,
        owner: str | None = None,
        identity_type: str | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> Database:
        """Create a database in which identities can log in, and the role of its owner, unless they are there.

        :param database: its name
        :param branch: ID or resource name; by default the branch of the connection's endpoint
        :param owner: identity whose role owns it; by default the connection's, and of one that exists any
        :param identity_type: type of the owner: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``
        :param timeout: seconds that it may take
        :raises LakebaseResourceExistsError: if it exists with another owner, or the owner's role cannot log in
        """
        plan = self._database_plan(database, branch=branch, owner=owner, identity_type=identity_type)
        self.run(plan, timeout=timeout)
        found = find_database(self.workspace, plan.branch, database)
        from databricks.sdk.service.postgres import Database

        return Database.from_dict(found or read(self.workspace, plan.resource))

    def delete_database(self, database: str, *, branch: str | None = None, timeout: float = OPERATION_SECONDS) -> None:
        """Drop a database with all that it holds; do nothing if it is gone.

        :param database: its name
        :param branch: ID or resource name; by default the branch of the connection's endpoint
        :param timeout: seconds that it may take
        """
        self.run(DeleteDatabase(self._branch_or_default(branch), _name("database", database)), timeout=timeout)

    def list_roles(self, branch: str | None = None) -> list[Role]:
        """Return the Postgres roles of a branch that can log in.

        :param branch: ID or resource name; by default the branch of the connection's endpoint
        """
        found = list_all(self.workspace, self._branch_or_default(branch), "roles")
        from databricks.sdk.service.postgres import Role

        return [Role.from_dict(each) for each in found]

    def create_role(
        self,
        identity: str,
        *,
        identity_type: str = "SERVICE_PRINCIPAL",
        branch: str | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> Role:
        """Create the Postgres role that an identity logs in as, without privileges; do nothing if it is there.

        It is for a branch on which nobody can log in yet: ``LakebaseRoleBootstrapOperator`` also grants.

        :param identity: client ID of a service principal, e-mail of a user, or display name of a group
        :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``
        :param branch: ID or resource name; by default the branch of the connection's endpoint
        :param timeout: seconds that it may take
        :raises LakebaseResourceExistsError: if a role of that name exists which the identity cannot log in as
        """
        plan = CreateRole(self._branch_or_default(branch), identity, identity_type)
        self.run(plan, timeout=timeout)
        from databricks.sdk.service.postgres import Role

        return Role.from_dict(require_role(self.workspace, plan.branch, identity))

    def delete_role(
        self,
        role: str,
        *,
        reassign_owned_to: str | None = None,
        branch: str | None = None,
        timeout: float = OPERATION_SECONDS,
    ) -> bool:
        """Delete a Postgres role, and return True; do nothing if it is gone. The workspace starts the endpoint for it.

        :param role: its name in Postgres
        :param reassign_owned_to: role that gets what it owns, in every database
        :param branch: ID or resource name; by default the branch of the connection's endpoint
        :param timeout: seconds that it may take
        :raises LakebaseWorkspaceRefusedError: for the project's owner, and for a role that owns something, without
            ``reassign_owned_to``
        """
        plan = DeleteRole(self._branch_or_default(branch), _name("role", role), reassign_owned_to)
        notes: dict[str, Any] = {}
        carry_out(self.workspace, plan, notes, timeout=timeout)
        return DELETION_REQUESTED in notes

    def run(self, plan: Plan, *, timeout: float = OPERATION_SECONDS) -> None:
        """Take all steps of a plan, waiting for each.

        :param plan: what to bring about
        :param timeout: seconds that it may take
        :raises LakebaseOperationError: if an operation fails
        :raises LakebaseOperationTimeoutError: if it takes longer; it goes on in the workspace
        """
        carry_out(self.workspace, plan, timeout=timeout)

    def _begin_workspace_pages(self, resource: str, *, timeout: float) -> Callable[[], dict[str, str]]:
        """Begin to look up the URLs of a branch's pages in a thread; return a function that waits for them."""
        from airflow_provider_lakebase.core.workspace.console_urls import find_console_urls

        name, workspace, database = ResourceName.parse(resource), self.workspace, self.settings.session.database
        return start_in_daemon_thread(partial(find_console_urls, workspace, name, database, timeout=timeout)).result

    def _run_one(self, name: str, start: Callable[[Workspace], Operation], timeout: float) -> None:
        self.run(OneOperation(name, start), timeout=timeout)

    def _update_branch(self, branch: str, spec: Mapping[str, Any], path: str, timeout: float) -> Branch:
        name, body = self.branch_name(branch), {"spec": spec}
        self._run_one(name, lambda workspace: operations.update(workspace, name, body, path), timeout)
        return self.get_branch(name)

    def _database_plan(
        self, database: str, *, branch: str | None, owner: str | None, identity_type: str | None
    ) -> CreateDatabase:
        """Check the arguments of a database to create."""
        name, on_branch = _name("database", database), self._branch_or_default(branch)
        if owner is not None:
            return CreateDatabase(name, CreateRole(on_branch, owner, identity_type or SERVICE_PRINCIPAL))
        session = self.settings.session
        role = session.user or self.workspace.user_name(timeout=REQUEST_SECONDS)
        own_type = "GROUP" if session.group_name else "USER" if "@" in role else SERVICE_PRINCIPAL
        return CreateDatabase(name, CreateRole(on_branch, role, identity_type or own_type), is_owner_required=False)

    def _database_owner(self, plan: CreateDatabase) -> str | None:
        """Return the role that owns a database."""
        found = find_database(self.workspace, plan.branch, plan.database) or {}
        roles = {each["name"]: each for each in list_all(self.workspace, plan.branch, "roles")}
        owner = status_of(found).get("role")
        return status_of(roles.get(owner, {})).get("postgres_role", owner)

    def _branch_or_default(self, branch: str | None) -> str:
        """Return a branch, given by ID or resource name, also that of an endpoint; by default the connection's."""
        return parent_of(self.endpoint_name(branch))

    def _project_of(self, resource: str) -> str:
        """Return the project that a full name contains, which must be the hook's if it names one; else the hook's."""
        segments = str(resource).split("/")
        if segments[0] != "projects" or len(segments) == 1:
            return self.project_name()
        project = self.project_name(segments[1])
        if self.project and project != self.project_name():
            hint = "Name one of this project, or leave out 'project'. By default, the connection's 'endpoint' is meant."
            raise LakebaseSettingsError(f"{resource} does not belong to {self.project_name()}", hint=hint)
        return project


def _name(what: str, name: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise LakebaseSettingsError(f"{what} is {name!r}", hint="Pass its name in Postgres.")
    return name


def _poll(settings: LakebaseSettings, pending: Pending) -> Operation | None:
    from airflow_provider_lakebase.core.workspace.client import Workspace

    return poll(Workspace.of(settings), pending)


def _read_feeds(settings: LakebaseSettings, name: str) -> list[TableFeed]:
    from airflow_provider_lakebase.core.workspace.client import Workspace

    return read_feeds(Workspace.of(settings), name, timeout=POLL_SECONDS)


def _read_tables(settings: LakebaseSettings, names: Sequence[str]) -> dict[str, SyncedTable | LakebaseError]:
    from airflow_provider_lakebase.core.workspace.client import Workspace

    return read_tables(Workspace.of(settings), names, timeout=POLL_SECONDS)
