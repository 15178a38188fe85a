"""Postgres's SQL for common-sql's ``insert_rows``, where its default would write MySQL's ``REPLACE INTO``."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.dialects.dialect import Dialect

_COLUMNS = """
    SELECT attname FROM pg_catalog.pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = ''
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attrdef
        WHERE adrelid = attrelid AND adnum = attnum AND pg_get_expr(adbin, adrelid) LIKE 'nextval(%%'
      )
    ORDER BY attnum
"""
_PRIMARY_KEYS = """
    SELECT attname FROM pg_catalog.pg_index, unnest(indkey::int2[]) WITH ORDINALITY AS key(attnum, position)
    JOIN pg_catalog.pg_attribute USING (attnum)
    WHERE indrelid = %s::regclass AND indisprimary AND attrelid = indrelid ORDER BY position
"""


class LakebaseDialect(Dialect):
    """Write ``INSERT … ON CONFLICT`` and quote every column, so that reserved and mixed-case names work."""

    def __init__(self, hook: Any, **kwargs: Any) -> None:
        super().__init__(hook, **kwargs)
        # Every look-up is a session of its own, and insert_rows asks once a chunk.
        self._found: dict[tuple[str, str], list[str]] = {}

    def escape_word(self, word: str) -> str:
        """Return the name quoted, unless it already is.

        :param word: name of a column
        """
        if len(word) > 1 and word.startswith('"') and word.endswith('"'):
            return word
        return '"{}"'.format(word.replace('"', '""'))

    def generate_insert_sql(self, table: str, values: Any, target_fields: Any, **kwargs: Any) -> str:
        """Return an INSERT with a placeholder for each value.

        :param table: name as SQL writes it
        :param values: one row
        :param target_fields: its columns
        :param kwargs: without effect
        """
        # psycopg reads a % in the statement's own text as the beginning of a placeholder.
        columns = [_double_percent(self.escape_word(name)) for name in target_fields or ()]
        return str(super().generate_insert_sql(_double_percent(table), values, columns, **kwargs))

    def get_target_fields(self, table: str, schema: str | None = None) -> list[str] | None:
        """Return the columns that an INSERT may set: not generated, identity or serial.

        :param table: name as SQL writes it
        :param schema: its schema, where the name does not hold it
        """
        return self._names(_COLUMNS, table, schema)

    def get_primary_keys(self, table: str, schema: str | None = None) -> list[str] | None:
        """Return the columns of the primary key, in its order.

        :param table: name as SQL writes it
        :param schema: its schema, where the name does not hold it
        """
        return self._names(_PRIMARY_KEYS, table, schema) or None

    def generate_replace_sql(self, table: str, values: Any, target_fields: Any, **kwargs: Any) -> str:
        """Return an upsert: ``INSERT … ON CONFLICT (key) DO UPDATE``.

        :param table: name as SQL writes it
        :param values: one row
        :param target_fields: its columns; by default all that an INSERT may set
        :param kwargs: ``replace_index``, the column or columns of the key; by default the primary key's
        :raises ValueError: when the table has no primary key and no ``replace_index`` is given, or the key is not
            among the columns
        """
        columns = list(target_fields or self.get_target_fields(table) or [])
        given = kwargs.get("replace_index")
        keys = [given] if isinstance(given, str) else list(given or self.get_primary_keys(table) or [])
        if not keys:
            raise ValueError(f"Table {table} has no primary key: pass replace_index with the columns of a unique index")
        columns, keys = list(map(self.escape_word, columns)), list(map(self.escape_word, keys))
        if missing := sorted(set(keys) - set(columns)):
            raise ValueError(f"Column {missing[0]} of the key is not among the columns to insert into {table}")
        insert = self.generate_insert_sql(table, values, columns)
        update = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
        action = f"UPDATE SET {update}" if update else "NOTHING"
        return insert + _double_percent(f" ON CONFLICT ({', '.join(keys)}) DO {action}")

    def _names(self, query: str, table: str, schema: str | None) -> list[str]:
        name = f"{self.escape_word(schema)}.{table}" if schema else table
        if (query, name) not in self._found:
            self._found[query, name] = [row[0] for row in self.get_records(query, [name])]
        return self._found[query, name]


def _double_percent(text: str) -> str:
    return text.replace("%", "%%")
