"""Parquet files; needs the extra ``[arrow]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import sql

from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.copy import BadValue, Part
from airflow_provider_lakebase.core.bulk.copy_out import NextFile
from airflow_provider_lakebase.core.bulk.formats.arrow import ROWS_PER_BATCH, arrow_part
from airflow_provider_lakebase.core.bulk.options import ExportOptions
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.bulk.query_arrow import read_arrow
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError

_BUFFER_BYTES = 1 << 20
_NANOSECONDS = "it has nanoseconds, which Postgres does not keep"


def open_part(file: IO[bytes], label: str, mapper: ColumnMapper) -> Part:
    """Return the part that sends the rows of a file.

    :param file: open for reading bytes, seekable
    :param label: its name in messages
    :param mapper: maps names to the table's columns
    :raises LakebaseLoadError: if it is not a readable Parquet file
    """
    schema, batches = _read(file, label, mapper.context)
    return arrow_part(schema, batches, label, mapper)


def read_schema(file: IO[bytes], label: str, context: ErrorContext) -> pa.Schema:
    """Return the schema of a file.

    :param file: open for reading bytes, seekable
    :param label: its name in messages
    :param context: for errors
    :raises LakebaseLoadError: if it is not a readable Parquet file
    """
    return _read(file, label, context)[0]


def write_query(
    connection: psycopg.Connection[Any],
    query: sql.Composable,
    next_file: NextFile,
    options: ExportOptions,
    progress: Progress,
) -> int:
    """Write the rows of a query.

    :param connection: an open session
    :param query: the query
    :param next_file: opens each file
    :param options: ``max_rows_per_file`` has an effect
    :param progress: counts rows and bytes
    :returns: rows written
    :raises LakebaseExportError: for a value that the Arrow type of its column does not hold
    """
    rows = 0
    with read_arrow(connection, query, progress) as (schema, batches):
        for batches_of_file in split_batches(batches, options.max_rows_per_file):
            with next_file() as file, pq.ParquetWriter(file, schema) as writer:
                for batch in batches_of_file:
                    writer.write_batch(batch)
                    rows += batch.num_rows
    return rows


def split_batches(batches: Iterator[pa.RecordBatch], size: int | None) -> Iterator[Iterator[pa.RecordBatch]]:
    """Yield the batches of each file: of at least one, which may have none.

    :param batches: read once; one that goes over the end of a file is cut
    :param size: most rows of a file; None for one file
    """
    if size is None:
        yield batches
        return
    rest = next(batches, None)

    def take(left: int) -> Iterator[pa.RecordBatch]:
        nonlocal rest
        while rest is not None and left:
            part = rest.slice(0, left)
            left -= part.num_rows
            rest = rest.slice(part.num_rows) if part.num_rows < rest.num_rows else next(batches, None)
            yield part

    yield take(size)
    while rest is not None:
        yield take(size)


def _read(file: Any, label: str, context: ErrorContext) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    try:
        return parquet_batches(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LakebaseLoadError(
            f"{label} is not a readable Parquet file ({type(error).__name__})",
            context=context,
            hint="Write it again; if it has another format, set 'format'; if it is encrypted, decrypt it first.",
            source=label,
        ) from None


def parquet_batches(file: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema and the record batches of a file, without holding a row group in memory as a whole.

    Page checksums are verified if the file has them. INT96 timestamps are read as microseconds, which hold every date
    that Postgres holds.

    :param file: open for reading bytes, seekable
    """
    parquet = _open_parquet(file, "us")
    int96 = [
        parquet.schema.column(n).path
        for n in range(len(parquet.schema.names))
        if parquet.schema.column(n).physical_type == "INT96"
    ]
    batches = parquet.iter_batches(ROWS_PER_BATCH)
    if not int96:
        return parquet.schema_arrow, batches
    exact = _open_parquet(file, "ns").iter_batches(ROWS_PER_BATCH, columns=int96)
    return parquet.schema_arrow, _without_nanoseconds(batches, exact)


def _open_parquet(file: Any, int96_unit: str) -> Any:
    return pq.ParquetFile(
        file,
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
        coerce_int96_timestamp_unit=int96_unit,
        page_checksum_verification=True,
    )


def _without_nanoseconds(
    batches: Iterator[pa.RecordBatch], exact: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Reject INT96 timestamps that would lose digits as microseconds."""
    before = 0
    for batch, nanoseconds in zip(batches, exact, strict=True):
        for name in nanoseconds.schema.names:
            column = nanoseconds.column(name)
            if not pa.types.is_timestamp(column.type):  # nested, and pyarrow reads it in its own unit
                if not batch.column(name).cast(column.type, safe=False).equals(column):
                    raise BadValue(_NANOSECONDS, None, name)
                continue
            # Dates far away overflow as nanoseconds, the same on both sides.
            whole = pc.multiply(batch.column(name).cast(pa.int64()), 1000)
            position = pc.index(pc.not_equal(column.cast(pa.int64()), whole), True).as_py()
            if position >= 0:
                raise BadValue(_NANOSECONDS, before + position + 1, name)
        before += batch.num_rows
        yield batch
