"""Find the table that a load goes into."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql


def find_table(connection: psycopg.Connection[Any], table: str) -> sql.Identifier:
    """Return the table, schema-qualified and quoted.

    :param connection: an open session
    :param table: the name as SQL writes it: ``flights``, ``public.flights``, ``"Mixed Case"``
    :raises psycopg.errors.UndefinedTable: when there is no such table
    """
    query = """
        SELECT nspname, relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
        WHERE c.oid = %s::regclass
    """
    return sql.Identifier(*connection.execute(query, [table]).fetchall()[0])
