"""Turn the error of Postgres or a format about a bad row into one that names its place, never its value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Part
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError

_UNREADABLE = (psycopg.errors.InvalidTextRepresentation, psycopg.errors.InvalidDatetimeFormat)
_DETAILS = {
    psycopg.errors.CharacterNotInRepertoire: ": it is not UTF-8, or contains a null byte",
    # The table itself may allow NULL where the load's key or version column does not.
    psycopg.errors.NotNullViolation: ": it must not be NULL",
}
_NUMBERS = ("int2", "int4", "int8", "numeric", "float4", "float8")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_STAGING_TABLE = re.compile(r"lakebase_load_[0-9a-f]{32}")


@contextmanager
def rejecting(
    table: str, context: ErrorContext, *, mode: str, part: Part | None = None, target: CopyTarget | None = None
) -> Iterator[None]:
    """Translate the errors raised in the ``with`` block. The original ones may quote a value, so they are not chained.

    :param table: target table, as the caller named it
    :param context: for the error
    :param mode: the load's
    :param part: the part being sent; None after COPY
    :param target: where it is sent
    :raises LakebaseLoadError: for a bad row
    :raises psycopg.Error: if the rows are not to blame
    """
    try:
        yield
    except BadValue as bad:
        raise value_error(bad, table, context, part) from None
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        found = _explain(error, table, context, mode, part, target)
        if found is error:
            raise
        raise found from None


def value_error(bad: BadValue, table: str, context: ErrorContext, part: Part | None = None) -> LakebaseLoadError:
    """Return the error for a value that a format rejected.

    :param bad: what is wrong, and where
    :param table: target table, as the caller named it
    :param context: for the error
    :param part: the part that contains the value
    """
    unit = bad.unit or (part.unit if part else "row")
    return _row_error(bad.reason, table, context, unit, bad.number, bad.column, part)


def row_error(reason: str, table: str, context: ErrorContext, part: Part, row: int, column: str) -> LakebaseLoadError:
    """Return the error for a row that was found bad after it had been sent.

    :param reason: why, without the value
    :param table: target table, as the caller named it
    :param context: for the error
    :param part: the part that contains the row
    :param row: its number in the part, from 1
    :param column: its column, or an empty text
    """
    unit, number = part.locate_sent(row)
    return _row_error(reason, table, context, unit, number, column, part)


def _row_error(
    reason: str,
    table: str,
    context: ErrorContext,
    unit: str,
    number: int | None,
    column: str | None,
    part: Part | None,
    sqlstate: str | None = None,
) -> LakebaseLoadError:
    place = f"a {unit}" if number is None else f"{unit} {number}"
    place += f", column {column}," if column else ""
    place += f" of {part.label}" if part else ""
    return LakebaseLoadError(
        f"Table {table} rejects {place}: {reason}",
        context=context,
        hint="Correct the source or the table; nothing was loaded.",
        table=table,
        source=part.label if part else "",
        row=number if unit == "row" else None,
        line=number if unit == "line" else None,
        column=column or "",
        sqlstate=sqlstate,
    )


def _explain(
    error: psycopg.Error, table: str, context: ErrorContext, mode: str, part: Part | None, target: CopyTarget | None
) -> Exception:
    line, name = target.find(error) if target else (None, error.diag.column_name)
    is_about_row = line is not None and not isinstance(error, psycopg.OperationalError)
    if not is_about_row and not isinstance(error, psycopg.DataError | psycopg.IntegrityError) and not _is_raised(error):
        # The context of an error quotes the row that was being read.
        return type(error)(error.diag.message_primary or "") if error.diag.context else error
    unit, number = part.locate_copied(line) if part and line is not None else (part.unit if part else "row", None)
    column = next((each for each in target.columns if each.name == name), None) if target else None
    reason = _reason(error, table, mode, part, column)
    return _row_error(reason, table, context, unit, number, name, part, error.sqlstate)


def _is_raised(error: psycopg.Error) -> bool:
    """Return whether a trigger or a function raised the error: class P0, or an SQLSTATE that is not Postgres's own."""
    return (error.sqlstate or "").startswith("P0") or type(error) is psycopg.DatabaseError and bool(error.sqlstate)


def _reason(error: psycopg.Error, table: str, mode: str, part: Part | None, column: Column | None) -> str:
    what = f"{condition_name(type(error))}, SQLSTATE {error.sqlstate}{_detail(error, table)}"
    kind = f"; the column is of type {column.declared}" if column else ""
    return f"{what}{kind}{_advice(error, mode, part, column)}"


def condition_name(kind: type[psycopg.Error]) -> str:
    """Return what Postgres calls a kind of error, such as ``not null violation``.

    :param kind: class of the error
    """
    return _WORD.sub(" ", kind.__name__).lower()


def _advice(error: psycopg.Error, mode: str, part: Part | None, column: Column | None) -> str:
    is_csv = part is not None and part.has_null_text
    if is_csv and isinstance(error, psycopg.errors.CharacterNotInRepertoire):
        return ". Set 'encoding' if the file has another, such as 'latin-1'"
    if is_csv and isinstance(error, _UNREADABLE):
        is_number = column is not None and column.kind in _NUMBERS
        numbers = "; if it is a number such as 1.234,5, set 'decimal' and 'thousands'" if is_number else ""
        return f". If the text stands for NULL, set 'null' to it{numbers}"
    if isinstance(error, psycopg.errors.UniqueViolation) and mode == "append":
        return ". To update rows whose key exists, use mode='upsert' on the columns of the constraint"
    return ""


def _detail(error: psycopg.Error, table: str) -> str:
    if found := next((text for kind, text in _DETAILS.items() if isinstance(error, kind)), ""):
        return found
    # These messages name columns and constraints; all others quote the value.
    if isinstance(error, psycopg.IntegrityError | psycopg.errors.BadCopyFileFormat):
        return f": {_STAGING_TABLE.sub(table, error.diag.message_primary or '')}"
    return ""
