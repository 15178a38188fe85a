"""DbApiHook's data frames, on psycopg: with parameters, without warnings, and in chunks from a server-side cursor."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_lakebase.core.sql.split import split_statements
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._frames import PandasFrames, PolarsFrames

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.session.connections import LakebaseSession

_WRITING = (("INSERT",), ("UPDATE",), ("DELETE",), ("MERGE",))


class DataFrameHook(DbApiHook):
    """Read data frames. Lineage receives the SQL without the values of its parameters."""

    def _check_cancelled(self) -> None:
        """Raise when what this hook is doing shall stop."""

    @contextmanager
    def _up_to_last(
        self, sql: str | Iterable[str], parameters: Any, *, only_reads: bool = False
    ) -> Iterator[tuple[LakebaseSession, str]]:
        """Run all statements but the last one; give the session and the last one's text, and commit after the block.

        :param sql: one or more texts, each of one or more statements
        :param parameters: of each text
        :param only_reads: refuse what writes, for results that a caller may not read to their end
        """
        from airflow_provider_lakebase.core.bulk.copy_out import reading_only
        from airflow_provider_lakebase.core.sql.binding import bind, check_encoding, hide_values

        with self._create_autocommit_connection() as connection, hide_values(parameters):
            session: LakebaseSession = connection
            bound = [bind(session, text, parameters) for text in ([sql] if isinstance(sql, str) else sql)]
            statements = [statement.text for text in bound for statement in split_statements(text)]
            if not statements:
                raise LakebaseSettingsError("There is no SQL statement", hint="Give a query.")
            if split_statements(statements[-1])[0].words[:1] in _WRITING:
                hint = "Use get_df() or get_records(), which commit what they write, or write WITH … AS (…) SELECT."
                raise LakebaseSettingsError("The last statement writes, which cannot be read from here", hint=hint)
            with reading_only(session) if only_reads else nullcontext():
                for statement in statements[:-1]:
                    self._check_cancelled()
                    session.execute(statement.encode())
                    check_encoding(session)
                yield session, statements[-1]
            session.commit()

    def get_df(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Any:
        """Run a query, commit, and return its rows as a data frame; of several statements, those of the last one.

        Types come from Postgres: whole numbers are pandas' nullable ones, and numerics stay exact. They are ``Decimal``
        in pandas, where ``coerce_float=True`` makes them floats; in polars ``Decimal`` where the column has a
        precision, else text. What polars has no type for is text.

        :param sql: the query, a text of several statements, or a list of them
        :param parameters: its parameters
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: of pandas: ``index_col``, ``coerce_float``, ``parse_dates``, ``dtype``, ``dtype_backend``, as of
            :func:`pandas.read_sql`; of polars: ``schema_overrides``
        :raises LakebaseSettingsError: for other arguments, or when the last statement has no rows
        :raises LakebaseExportError: for a value that the frame's type of its column does not hold
        """
        read = _by_frame_type(df_type, pandas=self._get_pandas_df, polars=self._get_polars_df)
        return read(sql, parameters, **kwargs)

    def get_df_by_chunks(
        self,
        sql: str | list[str],
        parameters: list[Any] | tuple[Any, ...] | Mapping[str, Any] | None = None,
        *,
        chunksize: int,
        df_type: Literal["pandas", "polars"] = "pandas",
        **kwargs: Any,
    ) -> Generator[Any, None, None]:
        """Run a query and yield its rows as data frames of one schema, by a server-side cursor.

        The transaction is READ ONLY, since nobody knows whether all frames are read; :meth:`get_df` may write. Of
        several statements, the last one is the query. A result without rows is one empty frame.

        :param sql: the query, a text of several statements, or a list of them
        :param parameters: its parameters
        :param chunksize: rows in a frame
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: of pandas: ``index_col``, ``coerce_float``, ``parse_dates``, ``dtype``, ``dtype_backend``, as of
            :func:`pandas.read_sql`; of polars: ``schema_overrides``
        :raises LakebaseSettingsError: for other arguments, or when the last statement has no rows
        :raises LakebaseExportError: for a value that the frame's type of its column does not hold
        """
        read = _by_frame_type(df_type, pandas=self._get_pandas_df_by_chunks, polars=self._get_polars_df_by_chunks)
        frames: Generator[Any, None, None] = read(sql, parameters, chunksize=chunksize, **kwargs)
        send_sql_hook_lineage(context=self, sql=sql)
        return frames

    def _get_pandas_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        return self._get_frame(PandasFrames(kwargs), sql, parameters)

    def _get_polars_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        return self._get_frame(PolarsFrames(kwargs), sql, parameters)

    def _get_frame(self, frames: PandasFrames | PolarsFrames, sql: Any, parameters: Any) -> Any:
        statements = [sql] if isinstance(sql, str) else list(sql)
        if not any(statement.strip() for statement in statements):
            raise ValueError("List of SQL statements is empty")
        with self._create_autocommit_connection() as connection, connection.cursor() as cursor:
            frames.prepare(cursor)
            for statement in statements:
                self._run_command(cursor, statement, parameters)
            frame = frames.build(_described(cursor), cursor.fetchall())
            connection.commit()
        return frame

    def _get_pandas_df_by_chunks(self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any) -> Any:
        return self._get_frames(PandasFrames(kwargs), sql, parameters, chunksize)

    def _get_polars_df_by_chunks(self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any) -> Any:
        return self._get_frames(PolarsFrames(kwargs), sql, parameters, chunksize)

    def _get_frames(
        self, frames: PandasFrames | PolarsFrames, sql: Any, parameters: Any, chunksize: int
    ) -> Generator[Any, None, None]:
        if chunksize < 1:
            raise LakebaseSettingsError(f"chunksize is {chunksize}", hint="Give how many rows a frame has, 1 or more.")
        with self._up_to_last(sql, parameters, only_reads=True) as (connection, query):
            with connection.cursor(name="lakebase_chunks") as cursor:
                frames.prepare(cursor)
                cursor.execute(query.encode())
                columns = _described(cursor)
                rows = cursor.fetchmany(chunksize)
                yield frames.build(columns, rows)
                while len(rows) == chunksize and (rows := cursor.fetchmany(chunksize)):
                    yield frames.build(columns, rows)


def _described(cursor: Any) -> list[Any]:
    if cursor.description is None:
        hint = "End with a query, or use run()."
        raise LakebaseSettingsError("The last statement has no rows, and was rolled back", hint=hint)
    return list(cursor.description)


def _by_frame_type(df_type: str, *, pandas: Any, polars: Any) -> Any:
    if df_type not in ("pandas", "polars"):
        raise ValueError(f"df_type is {df_type!r}; it is 'pandas' or 'polars'")
    return pandas if df_type == "pandas" else polars
