"""Results of statements as text, the form in which they pass from one process to another.

The text is what Postgres sent. The process that receives it decodes it with psycopg, so that values come out as in a
session of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq import Format
from psycopg.types.datetime import TimestamptzLoader

MAX_RESULT_BYTES = 48 * 1024
"""Largest text, in bytes, for all results of one task: Airflow stores it in a column of its metadata database."""


@dataclass
class TextResult:
    """The result of one statement.

    :param columns: name and type OID of each column; empty for a statement that returns no rows
    :param rows: text of each value; None for NULL
    :param rowcount: rows returned or affected; -1 if Postgres does not report it
    :param time_zone: TimeZone of the session, to which ``timestamptz`` values are converted
    """

    columns: list[tuple[str, int]] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    rowcount: int = -1
    time_zone: str = "UTC"

    def first_column(self) -> list[Any]:
        """Return the decoded values of the first column."""
        first = replace(self, columns=self.columns[:1], rows=[row[:1] for row in self.rows])
        return [value for (value,) in ResultCursor(first)]


class ResultColumn(NamedTuple):
    """A column as described by the Python database API."""

    name: str
    type_code: int
    display_size: None = None
    internal_size: None = None
    precision: None = None
    scale: None = None
    null_ok: None = None


class ResultCursor:
    """Read a result through the cursor interface that common-sql's handlers expect.

    :param result: the result to read
    """

    def __init__(self, result: TextResult) -> None:
        self.rowcount = result.rowcount
        self.description = [ResultColumn(name, oid) for name, oid in result.columns] or None
        self._rows = _decode(result)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None after the last one."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """Return the next rows.

        :param size: maximum number of rows
        """
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all remaining rows."""
        return list(self._rows)


def write_results(results: Sequence[TextResult]) -> str:
    """Serialize results.

    :param results: the results of a task's statements, in order
    """
    return to_json([[each.columns, each.rows, each.rowcount, each.time_zone] for each in results])


def read_results(text: str) -> list[TextResult]:
    """Deserialize results.

    :param text: from :func:`write_results`
    """
    return [
        TextResult([(name, oid) for name, oid in columns], rows, rowcount, time_zone)
        for columns, rows, rowcount, time_zone in json.loads(text)
    ]


def to_json(value: Any) -> str:
    """Return a value as compact JSON, the form whose size :data:`MAX_RESULT_BYTES` limits.

    :param value: plain values
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class _AdaptContext:
    """The part of a connection that psycopg's Transformer needs to decode values."""

    connection = None

    def __init__(self, adapters: AdaptersMap) -> None:
        self.adapters = adapters


def _decode(result: TextResult) -> Iterator[tuple[Any, ...]]:
    zone = _zone(result.time_zone)

    class ZonedLoader(TimestamptzLoader):
        def load(self, data: Any) -> Any:
            value = super().load(data)
            try:
                return value.astimezone(zone)
            except OverflowError:  # in the last year that datetime can represent
                return value

    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_loader("timestamptz", ZonedLoader)
    transformer = Transformer(_AdaptContext(adapters))
    transformer.set_loader_types([oid for _, oid in result.columns], Format.TEXT)
    for row in result.rows:
        yield transformer.load_sequence([None if value is None else value.encode() for value in row])


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError):  # a POSIX zone, which Python does not know; psycopg falls back to UTC, too
        return UTC
