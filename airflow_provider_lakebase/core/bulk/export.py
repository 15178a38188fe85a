"""Export the result of a query to a file, or to numbered files, in constant memory: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES
from airflow_provider_lakebase.core.bulk.copy_out import EXACT_SETTINGS, NextFile, names_table, select, write_copy
from airflow_provider_lakebase.core.bulk.export_folder import open_folder
from airflow_provider_lakebase.core.bulk.files import describe_file, find_format, open_to_read, open_to_write
from airflow_provider_lakebase.core.bulk.formats import import_format
from airflow_provider_lakebase.core.bulk.options import ExportOptions
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseExportError


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    :param rows: rows written
    :param bytes: bytes that COPY sent
    :param seconds: duration
    :param files: path or URL of each file written, without secrets
    """

    rows: int
    bytes: int
    seconds: float
    files: tuple[str, ...] = ()


def export(
    connection: psycopg.Connection[Any],
    query_or_table: str,
    destination: Any,
    options: ExportOptions | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> ExportResult:
    """Write the rows of a query or table to a file, which appears under its name once it is complete.

    With ``max_rows_per_file`` it is a folder of files, which appear there once all of them are complete. The
    transaction is committed before anything appears.

    :param connection: an open session
    :param query_or_table: a query, or a table name as in SQL
    :param destination: path (str, ``pathlib.Path`` or ``ObjectStoragePath``); a final ``.gz`` or ``.zst`` compresses
    :param options: how; by default :class:`ExportOptions`' own defaults
    :param check: called on every block of data; raises to stop the export
    :raises LakebaseSettingsError: if the format is unknown, or the folder has other files
    :raises LakebaseExportError: for a value that the format does not hold, or a table that does not exist
    :raises LakebaseStorageError: if the storage fails
    :raises psycopg.Error: if Postgres rejects the query
    """
    options = options or ExportOptions()
    format = find_format(destination, options.format)
    label = describe_file(destination)
    progress = Progress(f"Writing {label}", check)
    opened = open_folder(destination, format) if options.max_rows_per_file else _open_file(destination)
    try:
        with opened as (next_file, files):
            connection.execute(EXACT_SETTINGS)
            query = select(query_or_table)
            progress.rows = import_format(format).write_query(connection, query, next_file, options, progress)
            connection.commit()  # first: no file must appear whose rows were rolled back
    except LakebaseExportError as error:
        error.destination = label
        raise
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        if not names_table(query_or_table):
            raise
        what, hint = f"There is no table {query_or_table}", "Correct its name, written as in SQL: schema.table."
        raise LakebaseExportError(
            what, context=session_context(connection), hint=hint, destination=label, sqlstate=error.sqlstate
        ) from error
    progress.log("done")
    return ExportResult(progress.rows, progress.bytes, progress.seconds, tuple(files))


@contextmanager
def _open_file(destination: Any) -> Iterator[tuple[NextFile, list[str]]]:
    with open_to_write(destination) as file:
        yield lambda: nullcontext(file), [describe_file(destination)]


def copy_in(connection: psycopg.Connection[Any], statement: str, source: Any) -> int:
    """Run a ``COPY … FROM STDIN`` that reads a file, and return the rows written.

    :param connection: an open session
    :param statement: the statement
    :param source: path of the file
    :raises FileNotFoundError: if there is no such file
    """
    with open_to_read(source) as file, connection.cursor() as cursor:
        with cursor.copy(sql.SQL(statement)) as copy:
            while block := file.read(BLOCK_BYTES):
                copy.write(block)
        return cursor.rowcount


def copy_out(connection: psycopg.Connection[Any], statement: str, destination: Any) -> int:
    """Run a ``COPY … TO STDOUT`` that writes a file, and return the rows read.

    The file appears under its name once it is complete.

    :param connection: an open session
    :param statement: the statement
    :param destination: path of the file
    """
    with open_to_write(destination) as file:
        progress = Progress(f"Writing {describe_file(destination)}")
        return write_copy(connection, sql.SQL(statement), lambda: nullcontext(file), progress)
