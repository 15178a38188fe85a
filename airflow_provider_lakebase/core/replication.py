"""Which tables a change feed can replicate, told from Postgres's catalogue, and what makes them fit.

A feed leaves out tables that it cannot replicate, and says so in their status only. So all is checked before a feed is
created. https://docs.databricks.com/aws/en/oltp/projects/lakebase-cdf
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseChangeFeedError

MIN_POSTGRES_VERSION = 17
LOCK_TIMEOUT = "10s"
"""How long a change of a table waits for its lock, behind which all its readers and writers wait."""

# Objects of extensions are left out: they belong to the service. A partition is told with its table, unless that is
# elsewhere or the partition was asked for.
_TABLES = """
    SELECT relname, relkind::text, relpersistence::text, relispartition, relreplident = 'f',
        EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = c.oid AND indisprimary),
        pg_catalog.pg_has_role(relowner, 'USAGE')
    FROM pg_catalog.pg_class c
    WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
      AND CASE WHEN %(tables)s::text[] IS NOT NULL
          THEN relname = ANY (%(tables)s::text[]) AND relkind NOT IN ('i', 'I')
          ELSE relkind IN ('r', 'p', 'f')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = inhparent
                WHERE inhrelid = c.oid AND c.relispartition AND p.relnamespace = c.relnamespace)
          END
    ORDER BY relname
"""
_KINDS = {"p": "is partitioned", "f": "is a foreign table", "v": "is a view", "m": "is a materialized view"}
_PERSISTENCE = {"u": "is unlogged", "t": "is temporary"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A table that a feed may replicate, as the catalogue has it.

    :param name: its name
    :param kind: ``relkind``
    :param persistence: ``relpersistence``
    :param is_partition: whether it is a partition of another table
    :param has_full_identity: whether it has REPLICA IDENTITY FULL
    :param has_key: whether it has a primary key
    :param is_own: whether the session's role has the rights of its owner
    """

    name: str
    kind: str
    persistence: str
    is_partition: bool
    has_full_identity: bool
    has_key: bool
    is_own: bool

    @property
    def obstacles(self) -> list[str]:
        """What is wrong with it, but for its replica identity."""
        if self.kind != "r":
            return [_KINDS.get(self.kind, "is no table")]
        found = [_PERSISTENCE[self.persistence]] if self.persistence in _PERSISTENCE else []
        found += ["is a partition of another table"] if self.is_partition else []
        return found if self.has_key else [*found, "has no primary key"]

    def faults(self, *, set_identity: bool) -> list[str]:
        """Return all that is wrong with it.

        :param set_identity: whether a missing REPLICA IDENTITY FULL is set where the role may
        """
        if self.has_full_identity or self.kind != "r" or (set_identity and self.is_own):
            return self.obstacles
        text = "does not have REPLICA IDENTITY FULL"
        return [*self.obstacles, f"{text}, and the role does not own it" if set_identity else text]


def prepare_tables(
    connection: psycopg.Connection[Any],
    schema: str,
    tables: Sequence[str] | None,
    *,
    set_identity: bool,
    context: ErrorContext,
) -> list[str]:
    """Check that a feed of a schema can replicate its tables, and set REPLICA IDENTITY FULL where that is wanted.

    :param connection: an open session in autocommit
    :param schema: schema in Postgres
    :param tables: the tables that the feed has to replicate; None is all
    :param set_identity: set REPLICA IDENTITY FULL where it is missing
    :param context: connection and endpoint, for messages
    :raises LakebaseChangeFeedError: with the faults of all tables; nothing was changed
    :returns: the tables that were changed
    """
    candidates = _find(connection, schema, tables, context)
    faults = [
        f"'{each.name}' {' and '.join(found)}"
        for each in candidates
        if (found := each.faults(set_identity=set_identity))
    ]
    missing = sorted(set(tables or ()) - {each.name for each in candidates})
    faults += [f"'{name}' does not exist" for name in missing]
    if faults:
        raise _error(
            f"A feed of schema '{schema}' cannot replicate all tables: {'; '.join(faults)}", context, _hint(faults)
        )
    if tables is not None:
        _tell_of_others(_find(connection, schema, None, context), tables)
    changed = [each.name for each in candidates if not each.has_full_identity]
    for name in changed:
        _set_identity(connection, schema, name)
        log.info("Set REPLICA IDENTITY FULL on %s.%s", schema, name)
    return changed


def _find(
    connection: psycopg.Connection[Any], schema: str, tables: Sequence[str] | None, context: ErrorContext
) -> list[Candidate]:
    version = connection.info.server_version // 10_000
    if version < MIN_POSTGRES_VERSION:
        text = f"A change feed needs Postgres {MIN_POSTGRES_VERSION} or newer, and this is {version}"
        raise _error(text, context, "Create a project with a newer version.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s", [schema])
        if cursor.fetchone() is None:
            text = f"The Postgres schema '{schema}' does not exist"
            raise _error(text, context, "Correct postgres_schema, or create it.")
        cursor.execute(_TABLES, {"schema": schema, "tables": None if tables is None else list(tables)})
        return [Candidate(*row) for row in cursor.fetchall()]


def _tell_of_others(candidates: Sequence[Candidate], tables: Sequence[str]) -> None:
    """Warn of tables of the schema that nobody asked for and that the feed leaves out."""
    for each in candidates:
        # It replicates tables without a key, too.
        faults = [text for text in each.faults(set_identity=False) if "key" not in text]
        if faults and each.name not in tables:
            log.warning("The feed leaves out '%s', which %s", each.name, " and ".join(faults))


def _set_identity(connection: psycopg.Connection[Any], schema: str, table: str) -> None:
    """Set it in a transaction of its own, so that the table is locked no longer than that takes."""
    statement = sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(sql.Identifier(schema, table))
    with connection.transaction():
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        connection.execute(statement)


def _hint(faults: Sequence[str]) -> str:
    hints = []
    if any("REPLICA IDENTITY" in fault for fault in faults):
        hints.append("as a table's owner, run ALTER TABLE … REPLICA IDENTITY FULL, or pass set_replica_identity=True")
    if any("does not exist" in fault for fault in faults):
        hints.append("give names of tables as Postgres has them, without their schema")
    others = [fault for fault in faults if "does not exist" not in fault]
    if not all("REPLICA IDENTITY" in fault and "key" not in fault for fault in others):
        which = "the others" if hints else "these tables"
        hints.append(f"correct {which}, or name in 'tables' those that the feed has to replicate")
    text = "; ".join(hints)
    return f"{text[:1].upper()}{text[1:]}."


def _error(text: str, context: ErrorContext, hint: str) -> LakebaseChangeFeedError:
    return LakebaseChangeFeedError(f"{text}; nothing was created or changed", context=context, hint=hint)
