"""The staging table: a temporary table that holds the rows between COPY and INSERT, and the checks on them there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column, Table, identifiers
from airflow_provider_lakebase.core.bulk.copy import Part
from airflow_provider_lakebase.core.bulk.rejection import row_error
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseLoadError

# A constraint of PostgreSQL 18 may be NOT ENFORCED; older versions have no column for it.
_CHECKS = """
    SELECT conname, pg_get_expr(conbin, conrelid) FROM pg_catalog.pg_constraint
    WHERE conrelid = %s::oid AND contype = 'c' AND pg_get_constraintdef(oid) !~ 'NOT ENFORCED$' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = conrelid AND attnum = ANY (conkey) AND attname <> ALL (%s::text[])
    )
"""
_ROUNDED = (
    *("numeric", "interval", "timestamp without time zone", "timestamp with time zone"),
    *("time without time zone", "time with time zone"),
)
_TOO_EXACT = r"{text} ~ '[.,]\d{{6}}\d*[1-9]'"
# Text that already has a zone is not valid with a second one.
_HAS_ZONE = """
    pg_input_is_valid({text}, 'timestamptz') AND NOT pg_input_is_valid({text} || ' UTC', 'timestamptz')
    AND CASE WHEN pg_input_is_valid({text}, 'timestamp') THEN isfinite({text}::timestamp) ELSE true END
"""
_LOSSES = {
    "date": (
        _HAS_ZONE,
        """CASE WHEN pg_input_is_valid({text}, 'timestamp') AND pg_input_is_valid({text}, 'date')
        THEN {text}::timestamp <> {text}::date::timestamp ELSE false END""",
    ),
    "timestamp without time zone": (_HAS_ZONE, _TOO_EXACT),
    "timestamp with time zone": (_TOO_EXACT,),
    "time without time zone": (
        "NOT pg_input_is_valid({text} || ' UTC', 'timetz')",
        "pg_input_is_valid({text}, 'timestamp')",
        _TOO_EXACT,
    ),
    "time with time zone": ("pg_input_is_valid({text}, 'timestamptz')", _TOO_EXACT),
    "interval": (_TOO_EXACT, r"{text} ~* '[.,]\d*[1-9]\d*\s*(y|dec|c|mil|ms|u|e)'"),
}
"""By type, conditions on the text of a date or time that says more than the type keeps."""
_COLLATIONS = """
    SELECT attname, quote_ident(nspname) || '.' || quote_ident(collname)
    FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_type t ON t.oid = atttypid
    JOIN pg_catalog.pg_collation c ON c.oid = attcollation JOIN pg_catalog.pg_namespace n ON n.oid = collnamespace
    WHERE attrelid = %s::oid AND attnum > 0 AND NOT attisdropped AND attcollation <> typcollation
"""
# A BEFORE INSERT trigger, or a rule, may change the row. The bits of tgtype are ROW, BEFORE and INSERT.
_REWRITES = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = %(oid)s::oid AND relhasrules) OR EXISTS (
        SELECT FROM pg_catalog.pg_trigger WHERE tgtype & 7 = 7 AND tgenabled <> 'D' AND tgrelid IN (
            SELECT %(oid)s::oid UNION SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass)
        )
    )
"""


