"""Run SQL on Lakebase from a task."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.providers.common.sql.hooks.handlers import return_single_query_results
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.sql.split import read_parameters
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook, fail_without_retry, merge_hook_params
from airflow_provider_lakebase.lineage.reports import report, report_sql
from airflow_provider_lakebase.links import LINKS, record_links
from airflow_provider_lakebase.operators._task_instance import name_task_instance
from airflow_provider_lakebase.triggers._events import require_success
from airflow_provider_lakebase.triggers.statement import LakebaseStatementTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_RESERVED_KEYS = {"__classname__", "__id__", "__type", "__var"}
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
    :param hook_params: further arguments of the hook, as ``{"options": "-c statement_timeout=5min"}``; what is given
        beside it as well is refused (templated)
    :param deferrable: run it in the triggerer, in one transaction, while the task holds no worker slot; by default as
        ``[operators] default_deferrable`` says, for what can be. ``autocommit``, COPY, statements for the session
        rather than the transaction, and parameters that are no JSON are refused, and so is a result of more than
        48 KiB. When the triggerer dies, the next one ends the session it left and runs the SQL again, even if it was
        committed just before, unless there is a ledger
    :param ledger_schema: deferred, the commit carries a record of the task in the ledger of this schema
        (``airflow_lakebase``, where the role bootstrap prepares it); a restarted triggerer, a retry or a cleared task
        that finds it runs nothing and returns None (templated). A handler runs after the commit
    :param kwargs: ``autocommit``, ``split_statements``, ``return_last``, ``handler`` and the other arguments of
        ``SQLExecuteQueryOperator``, but for ``show_return_value_in_logs``, which is refused
    """

    conn_id_field = "lakebase_conn_id"
    template_fields: Sequence[str] = (
        "sql",
        "sql_parameters",
        "lakebase_conn_id",
        "endpoint",
        "database",
        "hook_params",
        "ledger_schema",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "postgresql", "sql_parameters": "json"}
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        sql: str | list[str],
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        database: str | None = None,
        read_only: bool | None = None,
        deferrable: bool | None = None,
        ledger_schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("show_return_value_in_logs"):
            raise LakebaseSettingsError(
                "show_return_value_in_logs would put rows into the log", hint="Read the task's XCom instead."
            )
        if "conn_id" in kwargs:
            raise LakebaseSettingsError("conn_id is not an argument of this operator", hint="Use lakebase_conn_id.")
        super().__init__(sql=sql, database=database, **kwargs)
        self.is_deferrable_by_choice = bool(deferrable)
        if deferrable is None:
            deferrable = not self.autocommit and conf.getboolean("operators", "default_deferrable", fallback=False)
        if ledger_schema and not deferrable:
            raise LakebaseSettingsError("ledger_schema is given, but the task is not deferrable", hint="Defer it.")
        if self.autocommit and deferrable:
            hint = "Leave autocommit out, or run the task with deferrable=False."
            raise LakebaseSettingsError("autocommit cannot be deferred: half of it could run twice", hint=hint)
        # The OpenLineage provider puts an attribute of the name "parameters", values and all, into every event. The
        # operator that this one extends takes it from ``default_args`` by itself.
        self.parameters = None
        self.sql_parameters = parameters
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.read_only = read_only
        self.deferrable = deferrable
        self.ledger_schema = ledger_schema
        if isinstance(self.hook_params, Mapping):
            self._hook_arguments()

    def _hook_arguments(self) -> dict[str, Any]:
        return merge_hook_params(
            self.hook_params, endpoint=self.endpoint, database=self.database, read_only=self.read_only
        )

    @cached_property
    def _hook(self) -> LakebaseHook:
        return LakebaseHook(self.lakebase_conn_id, **self._hook_arguments())

    def _do_render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        # A template may read {{ task.parameters }}, as in the operator that this one extends.
        self.parameters = self.sql_parameters
        try:
            super()._do_render_template_fields(*args, **kwargs)
        finally:
            self.parameters = None

    def execute(self, context: Context) -> Any:
        """Run the SQL and return its result.

        :raises AirflowFailException: when no retry can help: settings, login, a missing or disabled endpoint, or SQL
            that Postgres refuses for what it says or for the role that runs it
        :raises LakebaseError: when a retry may help
        :raises psycopg.Error: as Postgres refused the statement
        """
        with fail_without_retry():
            self._hook_arguments()
        if self.deferrable:
            self._defer(context)
        split = {} if self.split_statements is None else {"split_statements": self.split_statements}
        with fail_without_retry(), record_links(context, self._hook):
            output = self._hook.run(
                sql=self.sql,
                autocommit=self.autocommit,
                parameters=self.sql_parameters,
                handler=self._handle_before_commit if self._wants_rows else None,
                return_last=self.return_last,
                **split,
            )
        return self._finish(output)

    def _handle_before_commit(self, cursor: Any) -> Any:
        """Refuse, while the transaction can still be rolled back, a result that no XCom carries."""
        result = cast(Any, self.handler)(cursor)
        if self._should_run_output_processing():
            to_xcom(self._hook._make_common_data_structure(result))
        return result

    @property
    def _wants_rows(self) -> bool:
        return bool(self._should_run_output_processing() or self.requires_result_fetch)

    def _defer(self, context: Context) -> None:
        from airflow_provider_lakebase.core.session.application_name import name_statements
        from airflow_provider_lakebase.core.sql.run_async import validate_deferrable

        ti = context["ti"]
        statements = self._statements()
        if not statements:
            raise ValueError("List of SQL statements is empty")  # as DbApiHook.run says it
        try:
            parameters = read_parameters(self.sql_parameters)
            validate_deferrable(statements, parameters)
        except LakebaseSettingsError as error:
            if self.is_deferrable_by_choice or self.ledger_schema:
                raise AirflowFailException(str(error)) from error
            self.log.info("The task is not deferred: %s", error)
            return
        self.defer(
            trigger=LakebaseStatementTrigger(
                statements=statements,
                session_name=name_statements(ti.dag_id, ti.task_id, name_task_instance(context)),
                parameters=parameters,
                lakebase_conn_id=self.lakebase_conn_id,
                hook_params=self._hook_arguments(),
                fetch=self._wants_rows,
                ledger_schema=self.ledger_schema,
                load_id=name_task_instance(context),
            ),
            method_name="execute_complete",
            timeout=self.execution_timeout,
        )

    def _statements(self) -> list[str]:
        """Return the texts of which each has a result, as ``DbApiHook.run`` makes them."""
        if not isinstance(self.sql, str):
            return list(self.sql)
        if self.split_statements:
            return list(self._hook.split_sql_string(self.sql))
        return [self.sql] if self.sql.strip() else []

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return the result that the trigger got, as :meth:`execute` would.

        :raises AirflowFailException: when no retry can help
        :raises LakebaseError: when a retry may help
        :raises psycopg.Error: as Postgres refused the statement
        """
        from airflow_provider_lakebase.core.sql.run_async import ResultCursor, read_results

        with fail_without_retry(), record_links(context, self._hook):
            outcome = require_success(event)
        if outcome["results"] is None:
            self.log.info("The ledger in schema %s holds this task already; nothing was run", self.ledger_schema)
            return None
        outputs = []
        single = return_single_query_results(self.sql, self.return_last, self.split_statements)
        # Rendered anew, the SQL may have become another one.
        for statement, result in zip_longest(self._statements(), read_results(outcome["results"]), fillvalue=None):
            if result is None:
                break
            cursor = ResultCursor(result)
            send_sql_hook_lineage(context=self._hook, sql=statement or "", row_count=cursor.rowcount)
            self.log.info("Rows: %s", cursor.rowcount)
            if self._wants_rows and self.handler is not None:
                outputs.append(self._hook._make_common_data_structure(self.handler(cursor)))
                if single:
                    self._hook.descriptions.clear()
                self._hook.descriptions.append(cursor.description)
        return self._finish((outputs[-1] if outputs else None) if single else outputs)

    def _finish(self, output: Any) -> Any:
        if not self._should_run_output_processing():
            return None
        if return_single_query_results(self.sql, self.return_last, self.split_statements):
            return self._process_output([output], self._hook.descriptions)[-1]
        return self._process_output(cast(list[Any], output), self._hook.descriptions)

    def _process_output(self, results: list[Any], descriptions: list[Any]) -> Any:
        return to_xcom(super()._process_output(results, descriptions))

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return what the SQL reads and writes, by its text; nothing is asked of Lakebase."""
        return report(self, lambda: report_sql(self._hook.settings, self.sql, has_parameters=bool(self.sql_parameters)))

    def on_kill(self) -> None:
        """Cancel the running statement on the server."""
        self._hook.cancel()


