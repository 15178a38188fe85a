"""The ledger: a table of completed loads, written in the transaction of each load, so that a retry finds it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

T = TypeVar("T")
_Steps = Generator[tuple[Any, Sequence[Any] | None], tuple[Any, ...] | None, T]
"""Statements with their parameters, each answered with the first row of its result, and what they lead to.

Sessions of both kinds run the same steps.
"""

TABLE = "loads"
# By OID, since a table that was dropped and created again has lost its rows.
DEFINITION = """
    CREATE TABLE IF NOT EXISTS {ledger} (
        load_id text NOT NULL,
        target oid NOT NULL,
        target_name text NOT NULL,
        rows bigint,
        rejected bigint,
        loaded_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (load_id, target)
    )
"""
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")
EXISTS = """
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE nspname = %s AND relname = %s
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('airflow-provider-lakebase ledger'))"
# A role that may not create schemas can use an existing one.
_SCHEMA = """
    DO $do$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {name}) THEN
            CREATE SCHEMA IF NOT EXISTS {schema};
        END IF;
    END $do$
"""


@dataclass(frozen=True)
class LoadRecord:
    """The record of a load.

    :param rows: rows that it wrote
    :param rejected: rows that it left out
    :param loaded_at: start of its transaction
    """

    rows: int
    rejected: int
    loaded_at: datetime.datetime


def creation(schema: str) -> tuple[sql.Composed, ...]:
    """Return the statements that create the ledger, for one transaction.

    :param schema: the ledger's schema, unquoted
    """
    return (*schema_creation(schema), sql.SQL(DEFINITION).format(ledger=_ledger(schema)))


def schema_creation(schema: str) -> tuple[sql.Composed, ...]:
    """Return the statements that create the ledger's schema unless it exists, for one transaction.

    :param schema: the schema, unquoted
    """
    return (
        sql.SQL(_LOCK).format(),  # one of two concurrent creations would fail
        sql.SQL(_SCHEMA).format(name=sql.Literal(schema), schema=sql.Identifier(schema)),
    )


def entry(schema: str) -> sql.Composed:
    """Return the statement that inserts ``load_id``, ``target`` and ``target_name``; it returns no row if they exist.

    :param schema: the ledger's schema, unquoted
    """
    insert = "INSERT INTO {} (load_id, target, target_name) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING true"
    return sql.SQL(insert).format(_ledger(schema))


def search(schema: str) -> sql.Composed:
    """Return the query for the rows, rejected rows and time of ``load_id`` and ``target``.

    :param schema: the ledger's schema, unquoted
    """
    query = "SELECT coalesce(rows, 0), coalesce(rejected, 0), loaded_at FROM {} WHERE load_id = %s AND target = %s"
    return sql.SQL(query).format(_ledger(schema))


def completion(schema: str) -> sql.Composed:
    """Return the statement that sets ``rows`` and ``rejected`` of ``load_id`` and ``target``.

    :param schema: the ledger's schema, unquoted
    """
    update = "UPDATE {} SET rows = %s, rejected = %s WHERE load_id = %s AND target = %s"
    return sql.SQL(update).format(_ledger(schema))


