"""Send one source through COPY statements: where to, how far it has come, and which row was at fault."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
from psycopg import sql
from psycopg.copy import Copy, LibpqWriter

from airflow_provider_lakebase.core.bulk.catalog import Column, identifiers
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0
"""Seconds between two lines about the same load or export."""

_UNREADABLE = (psycopg.errors.InvalidTextRepresentation, psycopg.errors.InvalidDatetimeFormat)
_DETAILS = {
    psycopg.errors.CharacterNotInRepertoire: ": it is not UTF-8, or holds a null byte",
    # It may be the version or the key, which may be NULL in the table.
    psycopg.errors.NotNullViolation: ": it must not be NULL",
}
_TEMPORARY = re.compile(r"lakebase_load_[0-9a-f]{32}")


@dataclass
class Progress:
    """Count rows and bytes, and log them every 10 seconds.

    :param what: what is being done, for the log
    :param check: raises when it shall stop
    """

    what: str
    check: Callable[[], None] = lambda: None
    rows: int = 0
    bytes: int = 0
    started_at: float = field(default_factory=time.monotonic)
    told_at: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.started_at

    def add(self, *, rows: int = 0, bytes: int = 0) -> None:
        """Count more.

        :param rows: further rows
        :param bytes: further bytes
        """
        self.check()
        self.rows += rows
        self.bytes += bytes
        if time.monotonic() - self.told_at >= PROGRESS_SECONDS:
            self.told_at = time.monotonic()
            self.tell("so far")

    def tell(self, when: str) -> None:
        """Log what was counted.

        :param when: a word or two on the moment
        """
        seconds = max(self.seconds, 0.001)
        log.info(
            "%s, %s: %d rows, %.1f MB, %.1f s, %.0f rows/s, %.1f MB/s",
            *(self.what, when, self.rows, self.bytes / 1e6, seconds, self.rows / seconds, self.bytes / 1e6 / seconds),
        )


class BadValue(Exception):
    """Say which value of a source its column cannot hold.

    :param reason: why, in words that hold no value
    :param number: its row or line in the source, from 1; None when it is not known
    :param column: name of the column
    :param source: where it came from, when it is not the one that is being sent
    :param unit: what is counted, when it is not what the source counts
    """

    def __init__(
        self,
        reason: str,
        number: int | None,
        column: str | None = None,
        source: Source | None = None,
        unit: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.unit = unit
        self.reason = reason
        self.number = number
        self.column = column
        self.source = source


class SourceFailed(Exception):
    """Say that what rows come from has failed by itself; its error is the cause."""


class Source(Protocol):
    """Anything that sends rows through COPY.

    ``columns`` are the columns its values are for, ``label`` is what it is called in messages, ``unit`` what it counts:
    rows or lines.
    """

    columns: Sequence[Column]
    label: str
    unit: str

    def locate(self, row: int) -> tuple[str, int]:
        """Return what the source counts, and by it the number of a row.

        :param row: number of the row, from 1
        """
        return self.unit, row

    def copy_to(self, destination: CopyTarget) -> None:
        """Send all rows.

        :param destination: where to
        :raises BadValue: for a value that its column cannot hold exactly
        :raises psycopg.Error: as Postgres refuses a row
        """


class CopyTarget:
    """Write into a relation by COPY, within the session's transaction.

    :param connection: an open session
    :param path: schema and name, unquoted, of the table, or the temporary table before it
    :param columns: those of the relation that values come for, in their order
    :param progress: what counts rows and bytes
    :param counts_lines: whether rows will be looked at again, and then be told by their lines
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        path: tuple[str, str],
        columns: Sequence[Column],
        progress: Progress,
        counts_lines: bool = False,
    ) -> None:
        self.connection = connection
        self.path = path
        self.columns = columns
        self.progress = progress
        self.rows = 0
        self.first = 0
        self.knows_place = True
        self.counts_lines = counts_lines

    @contextmanager
    def copy(self, options: sql.Composable, *, first: int = 0) -> Iterator[Copy]:
        """Open one COPY statement.

        :param options: what stands in its parentheses: ``FORMAT binary``
        :param first: rows of the source that went before
        """
        self.first = first
        names = identifiers(column.name for column in self.columns)
        statement = sql.SQL("COPY {} ({}) FROM STDIN ({})").format(sql.Identifier(*self.path), names, options)
        with self.connection.cursor() as cursor:
            with cursor.copy(statement, writer=_CountingWriter(cursor, self.progress)) as copy:
                yield copy
            self.rows += cursor.rowcount

    def find(self, error: psycopg.Error) -> tuple[int | None, str | None]:
        """Return row or line and column that an error of COPY names.

        :param error: as Postgres raised it
        """
        # The context quotes the value too, which may look like the rest of it: nothing but the names is taken for one.
        columns = sorted((re.escape(column.name) for column in self.columns), key=len, reverse=True)
        start = rf"^COPY {re.escape(self.path[-1])}, line (?P<line>\d+)"
        place = rf"{start}(?:, column (?P<column>{'|'.join(columns)}))?(?:: |$)"
        found = re.search(place, error.diag.context or "", re.MULTILINE)
        if not found:
            return None, error.diag.column_name
        if not self.knows_place:
            return None, found["column"] or error.diag.column_name
        return self.first + int(found["line"]), found["column"] or error.diag.column_name


