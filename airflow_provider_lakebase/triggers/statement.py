"""Run SQL in the triggerer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook, shorten_statement
from airflow_provider_lakebase.triggers._events import event, failure, success

_TRIES_TO_LEARN = 3
"""Runs with a ledger, when the session is lost at each COMMIT."""


class LakebaseStatementTrigger(BaseTrigger):
    """Run statements in one transaction, and fire with their result.

    Cancelled, because its task was cleared, killed or timed out, it cancels the statement on the server.

    When the triggerer dies, another one runs the trigger again, and nothing says whether the statements were run. So it
    ends its own earlier session first, by its ``application_name``, and never runs two at once. A transaction that was
    committed just before the triggerer died is run again, unless ``ledger_schema`` is named: then the commit carries a
    record, and who finds it is done.

    :param statements: texts, each of one or more statements
    :param parameters: of each text
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``read_only``, ``options``
    :param session_name: ``application_name`` of the session: the same at each attempt of a task, and no other task's
    :param fetch: whether rows are wanted
    :param ledger_schema: schema of the ledger, or None for none
    :param load_id: the task's identity in the ledger
    """

    def __init__(
        self,
        statements: list[str],
        session_name: str,
        parameters: Any = None,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        hook_params: dict[str, Any] | None = None,
        fetch: bool = True,
        ledger_schema: str | None = None,
        load_id: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.statements = statements
        self.session_name = session_name
        self.parameters = parameters
        self.lakebase_conn_id = lakebase_conn_id
        self.hook_params = hook_params
        self.fetch = fetch
        self.ledger_schema = ledger_schema
        self.load_id = load_id

    def __repr__(self) -> str:
        return f"<LakebaseStatementTrigger {self.session_name}>"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "airflow_provider_lakebase.triggers.statement.LakebaseStatementTrigger", {
            "statements": self.statements,
            "session_name": self.session_name,
            "parameters": self.parameters,
            "lakebase_conn_id": self.lakebase_conn_id,
            "hook_params": self.hook_params,
            "fetch": self.fetch,
            "ledger_schema": self.ledger_schema,
            "load_id": self.load_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the statements, and yield one event: their result, or the error."""
        try:
            outcome = await self._run()
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(outcome)

    async def _run(self) -> dict[str, Any]:
        hook = LakebaseHook(self.lakebase_conn_id, **(self.hook_params or {}))
        settings = await hook.read_settings_async()
        tries = 1
        while True:
            try:
                async with hook.open_async(settings, self.session_name) as session:
                    return await self._run_in(session, bool(hook.log_sql))
            except LakebaseOutcomeUnknownError:
                if self.ledger_schema is None or tries == _TRIES_TO_LEARN:
                    raise
                self.log.info("The session was lost while the transaction was committed; the ledger will tell")
                tries += 1

    async def _run_in(self, session: Any, log_sql: bool) -> dict[str, Any]:
        from airflow_provider_lakebase.core.sql.run_async import StatementsRequest, run_statements, write_results

        if log_sql:
            for text in self.statements:
                self.log.info("Running statement: %s", shorten_statement(text))
        request = StatementsRequest(
            statements=self.statements,
            parameters=self.parameters,
            session_name=self.session_name,
            fetch=self.fetch,
            ledger_schema=self.ledger_schema,
            load_id=self.load_id,
        )
        try:
            results = await run_statements(session, request)
        except Exception as error:
            if hasattr(error, "sqlstate"):
                error.add_note(str(session.context))
            raise
        return success(results=None if results is None else write_results(results))
