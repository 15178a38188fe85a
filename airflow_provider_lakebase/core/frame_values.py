"""Recognize data frames, and bind values of pandas and numpy exactly, without importing any of these libraries."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Dumper
from psycopg.types.datetime import DatetimeDumper, DatetimeNoTzDumper, TimedeltaDumper


class UnfitParameter(psycopg.DataError):
    """A value cannot be bound exactly; the message gives the reason without the value."""


_PANDAS = "pandas._libs.tslibs"


class _NullDumper(Dumper):
    def dump(self, obj: Any) -> Buffer | None:
        return None


def _refuse_nanoseconds(obj: Any) -> None:
    if getattr(obj, "nanosecond", 0) or getattr(obj, "nanoseconds", 0):
        raise UnfitParameter(f"a {type(obj).__name__} has nanoseconds, which Postgres does not keep; round it")


class _TimestampDumper(DatetimeDumper):
    def dump(self, obj: Any) -> Buffer | None:
        _refuse_nanoseconds(obj)
        return super().dump(obj)

    def upgrade(self, obj: Any, format: Any) -> Any:
        return self if obj.tzinfo else _NaiveTimestampDumper(self.cls)


class _NaiveTimestampDumper(DatetimeNoTzDumper):
    def dump(self, obj: Any) -> Buffer | None:
        _refuse_nanoseconds(obj)
        return super().dump(obj)


class _PandasTimedeltaDumper(TimedeltaDumper):
    def dump(self, obj: Any) -> Buffer | None:
        _refuse_nanoseconds(obj)
        return super().dump(obj)


class _NumpyTimeDumper(Dumper):
    """Bind a NumPy time as the Python type, and NaT as an untyped NULL, which fits every column."""

    def get_key(self, obj: Any, format: Any) -> Any:
        return (self.cls, type(None)) if is_null(obj) else self.cls

    def upgrade(self, obj: Any, format: Any) -> Any:
        return _NullDumper(self.cls) if is_null(obj) else self

    def dump(self, obj: Any) -> Buffer | None:
        value = from_numpy(obj)
        return None if value is None else super().dump(value)  # type: ignore[safe-super]


class _Datetime64Dumper(_NumpyTimeDumper, DatetimeNoTzDumper):
    pass


class _Timedelta64Dumper(_NumpyTimeDumper, TimedeltaDumper):
    pass


_DUMPERS: dict[str, type[Dumper]] = {
    f"{_PANDAS}.nattype.NaTType": _NullDumper,
    "pandas._libs.missing.NAType": _NullDumper,
    "pandas.api.typing.NaTType": _NullDumper,
    "pandas.api.typing.NAType": _NullDumper,
    f"{_PANDAS}.timestamps.Timestamp": _TimestampDumper,
    "pandas.Timestamp": _TimestampDumper,
    f"{_PANDAS}.timedeltas.Timedelta": _PandasTimedeltaDumper,
    "pandas.Timedelta": _PandasTimedeltaDumper,
    "numpy.datetime64": _Datetime64Dumper,
    "numpy.timedelta64": _Timedelta64Dumper,
}


def register_frame_values(adapters: AdaptersMap) -> None:
    """Let a session bind values of pandas and numpy.

    :param adapters: the session's adapters
    """
    for name, dumper in _DUMPERS.items():
        adapters.register_dumper(name, dumper)


def is_frame(value: Any) -> bool:
    """Return whether a value is a data frame of pandas or polars.

    :param value: any
    """
    library = type(value).__module__.partition(".")[0]
    return library in ("pandas", "polars") and type(value).__name__ in ("DataFrame", "LazyFrame", "GeoDataFrame")


def is_null(value: Any) -> bool:
    """Return whether a value is a NULL of pandas, or NaT of numpy.

    :param value: any; a float NaN is not NULL
    """
    name = type(value).__name__
    return name in ("NaTType", "NAType") or (name in ("datetime64", "timedelta64") and bool(value != value))


def from_numpy(value: Any) -> Any:
    """Convert a NumPy time to the Python type, and NaT to None.

    :param value: a ``numpy.datetime64`` or ``numpy.timedelta64``
    :raises psycopg.DataError: if Python or Postgres has no such value: nanoseconds, years beyond 9999, no unit
    """
    if is_null(value):
        return None
    found = value.astype(f"{type(value).__name__}[us]")
    plain = found.item()
    if found != value or not isinstance(plain, date | timedelta) or str(value.dtype) == "timedelta64":
        raise UnfitParameter(f"a {type(value).__name__} has nanoseconds, no unit, or is out of range; round it")
    return plain
