"""Create, recreate and delete synced tables, with what belongs to their Postgres tables.

A recreate is found again at any point by what the workspace and the helper table tell. Each step holds the lock of the
table, and looks at both anew before it changes anything.

This module is light: operators import it. What it calls in Postgres is a :class:`TableSession` that a hook hands in.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.core.relations.memory import PostgresTable, Recreation, SpecRecord
from airflow_provider_lakebase.core.workspace.operations import create, delete, read_operation
from airflow_provider_lakebase.core.workspace.plans import Notes, Pending, noting
from airflow_provider_lakebase.core.workspace.resources import REQUEST_SECONDS, Resource, read
from airflow_provider_lakebase.core.workspace.synced_table_specs import (
    columns_of,
    differences,
    not_compared,
    require_source,
)
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable, read_pipeline, start_update
from airflow_provider_lakebase.core.workspace.syncs import SyncTables
from airflow_provider_lakebase.exceptions import (
    LakebaseConflictError,
    LakebaseError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseSyncedTableError,
    LakebaseWorkspaceAccessError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

log = logging.getLogger(__name__)

OnChange = Literal["fail", "recreate"]
CREATED, RECREATED, DELETED, DROPPED, INDEXES = "created", "recreated", "deleted", "dropped", "indexes"
"""Notes about what the task has done."""
_ATTEMPT = "requested in"
_NO_TABLE = "none"
_IS_GONE = (
    "The former Postgres table, its indexes, grants, comments and views are gone until the synced table serves rows "
    f"again. They are remembered in the schema {LEDGER_SCHEMA}: a run with arguments that the service accepts puts "
    "them back."
)
_CHECK_PLACE = "Check branch and postgres_database; to keep the Postgres table, delete with drop_table=False."
# Failures that no further update ends, because the Postgres table has the wrong shape or cannot be replaced.
_NEEDS_RECREATE = re.compile(
    "COLUMN_TYPE_CHANGE_NOT_SUPPORTED|CHANGED_PRIMARY_KEY|INCOMPATIBLE_SCHEMA_CHANGE|DEPENDENT_OBJECTS_STILL_EXIST"
)


class TableSession(Protocol):
    """A session in the database of a synced table, which holds the table's lock."""

    def record(self) -> SpecRecord | None:
        """Return what the synced table was created with, if this provider did it."""

    def keep_record(self, spec: Mapping[str, Any], uid: str = "") -> None:
        """Record what the synced table is created with."""

    def forget(self) -> None:
        """Delete the record, and what is remembered."""

    def recreation(self) -> Recreation | None:
        """Return the recreation that is under way."""

    def remember(self, recreation: Recreation, columns: Sequence[str] | None) -> None:
        """Begin a recreation: remember what is lost with the Postgres table.

        :raises LakebaseSyncedTableError: if something could not be put back
        """

    def update(self, recreation: Recreation) -> None:
        """Store the progress of a recreation, and leave its items as they are."""

    def drop_remembered(self) -> None:
        """Drop the Postgres table and the views on it, all of which are remembered."""

    def put_back(self, indexes: Mapping[str, str]) -> None:
        """Put back all that is remembered, and forget it. An index that the task declares is made as it declares it.

        :raises LakebaseSyncedTableError: if something could not be put back
        """

    def find(self) -> PostgresTable | None:
        """Return the Postgres table, if it exists."""

    def require_droppable(self) -> None:
        """Refuse to drop the Postgres table if something depends on it.

        :raises LakebaseSyncedTableError: if so
        """

    def drop(self) -> None:
        """Drop the Postgres table."""

    def require_makeable(self, indexes: Mapping[str, str], grants: Mapping[str, Sequence[str]]) -> None:
        """Refuse indexes and grants that could not be made once the table is there.

        :raises LakebaseSyncedTableError: if the name of an index is taken, or there is no such role
        """

    def ensure(self, indexes: Mapping[str, str], grants: Mapping[str, Sequence[str]]) -> None:
        """Make the indexes and grants that are missing."""


Sessions = Callable[[], AbstractContextManager[TableSession]]


