"""Wait for a Lakebase endpoint to answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, BaseSensorOperator, conf

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook, fail_without_retry
from airflow_provider_lakebase.triggers._events import require_success
from airflow_provider_lakebase.triggers.endpoint import LakebaseEndpointTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

POKE_SECONDS = 10.0
"""Seconds that one poke may take."""


class LakebaseEndpointSensor(BaseSensorOperator):
    """Wait until an endpoint is ACTIVE and a session answers.

    A disabled or missing endpoint, or one that refuses the login, fails the task at once: waiting would not help.

    Deferred, it holds no worker slot: the triggerer waits, and all sensors there that wait for one endpoint as one
    identity share the readings of its state and the knock.

    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param endpoint: endpoint in place of the connection's (templated)
    :param wake: knock with a connection at each poke, which wakes the endpoint; with False only its state is read,
        which does not, and no session is opened
    :param deferrable: wait in the triggerer, unless the endpoint is ready at once; by default as ``[operators]
        default_deferrable`` says
    :param kwargs: ``poke_interval``, ``timeout`` (seconds), ``mode`` and the other arguments of ``BaseSensorOperator``
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "endpoint")

    def __init__(
        self,
        *,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        wake: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.wake = wake
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait, here or in the triggerer.

        :raises AirflowFailException: for a failure that does not pass by itself
        """
        if not self.deferrable:
            return super().execute(context)
        try:
            if self._is_ready(wake=False) and (not self.wake or self._is_ready(wake=True)):
                return None
        except AirflowException as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("Skipping, as soft_fail or never_fail says") from error
            raise
        self.defer(
            trigger=LakebaseEndpointTrigger(self.lakebase_conn_id, self.endpoint, self.wake, self.poke_interval),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Take what the trigger found.

        :raises AirflowFailException: for a failure that does not pass by itself
        """
        with fail_without_retry():
            require_success(event)

    def poke(self, context: Context) -> bool:
        """Make one attempt of at most 10 seconds.

        :raises AirflowFailException: for a failure that does not pass by itself
        """
        return self._is_ready(self.wake)

    def _is_ready(self, wake: bool) -> bool:
        hook = LakebaseHook(self.lakebase_conn_id, self.endpoint)
        try:
            with fail_without_retry():
                return hook.endpoint_is_ready(wake=wake, timeout=POKE_SECONDS)
        except LakebaseWorkspaceError as error:
            self.log.warning("It is tried again: %s", error)
            return False
