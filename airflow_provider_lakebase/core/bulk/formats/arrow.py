"""Arrow batches and Parquet files into COPY; extra ``[arrow]``.

Batches go through pgpq into binary COPY. Over two million rows it took 0.9 of the time of psql's ``\\copy`` of the same
rows as CSV, and every type it writes came back as an INSERT stores it. ADBC took half as long again, and would need a
session of its own, in which neither the ledger nor the upsert could take part.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pgpq
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pgpq.encoders import StringEncoderBuilder
from pgpq.schema import Jsonb
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Source, SourceFailed
from airflow_provider_lakebase.core.bulk.formats.rows import Rows

ROWS_PER_BATCH = 10_000
"""Rows encoded together."""
_BUFFER_BYTES = 1 << 20
_CSV_BLOCK_BYTES = 1 << 22
_MICROSECONDS = pa.timestamp("us")
_NO_PYTHON = (ValueError, OverflowError, KeyError)
_UTC = ("UTC", "Etc/UTC", "GMT", "Etc/GMT")

_ARROW_TYPES: dict[str, pa.DataType] = {
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "citext": pa.string(),
    "any text": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": _MICROSECONDS,
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "bytea": pa.binary(),
    "uuid": pa.binary(16),
}
"""Arrow type that pgpq writes as the Postgres type of that name reads it."""


_READ_TYPES: dict[str, pa.DataType] = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": _MICROSECONDS,
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
}
_LIST_ELEMENTS = (pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.string())


class _Unfit(Exception):
    """Say that a batch must go row by row."""


class ArrowBatches(Source):
    """Send record batches, binary as long as each value is exactly one of its column's; the rest row by row.

    :param batches: the batches, read once
    :param positions: of the batches' columns that are sent
    :param columns: what they are sent to
    :param time_zone: of the session, in which timestamps without one are read
    :param label: what the source is called in messages
    """

    unit = "row"

    def __init__(
        self,
        batches: Iterable[pa.RecordBatch],
        positions: Sequence[int],
        columns: Sequence[Column],
        *,
        time_zone: str,
        label: str,
    ) -> None:
        self.batches: Iterator[pa.RecordBatch] = iter(batches)
        self.positions = positions
        self.columns = columns
        self.label = label
        self.time_zone = time_zone
        self.sent = 0

    def copy_to(self, destination: CopyTarget) -> None:
        """Send all batches.

        :param destination: where to
        :raises BadValue: for a value that its column cannot hold exactly
        :raises psycopg.Error: as Postgres refuses a row
        """
        left = self._copy_binary(destination)
        if left is not None:
            rows = (row for batch in chain([left], self.batches) for row in self._rows(batch))
            Rows(rows, self.columns, label=self.label, before=self.sent).copy_to(destination)

    def _copy_binary(self, destination: CopyTarget) -> pa.RecordBatch | None:
        """Send batches as long as they can go as binary; return the first that cannot."""
        parts = self._parts()
        part = next(parts, None)
        ready = self._ready(part)
        if ready is None:
            self.batches = parts
            return part
        encoder, schema = self._encoder(ready.schema), ready.schema
        with destination.copy(sql.SQL("FORMAT binary")) as copy:
            copy.write(encoder.write_header())
            while ready is not None and ready.schema == schema:
                copy.write(encoder.write_batch(ready))
                self.sent += ready.num_rows
                destination.progress.add(rows=ready.num_rows)
                part = next(parts, None)
                ready = self._ready(part)
            copy.write(encoder.finish())
        self.batches = parts
        return part

    def _parts(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches():
            for start in range(0, batch.num_rows, ROWS_PER_BATCH):
                yield batch.slice(start, ROWS_PER_BATCH)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.batches
        except (pa.ArrowException, OSError) as error:
            raise SourceFailed from error

    def _ready(self, batch: pa.RecordBatch | None) -> pa.RecordBatch | None:
        """Return a batch in the types that are written; None when it must go row by row."""
        if batch is None:
            return None
        pairs = zip(self.positions, self.columns, strict=True)
        try:
            arrays = [_to_column(batch.column(position), column, self.time_zone) for position, column in pairs]
        except (_Unfit, pa.ArrowException):
            return None
        return pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])

    def _encoder(self, schema: pa.Schema) -> Any:
        encoders = {
            field.name: StringEncoderBuilder.new_with_output(field, Jsonb())
            if column.kind == "jsonb"
            else pgpq.ArrowToPostgresBinaryEncoder.infer_encoder(field)
            for field, column in zip(schema, self.columns, strict=True)
        }
        return pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(schema, encoders)

    def _rows(self, batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
        pairs = zip(self.positions, self.columns, strict=True)
        return zip(*(self._to_python(batch.column(position), column) for position, column in pairs), strict=True)

    def _to_python(self, values: pa.Array, column: Column) -> list[Any]:
        if values.type in (pa.time64("ns"), pa.duration("ns")):  # Python's own forms would lose the nanoseconds
            values = _to_microseconds(values, column, self.sent)
        try:
            found = list(values.to_pylist(maps_as_pydicts="strict"))
        except _NO_PYTHON:
            number = next(number for number, value in enumerate(values, 1) if _has_no_python(value))
            raise BadValue(f"a {values.type} has no form in Python", self.sent + number, column.name) from None
        is_uuid = column.kind == "uuid" and pa.types.is_fixed_size_binary(values.type)
        return [value and uuid.UUID(bytes=value) for value in found] if is_uuid else found


def _to_column(values: pa.Array, column: Column, time_zone: str) -> pa.Array:
    """Return the values in the Arrow type whose binary form the column reads.

    :raises _Unfit: for a type that has no such form, or not a certain one
    :raises pyarrow.ArrowInvalid: for a value that the cast would change
    """
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):  # NULL is written alike for every type
        return values.cast(pa.string())
    if column.element is not None:
        return _to_array_column(values, column)
    if column.kind == "numeric":
        return _to_numeric(values, column)
    wanted = _ARROW_TYPES.get(column.kind)
    if wanted is None or column.rounds or not _is_certain(values.type, wanted):
        raise _Unfit
    return _cast(values, wanted, column, time_zone)


def _cast(values: pa.Array, wanted: pa.DataType, column: Column, time_zone: str) -> pa.Array:
    if pa.types.is_timestamp(wanted) and wanted.tz and values.type.tz is None:
        if time_zone not in _UTC:  # Arrow's time zones know no rules beyond 2037
            raise _Unfit
        values = pc.assume_timezone(values, "UTC")
    cast = values.cast(wanted)
    if pa.types.is_float32(wanted):
        _check_float4(values, cast)
    if column.kind in ("varchar", "bpchar") and column.length is not None:
        longest = pc.max(pc.utf8_length(cast)).as_py()
        if longest is not None and longest > column.length:
            raise _Unfit
    return cast


def _to_microseconds(values: pa.Array, column: Column, sent: int) -> pa.Array:
    wanted = pa.time64("us") if pa.types.is_time(values.type) else pa.duration("us")
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        lost = [value.value is not None and value.value % 1000 for value in values]
        number = next(number for number, nanoseconds in enumerate(lost, 1) if nanoseconds)
        raise BadValue("it has nanoseconds, of which Postgres keeps none", sent + number, column.name) from None


def _has_no_python(value: pa.Scalar) -> bool:
    try:
        value.as_py(maps_as_pydicts="strict")
    except _NO_PYTHON:
        return True
    return False


def _is_certain(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a checked cast from one type to the other leaves each value what it is."""
    types = pa.types
    if given == wanted:
        return True
    if types.is_integer(wanted):
        return bool(types.is_integer(given))
    if types.is_floating(wanted):
        return bool(types.is_integer(given) or types.is_floating(given))
    if types.is_string(wanted):
        return bool(types.is_large_string(given) or types.is_string_view(given))
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(given) and (wanted.tz is not None or given.tz is None))
    if types.is_binary(wanted):
        return bool(types.is_large_binary(given) or types.is_fixed_size_binary(given))
    families = (types.is_date, types.is_time, types.is_duration)
    return any(family(given) and family(wanted) for family in families)


