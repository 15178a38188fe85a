"""Run SQL in the triggerer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.sql.deferrable import DeferredStatements
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError
from airflow_provider_lakebase.hooks._arguments import create_hook
from airflow_provider_lakebase.hooks._deferred import run_deferred
from airflow_provider_lakebase.triggers._events import event, failure, success

_MAX_TRIES = 3
"""Runs with a ledger, if the session is lost at each COMMIT."""


class LakebaseStatementTrigger(BaseTrigger):
    """Run statements in one transaction, and fire with their result.

    If the trigger is cancelled because its task was cleared, killed or timed out, the statement is cancelled on the
    server.

    If the triggerer dies, another one runs the trigger again without knowing whether the statements were run. It first
    terminates the session of the earlier run, which it finds by its ``application_name``, and never runs the
    statements twice at once. A transaction that was committed just before the triggerer died is run again, unless
    there is a ledger: then the commit includes a record, and a run that finds the record does nothing.

    :param statements: SQL texts, each of one or more statements
    :param session_name: ``application_name`` of the session, the same for all attempts of a task and for no other task
    :param parameters: parameters of each text
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``read_only``, ``options``
    :param fetch: whether to return rows
    :param ledger_schema: schema of the ledger; None for no ledger
    :param load_id: identity of the task in the ledger
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
        """Return the class path and the arguments."""
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
            results = await self._run()
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(success(results=results))

    async def _run(self) -> str | None:
        hook = create_hook(self.lakebase_conn_id, self.hook_params)
        settings = await hook.read_settings_async()
        request = DeferredStatements(
            statements=self.statements,
            parameters=self.parameters,
            session_name=self.session_name,
            fetch=self.fetch,
            ledger_schema=self.ledger_schema,
            load_id=self.load_id,
        )
        tries = 1
        while True:
            try:
                return await run_deferred(hook, settings, request)
            except LakebaseOutcomeUnknownError:
                if self.ledger_schema is None or tries == _MAX_TRIES:
                    raise
                self.log.info("The session was lost during COMMIT; looking into the ledger for the outcome")
                tries += 1