class _CountingWriter(LibpqWriter):
    def __init__(self, cursor: psycopg.Cursor[Any], progress: Progress) -> None:
        super().__init__(cursor)
        self._progress = progress

    def write(self, data: Any) -> None:
        super().write(data)
        self._progress.add(bytes=len(data))


def explain(
    error: psycopg.Error,
    source: Source | None,
    destination: CopyTarget | None,
    table: str,
    context: ErrorContext,
    *,
    mode: str = "append",
) -> Exception:
    """Return what to raise for an error of a load; the original quotes the row, so it must not be printed as its cause.

    :param error: as Postgres raised it
    :param source: where the row came from, if it was being sent
    :param destination: where it went
    :param table: the target, as the caller named it
    :param context: connection and endpoint, for messages
    :param mode: of the load
    """
    number, name = destination.find(error) if destination else (None, error.diag.column_name)
    is_of_rows = number is not None and not isinstance(error, psycopg.OperationalError)
    if not is_of_rows and not isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        # Its context quotes the row that was being read.
        return type(error)(error.diag.message_primary or "") if error.diag.context else error
    reason = f"{type(error).__name__}, SQLSTATE {error.sqlstate}{_detail(error, table)}"
    column = next((each for each in destination.columns if each.name == name), None) if destination else None
    if column:
        reason += f"; the column is of type {column.declared}"
    if hasattr(source, "null") and isinstance(error, _UNREADABLE):
        reason += ". If the text stands for NULL, name it as 'null'"
    if isinstance(error, psycopg.errors.UniqueViolation) and mode == "append":
        reason += ". To update a row that has the key already, use mode='upsert' on the constraint's columns"
    return load_error(BadValue(reason, number, name), source, table, context)


def _detail(error: psycopg.Error, table: str) -> str:
    if found := next((text for kind, text in _DETAILS.items() if isinstance(error, kind)), ""):
        return found
    # These messages name columns and constraints; all others quote the value.
    if isinstance(error, psycopg.IntegrityError | psycopg.errors.BadCopyFileFormat):
        return f": {_TEMPORARY.sub(table, error.diag.message_primary or '')}"
    return ""


def load_error(bad: BadValue, source: Source | None, table: str, context: ErrorContext) -> LakebaseLoadError:
    """Return what to raise for a value that was kept out.

    :param bad: the value's place, and why
    :param source: where it came from
    :param table: the target, as the caller named it
    :param context: connection and endpoint, for messages
    """
    source = bad.source or source
    unit = bad.unit or (source.unit if source else "row")
    place = f"a {unit}" if bad.number is None else f"{unit} {bad.number}"
    place += f", column {bad.column}," if bad.column else ""
    place += f" of {source.label}" if source else ""
    return LakebaseLoadError(
        f"Table {table} does not take {place}: {bad.reason}",
        context=context,
        hint="Correct the source or the table; nothing of the load was applied.",
    )
