"""Read a table's definition from Postgres's system catalogs, and create tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.core.relations.memory import is_synced_owner
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError, LakebaseSettingsError

# Synced tables belong to a system role of the service. A write by a role that may do so would break the sync.
_ROUNDING = ("numeric", "timestamp", "timestamptz", "time", "timetz", "interval")
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}

_TABLE = """
    SELECT c.oid::int8, nspname, relname, relkind::text, pg_get_userbyid(relowner), reltuples::float8,
        pg_has_role(relowner, 'USAGE'), row_security_active(c.oid),
        EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE confrelid = c.oid AND contype = 'f'),
        EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
        EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = c.oid AND ev_enabled <> 'D')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = %s::regclass
"""
# A domain has the text and binary form of its base type, may set the modifier of that type, and may be NOT NULL.
# Either may be that of another domain, of the elements of an array as well.
_COLUMNS = """
    WITH RECURSIVE base AS (
        SELECT attnum, atttypid AS type, atttypmod AS modifier, attnotnull AS not_null FROM pg_catalog.pg_attribute
        WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT attnum, typbasetype, CASE WHEN modifier < 0 THEN typtypmod ELSE modifier END, not_null OR typnotnull
        FROM base JOIN pg_catalog.pg_type ON pg_type.oid = type WHERE typtype = 'd'
    ), element AS (
        SELECT attnum, typelem AS type, modifier
        FROM base JOIN pg_catalog.pg_type ON pg_type.oid = type WHERE typtype <> 'd' AND typcategory = 'A'
        UNION ALL
        SELECT attnum, typbasetype, CASE WHEN modifier < 0 THEN typtypmod ELSE modifier END
        FROM element JOIN pg_catalog.pg_type ON pg_type.oid = type WHERE typtype = 'd'
    )
    SELECT attname, format_type(atttypid, atttypmod),
        format_type(CASE WHEN e.oid <> t.typelem AND e.modifier >= 0 THEN e.typarray ELSE t.oid END, -1),
        coalesce(e.modifier, base.modifier),
        CASE WHEN t.typtype = 'e' THEN 'text' ELSE t.typname END,
        CASE WHEN e.typtype = 'e' THEN 'text' ELSE e.typname END,
        not_null, attgenerated <> '', attidentity::text, CASE
            WHEN attidentity <> '' THEN
                format('nextval(%%L)', pg_get_serial_sequence(attrelid::regclass::text, attname)::regclass)
            WHEN attgenerated = '' THEN coalesce(pg_get_expr(adbin, attrelid), pg_get_expr(own.typdefaultbin, 0))
        END
    FROM base JOIN pg_catalog.pg_type t ON t.oid = base.type
    LEFT JOIN (
        SELECT attnum, modifier, pg_type.* FROM element JOIN pg_catalog.pg_type ON pg_type.oid = type
        WHERE typtype <> 'd'
    ) e ON e.attnum = base.attnum
    JOIN pg_catalog.pg_attribute a ON attrelid = %(oid)s::oid AND a.attnum = base.attnum
    JOIN pg_catalog.pg_type own ON own.oid = atttypid
    LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = a.attnum
    WHERE t.typtype <> 'd' ORDER BY a.attnum
"""
_KEYS = """
    SELECT indisprimary, (
        SELECT array_agg(attname::text ORDER BY position)
        FROM unnest(indkey::int2[]) WITH ORDINALITY AS key (attnum, position)
        JOIN pg_catalog.pg_attribute a ON attrelid = indrelid AND a.attnum = key.attnum
        WHERE position <= indnkeyatts
    )
    FROM pg_catalog.pg_index
    WHERE indrelid = %s::oid AND indisunique AND indimmediate AND indisvalid AND indpred IS NULL AND indexprs IS NULL
    ORDER BY indisprimary DESC, indexrelid
