"""Pipelines and their updates. An update runs in a thread, in steps that ``behaviour.pipeline_seconds`` spans."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from airflow_provider_lakebase.emulator.faults import FailPipeline
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json
from airflow_provider_lakebase.emulator.model.fields import timestamp

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.workspace import Behaviour

#: The states in which an update is active.
ACTIVE = {
    "CREATED",
    "WAITING_FOR_RESOURCES",
    "INITIALIZING",
    "RESETTING",
    "SETTING_UP_TABLES",
    "RUNNING",
    "STOPPING",
}


class SyncError(Exception):
    """A flow failed; the message is what the service tells its users."""


class _Canceled(Exception):
    pass


class Flow(Protocol):
    """What a pipeline does for one table. Only the pipeline's thread calls these methods."""

    def prepare(self) -> None:
        """Record that the pipeline has started."""

    def load(self, *, full_refresh: bool) -> None:
        """Bring the table to the source's latest version; raise ``SyncError`` if that fails."""

    def finish(self) -> None:
        """Take notice that every table of the update is loaded."""

    def follow(self) -> None:
        """Apply what was published since, in a pipeline that runs continuously; raise ``SyncError`` if that fails."""

    def fail(self, message: str) -> None:
        """Take notice that the update failed."""

    def cancel(self) -> None:
        """Take notice that the update was canceled."""


@dataclass
class Update:
    """One run of a pipeline."""

    pipeline_id: str
    cause: str
    full_refresh: bool
    created_at: float
    update_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "CREATED"
    canceled: threading.Event = field(default_factory=threading.Event, repr=False)
    signal: threading.Event = field(default_factory=threading.Event, repr=False)
    ended: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def active(self) -> bool:
        """Return whether it has not ended yet."""
        return self.state in ACTIVE

    def json(self) -> Json:
        """Return it as the API does."""
        return {
            "pipeline_id": self.pipeline_id,
            "update_id": self.update_id,
            "state": self.state,
            "cause": self.cause,
            "creation_time": int(self.created_at * 1000),
            "full_refresh": self.full_refresh,
            "validate_only": False,
        }


@dataclass
class Pipeline:
    """A pipeline with the flows of its tables, and its updates, newest first."""

    pipeline_id: str
    name: str
    policy: str
    creator: str
    flows: dict[str, Flow] = field(default_factory=dict)
    updates: list[Update] = field(default_factory=list)

    @property
    def continuous(self) -> bool:
        """Return whether an update runs until it is stopped."""
        return self.policy == "CONTINUOUS"

    @property
    def active_update(self) -> Update | None:
        """Return the update that runs now."""
        return next((update for update in self.updates if update.active), None)

    @property
    def state(self) -> str:
        """Return ``RUNNING``, ``FAILED`` or ``IDLE``."""
        if self.active_update:
            return "RUNNING"
        return "FAILED" if self.updates and self.updates[0].state == "FAILED" else "IDLE"

    def json(self) -> Json:
        """Return it as the API does."""
        return {
            "pipeline_id": self.pipeline_id,
            "name": self.name,
            "state": self.state,
            "creator_user_name": self.creator,
            "run_as_user_name": self.creator,
            "spec": {"id": self.pipeline_id, "name": self.name, "continuous": self.continuous, "serverless": True},
            "latest_updates": [
                {
                    "update_id": update.update_id,
                    "state": update.state,
                    "creation_time": timestamp(update.created_at),
                }
                for update in self.updates[:5]
            ],
        }


