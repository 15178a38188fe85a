"""common-sql's ``insert_rows``: by COPY where it stores the same values as INSERT, else by INSERT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from more_itertools import chunked

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

_BATCH_ROWS = 1000


def insert_rows(
    hook: LakebaseHook,
    table: str,
    rows: Iterable[Iterable[Any]],
    target_fields: list[str] | None,
    *,
    commit_every: int,
    replace: bool,
    autocommit: bool,
    **kwargs: Any,
) -> None:
    """Insert rows in batches.

    :param hook: opens the session
    :param table: target, as in SQL
    :param rows: read once
    :param target_fields: their columns; by default all columns, in the order of the table
    :param commit_every: rows per transaction; 0 for a single transaction
    :param replace: update rows whose key exists
    :param autocommit: passed to psycopg
    :param kwargs: ``replace_index`` and ``replace_target``
    """
    from airflow_provider_lakebase.core.bulk.insert import CopyInsert

    _check_keywords(kwargs, replace)
    if not target_fields and (replace or hook._resolve_target_fields):
        target_fields = hook.dialect.get_target_fields(table)
    if replace:
        kwargs["replace_index"] = kwargs.get("replace_index") or hook.dialect.get_primary_keys(table)
    fields, keys = _unquoted(target_fields), _unquoted(kwargs.get("replace_index")) if replace else None
    written, statement = 0, None
    with hook._create_autocommit_connection(autocommit) as connection, closing(connection.cursor()) as cursor:
        insert = CopyInsert(connection, table, fields, keys, _unquoted(kwargs.get("replace_target")))
        for chunk in chunked(map(_values, rows), commit_every or _BATCH_ROWS):
            statement = statement or hook._generate_insert_sql(table, chunk[0], target_fields, replace, **kwargs)
            if not insert.copy(chunk):
                cursor.executemany(statement.encode(), insert.prepared(chunk))
            written += len(chunk)
            insert.before = written
            if commit_every:
                connection.commit()
                hook.log.info("Loaded %s rows into %s so far", written, table)
        connection.commit()
    if statement:
        send_sql_hook_lineage(context=hook, sql=statement, row_count=written)
    hook.log.info("Done loading. Loaded a total of %s rows into %s", written, table)


def _check_keywords(kwargs: Mapping[str, Any], replace: bool) -> None:
    if unknown := sorted(set(kwargs) - {"replace_index", "replace_target"}):
        hint = "Its keywords are replace_index and replace_target."
        raise LakebaseSettingsError(f"insert_rows has no argument '{unknown[0]}'", hint=hint)
    given = sorted(name for name, value in kwargs.items() if value is not None)
    if given and not replace:
        raise LakebaseSettingsError(
            f"{given[0]} is given, but replace is not", hint="Give replace=True, or leave it out."
        )


def _values(row: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(row, Mapping):
        hint = "Give tuples in the order of target_fields, or use load(), which takes dicts."
        raise LakebaseSettingsError("insert_rows was given a mapping as a row", hint=hint)
    return tuple(row)


def _unquoted(names: str | Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    return [
        name[1:-1].replace('""', '"') if len(name) > 1 and name[0] == name[-1] == '"' else name
        for name in ([names] if isinstance(names, str) else names)
    ]
