"""Wait until a change feed has written to Unity Catalog what was committed in Postgres."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.workspace.change_feed_progress import (
    IDLE_SECONDS,
    NOW,
    Commitment,
    TableFeed,
    read_feeds,
    read_idle_after,
    read_lsn,
    read_tables,
)
from airflow_provider_lakebase.core.workspace.change_feeds import branch_of
from airflow_provider_lakebase.core.workspace.specs import Duration
from airflow_provider_lakebase.exceptions import LakebaseSettingsError, LakebaseWorkspaceError
from airflow_provider_lakebase.hooks._change_feeds import read_current_lsn
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.sensors._deferrable import POKE_SECONDS, DeferrableSensor
from airflow_provider_lakebase.triggers.change_feed import LakebaseChangeFeedSensorTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_BEGIN = "begin"


class LakebaseChangeFeedSensor(DeferrableSensor):
    """Wait until a change feed has written to Unity Catalog what was committed in Postgres.

    It asks only the control plane. With ``lsn="now"`` it also opens one session, when the task begins, to read the
    current log sequence number; this wakes a suspended endpoint.

    The number that a feed has committed for a table stands still while nothing is written to that table. So with
    ``lsn="now"``, a table counts as idle if the feed streams it and commits nothing further of it for ``idle_after``.
    A large transaction may take the feed longer. To wait exactly, let the writing transaction read the number itself,
    with ``SELECT pg_current_wal_insert_lsn()`` as its last statement, and pass it as ``lsn``.

    The task fails if the feed leaves out a table, its replication has ended, or the feed does not know it.

    A deferred sensor occupies no worker slot. All sensors in a triggerer that wait for the same feed with the same
    identity share one poll of its state.

    :param change_feed: ID or resource name of the feed (templated)
    :param tables: one table or several, by their names in Postgres: without the schema, and unquoted (templated)
    :param lsn: log sequence number up to which each table has to be committed; ``now`` means all that was committed
        before the task began (templated)
    :param idle_after: with ``lsn="now"``: time without a further commit, ``timedelta`` or seconds, after which a table
        counts as idle; None waits for the number until the timeout
    :param branch: ID or resource name of the feed's branch; by default that of the connection's endpoint (templated)
    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param deferrable: wait in the triggerer, unless all is committed at once; by default as ``[operators]
        default_deferrable`` says
    :param kwargs: ``poke_interval`` and ``timeout`` (seconds), ``mode`` and the other arguments of
        ``BaseSensorOperator``
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "change_feed", "tables", "lsn", "branch")

    def __init__(
        self,
        *,
        change_feed: str,
        tables: str | Sequence[str],
        lsn: str = NOW,
        idle_after: Duration | None = IDLE_SECONDS,
        branch: str | None = None,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        self.change_feed = change_feed
        self.tables = tables
        self.lsn = lsn
        self.idle_after = idle_after
        self.branch = branch
        self.lakebase_conn_id = lakebase_conn_id
        self._begun: dict[str, Any] | None = None

    def execute(self, context: Context) -> Any:
        """Wait, in the worker or in the triggerer.

        :raises AirflowFailException: for an error that no retry can help
        """
        self._begun = None
        return super().execute(context)

    def _trigger(self, context: Context) -> LakebaseChangeFeedSensorTrigger:
        """Return the trigger that waits for the feed."""
        name, wanted = self._wanted(context)
        return LakebaseChangeFeedSensorTrigger(
            name,
            wanted.tables,
            wanted.lsn,
            wanted.began_at,
            wanted.idle_after,
            self.lakebase_conn_id,
            self.poke_interval,
        )

    def _succeed(self, context: Context, event: Mapping[str, Any]) -> None:
        """Log the tables that count as idle."""
        self._end(context, event["idle"])

    def poke(self, context: Context) -> bool:
        """Check once whether all is committed.

        :raises AirflowFailException: for an error that no retry can help
        """
        try:
            with fail_without_retry():
                name, wanted = self._wanted(context)
                # A new hook reads the connection anew: its secret may have been rotated since the last poke.
                workspace = LakebaseWorkspaceHook(self.lakebase_conn_id).workspace.about(name)
                feeds, now = read_feeds(workspace, name, timeout=POKE_SECONDS), time.time()
                self._tell(wanted.tables, feeds)
                if not wanted.is_met(feeds, workspace.context, now):
                    return False
                self._end(context, wanted.idle_tables(feeds, now))
                return True
        except LakebaseWorkspaceError as error:
            self.log.warning("The change feed is checked again later: %s", error)
            return False

    def _tell(self, tables: Sequence[str], feeds: Sequence[TableFeed]) -> None:
        by_table = {feed.table: feed for feed in feeds}
        for table in tables:
            self.log.info("%s", by_table.get(table, f"{table}: the feed does not know it yet"))

    def _wanted(self, context: Context) -> tuple[str, Commitment]:
        """Return the feed's resource name, and what it has to have committed."""
        name = LakebaseWorkspaceHook(self.lakebase_conn_id).change_feed_name(self.change_feed, self.branch)
        tables, idle_after = read_tables(self.tables), read_idle_after(self.idle_after)
        is_now = str(self.lsn).strip() == NOW
        lsn = "" if is_now else read_lsn("lsn", self.lsn)
        begin = self._begin(context, branch_of(name) if is_now else None)
        if is_now:
            return name, Commitment(tables, begin["lsn"], begin["at"], idle_after)
        return name, Commitment(tables, lsn, begin["at"])

    def _begin(self, context: Context, branch: str | None) -> dict[str, Any]:
        """Return when this try began, and the log sequence number of then, if a branch is given."""
        if self._begun is None:
            notes, number = TaskNotes(context), context["ti"].try_number if "ti" in context else 0
            kept = notes.get(_BEGIN)
            # What an earlier try has kept is too old: the tasks before it may have run again.
            if kept is None or kept["try"] != number or (branch and "lsn" not in kept):
                if branch and self.reschedule and not notes.outlive_a_try:
                    hint = "Use deferrable=True, or pass lsn; Airflow 3.3 and later keep the number."
                    text = "lsn='now' would be another number after each reschedule"
                    raise LakebaseSettingsError(text, hint=hint)
                kept = {"try": number, "at": time.time()}
                if branch:
                    kept["lsn"] = read_current_lsn(self.lakebase_conn_id, branch)
                    self.log.info("Waiting for all that was committed before %s", kept["lsn"])
                notes[_BEGIN] = kept
            self._begun = kept
        return self._begun

    def _end(self, context: Context, idle: Sequence[str]) -> None:
        for text in idle:
            self.log.info("The table counts as idle, because nothing further was committed: %s", text)
        TaskNotes(context).forget()
