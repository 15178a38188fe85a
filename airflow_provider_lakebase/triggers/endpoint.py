"""Wait in the triggerer for an endpoint to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.triggers._events import event, failure, success
from airflow_provider_lakebase.triggers._shared_poll import wait_until_ready


class LakebaseEndpointTrigger(BaseTrigger):
    """Fire when an endpoint is ACTIVE and, where it is to be woken, a session answers.

    All of them in a triggerer that wait for one endpoint as one identity share one reading of its state, as often as
    the most eager of them wants it, and one knock.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param endpoint: endpoint in place of the connection's
    :param wake: knock with a connection, which wakes the endpoint; with False only its state is read
    :param poll_interval: seconds between two readings of the state
    """

    def __init__(
        self,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        wake: bool = True,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.wake = wake
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "airflow_provider_lakebase.triggers.endpoint.LakebaseEndpointTrigger", {
            "lakebase_conn_id": self.lakebase_conn_id,
            "endpoint": self.endpoint,
            "wake": self.wake,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: that the endpoint is ready, or the error that waiting does not help."""
        hook = LakebaseHook(self.lakebase_conn_id, self.endpoint)
        try:
            await wait_until_ready(hook, wake=self.wake, interval=self.poll_interval)
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(success())
