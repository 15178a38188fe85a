"""Wait until a query returns a true value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.core.sql.deferrable import validate_deferrable_parameters
from airflow_provider_lakebase.core.sql.split import check_placeholders, read_parameters
from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin
from airflow_provider_lakebase.sensors._deferrable import DeferrableSensor
from airflow_provider_lakebase.triggers._polling import is_met
from airflow_provider_lakebase.triggers.query import LakebaseQuerySensorTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseQuerySensor(LakebaseOperatorMixin, DeferrableSensor):
    """Wait until the first cell of a query's first row is true: not NULL, false, 0 or empty.

    Every poke opens a session, which wakes the endpoint. With an interval shorter than its suspend timeout the endpoint
    never suspends; ``only_when_awake`` skips pokes while it is suspended.

    :param sql: the query, or the path of a ``.sql`` file (templated)
    :param parameters: parameters of the query (templated)
    :param only_when_awake: skip a poke while the endpoint is suspended, instead of waking it
    :param deferrable: wait in the triggerer, without occupying a worker slot; by default as ``[operators]
        default_deferrable`` says
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`; ``poke_interval`` and ``timeout``
        (seconds), ``mode`` and the other arguments of ``BaseSensorOperator``
    """

    template_fields: Sequence[str] = ("sql", "sql_parameters", *LakebaseOperatorMixin.template_fields)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "postgresql", "sql_parameters": "json"}

    def __init__(
        self,
        *,
        sql: str,
        parameters: Any = None,
        only_when_awake: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        self.sql = sql
        # The OpenLineage provider puts an attribute named "parameters" into every event, values included.
        self.sql_parameters = parameters
        check_flags(only_when_awake=only_when_awake)
        self.only_when_awake = only_when_awake

    def execute(self, context: Context) -> Any:
        """Wait, in the worker or in the triggerer.

        :raises AirflowFailException: for an error that no retry can help
        :raises psycopg.Error: if Postgres refused the query for another reason
        """
        if self.deferrable:
            with fail_without_retry():
                parameters = read_parameters(self.sql_parameters)
                check_placeholders(self.sql, parameters)
                validate_deferrable_parameters(parameters, hint="Or run the task with deferrable=False.")
                self._hook_arguments()
        return super().execute(context)

    def _trigger(self, context: Context) -> LakebaseQuerySensorTrigger:
        """Return the trigger that runs the query."""
        return LakebaseQuerySensorTrigger(
            sql=self.sql,
            parameters=read_parameters(self.sql_parameters),
            lakebase_conn_id=self.lakebase_conn_id,
            hook_params=self._hook_arguments(),
            poll_interval=self.poke_interval,
            only_when_awake=self.only_when_awake,
        )

    def poke(self, context: Context) -> bool:
        """Run the query once.

        :raises AirflowFailException: for an error that no retry can help
        :raises psycopg.Error: if Postgres refused the query for another reason
        """
        try:
            with fail_without_retry():
                # A new hook reads the connection anew: its secret may have been rotated since the last poke.
                self._hook = self._create_hook()
                if self.only_when_awake and not self._hook.endpoint_is_ready(wake=False):
                    return False
                return is_met(self._hook.get_first(self.sql, self.sql_parameters))
        except Exception as error:
            if not is_transient(error):
                raise
            self.log.warning("The query is run again later: %s", error)
            return False
