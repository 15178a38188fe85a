"""Map the names of a source to the columns of the table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import psycopg

from airflow_provider_lakebase.core.bulk.catalog import Column, Table, add_columns
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.partitions import Folder
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError, LakebaseSettingsError

log = logging.getLogger(__name__)

_SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
_NAME_BYTES = 63
_HEADER_HINT = (
    "if the file has no line of column names, set header=False; if it is not CSV, set 'format'; if its values are not "
    "separated by commas, set 'delimiter'."
)


class ColumnMapper:
    """Map the names of each part of a source to the columns of the table, as the option ``columns`` says.

    :param connection: an open session
    :param table: the target
    :param options: of the load
    :param has_several: whether a name may be missing in one part, because another one may have it
    """

    def __init__(
        self, connection: psycopg.Connection[Any], table: Table, options: LoadOptions, *, has_several: bool = False
    ) -> None:
        self.connection = connection
        self.table = table
        self.options = options
        self.has_several = has_several
        self.context = session_context(connection)
        self.folders: Mapping[str, Folder] = {}
        """Partition folders in the path of the part."""
        self.known_inputs: dict[tuple[str, str], bool] = {}
        """Whether a text is a value of a SQL type, which is asked once, not for each file."""
        self._first_names = list(table.loadable)
        self.unused_names = set(options.columns) if isinstance(options.columns, Mapping) else set()
        """The names in a mapping as ``columns`` that no part had so far."""
        self._awaits_rows = False
        self._unused_casts = set(options.casts or ())

    @property
    def skips_names(self) -> bool:
        """Whether names of the source that are no columns to load are skipped."""
        return isinstance(self.options.columns, Mapping) or self._ignores

    @property
    def never_skipped(self) -> frozenset[str]:
        """The names that are not skipped though the option says so, because the table has a column for them."""
        return frozenset(column.name for column in self.table.columns) if self._ignores else frozenset()

    @property
    def _ignores(self) -> bool:
        return self.options.new_columns == "ignore" and not self.options.columns

    def names_by_position(self) -> list[str]:
        """Return the columns of a source that has no names: those of the table for which its path has no folder.

        :raises LakebaseSettingsError: if ``columns`` is a mapping of names
        """
        if isinstance(self.options.columns, Mapping):
            hint = "Give a list of the table's columns, in the order of the source."
            raise LakebaseSettingsError("columns is a mapping, but the source has no names", hint=hint)
        return list(self.options.columns or (name for name in self._first_names if name not in self.folders))

    def map(
        self,
        names: Sequence[str],
        label: str,
        *,
        is_header: bool = False,
        is_certain: bool = True,
        type_of: Callable[[int], str | None] = lambda _: None,
    ) -> list[Column | None]:
        """Return the column for each name of a source; None for a name that is skipped.

        :param names: in the order of the source
        :param label: the source's name in messages
        :param is_header: whether the names are the first line of a file, which may be a row of values
        :param is_certain: whether the source has the names; else its rows remove those that they have from
            ``unused_names``
        :param type_of: returns the SQL type that the source declares for the name at a position; None without one
        :raises LakebaseLoadError: if the table has no such column, or it is generated
        :raises LakebaseSettingsError: if ``columns`` or ``casts`` do not match the source or the table
        """
        wanted = self.options.columns
        optional = wanted if self.has_several and isinstance(wanted, Mapping) else self.folders
        targets = match_names(names, wanted, label, is_header=is_header, optional=optional)
        self._add_columns(targets, label, is_header, type_of)
        if self._ignores:
            known = self.never_skipped
            targets = [name if name in known else None for name in targets]
        for number, name in enumerate(targets, 1):
            if name is not None and name not in self.table.loadable:
                raise self._unknown_column(number, name, label, is_header)
        self._awaits_rows |= not is_certain
        self.unused_names.difference_update(self.folders, names if is_certain or not self.has_several else ())
        self._unused_casts -= {*targets, *self.folder_columns(targets)}
        if not self.has_several:
            self.check_used()
        return [None if name is None else self._column(name) for name in targets]

    def folder_columns(self, targets: Iterable[str | None]) -> dict[str, Folder]:
        """Return the partition folders that fill columns of the table, by column.

        :param targets: the columns that the file itself fills
        """
        wanted = self.options.columns
        found = (
            {wanted[name]: folder for name, folder in self.folders.items() if name in wanted}
            if isinstance(wanted, Mapping)
            else self.folders
        )
        sent = set(targets)
        for name in found.keys() - sent - self.table.loadable.keys() if isinstance(wanted, Mapping) else ():
            raise self._unknown_column(0, name, found[name].name, is_header=False)
        return {name: folder for name, folder in found.items() if name in self.table.loadable and name not in sent}

    def check_used(self, *, after_rows: bool = False) -> None:
        """Check that the names in ``columns`` and ``casts`` were found, after all parts were mapped.

        :param after_rows: whether all rows were sent, too
        :raises LakebaseSettingsError: for the first one that was not
        """
        if self.unused_names and (after_rows or not self._awaits_rows):
            what = f"columns names '{min(self.unused_names)}', which no file has"
            raise LakebaseSettingsError(what, context=self.context, hint="Correct it.")
        if self._unused_casts:
            hint = "Name columns of the table that the source fills."
            what = f"casts contains '{min(self._unused_casts)}', which is not loaded"
            raise LakebaseSettingsError(what, context=self.context, hint=hint)

    def _add_columns(
        self,
        targets: Sequence[str | None],
        label: str,
        is_header: bool,
        type_of: Callable[[int], str | None],
    ) -> None:
        """Add the columns that the table lacks, if the options say so."""
        known = {column.name for column in self.table.columns}
        new = {n: name for n, name in enumerate(targets) if name is not None and name not in known}
        # A first line without a single known name is rather a row of values.
        if self.options.new_columns != "add" or not new or (is_header and len(new) == len(targets)):
            return
        check_new_names(list(new.values()), label, self.context, "added")
        types = {name: self._new_type(name, type_of(position)) for position, name in new.items()}
        self.table = add_columns(self.connection, self.table, types)
        log.info("Added to table %s: %s", self.table.name, ", ".join(f"{name} {types[name]}" for name in types))

    def _new_type(self, name: str, declared: str | None) -> str:
        given = self.options.create_table if isinstance(self.options.create_table, Mapping) else {}
        kind = given.get(name) or given.get("*") or (self.options.casts or {}).get(name) or declared
        if kind is None:
            what = f"Table {self.table.name} has no column '{name}', and the source does not say its type"
            hint = f"Give its SQL type: create_table={{'{name}': 'bigint', '*': 'text'}}."
            raise LakebaseSettingsError(what, context=self.context, hint=hint)
        return kind

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
            return self.error(what, "Leave it to the table: {skip_column}.")
        if self.options.columns:
            what = f"columns names '{name}', which table {self.table.name} does not have"
            return LakebaseSettingsError(what, context=self.context, hint=f"Its columns are {known}.")
        hint = f"The table's columns are {known}. {{rename_or_add}}"
        if not is_header:
            return self.error(f"Table {self.table.name} has no column '{name}', which {label} has", f"{hint}.")
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
    optional: Container[str] = (),
) -> list[str | None]:
    """Return the target name for each name of a source; None for a name that is skipped.

    :param names: in the order of the source; an empty one is missing in the file
    :param wanted: the option ``columns``
    :param label: the source's name in messages
    :param is_header: whether the names are the first line of a file, which may be a row of values
    :param optional: names that a mapping may list though the source does not have them
    :raises LakebaseSettingsError: if they do not match, or a name is repeated
    """
    if isinstance(wanted, Mapping):
        if unknown := sorted(name for name in set(wanted) - set(names) if name not in optional):
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
        hint = "Give each a name of its own{or_list_columns}."
        raise LakebaseSettingsError(f"{label} has two columns named '{repeated[0]}'", hint=hint)


def check_new_names(names: Sequence[str], label: str, context: ErrorContext, done: str = "created") -> None:
    """Check that a table can have columns of these names.

    :param names: in the order of the source
    :param label: the source's name in messages
    :param context: for errors
    :param done: what becomes of the columns, for messages
    :raises LakebaseLoadError: for the first name that no column can have
    """
    for name in names:
        if reason := _name_problem(name):
            what = f"A column of {label} {reason}" if not name else f"The column name '{name}' of {label} {reason}"
            raise LakebaseLoadError(
                f"{what}, so no {'table' if done == 'created' else 'column'} can be {done}",
                context=context,
                hint="{rename_column}",
                source=label,
            )


def _name_problem(name: str) -> str:
    if not name:
        return "has no name"
    if "\0" in name:
        return "contains a null character"
    if name in _SYSTEM_COLUMNS:
        return "is a system column's"
    return f"has more than {_NAME_BYTES} bytes" if len(name.encode()) > _NAME_BYTES else ""


def ignored_column(number: int) -> Column:
    """Return a column of the staging table for values that are not loaded.

    :param number: position of the column in the source
    """
    return Column(f"left out {number}", "text", "text", -1, "any text")
