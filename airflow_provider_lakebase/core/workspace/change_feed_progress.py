"""Tell how far a change feed has committed, and whether that is far enough.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.resources import REQUEST_SECONDS, Resource, list_all, read
from airflow_provider_lakebase.core.workspace.specs import Duration, read_seconds
from airflow_provider_lakebase.exceptions import (
    ErrorContext,
    LakebaseChangeFeedError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

NOW = "now"
IDLE_SECONDS = 300.0
"""Seconds without a further commit after which a table counts as idle, unless the caller says otherwise."""
APPEARING_SECONDS = 60.0
"""Seconds that a feed may take to notice a new table, or the first row of an empty one."""

_STATUSES = "cdf-statuses"
_STATE = "CDF_STATE_"
_STREAMING, _SKIPPED, _TERMINATED = "STREAMING", "SKIPPED", "TERMINATED"


@dataclass(frozen=True)
class TableFeed:
    """How far a feed has replicated a table.

    :param name: resource name of its status
    :param table: name in Postgres
    :param state: without ``CDF_STATE_``, such as ``STREAMING``
    :param detail: why it is in this state, in the service's words
    :param committed_lsn: up to which log sequence number its changes are in Unity Catalog, or an empty text
    :param synced_at: when its changes were written there last, as a time of ``time.time()``
    """

    name: str
    table: str
    state: str = ""
    detail: str = ""
    committed_lsn: str = ""
    synced_at: float = 0.0

    @classmethod
    def of(cls, answer: Resource) -> TableFeed:
        """Return the status that an answer describes.

        :param answer: the API's JSON
        """
        name, synced_at = str(answer.get("name") or ""), answer.get("last_sync_time")
        return cls(
            name=name,
            table=str(answer.get("postgres_table") or name.rsplit("/", 1)[-1]),
            state=str(answer.get("state") or "").removeprefix(_STATE),
            detail=str(answer.get("status_detail") or ""),
            committed_lsn=str(answer.get("committed_lsn") or ""),
            synced_at=datetime.fromisoformat(synced_at).timestamp() if synced_at else 0.0,
        )

    def has_committed(self, lsn: str) -> bool:
        """Return whether it streams, and has committed up to a log sequence number.

        :param lsn: such as ``16/B374D848``
        """
        committed = lsn_number(self.committed_lsn)
        return self.state == _STREAMING and committed is not None and committed >= (lsn_number(lsn) or 0)

    @property
    def waits_for_rows(self) -> bool:
        """Whether it is left out because it had no row when the feed looked at it last."""
        return self.state == _SKIPPED and re.search(r"\bempty\b|\bno rows?\b", self.detail, re.IGNORECASE) is not None

    def __str__(self) -> str:
        """Return it as a log shows it."""
        committed = f"committed up to {self.committed_lsn}" if self.committed_lsn else ""
        return f"{self.table}: {', '.join(filter(None, [self.state, self.detail, committed]))}"


@dataclass(frozen=True)
class Commitment:
    """What a feed has to have committed.

    :param tables: names of the tables
    :param lsn: up to this log sequence number
    :param began_at: when the wait for it began, as a time of ``time.time()``
    :param idle_after: seconds without a further commit after which a table counts as idle; None is never
    """

    tables: tuple[str, ...]
    lsn: str
    began_at: float
    idle_after: float | None = None

    def is_met(self, feeds: Sequence[TableFeed], context: ErrorContext, now: float) -> bool:
        """Return whether the feed has committed every change that is waited for.

        :param feeds: of all tables of the feed
        :param context: context for the error
        :param now: as a time of ``time.time()``
        :raises LakebaseChangeFeedError: if a table is left out, its replication has ended, or the feed does not know it
        """
        by_table = {feed.table: feed for feed in feeds}
        may_appear = now < self.began_at + APPEARING_SECONDS
        failed = [text for table in self.tables if (text := _failure(table, by_table.get(table), may_appear))]
        if failed:
            states = {by_table[table].state for table in self.tables if table in by_table}
            code = next((f"{_STATE}{state}" for state in (_TERMINATED, _SKIPPED) if state in states), "")
            raise self._error("; ".join(failed), context, code, by_table)
        found = [by_table.get(table) for table in self.tables]
        return all(feed is not None and (feed.has_committed(self.lsn) or self.is_idle(feed, now)) for feed in found)

    def is_idle(self, feed: TableFeed, now: float) -> bool:
        """Return whether nothing was committed of a table for so long that there was nothing to commit.

        :param feed: of the table
        :param now: as a time of ``time.time()``
        """
        is_late = self.idle_after is not None and now >= max(self.began_at, feed.synced_at) + self.idle_after
        return is_late and feed.state == _STREAMING and not feed.has_committed(self.lsn)

    def idle_tables(self, feeds: Sequence[TableFeed], now: float) -> list[str]:
        """Return how far the feed is with those tables that count as idle, for a log.

        :param feeds: of all tables of the feed
        :param now: as a time of ``time.time()``
        """
        return [str(feed) for feed in feeds if feed.table in self.tables and self.is_idle(feed, now)]

    def _error(
        self, text: str, context: ErrorContext, code: str, by_table: Mapping[str, TableFeed]
    ) -> LakebaseChangeFeedError:
        known = ", ".join(sorted(by_table)) or "none"
        hint = f"The feed knows these tables: {known}."
        if code:
            hint = "Correct what the service names; a table whose replication has ended needs a new feed."
        return LakebaseChangeFeedError(
            f"The feed does not replicate {text}", context=context, hint=hint, error_code=code
        )


def read_feeds(workspace: Workspace, name: str, *, timeout: float = REQUEST_SECONDS) -> list[TableFeed]:
    """Return how far a feed has replicated each of its tables.

    :param workspace: the workspace to ask
    :param name: resource name of the feed
    :param timeout: seconds that it may take
    :raises LakebaseResourceNotFoundError: when the feed does not exist
    """
    return [TableFeed.of(each) for each in list_statuses(workspace, name, timeout=timeout)]


def list_statuses(workspace: Workspace, name: str, *, timeout: float = REQUEST_SECONDS) -> list[dict[str, Any]]:
    """Return the statuses of a feed's tables, as the API's JSON.

    :param workspace: the workspace to ask
    :param name: resource name of the feed
    :param timeout: seconds that each request may take
    :raises LakebaseResourceNotFoundError: when the feed does not exist
    """
    try:
        return list_all(workspace, name, _STATUSES, timeout=timeout)
    except LakebaseResourceNotFoundError:
        # A feed that has no statuses yet answers so, too.
        read(workspace, name, timeout=timeout)
        return []


def read_tables(tables: object) -> tuple[str, ...]:
    """Return names of tables.

    :param tables: one name or several, as Postgres has them: without their schema, and unquoted
    :raises LakebaseSettingsError: unless there is at least one
    """
    given = (tables,) if isinstance(tables, str) else tables
    names = tuple(given) if isinstance(given, list | tuple | set | frozenset) else ()
    if not names or not all(isinstance(each, str) and each for each in names):
        hint = "Give the name of a table, or a list of names, without their schema."
        raise LakebaseSettingsError(f"tables is {tables!r}", hint=hint)
    return tuple(dict.fromkeys(names))


def read_lsn(name: str, value: object) -> str:
    """Return a log sequence number.

    :param name: of the argument, for messages
    :param value: a text such as ``16/B374D848``
    :raises LakebaseSettingsError: if it is something else
    """
    text = str(value).strip()
    if lsn_number(text) is None:
        hint = "It must be a log sequence number as Postgres writes it, such as 16/B374D848, or 'now'."
        raise LakebaseSettingsError(f"{name} is {value!r}", hint=hint)
    return text


def lsn_number(lsn: str) -> int | None:
    """Return a log sequence number as a number, so that two can be compared; None if the text is none.

    :param lsn: such as ``16/B374D848``
    """
    found = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", lsn)
    return (int(found[1], 16) << 32) + int(found[2], 16) if found else None


def read_idle_after(value: Duration | None) -> float | None:
    """Return after how many seconds a table counts as idle.

    :param value: ``timedelta`` or seconds; None is never
    :raises LakebaseSettingsError: if it is something else, or negative
    """
    if value is None:
        return None
    seconds = read_seconds("idle_after", value)
    if seconds < 0:
        raise LakebaseSettingsError(f"idle_after is {value!r}", hint="It must be a number of seconds, or None.")
    return seconds


def _failure(table: str, feed: TableFeed | None, may_appear: bool) -> str:
    """Return why a table is not replicated, or an empty text."""
    if feed is None:
        return "" if may_appear else f"'{table}', which it does not know"
    if feed.state not in (_SKIPPED, _TERMINATED) or (feed.waits_for_rows and may_appear):
        return ""
    return f"'{table}', which is {feed.state}: {feed.detail or 'the service does not say why'}"
