"""Run a query on any Postgres database by COPY, whichever driver has the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


class SourceCopy:
    """A query, as the load of its rows takes it to have them sent by COPY.

    :param connection: of psycopg or psycopg2, in a transaction, after :func:`use_utf8`
    :param query: one query
    :param parameters: of the query
    """

    def __init__(self, connection: Any, query: str, parameters: Mapping[str, Any] | Sequence[Any] | None) -> None:
        self.connection = connection
        self.query = query
        self.parameters = parameters

    def copy(self, names: Sequence[str] | None, format: str, write: Callable[[bytes], None]) -> None:
        """Write the result of the query as COPY sends it, row by row.

        :param names: the columns to send; None for all of them
        :param format: of COPY
        :param write: called with each row
        """
        from airflow_provider_lakebase.core.bulk.copy_out import EXACT_SETTINGS

        # A comment at the end of the query must not reach the parenthesis.
        query = f"{self._bound()}\n"
        if names is not None:
            quoted = ", ".join('"{}"'.format(name.replace('"', '""')) for name in names)
            query = f"SELECT {quoted} FROM ({query}) AS query"  # noqa: S608 - the names are quoted
        statement = f"COPY ({query}) TO STDOUT (FORMAT {format})".encode()
        with plain_cursor(self.connection) as cursor:
            cursor.execute(EXACT_SETTINGS)
            if is_psycopg2(self.connection):
                cursor.copy_expert(statement, _Writer(write))
            else:
                with cursor.copy(statement) as rows:
                    for row in rows:
                        write(row)

    def _bound(self) -> str:
        text = self.query.strip().rstrip(";")
        if not self.parameters:
            return text
        if is_psycopg2(self.connection):
            with plain_cursor(self.connection) as cursor:
                bound: bytes = cursor.mogrify(text, self.parameters)
                return bound.decode()
        from psycopg import ClientCursor

        return ClientCursor(self.connection).mogrify(text, self.parameters)


class _Writer:
    """What psycopg2 writes the rows to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


def driver_names(connection: Any) -> set[str]:
    """Return the names of the packages that define the class of a connection and its base classes.

    :param connection: of any driver
    """
    return {each.__module__.partition(".")[0] for each in type(connection).__mro__}


def is_postgres(connection: Any) -> bool:
    """Return whether a connection is one of psycopg or psycopg2.

    :param connection: of any driver
    """
    return not driver_names(connection).isdisjoint(("psycopg", "psycopg2"))


def is_psycopg2(connection: Any) -> bool:
    """Return whether a connection is one of psycopg2.

    :param connection: of any driver
    """
    return "psycopg2" in driver_names(connection)


def use_utf8(connection: Any) -> None:
    """Have the server send and take text in UTF-8, which a database in SQL_ASCII otherwise does not.

    :param connection: of psycopg or psycopg2, outside a transaction
    """
    if is_psycopg2(connection):
        connection.set_client_encoding("UTF8")
    else:
        connection.execute("SET client_encoding TO 'UTF8'")


def plain_cursor(connection: Any) -> Any:
    """Return a cursor whose rows are tuples, whatever the connection's own cursors return.

    :param connection: of psycopg or psycopg2
    """
    if is_psycopg2(connection):
        return connection.cursor(cursor_factory=import_module("psycopg2.extensions").cursor)
    from psycopg.rows import tuple_row

    return connection.cursor(row_factory=tuple_row)
