"""COPY … FROM STDIN: the interface between parts, which send rows, and the table or staging table that gets them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

import psycopg
from psycopg import sql
from psycopg.copy import Copy, LibpqWriter

from airflow_provider_lakebase.core.bulk.catalog import Column, identifiers
from airflow_provider_lakebase.core.bulk.progress import Progress


class UnfitValue(ValueError):
    """A value that its column cannot hold exactly.

    :param reason: why, without the value
    :param sqlstate: SQLSTATE of the kind of fault
    """

    def __init__(self, reason: str, sqlstate: str = "22000") -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate


class BadValue(Exception):
    """A value that its column cannot hold exactly, and its place in the part that is being sent.

    :param reason: why, without the value
    :param number: its row or line in the part being sent, counted from 1; None if unknown
    :param column: column name; None if the whole row is at fault
    :param unit: ``row`` or ``line``, where it differs from the part's own
    :param sqlstate: SQLSTATE of the kind of fault
    """

    def __init__(
        self,
        reason: str,
        number: int | None,
        column: str | None = None,
        *,
        unit: str | None = None,
        sqlstate: str = "22000",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.number = number
        self.column = column
        self.unit = unit
        self.sqlstate = sqlstate


class RowRejecter(Protocol):
    """Takes rows that a load leaves out."""

    def add(self, part: Part, bad: BadValue, raw: str) -> None: ...


class SkippedRows:
    """The rows of a part that were not sent, to find the number in the source of those that were."""

    def __init__(self) -> None:
        self._sent_before = array("Q")

    def add(self, number: int) -> None:
        """Record a row.

        :param number: its number in the part, from 1; larger than those recorded before
        """
        self._sent_before.append(number - 1 - len(self._sent_before))

    def __len__(self) -> int:
        return len(self._sent_before)

    def source_row(self, sent: int) -> int:
        """Return the number in the part of a row that was sent.

        :param sent: its number among the rows that were sent, from 1
        """
        return sent + bisect_left(self._sent_before, sent)


class SourceFailed(Exception):
    """Reading the source failed; its own error is the cause."""


class Part(ABC):
    """One file, or the rows that a caller gave: sends its rows through COPY.

    ``columns`` are the target columns of its values, in their order; ``label`` names it in messages.
    """

    columns: Sequence[Column]
    label: str
    unit: str = "row"
    """What its numbers count, in messages: rows or lines."""
    has_null_text: bool = False
    """Whether the option ``null`` applies to it."""
    is_empty: bool = False
    """Whether it has neither rows nor names, so that ``columns`` are all of the table's."""
    may_round: bool = False
    """Whether it may send values that a column would round, other than text that a format checks itself."""
    folder_values: Mapping[str, str | None] = MappingProxyType({})
    """By column, the text that partition folders in its path give all of its rows; None for NULL."""

    @cached_property
    def skipped(self) -> SkippedRows:
        """The rows that were left out."""
        return SkippedRows()

    def locate_sent(self, row: int) -> tuple[str, int]:
        """Return unit and number by which messages refer to a row that was sent.

        :param row: its number among the rows that were sent, from 1
        """
        return self.locate(self.skipped.source_row(row))

    def locate(self, row: int) -> tuple[str, int]:
        """Return unit and number by which messages refer to a row.

        :param row: number of the row, from 1
        """
        return self.unit, row

    def locate_copied(self, line: int) -> tuple[str, int | None]:
        """Return unit and number for the line that an error of the current COPY statement names.

        :param line: line as Postgres counts it, from 1
        """
        return self.unit, line

    def reject(self, target: CopyTarget, bad: BadValue, raw: str, row: int) -> None:
        """Leave a row out of the load, or end the load if no row may be left out.

        :param target: the relation that the part is being sent to
        :param bad: what is wrong with the row
        :param raw: the row as text or JSON
        :param row: its number in the part, from 1
        :raises BadValue: if no row may be left out
        """
        if target.rejects is None:
            raise bad
        target.rejects.add(self, bad, raw)
        self.skipped.add(row)

    @abstractmethod
    def copy_to(self, target: CopyTarget) -> None:
        """Send all rows.

        :param target: the relation to write to
        :raises BadValue: for a value that its column cannot hold exactly
        :raises SourceFailed: if the rows cannot be read
        :raises psycopg.Error: if Postgres rejects a row
        """


class CopyTarget:
    """The relation that a part is copied into, within the session's transaction.

    :param connection: an open session
    :param path: schema and name, unquoted, of the table or its staging table
    :param columns: the columns to fill, in the order of the values
    :param progress: counts rows and bytes
    :param rejects: takes rows that cannot be sent; None if the first one ends the load. If given, the columns of the
        relation are text
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        path: tuple[str, str],
        columns: Sequence[Column],
        progress: Progress,
        rejects: RowRejecter | None = None,
    ) -> None:
        self.connection = connection
        self.path = path
        self.columns = columns
        self.progress = progress
        self.rejects = rejects
        self.rows = 0

    @contextmanager
    def copy(self, options: sql.Composable) -> Iterator[Copy]:
        """Run one COPY statement, whose data the ``with`` block writes.

        :param options: the options in its parentheses, such as ``FORMAT binary``
        """
        names = identifiers(column.name for column in self.columns)
        statement = sql.SQL("COPY {} ({}) FROM STDIN ({})").format(sql.Identifier(*self.path), names, options)
        with self.connection.cursor() as cursor:
            with cursor.copy(statement, writer=_CountingWriter(cursor, self.progress)) as copy:
                yield copy
            self.rows += cursor.rowcount
            self.progress.settle(cursor.rowcount)

    def find(self, error: psycopg.Error) -> tuple[int | None, str | None]:
        """Return the line and the column that an error of COPY names; None for each one that it does not name.

        :param error: as Postgres raised it
        """
        # The context quotes the value, which may look like the rest of the context: match known names only.
        columns = sorted((re.escape(column.name) for column in self.columns), key=len, reverse=True)
        start = rf"^COPY {re.escape(self.path[-1])}, line (?P<line>\d+)"
        pattern = rf"{start}(?:, column (?P<column>{'|'.join(columns)}))?(?:: |$)"
        found = re.search(pattern, error.diag.context or "", re.MULTILINE)
        if not found:
            return None, error.diag.column_name
        return int(found["line"]), found["column"] or error.diag.column_name


class _CountingWriter(LibpqWriter):
    def __init__(self, cursor: psycopg.Cursor[Any], progress: Progress) -> None:
        super().__init__(cursor)
        self._progress = progress

    def write(self, data: Any) -> None:
        super().write(data)
        self._progress.add(bytes=len(data))
