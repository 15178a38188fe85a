"""The ledger: a table of completed loads, written in the transaction of each load, so that a retry finds it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError, LakebaseSettingsError

TABLE = "loads"
# By OID, since a table that was dropped and created again has lost its rows.
DEFINITION = """
    CREATE TABLE IF NOT EXISTS {ledger} (
        load_id text NOT NULL,
        target oid NOT NULL,
        target_name text NOT NULL,
        rows bigint,
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
    """The ledger's record of a load.

    :param rows: rows that it wrote
    :param loaded_at: start of its transaction
    """

    rows: int
    loaded_at: datetime.datetime


def creation(schema: str) -> tuple[sql.Composed, ...]:
    """Return the statements that create the ledger, for one transaction.

    :param schema: the ledger's schema, unquoted
    """
    return (
        sql.SQL(_LOCK).format(),  # one of two concurrent creations would fail
        sql.SQL(_SCHEMA).format(name=sql.Literal(schema), schema=sql.Identifier(schema)),
        sql.SQL(DEFINITION).format(ledger=_ledger(schema)),
    )


def entry(schema: str) -> sql.Composed:
    """Return the statement that inserts ``load_id``, ``target`` and ``target_name``; it returns no row if they exist.

    :param schema: the ledger's schema, unquoted
    """
    insert = "INSERT INTO {} (load_id, target, target_name) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING true"
    return sql.SQL(insert).format(_ledger(schema))


def search(schema: str) -> sql.Composed:
    """Return the query for the rows and time of ``load_id`` and ``target``.

    :param schema: the ledger's schema, unquoted
    """
    query = "SELECT coalesce(rows, 0), loaded_at FROM {} WHERE load_id = %s AND target = %s"
    return sql.SQL(query).format(_ledger(schema))


def completion(schema: str) -> sql.Composed:
    """Return the statement that sets the rows of ``load_id`` and ``target``.

    :param schema: the ledger's schema, unquoted
    """
    update = "UPDATE {} SET rows = %s WHERE load_id = %s AND target = %s"
    return sql.SQL(update).format(_ledger(schema))


def ledger_exists(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    """Return whether a schema has a ledger.

    :param cursor: of an open session
    :param schema: its name, unquoted
    """
    return cursor.execute(EXISTS, [schema, TABLE]).fetchone() is not None


def create_ledger(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    """Create the ledger and its schema, unless they exist.

    :param cursor: of an open session
    :param schema: the ledger's schema, unquoted
    :returns: whether anything was created
    """
    if ledger_exists(cursor, schema):
        return False
    for statement in creation(schema):
        cursor.execute(statement)
    return True


def prepare_ledger(connection: psycopg.Connection[Any], schema: str) -> None:
    """Create the ledger if needed, in a transaction of its own, so that loads do not wait for each other.

    :param connection: an open session, outside a transaction
    :param schema: the ledger's schema
    :raises LakebaseLoadError: if there is none and the role may not create it
    """
    try:
        with connection.transaction(), connection.cursor() as cursor:
            create_ledger(cursor, schema)
    except errors.InsufficientPrivilege as error:
        what = f"The ledger {schema}.{TABLE} cannot be created"
        raise not_permitted(what, error, session_context(connection)) from error


def claim_load(
    connection: psycopg.Connection[Any],
    schema: str,
    load_id: str,
    target: tuple[int, str],
) -> LoadRecord | None:
    """Insert the record of a load, or return the one of an earlier attempt.

    This waits for an attempt that is still running: if it commits, its record is returned, else a new one is inserted.

    :param connection: an open session, in the transaction of the load
    :param schema: the ledger's schema
    :param load_id: identity of the load
    :param target: OID and name of its table
    :raises LakebaseLoadError: if the role may not use the ledger
    """
    oid, name = target
    try:
        if connection.execute(entry(schema), [load_id, oid, name]).fetchone() is not None:
            return None
        row = connection.execute(search(schema), [load_id, oid]).fetchone()
    except errors.InsufficientPrivilege as error:
        what = f"The ledger {schema}.{TABLE} cannot be used"
        raise not_permitted(what, error, session_context(connection)) from error
    if row is None:  # deleted since
        return claim_load(connection, schema, load_id, target)
    return LoadRecord(*row)


def record_rows(
    connection: psycopg.Connection[Any], schema: str, load_id: str, target: tuple[int, str], rows: int
) -> None:
    """Store the number of rows in the record of a load.

    :param connection: the session of :func:`claim_load`, in the same transaction
    :param schema: the ledger's schema
    :param load_id: identity of the load
    :param target: OID and name of its table
    :param rows: rows that it wrote
    """
    connection.execute(completion(schema), [rows, load_id, target[0]])


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
    :param load_id: identity of the load
    :returns: how many were deleted: one per table that it loaded
    """
    with connection.cursor() as cursor:
        if not ledger_exists(cursor, schema):
            return 0
        return cursor.execute(sql.SQL("DELETE FROM {} WHERE load_id = %s").format(_ledger(schema)), [load_id]).rowcount


def _ledger(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, TABLE)


def not_permitted(what: str, error: psycopg.Error, context: ErrorContext) -> LakebaseLoadError:
    """Return the error for a role that may not create or use the ledger.

    :param what: what failed, a sentence without its full stop
    :param error: as Postgres raised it
    :param context: of the session
    """
    return LakebaseLoadError(
        f"{what}: {error.diag.message_primary}; nothing was loaded",
        context=context,
        hint="Bootstrap the role as the project owner, which prepares the ledger, or name a schema of the "
        "role's own as 'ledger_schema'.",
        sqlstate=error.sqlstate,
    )