@dataclass(frozen=True)
class CreateSyncedTable:
    """Create a synced table, unless it is there; replace it if it is another one and that is wanted.

    :param resource: resource name
    :param spec: as the API takes it
    :param sessions: open a session in its database
    :param on_change: what to do with one that has another spec
    :param indexes: definitions of indexes by name
    :param grants: privileges by role
    :param is_place_given: whether the task names the branch, and does not take the connection's
    :param task: the task, as the helper table names it
    :param attempt: number of the task's try: what it has begun itself and has failed, it does not begin again
    :param since: when the task began, as a time of ``time.time()``
    """

    resource: str
    spec: Mapping[str, Any]
    sessions: Sessions = field(repr=False)
    on_change: OnChange = "fail"
    indexes: Mapping[str, str] = field(default_factory=dict)
    grants: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_place_given: bool = False
    task: str = ""
    attempt: int = 0
    since: float = 0.0

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseResourceExistsError: if there is another one, and it is not to be replaced
        :raises LakebaseSyncedTableError: if what depends on the table could not be put back
        """
        found = find_table(workspace, self.resource)
        if found and not SyncedTable.of(self.resource, found).is_settled:
            return Pending(self.resource)
        try:
            with self.sessions() as session:
                return _Step(self, workspace, notes, session).take()
        except LakebaseSettingsError as error:
            is_new = "database" in error.message and "does not exist" in error.message and found is None
            if not is_new or not self.spec.get("create_database_objects_if_missing"):
                raise
            log.info("The database is created with the synced table")
            with noting(notes, CREATED):
                return request(workspace, self, notes)


@dataclass(frozen=True)
class DeleteSyncedTable:
    """Delete a synced table, and drop its Postgres table, unless they are gone.

    :param resource: resource name
    :param sessions: open a session in its database; None leaves the Postgres table
    :param branch: resource name of its branch
    :param database: its database
    :param is_place_given: whether the task names the branch, and does not take the connection's
    """

    resource: str
    sessions: Sessions | None = field(repr=False)
    branch: str = ""
    database: str = ""
    is_place_given: bool = False

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseSyncedTableError: if something depends on the Postgres table, or it is not a synced table's
        """
        if self.sessions is None:
            return self._delete(workspace, notes)
        with self.sessions() as session:
            table = session.find()
            if found := find_table(workspace, self.resource):
                place = (self.branch, self.database)
                require_here(workspace.about(self.resource), session.record(), found, place, self.is_place_given)
            if table is not None:
                require_synced(workspace.about(self.resource), table)
                session.require_droppable()
            elif found and SyncedTable.of(self.resource, found).is_online:
                raise LakebaseSyncedTableError(
                    "Nothing was deleted: the synced table serves rows, but no Postgres table of its name is here",
                    context=workspace.about(self.resource).context,
                    hint=_CHECK_PLACE,
                )
            if pending := self._delete(workspace, notes):
                return pending
            if table is not None:
                session.drop()
                notes[DROPPED] = True
                log.info("Dropped the Postgres table of %s", self.resource)
            session.forget()
        return None

    def _delete(self, workspace: Workspace, notes: Notes) -> Pending | None:
        if find_table(workspace, self.resource) is None:
            return None
        try:
            operation = delete(workspace, self.resource)
        except LakebaseResourceNotFoundError:  # someone else has deleted it meanwhile
            return None
        notes[DELETED] = True
        return Pending.of(self.resource, operation)


