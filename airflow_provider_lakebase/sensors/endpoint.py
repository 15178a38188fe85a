"""Wait for a Lakebase endpoint to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin
from airflow_provider_lakebase.sensors._deferrable import POKE_SECONDS, DeferrableSensor
from airflow_provider_lakebase.triggers.endpoint import LakebaseEndpointTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseEndpointSensor(LakebaseOperatorMixin, DeferrableSensor):
    """Wait until an endpoint is ACTIVE and answers.

    A disabled or missing endpoint, or a refused login, fails the task at once, because waiting would not help.

    A deferred sensor occupies no worker slot. All sensors in a triggerer that wait for the same endpoint with the same
    identity share one poll of its state and one probe.

    :param wake: probe the endpoint with a session at each poke, which wakes it; if False, only read its state and
        open no session
    :param deferrable: wait in the triggerer, unless the endpoint is ready at once; by default as ``[operators]
        default_deferrable`` says
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`; ``poke_interval`` and ``timeout``
        (seconds), ``mode`` and the other arguments of ``BaseSensorOperator``
    """

    template_fields: Sequence[str] = LakebaseOperatorMixin.template_fields

    def __init__(
        self,
        *,
        wake: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        check_flags(wake=wake)
        self.wake = wake

    def _is_met_at_once(self, context: Context) -> bool:
        """Return whether the endpoint is ready, and do not wait for one to wake."""
        return self._is_ready(wake=False) and (not self.wake or self._is_ready(wake=True))

    def _trigger(self, context: Context) -> LakebaseEndpointTrigger:
        """Return the trigger that waits for the endpoint."""
        return LakebaseEndpointTrigger(
            self.lakebase_conn_id,
            wake=self.wake,
            poll_interval=self.poke_interval,
            hook_params=self._hook_arguments(),
        )

    def poke(self, context: Context) -> bool:
        """Check once whether the endpoint is ready, for at most 10 seconds.

        :raises AirflowFailException: for an error that is not transient
        """
        return self._is_ready(self.wake)

    def _is_ready(self, wake: bool) -> bool:
        try:
            with fail_without_retry():
                # A new hook reads the connection anew: its secret may have been rotated since the last poke.
                self._hook = self._create_hook()
                return self._hook.endpoint_is_ready(wake=wake, timeout=POKE_SECONDS)
        except LakebaseWorkspaceError as error:
            self.log.warning("The endpoint is checked again later: %s", error)
            return False
