"""Run a query again and again in the triggerer: until its first cell is true, or for every row that it finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._deferred import fetch, fetch_first
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.triggers._events import event, failure, success
from airflow_provider_lakebase.triggers._polling import PollingTrigger, is_met

if AIRFLOW_V_3_0_PLUS:
    from airflow.triggers.base import BaseEventTrigger
else:  # goes with Airflow 2, which has no asset watchers
    BaseEventTrigger = BaseTrigger  # type: ignore[misc, assignment]

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
    from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession

STORING_SECONDS = 5.0
"""Seconds the triggerer gets to store an event before its rows are committed as taken."""
WATERMARK = "lakebase_watermark"
"""Key of the watermark in an asset's state."""


class LakebaseQuerySensorTrigger(PollingTrigger):
    """Fire when the first cell of a query's first row is true.

    :param sql: the query
    :param parameters: parameters of the query
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``read_only``, ``options``
    :param poll_interval: pause between two polls, ``timedelta`` or seconds
    :param only_when_awake: skip a poll while the endpoint is suspended, instead of waking it
    """

    def __init__(self, sql: str, parameters: Any = None, **kwargs: Any) -> None:
        super().__init__(sql, **kwargs)
        self.parameters = parameters

    def __repr__(self) -> str:
        return f"<LakebaseQuerySensorTrigger on {self.lakebase_conn_id}>"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        path = "airflow_provider_lakebase.triggers.query.LakebaseQuerySensorTrigger"
        return path, {**self._arguments(), "parameters": self.parameters}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: success, or the error that ended the wait."""
        try:
            hook = self._create_hook()
            settings = await hook.read_settings_async()
            retrying = self._retrying(is_transient)
            while not await retrying(self._poll, hook, settings):
                await self._pause()
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(success())

    async def _poll(self, hook: LakebaseHook, settings: LakebaseSettings) -> bool:
        if not await self._may_poll(hook, settings):
            return False
        async with hook.open_async(settings) as session:
            row = await fetch_first(session, self.sql, self.parameters)
            await session.commit()
        return is_met(row)


class LakebaseQueryTrigger(PollingTrigger, BaseEventTrigger):  # type: ignore[misc, valid-type, unused-ignore]
    """Fire whenever a query returns rows, for an asset's ``AssetWatcher``.

    A row is reported once, in one of two ways, of which you must choose one:

    - ``mark``: a statement that marks the rows that were taken, in the transaction of the query. It gets
      ``%(taken)s``, an array of the values in the query's first column. Have the query lock the rows it takes
      (``FOR UPDATE SKIP LOCKED``), so that two watchers do not take the same ones.
    - ``watermark_column``: the column of the query whose last value is stored in the asset's state and passed to the
      query as ``%(watermark)s``, a text that is NULL at first:
      ``WHERE id > coalesce(%(watermark)s::bigint, 0) ORDER BY id``. This needs Airflow 3.3, which keeps the state
      across restarts, and an asset that no other trigger watches.

    All rows of a poll are held in memory; a query with ``mark`` may have a LIMIT. The event contains the number of rows
    and no data. It is delivered at least once: the transaction is committed, or the watermark stored, 5 seconds after
    the triggerer received the event, which it stores within about one second. If the triggerer dies before that, the
    rows are found again.

    ::

        watcher = AssetWatcher(
            name="orders",
            trigger=LakebaseQueryTrigger(
                "SELECT id FROM shop.orders WHERE taken_at IS NULL FOR UPDATE SKIP LOCKED",
                mark="UPDATE shop.orders SET taken_at = now() WHERE id = ANY(%(taken)s)",
            ),
        )
        orders = Asset("orders", watchers=[watcher])

    :param sql: the query
    :param mark: statement that marks the rows that were taken
    :param watermark_column: column of the query whose values only grow
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``options``
    :param poll_interval: pause between two polls, ``timedelta`` or seconds
    :param only_when_awake: skip a poll while the endpoint is suspended, instead of waking it: no one can have written
        to it meanwhile
    :raises LakebaseSettingsError: if neither or both of mark and watermark_column are given, or the SQL does not use
        the parameter that they provide
    """

    def __init__(self, sql: str, mark: str | None = None, watermark_column: str | None = None, **kwargs: Any) -> None:
        if (mark is None) == (watermark_column is None):
            raise LakebaseSettingsError(
                "A query trigger needs either mark or watermark_column to report a row once", hint="Pass one of them."
            )
        if mark is not None and "%(taken)s" not in mark:
            hint = "Use it: WHERE id = ANY(%(taken)s)."
            raise LakebaseSettingsError("mark does not use %(taken)s, so it would mark every row", hint=hint)
        if watermark_column is not None and "%(watermark)s" not in sql:
            hint = "Use it: WHERE id > coalesce(%(watermark)s::bigint, 0) ORDER BY id."
            raise LakebaseSettingsError(
                "The query does not use %(watermark)s, so it would find all rows again", hint=hint
            )
        super().__init__(sql, **kwargs)
        self.mark = mark
        self.watermark_column = watermark_column

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        path = "airflow_provider_lakebase.triggers.query.LakebaseQueryTrigger"
        return path, {**self._arguments(), "mark": self.mark, "watermark_column": self.watermark_column}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll forever, and yield an event for each poll that finds rows.

        After any error, log it and poll again later, because nothing restarts a failed watcher.

        :raises LakebaseSettingsError: if ``watermark_column`` is given, but this Airflow has no asset state store
        """
        state: Any = getattr(self, "asset_state_store", None)
        if self.watermark_column is not None and state is None:
            hint = "Use 'mark' instead: only Airflow 3.3 and later store a watermark, for the watcher of an asset."
            raise LakebaseSettingsError("watermark_column is given, but nothing stores the watermark", hint=hint)
        hook = self._create_hook()
        retrying = self._retrying(lambda error: isinstance(error, Exception))
        while True:
            async for attempt in retrying:
                try:
                    settings = await hook.read_settings_async()
                    if await self._may_poll(hook, settings):
                        async with hook.open_async(settings) as session:
                            rows, watermark = await self._take(session, state)
                            if rows:
                                yield event({"rows": rows})
                                # The triggerer holds an event in memory until it has stored it, and does not say when.
                                await asyncio.sleep(STORING_SECONDS)
                            if watermark is not None:
                                await state.aset(WATERMARK, watermark)
                            await session.commit()
                # Not by the attempt's own context manager, which would hold back the end of this generator, too.
                except Exception as error:
                    attempt.retry_state.set_exception((type(error), error, error.__traceback__))
                else:
                    attempt.retry_state.set_result(None)
            await self._pause()

    async def _take(self, session: AsyncLakebaseSession, state: Any) -> tuple[int, str | None]:
        """Run the query and mark the rows; return their number and the watermark to store."""
        parameters = None if self.watermark_column is None else {"watermark": await state.aget(WATERMARK)}
        result = await fetch(session, self.sql, parameters)
        if not result.rows:
            return 0, None
        if self.mark is not None:
            await fetch(session, self.mark, {"taken": result.first_column()})
            return len(result.rows), None
        names = [name for name, _ in result.columns]
        if self.watermark_column not in names:
            hint = f"Use one of its columns: {', '.join(names)}."
            raise LakebaseSettingsError(f"The query has no column '{self.watermark_column}'", hint=hint)
        watermark = result.rows[-1][names.index(self.watermark_column)]
        if watermark is None:
            hint = "Exclude such rows from the query: they would be reported forever."
            raise LakebaseSettingsError("The watermark of the last row is NULL", context=session.context, hint=hint)
        return len(result.rows), watermark
