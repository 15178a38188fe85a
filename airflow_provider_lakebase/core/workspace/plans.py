"""Bring a resource into the state that is wanted, step by step, each step at most one long-running operation.

databricks-sdk's ``wait()`` polls for ever, and one failed poll ends it. Here a wait has a deadline and survives failed
polls. A process that dies loses nothing: the next one looks at the resource and goes on from there.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_lakebase.core.workspace.operations import (
    POLL_SECONDS,
    Operation,
    delete,
    is_anothers,
    is_update,
    read_operation,
)
from airflow_provider_lakebase.core.workspace.resources import find, is_deleted, is_settled, read
from airflow_provider_lakebase.core.workspace.synced_tables import PREFIX as SYNCED_TABLES
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable, read_table
from airflow_provider_lakebase.exceptions import (
    LakebaseConflictError,
    LakebaseError,
    LakebaseLimitError,
    LakebaseOperationError,
    LakebaseOperationTimeoutError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceUnreachableError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

log = logging.getLogger(__name__)

OPERATION_SECONDS = 600.0
"""Seconds that a plan may take, unless its caller says otherwise."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
_GROWTH = 1.5
MAX_FAILURES = 10
"""Failures of the workspace in a row after which a step is not repeated."""
_FAILURES = "failures"
_OVER = Operation("", is_done=True)

Notes = MutableMapping[str, Any]
"""What a plan keeps between its steps: plain values, by name."""


@dataclass(frozen=True)
class Pending:
    """What a plan waits for before its next step.

    :param resource: resource name; without ``operation`` and ``login``, the wait is until its state is settled
    :param operation: name of an operation
    :param login: resource name of an endpoint that has to accept a login
    :param database: database that the login is to; by default the connection's
    :param version: of a synced table: version of its source that it has to serve
    :param cause: error after which a step is repeated
    :param finished: the operation, if it was done when the workspace answered
    """

    resource: str
    operation: str = ""
    login: str = ""
    version: int | None = None
    database: str = ""
    cause: LakebaseWorkspaceError | None = field(default=None, compare=False)
    finished: Operation | None = field(default=None, compare=False)

    @classmethod
    def of(cls, resource: str, operation: Operation) -> Pending:
        """Return what to wait for after an operation was started.

        :param resource: resource name
        :param operation: the operation
        """
        return cls(resource, operation.name, finished=operation if operation.is_done else None)

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments that make it again, as plain values."""
        given: dict[str, Any] = {"resource": self.resource, "operation": self.operation, "login": self.login}
        if self.database:
            given["database"] = self.database
        return given if self.version is None else {**given, "version": self.version}

    def __str__(self) -> str:
        """Return it as a log shows it."""
        if self.login:
            to = f" to database '{self.database}'" if self.database else ""
            return f"a login{to} on {self.login}"
        if self.version is not None:
            return f"{self.resource} to serve version {self.version}"
        return f"operation {self.operation}" if self.operation else f"{self.resource} to settle"


class Plan(Protocol):
    """Brings a resource into the state that is wanted, one operation at a time."""

    @property
    def resource(self) -> str:
        """Resource name."""

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Look at the resource and take the next step; return what to wait for, or None when nothing is left to do.

        What was begun is found again by the state of the resource and by the notes, so any step can be repeated.

        :param workspace: the workspace
        :param notes: what is kept between steps
        """


@dataclass(frozen=True)
class OneOperation:
    """Start one operation, whatever the state of the resource.

    :param resource: resource name
    :param start: starts it
    """

    resource: str
    start: Callable[[Workspace], Operation]

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Start it, the first time."""
        if notes.get("started"):
            return None
        operation = self.start(workspace)
        notes["started"] = True
        return Pending.of(self.resource, operation)


@dataclass(frozen=True)
class DeleteResource:
    """Delete an endpoint or a snapshot, unless it is gone.

    :param resource: resource name
    """

    resource: str

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step."""
        if find(workspace, self.resource) is None:
            return None
        try:
            return Pending.of(self.resource, delete(workspace, self.resource))
        except LakebaseResourceNotFoundError:  # someone else has deleted it meanwhile
            return None


@contextmanager
def noting(notes: Notes, name: str, value: Any = True) -> Iterator[None]:
    """Keep a note from before a request; remove it when the workspace refuses, since nothing was begun then.

    A task that has failed and is cleared later finds its notes: one that is left would be taken for the truth. So would
    the note of a resource that another task has created at the same time. But if the note is older than the request, or
    an answer was lost, the resource is the task's own.

    A note of how the resource was, which an earlier request has left, is kept: that request may have changed it.

    :param notes: the notes
    :param name: of the note, which is left as it is if it is there
    :param value: True to claim a resource that is missing; else how one is before it is changed
    """
    is_first = name not in notes
    if is_first:
        notes[name] = value
    try:
        yield
    except LakebaseResourceExistsError as error:
        if is_first and is_anothers(error):
            notes.pop(name, None)
        raise
    except LakebaseError as error:
        is_void = is_first or value is True  # what was missing still is: no earlier request has made it
        if is_void and (not error.retryable or isinstance(error, LakebaseLimitError)):
            notes.pop(name, None)
        raise


