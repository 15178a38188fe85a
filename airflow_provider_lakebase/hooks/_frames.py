"""Build data frames of pandas and polars from rows, with the types of Postgres."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_lakebase.exceptions import LakebaseExportError, LakebaseSettingsError

_PANDAS_TYPES = {
    "int2": "Int16",
    "int4": "Int32",
    "int8": "Int64",
    "oid": "Int64",
    "float4": "float32",
    "float8": "float64",
    "bool": "boolean",
    "timestamp": "datetime64[us]",
    "timestamptz": "datetime64[us, UTC]",
}
_AS_TEXT = ("json", "jsonb", "uuid", "inet", "cidr", "interval", "timetz", "date", "timestamp", "timestamptz", "hstore")
_CAST = "Cast its column to text in the query: infinite dates, years beyond 9999 and arrays of arrays need it."


class _Frames:
    known: tuple[str, ...] = ()
    library = ""

    def __init__(self, kwargs: Mapping[str, Any]) -> None:
        for name in sorted(set(kwargs) - set(self.known)):
            hint = f"Choose from {', '.join(self.known)}."
            raise LakebaseSettingsError(f"{self.library} data frames cannot be read with argument '{name}'", hint=hint)
        self.kwargs = kwargs

    def build(self, columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Any:
        """Return rows as a data frame.

        :param columns: psycopg's description of the result
        :param rows: its rows
        :raises LakebaseExportError: for a value that the type of its column does not hold
        """
        series = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
        return self._build(columns, series)

    def _build(self, columns: Sequence[Any], series: Sequence[Sequence[Any]]) -> Any:
        raise NotImplementedError


def _kind(column: Any) -> tuple[str, bool]:
    """Return the type name of a column, and whether the column is an array of that type."""
    import psycopg

    found = psycopg.postgres.types.get(column.type_code)
    return (found.name, found.array_oid == column.type_code) if found else ("", False)


def _unfit(column: Any, error: Exception) -> LakebaseExportError:
    what = f"Column {column.name} has a value that its type in the data frame does not hold ({type(error).__name__})"
    return LakebaseExportError(what, hint=_CAST, column=column.name)


class PandasFrames(_Frames):
    """Build data frames of pandas.

    :param kwargs: the supported arguments of :func:`pandas.read_sql`
    :raises LakebaseSettingsError: for any other argument
    """

    known = ("index_col", "coerce_float", "parse_dates", "dtype", "dtype_backend")
    library = "pandas"

    def prepare(self, cursor: Any) -> None:
        """Leave the cursor unchanged.

        :param cursor: the cursor that will run the query
        """

    def _build(self, columns: Sequence[Any], series: Sequence[Sequence[Any]]) -> Any:
        import pandas

        made = []
        for column, values in zip(columns, series, strict=True):
            kind, is_array = _kind(column)
            try:
                made.append(self._series(pandas, kind, is_array, values))
            except (ValueError, TypeError, OverflowError) as error:
                raise _unfit(column, error) from None
        frame = pandas.concat(made, axis="columns") if made else pandas.DataFrame()
        frame.columns = pandas.Index([column.name for column in columns])
        return self._arranged(pandas, frame)

    def _series(self, pandas: Any, kind: str, is_array: bool, values: Sequence[Any]) -> Any:
        if kind == "numeric" and not is_array and self.kwargs.get("coerce_float"):
            return pandas.Series([None if value is None else float(value) for value in values], dtype="float64")
        if is_array or kind not in _PANDAS_TYPES:
            return pandas.Series(list(values), dtype="str" if kind in ("text", "varchar") and not is_array else object)
        if kind == "timestamptz":
            return pandas.to_datetime(pandas.Series(list(values), dtype=object), utc=True).astype(_PANDAS_TYPES[kind])
        return pandas.Series(list(values), dtype=_PANDAS_TYPES[kind])

    def _arranged(self, pandas: Any, frame: Any) -> Any:
        dates = self.kwargs.get("parse_dates") or ()
        for name in [dates] if isinstance(dates, str) else dates:
            how = dates[name] if isinstance(dates, Mapping) else {}
            how = how if isinstance(how, Mapping) else {"format": how}
            frame[name] = pandas.to_datetime(frame[name], **how)
        if (dtype := self.kwargs.get("dtype")) is not None:
            frame = frame.astype(dtype)
        if (backend := self.kwargs.get("dtype_backend")) is not None:
            frame = frame.convert_dtypes(dtype_backend=backend)
        return frame if (index := self.kwargs.get("index_col")) is None else frame.set_index(index)


class PolarsFrames(_Frames):
    """Build data frames of polars.

    :param kwargs: ``schema_overrides``: polars type by column
    :raises LakebaseSettingsError: for any other argument
    """

    known = ("schema_overrides",)
    library = "polars"

    def prepare(self, cursor: Any) -> None:
        """Let the cursor return values without a polars type as text.

        :param cursor: the cursor that will run the query
        """
        import psycopg
        from psycopg.types.string import TextLoader

        for found in psycopg.postgres.types:
            if found.name in _AS_TEXT[:7] or type(found).__name__ != "TypeInfo":
                cursor.adapters.register_loader(found.oid, TextLoader)
            if found.array_oid and found.name not in _LISTS:
                cursor.adapters.register_loader(found.array_oid, TextLoader)

    def _build(self, columns: Sequence[Any], series: Sequence[Sequence[Any]]) -> Any:
        import polars

        names = [column.name for column in columns]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            hint = "Give each column of the query its own name with AS."
            raise LakebaseSettingsError(f"Two columns are named '{repeated[0]}'", hint=hint)
        overrides = dict(self.kwargs.get("schema_overrides") or {})
        if unknown := sorted(set(overrides) - set(names)):
            hint = "Name columns of the query."
            raise LakebaseSettingsError(f"schema_overrides names '{unknown[0]}', which is not a column", hint=hint)
        made = []
        for column, values in zip(columns, series, strict=True):
            kind = self._type(polars, column)
            if kind == polars.String:
                values = [value if value is None or isinstance(value, str) else _text(value) for value in values]
            try:
                found = polars.Series(column.name, list(values), dtype=kind, strict=True)
                made.append(found.cast(overrides[column.name]) if column.name in overrides else found)
            except (polars.exceptions.PolarsError, ValueError, TypeError, OverflowError) as error:
                raise _unfit(column, error) from None
        return polars.DataFrame(made)

    def _type(self, polars: Any, column: Any) -> Any:
        kind, is_array = _kind(column)
        if kind == "numeric" and not is_array and column.precision is not None and column.scale is not None:
            if column.precision <= 38 and 0 <= column.scale <= column.precision:
                return polars.Decimal(column.precision, column.scale)
        types = {
            "int2": polars.Int16,
            "int4": polars.Int32,
            "int8": polars.Int64,
            "oid": polars.Int64,
            "float4": polars.Float32,
            "float8": polars.Float64,
            "bool": polars.Boolean,
            "date": polars.Date,
            "time": polars.Time,
            "timestamp": polars.Datetime("us"),
            "timestamptz": polars.Datetime("us", "UTC"),
            "bytea": polars.Binary,
        }
        if is_array:
            return polars.List(types.get(kind, polars.String)) if kind in _LISTS else polars.String
        return types.get(kind, polars.String)


_LISTS = ("int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar")


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