def to_xcom(value: Any) -> Any:
    """Return a result with those values as text that an XCom cannot carry, or would carry as other values.

    Containers and all else stay as they are. NaN and infinity are written as Postgres does, JSON as JSON.

    :param value: what a handler returned: rows, a row or a value
    :raises LakebaseSettingsError: for a value of a type that has no text of its own
    """
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, _NOT_FOR_XCOM) or kind.__module__.startswith("psycopg."):
        return str(value)
    if kind is dict:
        if not all(type(key) is str for key in value) or _RESERVED_KEYS & value.keys():
            return json.dumps(value, default=str)
        return {key: to_xcom(item) for key, item in value.items()}
    if kind in (list, tuple):
        return kind(to_xcom(item) for item in value)
    return _leaf_to_xcom(value)


def _leaf_to_xcom(value: Any) -> Any:
    if type(value) is float:
        return value if math.isfinite(value) else _NOT_FINITE.get(value, "NaN")
    if isinstance(value, Decimal) and not value.is_finite():
        return _NOT_FINITE.get(float(value), "NaN") if not value.is_nan() else "NaN"
    if _arrives(value):
        return value
    if isinstance(value, Decimal | datetime.date | datetime.timedelta | uuid.UUID | enum.Enum):
        return str(value)
    raise LakebaseSettingsError(
        f"A value of the result is a {type(value).__name__}, which no XCom carries; the statements were not committed",
        hint="Return other values from the handler, or give do_xcom_push=False.",
    )


def _arrives(value: Any) -> bool:
    """Return whether Airflow's XCom gives a value back as it is."""
    try:
        from airflow.sdk.serde import deserialize, serialize
    except ModuleNotFoundError:  # goes with Airflow 3.1
        from airflow.serialization.serde import (  # type: ignore[import-not-found,no-redef]
            deserialize,
            serialize,
        )
    try:
        return bool(deserialize(json.loads(json.dumps(serialize(value), allow_nan=False))) == value)
    except Exception:
        return False
