"""Rows in memory, or read one by one, as parts of a load: which of the table's columns their values are for."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.copy import BadValue, Part
from airflow_provider_lakebase.core.bulk.formats.rows import BadRow, Rows, describe_row
from airflow_provider_lakebase.core.bulk.formats.server_copy import ServerCopy, choose_format, may_round
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.rejection import value_error
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.bulk.source import NamedRows

log = logging.getLogger(__name__)


def tuples_part(rows: Iterable[Any], label: str, mapper: ColumnMapper) -> Rows:
    """Return the part that sends rows whose values have no names.

    :param rows: tuples or other sequences
    :param label: the source's name in messages
    :param mapper: maps names to the table's columns
    """
    columns = mapper.map(mapper.names_by_position(), label)
    return Rows(rows, [column for column in columns if column], label=label)


def named_rows_part(source: NamedRows, label: str, mapper: ColumnMapper) -> Part:
    """Return the part that sends the rows of a query: by COPY if the target stores exactly what that sends.

    :param source: the rows
    :param label: the source's name in messages
    :param mapper: maps names to the table's columns
    """
    types = source.types
    columns = mapper.map(source.names, label, type_of=lambda number: types[number] if types else None)
    positions = [number for number, column in enumerate(columns) if column]
    kept = [column for column in columns if column]
    if source.query is not None and types is not None and not mapper.options.rejects:
        names = [source.names[position] for position in positions]
        kinds = [types[position] for position in positions]
        format, why = choose_format(kinds, kept)
        if format is not None and (len(kept) == len(columns) or len(set(source.names)) == len(source.names)):
            log.info("Copying from server to server in %s: %s", format, why)
            chosen = names if len(kept) < len(columns) else None
            return ServerCopy(source.query, chosen, kept, format, label, may_round=may_round(kinds, kept))
        log.info("Reading and checking each row: %s", why)
    rows = source.rows
    if len(kept) < len(columns):
        rows = (tuple(row[position] for position in positions) for row in rows)
    return Rows(rows, kept, label=label)


def dicts_part(
    rows: Iterator[Any], label: str, mapper: ColumnMapper, *, unit: str = "row", json_strings: bool = False
) -> Rows:
    """Return the part that sends dicts. Without the option ``columns``, the columns are the keys of the first dict.

    A name with dots in a mapping of ``columns`` stands for a member of an object within the dict.

    :param rows: dicts by source name
    :param label: the source's name in messages
    :param mapper: maps names to the table's columns
    :param unit: word for a dict in messages: ``row`` or ``line``
    :param json_strings: whether a str for a JSON column is a JSON string; else it is JSON text
    """
    wanted = mapper.options.columns
    names = list(wanted or ())
    is_empty = False
    if not names or mapper.folders.keys() & set(names):
        try:
            # The first dict says the columns; rows before it cannot be read.
            before, first = _find_first_dict(rows)
        except BadValue as bad:
            part = Rows(rows, (), label=label, unit=unit)
            raise value_error(bad, mapper.table.name, mapper.context, part) from None
        is_empty = first is None and not names
        names = _without_folders(names, first or {}, label, mapper) or list(first or mapper.table.loadable)
        rows = chain(before, [first] if first is not None else [], rows)
    columns = mapper.map(names, label, is_certain=not isinstance(wanted, Mapping))
    paths = [name for name in names if isinstance(wanted, Mapping) and "." in name]
    part = Rows(
        _with_members(rows, paths, yields_bad=mapper.options.rejects) if paths else rows,
        [column for column in columns if column],
        names=[name for name, column in zip(names, columns, strict=True) if column],
        others=mapper.skips_names,
        never_skipped=mapper.never_skipped,
        unseen=mapper.unused_names if mapper.has_several and isinstance(wanted, Mapping) else None,
        label=label,
        unit=unit,
        json_strings=json_strings,
    )
    part.is_empty = is_empty
    return part


def _without_folders(names: list[str], first: Container[str], label: str, mapper: ColumnMapper) -> list[str]:
    """Return the names in ``columns``, except those that only partition folders have."""
    of_folders = [name for name in names if name in mapper.folders and name not in first]
    if of_folders and not isinstance(mapper.options.columns, Mapping):
        what = f"columns names '{of_folders[0]}', which a folder in the path of {label} has, but not its first object"
        raise LakebaseSettingsError(
            what, context=mapper.context, hint="Leave it out of 'columns': the folder fills the column."
        )
    return [name for name in names if name not in of_folders]


def _find_first_dict(rows: Iterator[Any]) -> tuple[list[Any], Any]:
    before: list[Any] = []
    for row in rows:
        if not isinstance(row, BadRow):
            return before, row
        before.append(row)
    return before, None


def names_of_dicts(options: LoadOptions, first: Iterable[str]) -> list[str]:
    """Return the names of the values that dicts give to a load.

    :param options: of the load
    :param first: the keys of the first dict
    """
    return list(options.columns or first)


def _with_members(rows: Iterable[Any], paths: Sequence[str], *, yields_bad: bool) -> Iterator[Any]:
    """Yield dicts to which the members at the paths, such as ``user.id``, were added under the path's own name."""
    for number, row in enumerate(rows, 1):
        try:
            yield _add_members(row, paths, number) if isinstance(row, Mapping) else row
        except BadValue as bad:
            if not yields_bad:
                raise
            yield BadRow(bad, describe_row(row, ()))


def _add_members(row: Mapping[str, Any], paths: Sequence[str], number: int) -> dict[str, Any]:
    found = {path: _member(row, path, number) for path in paths if path not in row}
    return {**row, **{path: values[0] for path, values in found.items() if values}}


def _member(row: Any, path: str, number: int) -> tuple[Any, ...]:
    """Return the member at a path, in a tuple; an empty one if there is none."""
    value = row
    for name in path.split("."):
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            raise BadValue(f"it has no object at '{path.rpartition('.')[0]}', as '{path}' in 'columns' needs", number)
        if name not in value:
            return ()
        value = value[name]
    return (value,)
