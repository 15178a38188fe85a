"""Ask a Postgres database for the types of a query's columns, whichever driver ran it."""

from __future__ import annotations

from typing import Any

from airflow_provider_lakebase.hooks._source_copy import is_postgres, is_psycopg2, plain_cursor

_NUMERIC = 1700
_NO_MODIFIER = -1
_HEADER = 4
"""Bytes that Postgres adds to the lengths that are modifiers, and psycopg2 subtracts."""
_NO_PRECISION = 0xFFFF
# psycopg2 does not tell the modifiers of types of a fixed size, such as timestamp(3). Those of a table's column are in
# the catalog; without its modifier, a type holds the same values and more.
_TYPES = """
    SELECT format_type(c.type, coalesce(
        nullif(CASE WHEN %s OR typlen = -1 THEN c.modifier ELSE -1 END, -1), atttypmod, -1)) AS name
    FROM unnest(%s::oid[], %s::int[], %s::oid[], %s::int[]) WITH ORDINALITY
        AS c (type, modifier, relation, number, position)
    LEFT JOIN pg_catalog.pg_type t ON t.oid = c.type
    LEFT JOIN pg_catalog.pg_attribute ON attrelid = c.relation AND attnum = c.number AND atttypid = c.type
    ORDER BY position
"""


def describe_query(connection: Any, cursor: Any) -> tuple[list[str], list[str]] | None:
    """Return names and types of a query's columns, before any row is read; types as DDL writes them: ``numeric(10,2)``.

    :param connection: of psycopg or psycopg2
    :param cursor: a server-side cursor of that connection, which ran the query
    :returns: None for any other driver, since most tell types only vaguely
    """
    if not is_postgres(connection):
        return None
    has_modifiers = not is_psycopg2(connection)
    with plain_cursor(connection) as catalog:
        if has_modifiers:
            columns = list(cursor.description)
            result = cursor.pgresult
            numbers = range(len(columns))
            modifiers = [result.fmod(number) for number in numbers]
            places = [(result.ftable(number), result.ftablecol(number)) for number in numbers]
        else:  # its own cursor learns the columns from the first rows
            catalog.execute(f'FETCH 0 FROM "{cursor.name}"')
            columns = list(catalog.description)
            modifiers = [_modifier(column) for column in columns]
            places = [(column.table_oid or 0, column.table_column or 0) for column in columns]
        if not columns:
            return [], []
        arguments = [[column.type_code for column in columns], modifiers, *map(list, zip(*places, strict=True))]
        catalog.execute(_TYPES, [has_modifiers, *arguments])
        return [column.name for column in columns], [name for (name,) in catalog.fetchall()]


def _modifier(column: Any) -> int:
    """Return the modifier of a type of variable size from what psycopg2 tells."""
    if column.type_code == _NUMERIC:
        whole = column.precision << 16 | column.scale
        return _NO_MODIFIER if column.precision == _NO_PRECISION else whole + _HEADER
    return _NO_MODIFIER if column.internal_size == _NO_MODIFIER else int(column.internal_size) + _HEADER
