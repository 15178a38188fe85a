"""Run SQL whose last statement returns rows, which are read as they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.bulk.formats.server_copy import QueryCopy
    from airflow_provider_lakebase.core.bulk.source import NamedRows
    from airflow_provider_lakebase.core.session.connections import LakebaseSession
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


@contextmanager
def run_up_to_last(
    hook: LakebaseHook, sql: str | Iterable[str], parameters: Any, *, read_only: bool = False
) -> Iterator[tuple[LakebaseSession, str]]:
    """Run all statements except the last one, yield the session and the last one, and commit after the ``with`` block.

    :param hook: opens the session
    :param sql: one or more texts, each with one or more statements
    :param parameters: of each text
    :param read_only: reject statements that write, for results that a caller may not read to the end
    :raises LakebaseSettingsError: if there is no statement, or the last one is not a query
    """
    from airflow_provider_lakebase.core.sql import last_query
    from airflow_provider_lakebase.core.sql.binding import hide_values

    with hook._create_autocommit_connection() as session, hide_values(parameters):
        with _read_only(session) if read_only else nullcontext():
            yield session, last_query.run_up_to_last(session, sql, parameters, hook._check_cancelled)
        session.commit()


@contextmanager
def _read_only(session: LakebaseSession) -> Iterator[None]:
    """Make the next transaction of a session read-only; if it writes, add a note with a remedy to the error."""
    from psycopg.errors import ReadOnlySqlTransaction

    session.read_only = True
    try:
        yield
    except ReadOnlySqlTransaction as error:
        error.add_note(
            "Rows are returned before all are read, so what a statement writes could not be committed. Use get_df(), "
            "get_arrow() or run(), which commit."
        )
        raise


@contextmanager
def read_arrow(
    hook: LakebaseHook, sql: str, parameters: Any, *, read_only: bool = False
) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Run SQL, and yield the Arrow schema of the last statement's rows and their record batches to the ``with`` block.

    :param hook: opens the session
    :param sql: one or more statements, or a table name as in SQL
    :param parameters: of the statements
    :param read_only: reject statements that write
    """
    from airflow_provider_lakebase.core.bulk import query_arrow
    from airflow_provider_lakebase.core.bulk.copy_out import select
    from airflow_provider_lakebase.core.bulk.progress import Progress

    with run_up_to_last(hook, sql, parameters, read_only=read_only) as (connection, query):
        progress = Progress("Reading", hook._check_cancelled)
        with query_arrow.read_arrow(connection, select(query), progress) as result:
            yield result
    send_sql_hook_lineage(context=hook, sql=sql)


def name_rows(
    rows: Iterable[tuple[Any, ...]],
    names: Sequence[str],
    types: Sequence[str] | None = None,
    query: QueryCopy | None = None,
) -> NamedRows:
    """Return rows as :meth:`LakebaseHook.load` takes them to match their values to columns by name.

    :param rows: tuples of values
    :param names: the name of each value
    :param types: the Postgres type of each value, as DDL writes it; None if they are unknown
    :param query: the query on a Postgres server whose rows they are, for COPY
    """
    from airflow_provider_lakebase.core.bulk.source import NamedRows

    return NamedRows(rows, names, types, query)