"""


def identifiers(names: Iterable[str]) -> sql.Composed:
    """Return names as a comma-separated list of SQL identifiers.

    :param names: unquoted
    """
    return sql.SQL(", ").join(map(sql.Identifier, names))


@dataclass(frozen=True)
class Column:
    """A column, with the properties that decide how its values are written.

    :param name: unquoted
    :param declared: type as DDL writes it, with its modifier: ``numeric(10,2)``
    :param bare: base type of a domain, or of one whose array it is and that may round, without a modifier: ``numeric``
    :param modifier: of the type; -1 for none
    :param kind: name of the type whose form its values have: ``int4``; ``text`` for an enum
    :param element: the same for the elements of an array
    :param not_null: whether it is declared NOT NULL
    :param generated: whether it is a generated column
    :param identity: ``a`` for GENERATED ALWAYS AS IDENTITY, ``d`` for BY DEFAULT, else empty
    :param default: SQL expression of its default; None without one
    """

    name: str
    declared: str
    bare: str
    modifier: int
    kind: str
    element: str | None = None
    not_null: bool = False
    generated: bool = False
    identity: str = ""
    default: str | None = None

    def as_text(self) -> Column:
        """Return a text column of that name, for values that are cast after COPY."""
        return replace(self, declared="text", bare="text", modifier=-1, kind="any text", element=None)

    @property
    def rounds(self) -> bool:
        """Whether Postgres silently rounds a value to fit the column."""
        return self.is_money or (self.modifier >= 0 and (self.element or self.kind) in _ROUNDING)

    @property
    def is_money(self) -> bool:
        """Whether it holds amounts of money, of which only their text tells whether Postgres rounds them."""
        return (self.element or self.kind) == "money"

    @property
    def cuts(self) -> bool:
        """Whether Postgres silently cuts a text to fit the column."""
        return (self.element or self.kind) in ("name", "char")

    @property
    def length(self) -> int | None:
        """Characters that a ``varchar`` or ``char`` holds; None if unlimited."""
        return self.modifier - 4 if self.modifier >= 0 else None

    @property
    def scale(self) -> int:
        """Decimal places of a ``numeric`` with a modifier, whose lowest 11 bits hold them as a signed number."""
        return ((self.modifier - 4 & 0x7FF) ^ 0x400) - 0x400

    def of_elements(self) -> Column:
        """Return a column for the elements of an array."""
        return replace(self, kind=self.element or self.kind, element=None)


@dataclass(frozen=True)
class Table:
    """A table, with the properties that a load depends on.

    :param name: as the caller wrote it, for messages
    :param oid: object identifier
    :param path: schema and name, unquoted
    :param columns: all columns, in the order of the table
    :param keys: columns of each unique index that ON CONFLICT can use, the primary key first
    :param primary_key: columns of the primary key; empty if there is none
    :param rows_estimate: rows as of the last ANALYZE; -1 if there was none
    :param owned: whether the session's role owns it, and may ANALYZE it
    :param row_security: whether row-level security applies to the role, so that COPY cannot write to it
    :param has_incoming_fks: whether foreign keys reference it
    :param has_triggers: whether triggers may see or change rows
    :param has_rules: whether rules may rewrite statements
    """

    name: str
    oid: int
    path: tuple[str, str]
    columns: tuple[Column, ...]
    keys: tuple[tuple[str, ...], ...]
    primary_key: tuple[str, ...]
    rows_estimate: float
    owned: bool
    row_security: bool
    has_incoming_fks: bool
    has_triggers: bool
    has_rules: bool

    @cached_property
    def identifier(self) -> sql.Identifier:
        """Its qualified name as SQL."""
        return sql.Identifier(*self.path)

    @cached_property
    def loadable(self) -> dict[str, Column]:
        """The columns that a load may fill, by name."""
        return {column.name: column for column in self.columns if not column.generated}


def find_table(connection: psycopg.Connection[Any], name: str) -> Table:
    """Look up a table by name.

    :param connection: an open session
    :param name: as in SQL: ``flights``, ``public.flights``, ``"Mixed Case"``
    :raises LakebaseLoadError: if there is no such table, or it cannot be written to
    """
    context = session_context(connection)
    try:
        with connection.transaction():
            row = connection.execute(_TABLE, [name]).fetchall()[0]
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.InvalidName, errors.SyntaxError) as error:
        hint = "Create it first, or let a load do so with 'create_table'; or correct its name, as in SQL: schema.table."
        raise LakebaseLoadError(f"There is no table {name}", context=context, hint=hint, table=name) from error
    oid, schema, relation, kind, owner, estimate, owned, row_security, has_incoming_fks, has_triggers, has_rules = row
    _check_kind(name, kind, owner, context)
    columns = connection.execute(_COLUMNS, {"oid": oid}).fetchall()
    keys = connection.execute(_KEYS, [oid]).fetchall()
    return Table(
        name=name,
        oid=oid,
        path=(schema, relation),
        columns=tuple(Column(*column) for column in columns),
        keys=tuple(tuple(key) for _, key in keys),
        primary_key=next((tuple(key) for is_primary, key in keys if is_primary), ()),
        rows_estimate=estimate,
        owned=owned,
        row_security=row_security,
        has_incoming_fks=has_incoming_fks,
        has_triggers=has_triggers,
        has_rules=has_rules,
    )


def table_exists(connection: psycopg.Connection[Any], name: str) -> bool:
    """Return whether there is a relation of a name.

    :param connection: an open session
    :param name: as in SQL; False for a text that is no name
    """
    try:
        with connection.transaction():
            return connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone() == (True,)
    except psycopg.errors.SyntaxError:
        return False


def create_table(
    connection: psycopg.Connection[Any],
    name: str,
    definitions: Sequence[tuple[str, str, bool]],
    key_columns: Sequence[str],
) -> bool:
    """Create a table, unless one of that name exists. Return False if another session created it at the same time.

    :param connection: an open session
    :param name: as in SQL
    :param definitions: name, type and nullability of each column
    :param key_columns: columns of its primary key
    :raises LakebaseLoadError: if it cannot be created
    """
    context = session_context(connection)
    if missing := sorted(set(key_columns) - {column for column, _, _ in definitions}):
        hint = "Name columns of the source, by their names in the table."
        raise LakebaseLoadError(
            f"key_columns contains '{missing[0]}', which the source does not fill", context=context, hint=hint
        )
    lines = [
        sql.SQL("{} {}{}").format(sql.Identifier(column), sql.SQL(kind), sql.SQL("" if nullable else " NOT NULL"))
        for column, kind, nullable in definitions
    ]
    if key_columns:
        lines.append(sql.SQL("PRIMARY KEY ({})").format(identifiers(key_columns)))
    try:
        with connection.transaction():
            parts = connection.execute("SELECT parse_ident(%s)", [name]).fetchall()[0][0]
            create = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})")
            connection.execute(create.format(sql.Identifier(*parts), sql.SQL(", ").join(lines)))
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        # IF NOT EXISTS does not see what another session is creating.
        if isinstance(error, errors.UniqueViolation) and table_exists(connection, name):
            return False
        what = f"Table {name} cannot be created: {error.diag.message_primary}"
        raise LakebaseLoadError(what, context=context, hint=_creation_hint(error)) from error
    return True


def _creation_hint(error: psycopg.Error) -> str:
    if isinstance(error, errors.InvalidSchemaName):
        return "Create the schema first{create_schema}, or correct its name."
    if isinstance(error, errors.InsufficientPrivilege):
        return "Grant the role CREATE on the schema, or create the table first."
    return "{correct_creation}"


def has_type(connection: psycopg.Connection[Any], kind: str) -> bool:
    """Return whether columns can have a type.

    :param connection: an open session
    :param kind: the type as DDL writes it
    """
    query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid = to_regtype(%s) AND typtype <> 'p')"
    return bool(connection.execute(query, [kind]).fetchall()[0][0])


def add_columns(connection: psycopg.Connection[Any], table: Table, definitions: Mapping[str, str]) -> Table:
    """Add columns to the end of a table, and return its definition.

    :param connection: an open session, in a transaction
    :param table: the table
    :param definitions: SQL type by name
    :raises LakebaseLoadError: if they cannot be added
    """
    added = [
        sql.SQL("ADD COLUMN IF NOT EXISTS {} {}").format(sql.Identifier(column), sql.SQL(kind))
        for column, kind in definitions.items()
    ]
    alter = sql.SQL("ALTER TABLE {} {}").format(table.identifier, sql.SQL(", ").join(added))
    try:
        with connection.transaction():
            connection.execute(alter)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        names = ", ".join(definitions)
        raise LakebaseLoadError(
            f"Table {table.name} cannot be given the new columns {names}: {error.diag.message_primary}",
            context=session_context(connection),
            hint="Nothing was loaded. Add them as the owner of the table, or set new_columns='ignore'.",
            table=table.name,
            sqlstate=error.sqlstate,
        ) from None
    return find_table(connection, table.name)


def check_types(connection: psycopg.Connection[Any], types: Mapping[str, str], option: str = "casts") -> None:
    """Check that an option names types.

    :param connection: an open session
    :param types: SQL type by column
    :param option: its name
    :raises LakebaseSettingsError: for a type that does not exist
    """
    for column, kind in types.items():
        try:
            with connection.transaction():
                connection.execute("SELECT %s::regtype", [kind])
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            raise LakebaseSettingsError(
                f"{option} maps column '{column}' to '{kind}', which is not a type",
                context=session_context(connection),
                hint="Name a type as in SQL.",
            ) from error


def _check_kind(name: str, kind: str, owner: str, context: ErrorContext) -> None:
    if is_synced_owner(owner):
        raise LakebaseLoadError(
            f"{name} is a synced table, which only its pipeline may write to",
            context=context,
            hint="Write to its source in Unity Catalog, or load into a table of your own.",
        )
    if kind not in ("r", "p"):
        what = f"{name} is {_KINDS.get(kind, 'not a table')}"
        raise LakebaseLoadError(what, context=context, hint="Name the table that holds the rows.")
