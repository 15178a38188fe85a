"""Put parameters into SQL, by one rule for a statement alone, for several, and for a query inside a COPY.

The server takes parameters only for a statement alone, and only where a value may stand. So psycopg writes each as a
literal of its type: https://www.psycopg.org/psycopg3/docs/advanced/cursors.html#client-side-binding-cursors
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.types.datetime import DatetimeDumper, DatetimeNoTzDumper, TimedeltaDumper
from psycopg.types.json import JsonbDumper
from psycopg.types.numeric import Float4Dumper, FloatDumper

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.sql_text import check_placeholders, protect_casts, read_parameters

_QUOTED_LINE = re.compile(r"\nLINE \d+: [^\n]*(?:\n *\^)?")


def bind(session: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], text: str, parameters: Any) -> str:
    """Return a text of one or more statements with its parameters written into it.

    :param session: an open session, whose adapters and encoding count
    :param text: SQL; with parameters, ``%s`` or ``%(name)s`` for each and ``%%`` for a per cent sign
    :param parameters: a mapping, or another iterable of values; without any the text stays as it is
    :raises LakebaseSettingsError: when placeholders and parameters do not belong together, a placeholder is inside
        quotes or a comment, or a value has no form in SQL
    """
    values = read_parameters(parameters)
    if values is None:
        return text
    if "\\" in text and session.info.parameter_status("standard_conforming_strings") == "off":
        raise LakebaseSettingsError(
            "standard_conforming_strings is off, so that a backslash may end no string where it seems to",
            where=getattr(session, "where", ""),
            remedy="Switch it on, and write E'…' for a string with escapes.",
        )
    check_placeholders(text, values)
    cursor: Any = (
        psycopg.AsyncClientCursor(session)
        if isinstance(session, psycopg.AsyncConnection)
        else psycopg.ClientCursor(session)
    )
    try:
        bound: str = cursor.mogrify(protect_casts(text).encode(), values)
    except (psycopg.Error, UnicodeError, ValueError, TypeError, OverflowError) as error:
        # The error may quote the value.
        reason = str(error) if isinstance(error, _UnfitParameter) else type(error).__name__
        kinds = ", ".join(sorted({type(each).__name__ for each in _each(values)}))
        raise LakebaseSettingsError(
            f"A parameter cannot be written as SQL: {reason}; the parameters are of type {kinds}",
            where=getattr(session, "where", ""),
            remedy="Give str, int, float, bool, Decimal, UUID, bytes, dates, times, None, or lists or dicts of them.",
        ) from None
    return bound


def check_encoding(session: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Refuse to go on once a statement has changed the client encoding: SQL is sent, and text is read, as UTF-8.

    :param session: an open session, before its transaction is committed
    :raises LakebaseSettingsError: when its client encoding is not UTF8
    """
    if (encoding := session.info.parameter_status("client_encoding")) not in (None, "UTF8"):
        raise LakebaseSettingsError(
            f"A statement changed client_encoding to {encoding}",
            where=getattr(session, "where", ""),
            remedy="Leave it out: sessions are UTF8. Convert text with convert_to() and convert_from().",
        )


@contextmanager
def hide_values(parameters: Any) -> Iterator[None]:
    """Leave out of a statement's error the line of SQL that libpq quotes, where parameters were written into it.

    :param parameters: of the statement
    """
    try:
        yield
    except psycopg.Error as error:
        if parameters is not None and error.args and isinstance(error.args[0], str):
            error.args = (_QUOTED_LINE.sub("", error.args[0]), *error.args[1:])
        raise


def _each(values: Any) -> Any:
    return values.values() if isinstance(values, dict) else values


class _UnfitParameter(psycopg.DataError):
    """Why a parameter has no form in SQL, in words that do not hold it."""


class _FloatDumper(FloatDumper):
    """Write a float as double precision: a bare number with a point would be a numeric."""

    def quote(self, obj: float) -> bytes:
        text = bytes(super().quote(obj))
        return text if text.endswith(b"float8") else text + b"::float8"


