"""The Postgres side of a synced table, in a session that holds the table's lock."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.errors.classify import is_permanent
from airflow_provider_lakebase.core.relations import catalog_queries as queries
from airflow_provider_lakebase.core.relations.memory import Item, Phase, PostgresTable, Recreation, SpecRecord
from airflow_provider_lakebase.core.relations.put_back import (
    act_as,
    describe,
    grant_missing,
    is_passing,
    make_index,
    put_back_all,
    put_back_index,
)
from airflow_provider_lakebase.core.relations.read import Reading, merge
from airflow_provider_lakebase.core.relations.records import Records
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseConflictError, LakebaseSyncedTableError

log = logging.getLogger(__name__)

_LOCK = "SELECT pg_try_advisory_lock(hashtext('airflow-provider-lakebase synced table'), hashtext(%s))"
_ROLE = "SELECT FROM pg_roles WHERE rolname = %s"
_LONGEST_BEFORE_PKEY = 63 - len("_pkey")
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"


class SyncedTableSession:
    """A session in the database of a synced table, which holds its lock until it is closed.

    :param connection: an open session in autocommit
    :param ledger_schema: schema of the helper tables
    :param name: resource name of the synced table
    :param context: context for errors
    :raises LakebaseConflictError: if another session holds the lock
    """

    def __init__(
        self, connection: psycopg.Connection[Any], ledger_schema: str, name: str, context: ErrorContext
    ) -> None:
        self._connection = connection
        self._context = context
        _, self._schema, self._table = name.rpartition("/")[2].split(".")
        row = connection.execute(_LOCK, [name]).fetchone()
        if not row or not row[0]:
            raise LakebaseConflictError("Another task is at work on the Postgres table", context=context)
        self._records = Records(connection, ledger_schema, name, context)

    def record(self) -> SpecRecord | None:
        """Return what the synced table was created with, if this provider did it."""
        return self._records.record()

    def keep_record(self, spec: Mapping[str, Any], uid: str = "") -> None:
        """Record what the synced table is created with.

        :param spec: its spec
        :param uid: its ID, once it exists
        """
        self._records.keep_record(spec, uid)

    def forget(self) -> None:
        """Delete the record, and what is remembered."""
        recreation = self._records.recreation()
        if recreation is not None and recreation.items:
            log.warning(
                "Not put back, since the table is deleted: %s", "; ".join(each.name for each in recreation.items)
            )
        self._records.forget()

    def recreation(self) -> Recreation | None:
        """Return the recreation that is under way."""
        return self._records.recreation()

    def find(self) -> PostgresTable | None:
        """Return the Postgres table, if it exists."""
        row = self._connection.execute(queries.TABLE, [self._schema, self._table]).fetchone()
        return PostgresTable(row[1], row[2]) if row else None

    def remember(self, recreation: Recreation, columns: Sequence[str] | None) -> None:
        """Begin a recreation: remember what is lost with the Postgres table.

        :param recreation: the recreation, without items
        :param columns: columns that the new table will have; None if they are not known
        :raises LakebaseSyncedTableError: if something could not be put back
        """
        with self._connection.transaction():
            items = self._read(columns)
            self._records.begin(replace(recreation, items=items))
        log.info("Remembered of the Postgres table: %s", "; ".join(item.name for item in items) or "nothing")

    def update(self, recreation: Recreation) -> None:
        """Store how far a recreation has come; its items stay.

        :param recreation: the recreation
        """
        self._records.update(recreation)

    def drop_remembered(self) -> None:
        """Drop the Postgres table and the views on it, all of which are remembered."""
        with self._dropping():
            recreation = self._records.recreation()
            self._lock()
            # Something may have been added while the synced table was being deleted.
            former, is_first = (recreation.items, recreation.is_first) if recreation else ((), True)
            items = merge(former, self._read(None), latest_wins=is_first)
            self._records.keep_items(items)
            for item in reversed(items):
                if item.drop:
                    act_as(self._connection, item.role)
                    self._connection.execute(item.drop)
            act_as(self._connection, "")
            self._drop()
        log.info("Dropped the Postgres table that was left")

    def put_back(self, indexes: Mapping[str, str]) -> None:
        """Put back all that is remembered, and forget it. An index that the task declares is made as it declares it.

        :param indexes: definitions that the task declares, by name
        :raises LakebaseSyncedTableError: if something could not be put back; it stays remembered
        """
        recreation = self._records.recreation()
        items = list(recreation.items if recreation else ())
        refused: list[tuple[Item, psycopg.Error]] = []
        for phase in (Phase.TABLE, Phase.VIEWS):
            with self._connection.transaction():
                refused += put_back_all(self._connection, [each for each in items if each.phase == phase])
                later = [each for each in items if each.phase > phase]
                self._records.keep_items([*(item for item, _ in refused), *later])
        remembered = [each for each in items if each.phase == Phase.INDEXES]
        changed = [each for each in remembered if _is_declared_otherwise(each, indexes)]
        for item in [each for each in remembered if each not in changed]:
            try:
                put_back_index(self._connection, item)
            except psycopg.Error as error:
                if is_passing(error):
                    raise
                refused.append((item, error))
        for name in [each.index[1] for each in changed]:
            log.info("Index %s is made as it is declared now", name)
            self._make(name, indexes[name])
        with self._connection.transaction():
            refused += put_back_all(self._connection, [each for each in items if each.phase == Phase.AFTER_INDEXES])
            if refused:
                self._records.keep_items([item for item, _ in refused])
            else:
                self._records.end()
        if refused:
            raise LakebaseSyncedTableError(
                "The synced table is recreated, but this was not put back",
                objects=[f"{item.name} ({describe(error)})" for item, error in refused],
                context=self._context,
                hint="It is remembered: remove the cause, and clear the task.",
                # Another table of a view may be recreated at the same time.
                retryable=any(isinstance(error, errors.UndefinedTable) for _, error in refused),
            )
        log.info("Put back: %s", "; ".join(item.name for item in items) or "nothing")

    def require_droppable(self) -> None:
        """Refuse to drop the Postgres table if something depends on it.

        :raises LakebaseSyncedTableError: if so
        """
        with self._reading() as reading:
            dependents = reading.dependents() if reading else ()
        if dependents:
            raise LakebaseSyncedTableError(
                "Nothing was deleted, because this depends on the Postgres table",
                objects=dependents,
                context=self._context,
                hint="Drop it first, or keep the Postgres table with drop_table=False.",
            )

    def drop(self) -> None:
        """Drop the Postgres table, on which nothing depends."""
        with self._dropping():
            self._drop()

    def require_makeable(self, indexes: Mapping[str, str], grants: Mapping[str, Sequence[str]]) -> None:
        """Refuse indexes and grants that could not be made once the table is there.

        :param indexes: definitions by name
        :param grants: privileges by role
        :raises LakebaseSyncedTableError: if the name of an index is taken, or there is no such role
        """
        for role in grants:
            if role.upper() != "PUBLIC" and not self._connection.execute(_ROLE, [role]).fetchall():
                hint = "Correct its name in grants, or create it with LakebaseRoleBootstrapOperator."
                raise LakebaseSyncedTableError(f"There is no role '{role}'", context=self._context, hint=hint)
        table = self._connection.execute(queries.TABLE, [self._schema, self._table]).fetchone()
        key_name = self._table.encode()[:_LONGEST_BEFORE_PKEY].decode(errors="ignore") + "_pkey"
        for name in indexes:
            found = self._connection.execute(queries.NAMESAKE, [self._schema, name]).fetchone()
            on_table, is_key = found or (None, False)
            if name == key_name or (is_key and table is not None and on_table == table[0]):
                text = f"The index {self._schema}.{name} is that of the primary key of {self._schema}.{self._table}"
            elif name == self._table or (found is not None and on_table is None):
                text = f"The index {self._schema}.{name} cannot be made, because another relation has its name"
            elif found is not None and (table is None or on_table != table[0]):
                text = f"The index {self._schema}.{name} is on another table"
            else:
                continue
            raise LakebaseSyncedTableError(text, context=self._context, hint="Give another name.")

    def ensure(self, indexes: Mapping[str, str], grants: Mapping[str, Sequence[str]]) -> None:
        """Make the indexes and grants that are missing.

        :param indexes: definitions by name
        :param grants: privileges by role
        :raises LakebaseSyncedTableError: if an index cannot be made, or there is no such role
        """
        self.require_makeable(indexes, grants)
        for role in grant_missing(self._connection, self._schema, self._table, grants):
            log.info("Granted %s to %s", ", ".join(grants[role]), role)
        self._warn_of_schema(grants)
        for name, definition in indexes.items():
            self._tell_other(name, definition)
            self._make(name, definition)

    def _read(self, columns: Sequence[str] | None) -> list[Item]:
        with self._reading() as reading:
            if reading is None:
                return []
            if obstacles := reading.obstacles(columns):
                raise LakebaseSyncedTableError(
                    "The Postgres table was not dropped, because this could not be put back",
                    objects=obstacles,
                    context=self._context,
                    hint="Drop it, or grant the role what it lacks, and try again.",
                )
            return reading.items()

    @contextmanager
    def _reading(self) -> Iterator[Reading | None]:
        with self._connection.transaction():
            self._connection.execute("SET LOCAL search_path = ''")
            row = self._connection.execute(queries.TABLE, [self._schema, self._table]).fetchone()
            yield Reading(self._connection, row[0]) if row else None

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            with self._connection.transaction():
                self._connection.execute(_LOCK_TIMEOUT)
                yield
        except errors.LockNotAvailable as error:
            text = "The Postgres table cannot be dropped yet, because other sessions use it"
            raise LakebaseConflictError(text, context=self._context) from error

    def _lock(self) -> None:
        """Keep others from adding an index or a view to what is about to be dropped."""
        if self._connection.execute(queries.TABLE, [self._schema, self._table]).fetchone():
            statement = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")
            self._connection.execute(statement.format(sql.Identifier(self._schema, self._table)))

    def _drop(self) -> None:
        statement = sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self._schema, self._table))
        self._connection.execute(statement)

    def _make(self, name: str, definition: str) -> None:
        table = sql.Identifier(self._schema, self._table)
        create = sql.SQL("CREATE INDEX {} ON {} ").format(sql.Identifier(name), table)
        statement = sql.Composed([create, sql.SQL(definition)])
        try:
            if make_index(self._connection, self._schema, name, statement):
                log.info("Created index %s", name)
        except psycopg.Error as error:
            if is_passing(error):
                raise
            where = f"{self._schema}.{name} of {self._schema}.{self._table}"
            raise LakebaseSyncedTableError(
                f"Index {where} cannot be made: {describe(error)}",
                context=self._context,
                hint="The table serves its rows: correct the index in indexes, and run the task again.",
                retryable=not is_permanent(error),
                sqlstate=error.sqlstate,
            ) from error

    def _tell_other(self, name: str, definition: str) -> None:
        found = self._connection.execute(queries.INDEX, [self._schema, name]).fetchone()
        if found is not None and not _is_same(found[2], definition):
            log.warning("Index %s is left as it is, although its definition may be another one: %s", name, found[2])

    def _warn_of_schema(self, grants: Mapping[str, Sequence[str]]) -> None:
        for role in grants:
            query = "SELECT has_schema_privilege(%s::name, %s, 'USAGE')"
            row = self._connection.execute(query, [role.lower() if role.upper() == "PUBLIC" else role, self._schema])
            if not row.fetchall()[0][0]:
                log.warning("%s may not use schema %s: grant USAGE on it", role, self._schema)


def _is_declared_otherwise(item: Item, indexes: Mapping[str, str]) -> bool:
    """Return whether a remembered index of the table has another definition than the task declares."""
    # An index of a view has the view's owner as its role.
    name = "" if item.role else item.index[1]
    return name in indexes and not _is_same(item.sql[0], indexes[name])


def _is_same(found: str, definition: str) -> bool:
    """Return whether an index is what was asked for, as far as their texts tell."""
    tail = re.sub(r"^CREATE (UNIQUE )?INDEX .+? USING ", "", found)
    wanted = definition if re.match("using ", definition, re.IGNORECASE) else f"USING btree {definition}"
    return _bare(f"using {tail}") == _bare(wanted)


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", text).replace('"', "").lower()
