"""The helper tables of synced tables, in the ledger's schema: what each was created with, and what is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from airflow_provider_lakebase.core.ledger import EXISTS, schema_creation
from airflow_provider_lakebase.core.relations.memory import Item, Recreation, SpecRecord
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSyncedTableError

SPECS, RECREATIONS = "synced_tables", "synced_table_recreations"
_DEFINITIONS = """
    CREATE TABLE IF NOT EXISTS {specs} (
        name text PRIMARY KEY,
        uid text NOT NULL,
        spec jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE IF NOT EXISTS {recreations} (
        name text PRIMARY KEY,
        former_uid text NOT NULL,
        spec jsonb NOT NULL,
        task text NOT NULL,
        operation text NOT NULL,
        is_dropped boolean NOT NULL,
        is_first boolean NOT NULL,
        items jsonb NOT NULL,
        begun_at timestamptz NOT NULL DEFAULT now()
    )
"""


def create_records(connection: psycopg.Connection[Any], schema: str) -> None:
    """Create the schema and the tables in it, unless they exist.

    :param connection: an open session
    :param schema: the ledger's schema, unquoted
    """
    with connection.transaction():
        if all(connection.execute(EXISTS, [schema, table]).fetchone() is not None for table in (SPECS, RECREATIONS)):
            return
        for statement in schema_creation(schema):
            connection.execute(statement)
        for definition in _DEFINITIONS.split(";"):
            names = {"specs": sql.Identifier(schema, SPECS), "recreations": sql.Identifier(schema, RECREATIONS)}
            connection.execute(sql.SQL(definition).format(**names))


class Records:
    """The records about one synced table.

    :param connection: an open session in autocommit
    :param schema: the ledger's schema, unquoted
    :param name: resource name of the synced table
    :param context: context for errors
    """

    def __init__(self, connection: psycopg.Connection[Any], schema: str, name: str, context: ErrorContext) -> None:
        self._connection = connection
        self._schema = schema
        self._name = name
        self._context = context
        with self._permitted():
            create_records(connection, schema)

    def record(self) -> SpecRecord | None:
        """Return what the synced table was created with."""
        row = self._run("SELECT spec, uid FROM {specs} WHERE name = %s").fetchone()
        return SpecRecord(*row) if row else None

    def keep_record(self, spec: Mapping[str, Any], uid: str) -> None:
        """Record what the synced table is created with."""
        self._run(
            "INSERT INTO {specs} (name, spec, uid) VALUES (%s, %s, %s) "
            "ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, uid = excluded.uid, created_at = now()",
            Jsonb(dict(spec)),
            uid,
        )

    def forget(self) -> None:
        """Delete all records about the synced table."""
        self._run("DELETE FROM {specs} WHERE name = %s")
        self._run("DELETE FROM {recreations} WHERE name = %s")

    def recreation(self) -> Recreation | None:
        """Return the recreation that is under way."""
        query = (
            "SELECT former_uid, spec, task, operation, is_dropped, is_first, items FROM {recreations} WHERE name = %s"
        )
        row = self._run(query).fetchone()
        if row is None:
            return None
        former_uid, spec, task, operation, is_dropped, is_first, items = row
        remembered = [Item(**each) for each in items]
        return Recreation(former_uid, spec, task, operation, is_dropped, is_first, remembered)

    def begin(self, recreation: Recreation) -> None:
        """Store a recreation that begins."""
        self._run(
            "INSERT INTO {recreations} (name, former_uid, spec, task, operation, is_dropped, is_first, items) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE "
            "SET former_uid = excluded.former_uid, "
            "spec = excluded.spec, task = excluded.task, operation = excluded.operation, "
            "is_dropped = excluded.is_dropped, is_first = excluded.is_first, items = excluded.items, begun_at = now()",
            *self._state(recreation),
            _items(recreation.items),
        )

    def update(self, recreation: Recreation) -> None:
        """Store the progress of a recreation, and leave its items as they are."""
        self._run(
            "UPDATE {recreations} SET (former_uid, spec, task, operation, is_dropped, is_first) = "
            "(%(1)s, %(2)s, %(3)s, %(4)s, %(5)s, %(6)s) WHERE name = %(0)s",
            *self._state(recreation),
        )

    def keep_items(self, items: Sequence[Item], *, is_dropped: bool = True) -> None:
        """Store what has yet to be put back."""
        query = "UPDATE {recreations} SET items = %(1)s, is_dropped = %(2)s WHERE name = %(0)s"
        self._run(query, _items(items), is_dropped)

    def end(self) -> None:
        """Forget the recreation."""
        self._run("DELETE FROM {recreations} WHERE name = %s")

    @staticmethod
    def _state(recreation: Recreation) -> tuple[Any, ...]:
        spec = Jsonb(dict(recreation.spec))
        flags = recreation.is_dropped, recreation.is_first
        return recreation.former_uid, spec, recreation.task, recreation.operation, *flags

    def _run(self, query: str, *values: Any) -> psycopg.Cursor[Any]:
        names = {
            "specs": sql.Identifier(self._schema, SPECS),
            "recreations": sql.Identifier(self._schema, RECREATIONS),
        }
        given = (self._name, *values)
        parameters = {str(at): value for at, value in enumerate(given)} if "%(" in query else given
        with self._permitted():
            return self._connection.execute(sql.SQL(query).format(**names), parameters)

    @contextmanager
    def _permitted(self) -> Iterator[None]:
        try:
            yield
        except errors.InsufficientPrivilege as error:
            raise LakebaseSyncedTableError(
                f"The tables {SPECS} and {RECREATIONS} of schema {self._schema} cannot be used: "
                f"{error.diag.message_primary}; nothing was changed",
                context=self._context,
                hint="Run the role bootstrap for this role on the project owner's connection, which prepares them.",
                sqlstate=error.sqlstate,
            ) from error


def _items(items: Sequence[Item]) -> Jsonb:
    return Jsonb([item.as_dict() for item in items])
