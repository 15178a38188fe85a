"""Read queries into data frames on psycopg: with parameters, without warnings, and in chunks from the server."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._frames import PandasFrames, PolarsFrames
from airflow_provider_lakebase.hooks._queries import run_up_to_last

if TYPE_CHECKING:
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

_FRAMES: dict[str, type[PandasFrames] | type[PolarsFrames]] = {"pandas": PandasFrames, "polars": PolarsFrames}


def read_frame(hook: LakebaseHook, df_type: str, sql: Any, parameters: Any, kwargs: dict[str, Any]) -> Any:
    """Run SQL, commit, and return the rows of the last statement as one data frame.

    :param hook: opens the session and runs the statements
    :param df_type: ``pandas`` or ``polars``
    :param sql: a text of one or more statements, or a list of texts
    :param parameters: the parameters of each text
    :param kwargs: arguments of the frame
    :raises ValueError: if there is no statement, or ``df_type`` is unknown
    :raises LakebaseSettingsError: if the last statement returns no rows
    """
    frames = _find_frames(df_type)(kwargs)
    statements = [sql] if isinstance(sql, str) else list(sql)
    if not any(statement.strip() for statement in statements):
        raise ValueError("List of SQL statements is empty")
    with hook._create_autocommit_connection() as connection, connection.cursor() as cursor:
        frames.prepare(cursor)
        for statement in statements:
            hook._run_command(cursor, statement, parameters)
        frame = frames.build(_described(cursor), cursor.fetchall())
        connection.commit()
    return frame


def read_frames(
    hook: LakebaseHook, df_type: str, sql: Any, parameters: Any, chunksize: int, kwargs: dict[str, Any]
) -> Generator[Any, None, None]:
    """Return a generator of data frames of up to ``chunksize`` rows, which runs the SQL when it starts.

    :param hook: opens the session
    :param df_type: ``pandas`` or ``polars``
    :param sql: a text of one or more statements, or a list of texts
    :param parameters: the parameters of each text
    :param chunksize: rows per frame
    :param kwargs: keyword arguments for building the data frames
    :raises ValueError: if ``df_type`` is unknown
    """
    return _read_frames(hook, _find_frames(df_type)(kwargs), sql, parameters, chunksize)


def _read_frames(
    hook: LakebaseHook, frames: PandasFrames | PolarsFrames, sql: Any, parameters: Any, chunksize: int
) -> Generator[Any, None, None]:
    if chunksize < 1:
        raise LakebaseSettingsError(f"chunksize is {chunksize}", hint="Give the rows per frame, 1 or more.")
    with run_up_to_last(hook, sql, parameters, read_only=True) as (connection, query):
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
        raise LakebaseSettingsError("The last statement returns no rows, and was rolled back", hint=hint)
    return list(cursor.description)


def _find_frames(df_type: str) -> type[PandasFrames] | type[PolarsFrames]:
    if df_type not in _FRAMES:
        raise ValueError(f"df_type is {df_type!r}; it is 'pandas' or 'polars'")
    return _FRAMES[df_type]
