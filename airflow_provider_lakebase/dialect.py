"""The SQL dialect of Postgres for common-sql's operators and ``insert_rows``, without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.providers.common.sql.dialects.dialect import Dialect

_COLUMNS = """
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type, NOT attnotnull AS nullable,
      CASE WHEN attgenerated = '' THEN value END AS "default",
      attgenerated = '' AND coalesce(value LIKE 'nextval(%%', false) AS autoincrement,
      attidentity <> '' AS identity, attgenerated <> '' AS computed
    FROM pg_catalog.pg_attribute
    LEFT JOIN LATERAL (
      SELECT pg_get_expr(adbin, adrelid) AS value FROM pg_catalog.pg_attrdef WHERE adrelid = attrelid AND adnum = attnum
    ) AS defaults ON true
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
_COLUMN_KEYS = ("name", "type", "nullable", "default", "autoincrement", "identity", "computed")
_PRIMARY_KEYS = """
    SELECT attname FROM pg_catalog.pg_index, unnest(indkey::int2[]) WITH ORDINALITY AS key(attnum, position)
    JOIN pg_catalog.pg_attribute USING (attnum)
    WHERE indrelid = %s::regclass AND indisprimary AND attrelid = indrelid AND position <= indnkeyatts
    ORDER BY position
"""


class LakebaseDialect(Dialect):
    """Generate ``INSERT … ON CONFLICT``, and quote every column, so that reserved and mixed-case names work."""

    def __init__(self, hook: Any, **kwargs: Any) -> None:
        super().__init__(hook, **kwargs)
        # Every lookup opens a session, and insert_rows does one for each chunk.
        self._found: dict[tuple[str, str], list[tuple[Any, ...]]] = {}

    def escape_word(self, word: str) -> str:
        """Quote a name, unless it is quoted already.

        :param word: name of a column
        """
        if len(word) > 1 and word.startswith('"') and word.endswith('"'):
            return word
        return '"{}"'.format(word.replace('"', '""'))

    def generate_insert_sql(self, table: str, values: Any, target_fields: Any, **kwargs: Any) -> str:
        """Return an INSERT with a placeholder for each value.

        :param table: name as written in SQL
        :param values: values of one row
        :param target_fields: their columns
        :param kwargs: ignored
        """
        # psycopg reads a % in the SQL as the beginning of a placeholder.
        columns = [_double_percent(self.escape_word(name)) for name in target_fields or ()]
        return str(super().generate_insert_sql(_double_percent(table), values, columns, **kwargs))

    def get_column_names(
        self, table: str, schema: str | None = None, predicate: Callable[[Any], bool] = lambda column: True
    ) -> list[str] | None:
        """Return the columns of a table, in their order.

        :param table: name as written in SQL
        :param schema: its schema, if the name is unqualified
        :param predicate: returns whether to include a column, given a dictionary with ``name``, ``type`` as written in
            SQL, ``nullable``, ``default``, ``autoincrement``, ``identity`` and ``computed``
        """
        columns = (dict(zip(_COLUMN_KEYS, row, strict=True)) for row in self._look_up(_COLUMNS, table, schema))
        return [column["name"] for column in columns if predicate(column)]

    def get_target_fields(self, table: str, schema: str | None = None) -> list[str] | None:
        """Return the columns that an INSERT may set: not generated, identity or serial.

        :param table: name as written in SQL
        :param schema: its schema, if the name is unqualified
        """
        set_by_postgres = ("autoincrement", "identity", "computed")
        return self.get_column_names(table, schema, lambda column: not any(column[key] for key in set_by_postgres))

    def get_primary_keys(self, table: str, schema: str | None = None) -> list[str] | None:
        """Return the columns of the primary key, in their order.

        :param table: name as written in SQL
        :param schema: its schema, if the name is unqualified
        """
        return [name for (name,) in self._look_up(_PRIMARY_KEYS, table, schema)] or None

    def generate_replace_sql(self, table: str, values: Any, target_fields: Any, **kwargs: Any) -> str:
        """Return an upsert: ``INSERT … ON CONFLICT (key) DO UPDATE``.

        :param table: name as written in SQL
        :param values: values of one row
        :param target_fields: their columns; by default all that an INSERT may set
        :param kwargs: ``replace_index``, the column or columns of the key, by default the primary key's;
            ``replace_target``, the columns to update in existing rows, by default all except the key's
        :raises ValueError: if the table has no primary key and no ``replace_index`` is given, or if a column of
            either argument is not one of the columns
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
        target = kwargs.get("replace_target")
        targets = [target] if isinstance(target, str) else target
        chosen = (
            [name for name in columns if name not in keys] if targets is None else [*map(self.escape_word, targets)]
        )
        if missing := sorted(set(chosen) - set(columns)):
            raise ValueError(f"Column {missing[0]} of replace_target is not among the columns to insert into {table}")
        update = ", ".join(f"{name} = excluded.{name}" for name in chosen)
        action = f"UPDATE SET {update}" if update else "NOTHING"
        return insert + _double_percent(f" ON CONFLICT ({', '.join(keys)}) DO {action}")

    def _look_up(self, query: str, table: str, schema: str | None) -> list[tuple[Any, ...]]:
        name = f"{self.escape_word(schema)}.{table}" if schema else table
        if (query, name) not in self._found:
            self._found[query, name] = self.get_records(query, [name])
        return self._found[query, name]


def _double_percent(text: str) -> str:
    return text.replace("%", "%%")
