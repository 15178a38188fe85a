"""DbApiHook's data frames, on psycopg: with parameters, without warnings, and in chunks from a server-side cursor."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.sql_text import split_statements

if TYPE_CHECKING:
    import psycopg

    from airflow_provider_lakebase.session.connect import LakebaseSession


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
        from airflow_provider_lakebase.session.binding import bind, check_encoding, hide_values

        with self._create_autocommit_connection() as connection, hide_values(parameters):
            session: LakebaseSession = connection
            bound = [bind(session, text, parameters) for text in ([sql] if isinstance(sql, str) else sql)]
            statements = [statement.text for text in bound for statement in split_statements(text)]
            if not statements:
                raise LakebaseSettingsError("There is no SQL statement", remedy="Give a query.")
            if only_reads:
                session.execute("SET TRANSACTION READ ONLY")
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
        """Run SQL, commit what it wrote, and return the rows of its last statement as a data frame.

        The types of a polars frame are those of the result's columns. A ``numeric`` without a precision, and whatever
        else polars has no type for, comes as text.

        :param sql: the query
        :param parameters: its parameters
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: passed on to :func:`pandas.read_sql`; for polars ``schema_overrides``, types by column name
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
        """Run SQL in a read-only transaction and yield the rows of its last statement, a query, as data frames.

        A server-side cursor reads them.

        :param sql: the query
        :param parameters: its parameters
        :param chunksize: rows in a frame
        :param df_type: ``pandas`` or ``polars``
        :param kwargs: passed on to :func:`pandas.read_sql`; for polars ``schema_overrides``, types by column name
        """
        read = _by_frame_type(df_type, pandas=self._get_pandas_df_by_chunks, polars=self._get_polars_df_by_chunks)
        frames: Generator[Any, None, None] = read(sql, parameters, chunksize=chunksize, **kwargs)
        send_sql_hook_lineage(context=self, sql=sql)
        return frames

    def _get_pandas_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        import pandas

        with self._up_to_last(sql, parameters) as (connection, query), _pandas_takes_any_connection():
            return pandas.read_sql(query, cast(Any, connection), **kwargs)

    def _get_polars_df(self, sql: Any, parameters: Any = None, **kwargs: Any) -> Any:
        overrides = _only_overrides(kwargs)
        with self._up_to_last(sql, parameters) as (connection, query):
            cursor = connection.execute(query.encode())
            return _polars_frame(cursor, cursor.fetchall(), overrides)

    def _get_pandas_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        import pandas

        with self._up_to_last(sql, parameters, only_reads=True) as (connection, query):
            with _pandas_takes_any_connection():
                session = cast(Any, _Streaming(connection))
                frames = pandas.read_sql(query, session, chunksize=chunksize, **kwargs)
            yield from frames

    def _get_polars_df_by_chunks(
        self, sql: Any, parameters: Any = None, *, chunksize: int, **kwargs: Any
    ) -> Generator[Any, None, None]:
        overrides = _only_overrides(kwargs)
        with (
            self._up_to_last(sql, parameters, only_reads=True) as (connection, query),
            _Streaming(connection).cursor() as cursor,
        ):
            cursor.execute(query.encode())
            rows = cursor.fetchmany(chunksize)
            while rows:
                yield _polars_frame(cursor, rows, overrides)
                rows = cursor.fetchmany(chunksize)


def _only_overrides(kwargs: Mapping[str, Any]) -> dict[Any, Any]:
    if unknown := sorted(set(kwargs) - {"schema_overrides"}):
        raise LakebaseSettingsError(
            f"'{unknown[0]}' has no effect on a polars frame, whose types come from Postgres",
            remedy="Leave it out, or name types as schema_overrides.",
        )
    return dict(kwargs.get("schema_overrides") or {})


def _polars_frame(cursor: Any, rows: list[Any], overrides: dict[Any, Any]) -> Any:
    """Return rows as a frame whose types are those of the result's columns, whatever the first rows hold."""
    import polars

    if cursor.description is None:
        raise LakebaseSettingsError("The last statement returns no rows", remedy="Give a query, or use run().")
    names = [column.name for column in cursor.description]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise LakebaseSettingsError(
            f"The result has two columns of the name '{repeated}'", remedy="Give each a name of its own, by AS."
        )
    types = [_polars_type(cursor.connection, column) for column in cursor.description]
    series = []
    for position, (name, kind) in enumerate(zip(names, types, strict=True)):
        values = [row[position] for row in rows]
        if kind == polars.String:
            values = [value if value is None or isinstance(value, str) else _text_of(value) for value in values]
        series.append(polars.Series(name, values, kind, strict=True))
    frame = polars.DataFrame(series)
    return frame.cast(overrides) if overrides else frame


def _polars_type(connection: Any, column: Any) -> Any:
    """Return the polars type that holds every value of a column; text where there is none."""
    import polars

    plain = {
        "bool": polars.Boolean,
        "int2": polars.Int16,
        "int4": polars.Int32,
        "int8": polars.Int64,
        "oid": polars.UInt32,
        "float4": polars.Float32,
        "float8": polars.Float64,
        "date": polars.Date,
        "time": polars.Time,
        "timestamp": polars.Datetime("us"),
        "timestamptz": polars.Datetime("us", "UTC"),
        "bytea": polars.Binary,
    }
    info = connection.adapters.types.get(column.type_code)
    if info is None:
        return polars.String
    kind: Any = plain.get(info.name, polars.String)
    if info.name == "numeric" and column.precision is not None and 0 <= column.scale <= column.precision <= 38:
        kind = polars.Decimal(column.precision, column.scale)
    return polars.List(kind) if column.type_code == info.array_oid else kind


def _text_of(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)


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
