"""Bring synced tables up to date: start an update of their pipeline, or adopt one, and wait for what it brings.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_lakebase.core.workspace.plans import Notes, Pending
from airflow_provider_lakebase.core.workspace.synced_tables import (
    Pipeline,
    SyncedTable,
    Update,
    read_pipeline,
    read_table,
    read_update,
    start_update,
)
from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseSettingsError, LakebaseWorkspaceRefusedError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

SYNC_SECONDS = 6 * 3600.0
"""Seconds that a sync may take, unless its caller says otherwise."""
_STOP_IT = "Stop the pipeline first: its update runs until then, and there is no second one beside it."


@dataclass(frozen=True)
class SyncTables:
    """Bring synced tables to a version of their source, or to what it has now, by one update of each pipeline.

    :param tables: resource names
    :param version: version of the source that they have to reach; None is whatever an update brings that reads the
        source after ``since``
    :param full_refresh: build them anew
    :param since: when the task began, as a time of ``time.time()``
    """

    tables: tuple[str, ...]
    version: int | None
    full_refresh: bool
    since: float

    @property
    def resource(self) -> str:
        """Resource name of the first table."""
        return self.tables[0]

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step on each pipeline, and return the first thing to wait for."""
        by_pipeline: dict[str, list[SyncedTable]] = {}
        for name in self.tables:
            table = read_table(workspace, name)
            by_pipeline.setdefault(table.pipeline, []).append(table)
        steps = [_Step(self, workspace, notes, *each).take() for each in by_pipeline.items()]
        return next((pending for pending in steps if pending), None)

    def update_of(self, table: SyncedTable, notes: Notes) -> str | None:
        """Return the ID of the update that brought a table up to date; None if it already was.

        :param table: the table
        :param notes: the plan's notes
        """
        update_id: str | None = notes.get(_key(table.pipeline), {}).get("update_id")
        return update_id


def _key(pipeline: str) -> str:
    return f"update of {pipeline}"


@dataclass(frozen=True)
class _Step:
    """The next step on one pipeline."""

    plan: SyncTables
    workspace: Workspace
    notes: Notes
    pipeline: str
    tables: list[SyncedTable]

    def take(self) -> Pending | None:
        """Take it, and return what to wait for."""
        if not self.pipeline:  # the tables are being created
            return Pending(self.tables[0].name)
        noted = self.notes.get(_key(self.pipeline))
        if noted:
            update, _ = read_update(self.workspace, self.pipeline, noted["update_id"])
            return self._follow(update, is_own=noted["is_own"])
        return self._begin()

    def _begin(self) -> Pending | None:
        plan = self.plan
        if plan.version is not None and not plan.full_refresh and self._is_reached():
            return None
        pipeline = read_pipeline(self.workspace, self.pipeline)
        self._refuse_what_never_ends(pipeline)
        if adopted := next((update for update in pipeline.updates if self._is_wanted(update)), None):
            return self._note(adopted, is_own=adopted.began_at >= plan.since)
        if pipeline.active:
            return Pending(self.tables[0].name, pipeline.active.name)
        started = start_update(self.workspace.about(self.tables[0].name), self.pipeline, full_refresh=plan.full_refresh)
        return self._note(started, is_own=True)

    def _note(self, update: Update, *, is_own: bool) -> Pending | None:
        self.notes[_key(self.pipeline)] = {"update_id": update.update_id, "is_own": is_own}
        return self._follow(update, is_own=is_own)

    def _is_wanted(self, update: Update) -> bool:
        """Return whether an update can bring what is wanted, so that no other is started."""
        plan, is_late_enough = self.plan, update.began_at >= self.plan.since
        if update.is_active:
            fits = is_late_enough or update.is_preparing or plan.version is not None
        else:
            fits = update.state == "COMPLETED" and is_late_enough and self._is_reached()
        if not fits or not plan.full_refresh:
            return fits
        return read_update(self.workspace, self.pipeline, update.update_id)[1]

    def _follow(self, update: Update, *, is_own: bool) -> Pending | None:
        if update.is_active:
            if not read_pipeline(self.workspace, self.pipeline).is_continuous:
                return Pending(self.tables[0].name, update.name)
            return self._wait_for_tables()
        if update.state != "COMPLETED" or any(table.has_failed for table in self.tables):
            del self.notes[_key(self.pipeline)]  # the next try starts another one
            raise self._failure(update, is_own)
        is_too_early = not is_own and not self._is_reached() and all(table.is_settled for table in self.tables)
        if is_too_early:
            del self.notes[_key(self.pipeline)]
            return self._begin()
        return self._wait_for_tables()

    def _wait_for_tables(self) -> Pending | None:
        """Wait for the first table that lags, since its state follows the pipeline's."""
        version = self.plan.version
        lagging = next((table for table in self.tables if not table.has_reached(version)), None)
        return Pending(lagging.name, version=version) if lagging else None

    def _is_reached(self) -> bool:
        return all(table.has_reached(self.plan.version) for table in self.tables)

    def _refuse_what_never_ends(self, pipeline: Pipeline) -> None:
        if not pipeline.is_continuous:
            return
        context = self.workspace.about(self.tables[0].name).context
        if self.plan.version is None:
            hint = "Give the version of the source to wait for."
            text = "The synced table is updated continuously, so no update of it ends"
            raise LakebaseSettingsError(text, context=context, hint=hint)
        if self.plan.full_refresh and pipeline.active:
            text = "A full refresh cannot be started while the pipeline runs continuously"
            raise LakebaseWorkspaceRefusedError(text, context=context, hint=_STOP_IT)

    def _failure(self, update: Update, is_own: bool) -> LakebaseError:
        """Return the error for an update that has failed, in the service's words."""
        failed = next((table for table in self.tables if table.has_failed), self.tables[0])
        context = replace(self.workspace.context, operation=update.name)
        error = failed.failure(context, f"Its update has ended as {update.state}, and the table is {failed.state}")
        # One that began before the task may have failed for a cause that is gone.
        error.retryable = error.retryable or not is_own
        return error
