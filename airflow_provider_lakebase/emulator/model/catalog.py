"""A small Unity Catalog: source tables, each with its versions. No I/O; all methods are thread-safe."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lakebase.emulator.model.errors import ApiError, Json

Row = tuple[Any, ...]

_TYPE_NAMES = {"bigint": "LONG", "smallint": "SHORT", "tinyint": "BYTE"}
_FULL_NAME = re.compile(r"[^.\s/]+\.[^.\s/]+\.[^.\s/]+")


@dataclass(frozen=True)
class Column:
    """A column; ``type_text`` is its Databricks type, such as ``decimal(10,2)``."""

    name: str
    type_text: str
    nullable: bool = True

    def json(self, position: int) -> Json:
        """Return it as Unity Catalog does."""
        kind = self.type_text.partition("<")[0].partition("(")[0]
        body: Json = {
            "name": self.name,
            "type_text": self.type_text,
            "type_name": _TYPE_NAMES.get(kind, kind.upper()),
            "position": position,
            "nullable": self.nullable,
        }
        if kind == "decimal":
            precision, scale = self.type_text.removeprefix("decimal(").removesuffix(")").split(",")
            body |= {"type_precision": int(precision), "type_scale": int(scale)}
        return body


@dataclass(frozen=True)
class Version:
    """One version of a table, with all its rows. The values are those that Postgres will get."""

    number: int
    committed_at: float
    columns: tuple[Column, ...]
    rows: Sequence[Row] = field(repr=False)


@dataclass(frozen=True)
class SourceTable:
    """A Delta table that synced tables can read."""

    full_name: str
    table_id: str
    created_at: float
    change_data_feed: bool
    versions: tuple[Version, ...]

    @property
    def latest(self) -> Version:
        """Return the newest version."""
        return self.versions[-1]

    def json(self) -> Json:
        """Return it as Unity Catalog does."""
        catalog, schema, name = self.full_name.split(".")
        latest = self.latest
        return {
            "name": name,
            "catalog_name": catalog,
            "schema_name": schema,
            "full_name": self.full_name,
            "table_id": self.table_id,
            "table_type": "MANAGED",
            "data_source_format": "DELTA",
            "owner": "account users",
            "created_at": int(self.created_at * 1000),
            "updated_at": int(latest.committed_at * 1000),
            "columns": [column.json(position) for position, column in enumerate(latest.columns)],
            "properties": {
                "delta.enableChangeDataFeed": str(self.change_data_feed).lower(),
                "delta.lastCommitTimestamp": str(int(latest.committed_at * 1000)),
                "delta.lastUpdateVersion": str(latest.number),
            },
        }


class UnityCatalog:
    """The source tables of the workspace, by full name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tables: dict[str, SourceTable] = {}
        #: Called with the name of a table after each new version.
        self.on_publish: Callable[[str], None] = lambda full_name: None

    def publish(
        self, full_name: str, columns: Sequence[Column], rows: Sequence[Row], change_data_feed: bool | None = None
    ) -> int:
        """Commit the rows as the next version of a table and return its number; the first version is 0.

        :param change_data_feed: sets ``delta.enableChangeDataFeed``; None keeps it, and it is off at first

        Raise ``ValueError`` for a name that is not ``catalog.schema.table`` or for two columns with the same name.
        """
        if not _FULL_NAME.fullmatch(full_name):
            raise ValueError(f"a table's full name is catalog.schema.table, not {full_name!r}")
        if len({column.name.lower() for column in columns}) < len(columns):
            raise ValueError(f"two columns of {full_name} have the same name")
        now = self._clock()
        with self._lock:
            old = self._tables.get(full_name) or SourceTable(full_name, str(uuid.uuid4()), now, False, ())
            version = Version(len(old.versions), now, tuple(columns), rows)
            self._tables[full_name] = SourceTable(
                full_name,
                old.table_id,
                old.created_at,
                old.change_data_feed if change_data_feed is None else change_data_feed,
                (*old.versions, version),
            )
        self.on_publish(full_name)
        return version.number

    def table(self, full_name: str) -> SourceTable | None:
        """Return a table, or None if it does not exist."""
        with self._lock:
            return self._tables.get(full_name)

    def require(self, full_name: str) -> SourceTable:
        """Return a table; raise ``ApiError`` 404, which names the first part that is missing, if it does not exist."""
        parts = full_name.split(".")
        with self._lock:
            table, known = self._tables.get(full_name), [name.split(".") for name in self._tables]
        if table:
            return table
        length = next(length for length in (1, 2, 3) if not any(other[:length] == parts[:length] for other in known))
        kind = ("Catalog", "Schema", "Table")[length - 1]
        raise ApiError(404, f"{kind.upper()}_DOES_NOT_EXIST", f"{kind} '{'.'.join(parts[:length])}' does not exist.")