class Staging:
    """A temporary table for the rows of a load, dropped when the transaction ends.

    :param connection: an open session
    :param table: the target
    :param columns: columns of the target that get values
    :param casts: SQL type by column, that its text is cast to
    :param required: columns that must not be NULL, beside those that the target declares NOT NULL
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: Table,
        columns: Sequence[Column],
        casts: Mapping[str, str],
        required: Sequence[str],
    ) -> None:
        self.connection = connection
        self.table = table
        self.columns = columns
        self.casts = casts
        self.required = required
        name = f"lakebase_load_{uuid4().hex}"
        self.path = ("pg_temp", name)
        self.row_order = sql.Identifier(f"{name}_row")
        self.relation = sql.Identifier(*self.path)
        self.sent: list[tuple[Part, int]] = []
        self._defaults: dict[str, sql.Composable] = {}
        self._create(table, required)

    def _create(self, table: Table, required: Sequence[str]) -> None:
        # A column that rounds is staged without its modifier, to see whether it would.
        types = {column.name: column.bare if column.rounds else column.declared for column in self.columns}
        types |= dict.fromkeys(self.casts, "text")
        collations = dict(self.connection.execute(_COLLATIONS, [table.oid]).fetchall())
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
        # COPY can name the row that a constraint rejects, so the staging table has the table's constraints.
        exact = [name for name in types if name not in self.casts]
        ((rewritten,),) = self.connection.execute(_REWRITES, {"oid": table.oid}).fetchall()
        never_null = set() if rewritten else {column.name for column in self.columns if column.not_null}
        for name in never_null | set(required):
            if name in exact:
                alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL")
                self._execute(alter.format(self.relation, sql.Identifier(name)))
        if rewritten:
            return
        for name, expression in self.connection.execute(_CHECKS, [table.oid, exact]).fetchall():
            add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})")
            self._execute(add.format(self.relation, sql.Identifier(name), sql.SQL(expression)))

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
                default = sql.SQL("CAST({} AS text)").format(default) if name in self.casts else default
            if self._defaults.get(name, sql.NULL) != default:
                alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT {}")
                self._execute(alter.format(self.relation, sql.Identifier(name), default))
                self._defaults[name] = default

    @property
    def values(self) -> sql.Composed:
        """The select list that yields the target's columns, cast to their types."""
        return sql.SQL(", ").join(
            sql.SQL("CAST({0} AS {1}) AS {0}").format(sql.Identifier(name), sql.SQL(wanted))
            for name, wanted in self._wanted().items()
        )

    def _wanted(self) -> dict[str, str]:
        return {column.name: self.casts.get(column.name, column.declared) for column in self.columns}

    @contextmanager
    def locating(self) -> Iterator[None]:
        """If a statement in the block fails because a value does not fit, raise an error that names its row.

        :raises LakebaseLoadError: for the first one
        """
        try:
            with self.connection.transaction():
                yield
        except psycopg.DataError:
            suspects = [column.name for column in self.columns if column.rounds or column.name in self.casts]
            condition = sql.SQL("NOT pg_input_is_valid({}::text, {})")
            wanted = self._wanted()
            self._reject_first(
                {name: condition.format(sql.Identifier(name), sql.Literal(wanted[name])) for name in suspects},
                {name: f"it does not fit {wanted[name]}" for name in suspects},
            )
            raise

    def check_rounding(self) -> None:
        """Reject values that their columns would round, which a cast does silently.

        :raises LakebaseLoadError: for the first one
        """
        rounding = {
            column.name: column.declared for column in self.columns if column.rounds and column.name not in self.casts
        }
        condition = sql.SQL("{0} IS DISTINCT FROM {0}::{1}")
        with self.locating():
            self._reject_first(
                {n: condition.format(sql.Identifier(n), sql.SQL(wanted)) for n, wanted in rounding.items()},
                {name: f"it has more digits than {wanted} keeps" for name, wanted in rounding.items()},
            )
            self._check_text_of_casts()
            self._check_after_casts()
            required = {name: self.casts[name] for name in self.required if name in self.casts}
            self._reject_first(
                {n: sql.SQL("{}::{} IS NULL").format(sql.Identifier(n), sql.SQL(kind)) for n, kind in required.items()},
                dict.fromkeys(required, "it must not be NULL"),
            )

    def _check_text_of_casts(self) -> None:
        """Reject text of dates and times that the type of its cast would truncate or round."""
        conditions: dict[str, sql.Composable] = {}
        reasons = {}
        for name, kind in self.casts.items():
            (bare,) = self.connection.execute("SELECT format_type(%s::regtype, -1)", [kind]).fetchall()[0]
            text = sql.Identifier(name)
            parts = list(_LOSSES.get(bare, ()))
            if bare in _ROUNDED and kind.lower() != bare:
                parts.append("{text}::{bare} IS DISTINCT FROM {text}::{kind}::{bare}")
            names = {"text": text, "bare": sql.SQL(bare), "kind": sql.SQL(kind)}
            if parts:
                either = sql.SQL(" OR ").join(sql.SQL(f"({part})").format(**names) for part in parts)
                conditions[name] = sql.SQL("CASE WHEN {} IS NULL THEN false ELSE {} END").format(text, either)
                reasons[name] = f"it says more than {kind} keeps: a zone, a date, a time of day or more digits"
        self._reject_first(conditions, reasons)

    def _check_after_casts(self) -> None:
        """Reject values that the column would change after their cast."""
        changed = sql.SQL("{0}::{1}::{2}::{1} IS DISTINCT FROM {0}::{1}")
        declared = {column.name: column.declared for column in self.columns}
        conditions, reasons = {}, {}
        for name, kind in self.casts.items():
            parts = (sql.SQL(kind), sql.SQL(declared[name]))
            try:
                with self.connection.transaction():
                    self._execute(sql.SQL("SELECT {}").format(changed.format(sql.SQL("NULL"), *parts)))
            except psycopg.ProgrammingError:
                continue  # no cast back to compare with
            conditions[name] = changed.format(sql.Identifier(name), *parts)
            reasons[name] = f"as {kind} it does not fit {declared[name]} exactly"
        self._reject_first(conditions, reasons)

    def check_repeats(self, keys: Sequence[str]) -> None:
        """Reject a second row with the same key.

        :param keys: columns of the key
        :raises LakebaseLoadError: for the first one
        """
        query = sql.SQL("""
            SELECT {order} FROM (
                SELECT {order}, row_number() OVER (PARTITION BY {keys} ORDER BY {order}) AS nth
                FROM (SELECT {order}, {values} FROM {staging}) AS row WHERE num_nulls({keys}) = 0
            ) AS row WHERE nth > 1 ORDER BY {order} LIMIT 1
        """).format(keys=identifiers(keys), values=self.values, staging=self.relation, order=self.row_order)
        if row := self.connection.execute(query).fetchone():
            raise self._bad(row[0], ", ".join(keys), "an earlier row has the same key") from None

    def _reject_first(self, conditions: Mapping[str, sql.Composable], reasons: Mapping[str, str]) -> None:
        if not conditions:
            return
        cases = sql.SQL(" ").join(
            sql.SQL("WHEN {} THEN {}").format(condition, sql.Literal(name)) for name, condition in conditions.items()
        )
        query = sql.SQL("""
            SELECT number, name FROM (SELECT {} AS number, CASE {} END AS name FROM {}) AS row
            WHERE name IS NOT NULL ORDER BY number LIMIT 1
        """).format(self.row_order, cases, self.relation)
        if row := self.connection.execute(query).fetchone():
            raise self._bad(row[0], row[1], reasons[row[1]]) from None

    def check_condition(self, condition: str) -> None:
        """Reject the first row that does not match a condition, if the staged rows have the columns that it needs.

        :param condition: SQL on the columns of the target
        :raises LakebaseLoadError: for the first one
        """
        with suppress(psycopg.Error), self.connection.transaction():
            self._reject_first(
                {"": sql.SQL("({}) IS NOT TRUE").format(sql.SQL(condition))}, {"": "it does not match replace_where"}
            )

    def _bad(self, number: int, column: str, reason: str) -> LakebaseLoadError:
        """Return the error for a staged row, to be raised without the error of Postgres, which may quote a value."""
        part, before = next(each for each in reversed(self.sent) if each[1] < number)
        return row_error(reason, self.table.name, session_context(self.connection), part, number - before, column)

    def _execute(self, statement: sql.Composed) -> None:
        self.connection.execute(statement)
