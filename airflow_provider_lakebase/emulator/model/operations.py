"""Long-running operations: stored by name, run in threads, and independent of the requests that started them.

Their threads do what a resource's model asks for; there is no other I/O.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.faults import FailOperation
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, internal, not_found

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.workspace import Behaviour

EMPTY: Json = {"@type": "type.googleapis.com/google.protobuf.Empty"}
_STOP_SECONDS = 5.0
_METADATA = "type.googleapis.com/databricks.postgres.v1.{}OperationMetadata"


class Operation:
    """An operation on a resource.

    :param resource: the resource's name
    :param method: the SDK's method that starts it, such as ``create_branch``
    :param takes_time: whether requests see it running; otherwise they wait for its end
    :param source: name of the resource that it copies
    """

    def __init__(self, resource: str, method: str, *, takes_time: bool, source: str | None = None) -> None:
        self.resource = resource
        self.source = source
        self.method = method
        self.takes_time = takes_time
        self.name = f"{resource}/operations/{uuid.uuid4()}"
        self.response: Json | None = None
        self.error: ApiError | None = None
        self._finished = threading.Event()

    @property
    def done(self) -> bool:
        """Return whether it has ended."""
        return self._finished.is_set()

    def json(self) -> Json:
        """Return it as the API does."""
        if not self.takes_time:
            self._finished.wait()
        kind = "".join(word.capitalize() for word in self.method.split("_")[1:])
        body: Json = {"name": self.name, "done": self.done, "metadata": {"@type": _METADATA.format(kind)}}
        if self.done:
            body |= {"error": self.error.body} if self.error else {"response": self.response}
        return body

    def wait(self) -> Json:
        """Wait for its end and return the response; raise ``ApiError`` if it failed."""
        self._finished.wait()
        if self.error:
            raise self.error
        return self.response or EMPTY

    def give_up(self) -> None:
        """Fail it if it is not done, and release everyone who waits for it."""
        if not self.done:
            self.error = _stopped()
            self._finished.set()

    def run(self, work: Callable[[], Json]) -> None:
        """Do the work and keep its response or error."""
        try:
            self.response = work()
        except ApiError as error:
            self.error = error
        except Exception as error:
            # The model has a defect, or PostgreSQL failed: the operation says so, since no request waits for it.
            self.error = internal(error)
        finally:
            self._finished.set()


class Operations:
    """The operations of the workspace, those that ended included.

    :param on_change: called when the work of one is done, before it shows as ended
    """

    def __init__(self, behaviour: Behaviour, on_change: Callable[[], object] = lambda: None) -> None:
        self._behaviour = behaviour
        self._on_change = on_change
        self._lock = threading.Lock()
        self._by_name: dict[str, Operation] = {}
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()

    def submit(
        self,
        resource: str,
        method: str,
        work: Callable[[], Json],
        *,
        begin: Callable[[], object] | None = None,
        undo: Callable[[], object] | None = None,
        source: str | None = None,
    ) -> Operation:
        """Start an operation on a resource and return it. It runs in a thread of its own after ``operation_seconds``.

        Raise ``ApiError`` 409 if an operation on this resource, or on one above or below it, is still running, or one
        that copies it or changes what is copied.

        :param method: the SDK's method that starts it, such as ``create_branch``
        :param work: does the work and returns the response
        :param begin: makes what is there at once, before the operation runs
        :param undo: removes that if the operation fails
        :param source: name of the resource that it copies, which no other operation may change meanwhile
        """
        seconds = self._behaviour.operation_seconds
        operation = Operation(resource, method, takes_time=seconds > 0, source=source)
        with self._lock:
            self._refuse_conflict(resource, source)
            if begin:
                begin()
            fault = self._behaviour.faults.take(FailOperation, f"{method} {resource}")
            work = fault.fail if fault else work
            thread = threading.Thread(
                target=self._run, args=(operation, seconds, work, undo), name="lakebase-operation", daemon=True
            )
            self._by_name[operation.name] = operation
            self._threads = {each for each in self._threads if each.is_alive()} | {thread}
            thread.start()
        return operation

    def get(self, name: str) -> Operation:
        """Return an operation; raise ``ApiError`` 404 if it does not exist."""
        with self._lock:
            found = self._by_name.get(name)
        if found is None:
            raise not_found("operation")
        return found

    def is_busy(self, resource: str) -> bool:
        """Return whether an operation still runs on a resource or on one above or below it, or copies it."""
        with self._lock:
            return self._conflicting(resource) is not None

    def start(self) -> None:
        """Run operations again after a stop."""
        self._stopping.clear()

    def stop(self) -> None:
        """Cancel the operations that wait, and give the others some seconds to end.

        Those that PostgreSQL keeps waiting, for a lock, end with it; ``join`` waits for them.
        """
        self._stopping.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            for operation in self._by_name.values():
                operation.give_up()

    def join(self) -> None:
        """Wait until the threads of all operations have ended."""
        for thread in self._threads:
            thread.join()

    def _refuse_conflict(self, resource: str, source: str | None) -> None:
        found = self._conflicting(resource, source)
        if found:
            message = f"A conflicting operation is in progress: {found.name}. Try again when it has ended."
            raise ApiError(409, "ABORTED", message)

    def _conflicting(self, resource: str, source: str | None = None) -> Operation | None:
        for each in self._by_name.values():
            if not each.done and (
                _is_in(each.resource, resource)
                or _is_in(resource, each.resource)
                or (each.source and _is_in(each.source, resource))
                or (source and _is_in(source, each.resource))
            ):
                return each
        return None

    def _run(
        self, operation: Operation, seconds: float, work: Callable[[], Json], undo: Callable[[], object] | None
    ) -> None:
        if self._stopping.wait(seconds):
            work = _cancelled
        operation.run(lambda: self._done(work, undo))

    def _done(self, work: Callable[[], Json], undo: Callable[[], object] | None) -> Json:
        try:
            return work()
        except BaseException:
            if undo:
                undo()
            raise
        finally:
            self._on_change()


def _cancelled() -> Json:
    raise _stopped()


def _stopped() -> ApiError:
    return ApiError(500, "CANCELLED", "The emulator stopped.")


def _is_in(name: str, ancestor: str) -> bool:
    return f"{name}/".startswith(f"{ancestor}/")