def _check_float4(values: pa.Array, cast: pa.Array) -> None:
    """Keep out what a float of 4 bytes turns into zero or infinity."""
    zero_or_infinite = pc.or_(pc.equal(cast, 0), pc.is_inf(cast))
    if pc.any(pc.and_(zero_or_infinite, pc.not_equal(values.cast(pa.float64()), cast.cast(pa.float64())))).as_py():
        raise _Unfit


def _to_numeric(values: pa.Array, column: Column) -> pa.Array:
    if pa.types.is_integer(values.type):
        values = values.cast(pa.decimal128(20, 0))
    if not pa.types.is_decimal128(values.type):
        raise _Unfit
    if column.modifier >= 0:
        scale = min(column.scale, values.type.scale)
        if scale < 0:  # a cast to it is not checked
            raise _Unfit
        values = values.cast(pa.decimal128(38, scale))
    return values


def _to_array_column(values: pa.Array, column: Column) -> pa.Array:
    # The form of an array holds the type of its elements, and pgpq writes text[] for all that is text.
    element = _ARROW_TYPES.get(column.element or "")
    certain = ("int2", "int4", "int8", "float8", "bool", "text")
    if column.element not in certain or not pa.types.is_list(values.type) or values.type.value_type != element:
        raise _Unfit
    return values


