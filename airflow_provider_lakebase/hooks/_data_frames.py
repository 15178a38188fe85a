"""DbApiHook's data frames, on psycopg: with parameters, without warnings, and in chunks from a server-side cursor."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

if TYPE_CHECKING:
    import psycopg


class DataFrameHook(DbApiHook):
    """Read data frames; what is lineage's gets the statement without its parameters."""

    def get_df(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Any:
        """Run a query and return its rows as a data frame.

        :param sql: the query
        :param parameters: its parameters
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: passed on to :func:`pandas.read_sql` or :func:`polars.read_database`
        """
        read = _by_frame_type(df_type, pandas=self._get_pandas_df, polars=self._get_polars_df)
        frame = read(sql, parameters, **kwargs)
        send_sql_hook_lineage(context=self, sql=sql)
        return frame

    def get_df_by_chunks(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        chunksize: int,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Generator[Any, None, None]:
        """Run a query and yield its rows as data frames, by a server-side cursor.

        :param sql: the query
        :param parameters: its parameters
        :param chunksize: rows in a frame
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: passed on to :func:`pandas.read_sql` or :func:`polars.read_database`
        """
        read = _by_frame_type(df_type, pandas=self._get_pandas_df_by_chunks, polars=self._get_polars_df_by_chunks)
        frames: Generator[Any, None, None] = read(sql, parameters, chunksize=chunksize, **kwargs)
        send_sql_hook_lineage(context=self, sql=sql)
        return frames

    def _get_pandas_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        import pandas

        with self._create_autocommit_connection() as connection, _pandas_takes_any_connection():
            return pandas.read_sql(sql, cast(Any, connection), params=parameters, **kwargs)

    def _get_polars_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        import polars

        with self._create_autocommit_connection() as connection:
            return polars.read_database(sql, connection, execute_options=_options(parameters, kwargs), **kwargs)

    def _get_pandas_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        import pandas

        with self._create_autocommit_connection() as connection:
            with _pandas_takes_any_connection():
                session = cast(Any, _Streaming(connection))
                frames = pandas.read_sql(sql, session, params=parameters, chunksize=chunksize, **kwargs)
            yield from frames

    def _get_polars_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        import polars

        with self._create_autocommit_connection() as connection, _Streaming(connection).cursor() as cursor:
            yield from polars.read_database(
                sql,
                cursor,
                iter_batches=True,
                batch_size=chunksize,
                execute_options=_options(parameters, kwargs),
                **kwargs,
            )


def _options(parameters: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"params": parameters, **kwargs.pop("execute_options", {})}


def _by_frame_type(df_type: str, *, pandas: Any, polars: Any) -> Any:
    if df_type not in ("pandas", "polars"):
        raise ValueError(f"df_type is {df_type!r}; it is 'pandas' or 'polars'")
    return pandas if df_type == "pandas" else polars


@contextmanager
def _pandas_takes_any_connection() -> Iterator[None]:
    # pandas warns of every DB-API connection but sqlite3's; it works, and SQLAlchemy 1.4 could not do it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        yield


class _Streaming:
    """A connection as pandas and polars see one, whose cursor leaves the rows on the server."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def cursor(self) -> Any:
        return self.connection.cursor(name="lakebase_chunks")

    def rollback(self) -> None:
        self.connection.rollback()
