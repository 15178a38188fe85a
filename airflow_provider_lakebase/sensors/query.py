"""Wait for what a query says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseSensorOperator, conf

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.core.sql.split import check_placeholders, read_parameters
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook, fail_without_retry, merge_hook_params
from airflow_provider_lakebase.triggers._events import require_success
from airflow_provider_lakebase.triggers.query import LakebaseQuerySensorTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseQuerySensor(BaseSensorOperator):
    """Wait until the first cell of a query's first row is true: neither NULL, false, 0 nor empty.

    Every poll opens a session, which wakes the endpoint, and an interval shorter than its suspend timeout never lets it
    sleep; ``only_when_awake`` leaves the polls out while it sleeps.

    :param sql: the query, or path of a ``.sql`` file (templated)
    :param parameters: of the query (templated)
    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param endpoint: endpoint in place of the connection's (templated)
    :param database: database in place of the connection's (templated)
    :param hook_params: further arguments of the hook, as ``{"options": "-c statement_timeout=5min"}`` (templated)
    :param only_when_awake: leave a poll out while the endpoint sleeps, rather than wake it
    :param deferrable: wait in the triggerer, without a worker slot; by default as ``[operators] default_deferrable``
        says
    :param kwargs: ``poke_interval``, ``timeout`` (seconds), ``mode`` and the other arguments of ``BaseSensorOperator``
    """

    template_fields: Sequence[str] = (
        "sql",
        "sql_parameters",
        "lakebase_conn_id",
        "endpoint",
        "database",
        "hook_params",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "postgresql", "sql_parameters": "json"}

    def __init__(
        self,
        *,
        sql: str,
        parameters: Any = None,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        database: str | None = None,
        hook_params: dict[str, Any] | None = None,
        only_when_awake: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        # The OpenLineage provider puts an attribute of the name "parameters", values and all, into every event.
        self.sql_parameters = parameters
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.database = database
        self.hook_params = hook_params
        self.only_when_awake = only_when_awake
        self.deferrable = deferrable
        if isinstance(hook_params, Mapping):
            self._hook_arguments()

    def _hook_arguments(self) -> dict[str, Any]:
        return merge_hook_params(self.hook_params, endpoint=self.endpoint, database=self.database)

    def execute(self, context: Context) -> Any:
        """Wait, here or in the triggerer.

        :raises AirflowFailException: for a failure that does not pass by itself
        :raises psycopg.Error: as Postgres refused the query
        """
        if not self.deferrable:
            return super().execute(context)
        from airflow_provider_lakebase.core.sql.run_async import refuse_parameters

        with fail_without_retry():
            parameters = read_parameters(self.sql_parameters)
            check_placeholders(self.sql, parameters)
            refuse_parameters(parameters)
            hook_params = self._hook_arguments()
        if self.poke(context):  # what is true already needs no triggerer
            return None
        self.defer(
            trigger=LakebaseQuerySensorTrigger(
                sql=self.sql,
                parameters=parameters,
                lakebase_conn_id=self.lakebase_conn_id,
                hook_params=hook_params,
                poll_interval=self.poke_interval,
                only_when_awake=self.only_when_awake,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Take what the trigger found.

        :raises AirflowFailException: for a failure that does not pass by itself
        :raises psycopg.Error: as Postgres refused the query
        """
        with fail_without_retry():
            require_success(event)

    def poke(self, context: Context) -> bool:
        """Ask the query once.

        :raises AirflowFailException: for a failure that does not pass by itself
        :raises psycopg.Error: as Postgres refused the query
        """
        try:
            with fail_without_retry():
                hook = LakebaseHook(self.lakebase_conn_id, **self._hook_arguments())
                if self.only_when_awake and not hook.endpoint_is_ready(wake=False):
                    return False
                row = hook.get_first(self.sql, self.sql_parameters)
        except Exception as error:
            if not is_transient(error):
                raise
            self.log.warning("The query is asked again later: %s", error)
            return False
        return bool(row and row[0])
