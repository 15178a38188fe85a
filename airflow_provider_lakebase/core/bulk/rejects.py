"""Leave rows that cannot be stored out of a load, up to a limit.

A format hands over the rows that it cannot send; SQL finds all others in the staging table, which takes any text. Good
rows keep the speed of COPY, and nothing is sent again.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import identifiers
from airflow_provider_lakebase.core.bulk.copy import BadValue, Part
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.plan import LoadPlan
from airflow_provider_lakebase.core.bulk.rejection import condition_name
from airflow_provider_lakebase.core.bulk.staged_checks import Check
from airflow_provider_lakebase.core.bulk.staging import Staging
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseRejectLimitError

_MEMORY_BYTES = 1 << 20
_FETCHED_TOGETHER = 10_000
_MOST_KINDS = 5
# Row-level security may hide rows of the other table from the role, but not from the constraint.
_FOREIGN_KEYS = """
    WITH keys AS (
        SELECT oid, conname, conrelid, confrelid, conkey, confkey FROM pg_catalog.pg_constraint
        WHERE conrelid = %s::oid AND contype = 'f' AND confmatchtype = 's' AND confrelid <> conrelid
        AND pg_get_constraintdef(oid) !~ 'NOT ENFORCED$' AND NOT row_security_active(confrelid)
    )
    SELECT conname, nspname, relname,
        (SELECT array_agg(attname::text ORDER BY n) FROM unnest(conkey) WITH ORDINALITY AS key (attnum, n)
         JOIN pg_catalog.pg_attribute a ON attrelid = conrelid AND a.attnum = key.attnum),
        (SELECT array_agg(attname::text ORDER BY n) FROM unnest(confkey) WITH ORDINALITY AS key (attnum, n)
         JOIN pg_catalog.pg_attribute a ON attrelid = confrelid AND a.attnum = key.attnum)
    FROM keys JOIN pg_catalog.pg_class c ON c.oid = confrelid JOIN pg_catalog.pg_namespace s ON s.oid = relnamespace
    ORDER BY conname