def parquet_batches(file: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema of a Parquet file and its rows, without holding a row group as a whole.

    The checksums of pages are verified where the file has them. INT96 timestamps are read as microseconds, which hold
    every date that Postgres does.

    :param file: a file opened for reading bytes that can seek
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
    """Refuse INT96 timestamps that reading them as microseconds would cut."""
    before = 0
    for batch, nanoseconds in zip(batches, exact, strict=True):
        for name in nanoseconds.schema.names:
            column = nanoseconds.column(name)
            if not pa.types.is_timestamp(column.type):  # nested: pyarrow reads it as its own type
                if not batch.column(name).cast(column.type, safe=False).equals(column):
                    raise BadValue("it has nanoseconds, of which Postgres keeps none", None, name)
                continue
            # Far dates overflow as nanoseconds, on both sides alike.
            whole = pc.multiply(batch.column(name).cast(pa.int64()), 1000)
            position = pc.index(pc.not_equal(column.cast(pa.int64()), whole), True).as_py()
            if position >= 0:
                raise BadValue("it has nanoseconds, of which Postgres keeps none", before + position + 1, name)
        before += batch.num_rows
        yield batch


def read_csv(file: Any, fields: Sequence[Field]) -> Iterator[pa.RecordBatch]:
    """Give the rows that COPY wrote as CSV, in the types of the query's columns.

    :param file: without a header, to be read as bytes
    :param fields: the columns
    :raises LakebaseExportError: for a value that Arrow's type does not hold; names the column
    """
    positions = [str(number) for number in range(len(fields))]
    types = [field.read_as for field in fields]
    reader = pyarrow.csv.open_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(column_names=positions, block_size=_CSV_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(zip(positions, types, strict=True)),
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    for batch in reader:
        columns = [field.finish(values) for field, values in zip(fields, batch.columns, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=arrow_schema(fields))


def arrow_schema(fields: Sequence[Field]) -> pa.Schema:
    """Return the schema of a query's result.

    :param fields: its columns
    """
    return pa.schema([pa.field(field.name, field.arrow_type) for field in fields])


@dataclass(frozen=True)
class Field:
    """Hold how a column of a query is read into Arrow.

    :param name: its name
    :param kind: its Postgres type, as ``regtype`` writes it
    :param precision: of a ``numeric``; None for none
    :param scale: of a ``numeric``; None for none
    """

    name: str
    kind: str
    precision: int | None
    scale: int | None

    @property
    def arrow_type(self) -> pa.DataType:
        """Return the type that holds the column's values exactly; text for what has no such type."""
        if self.kind == "numeric" and self.precision is not None and self.scale is not None:
            if self.precision <= 38 and 0 <= self.scale <= self.precision:
                return pa.decimal128(self.precision, self.scale)
        if self.kind == "vector":
            return pa.list_(pa.float32())
        if self.kind.endswith("[]"):
            element = _READ_TYPES.get(self.kind.removesuffix("[]"))
            return pa.list_(element) if element in _LIST_ELEMENTS else pa.string()
        return _READ_TYPES.get(self.kind, pa.string())

    @property
    def read_as(self) -> pa.DataType:
        """Return the type that CSV is read as."""
        return pa.string() if self.arrow_type == pa.binary() or pa.types.is_list(self.arrow_type) else self.arrow_type

    @property
    def expression(self) -> str:
        """Return SQL that writes the column, which stands for ``{}``, as it is read."""
        if self.arrow_type == pa.binary():
            return "encode({}, 'hex')"
        return "to_json({})" if pa.types.is_list(self.arrow_type) and self.kind != "vector" else "{}"

    def finish(self, values: pa.Array) -> pa.Array:
        """Return what was read in the column's own type.

        :param values: as CSV was read
        """
        if values.type == self.arrow_type:
            return values
        parse: Callable[[str], Any] = bytes.fromhex
        if pa.types.is_list(self.arrow_type):
            parse = _parse_floats if pa.types.is_floating(self.arrow_type.value_type) else json.loads
        return pa.array([None if value is None else parse(value) for value in values.to_pylist()], self.arrow_type)


def _parse_floats(text: str) -> list[Any]:
    # JSON has no NaN and no infinity; Postgres writes them as strings.
    return [float(value) if isinstance(value, str) else value for value in json.loads(text)]


def postgres_type(kind: pa.DataType) -> str | None:
    """Return the Postgres type for an Arrow type; None when there is none.

    :param kind: it may be nested: lists become arrays, structs, maps and lists of lists ``jsonb``
    """
    types = pa.types
    if isinstance(kind, pa.UuidType):
        return "uuid"
    if isinstance(kind, pa.BaseExtensionType):
        return postgres_type(kind.storage_type)
    if types.is_dictionary(kind):
        return postgres_type(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        element = postgres_type(kind.value_type)
        return f"{element}[]" if element and not types.is_nested(kind.value_type) else "jsonb"
    if types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    return next((name for is_it, name in _POSTGRES_TYPES if is_it(kind)), None)


_POSTGRES_TYPES: Sequence[tuple[Callable[[pa.DataType], bool], str]] = (
    (pa.types.is_boolean, "boolean"),
    (lambda kind: kind in (pa.int8(), pa.int16(), pa.uint8()), "smallint"),
    (lambda kind: kind in (pa.int32(), pa.uint16()), "integer"),
    (lambda kind: kind in (pa.int64(), pa.uint32()), "bigint"),
    (pa.types.is_uint64, "numeric(20,0)"),
    (lambda kind: kind in (pa.float16(), pa.float32()), "real"),
    (pa.types.is_float64, "double precision"),
    (lambda kind: kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null()), "text"),
    (lambda kind: kind in (pa.binary(), pa.large_binary()) or pa.types.is_fixed_size_binary(kind), "bytea"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "interval"),
    (lambda kind: pa.types.is_struct(kind) or pa.types.is_map(kind), "jsonb"),
)
