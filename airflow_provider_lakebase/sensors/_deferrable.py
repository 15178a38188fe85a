"""A sensor that can wait in the triggerer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, BaseSensorOperator

from airflow_provider_lakebase.core.workspace.specs import check_flags, read_wait
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.triggers._events import require_success

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

POKE_SECONDS = 10.0
"""Seconds that one poke may take."""


class DeferrableSensor(BaseSensorOperator):
    """Poke once, and then wait in the triggerer if ``deferrable`` is set.

    :param deferrable: whether it is set
    :param kwargs: arguments of ``BaseSensorOperator``
    """

    def __init__(self, *, deferrable: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_flags(deferrable=deferrable)
        self.deferrable = deferrable
        if deferrable:
            read_wait("poke_interval", self.poke_interval)

    def _trigger(self, context: Context) -> BaseTrigger:
        """Return the trigger that waits."""
        raise NotImplementedError

    def _is_met_at_once(self, context: Context) -> bool:
        """Return whether there is nothing to defer for."""
        return bool(self.poke(context))

    def execute(self, context: Context) -> Any:
        """Wait, in the worker or in the triggerer.

        :raises AirflowFailException: for an error that no retry can help
        """
        if not self.deferrable:
            return super().execute(context)
        try:
            if self._is_met_at_once(context):
                return None
        except AirflowException as error:
            # BaseSensorOperator does so only for pokes of its own.
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("Skipping, because soft_fail or never_fail is set") from error
            raise
        self.defer(
            trigger=self._trigger(context),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Succeed or fail, as the trigger did.

        :raises AirflowFailException: for an error that no retry can help
        """
        with fail_without_retry():
            self._succeed(context, require_success(event))

    def _succeed(self, context: Context, event: Mapping[str, Any]) -> None:
        """Do what is left when the trigger has succeeded."""
