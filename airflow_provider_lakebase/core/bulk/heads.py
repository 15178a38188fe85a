"""What each part of a source fills, and whether that suits the table and the options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.copy import Part
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError


@dataclass(frozen=True)
class Head:
    """What a part of a source fills.

    :param label: the part's name in messages
    :param sent: names of the columns of its values; those that the table lacks are skipped
    :param from_folders: names of the columns that get the value of a folder in its path
    :param is_empty: whether it has neither rows nor names, and so lacks nothing
    """

    label: str
    sent: frozenset[str]
    from_folders: frozenset[str]
    is_empty: bool = False

    @classmethod
    def of(cls, part: Part) -> Head:
        """Return the head of a part.

        :param part: an open one
        """
        sent = frozenset(column.name for column in part.columns)
        return cls(part.label, sent, frozenset(part.folder_values), part.is_empty)

    @property
    def filled(self) -> frozenset[str]:
        """The names of all columns that it gives a value."""
        return self.sent | self.from_folders


def unite(heads: Sequence[Head], table: Table) -> list[Column]:
    """Return the columns of the table that at least one part fills, in the order of the table.

    :param heads: of all parts
    :param table: the target
    """
    counting = [head for head in heads if not head.is_empty] or heads
    filled = frozenset[str]().union(*(head.filled for head in counting))
    return [column for name, column in table.loadable.items() if name in filled]


def find_lacking(heads: Sequence[Head], columns: Sequence[Column]) -> dict[str, str]:
    """Return the columns that some parts fill and others do not, each with the first part that does not.

    :param heads: of all parts
    :param columns: from :func:`unite`
    """
    return {column.name: head.label for column in columns for head in reversed(heads) if column.name not in head.filled}


def check_lacking(lacking: Mapping[str, str], table: Table, updated: Iterable[str], context: ErrorContext) -> None:
    """Reject a part that lacks a column which has no default, or which an upsert changes.

    :param lacking: from :func:`find_lacking`
    :param table: the target
    :param updated: columns that an upsert matches rows by, or changes in existing rows
    :param context: for errors
    :raises LakebaseLoadError: for the first one
    """
    for name, label in lacking.items():
        column = table.loadable[name]
        what = f"{label} has no column '{name}', which other files of the load have"
        if name in updated:
            raise LakebaseLoadError(
                f"{what}; an upsert would change it in existing rows to its default",
                context=context,
                hint="Nothing was loaded. Add the column to the file, load the file separately, or leave the column "
                "out of 'update_columns'.",
                source=label,
                column=name,
            )
        # A trigger may fill it.
        if column.not_null and column.default is None and not table.has_triggers:
            hint = "Nothing was loaded. Add the column to the file, or give it a default."
            raise LakebaseLoadError(
                f"{what}; it must not be NULL and has no default", context=context, hint=hint, source=label, column=name
            )


def check_complete(heads: Iterable[Head], table: Table, context: ErrorContext) -> None:
    """Reject a part that does not fill every column of the table, but for those that Postgres always fills.

    :param heads: of all parts
    :param table: the target
    :param context: for errors
    :raises LakebaseLoadError: for the first one
    """
    for head in heads:
        for name, column in table.loadable.items():
            if name not in head.filled and not column.identity and not head.is_empty:
                raise LakebaseLoadError(
                    f"{head.label} does not fill column '{name}' of table {table.name}",
                    context=context,
                    hint="Nothing was loaded. Add the column to the source; or, to leave it to its default, set "
                    "missing_columns='default'.",
                    source=head.label,
                    column=name,
                )
