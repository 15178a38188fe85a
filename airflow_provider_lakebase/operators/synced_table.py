"""Create and delete synced tables, and bring them up to date."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.plans import Pending, Plan
from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.core.workspace.synced_table_changes import (
    CREATED,
    DELETED,
    DROPPED,
    RECREATED,
    CreateSyncedTable,
    DeleteSyncedTable,
    OnChange,
)
from airflow_provider_lakebase.core.workspace.synced_table_specs import read_grants, read_indexes, synced_table_spec
from airflow_provider_lakebase.core.workspace.synced_tables import (
    PREFIX,
    SyncedTable,
    read_table,
    read_version,
    synced_table_name,
)
from airflow_provider_lakebase.core.workspace.syncs import SYNC_SECONDS, SyncTables
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._synced_tables import SyncedTableSessions, place_of, settings_at
from airflow_provider_lakebase.lineage.reports import report
from airflow_provider_lakebase.lineage.synced_tables import report_synced_tables
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators._operation import LakebaseOperationOperator
from airflow_provider_lakebase.operators._synced_assets import emit_synced, is_in_project, name_inlet

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings

_BEGAN_AT = "began_at"
# Seconds by which the clocks of scheduler and worker may differ.
_CLOCK_SECONDS = 60.0


class LakebaseSyncTableOperator(LakebaseOperationOperator):
    """Bring synced tables up to date: start an update of their pipeline, and wait until they serve what it brings.

    With ``version``, the task is done when the tables serve this version of their source, or a later one. Nothing is
    started if they already do. Without it, an update is waited for that reads the source after the task began. One that
    is at work is waited for in place of a second one, if it can bring that: so tasks for several tables of one pipeline
    start one update together. If a try dies, the next one finds its update again.

    A table of a pipeline that runs continuously needs ``version``, since no update of it ends.

    The task emits an event for the asset of each table, in the branch and the database of the connection.

    :param synced_table: its name in Unity Catalog, ``catalog.schema.table``, or a list of them; those of one pipeline
        are brought up to date by one update (templated)
    :param version: version of the source that each table has to serve (templated)
    :param full_refresh: build the tables anew; this applies to all tables of the pipeline
    :param operation_timeout: how long it may take, ``timedelta`` or seconds; by default six hours
    :param kwargs: ``lakebase_conn_id`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperationOperator.template_fields, "synced_table", "version")
    _synced: Sequence[SyncedTable] = ()

    def __init__(
        self,
        *,
        synced_table: str | Sequence[str],
        version: int | str | None = None,
        full_refresh: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"operation_timeout": SYNC_SECONDS, **kwargs})
        self.synced_table = synced_table
        self.version = version
        check_flags(full_refresh=full_refresh)
        self.full_refresh = full_refresh

    def execute(self, context: Context) -> Any:
        """Start the update, and wait for it.

        :raises AirflowFailException: for an error that a retry cannot help
        """
        notes, run_began = TaskNotes(context), _run_began(context)
        if run_began and notes.get(_BEGAN_AT, run_began) < run_began - _CLOCK_SECONDS:
            # The run was cleared: the tasks before this one may have written the source anew.
            notes.forget()
        return super().execute(context)

    def plan(self, context: Context, notes: TaskNotes) -> SyncTables:
        """Check the arguments, and return the tables to bring up to date."""
        tables = self._names()
        version = read_version("version", self.version)
        since = notes.setdefault(_BEGAN_AT, time.time())
        run_began = _run_began(context)
        if run_began and not notes.outlive_a_try and context["ti"].try_number > 1:
            # What an earlier try has started cannot be told from what others started since the DAG run began.
            since = min(since, run_began)
        return SyncTables(tables, version, self.full_refresh, since)

    def result(self, plan: SyncTables, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``synced_table``, ``version``, ``state``, ``seconds`` and ``pipeline_update``.

        For a list of tables, ``version``, ``state`` and ``pipeline_update`` are dictionaries by table.
        """
        tables = [read_table(self.hook.workspace, name) for name in plan.tables]
        facts = [(table.version, table.state, plan.update_of(table, notes)) for table in tables]
        names = [table.full_name for table in tables]
        is_one = isinstance(self.synced_table, str)
        columns = zip(*facts, strict=True)
        versions, states, updates = (each[0] if is_one else dict(zip(names, each, strict=True)) for each in columns)
        self._synced = tables
        return {
            "synced_table": names[0] if is_one else names,
            "version": versions,
            "state": states,
            "seconds": round(time.time() - notes[_BEGAN_AT], 3),
            "pipeline_update": updates,
        }

    def page_of(self, plan: Plan) -> str | None:
        """Return the connection's branch, if it names one."""
        endpoint = self.hook.settings.endpoint
        return str(endpoint.up_to("branch")) if endpoint else None

    def _go_on(
        self, context: Context, plan: Plan, notes: TaskNotes, unfinished: Pending | None, deadline: float
    ) -> Any:
        result = super()._go_on(context, plan, notes, unfinished, deadline)
        for table in self._synced:
            name_inlet(self, self.hook.settings, table.source)
            emit_synced(self, context, self.hook.settings, table)
        return result

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the sources as inputs, once the workspace has told them, and the Postgres tables as outputs."""
        return report(self, self._report)

    def _report(self) -> OperatorLineage[Any, Any]:
        settings = self.hook.settings
        if self._synced:
            known = {each.full_name: each.source for each in self._synced if is_in_project(settings, each)}
            return report_synced_tables(settings, known)
        return report_synced_tables(settings, {name.removeprefix(PREFIX): "" for name in self._names()})

    def _names(self) -> tuple[str, ...]:
        if not isinstance(self.synced_table, Sequence):
            hint = "Write its name in Unity Catalog, 'catalog.schema.table', or a list of such names."
            raise LakebaseSettingsError(f"synced_table is {self.synced_table!r}", hint=hint)
        given = [self.synced_table] if isinstance(self.synced_table, str) else list(self.synced_table)
        if not given:
            raise LakebaseSettingsError("No synced table is given", hint="Name at least one in synced_table.")
        return tuple(dict.fromkeys(synced_table_name(each) for each in given))


class LakebaseCreateSyncedTableOperator(LakebaseOperationOperator):
    """Create a synced table, wait until its rows can be read, and make indexes and grants on its Postgres table.

    If the synced table exists with the same specification, only the indexes and grants that are missing are made. If it
    has another one, ``on_change`` decides: ``fail`` says what differs; ``recreate`` deletes the synced table, drops its
    Postgres table and creates both anew. Indexes, grants, comments, views and what else depended on the Postgres table
    are remembered before anything is deleted, and put back afterwards. What could not be put back is refused first. A
    table whose pipeline has failed because the columns of its source have changed counts as one that differs.

    If a try dies at any point, the next one goes on from there. Reads fail from the moment the old table is dropped
    until the new one has its rows and its grants.

    The specification is compared with the one that this operator has recorded in the schema ``airflow_lakebase``, since
    the API does not tell it. Of a table that was created by other means, only the key columns, the pipeline, and
    whether it is continuous are compared; the log names the rest.

    :param synced_table: its name in Unity Catalog, ``catalog.schema.table``; schema and table are those in Postgres
        (templated)
    :param source: the table or view of Unity Catalog that it copies, ``catalog.schema.table`` (templated)
    :param key_columns: columns of its primary key (templated)
    :param policy: ``snapshot``, ``triggered`` or ``continuous``; the last two need the source's change data feed
        (templated)
    :param branch: ID or resource name of its branch; by default the connection's (templated)
    :param postgres_database: its database; by default the connection's (templated)
    :param create_database_objects_if_missing: also create the database and the schema
    :param timeseries_key: column by which the latest of several rows with one key is kept (templated)
    :param existing_pipeline_id: ID of a pipeline that it shares; by default, it gets one of its own (templated)
    :param new_pipeline_spec: settings of its own pipeline: ``storage_catalog``, ``storage_schema``,
        ``budget_policy_id``, ``pipeline_channel`` (templated)
    :param type_overrides: other types of columns in Postgres: mappings of ``column_name``, ``pg_type`` and ``size``
    :param extra_columns: generated columns in Postgres: mappings of ``column_name``, ``column_type`` and ``compute``
    :param accelerated_sync: True for an accelerated first load, where the workspace has it
    :param indexes: indexes by name, each with what follows ``ON <table>`` in ``CREATE INDEX``:
        ``{"orders_by_customer": "(customer_id)"}`` (templated)
    :param grants: privileges by role: ``{"app": ["SELECT"]}`` (templated)
    :param on_change: what to do with a synced table that has another specification: ``fail`` or ``recreate``
    :param operation_timeout: how long it may take, ``timedelta`` or seconds; by default six hours
    :param kwargs: ``lakebase_conn_id`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "synced_table",
        "source",
        "key_columns",
        "policy",
        "branch",
        "postgres_database",
        "timeseries_key",
        "existing_pipeline_id",
        "new_pipeline_spec",
        "indexes",
        "grants",
    )
    _sessions: SyncedTableSessions | None = None

    def __init__(
        self,
        *,
        synced_table: str,
        source: str,
        key_columns: str | Sequence[str],
        policy: str,
        branch: str | None = None,
        postgres_database: str | None = None,
        create_database_objects_if_missing: bool = True,
        timeseries_key: str | None = None,
        existing_pipeline_id: str | None = None,
        new_pipeline_spec: Mapping[str, str] | None = None,
        type_overrides: Sequence[Mapping[str, Any]] = (),
        extra_columns: Sequence[Mapping[str, Any]] = (),
        accelerated_sync: bool | None = None,
        indexes: Mapping[str, str] | tuple[()] = (),
        grants: Mapping[str, str | Sequence[str]] | tuple[()] = (),
        on_change: OnChange = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"operation_timeout": SYNC_SECONDS, **kwargs})
        self.synced_table = synced_table
        self.source = source
        self.key_columns = key_columns
        self.policy = policy
        self.branch = branch
        self.postgres_database = postgres_database
        self.create_database_objects_if_missing = create_database_objects_if_missing
        self.timeseries_key = timeseries_key
        self.existing_pipeline_id = existing_pipeline_id
        self.new_pipeline_spec = new_pipeline_spec
        self.type_overrides = type_overrides
        self.extra_columns = extra_columns
        self.accelerated_sync = accelerated_sync
        self.indexes = indexes
        self.grants = grants
        self.on_change = on_change
        if on_change not in ("fail", "recreate"):
            raise LakebaseSettingsError(f"on_change is {on_change!r}", hint="It must be 'fail' or 'recreate'.")

    def plan(self, context: Context, notes: TaskNotes) -> CreateSyncedTable:
        """Check the arguments, and return the synced table to create."""
        name = synced_table_name(self.synced_table)
        branch, database = place_of(self.hook.settings, _branch_of(self), self.postgres_database)
        spec = synced_table_spec(
            source=self.source,
            key_columns=self.key_columns,
            policy=self.policy,
            branch=branch,
            postgres_database=database,
            create_database_objects_if_missing=self.create_database_objects_if_missing,
            timeseries_key=self.timeseries_key,
            existing_pipeline_id=self.existing_pipeline_id,
            new_pipeline_spec=self.new_pipeline_spec,
            type_overrides=self.type_overrides,
            extra_columns=self.extra_columns,
            accelerated_sync=self.accelerated_sync,
        )
        self._sessions = SyncedTableSessions(self.lakebase_conn_id, name, branch, database)
        return CreateSyncedTable(
            name,
            spec,
            partial(self._sessions.open, self.hook.workspace),
            self.on_change,
            read_indexes(self.indexes),
            read_grants(self.grants),
            is_place_given=bool(self.branch),
            task=_task_name(context),
            attempt=context["ti"].try_number if "ti" in context else 0,
            since=notes.setdefault(_BEGAN_AT, time.time()),
        )

    def result(self, plan: CreateSyncedTable, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``synced_table``, ``state``, ``version``, ``created``, ``recreated``, ``seconds`` and ``indexes``."""
        self._table = table = read_table(self.hook.workspace, plan.resource)
        if not notes.get(CREATED) and not notes.get(RECREATED):
            self.log.info("Synced table %s exists with this specification", table.full_name)
        return {
            "synced_table": table.full_name,
            "state": table.state,
            "version": table.version,
            "created": bool(notes.get(CREATED)),
            "recreated": bool(notes.get(RECREATED)),
            "seconds": round(time.time() - notes[_BEGAN_AT], 3),
            "indexes": list(plan.indexes),
        }

    def page_of(self, plan: Plan) -> str | None:
        """Return its branch."""
        return place_of(self.hook.settings, _branch_of(self), self.postgres_database)[0]

    def on_kill(self) -> None:
        """Cancel the running statement on the server."""
        if self._sessions:
            self._sessions.cancel()

    def _go_on(
        self, context: Context, plan: Plan, notes: TaskNotes, unfinished: Pending | None, deadline: float
    ) -> Any:
        name_inlet(self, self.hook.settings, self.source)
        result = super()._go_on(context, plan, notes, unfinished, deadline)
        if result["created"] or result["recreated"]:
            emit_synced(self, context, self._place(), self._table)
        return result

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the source as input, and the Postgres table as output."""
        name = self.synced_table
        return report(
            self,
            lambda: report_synced_tables(self._place(), {synced_table_name(name).removeprefix(PREFIX): self.source}),
        )

    def _place(self) -> LakebaseSettings:
        return settings_at(self.hook.settings, _branch_of(self), self.postgres_database)


class LakebaseDeleteSyncedTableOperator(LakebaseOperationOperator):
    """Delete a synced table, and drop the Postgres table that it leaves. It is a success if both are gone.

    Nothing is deleted if a view or something else depends on the Postgres table, or if the table of that name does not
    belong to the service.

    :param synced_table: its name in Unity Catalog, ``catalog.schema.table`` (templated)
    :param drop_table: also drop the Postgres table; if False, it stays and can be read, and no session is opened
    :param branch: ID or resource name of its branch; by default the connection's (templated)
    :param postgres_database: its database; by default the connection's (templated)
    :param kwargs: ``lakebase_conn_id``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "synced_table",
        "branch",
        "postgres_database",
    )
    _sessions: SyncedTableSessions | None = None

    def __init__(
        self,
        *,
        synced_table: str,
        drop_table: bool = True,
        branch: str | None = None,
        postgres_database: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_flags(drop_table=drop_table)
        self.synced_table = synced_table
        self.drop_table = drop_table
        self.branch = branch
        self.postgres_database = postgres_database

    def plan(self, context: Context, notes: TaskNotes) -> DeleteSyncedTable:
        """Check the arguments, and return the synced table to delete."""
        name = synced_table_name(self.synced_table)
        if not self.drop_table:
            return DeleteSyncedTable(name, None)
        branch, database = place_of(self.hook.settings, _branch_of(self), self.postgres_database)
        self._sessions = SyncedTableSessions(self.lakebase_conn_id, name, branch, database)
        sessions = partial(self._sessions.open, self.hook.workspace)
        return DeleteSyncedTable(name, sessions, branch, database, bool(self.branch))

    def result(self, plan: Plan, notes: TaskNotes) -> dict[str, Any]:
        """Return ``synced_table``, and whether the task has ``deleted`` it and ``dropped`` its Postgres table."""
        name = plan.resource.removeprefix(PREFIX)
        if not notes.get(DELETED) and not notes.get(DROPPED):
            self.log.info("There is no synced table %s; nothing was changed", name)
        return {"synced_table": name, "deleted": bool(notes.get(DELETED)), "dropped": bool(notes.get(DROPPED))}

    def page_of(self, plan: Plan) -> str | None:
        """Return its branch, if it is known."""
        endpoint = self.hook.settings.endpoint
        return _branch_of(self) or (str(endpoint.up_to("branch")) if endpoint else None)

    def on_kill(self) -> None:
        """Cancel the running statement on the server."""
        if self._sessions:
            self._sessions.cancel()


def _run_began(context: Context) -> float | None:
    """Return when the DAG run began, or began again after it was cleared, as a time of ``time.time()``."""
    start = context["dag_run"].start_date if "dag_run" in context else None
    return start.timestamp() if start else None


def _branch_of(operator: LakebaseCreateSyncedTableOperator | LakebaseDeleteSyncedTableOperator) -> str | None:
    """Return the resource name of the branch that the task names, if it names one."""
    return operator.hook.branch_name(operator.branch) if operator.branch is not None else None


def _task_name(context: Context) -> str:
    """Return the name of the task, the same in all its tries and runs."""
    if "ti" not in context:
        return ""
    task = context["ti"]
    index = f"[{task.map_index}]" if getattr(task, "map_index", -1) >= 0 else ""
    return f"{task.dag_id}.{task.task_id}{index}"
