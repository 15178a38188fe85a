"""The table of rejected rows: created if it does not exist, written in the transaction of the load."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.bulk.catalog import Table, identifiers
from airflow_provider_lakebase.core.bulk.rejects import Rejects
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

_COLUMNS = {
    "load_id": "text",
    "table_name": "text",
    "source": "text",
    "unit": "text",
    "number": "bigint",
    "column_name": "text",
    "sqlstate": "text",
    "reason": "text",
    "raw": "text",
    "rejected_at": "timestamptz NOT NULL DEFAULT now()",
}
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('airflow-provider-lakebase rejects'))"
_FIND = """
    SELECT c.oid::int8, relkind::text,
        has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'DELETE'),
        has_table_privilege(c.oid, 'INSERT'),
        (SELECT array_agg(attname::text) FROM pg_catalog.pg_attribute
         WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
    FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(%s)
"""
_MAY_CREATE = """
    SELECT has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace
    WHERE nspname = coalesce((parse_ident(%(name)s))[array_length(parse_ident(%(name)s), 1) - 1], current_schema())
"""


class RejectsTable:
    """The table that holds the rows which loads leave out.

    :param connection: the load's session
    :param name: as in SQL
    :param load_id: identity of the load, whose former rows are replaced; None if it has none
    """

    def __init__(self, connection: psycopg.Connection[Any], name: str, load_id: str | None) -> None:
        self.connection = connection
        self.name = name
        self.load_id = load_id

    def check(self, target: Table) -> None:
        """Check that the table can be written, or created, before anything is sent.

        :param target: the target of the load
        :raises LakebaseSettingsError: if it is the target itself, or the name is none
        :raises LakebaseLoadError: if it is no table for rejects, or the role may neither write nor create it
        """
        row = self._find()
        if row is None:
            self._check_creation()
            return
        oid, kind, may_replace, may_insert, columns = row
        if oid == target.oid:
            raise self._settings_error("is the target of the load", "Name another table.")
        if kind not in ("r", "p") or (missing := [name for name in _COLUMNS if name not in columns]):
            what = f"has no column {missing[0]}" if kind in ("r", "p") else "is not a table"
            raise self._error(what, "Name another table, or one that does not exist; the load creates it.")
        if not may_insert or (self.load_id is not None and not may_replace):
            raise self._error("cannot be written by this role", "Grant SELECT, INSERT and DELETE on it to the role.")

    def write(self, rejects: Rejects, target: str) -> None:
        """Create the table unless it exists, and write the rejected rows. A repeated load replaces its own.

        :param rejects: the rejected rows
        :param target: the target of the load, as the caller named it
        :raises LakebaseLoadError: if it cannot be created
        """
        self._create()
        table = self._identifier()
        if self.load_id is not None:
            delete = sql.SQL("DELETE FROM {} WHERE load_id = %s AND table_name = %s").format(table)
            self.connection.execute(delete, [self.load_id, target])
        names = [name for name in _COLUMNS if name != "rejected_at"]
        copy_in = sql.SQL("COPY {} ({}) FROM STDIN").format(table, identifiers(names))
        for batch in rejects:
            with self.connection.cursor() as cursor, cursor.copy(copy_in) as copy:
                for row in batch:
                    copy.write_row((self.load_id, target, *row))

    def _create(self) -> None:
        if self._find() is not None:
            return
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in _COLUMNS.items()
        )
        try:
            with self.connection.transaction():
                self.connection.execute(_LOCK)  # one of two concurrent creations would fail
                create = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(self._identifier(), columns)
                self.connection.execute(create)
        except psycopg.ProgrammingError as error:
            raise self._error(f"cannot be created: {error.diag.message_primary}", "Create it first.") from error

    def _check_creation(self) -> None:
        row = self.connection.execute(_MAY_CREATE, {"name": self.name}).fetchone()
        if row is None:
            raise self._error("does not exist, nor does its schema", "Create the schema, or name another table.")
        if not row[0]:
            hint = "Create it first, or grant CREATE on its schema to the role."
            raise self._error("does not exist, and the role may not create it", hint)

    def _find(self) -> tuple[Any, ...] | None:
        try:
            with self.connection.transaction():
                self._identifier()
                return self.connection.execute(_FIND, [self.name]).fetchone()
        except (errors.InvalidName, errors.SyntaxError, errors.InvalidParameterValue):
            raise self._settings_error("is not the name of a table", "Write it as in SQL: schema.table.") from None

    def _identifier(self) -> sql.Identifier:
        return sql.Identifier(*self.connection.execute("SELECT parse_ident(%s)", [self.name]).fetchall()[0][0])

    def _settings_error(self, what: str, hint: str) -> LakebaseSettingsError:
        context = session_context(self.connection)
        return LakebaseSettingsError(f"rejects_table {self.name} {what}", context=context, hint=hint)

    def _error(self, what: str, hint: str) -> LakebaseLoadError:
        context = session_context(self.connection)
        return LakebaseLoadError(f"rejects_table {self.name} {what}", context=context, hint=hint, table=self.name)
