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
from psycopg.types.json import JsonbDumper
from psycopg.types.numeric import Float4Dumper, FloatDumper

from airflow_provider_lakebase.core.frame_values import UnfitParameter, register_frame_values
from airflow_provider_lakebase.core.sql.split import check_placeholders, protect_casts, read_parameters
from airflow_provider_lakebase.exceptions import NO_CONTEXT, LakebaseSettingsError

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
            context=getattr(session, "context", NO_CONTEXT),
            hint="Switch it on, and write E'…' for a string with escapes.",
        )
    check_placeholders(text, values)
    cursor: Any = (
        psycopg.AsyncClientCursor(session)
        if isinstance(session, psycopg.AsyncConnection)
        else psycopg.ClientCursor(session)
    )
    # Not for the session, whose COPY keeps psycopg's own, which are compiled.
    for kind, dumper in _LITERALS.items():
        cursor.adapters.register_dumper(kind, dumper)
    try:
        bound: str = cursor.mogrify(protect_casts(text).encode(), values)
    except (psycopg.Error, UnicodeError, ValueError, TypeError, OverflowError) as error:
        # The error may quote the value.
        reason = str(error) if isinstance(error, UnfitParameter) else type(error).__name__
        kinds = ", ".join(sorted({type(each).__name__ for each in _each(values)}))
        raise LakebaseSettingsError(
            f"A parameter cannot be written as SQL: {reason}; the parameters are of type {kinds}",
            context=getattr(session, "context", NO_CONTEXT),
            hint="Give str, int, float, bool, Decimal, UUID, bytes, dates, times, None, lists of one type, or dicts.",
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
            context=getattr(session, "context", NO_CONTEXT),
            hint="Leave it out: sessions are UTF8. Convert text with convert_to() and convert_from().",
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


class _FloatDumper(FloatDumper):
    """Write a float as double precision: a bare number with a point would be a numeric."""

    def dump(self, obj: float) -> bytes:
        return repr(float(obj)).encode()

    def quote(self, obj: float) -> bytes:
        text = bytes(super().quote(obj))
        return text if text.endswith(b"float8") else text + b"::float8"


class _RealDumper(Float4Dumper):
    """Write a NumPy float of 4 bytes, or fewer, as real."""

    def dump(self, obj: float) -> bytes:
        return repr(float(obj)).encode()

    def quote(self, obj: float) -> bytes:
        text = bytes(super().quote(obj))
        return text if text.endswith(b"float4") else text + b"::float4"


_LITERALS: dict[type | str, type[Dumper]] = {
    float: _FloatDumper,
    "numpy.float64": _FloatDumper,
    "numpy.float32": _RealDumper,
    "numpy.float16": _RealDumper,
}


def register_types(adapters: AdaptersMap) -> None:
    """Register how a session writes what psycopg does not know, or takes for something else.

    :param adapters: of the session
    """
    adapters.register_dumper(dict, JsonbDumper)
    register_frame_values(adapters)
