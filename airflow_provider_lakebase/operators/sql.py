"""Run SQL on Lakebase from a task."""

from __future__ import annotations

import datetime
import ipaddress
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.providers.common.sql.hooks.handlers import return_single_query_results
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook, failing_for_good

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_NOT_FOR_XCOM = (
    # Airflow 2's XCom has no UUID; goes with Airflow 2.
    *(() if AIRFLOW_V_3_0_PLUS else (uuid.UUID,)),
    datetime.time,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)


class LakebaseSQLOperator(SQLExecuteQueryOperator):
    """Run SQL on Lakebase.

    It does what ``SQLExecuteQueryOperator`` does, and more: neither rows nor parameters reach the log, the result fits
    into an XCom whatever its types, a task that is killed or times out cancels its statement on the server, and a
    failure that no retry can help fails the task at once.

    :param sql: statement, list of statements, or path of a ``.sql`` file (templated)
    :param parameters: parameters of the statement (templated)
    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param endpoint: endpoint in place of the connection's (templated)
    :param database: database in place of the connection's (templated)
    :param read_only: whether the session only reads, on the read-only host where there is one; by default as the
        connection says
    :param hook_params: further arguments of the hook, as ``{"options": "-c statement_timeout=5min"}`` (templated)
    :param kwargs: ``autocommit``, ``split_statements``, ``return_last``, ``handler`` and the other arguments of
        ``SQLExecuteQueryOperator``, but for ``show_return_value_in_logs``, which is refused
    """

    conn_id_field = "lakebase_conn_id"
    template_fields: Sequence[str] = ("sql", "parameters", "lakebase_conn_id", "endpoint", "database", "hook_params")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "postgresql", "parameters": "json"}

    def __init__(
        self,
        *,
        sql: str | list[str],
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        database: str | None = None,
        read_only: bool | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("show_return_value_in_logs"):
            raise LakebaseSettingsError(
                "show_return_value_in_logs would put rows into the log", remedy="Read the task's XCom instead."
            )
        if "conn_id" in kwargs:
            raise LakebaseSettingsError("conn_id is not an argument of this operator", remedy="Use lakebase_conn_id.")
        super().__init__(sql=sql, database=database, **kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.read_only = read_only

    @cached_property
    def _hook(self) -> LakebaseHook:
        return LakebaseHook(
            self.lakebase_conn_id, self.endpoint, self.database, **{"read_only": self.read_only, **self.hook_params}
        )

    def execute(self, context: Context) -> Any:
        """Run the SQL and return its result.

        :raises AirflowFailException: when no retry can help: settings, login, a missing or disabled endpoint
        :raises LakebaseError: when a retry may help
        :raises psycopg.Error: as Postgres refused the statement
        """
        wanted = self._should_run_output_processing()
        split = {} if self.split_statements is None else {"split_statements": self.split_statements}
        with failing_for_good():
            output = self._hook.run(
                sql=self.sql,
                autocommit=self.autocommit,
                parameters=self.parameters,
                handler=self.handler if wanted or self.requires_result_fetch else None,
                return_last=self.return_last,
                **split,
            )
        if not wanted:
            return None
        if return_single_query_results(self.sql, self.return_last, self.split_statements):
            return self._process_output([output], self._hook.descriptions)[-1]
        return self._process_output(cast(list[Any], output), self._hook.descriptions)

    def _process_output(self, results: list[Any], descriptions: list[Any]) -> Any:
        return to_xcom(super()._process_output(results, descriptions))

    def on_kill(self) -> None:
        """Cancel the running statement on the server."""
        self._hook.cancel()


def to_xcom(value: Any) -> Any:
    """Return a result with those values as text that an XCom cannot carry; containers and all else stay as they are.

    :param value: what a handler returned: rows, a row or a value
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, _NOT_FOR_XCOM) or type(value).__module__.startswith("psycopg."):
        return str(value)
    if isinstance(value, Mapping) and type(value) is dict:
        return {key: to_xcom(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_xcom(item) for item in value)
    return value
