"""What the model needs from PostgreSQL: clusters that hold the data, and computes that serve them.

The model does no I/O. ``postgres_port`` implements both protocols, and unit tests put simple classes in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, Protocol

if TYPE_CHECKING:
    from psycopg import sql

    from airflow_provider_lakebase.emulator.model.catalog import Row
    from airflow_provider_lakebase.emulator.model.endpoints import Endpoint
    from airflow_provider_lakebase.emulator.model.synced_table_spec import PostgresColumn


class Clusters(Protocol):
    """PostgreSQL clusters by name: the ``uid`` of a branch or a snapshot. All methods block and are thread-safe.

    A cluster is stopped until one of its endpoints wakes. Methods that need a running server start it, and stop it
    again afterwards, without any endpoint's noticing.
    """

    def create(self, cluster: str) -> None:
        """Create an empty cluster with the database ``databricks_postgres``, its owner and the system roles."""

    def copy(self, source: str, target: str, *, time: float | None = None, lsn: str | None = None) -> None:
        """Copy a cluster with all its data, roles and labels, as of now, of a moment or of a log sequence number.

        :param time: seconds since 1970 by the emulator's clock
        :param lsn: such as ``0/16B3748``

        Raise ``ValueError`` if the moment or number lies outside of what ``source`` keeps.
        """

    def delete(self, cluster: str) -> None:
        """Stop a cluster and remove its files; do nothing if it does not exist."""

    def oldest_time(self, cluster: str) -> float:
        """Return the earliest moment that ``copy`` accepts, in seconds since 1970 by the emulator's clock."""

    def current_lsn(self, cluster: str) -> str:
        """Return the log sequence number of the last write."""

    def size(self, cluster: str) -> int:
        """Return the size of its databases in bytes; 0 if it does not exist."""

    def execute(
        self, cluster: str, database: str, query: LiteralString | sql.Composed, params: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside a transaction block, and return its rows."""


class Computes(Protocol):
    """The computes of endpoints. All methods block and are thread-safe."""

    def open(self, endpoint: Endpoint) -> None:
        """Accept logins to an endpoint; raise ``OSError`` if its port is in use."""

    def close(self, endpoint: Endpoint) -> None:
        """Cut an endpoint's sessions and refuse connections to it from now on."""

    def suspend(self, endpoint: Endpoint) -> None:
        """Cut an endpoint's sessions and suspend it. A cluster without an awake endpoint is stopped."""

    def wake(self, endpoint: Endpoint) -> None:
        """Wake an endpoint and return when it is active; raise ``RuntimeError`` if that fails."""


@dataclass(frozen=True)
class TablePlace:
    """Where the Postgres table of a synced table is."""

    cluster: str
    database: str
    schema: str
    table: str


class SyncedTableWriter(Protocol):
    """Writes the Postgres tables of synced tables. All methods block and are thread-safe.

    ``rebuild`` and ``apply`` each make one transaction, and raise ``SyncError`` if PostgreSQL refuses the rows.
    """

    def prepare(self, place: TablePlace, *, creator: str, create_missing: bool) -> None:
        """Make the schema if it is missing, and let the role ``creator`` use the table that will come.

        Raise ``FileExistsError`` if the table exists, and ``LookupError`` if the schema is missing and
        ``create_missing`` is False; both with a text for users.
        """

    def rebuild(
        self, place: TablePlace, columns: Sequence[PostgresColumn], primary_key: Sequence[str], rows: Iterable[Row]
    ) -> None:
        """Put a new table with these rows in the place of the old one, whose indexes and grants go with it."""

    def apply(
        self,
        place: TablePlace,
        added: Sequence[PostgresColumn],
        columns: Sequence[str],
        primary_key: Sequence[str],
        gone: Sequence[Row],
        rows: Iterable[Row],
    ) -> None:
        """Add columns to the table, delete the rows with the keys ``gone``, and insert rows with these columns."""
