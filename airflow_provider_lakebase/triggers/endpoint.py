"""Wait in the triggerer for an endpoint to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.workspace.specs import Duration, check_flags, read_wait
from airflow_provider_lakebase.hooks._arguments import create_hook
from airflow_provider_lakebase.triggers._events import event, failure, success
from airflow_provider_lakebase.triggers._shared_poll import SharedPolls


class LakebaseEndpointTrigger(BaseTrigger):
    """Fire when an endpoint is ACTIVE and, with ``wake``, answers a probe.

    All triggers in a triggerer that wait for the same endpoint with the same identity share one poll of its state, at
    the shortest of their intervals, and one probe.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param endpoint: endpoint, in place of the connection's
    :param wake: probe the endpoint with a session, which wakes it; if False, only read its state
    :param poll_interval: pause between two readings of the state, ``timedelta`` or seconds
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``read_only``, ``options``
    """

    def __init__(
        self,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        wake: bool = True,
        poll_interval: Duration = 60.0,
        hook_params: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        check_flags(wake=wake)
        self.wake = wake
        self.poll_interval = read_wait("poll_interval", poll_interval)
        self.hook_params = hook_params

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "airflow_provider_lakebase.triggers.endpoint.LakebaseEndpointTrigger", {
            "lakebase_conn_id": self.lakebase_conn_id,
            "endpoint": self.endpoint,
            "wake": self.wake,
            "poll_interval": self.poll_interval,
            "hook_params": self.hook_params,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: success, or the error that ended the wait."""
        try:
            hook = create_hook(self.lakebase_conn_id, self.hook_params, endpoint=self.endpoint)
            polls = SharedPolls.of_running_loop()
            await polls.wait_until_ready(hook, wake=self.wake, interval=self.poll_interval)
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(success())