def advance(workspace: Workspace, plan: Plan, notes: Notes) -> Pending | None:
    """Take the next step of a plan; if another operation is in its way, or the workspace fails, repeat it later.

    :param workspace: the workspace
    :param plan: the plan
    :param notes: its notes
    :raises LakebaseError: for an error that waiting does not help, for an operation that has failed, for a limit of the
        service, and if the workspace fails time and again
    """
    try:
        pending = plan.advance(workspace, notes)
    except (LakebaseLimitError, LakebaseOperationError, LakebaseWorkspaceUnreachableError):
        raise
    except LakebaseConflictError as error:
        log.info("The request is repeated later: %s", error)
        return Pending(plan.resource, cause=error)
    except LakebaseWorkspaceError as error:
        failures = notes.get(_FAILURES, 0) + 1
        if not error.retryable or failures > MAX_FAILURES:
            notes.pop(_FAILURES, None)  # the next try counts its own
            raise
        notes[_FAILURES] = failures
        log.warning("The request is repeated later: %s", error)
        return Pending(plan.resource, cause=error)
    notes.pop(_FAILURES, None)
    return pending


def carry_out(workspace: Workspace, plan: Plan, notes: Notes | None = None, *, timeout: float) -> None:
    """Take all steps of a plan, waiting for each.

    :param workspace: the workspace
    :param plan: the plan
    :param notes: its notes
    :param timeout: seconds that it may take
    :raises LakebaseOperationError: when an operation fails
    :raises LakebaseOperationTimeoutError: when it takes longer
    :raises LakebaseWorkspaceError: when the workspace refuses
    """
    notes = {} if notes is None else notes
    deadline = time.time() + timeout
    pauses = back_off()
    while (pending := advance(workspace, plan, notes)) is not None:
        wait_for(workspace, pending, deadline=deadline, pauses=back_off() if pending.operation else pauses)


def wait_for(workspace: Workspace, pending: Pending, *, deadline: float, pauses: Iterator[float]) -> None:
    """Wait until an operation has succeeded or a resource is settled.

    :param workspace: the workspace
    :param pending: an operation or a resource
    :param deadline: when to give up, as a time of ``time.time()``
    :param pauses: seconds to pause before each poll
    :raises LakebaseOperationError: when the operation fails
    :raises LakebaseOperationTimeoutError: at the deadline
    """
    if pending.finished is not None:
        pending.finished.require_success(workspace.about(pending.resource).context)
        return
    for pause in pauses:
        left = deadline - time.time()
        if left <= 0:
            raise outlasted(workspace, pending)
        time.sleep(min(pause, left))
        if (operation := poll(workspace, pending)) is not None:
            operation.require_success(workspace.about(pending.resource).context)
            return


def poll(workspace: Workspace, pending: Pending) -> Operation | None:
    """Poll once; return the operation if the wait is over, whether it succeeded or failed.

    A poll that fails for a passing cause means: not yet. If the workspace no longer knows the operation, or the wait is
    for a resource, the operation has no name: the state of the resource tells the rest.

    :param workspace: the workspace
    :param pending: an operation or a resource
    :raises LakebaseWorkspaceError: when the workspace refuses the poll
    """
    about = workspace.about(pending.resource)
    try:
        if not pending.operation:
            return _OVER if _is_over(about, pending) else None
        operation = _read_operation(about, pending)
    except LakebaseWorkspaceError as error:
        if not error.retryable:
            raise
        if pending.cause is not None:  # repeating the step tells whether it still fails
            return _OVER
        log.warning("The operation is polled again: %s", error)
        return None
    if operation is None:
        return _OVER
    return operation if operation.is_done else None


def back_off() -> Iterator[float]:
    """Yield the seconds to pause before each poll."""
    pause = longer()
    while True:
        yield pause
        pause = longer(pause)


def longer(pause: float | None = None) -> float:
    """Return the seconds to pause after a pause.

    :param pause: the last one; None for the first
    """
    return FIRST_PAUSE_SECONDS if pause is None else min(pause * _GROWTH, LONGEST_PAUSE_SECONDS)


def outlasted(workspace: Workspace, pending: Pending) -> LakebaseWorkspaceError:
    """Return the error for a wait that takes too long: the one that it waited to pass, if there is one.

    :param workspace: the workspace
    :param pending: what was waited for
    """
    if pending.cause is not None:
        return pending.cause
    return LakebaseOperationTimeoutError(
        f"Gave up waiting for {pending}",
        context=replace(workspace.about(pending.resource).context, operation=pending.operation),
        hint="The workspace goes on with it, and a retry waits for it. Allow more time with 'operation_timeout'.",
    )


def _is_over(workspace: Workspace, pending: Pending) -> bool:
    name = pending.resource
    try:
        found = read(workspace, name, timeout=POLL_SECONDS)
    except LakebaseResourceNotFoundError:
        return True
    if not name.startswith(SYNCED_TABLES):
        return is_deleted(found) or is_settled(found)
    table = SyncedTable.of(name, found)
    log.info("%s", table)
    return table.is_settled if pending.version is None else table.has_failed or table.has_reached(pending.version)


def _read_operation(workspace: Workspace, pending: Pending) -> Operation | None:
    operation = read_operation(workspace, pending.operation)
    if is_update(pending.operation) and operation is not None and not operation.is_done:
        log.info("%s", read_table(workspace, pending.resource, timeout=POLL_SECONDS))
    return operation
