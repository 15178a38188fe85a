"""The SQL of the write modes, as functions of a plan and the staging table that holds the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import identifiers
from airflow_provider_lakebase.core.bulk.plan import LoadPlan

NOTHING = sql.SQL("")


class StagedRows(Protocol):
    """The staging table as SQL.

    ``relation`` is its name, ``row_order`` the column that numbers its rows in the order of the source, and ``values``
    what a SELECT takes from it for the columns of the plan.
    """

    @property
    def relation(self) -> sql.Composable: ...
    @property
    def row_order(self) -> sql.Composable: ...
    @property
    def values(self) -> sql.Composable: ...


def lock_table(plan: LoadPlan) -> sql.Composed:
    """Lock out other writers, but not readers.

    Without it, the later one of two concurrent replaces would not see, and so not delete, the rows of the other.

    :param plan: of the load
    """
    return sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(plan.table.identifier)


def delete_replaced(plan: LoadPlan, *conditions: sql.Composable) -> sql.Composed:
    """Delete the rows that a replace removes.

    :param plan: of the load
    :param conditions: further conditions on the rows, whose alias is ``target``
    """
    every = sql.SQL(" AND ").join([sql.SQL("({})").format(sql.SQL(plan.replace_where or "true")), *conditions])
    return sql.SQL("DELETE FROM {} AS target WHERE {}").format(plan.table.identifier, every)


def insert_staged(
    plan: LoadPlan,
    staged: StagedRows,
    *,
    action: sql.Composable = NOTHING,
    deletion: sql.Composable | None = None,
) -> sql.Composed:
    """Insert all staged rows. With ``replace_where``, return how many were inserted, and how many do not match it.

    One statement deletes and inserts, so that foreign keys are checked when both are done. Counting the deleted rows
    makes the deletion come first.

    :param plan: of the load
    :param staged: the staging table
    :param action: the ON CONFLICT clause
    :param deletion: statement that deletes rows first
    """
    gone = sql.SQL("gone AS ({} RETURNING true)").format(deletion) if deletion else NOTHING
    after = sql.SQL("WHERE (SELECT count(*) FROM gone) >= 0") if deletion else NOTHING
    parts = (_insert_into(plan), staged.values, staged.relation, after, action)
    insert = sql.SQL("{} SELECT {} FROM {} {} {}").format(*parts)
    if plan.replace_where is None:
        return (sql.SQL("WITH {} ").format(gone) if deletion else NOTHING) + insert
    return sql.SQL("""
        WITH {} written AS ({} RETURNING *)
        SELECT count(*), count(*) FILTER (WHERE ({}) IS NOT TRUE) FROM written
    """).format(gone + sql.SQL(",") if deletion else NOTHING, insert, sql.SQL(plan.replace_where))


def upsert_staged(plan: LoadPlan, staged: StagedRows, *, deduplicate: bool) -> sql.Composed:
    """Insert staged rows in the order of their key, so that concurrent upserts lock rows in the same order.

    :param plan: of the load
    :param staged: the staging table
    :param deduplicate: whether to take only the last row of each key; Postgres rejects an upsert of two
    """
    rows = _last_of_each_key(plan, staged) if deduplicate else _select(staged)
    upsert = sql.SQL("{into} SELECT {names} FROM ({rows}) AS row ORDER BY {keys} ON CONFLICT ({keys}) {action}")
    return upsert.format(
        into=_insert_into(plan),
        names=identifiers([column.name for column in plan.columns]),
        rows=rows,
        keys=identifiers(plan.key_columns),
        action=_on_conflict(plan),
    )


def keep_stable_rows(plan: LoadPlan) -> sql.Composed:
    """Return the ON CONFLICT clause by which a replace updates a row in place; other columns get their defaults.

    :param plan: of the load
    """
    given = {column.name for column in plan.columns}
    sets = [
        sql.SQL("{0} = excluded.{0}" if name in given else "{0} = DEFAULT").format(sql.Identifier(name))
        for name, column in plan.table.loadable.items()
        if name not in plan.stable_key and column.identity != "a"
    ]
    action = sql.SQL("DO UPDATE SET {}").format(sql.SQL(", ").join(sets)) if sets else sql.SQL("DO NOTHING")
    return sql.SQL("ON CONFLICT ({}) {}").format(identifiers(plan.stable_key), action)


def has_staged_row(plan: LoadPlan, staged: StagedRows) -> sql.Composed:
    """Return the condition that a staged row has the stable key of the row ``target``.

    :param plan: of the load
    :param staged: the staging table
    """
    coming = sql.SQL("EXISTS (SELECT FROM {} AS coming WHERE {})")
    return coming.format(staged.relation, _same_key(plan.stable_key))


def find_kept_outside(plan: LoadPlan, staged: StagedRows) -> sql.Composed:
    """Find a row outside ``replace_where`` whose key a staged row has.

    :param plan: of the load, with ``replace_where``
    :param staged: the staging table
    """
    others = sql.SQL("SELECT FROM {} AS target WHERE (({}) IS NOT TRUE) AND {} LIMIT 1")
    condition = sql.SQL(plan.replace_where or "true")
    return others.format(plan.table.identifier, condition, has_staged_row(plan, staged))


def find_other_identity(plan: LoadPlan, staged: StagedRows, key: Sequence[str], column: str) -> sql.Composed:
    """Find a row of the table for which a staged row of the same key has another value in a column.

    :param plan: of the load
    :param staged: the staging table
    :param key: columns of the key
    :param column: the column to compare
    """
    other = sql.SQL("SELECT FROM {} AS target JOIN {} AS coming ON {} WHERE coming.{name} <> target.{name} LIMIT 1")
    return other.format(plan.table.identifier, staged.relation, _same_key(key), name=sql.Identifier(column))


def _insert_into(plan: LoadPlan) -> sql.Composed:
    # COPY stores the values given for an identity column; so must INSERT.
    overriding = "OVERRIDING SYSTEM VALUE" if any(column.identity for column in plan.columns) else ""
    names = identifiers([column.name for column in plan.columns])
    return sql.SQL("INSERT INTO {} AS target ({}) {}").format(plan.table.identifier, names, sql.SQL(overriding))


def _select(staged: StagedRows) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {}").format(staged.values, staged.relation)


def _last_of_each_key(plan: LoadPlan, staged: StagedRows) -> sql.Composed:
    version = sql.Identifier(plan.version_column) if plan.version_column else None
    return sql.SQL("""
        SELECT DISTINCT ON ({keys}) * FROM (SELECT {values}, {order} FROM {staging}) AS row
        ORDER BY {keys}, {newest} {order} DESC
    """).format(
        keys=identifiers(plan.key_columns),
        values=staged.values,
        staging=staged.relation,
        newest=sql.SQL("{} DESC NULLS LAST, ").format(version) if version else NOTHING,
        order=staged.row_order,
    )


def _on_conflict(plan: LoadPlan) -> sql.Composable:
    if not plan.update_columns:
        return sql.SQL("DO NOTHING")
    values = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in plan.update_columns]
    action = sql.SQL("DO UPDATE SET {}").format(sql.SQL(", ").join(values))
    if plan.version_column:
        older = sql.SQL(" WHERE target.{0} IS NULL OR target.{0} < excluded.{0}")
        action += older.format(sql.Identifier(plan.version_column))
    return action


def _same_key(key: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("coming.{0} = target.{0}").format(sql.Identifier(name)) for name in key)
