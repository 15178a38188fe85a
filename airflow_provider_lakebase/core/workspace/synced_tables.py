"""Read synced tables and the updates of their pipelines, and tell their states apart.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.errors.catalog_pipelines import code_in, find_pipeline_rule
from airflow_provider_lakebase.core.workspace.operations import ENDED_UPDATES
from airflow_provider_lakebase.core.workspace.resources import REQUEST_SECONDS, Resource, read, status_of
from airflow_provider_lakebase.core.workspace.specs import Time, read_time
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseError, LakebaseSettingsError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace, WorkspaceClient

PREFIX = "synced_tables/"
_STATE = "SYNCED_TABLE_"
_SERVING = ("ONLINE", "ONLINE_NO_PENDING_UPDATE", "ONLINE_CONTINUOUS_UPDATE")
_FAILED = ("OFFLINE_FAILED", "ONLINE_PIPELINE_FAILED")
# The pipeline prepares its resources and has read nothing of its sources yet.
_PREPARING = ("CREATED", "QUEUED", "WAITING_FOR_RESOURCES", "INITIALIZING", "RESETTING", "SETTING_UP_TABLES")


@dataclass(frozen=True)
class SyncedTable:
    """A synced table, as the workspace described it last.

    :param name: resource name, ``synced_tables/<catalog>.<schema>.<table>``
    :param state: its state without ``SYNCED_TABLE_``, such as ``ONLINE_NO_PENDING_UPDATE``
    :param message: the service's words about it
    :param version: the source's version that its rows have, or None if it has none
    :param pipeline: ID of its pipeline, or an empty text while it has none
    :param project: resource name of its project
    :param progress: what the service tells about the update at work, or an empty text
    :param synced_from: when the sync began that brought its rows, or None if there was none
    :param source: its source in Unity Catalog; empty if the service does not tell it, since an answer may have no
        specification
    """

    name: str
    state: str = ""
    message: str = ""
    version: int | None = None
    pipeline: str = ""
    project: str = ""
    progress: str = ""
    synced_from: datetime | None = None
    source: str = ""

    @classmethod
    def of(cls, name: str, answer: Resource) -> SyncedTable:
        """Return the synced table that an answer describes.

        :param name: resource name
        :param answer: the API's JSON
        """
        status = status_of(answer)
        version = status.get("last_processed_commit_version")
        began_at = (status.get("last_sync") or {}).get("sync_start_time")
        return cls(
            name=name,
            state=str(status.get("detailed_state") or "").removeprefix(_STATE),
            message=str(status.get("message") or ""),
            version=None if version is None else int(version),
            pipeline=str(status.get("pipeline_id") or ""),
            project=str(status.get("project") or ""),
            progress=_describe_progress(status.get("ongoing_sync_progress") or {}),
            synced_from=datetime.fromisoformat(began_at) if began_at else None,
            source=str((answer.get("spec") or {}).get("source_table_full_name") or ""),
        )

    @property
    def full_name(self) -> str:
        """The name in Unity Catalog."""
        return self.name.removeprefix(PREFIX)

    @property
    def has_failed(self) -> bool:
        """Whether its pipeline has failed."""
        return self.state in _FAILED

    @property
    def is_settled(self) -> bool:
        """Whether no update is at work, as far as its state tells."""
        return self.state in (*_SERVING, *_FAILED, "OFFLINE")

    @property
    def is_online(self) -> bool:
        """Whether its rows can be read, also while an update is at work or after one has failed."""
        return self.state.startswith("ONLINE")

    def has_reached(self, version: int | None) -> bool:
        """Return whether it serves a version of its source, or a later one.

        :param version: the version; None is any
        """
        is_there = version is None or (self.version is not None and self.version >= version)
        return self.state in _SERVING and is_there

    def failure(self, context: ErrorContext, otherwise: str = "") -> LakebaseError:
        """Return the error for its pipeline's failure, in the service's words.

        :param context: context for the error
        :param otherwise: what to say if the service says nothing
        """
        text = self.message or otherwise or f"The table is {self.state}"
        return find_pipeline_rule(text).to_error(text, replace(context, resource=self.name), code_in(text))

    def __str__(self) -> str:
        """Return it as a log shows it."""
        parts = [self.state, f"version {self.version}", self.message, self.progress]
        return f"{self.full_name}: {', '.join(filter(None, parts))}"


@dataclass(frozen=True)
class Freshness:
    """What a synced table has to serve.

    :param version: this version of its source, or a later one
    :param newer_than: in place of it, the rows of a sync that began later than this time
    """

    version: int | None
    newer_than: datetime | None

    @classmethod
    def of(cls, version: object, newer_than: Time | None) -> Freshness:
        """Check arguments, which templates may give as text.

        :param version: a whole number
        :param newer_than: a ``datetime`` with a time zone, or ISO 8601
        :raises LakebaseSettingsError: unless exactly one is given
        """
        if (version is None) == (newer_than is None):
            hint = "Give one: the version of the source to wait for, or the time that the sync has to begin after."
            text = "Neither version nor newer_than is given" if version is None else "version and newer_than are given"
            raise LakebaseSettingsError(text, hint=hint)
        return cls(
            read_version("version", version), None if newer_than is None else read_time("newer_than", newer_than)
        )

    def is_met(self, table: SyncedTable, context: ErrorContext) -> bool:
        """Return whether a table serves it.

        :param table: the table
        :param context: context for the error
        :raises LakebaseOperationError: if its pipeline has failed before it does
        """
        if self.version is not None:
            is_there = table.version is not None and table.version >= self.version
        else:
            is_there = None not in (table.synced_from, self.newer_than) and table.synced_from > self.newer_than  # type: ignore[operator]
        if table.has_failed and not is_there:
            raise table.failure(context)
        return is_there and table.is_online


@dataclass(frozen=True)
class Update:
    """An update of a pipeline, as the workspace described it last.

    :param pipeline: ID of its pipeline
    :param update_id: its ID
    :param state: such as ``RUNNING`` or ``COMPLETED``
    :param began_at: when it was started, as a time of ``time.time()``
    """

    pipeline: str
    update_id: str
    state: str = "CREATED"
    began_at: float = 0.0

    @property
    def name(self) -> str:
        """The name by which it is polled."""
        return f"pipelines/{self.pipeline}/updates/{self.update_id}"

    @property
    def is_active(self) -> bool:
        """Whether it has not ended yet."""
        return self.state not in ENDED_UPDATES

    @property
    def is_preparing(self) -> bool:
        """Whether it has read nothing of its sources yet."""
        return self.state in _PREPARING


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, as the workspace described it last.

    :param updates: its latest updates, the newest first
    :param is_continuous: whether an update runs until it is stopped
    """

    updates: tuple[Update, ...]
    is_continuous: bool

    @property
    def active(self) -> Update | None:
        """The update that has not ended yet."""
        return next((update for update in self.updates if update.is_active), None)


