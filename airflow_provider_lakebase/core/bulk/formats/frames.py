"""Data frames of pandas and polars as Arrow data; needs the extra ``[arrow]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from airflow_provider_lakebase.core.frame_values import is_frame
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

_UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError)


def frame_to_arrow(frame: Any) -> pa.Table:
    """Return a data frame as an Arrow table, without the index of a pandas frame.

    :param frame: of pandas or polars
    :raises LakebaseSettingsError: for a lazy frame, and for one whose index has a name
    :raises LakebaseLoadError: for a column with values of several types
    """
    if type(frame).__name__ == "LazyFrame":
        raise LakebaseSettingsError("source is a LazyFrame", hint="Give its rows: frame.collect().")
    if hasattr(type(frame), "to_arrow"):  # polars; a column of a pandas frame may have that name, too
        return frame.to_arrow()
    if named := [str(name) for name in frame.index.names if name is not None]:
        raise LakebaseSettingsError(
            f"The data frame has an index named {', '.join(named)}, which may be a column of the table",
            hint="Make it a column with frame.reset_index(), or drop it with frame.reset_index(drop=True).",
        )
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except _UNFIT as error:
        raise LakebaseLoadError(
            f"The data frame has {_unfit_columns(frame)}, for which Arrow has no type ({type(error).__name__})",
            hint="Give each column values of one type, for example with frame.astype({'column': 'string'}).",
        ) from None


def frames_to_arrow(frames: Iterator[Any]) -> Iterator[pa.Table]:
    """Yield data frames as Arrow tables.

    :param frames: of pandas or polars
    :raises LakebaseSettingsError: for an item that is not a data frame
    """
    for number, frame in enumerate(frames, 1):
        if not is_frame(frame):
            what = f"Item {number} of the source is a {type(frame).__name__}, but those before it are data frames"
            raise LakebaseSettingsError(what, hint="Give only data frames, or only rows.")
        yield frame_to_arrow(frame)


def _unfit_columns(frame: Any) -> str:
    found = []
    for position, name in enumerate(frame.columns):
        try:
            pa.Array.from_pandas(frame.iloc[:, position])
        except _UNFIT:
            found.append(f"'{name}'")
    return f"column {', '.join(found)}" if found else "two columns of one name, or names that are not text"