class _RealDumper(Float4Dumper):
    """Write a NumPy float of 4 bytes, or fewer, as real."""

    def quote(self, obj: float) -> bytes:
        text = bytes(super().quote(obj))
        return text if text.endswith(b"float4") else text + b"::float4"


class _NullDumper(Dumper):
    """Write NULL for what pandas and NumPy have in its place."""

    def dump(self, obj: Any) -> None:
        return None

    def quote(self, obj: Any) -> bytes:
        return b"NULL"


class _NaiveTimestampDumper(DatetimeNoTzDumper):
    def dump(self, obj: Any) -> Any:
        _refuse_nanoseconds(obj.nanosecond)
        return super().dump(obj)


class _TimestampDumper(DatetimeDumper):
    """Write a pandas Timestamp, whose nanoseconds Postgres does not keep."""

    def upgrade(self, obj: Any, format: Any) -> Any:
        return self if obj.tzinfo else _NaiveTimestampDumper(self.cls)

    def dump(self, obj: Any) -> Any:
        _refuse_nanoseconds(obj.nanosecond)
        return super().dump(obj)


class _PandasTimedeltaDumper(TimedeltaDumper):
    """Write a pandas Timedelta, whose nanoseconds Postgres does not keep."""

    def dump(self, obj: Any) -> Any:
        _refuse_nanoseconds(obj.nanoseconds)
        return super().dump(obj)


class _NumpyTimeDumper(Dumper):
    """Write datetime64 and timedelta64 as text; NaT is NULL."""

    def dump(self, obj: Any) -> bytes | None:
        import numpy

        if numpy.isnat(obj):
            return None
        unit, _ = numpy.datetime_data(obj.dtype)
        if obj.dtype.kind == "m" and unit in ("generic", "Y", "M"):
            raise _UnfitParameter("a timedelta64 of years, of months or without a unit has no fixed length")
        microseconds = obj.astype(f"{obj.dtype.kind}8[us]")
        if unit in ("ns", "ps", "fs", "as") and microseconds.astype(obj.dtype) != obj:
            _refuse_nanoseconds(1)
        if obj.dtype.kind == "m":
            return f"{microseconds.astype('i8')} microseconds".encode()
        return str(microseconds).encode()

    def quote(self, obj: Any) -> Any:
        return b"NULL" if self.dump(obj) is None else super().quote(obj)


class _DatetimeDumper(_NumpyTimeDumper):
    oid = psycopg.adapters.types["timestamp"].oid


class _TimedeltaDumper(_NumpyTimeDumper):
    oid = psycopg.adapters.types["interval"].oid


def _refuse_nanoseconds(nanoseconds: int) -> None:
    if nanoseconds:
        raise _UnfitParameter("it has nanoseconds, of which Postgres keeps none; round it")


# By name, so that pandas and NumPy are imported only by whoever has such values. pandas 3 gives its types other names.
_DUMPERS: tuple[tuple[type | str, type[Dumper]], ...] = (
    (dict, JsonbDumper),
    (float, _FloatDumper),
    ("numpy.float64", _FloatDumper),
    ("numpy.float32", _RealDumper),
    ("numpy.float16", _RealDumper),
    ("numpy.datetime64", _DatetimeDumper),
    ("numpy.timedelta64", _TimedeltaDumper),
    ("pandas._libs.tslibs.nattype.NaTType", _NullDumper),
    ("pandas.api.typing.NaTType", _NullDumper),
    ("pandas._libs.missing.NAType", _NullDumper),
    ("pandas.api.typing.NAType", _NullDumper),
    ("pandas._libs.tslibs.timestamps.Timestamp", _TimestampDumper),
    ("pandas.Timestamp", _TimestampDumper),
    ("pandas._libs.tslibs.timedeltas.Timedelta", _PandasTimedeltaDumper),
    ("pandas.Timedelta", _PandasTimedeltaDumper),
)


def register_types(adapters: AdaptersMap) -> None:
    """Register how a session writes what psycopg does not know, or takes for something else.

    :param adapters: of the session
    """
    for kind, dumper in _DUMPERS:
        adapters.register_dumper(kind, dumper)
