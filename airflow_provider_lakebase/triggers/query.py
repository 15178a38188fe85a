"""Ask a query again and again, in the triggerer: until its first cell is true, or for every row that it finds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.errors.classify import is_transient
from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.triggers._events import event, failure, success
from airflow_provider_lakebase.triggers._shared_poll import back_off, read_status

if AIRFLOW_V_3_0_PLUS:
    from airflow.triggers.base import BaseEventTrigger
else:  # goes with Airflow 2, which has no asset watchers
    BaseEventTrigger = BaseTrigger  # type: ignore[misc, assignment]

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
    from airflow_provider_lakebase.core.session.connections import AsyncLakebaseSession

MOST_BACK_OFF_SECONDS = 600.0
"""Seconds between two polls while they fail."""
SHARED_SECONDS = 1.0
"""Seconds that a reading of the state serves others too; an older one might miss a suspend, and wake what sleeps."""
STORING_SECONDS = 5.0
"""Seconds that the triggerer gets to store an event before its rows are committed as taken."""
WATERMARK = "lakebase_watermark"
"""Key of the watermark in an asset's state."""


class _Polling(BaseTrigger):
    """Hold what both have: where to ask, how often, and whether a sleeping endpoint is left asleep."""

    def __init__(
        self,
        sql: str,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        hook_params: dict[str, Any] | None = None,
        poll_interval: float = 60.0,
        only_when_awake: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sql = sql
        self.lakebase_conn_id = lakebase_conn_id
        self.hook_params = hook_params
        self.poll_interval = poll_interval
        self.only_when_awake = only_when_awake
        self._is_first = True

    def _arguments(self) -> dict[str, Any]:
        return {
            "sql": self.sql,
            "lakebase_conn_id": self.lakebase_conn_id,
            "hook_params": self.hook_params,
            "poll_interval": self.poll_interval,
            "only_when_awake": self.only_when_awake,
        }

    async def _pause(self, failures: int = 0) -> None:
        pause = self.poll_interval * random.uniform(0.9, 1.0)  # noqa: S311 - no secret
        if failures:
            pause = max(pause, back_off(failures, MOST_BACK_OFF_SECONDS))
        await asyncio.sleep(pause)

    async def _may_ask(self, settings: LakebaseSettings) -> bool:
        """Return whether to open a session, and warn once when that keeps the endpoint awake for ever."""
        if self.only_when_awake:
            settings.require_identity()
        if not (self._is_first or self.only_when_awake) or settings.is_native:
            return True
        try:
            status = await read_status(settings, max_age=SHARED_SECONDS)
        except LakebaseError:
            if self.only_when_awake:
                raise
            return True  # it was read for the warning alone
        if self._is_first and status.suspend_timeout and self.poll_interval < status.suspend_timeout:
            self.log.warning(
                "A query every %.0f s never lets endpoint %s suspend, which it does after %.0f s without use. Ask less "
                "often to let it sleep.",
                *(self.poll_interval, settings.endpoint, status.suspend_timeout),
            )
        self._is_first = False
        return not self.only_when_awake or status.state == "ACTIVE"


class LakebaseQuerySensorTrigger(_Polling):
    """Fire when the first cell of a query's first row is true.

    :param sql: the query
    :param parameters: of the query
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``read_only``, ``options``
    :param poll_interval: seconds between two polls
    :param only_when_awake: leave a poll out while the endpoint sleeps, rather than wake it
    """

    def __init__(self, sql: str, parameters: Any = None, **kwargs: Any) -> None:
        super().__init__(sql, **kwargs)
        self.parameters = parameters

    def __repr__(self) -> str:
        return f"<LakebaseQuerySensorTrigger on {self.lakebase_conn_id}>"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        path = "airflow_provider_lakebase.triggers.query.LakebaseQuerySensorTrigger"
        return path, {**self._arguments(), "parameters": self.parameters}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: that the cell is true, or the error that waiting does not help."""
        failures = 0
        try:
            hook = LakebaseHook(self.lakebase_conn_id, **(self.hook_params or {}))
            settings = await hook.read_settings_async()
            while True:
                try:
                    if await self._is_true(hook, settings):
                        break
                    failures = 0
                except Exception as error:
                    if not is_transient(error):
                        raise
                    failures += 1
                    self.log.warning("The query is asked again later: %s", error)
                await self._pause(failures)
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(success())

    async def _is_true(self, hook: LakebaseHook, settings: LakebaseSettings) -> bool:
        if not await self._may_ask(settings):
            return False
        async with hook.open_async(settings) as session:
            from airflow_provider_lakebase.core.sql.run_async import ResultCursor, run_text

            row = ResultCursor(await run_text(session, self.sql, self.parameters, most_rows=1)).fetchone()
            await session.commit()
        return bool(row and row[0])


class LakebaseQueryTrigger(_Polling, BaseEventTrigger):  # type: ignore[misc, valid-type, unused-ignore]
    """Fire whenever a query returns rows, for an asset's ``AssetWatcher``.

    Each row is told of once, in one of two ways; one must be named:

    - ``mark``: a statement that marks the rows that were taken, in the same transaction as the query. It gets
      ``%(taken)s``, an array of the values in the query's first column. Let the query lock what it takes
      (``FOR UPDATE SKIP LOCKED``), so that two watchers do not take the same.
    - ``watermark_column``: the column of the query whose last value is kept in the asset's state and given to the query
      as ``%(watermark)s``, a text, NULL at first: ``WHERE id > coalesce(%(watermark)s::bigint, 0) ORDER BY id``. Needs
      Airflow 3.3, which keeps it across restarts, and an asset of the trigger's own.

    All rows of a poll are held in memory; a query with ``mark`` may have a LIMIT. The event holds the number of rows
    and nothing of them. It is delivered at least once: the transaction is committed, or the watermark written, 5
    seconds after the event was handed to the triggerer, which stores it within about one. When the triggerer dies
    before, the rows are found again.

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
    :param mark: statement that marks what was taken
    :param watermark_column: column of the query that only grows
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``options``
    :param poll_interval: seconds between two polls
    :param only_when_awake: leave a poll out while the endpoint sleeps, rather than wake it: nothing can have been
        written meanwhile
    :raises LakebaseSettingsError: when neither mark nor watermark_column is named, or both are, or what they need is
        not used
    """

    def __init__(self, sql: str, mark: str | None = None, watermark_column: str | None = None, **kwargs: Any) -> None:
        if (mark is None) == (watermark_column is None):
            raise LakebaseSettingsError(
                "A query trigger tells of a row once by either mark or watermark_column", hint="Name one of them."
            )
        if mark is not None and "%(taken)s" not in mark:
            hint = "Use it: WHERE id = ANY(%(taken)s)."
            raise LakebaseSettingsError("mark has no %(taken)s, so that it would mark every row", hint=hint)
        if watermark_column is not None and "%(watermark)s" not in sql:
            hint = "Use it: WHERE id > coalesce(%(watermark)s::bigint, 0) ORDER BY id."
            raise LakebaseSettingsError("The query has no %(watermark)s, so that it would find all again", hint=hint)
        super().__init__(sql, **kwargs)
        self.mark = mark
        self.watermark_column = watermark_column

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        path = "airflow_provider_lakebase.triggers.query.LakebaseQueryTrigger"
        return path, {**self._arguments(), "mark": self.mark, "watermark_column": self.watermark_column}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for ever, and yield an event for each poll that found rows.

        A failure is logged and tried again later, whatever it is: nobody would start the watcher anew.

        :raises LakebaseSettingsError: for watermark_column where Airflow keeps no state of assets
        """
        state: Any = getattr(self, "asset_state_store", None)
        if self.watermark_column is not None and state is None:
            hint = "Name 'mark' instead: the watermark is kept by Airflow 3.3 and later, for an asset's watcher."
            raise LakebaseSettingsError("watermark_column is given, but nothing keeps the watermark", hint=hint)
        hook = LakebaseHook(self.lakebase_conn_id, **(self.hook_params or {}))
        failures = 0
        while True:
            try:
                settings = await hook.read_settings_async()
                if await self._may_ask(settings):
                    async with hook.open_async(settings) as session:
                        rows, watermark = await self._take(session, state)
                        if rows:
                            yield event({"rows": rows})
                            # The triggerer holds an event in memory until it has stored it, and tells nobody when.
                            await asyncio.sleep(STORING_SECONDS)
                        if watermark is not None:
                            await state.aset(WATERMARK, watermark)
                        await session.commit()
                failures = 0
            except Exception as error:
                failures += 1
                self.log.warning("The query is asked again later: %s: %s", type(error).__name__, error)
            await self._pause(failures)

    async def _take(self, session: AsyncLakebaseSession, state: Any) -> tuple[int, str | None]:
        """Ask, and mark what was found; return the number of rows and the watermark to keep."""
        from airflow_provider_lakebase.core.sql.binding import bind
        from airflow_provider_lakebase.core.sql.run_async import ResultCursor, run_text

        parameters = None if self.watermark_column is None else {"watermark": await state.aget(WATERMARK)}
        result = await run_text(session, self.sql, parameters)
        if not result.rows:
            return 0, None
        if self.mark is not None:
            first = replace(result, columns=result.columns[:1], rows=[row[:1] for row in result.rows])
            taken = [value for (value,) in ResultCursor(first)]
            await session.execute(bind(session, self.mark, {"taken": taken}).encode())
            return len(result.rows), None
        names = [name for name, _ in result.columns]
        if self.watermark_column not in names:
            hint = f"Name one of its columns: {', '.join(names)}."
            raise LakebaseSettingsError(f"The query has no column '{self.watermark_column}'", hint=hint)
        watermark = result.rows[-1][names.index(self.watermark_column)]
        if watermark is None:
            hint = "Leave such rows out of the query: they would be told of for ever."
            raise LakebaseSettingsError("The watermark of the last row is NULL", context=session.context, hint=hint)
        return len(result.rows), watermark
