"""The Postgres tables of synced tables: real tables that a system role owns and that nobody else may write."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.emulator.model.catalog import Row
from airflow_provider_lakebase.emulator.model.data_plane import TablePlace
from airflow_provider_lakebase.emulator.model.pipelines import SyncError
from airflow_provider_lakebase.emulator.model.sync import user_error
from airflow_provider_lakebase.emulator.model.synced_table_spec import PostgresColumn
from airflow_provider_lakebase.emulator.postgres_port.clusters import Clusters

Connection = psycopg.Connection[Any]

_LOCK_SECONDS = 30

# What PostgreSQL refuses → condition of the class SYNCED_TABLE_USER_ERROR, and the service's words for it.
_CONDITIONS: dict[type[psycopg.Error], tuple[str, str]] = {
    errors.UniqueViolation: ("PRIMARY_KEY_CONSTRAINT_VIOLATION", "Duplicate rows detected based on primary key."),
    errors.CharacterNotInRepertoire: (
        "CHARACTER_NOT_IN_REPERTOIRE",
        "Found invalid byte sequence in the source Delta table.",
    ),
    errors.UntranslatableCharacter: (
        "CHARACTER_NOT_IN_REPERTOIRE",
        "Found invalid byte sequence in the source Delta table.",
    ),
    errors.DependentObjectsStillExist: ("DEPENDENT_OBJECTS_STILL_EXIST", "PostgreSQL objects depend on the table."),
    errors.ForeignKeyViolation: ("FOREIGN_KEY_CONSTRAINT_VIOLATION", "A foreign key refers to the synced table."),
    errors.LockNotAvailable: ("LOCK_TIMEOUT", "The pipeline could not lock the target table."),
    errors.InvalidCatalogName: ("DATABASE_DOES_NOT_EXIST", "The target database does not exist."),
}


class TableWriter:
    """Writes synced tables, as the superuser."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    def prepare(self, place: TablePlace, *, creator: str, create_missing: bool) -> None:
        """Make what is missing, and let the creator use the table that will come; see ``SyncedTableWriter``."""
        with self._connect(place.cluster, place.database) as connection, connection.transaction():
            if _owner(connection, place) is not None:
                raise FileExistsError(
                    f'The table "{place.schema}"."{place.table}" already exists in the Postgres database '
                    f'"{place.database}". Drop it first.'
                )
            if not _exists(connection, "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", place.schema):
                if not create_missing:
                    raise LookupError(f'schema "{place.schema}" does not exist in database "{place.database}"')
                statement = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}")
                connection.execute(statement.format(sql.Identifier(place.schema), sql.Identifier(creator)))
            _make_writer_role(connection, place.schema, creator)

    def rebuild(
        self, place: TablePlace, columns: Sequence[PostgresColumn], primary_key: Sequence[str], rows: Iterable[Row]
    ) -> None:
        """Fill a new table, and put it in the place of the old one; see ``SyncedTableWriter``."""
        draft = sql.Identifier(place.schema, f"_synced_{secrets.token_hex(8)}")
        table = sql.Identifier(place.schema, place.table)
        with self._transaction(place) as connection:
            writer = sql.Identifier(_writer_role(connection))
            _refuse_foreign_table(connection, place)
            definitions = sql.SQL(", ").join(map(_definition, columns))
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(draft, definitions))
            _copy(connection, draft, [column.name for column in columns if column.expression is None], rows)
            # The lock on the old table is taken only now, so that it can be read while the new one is filled.
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
            names = {"draft": draft, "table": table, "name": sql.Identifier(place.table), "writer": writer}
            for statement in (
                "ALTER TABLE {draft} RENAME TO {name}",
                "ALTER TABLE {table} ADD PRIMARY KEY ({key})",
                "ALTER TABLE {table} OWNER TO {writer}",
                "REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON {table} FROM {writer}",
            ):
                connection.execute(sql.SQL(statement).format(**names, key=_names(primary_key)))

    def apply(
        self,
        place: TablePlace,
        added: Sequence[PostgresColumn],
        columns: Sequence[str],
        primary_key: Sequence[str],
        gone: Sequence[Row],
        rows: Iterable[Row],
    ) -> None:
        """Apply changes to the table in place; see ``SyncedTableWriter``."""
        table = sql.Identifier(place.schema, place.table)
        with self._transaction(place) as connection:
            for column in added:
                connection.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(table, _definition(column)))
            if gone:
                _delete(connection, table, primary_key, gone)
            _copy(connection, table, columns, rows)

    @contextmanager
    def _connect(self, cluster: str, database: str) -> Iterator[Connection]:
        with self._clusters.get(cluster).in_use() as server, server.connect(database) as connection:
            yield connection

    @contextmanager
    def _transaction(self, place: TablePlace) -> Iterator[Connection]:
        """Open a transaction, and raise ``SyncError`` for what PostgreSQL refuses in it."""
        try:
            self._clusters.get(place.cluster)
        except KeyError:
            raise user_error("CONNECTION_ERROR", "Connection error. Detail: the branch does not exist.") from None
        try:
            with self._connect(place.cluster, place.database) as connection, connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
                yield connection
        except psycopg.Error as error:
            raise _sync_error(error) from error


