"""The types that the I/O manager stores and returns, recognized without importing their libraries."""

from __future__ import annotations

from typing import Any

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

KINDS = {
    ("pandas", "DataFrame"): "pandas",
    ("polars", "DataFrame"): "polars",
    ("polars", "LazyFrame"): "lazy",
    ("pyarrow", "Table"): "pyarrow",
    ("pyarrow", "RecordBatchReader"): "batches",
}
_SUPPORTED = "pandas.DataFrame, polars.DataFrame, polars.LazyFrame, pyarrow.Table or pyarrow.RecordBatchReader"


def find_kind(kind: Any) -> str:
    """Return which of the supported types a class is.

    :param kind: the class of a value, or the annotation of an argument
    :raises LakebaseSettingsError: for any other
    """
    for base in getattr(kind, "__mro__", ()):
        if found := KINDS.get((base.__module__.partition(".")[0], base.__name__)):
            return found
    hint = f"Annotate the asset's argument or result as {_SUPPORTED}."
    if kind is type(None):
        hint = "Annotate an asset that returns no rows with '-> None', or return a MaterializeResult."
    what = f"The I/O manager does not store or return values of type {getattr(kind, '__name__', kind)}"
    raise LakebaseSettingsError(what, hint=hint)


def refuse_index(value: Any) -> None:
    """Refuse a pandas frame whose index has a name, since an index is not stored.

    :param value: of any of the supported types
    :raises LakebaseSettingsError: if its values would be lost
    """
    names = [name for name in value.index.names if name is not None] if find_kind(type(value)) == "pandas" else []
    if names:
        what = f"The I/O manager does not store the frame's index {', '.join(map(repr, names))}"
        raise LakebaseSettingsError(what, hint="Return frame.reset_index(), or reset_index(drop=True) to leave it out.")


def column_names(value: Any) -> list[str]:
    """Return the names of the columns of a value.

    :param value: of any of the supported types
    """
    kind = find_kind(type(value))
    if kind == "lazy":
        return list(value.collect_schema().names())
    return list(map(str, value.schema.names if kind in ("pyarrow", "batches") else value.columns))


def empty(kind: str) -> Any:
    """Return one of the supported types without rows and columns, as Dagster's own I/O managers do.

    :param kind: from :func:`find_kind`
    """
    import pyarrow  # of the extra [arrow]

    return from_arrow(kind, pyarrow.table({}))


def from_arrow(kind: str, table: Any) -> Any:
    """Return an Arrow table as one of the supported types, with the same values.

    :param kind: from :func:`find_kind`
    :param table: a ``pyarrow.Table``
    """
    if kind == "pyarrow":
        return table
    if kind == "batches":
        return table.to_reader()
    if kind == "pandas":
        return table.to_pandas(types_mapper=_pandas_types().get)
    import polars

    frame: Any = polars.from_arrow(table)
    return frame.lazy() if kind == "lazy" else frame


def _pandas_types() -> dict[Any, Any]:
    """Return the types of pandas for integers and booleans, of which its default ones hold no NULL."""
    import pandas
    import pyarrow

    return {
        pyarrow.int16(): pandas.Int16Dtype(),
        pyarrow.int32(): pandas.Int32Dtype(),
        pyarrow.int64(): pandas.Int64Dtype(),
        pyarrow.bool_(): pandas.BooleanDtype(),
    }
