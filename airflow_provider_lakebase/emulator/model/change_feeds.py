"""Change feeds: Postgres schemas whose tables Lakebase replicates to Unity Catalog. No I/O.

Their states follow the clock and are worked out when somebody asks, so that a feed needs no thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.faults import TerminateFeed
from airflow_provider_lakebase.emulator.model.data_plane import Clusters
from airflow_provider_lakebase.emulator.model.errors import Json, already_exists, invalid, not_found, refused
from airflow_provider_lakebase.emulator.model.fields import timestamp
from airflow_provider_lakebase.emulator.model.resources import Resources, id_of, parent_of

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.workspace import Behaviour

DATABASE = "databricks_postgres"
MIN_POSTGRES_VERSION = 17
_ID = re.compile(r"[a-z][a-z0-9_]{0,62}")

_TABLES = """
    SELECT c.relname, c.relkind = 'p', c.relreplident = 'f', pg_catalog.pg_relation_size(c.oid) > 0
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
    ORDER BY c.relname
"""
# The rows' places and transactions: they change with each write, whatever it writes.
_CONTENTS = "SELECT count(*) || ':' || coalesce(sum(hashtext(ctid::text || xmin::text)), 0) FROM {}"


@dataclass(frozen=True)
class PostgresTable:
    """What a feed sees of a Postgres table."""

    name: str
    partitioned: bool = False
    full_identity: bool = True
    has_rows: bool = True
    contents: str = ""

    @property
    def obstacle(self) -> str:
        """Return why it is not replicated; an empty text if it is."""
        if self.partitioned:
            return "Partitioned tables are not supported."
        if not self.full_identity:
            return "Table does not have REPLICA IDENTITY FULL. Run ALTER TABLE ... REPLICA IDENTITY FULL to include it."
        return "" if self.has_rows else "Table is empty. It is included as soon as it has a row."


@dataclass
class TableFeed:
    """The replication of one table."""

    name: str
    uc_table: str
    created_at: float
    state: str = "SKIPPED"
    detail: str = ""
    started_at: float = 0.0
    committed_lsn: str | None = None
    synced_at: float | None = None
    contents: str | None = None
    pending: list[tuple[float, str]] = field(default_factory=list)

    def see(self, table: PostgresTable | None, lsn: str, now: float, flush_seconds: float) -> None:
        """Take notice of the table, None if it was dropped, and of the last write to the database.

        A write to the table may have been at any number up to that of the last write to the database.
        """
        if self.state == "TERMINATED":
            return
        if table is None:
            self.terminate("The table was dropped.")
            return
        if table.obstacle:
            self.state, self.detail = "SKIPPED", table.obstacle
            return
        if self.state == "SKIPPED":
            self.state, self.detail, self.started_at, self.pending = "SNAPSHOTTING", "", now, []
            self.contents = None
        if table.contents != self.contents:
            self.contents = table.contents
            self.pending.append((now, lsn))
        self._flush(now, flush_seconds)

    def terminate(self, detail: str) -> None:
        """End the replication of the table."""
        self.state, self.detail = "TERMINATED", detail

    def _flush(self, now: float, flush_seconds: float) -> None:
        """Commit the writes that were observed at least ``flush_seconds`` ago."""
        due = [each for each in self.pending if each[0] <= now - flush_seconds]
        if due:
            self.state = "STREAMING"
            self.synced_at, self.committed_lsn = now, due[-1][1]
            self.pending = self.pending[len(due) :]

    def json(self) -> Json:
        """Return it as the API does."""
        body: Json = {
            "name": self.name,
            "postgres_table": id_of(self.name),
            "uc_table": self.uc_table,
            "state": f"CDF_STATE_{self.state}",
            "create_time": timestamp(self.created_at),
        }
        if self.detail:
            body["status_detail"] = self.detail
        if self.committed_lsn and self.synced_at is not None:
            body |= {"committed_lsn": self.committed_lsn, "last_sync_time": timestamp(self.synced_at)}
        return body


class ChangeFeed:
    """The feed of a Postgres schema. It cannot be changed."""

    def __init__(self, name: str, *, cluster: str, postgres_schema: str, catalog: str, schema: str, now: float) -> None:
        self.name = name
        self.cluster = cluster
        self.postgres_schema = postgres_schema
        self.catalog = catalog
        self.schema = schema
        self.created_at = now
        self._lock = threading.Lock()
        self._tables: dict[str, TableFeed] = {}

    def json(self) -> Json:
        """Return it as the API does."""
        return {
            "name": self.name,
            "cdf_config_id": id_of(self.name),
            "catalog": self.catalog,
            "schema": self.schema,
            "postgres_schema": self.postgres_schema,
            "create_time": timestamp(self.created_at),
        }

    def see(self, tables: Iterable[PostgresTable], lsn: str, now: float, flush_seconds: float) -> list[TableFeed]:
        """Take notice of the tables that the schema has now, and return the feeds of all that it had."""
        seen = {table.name: table for table in tables}
        with self._lock:
            for name in seen:
                if name not in self._tables:
                    uc_table = f"{self.catalog}.{self.schema}.lb_{name}_history"
                    self._tables[name] = TableFeed(f"{self.name}/cdf-statuses/{name}", uc_table, now)
            for name, feed in self._tables.items():
                feed.see(seen.get(name), lsn, now, flush_seconds)
            return list(self._tables.values())


class ChangeFeeds(Resources[ChangeFeed]):
    """The change feeds of the workspace."""

    def __init__(self, clock: Callable[[], float], behaviour: Behaviour) -> None:
        super().__init__("cdf config")
        self._clock = clock
        self._behaviour = behaviour

    def make(
        self, name: str, *, cluster: str, postgres_version: int, postgres_schema: str, catalog: str, schema: str
    ) -> ChangeFeed:
        """Return a new feed of a Postgres schema; raise ``ApiError`` if it cannot be.

        :param cluster: the cluster of the branch
        """
        if not _ID.fullmatch(id_of(name)):
            raise invalid(f"Invalid cdf_config_id '{id_of(name)}'. Must match {_ID.pattern}")
        if postgres_version < MIN_POSTGRES_VERSION:
            raise refused(f"A change data feed needs Postgres {MIN_POSTGRES_VERSION} or newer, not {postgres_version}")
        if name in self:
            raise already_exists(self.kind)
        if any(each.postgres_schema == postgres_schema for each in self.of(parent_of(name))):
            raise already_exists(f"{self.kind} for the Postgres schema '{postgres_schema}'")
        return ChangeFeed(
            name, cluster=cluster, postgres_schema=postgres_schema, catalog=catalog, schema=schema, now=self._clock()
        )

    def discard_of(self, branch: str) -> None:
        """Remove the feeds of a branch that is purged."""
        for feed in [each for each in self.values() if each.name.startswith(f"{branch}/")]:
            self.discard(feed)

    def check_schema(self, feed: ChangeFeed, clusters: Clusters) -> None:
        """Raise ``ApiError`` if the Postgres schema does not exist."""
        found = clusters.execute(
            feed.cluster, DATABASE, "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (feed.postgres_schema,)
        )
        if not found:
            raise invalid(f"Field 'cdf_config.postgres_schema': the schema '{feed.postgres_schema}' does not exist")

    def statuses(self, feed: ChangeFeed, clusters: Clusters) -> list[TableFeed]:
        """Return the state of each table of a feed as of now."""
        rows = clusters.execute(feed.cluster, DATABASE, _TABLES, (feed.postgres_schema,))
        tables = [self._look_at(feed, PostgresTable(*row), clusters) for row in rows]
        # After the look, so that no write that was seen lies behind it.
        lsn = clusters.current_lsn(feed.cluster)
        statuses = feed.see(tables, lsn, self._clock(), self._behaviour.feed_flush_seconds)
        for status in statuses:
            fault = self._behaviour.faults.take(TerminateFeed, id_of(status.name))
            if fault:
                status.terminate(fault.text)
        return statuses

    def _look_at(self, feed: ChangeFeed, table: PostgresTable, clusters: Clusters) -> PostgresTable:
        """Return a table with what tells whether it was written to, if it is replicated."""
        if table.obstacle:
            return table
        from psycopg import errors, sql

        query = sql.SQL(_CONTENTS).format(sql.Identifier(feed.postgres_schema, table.name))
        try:
            return replace(table, contents=str(clusters.execute(feed.cluster, DATABASE, query)[0][0]))
        except errors.UndefinedTable:  # it was dropped meanwhile
            return table

    def status(self, name: str, clusters: Clusters) -> TableFeed:
        """Return the state of a table by its resource name; raise ``ApiError`` if the feed has no such table."""
        feed = self.require(parent_of(name))
        for status in self.statuses(feed, clusters):
            if status.name == name:
                return status
        raise not_found("cdf status")
