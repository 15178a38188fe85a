"""Decide how rows get into a table: by which columns, directly or through a staging table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.heads import Head, check_complete, check_lacking, find_lacking, unite
from airflow_provider_lakebase.core.bulk.options import Duplicates, LoadOptions, Mode
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext, LakebaseLoadError, LakebaseSettingsError


@dataclass(frozen=True)
class LoadPlan:
    """How rows get into a table. Fields named like options hold the values that the options resolved to.

    :param table: the target
    :param mode: ``append``, ``replace`` or ``upsert``
    :param columns: columns of the table that get values
    :param key_columns: columns that an upsert matches rows by, in the order of their index
    :param update_columns: columns that an upsert changes in existing rows; none for ``DO NOTHING``
    :param version_column: column that must be larger for an upsert to change a row
    :param duplicates: several rows with the same key: the ``last`` one wins, or ``error``
    :param replace_where: SQL condition that selects the rows to replace
    :param casts: SQL types by column: text is cast to them before it is stored
    :param skips_columns: whether the source sends columns that are not loaded
    :param has_folders: whether partition folders give values
    :param has_raw_text: whether the source may send text that a column would round
    :param rejects: whether rows that cannot be stored are left out
    """

    table: Table
    mode: Mode
    columns: Sequence[Column]
    key_columns: Sequence[str] = ()
    update_columns: Sequence[str] = ()
    version_column: str | None = None
    duplicates: Duplicates = "last"
    replace_where: str | None = None
    casts: Mapping[str, str] = field(default_factory=dict)
    skips_columns: bool = False
    has_raw_text: bool = False
    rejects: bool = False
    has_folders: bool = False

    @property
    def stable_key(self) -> Sequence[str]:
        """The key by which a replace keeps rows that foreign keys may reference; empty if none does."""
        if self.mode != "replace" or not self.table.has_incoming_fks:
            return ()
        usable = {column.name for column in self.columns if column.not_null}
        return next((key for key in self.table.keys if usable.issuperset(key)), ())

    @property
    def is_staged(self) -> bool:
        """Whether rows go through a staging table."""
        rounds = any(
            column.rounds and (self.has_raw_text or column.element or column.kind in ("interval", "money"))
            for column in self.columns
        )
        cuts = self.has_raw_text and any(column.cuts for column in self.columns)
        is_checked = rounds or cuts or self.table.row_security or self.rejects
        return any((self.mode != "append", self.casts, self.skips_columns, self.has_folders, is_checked))


def make_plan(
    options: LoadOptions,
    table: Table,
    heads: Sequence[Head],
    *,
    has_raw_text: bool = False,
    context: ErrorContext = NO_CONTEXT,
) -> LoadPlan:
    """Return the plan of a load.

    :param options: of the load
    :param table: the target
    :param heads: what each part of the source fills
    :param has_raw_text: whether the source sends text that only Postgres parses
    :param context: for errors
    :raises LakebaseSettingsError: for columns that do not suit the option that names them
    :raises LakebaseLoadError: if the source fills no column, or a part lacks one that it must have
    """
    filled = unite(heads, table)
    without = heads if not filled else [head for head in heads if not head.sent]
    if without:
        raise LakebaseLoadError(
            f"{without[0].label} fills no column of table {table.name}",
            context=context,
            hint="{name_a_column}",
            table=table.name,
        )
    key_columns: Sequence[str] = ()
    update_columns: Sequence[str] = ()
    if options.mode == "upsert":
        key_columns = find_key(options, table, [column.name for column in filled], context)
        update_columns = _find_updates(options, filled, key_columns, context)
    check_lacking(find_lacking(heads, filled), table, {*key_columns, *update_columns}, context)
    if options.missing_columns == "error":
        check_complete(heads, table, context)
    return LoadPlan(
        table=table,
        mode=options.mode,
        columns=filled,
        key_columns=key_columns,
        update_columns=update_columns,
        version_column=options.version_column,
        duplicates=options.duplicates,
        replace_where=options.replace_where,
        casts=options.casts or {},
        skips_columns=any(head.sent - table.loadable.keys() for head in heads),
        has_raw_text=has_raw_text,
        rejects=options.rejects,
        has_folders=any(head.from_folders for head in heads),
    )


def find_key(options: LoadOptions, table: Table, loaded: Sequence[str], context: ErrorContext) -> Sequence[str]:
    """Return the key of an upsert in the order of its index, so that all upserts lock rows in the same order.

    :param options: of the load
    :param table: the target
    :param loaded: names of the columns that get values
    :param context: for errors
    :raises LakebaseSettingsError: if there is no such unique index, or not all of its columns are loaded
    """
    wanted = options.key_columns or table.primary_key
    if not wanted:
        raise LakebaseSettingsError(
            f"Table {table.name} has no primary key",
            context=context,
            hint="Name the columns of a unique index as 'key_columns'; 'create_table' makes them the primary key.",
        )
    found = next((key for key in table.keys if set(key) == set(wanted)), None)
    if found is None:
        raise LakebaseSettingsError(
            f"Table {table.name} has no unique index on exactly {', '.join(wanted)}",
            context=context,
            hint="Create one, or name the columns of an existing one as 'key_columns'.",
        )
    _check_among("key_columns", found, loaded, context)
    return found


def _find_updates(
    options: LoadOptions, filled: Sequence[Column], key: Sequence[str], context: ErrorContext
) -> Sequence[str]:
    changeable = [column.name for column in filled if column.name not in key and column.identity != "a"]
    updates = changeable if options.update_columns is None else options.update_columns
    _check_among("update_columns", updates, changeable, context)
    if options.version_column is not None:
        _check_among("version_column", [options.version_column], updates, context)
    return updates


def _check_among(option: str, given: Sequence[str], choices: Sequence[str], context: ErrorContext) -> None:
    for column in given:
        if column not in choices:
            hint = f"Choose from the columns that are loaded: {', '.join(choices)}."
            raise LakebaseSettingsError(
                f"{option} contains '{column}', which cannot be used", context=context, hint=hint
            )
