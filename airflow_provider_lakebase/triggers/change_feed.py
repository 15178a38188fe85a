"""Wait in the triggerer until a change feed has committed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.workspace.change_feed_progress import Commitment, TableFeed
from airflow_provider_lakebase.core.workspace.specs import Duration, read_wait
from airflow_provider_lakebase.exceptions import ErrorContext
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.triggers._events import event, failure, success
from airflow_provider_lakebase.triggers._shared_poll import SharedPolls


class LakebaseChangeFeedSensorTrigger(BaseTrigger):
    """Fire when a change feed has committed what was written to its tables, or cannot.

    All triggers in a triggerer that wait for the same feed with the same identity share one poll of its state. It asks
    only the control plane.

    :param change_feed: resource name of the feed
    :param tables: names of the tables
    :param lsn: log sequence number up to which they have to be committed
    :param began_at: when the wait began, as a time of ``time.time()``
    :param idle_after: seconds without a further commit after which a table counts as idle; None is never
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param poll_interval: pause between two readings of the state, ``timedelta`` or seconds
    """

    def __init__(
        self,
        change_feed: str,
        tables: Sequence[str],
        lsn: str,
        began_at: float,
        idle_after: float | None = None,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: Duration = 15.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.change_feed = change_feed
        self.wanted = Commitment(tuple(tables), lsn, began_at, idle_after)
        self.lakebase_conn_id = lakebase_conn_id
        self.poll_interval = read_wait("poll_interval", poll_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "airflow_provider_lakebase.triggers.change_feed.LakebaseChangeFeedSensorTrigger", {
            "change_feed": self.change_feed,
            "tables": list(self.wanted.tables),
            "lsn": self.wanted.lsn,
            "began_at": self.wanted.began_at,
            "idle_after": self.wanted.idle_after,
            "lakebase_conn_id": self.lakebase_conn_id,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: the idle tables, or the error that ended the wait."""
        context = ErrorContext(self.lakebase_conn_id, self.change_feed)

        def is_over(feeds: list[TableFeed]) -> bool:
            return self.wanted.is_met(feeds, context, time.time())

        try:
            hook = LakebaseWorkspaceHook(self.lakebase_conn_id)
            polls = SharedPolls.of_running_loop()
            feeds = await polls.wait_for_feed(hook, self.change_feed, is_over, self.poll_interval)
        except Exception as error:
            yield event(failure(error))
        else:
            yield event(success(idle=self.wanted.idle_tables(feeds, time.time())))
