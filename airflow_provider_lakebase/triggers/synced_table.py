"""Wait in the triggerer for what a synced table serves: once, or for each new version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.workspace.specs import Duration, read_wait
from airflow_provider_lakebase.core.workspace.synced_tables import Freshness, SyncedTable, synced_table_name
from airflow_provider_lakebase.exceptions import ErrorContext
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.triggers._events import event, failure, success
from airflow_provider_lakebase.triggers._shared_poll import SharedPolls
from airflow_provider_lakebase.triggers.query import STORING_SECONDS

if AIRFLOW_V_3_0_PLUS:
    from airflow.triggers.base import BaseEventTrigger
else:  # goes with Airflow 2, which has no asset watchers
    BaseEventTrigger = BaseTrigger  # type: ignore[misc, assignment]

REPORTED = "lakebase_reported"
"""Key of the version that was reported last, in an asset's state."""

log = logging.getLogger(__name__)


class LakebaseSyncedTableSensorTrigger(BaseTrigger):
    """Fire when a synced table serves a version of its source, or its pipeline has failed.

    :param synced_table: its name in Unity Catalog
    :param version: version of the source
    :param newer_than: in place of it, a time after which the sync has to begin, in ISO 8601
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param poll_interval: pause between two readings of the state, ``timedelta`` or seconds
    """

    def __init__(
        self,
        synced_table: str,
        version: int | None = None,
        newer_than: str | None = None,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: Duration = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.synced_table = synced_table
        self.version = version
        self.newer_than = newer_than
        self.lakebase_conn_id = lakebase_conn_id
        self.poll_interval = read_wait("poll_interval", poll_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "airflow_provider_lakebase.triggers.synced_table.LakebaseSyncedTableSensorTrigger", {
            "synced_table": self.synced_table,
            "version": self.version,
            "newer_than": self.newer_than,
            "lakebase_conn_id": self.lakebase_conn_id,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: success, or the error that ended the wait."""
        try:
            name, freshness = synced_table_name(self.synced_table), Freshness.of(self.version, self.newer_than)
            is_over = partial(freshness.is_met, context=ErrorContext(self.lakebase_conn_id))
            hook = LakebaseWorkspaceHook(self.lakebase_conn_id)
            await SharedPolls.of_running_loop().wait_for_table(hook, name, is_over, self.poll_interval)
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(success())


class LakebaseSyncedTableTrigger(BaseEventTrigger):  # type: ignore[misc, valid-type, unused-ignore]
    """Fire whenever a synced table serves a new version of its source, for an asset's ``AssetWatcher``.

    It asks only the control plane, so it wakes no endpoint. All triggers and sensors in a triggerer that wait for the
    same table with the same identity share one poll of its state, at the shortest of their intervals.

    The event contains ``synced_table`` and ``version``, which is None for a source without versions, such as a view: it
    then counts syncs. Airflow 3.3 stores what was reported last in the asset's state, so a restarted triggerer goes on
    from there; the asset must have no other trigger of this kind. Before Airflow 3.3, the version that the table
    serves is reported again when the triggerer starts.

    A failed pipeline brings no new version, and is no event.

    ::

        watcher = AssetWatcher(name="orders", trigger=LakebaseSyncedTableTrigger("lake.gold.orders"))
        orders = Asset("orders", watchers=[watcher])

    :param synced_table: its name in Unity Catalog, ``catalog.schema.table``
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param poll_interval: pause between two readings of the state, ``timedelta`` or seconds
    :raises LakebaseSettingsError: if the name is malformed
    """

    def __init__(
        self, synced_table: str, *, lakebase_conn_id: str = DEFAULT_CONN_ID, poll_interval: Duration = 60.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        synced_table_name(synced_table)
        self.synced_table = synced_table
        self.lakebase_conn_id = lakebase_conn_id
        self.poll_interval = read_wait("poll_interval", poll_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "airflow_provider_lakebase.triggers.synced_table.LakebaseSyncedTableTrigger", {
            "synced_table": self.synced_table,
            "lakebase_conn_id": self.lakebase_conn_id,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch forever, and yield an event for each new version.

        After any error, log it and ask again later, because nothing restarts a failed watcher.
        """
        state: Any = getattr(self, "asset_state_store", None)
        reported = None
        while True:
            try:
                if state is not None:
                    reported = await state.aget(REPORTED)
                table = await self._wait_for_another(reported)
                yield event({"synced_table": table.full_name, "version": table.version})
                # The triggerer holds an event in memory until it has stored it, and does not say when.
                await asyncio.sleep(STORING_SECONDS)
                reported = _mark(table)
                if state is not None:
                    await state.aset(REPORTED, reported)
            except Exception as error:
                log.warning("Synced table %s is watched again later: %s", self.synced_table, error)
                await asyncio.sleep(self.poll_interval)

    async def _wait_for_another(self, reported: str | None) -> SyncedTable:
        hook, name = LakebaseWorkspaceHook(self.lakebase_conn_id), synced_table_name(self.synced_table)

        def is_over(table: SyncedTable) -> bool:
            return table.is_online and _mark(table) not in (None, reported)

        return await SharedPolls.of_running_loop().wait_for_table(hook, name, is_over, self.poll_interval)


def _mark(table: SyncedTable) -> str | None:
    """Return the version that the table serves, or else the time of its sync; None before the first."""
    if table.version is not None:
        return str(table.version)
    return table.synced_from.isoformat() if table.synced_from else None