def synced_table_name(table: str) -> str:
    """Return the resource name of a synced table.

    :param table: ``catalog.schema.table``, or its resource name
    :raises LakebaseSettingsError: if it is malformed
    """
    full_name = table.removeprefix(PREFIX) if isinstance(table, str) else ""
    if not re.fullmatch(r"[^\s./`?#]+(\.[^\s./`?#]+){2}", full_name):
        hint = "Write its name in Unity Catalog: 'catalog.schema.table'."
        raise LakebaseSettingsError(f"synced_table is {table!r}", hint=hint)
    return f"{PREFIX}{full_name}"


def read_version(name: str, value: object) -> int | None:
    """Return a version of a source, which a template may give as text.

    :param name: of the argument, for messages
    :param value: a whole number, or None
    :raises LakebaseSettingsError: if it is something else
    """
    if value is None:
        return None
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d+", text):
        hint = "It must be a version of the source table, as DESCRIBE HISTORY shows it: a whole number."
        raise LakebaseSettingsError(f"{name} is {value!r}", hint=hint)
    return int(text)


def read_table(workspace: Workspace, name: str, *, timeout: float = REQUEST_SECONDS) -> SyncedTable:
    """Return a synced table.

    :param workspace: the workspace to ask
    :param name: resource name
    :param timeout: seconds that it may take
    :raises LakebaseResourceNotFoundError: when it does not exist
    """
    return SyncedTable.of(name, read(workspace, name, timeout=timeout))


def read_tables(
    workspace: Workspace, names: Iterable[str], *, timeout: float
) -> dict[str, SyncedTable | LakebaseError]:
    """Return synced tables, or why they cannot be read, by name; those that there was no time for are left out.

    :param workspace: the workspace to ask
    :param names: resource names
    :param timeout: seconds that they may take
    """

    def read_one(name: str) -> Callable[[WorkspaceClient], SyncedTable]:
        return lambda client: SyncedTable.of(name, client.postgres.get(name))

    return workspace.call_each({name: read_one(name) for name in names}, timeout=timeout)


def read_pipeline(workspace: Workspace, pipeline: str) -> Pipeline:
    """Return a pipeline.

    :param workspace: the workspace to ask
    :param pipeline: its ID
    """
    answer = workspace.call(lambda client: client.pipelines.get(pipeline), timeout=REQUEST_SECONDS)
    updates = tuple(_update_of(pipeline, each) for each in answer.get("latest_updates") or ())
    return Pipeline(updates, bool((answer.get("spec") or {}).get("continuous")))


def read_update(workspace: Workspace, pipeline: str, update_id: str) -> tuple[Update, bool]:
    """Return an update, and whether it builds the tables anew.

    :param workspace: the workspace to ask
    :param pipeline: ID of its pipeline
    :param update_id: its ID
    """
    answer = workspace.call(lambda client: client.pipelines.get_update(pipeline, update_id), timeout=REQUEST_SECONDS)
    return _update_of(pipeline, {**answer, "update_id": update_id}), bool(answer.get("full_refresh"))


def start_update(workspace: Workspace, pipeline: str, *, full_refresh: bool) -> Update:
    """Start an update of a pipeline.

    :param workspace: the workspace to ask
    :param pipeline: ID of the pipeline
    :param full_refresh: build its tables anew
    :raises LakebaseConflictError: when another update is at work
    """
    update_id = workspace.call(
        lambda client: client.pipelines.start_update(pipeline, full_refresh=full_refresh), timeout=REQUEST_SECONDS
    )
    return Update(pipeline, update_id)


def _update_of(pipeline: str, answer: Mapping[str, Any]) -> Update:
    state, began_at = str(answer.get("state") or "CREATED"), answer.get("creation_time") or 0
    # A pipeline writes it in ISO 8601, an update in milliseconds.
    seconds = datetime.fromisoformat(began_at).timestamp() if isinstance(began_at, str) else began_at / 1000
    return Update(pipeline, str(answer.get("update_id") or ""), state, seconds)


def _describe_progress(progress: Mapping[str, Any]) -> str:
    if not progress:
        return ""
    done, total = progress.get("synced_row_count"), progress.get("total_row_count")
    version = progress.get("latest_version_currently_processing")
    return f"{done} of {total} rows of version {version}"
