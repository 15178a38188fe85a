"""Map the names of a source to the columns of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import psycopg

from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

_HEADER_HINT = (
    "if the file has no line of column names, set header=False; if it is not CSV, set 'format'; if its values are not "
    "separated by commas, load it with copy_expert."
)


class ColumnMapper:
    """Map the names of each part of a source to the columns of the table, as the option ``columns`` says.

    :param connection: an open session
    :param table: the target
    :param options: of the load
    """

    def __init__(self, connection: psycopg.Connection[Any], table: Table, options: LoadOptions) -> None:
        self.connection = connection
        self.table = table
        self.options = options
        self.context = session_context(connection)

    @property
    def skips_names(self) -> bool:
        """Whether names of the source that ``columns`` does not list are skipped."""
        return isinstance(self.options.columns, Mapping)

    def names_by_position(self) -> list[str]:
        """Return the columns of a source that has no names.

        :raises LakebaseSettingsError: if ``columns`` is a mapping of names
        """
        if isinstance(self.options.columns, Mapping):
            hint = "Give a list of the table's columns, in the order of the source."
            raise LakebaseSettingsError("columns is a mapping, but the source has no names", hint=hint)
        return list(self.options.columns or self.table.loadable)

    def map(self, names: Sequence[str], label: str, *, is_header: bool = False) -> list[Column | None]:
        """Return the column for each name of a source; None for a name that is skipped.

        :param names: in the order of the source
        :param label: the source's name in messages
        :param is_header: whether the names are the first line of a file, which may be a row of values
        :raises LakebaseLoadError: if the table has no such column, or it is generated
        :raises LakebaseSettingsError: if ``columns`` or ``casts`` do not match the source or the table
        """
        targets = match_names(names, self.options.columns, label, is_header=is_header)
        for number, name in enumerate(targets, 1):
            if name is not None and name not in self.table.loadable:
                raise self._unknown_column(number, name, label, is_header)
        if unknown := sorted(set(self.options.casts or ()) - set(targets)):
            hint = "Name columns of the table that the source fills."
            raise LakebaseSettingsError(f"casts contains '{unknown[0]}'", context=self.context, hint=hint)
        return [None if name is None else self._column(name) for name in targets]

    def error(self, what: str, hint: str) -> LakebaseLoadError:
        """Return an error about the source.

        :param what: what is wrong, a sentence without its full stop
        :param hint: what to do
        """
        return LakebaseLoadError(what, context=self.context, hint=hint, table=self.table.name)

    def _column(self, name: str) -> Column:
        column = self.table.loadable[name]
        return column.as_text() if name in (self.options.casts or ()) else column

    def _unknown_column(self, number: int, name: str, label: str, is_header: bool) -> Exception:
        known = ", ".join(self.table.loadable)
        if name in {column.name for column in self.table.columns}:
            what = f"Column '{name}' of table {self.table.name} is generated, so {label} cannot fill it"
            return self.error(what, "Skip it with a mapping as 'columns'.")
        if self.options.columns:
            what = f"columns names '{name}', which table {self.table.name} does not have"
            return LakebaseSettingsError(what, context=self.context, hint=f"Its columns are {known}.")
        hint = f"The table's columns are {known}. Map other names to them with 'columns'"
        if not is_header:
            return self.error(f"{label} has a column '{name}', which table {self.table.name} does not have", f"{hint}.")
        # The first line may be a row of values, which must not be quoted.
        close = get_close_matches(name.lower(), map(str.lower, self.table.loadable), 1, 0.7)
        quoted = f" '{name}'" if close and not any(each.isdigit() for each in name) else ""
        what = f"Name {number}{quoted} in the first line of {label} is no column of table {self.table.name}"
        return self.error(what, f"{hint}; {_HEADER_HINT}")


def match_names(
    names: Sequence[str],
    wanted: Sequence[str] | Mapping[str, str] | None,
    label: str,
    *,
    is_header: bool = False,
) -> list[str | None]:
    """Return the target name for each name of a source; None for a name that is skipped.

    :param names: in the order of the source; an empty one is missing in the file
    :param wanted: the option ``columns``
    :param label: the source's name in messages
    :param is_header: whether the names are the first line of a file, which may be a row of values
    :raises LakebaseSettingsError: if they do not match, or a name is repeated
    """
    if isinstance(wanted, Mapping):
        if unknown := sorted(set(wanted) - set(names)):
            hint = f"Correct it; {_HEADER_HINT}" if is_header else f"Its columns are {', '.join(names)}."
            raise LakebaseSettingsError(f"columns names '{unknown[0]}', which {label} does not have", hint=hint)
        targets: list[str | None] = [wanted.get(name) if name else None for name in names]
    else:
        targets = list(wanted or names)
    if len(targets) != len(names):
        what = f"columns has {len(targets)} names, but {label} has {len(names)} columns"
        raise LakebaseSettingsError(what, hint="Name one for each, or map the names of the source to the table's.")
    if wanted is None or isinstance(wanted, Mapping):  # a list goes by position
        _check_repeated_names([name for name, target in zip(names, targets, strict=True) if target is not None], label)
    given = [target for target in targets if target is not None]
    if len(set(given)) < len(given):
        raise LakebaseSettingsError("columns names a column twice", hint="Name each column once.")
    return targets


def _check_repeated_names(names: Sequence[str], label: str) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        hint = "Give each a name of its own, or list the table's columns in the order of the source as 'columns'."
        raise LakebaseSettingsError(f"{label} has two columns named '{repeated[0]}'", hint=hint)


def ignored_column(number: int) -> Column:
    """Return a column of the staging table for values that are not loaded.

    :param number: position of the column in the source
    """
    return Column(f"left out {number}", "text", "text", -1, "any text")
