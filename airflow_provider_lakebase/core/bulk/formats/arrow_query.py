"""Read the result of COPY … TO STDOUT as Arrow record batches; needs the extra ``[arrow]``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv

_CSV_BLOCK_BYTES = 1 << 22
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
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
}
_LIST_ELEMENTS = (pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.string())


def read_csv(file: Any, fields: Sequence[Field]) -> Iterator[pa.RecordBatch]:
    """Yield the rows that COPY wrote as CSV, in the types of the query's columns.

    :param file: CSV without a header, open for reading bytes
    :param fields: the columns
    :raises pyarrow.ArrowInvalid: for a value that the Arrow type of its column does not hold
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
    """Return the Arrow schema of a query's result.

    :param fields: its columns
    """
    return pa.schema([pa.field(field.name, field.arrow_type) for field in fields])


@dataclass(frozen=True)
class Field:
    """A column of a query, and its conversion to an Arrow column.

    :param name: column name
    :param kind: Postgres type, as ``regtype`` writes it
    :param precision: of a ``numeric``, or None
    :param scale: of a ``numeric``, or None
    """

    name: str
    kind: str
    precision: int | None
    scale: int | None

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type that holds all values exactly; string if there is none."""
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
        """The Arrow type that the CSV text is parsed as."""
        return pa.string() if self.arrow_type == pa.binary() or pa.types.is_list(self.arrow_type) else self.arrow_type

    @property
    def expression(self) -> str:
        """SQL that writes the column (``{}``) as text that can be parsed as :attr:`read_as`."""
        if self.arrow_type == pa.binary():
            return "encode({}, 'hex')"
        return "to_json({})" if pa.types.is_list(self.arrow_type) and self.kind != "vector" else "{}"

    def finish(self, values: pa.Array) -> pa.Array:
        """Return values in the column's Arrow type.

        :param values: as parsed from CSV
        """
        if values.type == self.arrow_type:
            return values
        parse: Callable[[str], Any] = bytes.fromhex
        if pa.types.is_list(self.arrow_type):
            parse = _parse_floats if pa.types.is_floating(self.arrow_type.value_type) else json.loads
        return pa.array([None if value is None else parse(value) for value in values.to_pylist()], self.arrow_type)


def _parse_floats(text: str) -> list[Any]:
    # JSON has no NaN or infinity, so Postgres writes them as strings.
    return [float(value) if isinstance(value, str) else value for value in json.loads(text)]
