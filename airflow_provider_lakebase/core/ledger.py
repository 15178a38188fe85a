"""The ledger: a table of loads done, written in the transaction of each, so that a retry finds what came to pass."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext, LakebaseLoadError, LakebaseSettingsError

TABLE = "loads"
# A table that was dropped and made again is another one: its rows went with it.
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
# A role that may not make schemas can use one that is there.
_SCHEMA = """
    DO $do$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {name}) THEN
            CREATE SCHEMA IF NOT EXISTS {schema};
        END IF;
    END $do$
"""


@dataclass(frozen=True)
class LoadRecord:
    """Hold what the ledger says of a load.

    :param rows: rows that it wrote
    :param loaded_at: when its transaction began
    """

    rows: int
    loaded_at: datetime.datetime


def creation(schema: str) -> tuple[sql.Composed, ...]:
    """Return the statements that make the ledger, for one transaction.

    :param schema: the ledger's schema, unquoted
    """
    return (
        sql.SQL(_LOCK).format(),  # of two at once, one would fail
        sql.SQL(_SCHEMA).format(name=sql.Literal(schema), schema=sql.Identifier(schema)),
        sql.SQL(DEFINITION).format(ledger=_ledger(schema)),
    )


def entry(schema: str) -> sql.Composed:
    """Return the statement that enters ``load_id``, ``target`` and ``target_name``; without a row they are there.

    :param schema: the ledger's schema, unquoted
    """
    insert = "INSERT INTO {} (load_id, target, target_name) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING true"
    return sql.SQL(insert).format(_ledger(schema))


def search(schema: str) -> sql.Composed:
    """Return the query for rows and time of ``load_id`` and ``target``.

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
    """Return whether a schema holds the ledger.

    :param cursor: of an open session
    :param schema: the schema, unquoted
    """
    return cursor.execute(EXISTS, [schema, TABLE]).fetchone() is not None


def create_ledger(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    """Make the schema and the ledger in it, unless they are there.

    :param cursor: of an open session
    :param schema: the schema, unquoted
    :returns: whether something was made
    """
    if ledger_exists(cursor, schema):
        return False
    for statement in creation(schema):
        cursor.execute(statement)
    return True


def prepare_ledger(connection: psycopg.Connection[Any], schema: str, *, context: ErrorContext = NO_CONTEXT) -> None:
    """Make sure that there is a ledger, in a transaction of its own, so that no load waits for another.

    :param connection: an open session, outside a transaction
    :param schema: the ledger's schema
    :param context: connection and endpoint, for messages
    :raises LakebaseLoadError: when there is none and the role may not make it
    """
    try:
        with connection.transaction(), connection.cursor() as cursor:
            create_ledger(cursor, schema)
    except errors.InsufficientPrivilege as error:
        raise not_permitted(f"The ledger {schema}.{TABLE} cannot be made", error, context) from error


def claim_load(
    connection: psycopg.Connection[Any],
    schema: str,
    load_id: str,
    target: tuple[int, str],
    *,
    context: ErrorContext = NO_CONTEXT,
) -> LoadRecord | None:
    """Enter a load into the ledger, or return the record of the one that was done before.

    An attempt that still runs is waited for: when it commits, its record is found; else this one goes on.

    :param connection: an open session, in the load's transaction
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :param target: OID and name of its table
    :param context: connection and endpoint, for messages
    :raises LakebaseLoadError: when the role may not use the ledger
    """
    oid, name = target
    try:
        if connection.execute(entry(schema), [load_id, oid, name]).fetchone() is not None:
            return None
        row = connection.execute(search(schema), [load_id, oid]).fetchone()
    except errors.InsufficientPrivilege as error:
        raise not_permitted(f"The ledger {schema}.{TABLE} cannot be used", error, context) from error
    if row is None:  # cleaned up since
        return claim_load(connection, schema, load_id, target, context=context)
    return LoadRecord(*row)


def record_rows(
    connection: psycopg.Connection[Any], schema: str, load_id: str, target: tuple[int, str], rows: int
) -> None:
    """Complete a load's record.

    :param connection: the session of :func:`claim_load`, in the same transaction
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :param target: OID and name of its table
    :param rows: rows that it wrote
    """
    connection.execute(completion(schema), [rows, load_id, target[0]])


def delete_records(connection: psycopg.Connection[Any], schema: str, older_than: datetime.timedelta) -> int:
    """Delete old records.

    :param connection: an open session
    :param schema: the ledger's schema
    :param older_than: age of the youngest to delete
    :raises LakebaseSettingsError: for an age that is none
    :returns: how many there were
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
    """Delete the records of one load, so that it can be done again.

    :param connection: an open session
    :param schema: the ledger's schema
    :param load_id: the load's identity
    :returns: how many there were: one for each table that it filled
    """
    with connection.cursor() as cursor:
        if not ledger_exists(cursor, schema):
            return 0
        return cursor.execute(sql.SQL("DELETE FROM {} WHERE load_id = %s").format(_ledger(schema)), [load_id]).rowcount


def _ledger(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, TABLE)


def not_permitted(what: str, error: psycopg.Error, context: ErrorContext) -> LakebaseLoadError:
    """Return what to raise when the role may not make or use the ledger.

    :param what: what could not be done
    :param error: as Postgres raised it
    :param context: connection and endpoint, for messages
    """
    return LakebaseLoadError(
        f"{what}: {error.diag.message_primary}; nothing was loaded",
        context=context,
        hint="Run LakebaseRoleBootstrapOperator for this role on the project owner's connection, which prepares the "
        "ledger, or name a schema of the role's own as 'ledger_schema'.",
    )
