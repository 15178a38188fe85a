"""Run SQL on Lakebase from a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException, conf
from airflow.providers.common.sql.hooks.handlers import return_single_query_results
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

from airflow_provider_lakebase.core.sql.deferrable import validate_deferrable
from airflow_provider_lakebase.core.sql.split import read_parameters
from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._deferred import name_session, read_deferred_results
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.lineage.reports import report, report_sql
from airflow_provider_lakebase.links import LINKS, record_links
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin
from airflow_provider_lakebase.operators._task_instance import name_task_instance
from airflow_provider_lakebase.operators._xcom import to_xcom
from airflow_provider_lakebase.triggers._events import require_success
from airflow_provider_lakebase.triggers.statement import LakebaseStatementTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

_SYNCHRONOUS_HINT = "Run the task with deferrable=False."


class LakebaseSQLOperator(LakebaseOperatorMixin, SQLExecuteQueryOperator):
    """Run SQL on Lakebase.

    In addition to what ``SQLExecuteQueryOperator`` does: neither rows nor parameters reach the log, a result of any
    types fits into an XCom, a task that is killed or times out cancels its statement on the server, and a failure that
    no retry can help fails the task at once.

    :param sql: a statement, a list of statements, or the path of a ``.sql`` file (templated)
    :param parameters: parameters of the SQL (templated)
    :param deferrable: run the SQL in the triggerer, in one transaction, without occupying a worker slot; by default
        as ``[operators] default_deferrable`` says, if the SQL can be deferred. ``autocommit``, COPY, statements whose
        effect outlasts the transaction, and parameters that JSON cannot carry are refused, and so is a result larger
        than 48 KiB. If the triggerer dies, the next one terminates the session and runs the SQL again, even if it had
        just been committed, unless there is a ledger
    :param ledger_schema: for deferred SQL, the schema of a ledger (``airflow_lakebase``, if the role bootstrap created
        it). The commit then includes a record of the task; a restarted triggerer, a retry or a cleared task that finds
        the record runs nothing and returns None (templated). A handler runs after the commit
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`; ``autocommit``,
        ``split_statements``, ``return_last``, ``handler`` and the other arguments of ``SQLExecuteQueryOperator``,
        except ``show_return_value_in_logs``, which is refused
    """

    conn_id_field = "lakebase_conn_id"
    template_fields: Sequence[str] = (
        "sql",
        "sql_parameters",
        *LakebaseOperatorMixin.template_fields,
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
        deferrable: bool | None = None,
        ledger_schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("show_return_value_in_logs"):
            raise LakebaseSettingsError(
                "show_return_value_in_logs would write rows to the log", hint="Read the task's XCom instead."
            )
        if "conn_id" in kwargs:
            raise LakebaseSettingsError("conn_id is not an argument of this operator", hint="Use lakebase_conn_id.")
        super().__init__(sql=sql, **kwargs)
        check_flags(deferrable=deferrable)
        self.is_deferrable_by_choice = bool(deferrable)
        if deferrable is None:
            deferrable = not self.autocommit and conf.getboolean("operators", "default_deferrable", fallback=False)
        if ledger_schema and not deferrable:
            raise LakebaseSettingsError(
                "ledger_schema is given, but the task is not deferrable", hint="Give deferrable=True, or leave it out."
            )
        if self.autocommit and deferrable:
            hint = f"Leave autocommit out. {_SYNCHRONOUS_HINT}"
            raise LakebaseSettingsError("autocommit cannot be deferred: half of the SQL could run twice", hint=hint)
        # The OpenLineage provider puts an attribute named "parameters" into every event, values included. The base
        # class takes it from default_args.
        self.parameters = None
        self.sql_parameters = parameters
        self.deferrable = deferrable
        self.ledger_schema = ledger_schema

    def _do_render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        # A template may read {{ task.parameters }}, as in the base class.
        self.parameters = self.sql_parameters
        try:
            super()._do_render_template_fields(*args, **kwargs)
        finally:
            self.parameters = None

    def execute(self, context: Context) -> Any:
        """Run the SQL and return its result.

        :raises AirflowFailException: if no retry can help: settings, login, a missing or disabled endpoint, or SQL
            that Postgres refuses because of the statement or its role
        :raises LakebaseError: if a retry may help
        :raises psycopg.Error: if Postgres refused a statement for another reason
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
        """Handle the result; refuse one that an XCom cannot carry, while the transaction can still be rolled back."""
        result = cast(Any, self.handler)(cursor)
        if self._should_run_output_processing():
            to_xcom(self._hook._make_common_data_structure(result))
        return result

    @property
    def _wants_rows(self) -> bool:
        return bool(self._should_run_output_processing() or self.requires_result_fetch)

    def _defer(self, context: Context) -> None:
        ti = context["ti"]
        statements = self._statements()
        if not statements:
            raise ValueError("List of SQL statements is empty")  # as DbApiHook.run says it
        try:
            parameters = read_parameters(self.sql_parameters)
            validate_deferrable(statements, parameters, hint=_SYNCHRONOUS_HINT)
        except LakebaseSettingsError as error:
            if self.is_deferrable_by_choice or self.ledger_schema:
                raise AirflowFailException(str(error)) from error
            self.log.info("The task is not deferred: %s", error)
            return
        self.defer(
            trigger=LakebaseStatementTrigger(
                statements=statements,
                session_name=name_session(ti.dag_id, ti.task_id, name_task_instance(context)),
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
        """Return the SQL texts that each produce a result, split as ``DbApiHook.run`` splits them."""
        if not isinstance(self.sql, str):
            return list(self.sql)
        if self.split_statements:
            return list(self._hook.split_sql_string(self.sql))
        return [self.sql] if self.sql.strip() else []

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return the trigger's result as :meth:`execute` would.

        :raises AirflowFailException: if no retry can help
        :raises LakebaseError: if a retry may help
        :raises psycopg.Error: if Postgres refused a statement for another reason
        """
        with fail_without_retry(), record_links(context, self._hook):
            outcome = require_success(event)
        if outcome["results"] is None:
            self.log.info("The ledger in schema %s already has this task; nothing was run", self.ledger_schema)
            return None
        outputs = []
        single = return_single_query_results(self.sql, self.return_last, self.split_statements)
        # A template may now render to other SQL than the one that ran.
        cursors = read_deferred_results(outcome["results"])
        for statement, cursor in zip_longest(self._statements(), cursors, fillvalue=None):
            if cursor is None:
                break
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
        """Return the tables that the SQL reads and writes, from its text alone."""
        return report(self, lambda: report_sql(self._hook.settings, self.sql, has_parameters=bool(self.sql_parameters)))
