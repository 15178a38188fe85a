"""Data frames, and whatever else offers Arrow data, as Arrow data; needs the extra ``[arrow]``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from airflow_provider_lakebase.core.frame_values import is_frame
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

log = logging.getLogger(__name__)

_UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError)


def stream_to_arrow(source: Any) -> pa.RecordBatchReader:
    """Return the Arrow data of an object that has the method ``__arrow_c_stream__``.

    :param source: for example a relation of DuckDB; https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface
    :raises LakebaseSettingsError: for one that offers no table, such as a Series
    """
    try:
        return pa.RecordBatchReader.from_stream(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        what = f"source is a {type(source).__name__}, which offers no table"
        raise LakebaseSettingsError(what, hint="Give a data frame or a table.") from error


def lazy_frame_to_arrow(frame: Any) -> Iterator[pa.Table]:
    """Run the query of a lazy frame and yield its rows in batches.

    :param frame: of polars
    """
    if hasattr(frame, "collect_batches"):
        yield from map(_polars_to_arrow, frame.collect_batches(maintain_order=True))
    else:  # goes with polars before 1.34
        yield _polars_to_arrow(frame.collect())


def frame_to_arrow(frame: Any, index: bool = False) -> pa.Table:
    """Return a data frame as an Arrow table.

    :param frame: of pandas or polars
    :param index: the option of that name
    :raises LakebaseSettingsError: if ``index`` is True, but the index has no name
    :raises LakebaseLoadError: for a column with values of several types
    """
    if hasattr(type(frame), "to_arrow"):  # polars; a column of a pandas frame may have that name, too
        if index:
            raise LakebaseSettingsError("index is True, but a polars frame has no index", hint="Leave it out.")
        return _polars_to_arrow(frame)
    frame = _with_index(frame, index)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except _UNFIT as error:
        raise _no_type(_unfit_columns(frame), type(error).__name__) from None
    # Periods and intervals: Arrow data holds a number that only pandas can read.
    if found := [field for field in table.schema if getattr(field.type, "extension_name", "").startswith("pandas.")]:
        raise _no_type(_columns([field.name for field in found]), found[0].type.extension_name)
    return table


def _polars_to_arrow(frame: Any) -> pa.Table:
    # Arrow data would hold the addresses of Python objects.
    if found := [name for name, kind in frame.schema.items() if _holds_objects(kind)]:
        raise _no_type(_columns(found), "Object")
    try:
        return frame.to_arrow()
    except _UNFIT as error:
        unfit = [name for name in frame.columns if not _is_fit(frame[name].to_arrow)]
        raise _no_type(_columns(unfit), type(error).__name__) from None


def _holds_objects(kind: Any) -> bool:
    within = [field.dtype for field in getattr(kind, "fields", ())]
    if (inner := getattr(kind, "inner", None)) is not None:
        within.append(inner)
    return str(kind).startswith("Object") or any(map(_holds_objects, within))


def _no_type(columns: str, reason: str) -> LakebaseLoadError:
    return LakebaseLoadError(
        f"The data frame has {columns}, for which Arrow has no type ({reason})",
        hint="Give each column values of one type, for example of a str.",
    )


def _with_index(frame: Any, index: bool) -> Any:
    names = list(frame.index.names)
    if index:
        if None in names:
            hint = "Name it: frame.rename_axis('name of the column')."
            raise LakebaseSettingsError("index is True, but the index of the data frame has no name", hint=hint)
        return frame.reset_index()
    if named := [str(name) for name in names if name is not None]:
        log.info("The index of the data frame, %s, is left out; index=True loads it", ", ".join(named))
    return frame


def frames_to_arrow(frames: Iterator[Any], index: bool = False) -> Iterator[pa.Table]:
    """Yield data frames as Arrow tables.

    :param frames: of pandas or polars
    :param index: the option of that name
    :raises LakebaseSettingsError: for an item that is not a data frame
    """
    for number, frame in enumerate(frames, 1):
        if not is_frame(frame):
            what = f"Item {number} of the source is a {type(frame).__name__}, but those before it are data frames"
            raise LakebaseSettingsError(what, hint="Give only data frames, or only rows.")
        if type(frame).__name__ == "LazyFrame":
            yield from lazy_frame_to_arrow(frame)
        else:
            yield frame_to_arrow(frame, index)


def _unfit_columns(frame: Any) -> str:
    found = [
        name
        for position, name in enumerate(frame.columns)
        if not _is_fit(partial(pa.Array.from_pandas, frame.iloc[:, position]))
    ]
    return _columns(found) if found else "two columns of one name, or names that are not text"


def _is_fit(convert: Callable[[], Any]) -> bool:
    try:
        convert()
    except _UNFIT:
        return False
    return True


def _columns(names: Sequence[Any]) -> str:
    return "column " + ", ".join(f"'{name}'" for name in names)
