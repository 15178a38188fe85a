"""Run SQL up to its last statement, whose rows are read by other means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from airflow_provider_lakebase.core.sql.binding import bind, check_encoding
from airflow_provider_lakebase.core.sql.split import split_statements
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_WRITING = (("INSERT",), ("UPDATE",), ("DELETE",), ("MERGE",))


def run_up_to_last(
    session: psycopg.Connection[Any],
    sql: str | Iterable[str],
    parameters: Any,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Run all statements except the last one, and return the last one with its parameters bound.

    :param session: an open session
    :param sql: one or more texts, each with one or more statements
    :param parameters: of each text
    :param check: called before each statement; raises to run no more
    :raises LakebaseSettingsError: if there is no statement, or the last one is not a query
    """
    bound = [bind(session, text, parameters) for text in ([sql] if isinstance(sql, str) else sql)]
    statements = [statement.text for text in bound for statement in split_statements(text)]
    if not statements:
        raise LakebaseSettingsError("There is no SQL statement", hint="Give a query.")
    if split_statements(statements[-1])[0].words[:1] in _WRITING:
        hint = "Write WITH … AS (…) SELECT, whose rows can be read, or run it as a statement."
        raise LakebaseSettingsError("The last statement writes, so its rows cannot be read by this method", hint=hint)
    for statement in statements[:-1]:
        check()
        session.execute(statement.encode())
        check_encoding(session)
    return statements[-1]
