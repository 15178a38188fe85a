"""A synced table: its states, and its status as the API tells it. No I/O."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, replace

from airflow_provider_lakebase.emulator.model.catalog import Version
from airflow_provider_lakebase.emulator.model.data_plane import TablePlace
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.fields import timestamp
from airflow_provider_lakebase.emulator.model.synced_table_spec import Spec

_NEW = ("PROVISIONING", "PROVISIONING_PIPELINE_RESOURCES", "PROVISIONING_INITIAL_SNAPSHOT", "OFFLINE", "OFFLINE_FAILED")
_SERVING = (
    "ONLINE",
    "ONLINE_NO_PENDING_UPDATE",
    "ONLINE_CONTINUOUS_UPDATE",
    "ONLINE_TRIGGERED_UPDATE",
    "ONLINE_UPDATING_PIPELINE_RESOURCES",
    "ONLINE_PIPELINE_FAILED",
)

# (state, event) → new state. An event that is not listed for a state does not change it.
TRANSITIONS = {
    **{(state, "prepare"): "PROVISIONING_PIPELINE_RESOURCES" for state in _NEW},
    **{(state, "prepare"): "ONLINE_UPDATING_PIPELINE_RESOURCES" for state in _SERVING},
    ("PROVISIONING_PIPELINE_RESOURCES", "load"): "PROVISIONING_INITIAL_SNAPSHOT",
    ("ONLINE_UPDATING_PIPELINE_RESOURCES", "load"): "ONLINE_TRIGGERED_UPDATE",
    ("PROVISIONING_INITIAL_SNAPSHOT", "loaded"): "ONLINE",
    ("ONLINE", "settle"): "ONLINE_NO_PENDING_UPDATE",
    ("ONLINE_TRIGGERED_UPDATE", "settle"): "ONLINE_NO_PENDING_UPDATE",
    ("ONLINE", "stream"): "ONLINE_CONTINUOUS_UPDATE",
    ("ONLINE_TRIGGERED_UPDATE", "stream"): "ONLINE_CONTINUOUS_UPDATE",
    **{(state, "fail"): "OFFLINE_FAILED" for state in _NEW},
    **{(state, "fail"): "ONLINE_PIPELINE_FAILED" for state in _SERVING},
    **{(state, "cancel"): "OFFLINE" for state in _NEW if state != "OFFLINE_FAILED"},
    ("ONLINE_CONTINUOUS_UPDATE", "cancel"): "ONLINE",
    ("ONLINE_TRIGGERED_UPDATE", "cancel"): "ONLINE_NO_PENDING_UPDATE",
    ("ONLINE_UPDATING_PIPELINE_RESOURCES", "cancel"): "ONLINE_NO_PENDING_UPDATE",
}


@dataclass(frozen=True)
class Progress:
    """How far the update at work has come."""

    version: int
    synced_rows: int
    total_rows: int

    def json(self) -> Json:
        """Return it as the API does."""
        return {
            "latest_version_currently_processing": self.version,
            "synced_row_count": self.synced_rows,
            "total_row_count": self.total_rows,
            "sync_progress_completion": self.synced_rows / self.total_rows if self.total_rows else 1.0,
        }


@dataclass(frozen=True)
class SyncedTableView:
    """The status of a synced table at one moment; ``synced`` is the source's version that its rows have."""

    state: str = "PROVISIONING"
    message: str = ""
    synced: Version | None = None
    sync_started_at: float = 0.0
    sync_ended_at: float = 0.0
    progress: Progress | None = None


class SyncedTable:
    """A synced table: its specification, its place in Postgres and its status."""

    def __init__(self, spec: Spec, place: TablePlace, now: float) -> None:
        self.name = f"synced_tables/{spec.synced_table_id}"
        self.uid = str(uuid.uuid4())
        self.spec = spec
        self.place = place
        self.created_at = now
        self.pipeline_id: str | None = None
        self.view = SyncedTableView()
        self._lock = threading.Lock()

    def move(self, event: str, message: str = "") -> None:
        """Apply an event to the state, and replace the message."""
        with self._lock:
            state = TRANSITIONS.get((self.view.state, event), self.view.state)
            self.view = replace(self.view, state=state, message=message, progress=None)

    def show_progress(self, progress: Progress) -> None:
        """Show how far the update has come."""
        with self._lock:
            self.view = replace(self.view, progress=progress)

    def note_sync(self, version: Version, started_at: float, ended_at: float) -> None:
        """Note that the rows are now those of a version."""
        with self._lock:
            self.view = replace(self.view, synced=version, sync_started_at=started_at, sync_ended_at=ended_at)

    def json(self) -> Json:
        """Return it as the API does, which leaves out ``spec``."""
        return {
            "name": self.name,
            "synced_table_id": self.spec.synced_table_id,
            "uid": self.uid,
            "create_time": timestamp(self.created_at),
            "status": self._status(self.view),
        }

    def _status(self, view: SyncedTableView) -> Json:
        status: Json = {
            "detailed_state": f"SYNCED_TABLE_{view.state}",
            "message": view.message,
            "project": self.spec.branch.split("/branches/")[0],
            "unity_catalog_provisioning_state": "PROVISIONING" if view.state == "PROVISIONING" else "ACTIVE",
        }
        if self.pipeline_id:
            status["pipeline_id"] = self.pipeline_id
        if view.progress:
            status["ongoing_sync_progress"] = view.progress.json()
        if view.state == "PROVISIONING_INITIAL_SNAPSHOT":
            status["provisioning_phase"] = "PROVISIONING_PHASE_MAIN"
        if view.synced:
            status |= _last_sync(view.synced, view.sync_started_at, view.sync_ended_at)
        return status


def _last_sync(version: Version, started_at: float, ended_at: float) -> Json:
    return {
        "last_processed_commit_version": version.number,
        "last_sync_time": timestamp(ended_at),
        "last_sync": {
            "sync_start_time": timestamp(started_at),
            "sync_end_time": timestamp(ended_at),
            "delta_table_sync_info": {
                "delta_commit_version": version.number,
                "delta_commit_time": timestamp(version.committed_at),
            },
        },
    }
