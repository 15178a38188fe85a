"""The base of operators that change the workspace's resources by long-running operations."""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.workspace.operations import read_operation
from airflow_provider_lakebase.core.workspace.plans import (
    OPERATION_SECONDS,
    Pending,
    Plan,
    advance,
    back_off,
    longer,
    outlasted,
    poll,
    wait_for,
)
from airflow_provider_lakebase.core.workspace.resources import is_deleted, read
from airflow_provider_lakebase.core.workspace.specs import Duration, check_flags, read_wait
from airflow_provider_lakebase.exceptions import LakebaseResourceNotFoundError, LakebaseSettingsError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.hooks._login import wait_for_login
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.links import LINKS, record_branch_links, show_branch_links
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.triggers._events import require_success
from airflow_provider_lakebase.triggers.operation import LakebaseOperationTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_lakebase.core.workspace.client import Workspace

_PLANNED = "planned"
_PENDING = "pending"
_NOTED = "noted"
_LOGIN = "login"
_PAUSE = "pause"
_PAGES = "pages"


# ResumableJobMixin of Airflow 3.3 is not used: it keeps one job per task, starts it again if the process dies before
# its name is stored, and does not defer. A plan has several operations, and finds each by its resource.
class LakebaseOperationOperator(BaseOperator):
    """Change a resource of the workspace, and wait until the change is done.

    If a try dies or is killed, the next one waits for the operation that is in progress and starts no other. The
    workspace cannot cancel operations: those of a killed task go on.

    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param project: ID of the project; by default that of the connection's ``endpoint``, else its extra ``project``
        (templated)
    :param operation_timeout: how long the change may take, ``timedelta`` or seconds; a retry then waits for it again
    :param deferrable: wait in the triggerer; by default as ``[operators] default_deferrable`` says
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "project")
    operator_extra_links: Collection[BaseOperatorLink] = LINKS
    records_links_first = False
    """Whether the resource's pages are looked up before it is changed, because it does not exist afterwards."""

    def __init__(
        self,
        *,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        project: str | None = None,
        operation_timeout: Duration = OPERATION_SECONDS,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        # So that each value of a result is an XCom of its own: create.output["endpoint"].
        super().__init__(**{"multiple_outputs": True, **kwargs})
        check_flags(deferrable=deferrable)
        read_wait("operation_timeout", operation_timeout)
        self.lakebase_conn_id = lakebase_conn_id
        self.project = project
        self.operation_timeout = operation_timeout
        self.deferrable = deferrable

    def plan(self, context: Context, notes: TaskNotes) -> Plan:
        """Check the arguments, and return what to bring about. It sends nothing.

        :param context: the task's context
        :param notes: what the task keeps for its next try
        :raises LakebaseSettingsError: for an argument that is wrong
        """
        raise NotImplementedError

    def result(self, plan: Plan, notes: TaskNotes) -> Any:
        """Return the task's result once the plan is carried out.

        :param plan: the plan
        :param notes: its notes
        """

    def page_of(self, plan: Plan) -> str | None:
        """Return the branch, or the endpoint of a branch, whose pages the task links to; None if there is none.

        :param plan: the plan
        """
        return plan.resource

    def needs_login(self) -> bool:
        """Return whether the task is done only when a login works."""
        return False

    def login_endpoint(self, plan: Plan) -> str:
        """Return the endpoint that has to accept a login.

        :param plan: the plan, which is carried out
        """
        raise NotImplementedError

    def login_database(self) -> str:
        """Return the database that the login is to; an empty text for the connection's."""
        return ""

    @cached_property
    def hook(self) -> LakebaseWorkspaceHook:
        """The hook."""
        return LakebaseWorkspaceHook(self.lakebase_conn_id, self.project)

    def execute(self, context: Context) -> Any:
        """Start the change, and wait for it.

        :raises AirflowFailException: for an error that a retry cannot help
        """
        with fail_without_retry():
            notes = TaskNotes(context)
            for of_last_try in (_PAUSE, _LOGIN):
                notes.pop(of_last_try, None)
            deadline = time.time() + read_wait("operation_timeout", self.operation_timeout)
            plan = self.plan(context, notes)
            if _PLANNED in notes and notes[_PLANNED]["resource"] != plan.resource:
                notes.forget()  # they tell nothing about this resource
                plan = self.plan(context, notes)
            notes[_PLANNED] = {"resource": plan.resource, "fields": self._digests()}
            if self.records_links_first:
                self._record_links_first(context, plan, notes)
            return self._go_on(context, plan, notes, self._unfinished(notes), deadline)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after a wait in the triggerer.

        :param context: the task's context
        :param event: what the trigger reports
        :raises AirflowFailException: for an error that a retry cannot help
        """
        with fail_without_retry():
            outcome = require_success(event)
            kept = TaskNotes(context, outcome["notes"])
            plan, pending = self.plan(context, kept), _pending_of(kept)
            self._require_same(plan, kept)
            show_branch_links(context, kept.get(_PAGES))
            workspace = self.hook.workspace
            if outcome["is_late"]:
                # What stood in the way of a step is told best by trying it once more.
                if pending.operation or pending.login or plan.advance(workspace, kept):
                    raise outlasted(workspace, pending)
            elif pending.operation and (operation := poll(workspace, pending)) is not None:
                operation.require_success(workspace.about(pending.resource).context)
            self._note(kept, pending)
            return self._go_on(context, plan, kept, None, outcome["deadline"])

    def _go_on(
        self, context: Context, plan: Plan, notes: TaskNotes, unfinished: Pending | None, deadline: float
    ) -> Any:
        workspace, pauses = self.hook.workspace, back_off()
        while pending := unfinished or self._advance(plan, notes):
            unfinished = None
            self.log.info("Waiting for %s", pending)
            if self.deferrable and pending.finished is None:
                self._defer(pending, notes, deadline)
            if pending.login:
                wait_for_login(self.lakebase_conn_id, pending.login, pending.database or None, deadline=deadline)
            else:
                pauses = back_off() if pending.operation else pauses
                wait_for(workspace, pending, deadline=deadline, pauses=pauses)
            self._note(notes, pending)
        result = self.result(plan, notes)
        if not self.records_links_first:
            record_branch_links(context, self.hook, self.page_of(plan))
        notes.forget()
        return result

    def _record_links_first(self, context: Context, plan: Plan, notes: TaskNotes) -> None:
        """Record the links, and keep them for a process that finds the resource gone."""
        if pages := record_branch_links(context, self.hook, self.page_of(plan)):
            notes[_PAGES] = pages
        else:
            show_branch_links(context, notes.get(_PAGES))

    def _advance(self, plan: Plan, notes: TaskNotes) -> Pending | None:
        if notes.get(_LOGIN):  # that was the last wait
            return None
        before = dict(notes)
        pending = advance(self.hook.workspace, plan, notes)
        if pending is None and self.needs_login():
            pending = Pending(plan.resource, login=self.login_endpoint(plan), database=self.login_database())
        if pending is not None:
            noted = [name for name, value in notes.items() if before.get(name) != value]
            notes[_PENDING] = {**pending.as_dict(), _NOTED: noted}
        return pending

    def _digests(self) -> dict[str, int]:
        """Return a checksum of each template field, which shows a change without holding the value."""
        return {name: zlib.crc32(repr(getattr(self, name, None)).encode()) for name in self.template_fields}

    def _require_same(self, plan: Plan, notes: TaskNotes) -> None:
        """Refuse a plan for another resource than before the deferral, after which Airflow renders templates anew."""
        planned = notes[_PLANNED]
        if plan.resource == planned["resource"]:
            return
        fields = [name for name, digest in self._digests().items() if planned["fields"].get(name) != digest]
        cause = f"{' and '.join(fields)} rendered differently" if fields else "The connection has changed"
        raise LakebaseSettingsError(
            f"The task deferred to wait for {planned['resource']}, and now names {plan.resource}",
            hint=f"{cause} after the wait: use what stays the same in a run. "
            "What was begun goes on in the workspace, and nothing was begun on the other.",
        )

    def _unfinished(self, notes: TaskNotes) -> Pending | None:
        """Return the operation that an earlier try has started and that is still in progress.

        One that has failed is no reason to fail again. What was noted with it is dropped: others may have created or
        changed the resource since.
        """
        pending = _pending_of(notes) if _PENDING in notes else None
        if pending is None or not pending.operation:
            return None
        workspace = self.hook.workspace.about(pending.resource)
        operation = read_operation(workspace, pending.operation)
        if operation is None:
            return None
        # A resource that is gone can only be made again from what was noted.
        if operation.error_code and _is_there(workspace, pending.resource):
            for name in notes[_PENDING][_NOTED]:
                notes.pop(name, None)
        return None if operation.is_done else pending

    def _note(self, notes: TaskNotes, pending: Pending) -> None:
        if pending.login:
            notes[_LOGIN] = True
        del notes[_PENDING]

    def _defer(self, pending: Pending, notes: TaskNotes, deadline: float) -> None:
        if pending.operation or pending.login:
            notes.pop(_PAUSE, None)
        else:  # each repeated step is a deferral: what lasts must not occupy workers more and more often
            notes[_PAUSE] = longer(notes.get(_PAUSE))
        pause = notes.get(_PAUSE, 0.0)
        self.defer(
            trigger=LakebaseOperationTrigger(
                self.lakebase_conn_id, **pending.as_dict(), pause=pause, deadline=deadline, notes=notes
            ),
            method_name="execute_complete",
        )


def _pending_of(notes: TaskNotes) -> Pending:
    """Return the wait that the task has noted."""
    return Pending(**{name: value for name, value in notes[_PENDING].items() if name != _NOTED})


def _is_there(workspace: Workspace, name: str) -> bool:
    try:
        return not is_deleted(read(workspace, name))
    except LakebaseResourceNotFoundError:
        return False
