"""What privileges are held on: databases, schemas, tables and the like, as SQL and as a report name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from psycopg import sql

from airflow_provider_lakebase.core.relations.memory import is_synced_owner

DATABASE, SCHEMA, TABLE, COLUMN, SEQUENCE, FUNCTION = "database", "schema", "table", "column", "sequence", "function"
ROLE = "role"
LATER_TABLES, LATER_SEQUENCES, LATER_SCHEMAS = "later tables", "later sequences", "later schemas"

_ON = {
    DATABASE: "DATABASE",
    SCHEMA: "SCHEMA",
    TABLE: "TABLE",
    COLUMN: "TABLE",
    SEQUENCE: "SEQUENCE",
    FUNCTION: "ROUTINE",  # procedures and aggregates too
}
_ALTER = {**_ON, SEQUENCE: "TABLE", COLUMN: ""}
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(frozen=True, order=True)
class Object:
    """An object that privileges are held on, or the objects that a role will create.

    :param kind: ``database``, ``schema``, ``table`` and so on; ``later tables`` and the like for default privileges
    :param schema: its schema; of later objects, empty if they may be in any
    :param name: its name; of later objects, who creates them
    :param column: of a column
    :param arguments: types of a function's arguments, as SQL writes them
    :param owner: who owns it; of later objects, who creates them
    :param table: schema and name of the table whose column draws its default from this sequence
    :param is_serial: whether that column is ``serial``; one GENERATED AS IDENTITY needs no privilege on its sequence
    :param of_extension: whether it belongs to an extension
    """

    kind: str
    schema: str
    name: str
    column: str = ""
    arguments: str = ""
    owner: str = field(default="", compare=False)
    table: tuple[str, str] | None = field(default=None, compare=False)
    is_serial: bool = field(default=False, compare=False)
    of_extension: bool = field(default=False, compare=False)

    @property
    def is_later(self) -> bool:
        """Return whether these are objects that do not exist yet."""
        return self.kind.startswith("later ")

    @property
    def is_synced(self) -> bool:
        """Return whether it is a synced table, which only its pipeline may write to."""
        return self.kind == TABLE and is_synced_owner(self.owner)

    @property
    def group(self) -> tuple[str, ...]:
        """Return what objects have in common that one statement may name."""
        if self.kind == COLUMN:
            return (self.kind, self.schema, self.name)
        return (self.kind, self.schema, self.name if self.is_later or self.kind == ROLE else "")

    def __str__(self) -> str:
        """Return how a report names it."""
        if self.is_later:
            return f"{self.kind} of '{self.name}'" + (f" in schema {quote(self.schema)}" if self.schema else "")
        name = quote(self.name) + (f"({self.arguments})" if self.kind == FUNCTION else "")
        path = f"{quote(self.schema)}.{name}" if self.kind in (TABLE, COLUMN, SEQUENCE, FUNCTION) else name
        if self.kind == ROLE:
            return f"role '{self.name}'"
        return f"column {quote(self.column)} of table {path}" if self.kind == COLUMN else f"{self.kind} {path}"

    @property
    def identifier(self) -> sql.Composable:
        """Return its name in SQL."""
        name = sql.Identifier(*filter(None, (self.schema if self.kind != SCHEMA else "", self.name)))
        return sql.SQL("{}({})").format(name, sql.SQL(self.arguments)) if self.kind == FUNCTION else name


def describe(objects: Sequence[Object]) -> str:
    """Return how a report names objects of one group.

    :param objects: at least one
    """
    first = objects[0]
    if len(objects) == 1:
        return str(first)
    if first.kind == COLUMN:
        columns = ", ".join(quote(item.column) for item in objects)
        return f"columns {columns} of table {quote(first.schema)}.{quote(first.name)}"
    return f"{len(objects)} {first.kind}s in schema {quote(first.schema)}"


def grant_statement(
    objects: Sequence[Object], privileges: Sequence[str], role: str, *, revoke: bool = False, option: bool = False
) -> sql.Composed:
    """Return the GRANT or REVOKE of privileges on objects of one group.

    :param objects: at least one
    :param privileges: as SQL writes them
    :param role: who gets or loses them, unquoted
    :param revoke: whether to revoke
    :param option: whether to revoke only the grant option
    """
    first = objects[0]
    words = sql.SQL(", ").join(map(sql.SQL, privileges))
    if first.kind == COLUMN:
        columns = sql.SQL(", ").join(sql.Identifier(item.column) for item in objects)
        words = sql.SQL(", ").join(sql.SQL("{} ({})").format(sql.SQL(privilege), columns) for privilege in privileges)
        objects = objects[:1]
    verb = sql.SQL("REVOKE GRANT OPTION FOR" if option else "REVOKE" if revoke else "GRANT")
    target = sql.SQL("FROM {}" if revoke or option else "TO {}").format(sql.Identifier(role))
    if first.is_later:
        scope = sql.SQL(" IN SCHEMA {}").format(sql.Identifier(first.schema)) if first.schema else sql.SQL("")
        return sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {}{} {} {} ON {} {}").format(
            sql.Identifier(first.name), scope, verb, words, sql.SQL(first.kind.removeprefix("later ").upper()), target
        )
    names = sql.SQL(", ").join(item.identifier for item in objects)
    return sql.SQL("{} {} ON {} {} {}").format(verb, words, sql.SQL(_ON[first.kind]), names, target)


def owner_statement(item: Object, owner: str) -> sql.Composed:
    """Return the statement that changes the owner of an object.

    :param item: a schema, table, sequence or function
    :param owner: the new owner, unquoted
    """
    kind = sql.SQL(_ALTER[item.kind])
    return sql.SQL("ALTER {} {} OWNER TO {}").format(kind, item.identifier, sql.Identifier(owner))


def quote(name: str) -> str:
    """Return a name as SQL needs it, for a report.

    :param name: as the catalog has it
    """
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'
