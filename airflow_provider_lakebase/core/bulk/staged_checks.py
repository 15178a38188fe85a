"""Checks on staged rows: SQL conditions that find the values which a column or constraint of the table rejects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column, Table

# A constraint of PostgreSQL 18 may be NOT ENFORCED; older versions have no column for it.
_CHECKS = """
    SELECT conname, pg_get_expr(conbin, conrelid),
        CASE WHEN cardinality(conkey) = 1 THEN
            (SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1])
        END
    FROM pg_catalog.pg_constraint
    WHERE conrelid = %s::oid AND contype = 'c' AND pg_get_constraintdef(oid) !~ 'NOT ENFORCED$' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = conrelid AND attnum = ANY (conkey) AND attname <> ALL (%s::text[])
    )
    ORDER BY conname
"""
_PARTITIONS = """
    SELECT pg_get_partition_constraintdef(relid) FROM pg_partition_tree(%(oid)s::oid::regclass)
    WHERE isleaf AND relid <> %(oid)s::oid
"""
# A BEFORE INSERT trigger may change the row. The bits of tgtype are ROW, BEFORE and INSERT.
_REWRITES = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_trigger WHERE tgtype & 7 = 7 AND tgenabled <> 'D' AND tgrelid IN (
            SELECT %(oid)s::oid UNION SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass)
        )
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
# The session's lc_monetary says which sign stands before the decimal places, and how many are kept.
_LOST_MONEY = r"""
    {}::text ~ concat(
        '[', coalesce(substring(1::money::text FROM '1(\D)0'), '.'), ']\d{{',
        coalesce(length(substring(1::money::text FROM '1\D(0+)')), 0), '}}\d*[1-9]'
    )
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
_ANY_TEXT = ("text", "character varying", "citext")


class Check(NamedTuple):
    """A condition that is true for rows to reject.

    :param column: the column at fault; empty for the whole row
    :param condition: SQL on the columns of the staging table
    :param reason: why, without the value
    :param sqlstate: SQLSTATE that INSERT would raise
    :param type: type whose input function explains the value better than the reason
    """

    column: str
    condition: sql.Composable
    reason: str
    sqlstate: str = "22000"
    type: str | None = None


def is_rewritten(connection: psycopg.Connection[Any], table: Table) -> bool:
    """Return whether triggers of a table may change rows before its constraints see them.

    :param connection: an open session
    :param table: the target
    """
    ((rewritten,),) = connection.execute(_REWRITES, {"oid": table.oid}).fetchall()
    return bool(rewritten)


def check_constraints(
    connection: psycopg.Connection[Any], table: Table, columns: Sequence[str]
) -> list[tuple[str, str, str | None]]:
    """Return name, expression and the only column, if it has one, of each CHECK constraint on some columns.

    :param connection: an open session
    :param table: the target
    :param columns: names of the columns
    """
    return connection.execute(_CHECKS, [table.oid, list(columns)]).fetchall()


def staged_type(column: Column) -> str:
    """Return the type in which a column is staged, to see whether its own would change a value.

    :param column: of the target
    """
    if column.cuts or column.is_money:
        return "text[]" if column.element else "text"
    return column.bare if column.rounds else column.declared


def invalid(types: Mapping[str, str]) -> Iterator[Check]:
    """Yield a check for values that are no input of their type.

    :param types: type by column
    """
    condition = sql.SQL("NOT pg_input_is_valid({}::text, {})")
    for name, kind in types.items():
        style = ", as read with the session's DateStyle" if kind.startswith(("date", "timestamp")) else ""
        reason = f"it does not fit {kind}{style}"
        yield Check(name, condition.format(sql.Identifier(name), sql.Literal(kind)), reason, "22P02", kind)


def readable(columns: Sequence[Column], casts: Mapping[str, str]) -> Iterator[Check]:
    """Yield a check for text that is no input of the type it is stored as, or is cast to.

    :param columns: columns of the target
    :param casts: SQL type by column
    """
    kinds = {column.name: casts.get(column.name, column.declared) for column in columns}
    yield from invalid({name: kind for name, kind in kinds.items() if kind not in _ANY_TEXT})
    staged = {column.name: staged_type(column) for column in columns if column.name not in casts}
    yield from invalid({name: kind for name, kind in staged.items() if kind not in (kinds[name], *_ANY_TEXT)})