def find_table(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """Return a synced table, or None.

    :param workspace: the workspace to ask
    :param name: resource name
    """
    try:
        return read(workspace, name)
    except LakebaseResourceNotFoundError:
        return None


def require_here(
    workspace: Workspace, record: SpecRecord | None, found: Resource, place: tuple[str, str], is_given: bool
) -> None:
    """Refuse to delete a synced table of another branch or database: a branch has copies of its parent's tables.

    :param workspace: the workspace, about the synced table
    :param record: what it was created with, as this branch tells
    :param found: the synced table, whose branch the API does not tell
    :param place: branch and database of the task
    :param is_given: whether the task names the branch
    :raises LakebaseSyncedTableError: if it is elsewhere, or could be
    """
    if record is not None and record.uid in ("", _uid(found)):
        if (there := (record.spec["branch"], record.spec["postgres_database"])) != place:
            text = f"The synced table is in {there[1]} of {there[0]}, not in {place[1]} of {place[0]}"
            raise LakebaseSyncedTableError(text, context=workspace.context, hint=_CHECK_PLACE)
        return
    parent = (read(workspace, place[0]).get("status") or {}).get("source_branch")
    if parent and not is_given:
        raise LakebaseSyncedTableError(
            f"{place[0]} was copied from {parent}, so the synced table may be that branch's",
            context=workspace.context,
            hint="If it is not, name its branch in the argument branch.",
        )


def require_synced(workspace: Workspace, table: PostgresTable) -> None:
    """Refuse to drop a table that no synced table has left.

    :param workspace: the workspace, about the synced table
    :param table: the table
    :raises LakebaseSyncedTableError: unless it belongs to a role of the service
    """
    if not table.is_synced:
        raise LakebaseSyncedTableError(
            f"The Postgres table of that name belongs to {table.owner}, so it is not that of a synced table; nothing "
            "was changed",
            context=workspace.context,
            hint="Check branch and postgres_database. If it can go, drop it yourself.",
        )


def read_source(workspace: Workspace, source: str) -> Resource | None:
    """Return a source as Unity Catalog describes it, or None if the identity may not ask for it.

    :param workspace: the workspace to ask
    :param source: name in Unity Catalog
    :raises LakebaseResourceNotFoundError: if it does not exist
    """
    try:
        return workspace.call(lambda client: client.unity_catalog.get_table(source), timeout=REQUEST_SECONDS)
    except LakebaseWorkspaceAccessError as error:
        log.warning("The columns of %s cannot be read, so they are not compared before the delete: %s", source, error)
        return None


def require_pipeline(workspace: Workspace, pipeline: str) -> None:
    """Refuse a pipeline that does not exist. Log a warning if the identity may not read it.

    :param workspace: the workspace, about the synced table
    :param pipeline: its ID
    :raises LakebaseResourceNotFoundError: if it does not exist
    """
    try:
        read_pipeline(workspace, pipeline)
    except LakebaseResourceNotFoundError as error:
        text = f"There is no pipeline '{pipeline}'"
        hint = "Nothing was changed: correct existing_pipeline_id."
        raise LakebaseResourceNotFoundError(text, context=workspace.context, hint=hint) from error
    except LakebaseWorkspaceAccessError as error:
        log.warning("Whether the pipeline %s exists is not known before the delete: %s", pipeline, error)


def request(workspace: Workspace, plan: CreateSyncedTable, notes: Notes) -> Pending:
    """Request the synced table.

    :param workspace: the workspace to ask
    :param plan: its plan
    :param notes: the plan's notes
    """
    notes[_ATTEMPT] = plan.attempt
    try:
        return Pending.of(plan.resource, create(workspace, plan.resource, plan.spec))
    except LakebaseResourceExistsError:
        # Else the first answer was lost, and databricks-sdk has sent the request again.
        if find_table(workspace, plan.resource) is None:
            raise
        return Pending(plan.resource)


@dataclass(frozen=True)
class _Step:
    """The next step of a plan, while its session holds the lock."""

    plan: CreateSyncedTable
    workspace: Workspace
    notes: Notes
    session: TableSession

    def take(self) -> Pending | None:
        """Take it, and return what to wait for."""
        found = find_table(self.workspace, self.plan.resource)
        recreation = self.session.recreation()
        # That of another place was copied with its branch.
        if recreation is not None and self._is_here(recreation.spec):
            return self._go_on(recreation, found)
        if found is None:
            left_over = self.session.find()
            if left_over is None:
                self.session.require_makeable(self.plan.indexes, self.plan.grants)
                with noting(self.notes, CREATED):
                    return self._create()
            if self.plan.on_change != "recreate" or not left_over.is_synced:
                raise self._table_exists(left_over)
            return self._replace(_NO_TABLE)
        if not (changes := self._changes(found)):
            return self._finish(found)
        if self.plan.on_change != "recreate":
            raise LakebaseResourceExistsError(
                f"The synced table exists, and {'; '.join(changes)}",
                context=self._about.context,
                hint="Change the arguments to match it, or replace it with on_change='recreate'.",
            )
        place = (self.plan.spec["branch"], self.plan.spec["postgres_database"])
        require_here(self._about, self.session.record(), found, place, self.plan.is_place_given)
        log.info("The synced table is replaced: %s", "; ".join(changes))
        return self._replace(_uid(found))

    @property
    def _about(self) -> Workspace:
        return self.workspace.about(self.plan.resource)

    def _is_here(self, spec: Mapping[str, Any]) -> bool:
        return all(spec[name] == self.plan.spec[name] for name in ("branch", "postgres_database"))

    def _replace(self, former_uid: str) -> Pending | None:
        """Remember what is there, unless the new table could not be or something could not be put back."""
        self.session.require_makeable(self.plan.indexes, self.plan.grants)
        spec = self.plan.spec
        source = read_source(self.workspace, spec["source_table_full_name"])
        if source is not None:
            require_source(spec, source, self._about.context)
        if pipeline := spec.get("existing_pipeline_id"):
            require_pipeline(self._about, pipeline)
        columns = columns_of(source or {})
        if columns is not None:
            columns += [each["column_name"] for each in spec.get("extra_columns", ())]
        self.session.remember(Recreation(former_uid, spec, self.plan.task), columns)
        self.notes[RECREATED] = True
        recreation = self.session.recreation()
        assert recreation is not None  # noqa: S101 - it was stored above
        return self._go_on(recreation, find_table(self.workspace, self.plan.resource))

    def _go_on(self, recreation: Recreation, found: Resource | None) -> Pending | None:
        recreation = self._take_over(recreation, found)
        self.notes[RECREATED] = True
        if found is None:
            left_over = self.session.find()
            if left_over is not None and not left_over.is_synced:
                raise self._table_exists(left_over)
            if not recreation.is_dropped:
                self.session.drop_remembered()
            return self._create()
        if _uid(found) != recreation.former_uid:
            return self._finish(found, recreation)
        if recreation.operation:
            operation = read_operation(self._about, recreation.operation)
            if operation is not None and not operation.is_done:
                return Pending(self.plan.resource, recreation.operation)
        try:
            operation = delete(self.workspace, self.plan.resource)
        except LakebaseResourceNotFoundError:  # a delete that an earlier try has requested is done
            return Pending(self.plan.resource)
        self.session.update(replace(recreation, operation=operation.name))
        return Pending.of(self.plan.resource, operation)

    def _take_over(self, recreation: Recreation, found: Resource | None) -> Recreation:
        """Go on with what an earlier try or another task has begun; another spec only in the same task."""
        if not differences(self.plan.spec, recreation.spec):
            return recreation
        if recreation.task != self.plan.task:
            raise LakebaseConflictError(
                f"The task {recreation.task} is replacing the synced table by one with another spec",
                context=self._about.context,
                hint="Let it end; if it has failed, clear it.",
            )
        changed = replace(recreation, spec=self.plan.spec)
        if found is not None and _uid(found) != recreation.former_uid:
            changed = replace(changed, former_uid=_uid(found), operation="", is_dropped=False, is_first=False)
        self.session.update(changed)
        return changed

    def _create(self) -> Pending:
        if self.session.find() is not None:
            # Another one has it now, or the service has begun to write it.
            log.warning("The Postgres table of %s exists already", self.plan.resource)
        self.session.keep_record(self.plan.spec)
        try:
            return request(self.workspace, self.plan, self.notes)
        except LakebaseError as error:
            if self.session.recreation() is not None:
                error.add_note(_IS_GONE)
            elif not error.retryable:
                self.session.forget()
            raise

    def _finish(self, found: Resource, recreation: Recreation | None = None) -> Pending | None:
        table = SyncedTable.of(self.plan.resource, found)
        if not table.is_settled:
            return Pending(self.plan.resource)
        if not table.is_online:
            try:
                return self._load(table)
            except LakebaseError as error:
                if recreation is not None:
                    error.add_note(_IS_GONE)
                raise
        if table.has_failed:
            log.warning("The table serves its rows, but its pipeline has failed: %s", table.message)
        record = self.session.record()
        # The record of a former table tells nothing about one that others have created since.
        if not record.uid if record else self.notes.get(CREATED):
            self.session.keep_record(self.plan.spec, _uid(found))
        if recreation is not None:
            self.session.put_back(self.plan.indexes)
        self.session.ensure(self.plan.indexes, self.plan.grants)
        return None

    def _load(self, table: SyncedTable) -> Pending | None:
        """Load a table whose first load has failed or was canceled, unless this try has requested it."""
        if self.plan.spec["scheduling_policy"] == "CONTINUOUS":
            return self._start(table)
        if self.notes.get(_ATTEMPT) == self.plan.attempt:
            raise table.failure(self._about.context)
        sync = SyncTables((self.plan.resource,), None, False, self.plan.since)
        return sync.advance(self.workspace, self.notes)

    def _start(self, table: SyncedTable) -> Pending:
        """Start the update of a continuous table, which does not end."""
        if read_pipeline(self.workspace, table.pipeline).active is None:
            if self.notes.get(_ATTEMPT) == self.plan.attempt:
                raise table.failure(self._about.context)
            start_update(self._about, table.pipeline, full_refresh=False)
            self.notes[_ATTEMPT] = self.plan.attempt
        return Pending(self.plan.resource)

    def _changes(self, found: Resource) -> list[str]:
        """Return in what the synced table differs from the plan; log what nothing tells."""
        table, spec = SyncedTable.of(self.plan.resource, found), self.plan.spec
        project = spec["branch"].split("/branches/")[0]
        if table.project and table.project != project:
            raise LakebaseResourceExistsError(
                f"The synced table exists in {table.project}, not in {project}",
                context=self._about.context,
                hint="Choose another name, or delete it first.",
            )
        postgres = self.session.find()
        if postgres is not None and not postgres.is_synced:
            raise self._table_exists(postgres)
        if table.is_online and postgres is None:
            raise LakebaseResourceExistsError(
                f"The synced table exists, but not in {spec['postgres_database']} of {spec['branch']}",
                context=self._about.context,
                hint="Check branch and postgres_database, or delete the synced table first.",
            )
        record = self.session.record()
        if record is not None and record.uid in ("", _uid(found)):
            changes = differences(spec, record.spec)
        else:
            changes = self._visible_changes(found, table, postgres)
        if table.has_failed and _NEEDS_RECREATE.search(table.message):
            changes.append(f"its pipeline cannot go on: {table.message}")
        return changes

    def _visible_changes(self, found: Resource, table: SyncedTable, postgres: PostgresTable | None) -> list[str]:
        """Compare a table that others have created: the API tells little of it."""
        spec, visible = self.plan.spec, dict(found.get("spec") or {})
        if not visible:
            if postgres is not None and postgres.key_columns:
                visible["primary_key_columns"] = list(postgres.key_columns)
            if "existing_pipeline_id" in spec:
                visible["existing_pipeline_id"] = table.pipeline
            if table.pipeline:
                is_continuous = read_pipeline(self.workspace, table.pipeline).is_continuous
                wanted = spec["scheduling_policy"]
                if is_continuous or wanted == "CONTINUOUS":
                    visible["scheduling_policy"] = "CONTINUOUS" if is_continuous else "SNAPSHOT or TRIGGERED"
        unknown = not_compared(spec, [*visible, "branch", "postgres_database"])
        log.warning(
            "The synced table %s was not created by this provider. Not compared, because nothing tells it: %s",
            table.full_name,
            ", ".join(unknown) or "nothing",
        )
        return differences({name: spec.get(name) for name in visible}, visible)

    def _table_exists(self, table: PostgresTable) -> LakebaseResourceExistsError:
        if table.is_synced:
            hint = "Drop it with LakebaseDeleteSyncedTableOperator, or replace it with on_change='recreate'."
            text = "A deleted synced table has left its Postgres table"
        else:
            hint = "Drop or rename it, or choose another name."
            text = f"A Postgres table of that name exists, and belongs to {table.owner}"
        return LakebaseResourceExistsError(text, context=self._about.context, hint=hint)


def _uid(found: Resource) -> str:
    return str(found.get("uid") or found.get("create_time") or "")