def ledger_exists(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    """Return whether a schema contains a ledger.

    :param cursor: of an open session
    :param schema: the schema, unquoted
    """
    return cursor.execute(EXISTS, [schema, TABLE]).fetchone() is not None


def create_ledger(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    """Create the schema and the ledger in it, unless they exist.

    :param cursor: of an open session
    :param schema: the schema, unquoted
    :returns: whether anything was created
    """
    return _run(cursor.execute, _creating(schema))


def prepare_ledger(connection: psycopg.Connection[Any], schema: str) -> None:
    """Create the ledger if it does not exist, in a transaction of its own, so that no load waits for another.

    :param connection: an open session, outside a transaction
    :param schema: the ledger's schema
    :raises LakebaseLoadError: if there is no ledger and the role may not create it
    """
    with _permitted(f"The ledger {schema}.{TABLE} cannot be created", connection), connection.transaction():
        _run(connection.execute, _creating(schema))


async def prepare_ledger_async(session: psycopg.AsyncConnection[Any], schema: str) -> None:
    """Run :func:`prepare_ledger` in the transaction of an asynchronous session, which the caller commits.

    :param session: an open session
    :param schema: the ledger's schema
    :raises LakebaseLoadError: if there is no ledger and the role may not create it
    """
    with _permitted(f"The ledger {schema}.{TABLE} cannot be created", session):
        await _run_async(session, _creating(schema))


def claim_load(
    connection: psycopg.Connection[Any],
    schema: str,
    load_id: str,
    target: tuple[int, str],
) -> LoadRecord | None:
    """Enter a load into the ledger, or return the record of an earlier run of it.

    If another attempt is still running, wait for it: once it commits, its record is returned; if it fails, this load
    is entered.

    :param connection: an open session, in the load's transaction
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :param target: OID and name of its table
    :raises LakebaseLoadError: if the role may not use the ledger
    """
    with _permitted(f"The ledger {schema}.{TABLE} cannot be used", connection):
        return _run(connection.execute, _claiming(schema, load_id, target))


async def claim_load_async(
    session: psycopg.AsyncConnection[Any],
    schema: str,
    load_id: str,
    target: tuple[int, str],
) -> LoadRecord | None:
    """Claim a load as :func:`claim_load` does, on an asynchronous session.

    :param session: an open session, in the load's transaction
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :param target: OID and name of its table
    :raises LakebaseLoadError: if the role may not use the ledger
    """
    with _permitted(f"The ledger {schema}.{TABLE} cannot be used", session):
        return await _run_async(session, _claiming(schema, load_id, target))


def record_rows(
    connection: psycopg.Connection[Any],
    schema: str,
    load_id: str,
    target: tuple[int, str],
    rows: int,
    rejected: int = 0,
) -> None:
    """Store the number of rows in the record of a load.

    :param connection: the session of :func:`claim_load`, in the same transaction
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :param target: OID and name of its table
    :param rows: number of rows it wrote
    :param rejected: number of rows it left out
    """
    connection.execute(completion(schema), [rows, rejected, load_id, target[0]])


async def record_rows_async(
    session: psycopg.AsyncConnection[Any], schema: str, load_id: str, target: tuple[int, str], rows: int
) -> None:
    """Record the rows as :func:`record_rows` does, on an asynchronous session.

    :param session: the session of :func:`claim_load_async`, in the same transaction
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :param target: OID and name of its table
    :param rows: number of rows it wrote
    """
    await session.execute(completion(schema), [rows, 0, load_id, target[0]])


def _creating(schema: str) -> _Steps[bool]:
    if (yield EXISTS, [schema, TABLE]) is not None:
        return False
    for statement in creation(schema):
        yield statement, None
    return True


def _claiming(schema: str, load_id: str, target: tuple[int, str]) -> _Steps[LoadRecord | None]:
    while (yield entry(schema), [load_id, *target]) is None:
        if (row := (yield search(schema), [load_id, target[0]])) is not None:
            return LoadRecord(*row)
        # The record was deleted between the two statements.
    return None


def _run(execute: Callable[..., psycopg.Cursor[Any]], steps: _Steps[T]) -> T:
    """Run the statements of a generator, sending it the first row of each, and return its result."""
    row = None
    while True:
        try:
            query, parameters = steps.send(row)
        except StopIteration as stop:
            return cast(T, stop.value)
        cursor = execute(query, parameters)
        row = cursor.fetchone() if cursor.description is not None else None


async def _run_async(session: psycopg.AsyncConnection[Any], steps: _Steps[T]) -> T:
    """Run the statements as :func:`_run` does, on an asynchronous session."""
    row = None
    while True:
        try:
            query, parameters = steps.send(row)
        except StopIteration as stop:
            return cast(T, stop.value)
        cursor = await session.execute(query, parameters)
        row = await cursor.fetchone() if cursor.description is not None else None


def delete_records(connection: psycopg.Connection[Any], schema: str, older_than: datetime.timedelta) -> int:
    """Delete old records.

    :param connection: an open session
    :param schema: the ledger's schema
    :param older_than: minimum age of a record to delete
    :raises LakebaseSettingsError: if it is not a ``timedelta``, or negative
    :returns: how many were deleted
    """
    if not isinstance(older_than, datetime.timedelta) or older_than < datetime.timedelta():
        hint = "Give an age: timedelta(days=90)."
        raise LakebaseSettingsError(f"older_than is {older_than!r}", hint=hint)
    with connection.cursor() as cursor:
        if not ledger_exists(cursor, schema):
            return 0
        delete = sql.SQL("DELETE FROM {} WHERE loaded_at < now() - %s::interval").format(_ledger(schema))
        return cursor.execute(delete, [older_than]).rowcount


def delete_record(connection: psycopg.Connection[Any], schema: str, load_id: str) -> int:
    """Delete the records of one load, so that it can be repeated.

    :param connection: an open session
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :returns: how many were deleted: one per table that it loaded
    """
    with connection.cursor() as cursor:
        if not ledger_exists(cursor, schema):
            return 0
        return cursor.execute(sql.SQL("DELETE FROM {} WHERE load_id = %s").format(_ledger(schema)), [load_id]).rowcount


def _ledger(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, TABLE)


@contextmanager
def _permitted(message: str, session: object) -> Iterator[None]:
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise LakebaseLoadError(
            f"{message}: {error.diag.message_primary}; nothing was loaded",
            context=session_context(session),
            hint="Run the role bootstrap for this role on the project owner's connection, which prepares "
            "the ledger, or name a schema of the role's own as 'ledger_schema'.",
            sqlstate=error.sqlstate,
        ) from error
