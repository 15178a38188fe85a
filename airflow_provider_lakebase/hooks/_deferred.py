"""SQL on the hook's asynchronous sessions, as triggers run it.

All that loads psycopg is imported inside the functions, so that a DAG file that imports a trigger stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.errors.classify import add_context
from airflow_provider_lakebase.core.sql.deferrable import DeferredStatements
from airflow_provider_lakebase.core.sql.split import Parameters, shorten
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
    from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession
    from airflow_provider_lakebase.core.sql.results import ResultCursor, TextResult


def name_session(dag_id: str, task_id: str, task_instance: str) -> str:
    """Return the ``application_name`` of the session that runs the statements of a task instance.

    :param dag_id: the DAG's id
    :param task_id: the task's id
    :param task_instance: the task instance's name, as the ledger has it
    """
    from airflow_provider_lakebase.core.session.application_name import name_statements

    return name_statements(dag_id, task_id, task_instance)


async def run_deferred(hook: LakebaseHook, settings: LakebaseSettings, request: DeferredStatements) -> str | None:
    """Run statements in one transaction of a session of their own.

    :param hook: the hook to open the session with
    :param settings: from :meth:`LakebaseHook.read_settings_async`
    :param request: the statements
    :raises LakebaseError: if no session could be opened, or the statements could not be run
    :raises psycopg.Error: if Postgres refused a statement
    :returns: the results, for :func:`read_deferred_results`; None if the ledger already has the task
    """
    async with hook.open_async(settings, request.session_name) as session:
        from airflow_provider_lakebase.core.sql.results import write_results
        from airflow_provider_lakebase.core.sql.run_async import run_statements

        if hook.log_sql:
            for text in request.statements:
                hook.log.info("Running statement: %s", shorten(text))
        try:
            results = await run_statements(session, request)
        except Exception as error:
            add_context(error, session.context)
            raise
        return None if results is None else write_results(results)


def read_deferred_results(text: str) -> list[ResultCursor]:
    """Return a cursor over the result of each statement text.

    :param text: from :func:`run_deferred`
    """
    from airflow_provider_lakebase.core.sql.results import ResultCursor, read_results

    return [ResultCursor(result) for result in read_results(text)]


async def fetch(session: AsyncLakebaseSession, sql: str, parameters: Parameters = None) -> TextResult:
    """Run SQL in the session's transaction and return the rows of its last statement, as text.

    :param session: from :meth:`LakebaseHook.open_async`
    :param sql: one or more statements
    :param parameters: parameters, shared by all statements
    :raises LakebaseSettingsError: if the parameters do not match the placeholders
    :raises psycopg.Error: if Postgres refused a statement
    """
    from airflow_provider_lakebase.core.sql.run_async import run_text

    return await run_text(session, sql, parameters)


async def fetch_first(session: AsyncLakebaseSession, sql: str, parameters: Parameters = None) -> tuple[Any, ...] | None:
    """Run SQL in the session's transaction and return the first row of its last statement, or None.

    :param session: from :meth:`LakebaseHook.open_async`
    :param sql: one or more statements; the last one is cancelled once it has returned more than one row
    :param parameters: parameters, shared by all statements
    :raises LakebaseSettingsError: if the parameters do not match the placeholders
    :raises psycopg.Error: if Postgres refused a statement
    """
    from airflow_provider_lakebase.core.sql.results import ResultCursor
    from airflow_provider_lakebase.core.sql.run_async import run_text

    return ResultCursor(await run_text(session, sql, parameters, max_rows=1)).fetchone()
