"""The staging table: a temporary table that holds the rows between COPY and INSERT, and the checks on them there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk import staged_checks
from airflow_provider_lakebase.core.bulk.catalog import Column, Table, identifiers
from airflow_provider_lakebase.core.bulk.copy import Part
from airflow_provider_lakebase.core.bulk.rejection import row_error
from airflow_provider_lakebase.core.bulk.staged_checks import Check
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseLoadError

_COLLATIONS = """
    SELECT attname, quote_ident(nspname) || '.' || quote_ident(collname)
    FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_type t ON t.oid = atttypid
    JOIN pg_catalog.pg_collation c ON c.oid = attcollation JOIN pg_catalog.pg_namespace n ON n.oid = collnamespace
    WHERE attrelid = %s::oid AND attnum > 0 AND NOT attisdropped AND attcollation <> typcollation
"""


class Staging:
    """A temporary table for the rows of a load, dropped when the transaction ends.

    :param connection: an open session
    :param table: the target
    :param columns: columns of the target that get values
    :param casts: SQL type by column, that its text is cast to
    :param required: columns that must not be NULL, beside those that the target declares NOT NULL
    :param is_text: whether it takes any text, without constraints, for checks that leave rows out
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: Table,
        columns: Sequence[Column],
        casts: Mapping[str, str],
        required: Sequence[str],
        *,
        is_text: bool = False,
    ) -> None:
        self.connection = connection
        self.table = table
        self.columns = columns
        self.casts = casts
        self.required = required
        self.is_text = is_text
        name = f"lakebase_load_{uuid4().hex}"
        self.path = ("pg_temp", name)
        self.row_order = sql.Identifier(f"{name}_row")
        self.relation = sql.Identifier(*self.path)
        self.sent: list[tuple[Part, int]] = []
        self._defaults: dict[str, sql.Composable] = {}
        self._is_rewritten = staged_checks.is_rewritten(connection, table)
        self._create()
        if not is_text:
            self._add_constraints()

    def _create(self) -> None:
        types = {column.name: staged_checks.staged_type(column) for column in self.columns}
        types |= dict.fromkeys(types if self.is_text else self.casts, "text")
        collations = dict(self.connection.execute(_COLLATIONS, [self.table.oid]).fetchall())
        definitions = [
            sql.SQL("{} {}{}").format(
                sql.Identifier(name),
                sql.SQL(kind),
                sql.SQL(f" COLLATE {collations[name]}" if name in collations and name not in self.casts else ""),
            )
            for name, kind in types.items()
        ]
        # The physical position of rows does not tell their order.
        counted = sql.SQL("{} bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000)")
        definitions.append(counted.format(self.row_order))
        create = sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP")
        self._execute(create.format(self.relation, sql.SQL(", ").join(definitions)))

    def _add_constraints(self) -> None:
        """Give the staging table the table's constraints, since COPY can name the row that a constraint rejects."""
        for name in self.never_null:
            if name not in self.casts:
                alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL")
                self._execute(alter.format(self.relation, sql.Identifier(name)))
        if self._is_rewritten:
            return
        typed = [column for column in self.columns if not (column.name in self.casts or column.cuts or column.is_money)]
        exact = [column.name for column in typed]
        for name, expression, _ in staged_checks.check_constraints(self.connection, self.table, exact):
            add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})")
            self._execute(add.format(self.relation, sql.Identifier(name), sql.SQL(expression)))

    @property
    def never_null(self) -> list[str]:
        """The columns that must not be NULL."""
        declared = [] if self._is_rewritten else [column.name for column in self.columns if column.not_null]
        return list(dict.fromkeys([*declared, *self.required]))

    def expect(self, part: Part, rows: int) -> None:
        """Prepare the table for the columns of a part, and record where its rows begin.

        Columns that are not loaded are added as text.

        :param part: the next part to be sent
        :param rows: rows that were sent before
        """
        self.sent.append((part, rows))
        for name in {column.name for column in part.columns} - {column.name for column in self.columns}:
            add = sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} text")
            self._execute(add.format(self.relation, sql.Identifier(name)))
        self._set_defaults(part)

    def _set_defaults(self, part: Part) -> None:
        """Let each column that a part does not send get the value of its folder, or the default of the target."""
        sent = {column.name for column in part.columns}
        for column in self.columns:
            name = column.name
            if name in sent:
                continue
            default: sql.Composable = sql.NULL
            if name in part.folder_values:
                default = sql.Literal(part.folder_values[name])
            elif column.default is not None:
                default = sql.SQL("CAST(({}) AS {})").format(sql.SQL(column.default), sql.SQL(column.declared))
                if self.is_text or name in self.casts:
                    default = sql.SQL("CAST({} AS text)").format(default)
            if self._defaults.get(name, sql.NULL) != default:
                alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT {}")
                self._execute(alter.format(self.relation, sql.Identifier(name), default))
                self._defaults[name] = default

    @property
    def values(self) -> sql.Composed:
        """The select list that yields the target's columns, cast to their types."""
        return sql.SQL(", ").join(
            sql.SQL("CAST({0} AS {1}) AS {0}").format(
                sql.Identifier(column.name), sql.SQL(self.casts.get(column.name, column.declared))
            )
            for column in self.columns
        )

    @contextmanager
    def locating(self) -> Iterator[None]:
        """If a statement in the block fails because a value does not fit, raise an error that names its row.

        :raises LakebaseLoadError: for the first one
        """
        try:
            with self.connection.transaction():
                yield
        except psycopg.DataError:
            suspects = [column for column in self.columns if column.rounds or column.name in self.casts]
            kinds = {column.name: self.casts.get(column.name, column.declared) for column in suspects}
            self._reject_first(staged_checks.invalid(kinds))
            raise

    def check_rounding(self) -> None:
        """Reject values that their columns would round, which a cast does silently.

        :raises LakebaseLoadError: for the first one
        """
        with self.locating():
            self._reject_first(staged_checks.rounded(self.columns, self.casts))
            self._reject_first(staged_checks.lossy_casts(self.connection, self.casts))
            self._reject_first(staged_checks.changed_after_casts(self.connection, self.columns, self.casts))
            required = [name for name in self.required if name in self.casts]
            self._reject_first(staged_checks.null(required, self.casts))

    def typed_checks(self) -> list[Check]:
        """Return the checks of text, in an order in which each one can rely on those before it."""
        checks = [
            *staged_checks.readable(self.columns, self.casts),
            *staged_checks.rounded(self.columns, self.casts, is_text=True),
            *staged_checks.lossy_casts(self.connection, self.casts),
            *staged_checks.changed_after_casts(self.connection, self.columns, self.casts),
            *staged_checks.null(self.never_null, self.casts),
        ]
        if not self._is_rewritten:
            names = [column.name for column in self.columns]
            checks += filter(self._applies, staged_checks.violated(self.connection, self.table, names, self.values))
        return checks

    def _applies(self, check: Check) -> bool:
        """Return whether a check has all columns that it needs: a partition key may have its default."""
        try:
            with self.connection.transaction():
                self._execute(sql.SQL("SELECT {} FROM {} LIMIT 0").format(check.condition, self.relation))
        except psycopg.errors.UndefinedColumn:
            return False
        return True

    def check_repeats(self, keys: Sequence[str]) -> None:
        """Reject a second row with the same key.

        :param keys: columns of the key
        :raises LakebaseLoadError: for the first one
        """
        query = sql.SQL("{} ORDER BY 1 LIMIT 1").format(self.find_repeats(keys))
        if row := self.connection.execute(query).fetchone():
            raise self._bad(row[0], ", ".join(keys), "an earlier row has the same key") from None

    def find_repeats(self, key: Sequence[str], keys: Sequence[Sequence[str]] = ()) -> sql.Composed:
        """Return the query for the ``number`` of each row that has the key of an earlier one.

        :param key: columns of the key
        :param keys: all keys that rows must not share: an earlier row counts only if it repeats none of them itself
        """
        counted = [
            sql.SQL("CASE WHEN num_nulls({0}) = 0 THEN row_number() OVER (PARTITION BY {0} ORDER BY {1}) END").format(
                identifiers(each), self.row_order
            )
            for each in (key, *keys)
        ]
        # The key may have columns of any name.
        nth, most, kept = (sql.Identifier(f"{self.path[1]}_{name}") for name in ("nth", "most", "kept"))
        return sql.SQL("""
            SELECT {order} AS number FROM (
                SELECT {order}, {nth}, first_value({most} = 1) OVER (PARTITION BY {key} ORDER BY {order}) AS {kept}
                FROM (
                    SELECT {order}, {counted} AS {nth}, greatest({all}) AS {most}, {key} FROM (
                        SELECT {order}, {values} FROM {staging}
                    ) AS row
                ) AS row
            ) AS row WHERE {nth} > 1 AND {kept}
        """).format(
            key=identifiers(key),
            order=self.row_order,
            nth=nth,
            most=most,
            kept=kept,
            counted=counted[0],
            all=sql.SQL(", ").join(counted),
            values=self.values,
            staging=self.relation,
        )

    def _reject_first(self, checks: Iterable[Check]) -> None:
        found = list(checks)
        if not found:
            return
        cases = sql.SQL(" ").join(
            sql.SQL("WHEN {} THEN {}").format(check.condition, sql.Literal(position))
            for position, check in enumerate(found)
        )
        query = sql.SQL("""
            SELECT number, position FROM (SELECT {} AS number, CASE {} END AS position FROM {}) AS row
            WHERE position IS NOT NULL ORDER BY number LIMIT 1
        """).format(self.row_order, cases, self.relation)
        if row := self.connection.execute(query).fetchone():
            check = found[row[1]]
            raise self._bad(row[0], check.column, check.reason) from None

    def check_condition(self, condition: str) -> None:
        """Reject the first row that does not match a condition, if the staged rows have the columns that it needs.

        :param condition: SQL on the columns of the target
        :raises LakebaseLoadError: for the first one
        """
        with suppress(psycopg.Error), self.connection.transaction():
            others = sql.SQL("({}) IS NOT TRUE").format(sql.SQL(condition))
            self._reject_first([Check("", others, "{other_row}")])

    def locate(self, number: int) -> tuple[str, str, int]:
        """Return source, unit and number of a staged row.

        :param number: its number in the staging table
        """
        part, row = self._find_part(number)
        return part.label, *part.locate_sent(row)

    def _find_part(self, number: int) -> tuple[Part, int]:
        part, before = next(each for each in reversed(self.sent) if each[1] < number)
        return part, number - before

    def _bad(self, number: int, column: str, reason: str) -> LakebaseLoadError:
        """Return the error for a staged row, to be raised without the error of Postgres, which may quote a value."""
        part, row = self._find_part(number)
        return row_error(reason, self.table.name, session_context(self.connection), part, row, column)

    def _execute(self, statement: sql.Composed) -> None:
        self.connection.execute(statement)
