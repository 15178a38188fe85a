"""Load and export by COPY, also through the methods of ``DbApiHook``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from more_itertools import chunked

from airflow_provider_lakebase.core.bulk.options import (  # noqa: TID253 - it is light
    ExportKeywords,
    ExportOptions,
    LoadKeywords,
    LoadOptions,
)
from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._data_frames import DataFrameHook
from airflow_provider_lakebase.hooks._options import takes_options
from airflow_provider_lakebase.hooks._storage import locate
from airflow_provider_lakebase.lineage.reports import report_to_hook_lineage

if TYPE_CHECKING:
    from datetime import timedelta

    import pyarrow

    from airflow_provider_lakebase.core.bulk.export import ExportResult
    from airflow_provider_lakebase.core.bulk.load import LoadResult

_BATCH_ROWS = 1000
_FROM_STDIN = re.compile(r"\bFROM\s+STDIN\b", re.IGNORECASE)
_TO_STDOUT = re.compile(r"\bTO\s+STDOUT\b", re.IGNORECASE)


class LoadingHook(DataFrameHook):
    """Loads rows, files and Arrow data; exports queries and tables."""

    @takes_options(LoadOptions)
    def load(self, source: Any, table: str, **options: Unpack[LoadKeywords]) -> LoadResult:
        """Load rows, files or Arrow data into a table by COPY, in one transaction: all of it, or nothing.

        Every value is stored exactly, or the load fails. Text of CSV files is parsed by Postgres, as an INSERT of that
        text would be, but rejected if its column would round it. Memory does not grow with the source.

        :param source: iterable of tuples or dicts; path or URL of a file (str, ``pathlib.Path``, ``ObjectStoragePath``)
            or a list of them; file opened for reading bytes; pyarrow ``Table``, ``RecordBatchReader``, or iterable of
            tables or record batches; data frame of pandas, without its index, or polars, or an iterable of them
        :param table: target, as in SQL: ``schema.table``, quoted where necessary
        :param options: fields of ``LoadOptions``
        :raises LakebaseLoadError: for a value that the table cannot store exactly, naming row or line and column, never
            the value; if the table or a column is missing, or the role may not write to it
        :raises LakebaseSettingsError: for invalid options; nothing was sent
        :raises LakebaseOutcomeUnknownError: if the session was lost between COMMIT and its answer
        :raises LakebaseStorageError: if the storage of a file fails
        :raises FileNotFoundError: if there is no such file
        :returns: rows, bytes, seconds, and whether the ledger already had the load
        """
        from airflow_provider_lakebase.core.bulk.load import run_load

        load_options = LoadOptions(**options)
        path = locate(source)
        with self._create_autocommit_connection() as connection:
            result = run_load(connection, path, table, load_options, check=self._check_cancelled)
        report_to_hook_lineage(self, result.target)
        return result

    @takes_options(ExportOptions)
    def export(
        self,
        query_or_table: str,
        destination: Any,
        *,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        **options: Unpack[ExportKeywords],
    ) -> ExportResult:
        """Write the rows of a query or table to a file by COPY. The file appears under its name once it is complete.

        What the query writes is committed. In Parquet, a ``numeric`` without a precision is text.

        :param query_or_table: a query, or a table name as in SQL; of several statements, the last one returns the rows
        :param destination: path or URL (str, ``pathlib.Path``, ``ObjectStoragePath``); a final ``.gz`` or ``.zst``
            compresses CSV and JSON Lines
        :param parameters: of the query
        :param options: fields of ``ExportOptions``
        :raises LakebaseSettingsError: if the format is unknown
        :raises LakebaseExportError: for a value that the Parquet type of its column does not hold
        :raises LakebaseStorageError: if the storage of the file fails; an existing file is unchanged
        :raises psycopg.Error: if Postgres rejects the query
        :returns: rows, bytes and seconds
        """
        from airflow_provider_lakebase.core.bulk.export import export

        export_options = ExportOptions(**options)
        path = locate(destination)
        with self._up_to_last(query_or_table, parameters) as (connection, query):
            result = export(connection, query, path, export_options, check=self._check_cancelled)
        send_sql_hook_lineage(context=self, sql=query_or_table)
        return result

    def iter_arrow(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Iterator[pyarrow.RecordBatch]:
        """Run a query in a read-only transaction and yield its rows as Arrow record batches, in constant memory.

        Of several statements, the last one returns the rows. Each column has the Arrow type that holds its values
        exactly; a column without one, such as ``numeric`` without a precision, is text.

        :param sql: a query, or a table name as in SQL
        :param parameters: of the query
        :raises LakebaseSettingsError: if pyarrow is missing
        :raises LakebaseExportError: for a value that the Arrow type of its column does not hold
        """
        with self._read_arrow(sql, parameters, only_reads=True) as (_, batches):
            yield from batches

    def get_arrow(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> pyarrow.Table:
        """Run a query, commit, and return its rows as an Arrow table with the types of :meth:`iter_arrow`.

        :param sql: a query, or a table name as in SQL
        :param parameters: of the query
        """
        import pyarrow

        with self._read_arrow(sql, parameters) as (schema, batches):
            return pyarrow.Table.from_batches(batches, schema)

    @contextmanager
    def _read_arrow(
        self, sql: str, parameters: Any, *, only_reads: bool = False
    ) -> Iterator[tuple[Any, Iterator[Any]]]:
        from airflow_provider_lakebase.core.bulk.copy_out import select
        from airflow_provider_lakebase.core.bulk.progress import Progress
        from airflow_provider_lakebase.core.bulk.query_arrow import read_arrow

        with self._up_to_last(sql, parameters, only_reads=only_reads) as (connection, query):
            with read_arrow(connection, select(query), Progress("Reading", self._check_cancelled)) as result:
                yield result
        send_sql_hook_lineage(context=self, sql=sql)

    def delete_load_records(self, older_than: timedelta, *, ledger_schema: str = LEDGER_SCHEMA) -> int:
        """Delete old records from the ledger. A load without its record can be repeated.

        :param older_than: minimum age of a record to delete; choose one after which no task is retried or cleared
        :param ledger_schema: schema of the ledger
        :raises LakebaseSettingsError: if it is not a ``timedelta``, or negative
        :returns: how many were deleted
        """
        from airflow_provider_lakebase.core.ledger import delete_records

        with self._create_autocommit_connection() as connection:
            deleted = delete_records(connection, ledger_schema, older_than)
            connection.commit()
        return deleted

    def forget_load(self, load_id: str, *, ledger_schema: str = LEDGER_SCHEMA) -> int:
        """Delete the records of one load from the ledger, so that it can be repeated.

        :param load_id: identity of the load, as given to :meth:`load` or as the warning of a task names it
        :param ledger_schema: schema of the ledger
        :returns: how many records were deleted: one per table that the load filled
        """
        from airflow_provider_lakebase.core.ledger import delete_record

        with self._create_autocommit_connection() as connection:
            deleted = delete_record(connection, ledger_schema, load_id)
            connection.commit()
        return deleted

    # ── DbApiHook's contract ──

    def insert_rows(
        self,
        table: str,
        rows: Iterable[Iterable[Any]],
        target_fields: list[str] | None = None,
        commit_every: int = 1000,
        replace: bool = False,
        *,
        executemany: bool = False,
        fast_executemany: bool = False,
        autocommit: bool = False,
        **kwargs: Any,
    ) -> None:
        """Insert rows, one chunk per transaction: by COPY if that stores what INSERT would, else by INSERT.

        :param table: target, as in SQL
        :param rows: read once
        :param target_fields: their columns; by default all columns, in the order of the table
        :param commit_every: rows per transaction; 0 for a single transaction
        :param replace: update rows whose key exists
        :param executemany: without effect, since rows are always sent in batches
        :param fast_executemany: without effect
        :param autocommit: passed to psycopg; batches are transactions in any case
        :param kwargs: with ``replace``: ``replace_index``, the columns of the key, by default the primary key; and
            ``replace_target``, the columns to update in existing rows, by default all except the key. An empty list
            leaves existing rows unchanged
        :raises LakebaseSettingsError: for rows that are dicts, which :meth:`load` accepts; for unknown arguments
        :raises LakebaseLoadError: for a value that its column would misread; names row and column
        """
        from airflow_provider_lakebase.core.bulk.insert import CopyInsert

        if unknown := sorted(set(kwargs) - {"replace_index", "replace_target"}):
            hint = "Its keywords are replace_index and replace_target."
            raise LakebaseSettingsError(f"insert_rows has no argument '{unknown[0]}'", hint=hint)
        given = sorted(name for name, value in kwargs.items() if value is not None)
        if given and not replace:
            hint = "Give replace=True as well, or leave it out."
            raise LakebaseSettingsError(f"{given[0]} is given, but replace is not", hint=hint)
        if not target_fields and self._resolve_target_fields:
            target_fields = self.dialect.get_target_fields(table)
        if replace:
            target_fields = target_fields or self.dialect.get_target_fields(table)
            kwargs["replace_index"] = kwargs.get("replace_index") or self.dialect.get_primary_keys(table)
        fields, keys = _unquoted(target_fields), _unquoted(kwargs.get("replace_index")) if replace else None
        written, statement = 0, None
        with self._create_autocommit_connection(autocommit) as connection, closing(connection.cursor()) as cursor:
            insertion = CopyInsert(connection, table, fields, keys, _unquoted(kwargs.get("replace_target")))
            for chunk in chunked(map(_values, rows), commit_every or _BATCH_ROWS):
                statement = statement or self._generate_insert_sql(table, chunk[0], target_fields, replace, **kwargs)
                if not insertion.copy(chunk):
                    cursor.executemany(statement.encode(), insertion.prepared(chunk))
                written += len(chunk)
                insertion.before = written
                if commit_every:
                    connection.commit()
                    self.log.info("Loaded %s rows into %s so far", written, table)
            connection.commit()
        if statement:
            send_sql_hook_lineage(context=self, sql=statement, row_count=written)
        self.log.info("Done loading. Loaded a total of %s rows into %s", written, table)

    def bulk_load(self, table: str, tmp_file: str) -> None:
        """Load a file in Postgres's text format: values separated by tabs, ``\\N`` for NULL.

        :param table: target, as in SQL
        :param tmp_file: path or URL of the file
        :raises FileNotFoundError: if there is no such file
        """
        self.copy_expert(f"COPY {table} FROM STDIN", tmp_file)

    def bulk_dump(self, table: str, tmp_file: str) -> None:
        """Write a table to a file in Postgres's text format. The file appears under its name once it is complete.

        :param table: the table, as in SQL
        :param tmp_file: path or URL of the file
        """
        self.copy_expert(f"COPY {table} TO STDOUT", tmp_file)

    def copy_expert(self, sql: str, filename: str) -> None:
        """Run a COPY between the server and a file.

        :param sql: ``COPY … FROM STDIN``, which reads the file; or ``COPY … TO STDOUT``, which writes it: it appears
            under its name once it is complete
        :param filename: path or URL of the file
        :raises FileNotFoundError: if there is no such file to read
        :raises LakebaseSettingsError: for another statement
        """
        from airflow_provider_lakebase.core.bulk.export import copy_in, copy_out

        reads = _FROM_STDIN.search(sql) is not None
        if reads == (_TO_STDOUT.search(sql) is not None):
            hint = "Write COPY … FROM STDIN to read the file, or COPY … TO STDOUT to write it."
            raise LakebaseSettingsError("The statement is not a COPY between the server and a file", hint=hint)
        with self._create_autocommit_connection() as connection:
            rows = (copy_in if reads else copy_out)(connection, sql, locate(filename))
            connection.commit()
        send_sql_hook_lineage(context=self, sql=sql, row_count=rows)
        self.log.info("Rows copied: %d", rows)

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """Return the value unchanged; psycopg adapts it."""
        return cell


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
