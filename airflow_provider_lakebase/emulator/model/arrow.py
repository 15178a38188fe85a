"""Tables of pyarrow, pandas or Parquet as columns and rows of the catalog. pyarrow is imported only when needed."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.emulator.model.catalog import Column, Row

if TYPE_CHECKING:
    import pyarrow

_TYPES = {
    "bool": "boolean",
    "int8": "tinyint",
    "int16": "smallint",
    "int32": "int",
    "int64": "bigint",
    "float": "float",
    "double": "double",
    "string": "string",
    "large_string": "string",
    "string_view": "string",
    "binary": "binary",
    "large_binary": "binary",
    "binary_view": "binary",
    "date32[day]": "date",
    "date64[ms]": "date",
}


def read(table: object) -> tuple[list[Column], Sequence[Row]]:
    """Return the columns and rows of a ``pyarrow.Table``, a Parquet file's path or a pandas frame.

    Raise ``TypeError`` for anything else, ``ValueError`` for a type that Delta tables do not have, and
    ``ModuleNotFoundError`` without pyarrow.
    """
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise ModuleNotFoundError("This needs pyarrow: pip install 'airflow-provider-lakebase[arrow]'") from None
    arrow = _arrow_table(table)
    columns = [Column(each.name, _type_text(each.type), each.nullable) for each in arrow.schema]
    values = [_values(pyarrow, arrow.column(position)) for position in range(arrow.num_columns)]
    return columns, list(zip(*values, strict=True))


def _arrow_table(table: object) -> pyarrow.Table:
    import pyarrow
    import pyarrow.parquet

    if isinstance(table, pyarrow.Table):
        return table
    if isinstance(table, str | os.PathLike):
        return pyarrow.parquet.read_table(table)
    if type(table).__module__.partition(".")[0] == "pandas":
        return pyarrow.Table.from_pandas(table, preserve_index=False)
    raise TypeError(
        f"publish a pyarrow.Table, the path of a Parquet file or a pandas frame, not {type(table).__name__}"
    )


def _type_text(arrow: pyarrow.DataType) -> str:
    """Return the Databricks type that stores an Arrow type."""
    from pyarrow import types

    if str(arrow) in _TYPES:
        return _TYPES[str(arrow)]
    if types.is_timestamp(arrow):
        return "timestamp" if arrow.tz else "timestamp_ntz"
    if types.is_decimal(arrow) and 0 < arrow.precision <= 38 and 0 <= arrow.scale <= arrow.precision:
        return f"decimal({arrow.precision},{arrow.scale})"
    if types.is_fixed_size_binary(arrow):
        return "binary"
    if types.is_dictionary(arrow):
        return _type_text(arrow.value_type)
    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow):
        return f"array<{_type_text(arrow.value_type)}>"
    if types.is_map(arrow):
        return f"map<{_type_text(arrow.key_type)},{_type_text(arrow.item_type)}>"
    if types.is_struct(arrow):
        return f"struct<{','.join(f'{field.name}:{_type_text(field.type)}' for field in arrow)}>"
    raise ValueError(f"a Delta table has no type for Arrow's {arrow}; cast the column first")


def _values(pyarrow: Any, column: pyarrow.ChunkedArray) -> list[Any]:
    """Return a column's values as psycopg takes them. Nested ones become JSON text, and times lose nanoseconds."""
    types, arrow = pyarrow.types, column.type
    if types.is_dictionary(arrow):
        return _values(pyarrow, column.cast(arrow.value_type))
    if types.is_timestamp(arrow):
        return list(column.cast(pyarrow.timestamp("us", arrow.tz), safe=False).to_pylist())
    if types.is_nested(arrow):
        return [None if value is None else json.dumps(_plain(arrow, value)) for value in column.to_pylist()]
    return list(column.to_pylist())


def _plain(arrow: pyarrow.DataType, value: Any) -> Any:
    """Return a nested value as JSON has it. A map, a list of pairs in Python, becomes an object."""
    from pyarrow import types

    if value is None:
        return None
    if types.is_map(arrow):
        return {str(key): _plain(arrow.item_type, item) for key, item in value}
    if types.is_struct(arrow):
        return {field.name: _plain(field.type, value[field.name]) for field in arrow}
    if types.is_nested(arrow):
        return [_plain(arrow.value_type, item) for item in value]
    return _leaf(value)


def _leaf(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value