def _sync_error(error: psycopg.Error) -> SyncError:
    detail = " ".join(filter(None, [error.diag.message_primary or str(error), error.diag.message_detail]))
    for kind, (condition, text) in _CONDITIONS.items():
        if isinstance(error, kind):
            return user_error(condition, f"{text} Detail: {detail}")
    if isinstance(error, errors.DataError) and "NUL (0x00)" in str(error):  # psycopg refuses it before PostgreSQL does
        condition, text = _CONDITIONS[errors.CharacterNotInRepertoire]
        return user_error(condition, f'{text} Detail: invalid byte sequence for encoding "UTF8": 0x00')
    return SyncError(f"[SYNCED_TABLE_ERROR] Synced table pipeline failed. Detail: {detail}")


def _make_writer_role(connection: Connection, schema: str, creator: str) -> None:
    """Make the system role that owns the synced tables of the database.

    The creator and databricks_superuser inherit it: so they may read the tables, index and drop them.
    """
    writer = _writer_role(connection)
    if not _exists(connection, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", writer):
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(writer)))
    names = {"writer": sql.Identifier(writer), "schema": sql.Identifier(schema), "creator": sql.Identifier(creator)}
    for statement in (
        "GRANT USAGE, CREATE ON SCHEMA {schema} TO {writer}",
        "GRANT {writer} TO databricks_superuser WITH INHERIT TRUE, SET FALSE",
        "GRANT {writer} TO {creator} WITH INHERIT TRUE, SET FALSE",
    ):
        connection.execute(sql.SQL(statement).format(**names))


def _writer_role(connection: Connection) -> str:
    query = "SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
    return f"databricks_writer_{connection.execute(query).fetchall()[0][0]}"


def _refuse_foreign_table(connection: Connection, place: TablePlace) -> None:
    owner = _owner(connection, place)
    if owner is not None and owner != _writer_role(connection):
        raise SyncError(
            f"[SYNCED_TABLE_ERROR] The table {place.schema}.{place.table} exists, and is not that of the synced table."
        )


def _owner(connection: Connection, place: TablePlace) -> str | None:
    """Return the owner of the table; None if there is no table, view or index of that name."""
    rows = connection.execute(
        "SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (place.schema, place.table),
    ).fetchall()
    return rows[0][0] if rows else None


def _definition(column: PostgresColumn) -> sql.Composed:
    # The type is one of ours or, like the expression, what the request says: PostgreSQL checks it.
    parts = [sql.Identifier(column.name), sql.SQL(column.postgres_type)]
    if column.expression is not None:
        parts.append(sql.SQL(f"GENERATED ALWAYS AS ({column.expression}) STORED"))
    elif column.not_null:
        parts.append(sql.SQL("NOT NULL"))
    return sql.SQL(" ").join(parts)


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _copy(connection: Connection, table: sql.Identifier, columns: Sequence[str], rows: Iterable[Row]) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(table, _names(columns))
    with connection.cursor().copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _delete(connection: Connection, table: sql.Identifier, primary_key: Sequence[str], keys: Sequence[Row]) -> None:
    """Delete the rows with these keys, by way of a temporary table."""
    key = _names(primary_key)
    statement = sql.SQL("CREATE TEMPORARY TABLE _gone ON COMMIT DROP AS SELECT {} FROM {} WHERE false")
    connection.execute(statement.format(key, table))
    _copy(connection, sql.Identifier("_gone"), primary_key, keys)
    statement = sql.SQL("DELETE FROM {} WHERE ({}) IN (SELECT {} FROM _gone)")
    connection.execute(statement.format(table, key, key))


def _exists(connection: Connection, query: Any, name: str) -> bool:
    return bool(connection.execute(query, (name,)).fetchall())
