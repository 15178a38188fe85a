"""Wait for a Lakebase endpoint to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator

from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError
from airflow_provider_lakebase.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook, failing_for_good

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

POKE_SECONDS = 10.0
"""Seconds that one poke may take."""


class LakebaseEndpointSensor(BaseSensorOperator):
    """Wait until an endpoint is ACTIVE and a session answers.

    A disabled or missing endpoint, or one that refuses the login, fails the task at once: waiting would not help.

    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param endpoint: endpoint in place of the connection's (templated)
    :param wake: knock with a connection at each poke, which wakes the endpoint; with False only its state is read,
        which does not, and no session is opened
    :param kwargs: ``poke_interval``, ``timeout`` (seconds), ``mode`` and the other arguments of ``BaseSensorOperator``
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "endpoint")

    def __init__(
        self,
        *,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        wake: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.wake = wake

    def poke(self, context: Context) -> bool:
        """Make one attempt of at most 10 seconds.

        :raises AirflowFailException: for a failure that does not pass by itself
        """
        hook = LakebaseHook(self.lakebase_conn_id, self.endpoint)
        try:
            with failing_for_good():
                return hook.endpoint_is_ready(wake=self.wake, timeout=POKE_SECONDS)
        except LakebaseWorkspaceError as error:
            self.log.warning("The next poke tries again: %s", error)
            return False
