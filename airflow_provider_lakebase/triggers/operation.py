"""Wait in the triggerer for a long-running operation of the workspace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.workspace.plans import LONGEST_PAUSE_SECONDS, Pending
from airflow_provider_lakebase.hooks._arguments import create_hook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.triggers._events import event, failure, success
from airflow_provider_lakebase.triggers._shared_poll import SharedPolls


class LakebaseOperationTrigger(BaseTrigger):
    """Fire when an operation has succeeded or failed, a resource is settled, a login works, or it is too late.

    The task then asks the workspace for the outcome. All triggers in a triggerer that wait for the same operation or
    resource with the same identity share one poll.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param resource: resource name; without ``operation`` and ``login``, the wait is until its state is settled
    :param operation: name of the operation
    :param login: resource name of an endpoint that has to accept a login, which wakes it
    :param database: database that the login is to; by default the connection's
    :param version: of a synced table: version of its source that it has to serve
    :param pause: seconds to wait in any case, before a step that was refused is repeated
    :param deadline: when to give up, as a time of ``time.time()``
    :param notes: what the task has to know when it goes on. The event has it, because ``dag.test()`` of Airflow 3 drops
        what a task passes to ``defer`` for itself
    """

    def __init__(
        self,
        lakebase_conn_id: str,
        resource: str,
        operation: str = "",
        login: str = "",
        version: int | None = None,
        database: str = "",
        *,
        pause: float = 0.0,
        deadline: float,
        notes: Mapping[str, Any],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lakebase_conn_id = lakebase_conn_id
        self.pending = Pending(resource, operation, login, version, database)
        self.pause = pause
        self.deadline = deadline
        self.notes = dict(notes)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "airflow_provider_lakebase.triggers.operation.LakebaseOperationTrigger", {
            "lakebase_conn_id": self.lakebase_conn_id,
            **self.pending.as_dict(),
            "pause": self.pause,
            "deadline": self.deadline,
            "notes": self.notes,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: that the wait is over or late, or the error that ended it."""
        timeout = asyncio.timeout(max(self.deadline - time.time(), 0.0))
        try:
            async with timeout:
                await self._wait()
        except Exception as error:
            outcome = success(is_late=True) if timeout.expired() else failure(error)
        else:
            outcome = success(is_late=False)
        yield event({**outcome, "deadline": self.deadline, "notes": self.notes})

    async def _wait(self) -> None:
        await asyncio.sleep(self.pause)
        polls = SharedPolls.of_running_loop()
        if self.pending.login:
            hook = create_hook(
                self.lakebase_conn_id, endpoint=self.pending.login, database=self.pending.database or None
            )
            await polls.wait_until_ready(hook, wake=True, interval=LONGEST_PAUSE_SECONDS)
        else:
            await polls.wait_until_over(LakebaseWorkspaceHook(self.lakebase_conn_id), self.pending)
