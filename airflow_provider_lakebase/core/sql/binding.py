"""Bind parameters to SQL in one way for a single statement, for several, and for a query inside a COPY.

The server binds parameters only for a single statement, and only in the place of values. Therefore psycopg writes each
one as a literal: https://www.psycopg.org/psycopg3/docs/advanced/cursors.html#client-side-binding-cursors
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
    """Return SQL with its parameters written into it as literals.

    :param session: an open session, whose adapters and encoding apply
    :param text: one or more statements; with parameters, ``%s`` or ``%(name)s`` for each and ``%%`` for a percent sign
    :param parameters: a mapping, or another collection of values; without any, the text is returned unchanged
    :raises LakebaseSettingsError: if placeholders and parameters do not match, a placeholder is inside quotes or a
        comment, or a value cannot be written in SQL
    """
    values = read_parameters(parameters)
    if values is None:
        return text
    if "\\" in text and session.info.parameter_status("standard_conforming_strings") == "off":
        raise LakebaseSettingsError(
            "standard_conforming_strings is off, so a backslash may hide the end of a string",
            context=getattr(session, "context", NO_CONTEXT),
            hint="Turn it on, and write strings with escapes as E'…'.",
        )
    check_placeholders(text, values)
    cursor: Any = (
        psycopg.AsyncClientCursor(session)
        if isinstance(session, psycopg.AsyncConnection)
        else psycopg.ClientCursor(session)
    )
    # Only on the cursor: COPY uses the session's dumpers, where psycopg's compiled ones are faster.
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
            hint="Pass str, int, float, bool, Decimal, UUID, bytes, dates, times, None, lists of one type, or dicts.",
        ) from None
    return bound


def check_encoding(session: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Refuse a session whose client encoding a statement has changed: SQL is sent and text is read as UTF-8.

    :param session: an open session, before its transaction is committed
    :raises LakebaseSettingsError: if the client encoding is not UTF8
    """
    if (encoding := session.info.parameter_status("client_encoding")) not in (None, "UTF8"):
        raise LakebaseSettingsError(
            f"A statement changed client_encoding to {encoding}",
            context=getattr(session, "context", NO_CONTEXT),
            hint="Do not change it: sessions use UTF8. Convert text with convert_to() and convert_from().",
        )


@contextmanager
def hide_values(parameters: Any) -> Iterator[None]:
    """Remove the line of SQL that libpq quotes from a statement's error, because parameters were written into it.

    :param parameters: parameters of the statement; without any, the error is left unchanged
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
    """Write a float as double precision; a bare decimal number would be a numeric."""

    def dump(self, obj: float) -> bytes:
        return repr(float(obj)).encode()

    def quote(self, obj: float) -> bytes:
        text = bytes(super().quote(obj))
        return text if text.endswith(b"float8") else text + b"::float8"


class _RealDumper(Float4Dumper):
    """Write a NumPy float of at most 4 bytes as real."""

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
    """Register dumpers for types that psycopg does not know, or adapts to another type than expected.

    :param adapters: the session's adapters
    """
    adapters.register_dumper(dict, JsonbDumper)
    register_frame_values(adapters)