def rounded(columns: Sequence[Column], casts: Mapping[str, str], *, is_text: bool = False) -> Iterator[Check]:
    """Yield a check for values that their columns would round, which a cast does silently.

    :param columns: columns of the target
    :param casts: SQL type by column, for columns that have a check of their own
    :param is_text: whether values are staged as text; else they have the type of the column, without its modifier
    """
    for column in columns:
        if column.name in casts:
            continue
        name = sql.Identifier(column.name)
        staged = sql.SQL("{}::{}").format(name, sql.SQL(staged_type(column))) if is_text else name
        if column.rounds:
            reason = f"it has more digits than {column.declared} keeps"
            yield Check(column.name, changes(staged, column), reason)
        elif column.cuts:
            yield Check(column.name, changes(staged, column), f"it is longer than {column.declared} keeps", "22001")


def changes(staged: sql.Composable, column: Column) -> sql.Composed:
    """Return the condition that a column would round or cut a value.

    :param staged: the value, in the type of :func:`staged_type`
    :param column: of the target
    """
    if column.is_money:
        return sql.SQL(_LOST_MONEY).format(staged)
    condition = sql.SQL("{0} IS DISTINCT FROM {0}::{1}::{2}")
    return condition.format(staged, sql.SQL(column.declared), sql.SQL(staged_type(column)))


def lossy_casts(connection: psycopg.Connection[Any], casts: Mapping[str, str]) -> Iterator[Check]:
    """Yield a check for text of dates and times that the type of its cast would truncate or round.

    :param connection: an open session
    :param casts: SQL type by column
    """
    for name, kind in casts.items():
        (bare,) = connection.execute("SELECT format_type(%s::regtype, -1)", [kind]).fetchall()[0]
        text = sql.Identifier(name)
        parts = list(_LOSSES.get(bare, ()))
        if bare in _ROUNDED and kind.lower() != bare:
            parts.append("{text}::{bare} IS DISTINCT FROM {text}::{kind}::{bare}")
        names = {"text": text, "bare": sql.SQL(bare), "kind": sql.SQL(kind)}
        if parts:
            either = sql.SQL(" OR ").join(sql.SQL(f"({part})").format(**names) for part in parts)
            condition = sql.SQL("CASE WHEN {} IS NULL THEN false ELSE {} END").format(text, either)
            reason = f"it says more than {kind} keeps: a zone, a date, a time of day or more digits"
            yield Check(name, condition, reason)


def changed_after_casts(
    connection: psycopg.Connection[Any], columns: Sequence[Column], casts: Mapping[str, str]
) -> Iterator[Check]:
    """Yield a check for values that the column would change after their cast.

    :param connection: an open session
    :param columns: columns of the target
    :param casts: SQL type by column
    """
    changed = sql.SQL("{0}::{1}::{2}::{1} IS DISTINCT FROM {0}::{1}")
    declared = {column.name: column.declared for column in columns}
    for name, kind in casts.items():
        parts = (sql.SQL(kind), sql.SQL(declared[name]))
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SELECT {}").format(changed.format(sql.SQL("NULL"), *parts)))
        except psycopg.ProgrammingError:
            continue  # no cast back to compare with
        reason = f"as {kind} it does not fit {declared[name]} exactly"
        yield Check(name, changed.format(sql.Identifier(name), *parts), reason)


def null(names: Sequence[str], casts: Mapping[str, str]) -> Iterator[Check]:
    """Yield a check for each column that must not be NULL.

    :param names: the columns
    :param casts: SQL type by column
    """
    for name in names:
        value = sql.SQL("{}::{}").format(sql.Identifier(name), sql.SQL(casts.get(name, "text")))
        yield Check(name, sql.SQL("{} IS NULL").format(value), "it must not be NULL", "23502")


def violated(
    connection: psycopg.Connection[Any], table: Table, columns: Sequence[str], values: sql.Composable
) -> Iterator[Check]:
    """Yield checks for rows that a CHECK constraint, or every partition, of the table rejects.

    :param connection: an open session
    :param table: the target
    :param columns: names of the columns that get values
    :param values: select list that yields them in the types of the table
    """
    # In the subquery, names mean the typed values, which are computed only if the expression uses them.
    condition = sql.SQL("(SELECT {expression} FROM (SELECT {values}) AS row)")
    for name, expression, column in check_constraints(connection, table, columns):
        reason = f"it violates the check constraint {name}"
        rejected = condition.format(expression=sql.SQL(f"({expression}) IS FALSE"), values=values)
        yield Check(column or "", rejected, reason, "23514")
    partitions = [expression for (expression,) in connection.execute(_PARTITIONS, {"oid": table.oid}).fetchall()]
    if partitions and None not in partitions:
        either = " OR ".join(f"({each})" for each in partitions)
        rejected = condition.format(expression=sql.SQL(f"({either}) IS NOT TRUE"), values=values)
        yield Check("", rejected, "the table has no partition for it", "23514")
