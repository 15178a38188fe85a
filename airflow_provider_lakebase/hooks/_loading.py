"""Loading and exporting, and DbApiHook's own names for them, by COPY."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from more_itertools import chunked

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._data_frames import DataFrameHook
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
    """Load rows, files and Arrow data; export queries and tables."""

    def load(
        self,
        source: Any,
        table: str,
        *,
        mode: Literal["append", "replace", "upsert"] = "append",
        columns: Sequence[str] | Mapping[str, str] | None = None,
        key_columns: Sequence[str] | None = None,
        update_columns: Sequence[str] | None = None,
        duplicates: Literal["last", "error"] = "last",
        version_column: str | None = None,
        replace_where: str | None = None,
        casts: Mapping[str, str] | None = None,
        format: Literal["csv", "jsonl", "parquet"] | None = None,
        header: bool = True,
        null: str = "",
        create_table: bool = False,
        load_id: str | None = None,
        ledger_schema: str = LEDGER_SCHEMA,
    ) -> LoadResult:
        """Load rows, files or Arrow data into a table by COPY, in one transaction: all of it or nothing.

        Every value is stored exactly or refused. Text of CSV files is read by Postgres, as by an INSERT of that text,
        and refused where its column would round it. Memory does not grow with the source.

        :param source: iterable of tuples or dicts; path or URL of a file (str, ``pathlib.Path``, ``ObjectStoragePath``)
            or a list of them; file opened for reading bytes; pyarrow ``Table``, ``RecordBatchReader``, or iterable of
            tables or record batches; data frame of pandas, without its index, or polars, or an iterable of them
        :param table: target, as SQL writes it: ``schema.table``, quoted where it must be
        :param mode: ``append``; ``replace``, for all rows or those of ``replace_where``, while readers see the old ones
            until the commit; ``upsert`` on ``key_columns``
        :param columns: the target's columns in the source's order, or a mapping from the source's names to them; what
            a mapping does not name is left out. By default the source's own names, or all columns where it has none
        :param key_columns: columns of a unique index that tell rows apart, by default the primary key's
        :param update_columns: columns that an upsert changes in rows that are there, by default all that are loaded;
            an empty list leaves such rows as they are
        :param duplicates: what an upsert does with rows of the source that have the same key: the ``last`` wins, or
            ``error``
        :param version_column: column that must be larger than the table's for an upsert to change a row
        :param replace_where: SQL condition on the table's columns, unqualified: the rows that ``replace`` replaces,
            which the rows loaded must meet too
        :param casts: SQL type by target column, that the source's text is cast to before it goes into the column
        :param format: ``csv``, ``jsonl`` or ``parquet``; by default by the ending of the file's name, before a ``.gz``
            or ``.zst``
        :param header: whether the first line of a CSV file names its columns
        :param null: the unquoted text that stands for NULL in a CSV file
        :param create_table: make the table from the Parquet or Arrow schema when there is none, with ``key_columns`` as
            its primary key
        :param load_id: identity of the load in the ledger, written in the same transaction: a second load into the
            table with it does nothing
        :param ledger_schema: schema of the ledger, made where the role may
        :raises LakebaseLoadError: for a value the table cannot take, naming row or line and column, never the value;
            when the table or a column is missing, or the role may not write
        :raises LakebaseSettingsError: for arguments that cannot be; nothing was sent
        :raises LakebaseOutcomeUnknownError: when the session was lost between COMMIT and its answer
        :raises LakebaseStorageError: when the storage of a file fails
        :raises FileNotFoundError: when there is no such file
        :returns: rows, bytes, seconds, and whether it was in the ledger already
        """
        from airflow_provider_lakebase.core.bulk.load import LoadOptions, analyze, load
        from airflow_provider_lakebase.core.ledger import prepare_ledger

        request = LoadOptions(
            table=table,
            mode=mode,
            columns=columns,
            key_columns=key_columns,
            update_columns=update_columns,
            duplicates=duplicates,
            version_column=version_column,
            replace_where=replace_where,
            casts=casts or {},
            format=format,
            header=header,
            null=null,
            create_table=create_table,
            load_id=load_id,
            ledger_schema=ledger_schema,
        )
        path = locate(source)
        with self._create_autocommit_connection() as connection:
            if load_id is not None:
                prepare_ledger(connection, ledger_schema, context=connection.context)
            result = load(connection, path, request, context=connection.context, check=self._check_cancelled)
            connection.commit()
            if not result.already_loaded:
                analyze(connection, table, result.rows)
        report_to_hook_lineage(self, result.target)
        return result

    def export(
        self,
        query_or_table: str,
        destination: Any,
        *,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        format: Literal["csv", "jsonl", "parquet"] | None = None,
        header: bool = True,
        null: str = "",
    ) -> ExportResult:
        """Write the rows of a query or table to a file by COPY; it appears under its name when it is whole.

        What the query wrote is committed. Parquet holds a ``numeric`` without a precision as text.

        :param query_or_table: a query, or a table as SQL writes it; of several statements the last one's rows count
        :param destination: path or URL (str, ``pathlib.Path``, ``ObjectStoragePath``); an ending ``.gz`` or ``.zst``
            compresses CSV and JSON Lines
        :param parameters: of the query
        :param format: ``csv``, ``jsonl`` or ``parquet``; by default by the ending of the file's name
        :param header: whether the first line of a CSV file names the columns
        :param null: the unquoted text that stands for NULL in a CSV file
        :raises LakebaseSettingsError: for an unknown format
        :raises LakebaseExportError: for a value that Parquet's type of its column does not hold
        :raises LakebaseStorageError: when the storage of the file fails; what was there is as it was
        :raises psycopg.Error: as Postgres refuses the query
        :returns: rows, bytes and seconds
        """
        from airflow_provider_lakebase.core.bulk.export import export

        with self._up_to_last(query_or_table, parameters) as (connection, query):
            result = export(
                connection,
                query,
                locate(destination),
                format=format,
                header=header,
                null=null,
                check=self._check_cancelled,
            )
        send_sql_hook_lineage(context=self, sql=query_or_table)
        return result

    def iter_arrow(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Iterator[pyarrow.RecordBatch]:
        """Run a query in a read-only transaction and yield its rows as Arrow record batches, in constant memory.

        Of several statements the last one's rows are yielded. Each column has the Arrow type that holds its values
        exactly; those without one, as ``numeric`` without a precision, come as text.

        :param sql: a query, or a table as SQL writes it
        :param parameters: of the query
        :raises LakebaseSettingsError: when pyarrow is missing
        :raises LakebaseExportError: for a value that Arrow's type of the column does not hold
        """
        with self._read_arrow(sql, parameters, only_reads=True) as (_, batches):
            yield from batches

    def get_arrow(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> pyarrow.Table:
        """Run a query, commit what it wrote, and return its rows as an Arrow table, typed as by :meth:`iter_arrow`.

        :param sql: a query, or a table as SQL writes it
        :param parameters: of the query
        """
        import pyarrow

        with self._read_arrow(sql, parameters) as (schema, batches):
            return pyarrow.Table.from_batches(batches, schema)

    @contextmanager
    def _read_arrow(
        self, sql: str, parameters: Any, *, only_reads: bool = False
    ) -> Iterator[tuple[Any, Iterator[Any]]]:
        from airflow_provider_lakebase.core.bulk.copy import Progress
        from airflow_provider_lakebase.core.bulk.export import read_arrow, select

        with self._up_to_last(sql, parameters, only_reads=only_reads) as (connection, query):
            with read_arrow(connection, select(query), Progress("Reading", self._check_cancelled)) as result:
                yield result
        send_sql_hook_lineage(context=self, sql=sql)

    def delete_load_records(self, older_than: timedelta, *, ledger_schema: str = LEDGER_SCHEMA) -> int:
        """Delete old records from the ledger; a load whose record is gone would be done again.

        :param older_than: age of the youngest record to delete: longer than any task is retried or cleared
        :param ledger_schema: schema of the ledger
        :raises LakebaseSettingsError: for an age that is none
        :returns: how many were deleted
        """
        from airflow_provider_lakebase.core.ledger import delete_records

        with self._create_autocommit_connection() as connection:
            deleted = delete_records(connection, ledger_schema, older_than)
            connection.commit()
        return deleted

    def forget_load(self, load_id: str, *, ledger_schema: str = LEDGER_SCHEMA) -> int:
        """Delete the records of one load from the ledger, so that the same load can be done again.

        :param load_id: identity of the load, as :meth:`load` was given it, or as the warning of a task names it
        :param ledger_schema: schema of the ledger
        :returns: how many records were deleted: one for each table that the load filled
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
        """Insert rows, a chunk a transaction: by COPY where that stores what an INSERT would, else by INSERT.

        :param table: target, as SQL writes it
        :param rows: the rows, read once
        :param target_fields: their columns, by default all of the table's in its order
        :param commit_every: rows in one transaction; 0 for all in one
        :param replace: update rows whose key exists
        :param executemany: without effect: rows are always sent in batches
        :param fast_executemany: without effect
        :param autocommit: passed on to psycopg, whose batches are transactions nevertheless
        :param kwargs: beside ``replace``: ``replace_index``, the key's columns, by default the primary key's;
            ``replace_target``, the columns that rows which are there get anew, by default all but the key's; an empty
            list leaves such rows as they are
        :raises LakebaseSettingsError: for rows that are dicts, which :meth:`load` takes; for other arguments
        :raises LakebaseLoadError: for a value that its column would take for another; names row and column
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

        :param table: target, as SQL writes it
        :param tmp_file: path or URL of the file
        :raises FileNotFoundError: when there is no such file
        """
        self.copy_expert(f"COPY {table} FROM STDIN", tmp_file)

    def bulk_dump(self, table: str, tmp_file: str) -> None:
        """Write a table to a file in Postgres's text format; it appears under its name when it is whole.

        :param table: the table, as SQL writes it
        :param tmp_file: path or URL of the file
        """
        self.copy_expert(f"COPY {table} TO STDOUT", tmp_file)

    def copy_expert(self, sql: str, filename: str) -> None:
        """Run a COPY between the server and a file.

        :param sql: ``COPY … FROM STDIN`` reads the file, which must exist; ``COPY … TO STDOUT`` writes it, and it
            appears under its name when it is whole
        :param filename: path or URL of the file
        :raises FileNotFoundError: when there is no such file to read
        :raises LakebaseSettingsError: for another statement
        """
        from airflow_provider_lakebase.core.bulk.export import copy_in, copy_out

        reads = _FROM_STDIN.search(sql) is not None
        if reads == (_TO_STDOUT.search(sql) is not None):
            hint = "Write COPY … FROM STDIN to read the file, or COPY … TO STDOUT to write it."
            raise LakebaseSettingsError("The statement is no COPY between the server and a file", hint=hint)
        with self._create_autocommit_connection() as connection:
            rows = (copy_in if reads else copy_out)(connection, sql, locate(filename))
            connection.commit()
        send_sql_hook_lineage(context=self, sql=sql, row_count=rows)
        self.log.info("Rows copied: %d", rows)

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """Return the value as it is: psycopg adapts it."""
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
