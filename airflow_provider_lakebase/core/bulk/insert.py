"""Send rows by COPY in place of INSERT, where both store the same."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import psycopg

from airflow_provider_lakebase.core.bulk.catalog import Column, Table, find_table
from airflow_provider_lakebase.core.bulk.copy import BadValue, UnfitValue
from airflow_provider_lakebase.core.bulk.formats.json_values import to_json
from airflow_provider_lakebase.core.bulk.formats.rows import Rows
from airflow_provider_lakebase.core.bulk.modes import LoadExecution
from airflow_provider_lakebase.core.bulk.plan import LoadPlan
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.bulk.rejection import value_error
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.core.frame_values import is_null
from airflow_provider_lakebase.exceptions import LakebaseLoadError

_TEXTS = ("text", "varchar", "bpchar", "citext", "name")


class CopyInsert:
    """Insert or upsert batches of rows.

    :param connection: an open session
    :param table: target, as in SQL
    :param fields: columns to fill, unquoted; by default the first ones, one per value of a row
    :param keys: key columns of an upsert, unquoted; None for a plain INSERT
    :param update: columns that an upsert changes, unquoted; by default all except the key
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: str,
        fields: Sequence[str] | None,
        keys: Sequence[str] | None,
        update: Sequence[str] | None = None,
    ) -> None:
        self.connection = connection
        self.fields = fields
        self.keys = keys
        self.update = update
        self.name = table
        self.before = 0
        self.table: Table | None
        try:
            self.table = find_table(connection, table)
        except LakebaseLoadError:  # INSERT raises Postgres's own error
            self.table = None

    def copy(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Send rows by COPY, unless INSERT might store something else.

        :param rows: rows of equal length
        :returns: whether they were sent
        :raises LakebaseLoadError: for a value that cannot be stored exactly; names row and column
        """
        columns = self._columns(len(rows[0]))
        if self.table is None or not columns or not self._is_plain(columns):
            return False
        part = Rows(rows, columns, before=self.before)
        if len({len(row) for row in rows} | {len(columns)}) > 1 or not part.encodes(rows):
            return False
        if self.keys is None:
            plan = LoadPlan(self.table, "append", columns)
        else:
            names = [column.name for column in columns]
            positions = [names.index(key) for key in self.keys]
            if any(row[position] is None for row in rows for position in positions):
                return False
            update = [name for name in names if name not in self.keys] if self.update is None else list(self.update)
            if not set(update) <= set(names):
                return False
            plan = LoadPlan(self.table, "upsert", columns, self.keys, update)
        with self.connection.transaction():  # in autocommit, COPY would drop the staging table
            try:
                execution = LoadExecution(self.connection, plan, Progress(""))
                part.copy_to(execution.prepare(part))
                execution.finish()
            except BadValue as bad:
                raise value_error(bad, self.name, session_context(self.connection), part) from None
        return True

    def prepared(self, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """Adapt rows for INSERT so that it stores what COPY would: a list in a JSON column becomes JSON.

        :param rows: rows that :meth:`copy` did not send
        :raises LakebaseLoadError: for a value that its column would misread; the error names row and column
        """
        if self.table is None:
            return list(rows)
        if self.fields is None:
            columns: list[Column | None] = list(self.table.columns)
        else:
            columns = [self.table.loadable.get(name) for name in self.fields]
        return [self._prepared(row, columns, number) for number, row in enumerate(rows, self.before + 1)]

    def _prepared(self, row: Sequence[Any], columns: Sequence[Column | None], number: int) -> Sequence[Any]:
        values = [None if is_null(value) else value for value in row]
        for position, (value, column) in enumerate(zip(values, columns, strict=False)):
            if column is None:
                continue
            try:
                if column.kind in ("json", "jsonb") and isinstance(value, dict | list):
                    values[position] = to_json(value)
                elif (
                    column.kind in _TEXTS and isinstance(value, numbers.Real) and value != value and not is_null(value)
                ):
                    raise UnfitValue("NaN, a missing value in pandas and numpy, is not text; make it None")
            except UnfitValue as error:
                bad = BadValue(str(error), number, column.name)
                raise value_error(bad, self.name, session_context(self.connection)) from None
        return values

    def _columns(self, width: int) -> list[Column]:
        if self.table is None:
            return []
        if self.fields is None:
            columns = list(self.table.columns[:width])
            return [] if any(column.generated for column in columns) else columns
        return [self.table.loadable[name] for name in self.fields if name in self.table.loadable]

    def _is_plain(self, columns: Sequence[Column]) -> bool:
        """Return whether COPY and INSERT do the same to the table."""
        assert self.table is not None  # noqa: S101 - for the type checker
        if (
            self.table.has_triggers
            or self.table.has_rules
            or self.table.row_security
            or any(column.identity == "a" for column in columns)
        ):
            return False
        names = [column.name for column in columns]
        if len(set(names)) < len(names) or (self.fields is not None and len(names) < len(self.fields)):
            return False
        return self.keys is None or (
            set(self.keys) <= set(names) and any(set(key) == set(self.keys) for key in self.table.keys)
        )
