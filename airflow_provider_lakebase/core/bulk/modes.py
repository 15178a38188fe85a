"""Put rows into a table: append, replace, upsert; each within the session's current transaction.

Where rows can go straight into the table, they do. Otherwise they go into a temporary table first and from there on by
one INSERT: for a replace, whose locks need not wait for the source then, for an upsert, for values to be cast, for
columns to be left out, under row-level security, and for what a column would round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column, Table, identifiers
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Progress, Source
from airflow_provider_lakebase.core.bulk.staging import Staging

Mode = Literal["append", "replace", "upsert"]
NOTHING_MORE = sql.SQL("")


@dataclass(frozen=True)
class LoadPlan:
    """Say how rows get into a table.

    :param table: the target
    :param mode: ``append``, ``replace`` or ``upsert``
    :param columns: the table's columns that get values
    :param keys: columns that tell rows apart, for an upsert
    :param update: columns that an upsert changes in rows that are there; none for ``DO NOTHING``
    :param version: column that must grow for an upsert to change a row
    :param last_wins: whether of several rows with one key the last one counts; else they are an error
    :param predicate: SQL that says which rows are replaced
    :param casts: SQL type by column, that its text is cast to before it goes into the column
    :param leaves_out: whether the source may send columns that go nowhere
    :param unchecked: whether the source may send text that a column would round
    """

    table: Table
    mode: Mode
    columns: Sequence[Column]
    keys: Sequence[str] = ()
    update: Sequence[str] = ()
    version: str | None = None
    last_wins: bool = True
    predicate: str | None = None
    casts: Mapping[str, str] = field(default_factory=dict)
    leaves_out: bool = False
    unchecked: bool = False

    @property
    def stable_key(self) -> Sequence[str]:
        """Return the key by which a replace keeps rows that others may refer to."""
        if self.mode != "replace" or not self.table.has_incoming_fks:
            return ()
        usable = {column.name for column in self.columns if column.not_null}
        return next((key for key in self.table.keys if usable.issuperset(key)), ())

    @property
    def is_staged(self) -> bool:
        """Return whether rows go through a temporary table."""
        rounds = any(
            column.rounds and (self.unchecked or column.element or column.kind == "interval") for column in self.columns
        )
        return any((self.mode != "append", self.casts, self.leaves_out, self.table.row_security, rounds))


class LoadExecution:
    """Carry out a plan, and know what is being sent where.

    :param connection: an open session
    :param plan: what to do
    :param progress: what counts rows and bytes
    """

    def __init__(self, connection: psycopg.Connection[Any], plan: LoadPlan, progress: Progress) -> None:
        self.connection = connection
        self.plan = plan
        self.progress = progress
        self.source: Source | None = None
        self.destination: CopyTarget | None = None

    def run(self, sources: Iterable[Source]) -> int:
        """Send the sources and return the rows written.

        :param sources: each opened when it is its turn
        :raises BadValue: for a value that was kept out
        :raises psycopg.Error: as Postgres refuses a row
        """
        plan = self.plan
        if not plan.is_staged:
            return self._send(sources, plan.table.path)
        required = [*plan.keys, *([plan.version] if plan.version else [])]
        staging = Staging(self.connection, plan.table, plan.columns, plan.casts, required)
        self._send(sources, staging.path, staging)
        self.source = self.destination = None
        staging.check_rounding()
        if plan.mode == "upsert":
            return self._upsert(staging)
        if plan.mode == "append":
            return self._insert(staging)
        self._lock()
        if plan.stable_key:
            return self._replace_keeping(staging)
        if plan.table.has_incoming_fks:
            return self._insert(staging, deletion=self._deletion())
        self._execute(self._deletion())
        return self._insert(staging)

    def _send(self, sources: Iterable[Source], path: tuple[str, str], staging: Staging | None = None) -> int:
        rows = 0
        for source in sources:
            self.source = source
            if staging:
                staging.expect(source, rows)
            counts_lines = staging is not None
            self.destination = CopyTarget(self.connection, path, source.columns, self.progress, counts_lines)
            source.copy_to(self.destination)
            rows += self.destination.rows
        return rows

    def _lock(self) -> None:
        # Of two at once, the second would not see, and so not delete, the rows of the first. Readers are let through.
        self._execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self.plan.table.identifier))

    def _deletion(self, *conditions: sql.Composable) -> sql.Composed:
        predicate = sql.SQL("({})").format(sql.SQL(self.plan.predicate or "true"))
        delete = sql.SQL("DELETE FROM {} AS target WHERE {}")
        every = sql.SQL(" AND ").join([predicate, *conditions])
        return delete.format(self.plan.table.identifier, every)

    def _insert(
        self,
        staging: Staging,
        action: sql.Composable = NOTHING_MORE,
        deletion: sql.Composable | None = None,
    ) -> int:
        # One statement deletes and inserts, so that foreign keys are looked at when it is done. To count what is
        # deleted makes it come first.
        gone = sql.SQL("gone AS ({} RETURNING true)").format(deletion) if deletion else NOTHING_MORE
        after = sql.SQL("WHERE (SELECT count(*) FROM gone) >= 0") if deletion else NOTHING_MORE
        parts = (self._into(), staging.values, staging.relation, after, action)
        insert = sql.SQL("{} SELECT {} FROM {} {} {}").format(*parts)
        predicate = self.plan.predicate
        with self._locating_repeats(staging), staging.locating():
            if predicate is None:
                first = sql.SQL("WITH {} ").format(gone) if deletion else NOTHING_MORE
                return self._execute(first + insert).rowcount
            count = sql.SQL("""
                WITH {} written AS ({} RETURNING *)
                SELECT count(*), count(*) FILTER (WHERE ({}) IS NOT TRUE) FROM written
            """).format(gone + sql.SQL(",") if deletion else NOTHING_MORE, insert, sql.SQL(predicate))
            ((written, others),) = self._execute(count).fetchall()
        if others:
            staging.check_condition(predicate)
            raise BadValue("it does not meet replace_where", None)
        return int(written)

    @contextmanager
    def _locating_repeats(self, staging: Staging) -> Iterator[None]:
        """Run a statement over the rows; when two of them have one key, say which."""
        try:
            yield
        except psycopg.errors.UniqueViolation:
            given = {column.name for column in self.plan.columns}
            for key in self.plan.table.keys:
                if given.issuperset(key):
                    staging.check_repeats(key)
            raise

    def _into(self) -> sql.Composed:
        # COPY stores the values given for an identity column; so does this.
        overriding = "OVERRIDING SYSTEM VALUE" if any(column.identity for column in self.plan.columns) else ""
        names = identifiers([column.name for column in self.plan.columns])
        into = sql.SQL("INSERT INTO {} AS target ({}) {}")
        return into.format(self.plan.table.identifier, names, sql.SQL(overriding))

    def _upsert(self, staging: Staging) -> int:
        """Insert in the order of the key, so that two at once wait for each other's rows in the same order."""
        plan = self.plan
        if not plan.last_wins:
            staging.check_repeats(plan.keys)
        self._check_identity(staging, plan.keys)
        values = sql.SQL("SELECT {} FROM {}").format(staging.values, staging.relation)
        with staging.locating():
            # To look for repeated keys costs more than to be told of one, where the statement is refused for it.
            if plan.update:
                with suppress(psycopg.errors.CardinalityViolation), self.connection.transaction():
                    return self._execute(self._upsert_from(values)).rowcount
            return self._execute(self._upsert_from(self._deduplicated_rows(staging))).rowcount

    def _upsert_from(self, rows: sql.Composable) -> sql.Composed:
        upsert = sql.SQL("{into} SELECT {names} FROM ({rows}) AS row ORDER BY {keys} ON CONFLICT ({keys}) {action}")
        return upsert.format(
            into=self._into(),
            names=identifiers([column.name for column in self.plan.columns]),
            rows=rows,
            keys=identifiers(self.plan.keys),
            action=self._action(self.plan.update),
        )

    def _deduplicated_rows(self, staging: Staging) -> sql.Composed:
        version = self.plan.version
        return sql.SQL("""
            SELECT DISTINCT ON ({keys}) * FROM (SELECT {values}, {number} FROM {staging}) AS row
            ORDER BY {keys}, {newest} {number} DESC
        """).format(
            keys=identifiers(self.plan.keys),
            values=staging.values,
            staging=staging.relation,
            newest=sql.SQL("{} DESC NULLS LAST, ").format(sql.Identifier(version)) if version else NOTHING_MORE,
            number=staging.number,
        )

    def _check_identity(self, staging: Staging, keys: Sequence[str]) -> None:
        """Keep out other values for an identity that is GENERATED ALWAYS: no UPDATE would store them."""
        other = sql.SQL("SELECT FROM {} AS target JOIN {} AS coming ON {} WHERE coming.{name} <> target.{name} LIMIT 1")
        for column in self.plan.columns:
            if column.identity == "a" and column.name not in keys and column.name not in self.plan.casts:
                name = sql.Identifier(column.name)
                query = other.format(self.plan.table.identifier, staging.relation, _same_key(keys), name=name)
                if self._execute(query).fetchone() is not None:
                    reason = "it is GENERATED ALWAYS AS IDENTITY, and the row that is there holds another value"
                    raise BadValue(reason, None, column.name)

    def _action(self, update: Sequence[str]) -> sql.Composable:
        if not update:
            return sql.SQL("DO NOTHING")
        values = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in update)
        action = sql.SQL("DO UPDATE SET {}").format(values)
        if self.plan.version:
            older = sql.SQL(" WHERE target.{0} IS NULL OR target.{0} < excluded.{0}")
            action += older.format(sql.Identifier(self.plan.version))
        return action

    def _replace_keeping(self, staging: Staging) -> int:
        """Leave, of the rows replaced, those in place whose key comes again: others may refer to them."""
        plan, keys = self.plan, identifiers(self.plan.stable_key)
        staging.check_repeats(plan.stable_key)
        self._check_identity(staging, plan.stable_key)
        coming = sql.SQL("EXISTS (SELECT FROM {} AS coming WHERE {})")
        comes = coming.format(staging.relation, _same_key(plan.stable_key))
        if plan.predicate is not None:
            others = sql.SQL("SELECT FROM {} AS target WHERE (({}) IS NOT TRUE) AND {} LIMIT 1")
            query = others.format(plan.table.identifier, sql.SQL(plan.predicate), comes)
            if self._execute(query).fetchone() is not None:
                raise BadValue("the table has its key in a row that replace_where leaves alone", None)
        given = {column.name for column in plan.columns}
        sets = [
            sql.SQL("{0} = excluded.{0}" if name in given else "{0} = DEFAULT").format(sql.Identifier(name))
            for name, column in plan.table.loadable.items()
            if name not in plan.stable_key and (column.identity != "a")
        ]
        update = sql.SQL("DO UPDATE SET {}").format(sql.SQL(", ").join(sets)) if sets else sql.SQL("DO NOTHING")
        try:
            with self.connection.transaction():
                vanished = self._deletion(sql.SQL("NOT {}").format(comes))
                return self._insert(staging, sql.SQL("ON CONFLICT ({}) {}").format(keys, update), vanished)
        except psycopg.errors.UniqueViolation as error:
            # Rows that exchange values have to go before they come again. Other actions than NO ACTION would follow.
            acts = """
                SELECT FROM pg_catalog.pg_constraint
                WHERE confrelid = %s::oid AND contype = 'f' AND confdeltype <> 'a' LIMIT 1
            """
            if self.connection.execute(acts, [plan.table.oid]).fetchone() is not None:
                reason = (
                    f"its value of the unique constraint {error.diag.constraint_name} belongs to another row. If rows "
                    "exchange values, make the constraint DEFERRABLE INITIALLY DEFERRED, or the foreign keys that lead "
                    "to the table ON DELETE NO ACTION"
                )
                raise BadValue(reason, None) from None
        return self._insert(staging, deletion=self._deletion())

    def _execute(self, statement: sql.Composable) -> psycopg.Cursor[Any]:
        return self.connection.execute(sql.Composed([statement]))


def _same_key(keys: Sequence[str]) -> sql.Composed:
    """Return SQL for a coming row and one of the target having the same key."""
    return sql.SQL(" AND ").join(sql.SQL("coming.{0} = target.{0}").format(sql.Identifier(name)) for name in keys)