class Pipelines:
    """The pipelines of the workspace. All methods are thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float],
        behaviour: Behaviour,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._clock = clock
        self._behaviour = behaviour
        self._start_thread = start or self._in_a_thread
        self._lock = threading.RLock()
        self._pipelines: dict[str, Pipeline] = {}
        self._threads: list[threading.Thread] = []

    def require(self, pipeline_id: str) -> Pipeline:
        """Return a pipeline; raise ``ApiError`` if it does not exist."""
        with self._lock:
            pipeline = self._pipelines.get(pipeline_id)
        if pipeline is None:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"The specified pipeline {pipeline_id} was not found.")
        return pipeline

    def all(self) -> list[Pipeline]:
        """Return every pipeline."""
        with self._lock:
            return list(self._pipelines.values())

    def update(self, pipeline_id: str, update_id: str) -> Update:
        """Return an update of a pipeline; raise ``ApiError`` if it does not exist."""
        for update in self.require(pipeline_id).updates:
            if update.update_id == update_id:
                return update
        raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Update {update_id} of pipeline {pipeline_id} was not found.")

    def create(self, name: str, policy: str, creator: str) -> Pipeline:
        """Create a pipeline without tables."""
        pipeline = Pipeline(str(uuid.uuid4()), name, policy, creator)
        with self._lock:
            self._pipelines[pipeline.pipeline_id] = pipeline
        return pipeline

    def attach(self, pipeline: Pipeline, table: str, flow: Flow) -> None:
        """Add a table's flow and start the update that loads it; raise ``ApiError`` if an update is active."""
        with self._lock:
            self.refuse_second(pipeline)
            pipeline.flows[table] = flow
            self.start(pipeline, full_refresh=False, cause="USER_ACTION")

    def detach(self, pipeline_id: str, table: str) -> None:
        """Cancel the active update, wait for its end and remove a table's flow, and the pipeline with the last one."""
        pipeline = self.require(pipeline_id)
        self.stop(pipeline)
        for update in pipeline.updates:
            update.ended.wait()
        with self._lock:
            pipeline.flows.pop(table, None)
            if not pipeline.flows:
                self._pipelines.pop(pipeline_id, None)

    def start(self, pipeline: Pipeline, *, full_refresh: bool, cause: str = "API_CALL") -> Update:
        """Start an update of every table; raise ``ApiError`` if one is active."""
        with self._lock:
            self.refuse_second(pipeline)
            update = Update(pipeline.pipeline_id, cause, full_refresh, self._clock())
            pipeline.updates.insert(0, update)
        self._start_thread(lambda: self._run(pipeline, update))
        return update

    def stop(self, pipeline: Pipeline) -> None:
        """Cancel the active update, if there is one. It ends soon after this returns."""
        with self._lock:
            update = pipeline.active_update
            if update:
                update.state = "STOPPING"
                update.canceled.set()
                update.signal.set()

    def notify(self) -> None:
        """Make continuous updates look for new versions of their sources."""
        for pipeline in self.all():
            for update in pipeline.updates:
                update.signal.set()

    def stop_all(self) -> None:
        """Cancel every update. Those that PostgreSQL keeps waiting end with it; ``join`` waits for them."""
        for pipeline in self.all():
            self.stop(pipeline)

    def join(self) -> None:
        """Wait until the threads of all updates have ended."""
        for thread in self._threads:
            thread.join()

    def refuse_second(self, pipeline: Pipeline) -> None:
        """Raise ``ApiError`` if an update is active."""
        if pipeline.active_update:
            raise ApiError(
                409, "RESOURCE_CONFLICT", f"An active update already exists for pipeline {pipeline.pipeline_id}."
            )

    def _in_a_thread(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name="lakebase-pipeline", daemon=True)
        with self._lock:
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    # -- the thread of an update

    def _run(self, pipeline: Pipeline, update: Update) -> None:
        flows = list(pipeline.flows.values())
        try:
            self._load(flows, update)
            if pipeline.continuous:
                self._follow(flows, update)
            self._end(update, "COMPLETED")
        except _Canceled:
            for flow in flows:
                flow.cancel()
            self._end(update, "CANCELED")
        except Exception as error:
            message = str(error) if isinstance(error, SyncError) else f"[INTERNAL_ERROR] {error!r}"
            for flow in flows:
                flow.fail(message)
            self._end(update, "FAILED")

    def _load(self, flows: list[Flow], update: Update) -> None:
        self._step(update, "WAITING_FOR_RESOURCES")
        for flow in flows:
            flow.prepare()
        self._step(update, "INITIALIZING")
        self._step(update, "RESETTING" if update.full_refresh else "SETTING_UP_TABLES")
        self._enter(update, "RUNNING")
        fault = self._behaviour.faults.take(FailPipeline)
        if fault:
            raise SyncError(fault.text)
        for flow in flows:
            self._check(update)
            flow.load(full_refresh=update.full_refresh)
        self._pause(update)
        for flow in flows:
            flow.finish()

    def _follow(self, flows: list[Flow], update: Update) -> None:
        while True:
            update.signal.clear()
            self._check(update)
            for flow in flows:
                flow.follow()
            update.signal.wait()

    def _step(self, update: Update, state: str) -> None:
        self._enter(update, state)
        self._pause(update)

    def _enter(self, update: Update, state: str) -> None:
        with self._lock:
            self._check(update)
            update.state = state

    def _end(self, update: Update, state: str) -> None:
        with self._lock:
            update.state = state
        update.ended.set()

    def _pause(self, update: Update) -> None:
        update.canceled.wait(self._behaviour.pipeline_seconds / 4)
        self._check(update)

    def _check(self, update: Update) -> None:
        if update.canceled.is_set():
            raise _Canceled