"""


class Reject(NamedTuple):
    """A row that is left out.

    :param source: the file or part of the source that contains it, as messages name it
    :param unit: what its number counts: ``line`` or ``row``
    :param number: its line or row, from 1; None if unknown
    :param column: the column at fault; empty for the whole row
    :param sqlstate: SQLSTATE that an INSERT of the row would raise
    :param reason: why
    :param raw: the row as text or JSON
    """

    source: str
    unit: str
    number: int | None
    column: str
    sqlstate: str
    reason: str
    raw: str


class Rejects:
    """Collect the rows that a load leaves out. Use it in a ``with`` block.

    :param connection: the load's session
    :param table: the target, as the caller named it
    :param options: of the load
    """

    def __init__(self, connection: psycopg.Connection[Any], table: str, options: LoadOptions) -> None:
        self.connection = connection
        self.table = table
        self.options = options
        self.count = 0
        self._kinds: Counter[tuple[str, str]] = Counter()
        self._first: Reject | None = None
        self._spool = tempfile.SpooledTemporaryFile(_MEMORY_BYTES, "w+", encoding="utf-8")
        self._staging: Staging | None = None
        self._found = sql.Identifier("pg_temp", f"lakebase_rejects_{uuid4().hex}")

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *error: object) -> None:
        self._spool.close()

    def add(self, part: Part, bad: BadValue, raw: str) -> None:
        """Record a row that a part cannot send.

        :param part: the part
        :param bad: what is wrong with the row
        :param raw: the row as text or JSON
        :raises LakebaseRejectLimitError: if more rows are left out than a limit in rows permits
        """
        unit = bad.unit or part.unit
        found = Reject(part.label, unit, bad.number, bad.column or "", bad.sqlstate, bad.reason, _storable(raw))
        self._first = self._first or found
        self._kinds[found.column, found.sqlstate] += 1
        self.count += 1
        json.dump(found, self._spool)
        self._spool.write("\n")
        most, _ = self.options.most_rejects
        if most is not None and self.count > most:
            raise self._limit_error()

    def remove_from(self, staging: Staging, plan: LoadPlan, rows: int) -> None:
        """Delete the rows that cannot be stored from the staging table.

        :param staging: holds the rows of the load as text
        :param plan: of the load
        :param rows: how many it holds
        :raises LakebaseRejectLimitError: if more rows are left out than the limit permits
        """
        self._staging = staging
        total = rows + self.count
        create = "CREATE TEMPORARY TABLE {} (number bigint, column_name text, sqlstate text, reason text, raw text)"
        self.connection.execute(sql.SQL(create + " ON COMMIT DROP").format(self._found))
        with self._checking():
            found = self._insert_checked(staging.typed_checks())
        self._remove(found, total)
        for column, reason, query in self._foreign_key_queries(staging):
            try:
                with self.connection.transaction():
                    inserted = self._insert_found(column, "23503", reason, query)
            except psycopg.errors.InsufficientPrivilege:
                continue  # INSERT itself checks the key, as the owner of the table
            self._remove(inserted, total)
        # Repeats come last: a row that is rejected anyway must not make a later one with its key a repeat.
        self._remove_repeats(staging, plan, total)

    @contextmanager
    def _checking(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise
            # Its message may quote a value.
            raise LakebaseLoadError(
                f"The rows for table {self.table} cannot be checked: a type or a constraint of it raised "
                f"{type(error).__name__}, SQLSTATE {error.sqlstate}, instead of rejecting a value",
                context=session_context(self.connection),
                hint="Load without reject_limit, whose errors name the row; nothing was loaded.",
                table=self.table,
                sqlstate=error.sqlstate,
            ) from None

    def summary(self) -> str:
        """Return the numbers of rejected rows by SQLSTATE and column, the largest first."""
        kinds = Counter(self._kinds)
        if self._staging is not None:
            query = sql.SQL("SELECT column_name, sqlstate, count(*) FROM {} GROUP BY 1, 2").format(self._found)
            for column, sqlstate, count in self.connection.execute(query).fetchall():
                kinds[column, sqlstate] += count
        shown = [
            f"{count} × {_name_sqlstate(sqlstate)}{f' in column {column}' if column else ''}"
            for (column, sqlstate), count in kinds.most_common(_MOST_KINDS)
        ]
        return ", ".join([*shown, "…"] if len(kinds) > _MOST_KINDS else shown)

    def __iter__(self) -> Iterator[Sequence[Reject]]:
        """Yield the rejected rows in batches."""
        self._spool.seek(0)
        while lines := self._spool.readlines(_MEMORY_BYTES):
            yield [Reject(*json.loads(line)) for line in lines]
        if self._staging is None:
            return
        query = sql.SQL("SELECT number, column_name, sqlstate, reason, raw FROM {} ORDER BY number")
        with self.connection.cursor(name=f"lakebase_rejects_{uuid4().hex}") as cursor:
            cursor.execute(query.format(self._found))
            while rows := cursor.fetchmany(_FETCHED_TOGETHER):
                yield [Reject(*self._staging.locate(number), *others) for number, *others in rows]

    def _remove(self, inserted: int, total: int) -> None:
        if not inserted:
            return
        assert self._staging is not None  # noqa: S101 - for the type checker
        delete = sql.SQL("DELETE FROM {staging} USING {found} AS found WHERE {order} = found.number")
        self.connection.execute(self._format(delete))
        self.count += inserted
        most, share = self.options.most_rejects
        if self.count > (total * share if most is None else most):
            raise self._limit_error()

    def _insert_checked(self, checks: Sequence[Check]) -> int:
        """Record the rows for which a check is true, with the first such check; return how many there are."""
        if not checks:
            return 0
        numbered = list(enumerate(checks, 1))
        insert = sql.SQL("""
            INSERT INTO {found}
            SELECT {order}, ({columns})[{position}], coalesce(info.sql_error_code, ({states})[{position}]),
                coalesce(info.message, ({reasons})[{position}]), {raw}
            FROM (SELECT *, CASE {cases} END AS {position} FROM {staging}) AS row
            LEFT JOIN LATERAL pg_input_error_info(
                CASE {position} {values} ELSE NULL END, ({types})[{position}]
            ) AS info ON true
            WHERE {position} IS NOT NULL
        """)
        cases: list[sql.Composable] = [
            sql.SQL("WHEN {} THEN {}").format(each.condition, sql.Literal(n)) for n, each in numbered
        ]
        values: list[sql.Composable] = [
            sql.SQL("WHEN {} THEN row.{}").format(sql.Literal(n), sql.Identifier(each.column))
            for n, each in numbered
            if each.type
        ]
        statement = self._format(
            insert,
            cases=sql.SQL(" ").join(cases),
            values=sql.SQL(" ").join(values or [sql.SQL("WHEN 0 THEN NULL")]),
            columns=_texts([each.column for each in checks]),
            states=_texts([each.sqlstate for each in checks]),
            reasons=_texts([each.reason for each in checks]),
            types=_texts([each.type or "text" for each in checks]),
        )
        return self.connection.execute(statement).rowcount

    def _insert_found(self, column: str, sqlstate: str, reason: str, query: sql.Composable) -> int:
        """Record the rows whose ``number`` a query returns; return how many there are."""
        insert = sql.SQL("""
            INSERT INTO {found} SELECT {order}, {column}, {sqlstate}, {reason}, {raw}
            FROM ({query}) AS bad JOIN {staging} AS row ON {order} = bad.number
        """)
        texts = {"column": column, "sqlstate": sqlstate, "reason": reason}
        literals = {name: sql.Literal(text) for name, text in texts.items()}
        return self.connection.execute(self._format(insert, query=query, **literals)).rowcount

    def _format(self, statement: sql.SQL, **parts: sql.Composable) -> sql.Composed:
        staging = self._staging
        assert staging is not None  # noqa: S101 - for the type checker
        # The table's columns may have any name, also those of the other relations.
        names = sql.SQL(", ").join(sql.SQL("row.{}").format(sql.Identifier(each.name)) for each in staging.columns)
        raw = sql.SQL("(SELECT row_to_json(texts.*)::text FROM (SELECT {}) AS texts)").format(names)
        return statement.format(
            **parts,
            found=self._found,
            staging=staging.relation,
            order=staging.row_order,
            position=sql.Identifier(f"{staging.path[1]}_position"),
            raw=raw,
        )

    def _remove_repeats(self, staging: Staging, plan: LoadPlan, total: int) -> None:
        """Leave out the rows whose key the table has, or an earlier row that is not left out itself."""
        given = {column.name for column in plan.columns}
        keys = [key for key in plan.table.keys if given.issuperset(key)]
        if plan.mode == "upsert":
            keys = [tuple(plan.key_columns)] if plan.duplicates == "error" else []
        if plan.mode == "append" or plan.replace_where is not None:
            stays = sql.SQL(f"({plan.replace_where}) IS NOT TRUE" if plan.replace_where is not None else "true")
            for key in keys:
                query = self._find_existing(staging, plan, key, stays)
                self._remove(self._insert_found(", ".join(key), "23505", "the table has its key", query), total)
        before = -1
        while before < self.count and keys:
            before = self.count
            for key in keys:
                query = staging.find_repeats(key, keys)
                reason = "an earlier row has the same key"
                self._remove(self._insert_found(", ".join(key), "23505", reason, query), total)
            if len(keys) == 1:
                break  # no row was a repeat because of a row that another key rejects

    def _find_existing(self, staging: Staging, plan: LoadPlan, key: Sequence[str], stays: sql.SQL) -> sql.Composable:
        query = sql.SQL("""
            SELECT {order} AS number FROM (SELECT {order}, {values} FROM {staging}) AS coming
            WHERE EXISTS (SELECT FROM (SELECT * FROM {table} WHERE {stays}) AS target WHERE {same})
        """)
        same = sql.SQL(" AND ").join(sql.SQL("coming.{0} = target.{0}").format(sql.Identifier(name)) for name in key)
        return self._format(query, values=staging.values, table=plan.table.identifier, stays=stays, same=same)

    def _foreign_key_queries(self, staging: Staging) -> Iterator[tuple[str, str, sql.Composable]]:
        """Yield columns, reason and query for rows whose foreign key references no row."""
        given = {column.name for column in staging.columns}
        query = sql.SQL("""
            SELECT {order} AS number FROM (SELECT {order}, {values} FROM {staging}) AS coming
            WHERE num_nulls({names}) = 0 AND NOT EXISTS (SELECT FROM {other} AS target WHERE {same})
        """)
        for name, schema, other, columns, referenced in self.connection.execute(
            _FOREIGN_KEYS, [staging.table.oid]
        ).fetchall():
            if not given.issuperset(columns):
                continue
            same = sql.SQL(" AND ").join(
                sql.SQL("coming.{} = target.{}").format(sql.Identifier(own), sql.Identifier(its))
                for own, its in zip(columns, referenced, strict=True)
            )
            reason = f"it violates the foreign key {name}: {other} has no such row"
            parts = {"values": staging.values, "names": identifiers(columns), "same": same}
            yield ", ".join(columns), reason, self._format(query, other=sql.Identifier(schema, other), **parts)

    def _limit_error(self) -> LakebaseRejectLimitError:
        first = self._find_first()
        limit = f"reject_limit={self.options.reject_limit!r}"
        return LakebaseRejectLimitError(
            f"{self.count} rows cannot be stored in table {self.table}, more than {limit} permits: {self.summary()}; "
            f"the first is {first.unit} {first.number} of {first.source}",
            context=session_context(self.connection),
            hint="Correct the source, or raise the limit; nothing was loaded.",
            table=self.table,
            source=first.source,
            row=first.number if first.unit == "row" else None,
            line=first.number if first.unit == "line" else None,
            column=first.column,
            sqlstate=first.sqlstate,
            rejected=self.count,
        )

    def _find_first(self) -> Reject:
        if self._first is not None:
            return self._first
        return next(iter(self))[0]


def _texts(texts: Sequence[str]) -> sql.Composable:
    return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(map(sql.Literal, texts)))


def _name_sqlstate(sqlstate: str) -> str:
    try:
        return f"SQLSTATE {sqlstate} ({condition_name(psycopg.errors.lookup(sqlstate))})"
    except KeyError:
        return f"SQLSTATE {sqlstate}"


def _storable(text: str) -> str:
    """Return text without what Postgres's text cannot hold: null characters and unpaired surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
