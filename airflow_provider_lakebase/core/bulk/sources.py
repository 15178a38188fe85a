"""Find out what a source is, and which of the table's columns its values are for."""

from __future__ import annotations

import io
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psycopg

from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.copy import BadValue, Source, load_error
from airflow_provider_lakebase.core.bulk.formats.files import (
    DAMAGED,
    Csv,
    Unreadable,
    as_text,
    describe,
    find_format,
    is_open_file,
    is_path,
    open_to_read,
    read_header,
    read_json_lines,
)
from airflow_provider_lakebase.core.bulk.formats.rows import Rows
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError, LakebaseSettingsError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.bulk.load import LoadOptions

_ROWS = "the source"
_INDEX = re.compile(r"__index_level_\d+__")
_SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
_NAME_BYTES = 63
_TEXTS = ("text", "character varying", "character", "name", '"char"', "citext", "xml")
_NO_HEADER = (
    "where the file has no line of names, give header=False; where it is not CSV, its 'format'; where values are not "
    "separated by commas, load it by copy_expert."
)


def arrow() -> ModuleType:
    """Return the module that reads and writes Arrow and Parquet.

    :raises LakebaseSettingsError: when pyarrow or pgpq is missing
    """
    try:
        from airflow_provider_lakebase.core.bulk.formats import arrow
    except ModuleNotFoundError as error:
        hint = "Install the extra: pip install 'airflow-provider-lakebase[arrow]'."
        raise LakebaseSettingsError(f"Parquet and Arrow need {error.name}", hint=hint) from error
    return arrow


class NamedRows:
    """Rows whose values have names: those of a query's columns.

    :param rows: tuples of values
    :param names: the name of each value
    """

    def __init__(self, rows: Iterable[Sequence[Any]], names: Sequence[str]) -> None:
        self.rows = rows
        self.names = names


def holds_csv(source: Any, request: LoadOptions) -> bool:
    """Return whether a source is, or has, a CSV file, whose text only Postgres reads.

    :param source: what is to be loaded
    :param request: how
    """
    return any(find_format(file, request.format) == "csv" for file in files_of(source))


def arrow_definitions(source: Any, request: LoadOptions, context: ErrorContext) -> list[tuple[str, str, bool]]:
    """Return name, Postgres type and nullability of the columns that a Parquet or Arrow source fills.

    :param source: what is to be loaded
    :param request: how
    :param context: connection and endpoint, for messages
    :raises LakebaseSettingsError: for a source without a schema, or a type that has no counterpart
    :raises LakebaseLoadError: for a file that cannot be read, or a name that no column can have
    """
    schema = _arrow_schema(source, request, context)
    fields = _without_index(schema, request.columns, ())
    label = describe(files_of(source)[0]) if files_of(source) else _ROWS
    targets = _targets([field.name for field in fields], request.columns, label)
    _check_new_names([target for target in targets if target is not None], label, context)
    definitions = []
    for field, target in zip(fields, targets, strict=True):
        kind = arrow().postgres_type(field.type)
        if target is not None and kind is None:
            hint = "Create the table first, or leave the column out by 'columns'."
            raise LakebaseSettingsError(f"Column {field.name} is of type {field.type}", hint=hint)
        if target is not None:
            definitions.append((target, request.casts.get(target, kind), field.nullable))
    return definitions


def _arrow_schema(source: Any, request: LoadOptions, context: ErrorContext) -> Any:
    files = files_of(source)
    if files and find_format(files[0], request.format) == "parquet":
        label = describe(files[0])
        with reading(label, context), open_to_read(files[0]) as file:
            return _parquet(file, label, context)[0]
    if not _is_arrow(source):
        hint = "Create the table first, or give a Parquet file, Arrow data, or a data frame of pandas or polars."
        raise LakebaseSettingsError("create_table is given for a source without a schema", hint=hint)
    return source.schema


def _parquet(file: Any, label: str, context: ErrorContext) -> tuple[Any, Iterator[Any]]:
    module = arrow()
    try:
        schema, batches = module.parquet_batches(file)
    except (module.pa.ArrowException, OSError, ValueError) as error:
        what = f"{label} is no Parquet file that can be read ({type(error).__name__})"
        hint = "Write it again; a file of another format has it as 'format', an encrypted one must be decrypted first."
        raise LakebaseLoadError(what, context=context, hint=hint) from None
    return schema, batches


@contextmanager
def reading(label: str, context: ErrorContext) -> Iterator[None]:
    """Say which file cannot be read, and why.

    :param label: the file, as messages name it
    :param context: connection and endpoint, for messages
    :raises LakebaseLoadError: in place of what is raised for a file that is damaged or of another kind
    """
    try:
        yield
    except Unreadable as error:
        raise LakebaseLoadError(f"{label} cannot be read: {error}", context=context, hint=error.hint) from None
    except DAMAGED as error:
        what = f"{label} is not what its name says, or is damaged or cut short"
        raise LakebaseLoadError(what, context=context, hint="Write it again.") from error


def to_arrow(source: Any) -> Any:
    """Return a data frame, or an iterable of data frames, as Arrow data; every other source as it is.

    :param source: what is to be loaded
    :raises LakebaseSettingsError: when pyarrow is missing, or for what looks like a frame and is none
    :raises LakebaseLoadError: for a column of values of several types
    """
    if _is_frame(source):
        return _frame_to_arrow(source)
    if _is_parquet_file(source):
        return arrow().pa.RecordBatchReader.from_batches(source.schema_arrow, source.iter_batches())
    if is_path(source) or _is_arrow(source) or isinstance(source, Mapping | str | bytes | NamedRows):
        return source
    if _has_module(source, "pandas") and hasattr(source, "read"):  # a reader of chunks, which are frames
        return _frames_to_arrow(iter(source))
    if is_open_file(source) or hasattr(source, "read") or not isinstance(source, Iterable):
        return source
    if isinstance(source, list | tuple):
        return _frames_to_arrow(iter(source)) if source and _is_frame(source[0]) else source
    if _has_module(source, "pandas", "polars", "numpy"):
        return source
    rows = iter(source)
    first = next(rows, None)
    if first is None:
        return source if rows is not source else ()
    rows = chain([first], rows)
    return _frames_to_arrow(rows) if _is_frame(first) else rows


def _has_module(value: Any, *names: str) -> bool:
    return type(value).__module__.partition(".")[0] in names


def _is_frame(value: Any) -> bool:
    return _has_module(value, "pandas", "polars") and type(value).__name__ in ("DataFrame", "LazyFrame", "GeoDataFrame")


def _is_parquet_file(value: Any) -> bool:
    return _has_module(value, "pyarrow") and hasattr(value, "iter_batches") and hasattr(value, "schema_arrow")


def _frame_to_arrow(frame: Any) -> Any:
    module = arrow()
    if type(frame).__name__ == "LazyFrame":
        raise LakebaseSettingsError("source is a LazyFrame", hint="Give its rows: frame.collect().")
    if _has_module(frame, "polars"):
        return frame.to_arrow()
    if named := [str(name) for name in frame.index.names if name is not None]:
        raise LakebaseSettingsError(
            f"The data frame has an index of the name {', '.join(named)}, which may be a column of the table",
            hint="Make it a column by frame.reset_index(), or leave it out by frame.reset_index(drop=True).",
        )
    try:
        return module.pa.Table.from_pandas(frame, preserve_index=False)
    except (module.pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise LakebaseLoadError(
            f"The data frame has {_unfit_columns(frame)}, which Arrow has no type for ({type(error).__name__})",
            hint="Give each column values of one type, for example by frame.astype({'column': 'string'}).",
        ) from None


def _unfit_columns(frame: Any) -> str:
    module, found = arrow(), []
    for position, name in enumerate(frame.columns):
        try:
            module.pa.Array.from_pandas(frame.iloc[:, position])
        except (module.pa.ArrowException, ValueError, TypeError, OverflowError):
            found.append(f"'{name}'")
    return f"column {', '.join(found)}" if found else "two columns of one name, or names that are no text"


def _frames_to_arrow(frames: Iterator[Any]) -> Iterator[Any]:
    for number, frame in enumerate(frames, 1):
        if not _is_frame(frame):
            what = f"Item {number} of the source is a {type(frame).__name__}, but those before it are data frames"
            raise LakebaseSettingsError(what, hint="Give data frames alone, or rows alone.")
        yield _frame_to_arrow(frame)


def open_sources(
    connection: psycopg.Connection[Any], source: Any, request: LoadOptions, table: Table, context: ErrorContext
) -> Generator[Source, None, None]:
    """Give each part of a source, opened when it is its turn and closed after it.

    :param connection: an open session
    :param source: what is to be loaded
    :param request: how
    :param table: the target
    :param context: connection and endpoint, for messages
    :raises LakebaseLoadError: when columns of the source are not the table's, or a file cannot be read
    """
    opening = _Opening(connection, request, table, context)
    if files := files_of(source):
        yield from opening.open_files(files)
    elif _is_arrow(source):
        yield opening.arrow(source.schema, _arrow_batches(source), label=_ROWS)
    else:
        yield opening.rows(source)


def files_of(source: Any) -> list[Any]:
    """Return the files of a source; none when it is something else.

    :param source: what is to be loaded
    """
    if is_path(source) or is_open_file(source) or hasattr(source, "read"):
        return [source]
    if isinstance(source, list | tuple) and source and all(is_path(each) or is_open_file(each) for each in source):
        return list(source)
    return []


def _is_arrow(source: Any) -> bool:
    return type(source).__module__.partition(".")[0] == "pyarrow" and hasattr(source, "schema")


def _arrow_batches(source: Any) -> Iterable[Any]:
    if hasattr(source, "to_batches"):
        return source.to_batches()  # type: ignore[no-any-return]
    return [source] if hasattr(source, "num_rows") else source


def _alike(parts: Iterable[Any], schema: Any) -> Iterator[Any]:
    """Give record batches with the columns of the first one in its order: each value goes by its own type."""
    for part in parts:
        if part.schema.names != schema.names:
            if sorted(part.schema.names) != sorted(schema.names) or len(set(schema.names)) < len(schema.names):
                raise BadValue("its record batch has other columns than the first one", None)
            part = part.select(schema.names)
        yield from _arrow_batches(part)


def _without_index(schema: Any, wanted: Any, known: Iterable[str]) -> list[Any]:
    """Return the fields of a schema but for the nameless index of a pandas frame, unless somebody names it."""
    index = {name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)}
    named = {*known, *(wanted if isinstance(wanted, Mapping) else ())}
    return [
        field for field in schema if not (field.name in index and _INDEX.fullmatch(field.name)) or field.name in named
    ]


def _check_new_names(names: Sequence[str], label: str, context: ErrorContext) -> None:
    """Refuse a name that a column of a new table cannot have as it is."""
    for name in names:
        reason = (
            "has no name"
            if not name
            else "holds a null character"
            if "\0" in name
            else "is a system column's"
            if name in _SYSTEM_COLUMNS
            else f"has more than {_NAME_BYTES} bytes"
            if len(name.encode()) > _NAME_BYTES
            else ""
        )
        if reason:
            what = f"A column of {label} {reason}" if not name else f"The column name '{name}' of {label} {reason}"
            hint = "Name the table's columns by 'columns', a mapping from the source's names or a list in its order."
            raise LakebaseLoadError(f"{what}, so that no table can be created", context=context, hint=hint)


class _Opening:
    def __init__(
        self, connection: psycopg.Connection[Any], request: LoadOptions, table: Table, context: ErrorContext
    ) -> None:
        self.connection = connection
        self.request = request
        self.table = table
        self.context = context

    def open_files(self, files: Sequence[Any]) -> Iterator[Source]:
        filled: set[str] | None = None
        for file in files:
            label = describe(file)
            if isinstance(file, io.TextIOBase):
                raise self._error(f"{label} was opened as text", "Open it for bytes: open(path, 'rb').")
            with reading(label, self.context), open_to_read(file) as opened:
                source = self._open(find_format(file, self.request.format), opened, label)
                names = {column.name for column in source.columns} & set(self.table.loadable)
                if filled is not None and names != filled:
                    raise self._error(f"{label} has other columns than the files before it", "Load it by itself.")
                self._check_folders(label, names)
                filled = names
                yield source

    def _check_folders(self, label: str, names: set[str]) -> None:
        """Refuse a file in a folder such as day=2026-01-01 whose value the table would not get."""
        if self.request.columns:
            return
        for part in label.split("/")[:-1]:
            key, found, _ = part.partition("=")
            name = unquote(key)
            if found and name in self.table.loadable and name not in names:
                what = f"{label} has no column '{name}', which a folder in its path names and the table has"
                hint = (
                    "Nothing was loaded. Add the column to the file; or, to leave it to its default, name the columns "
                    "to load by 'columns'."
                )
                raise self._error(what, hint)

    def _open(self, format: str, file: Any, label: str) -> Source:
        if format == "parquet":
            return self.arrow(*_parquet(file, label, self.context), label=label)
        if format == "jsonl":
            return self._dicts(read_json_lines(as_text(file)), label, unit="line", json_strings=True)
        return self._csv(as_text(file), label)

    def _csv(self, file: Any, label: str) -> Source:
        header = rest = b""
        if not self.request.header:
            names = self._names_without_header()
        else:
            header, rest, names = read_header(file)
            self._check_names(names, label)
        columns = self._columns(names, label, is_header=bool(header))
        filled = [column or _nowhere(number) for number, column in enumerate(columns)]
        return Csv(
            file,
            filled,
            header=header,
            rest=rest,
            names=[column.name if column else f"{number} of the file" for number, column in enumerate(columns, 1)],
            null=self.request.null,
            nullable=self._nullable([column for column in columns if column]),
            label=label,
        )

    def _check_names(self, names: Sequence[str], label: str) -> None:
        """Refuse a header by which it is not plain which column is which."""
        wanted = self.request.columns
        given = [name for name in names if name and (not isinstance(wanted, Mapping) or name in wanted)]
        if wanted and not isinstance(wanted, Mapping):
            return  # by their order
        if len(set(given)) < len(given):
            hint = "Name all columns in the file's order as a list: columns=['a', 'b', …]."
            raise self._error(f"{label} cannot be read: its first line names a column twice", hint)
        if "" in names and not wanted:
            what = f"{label} cannot be read: column {names.index('') + 1} has no name in its first line"
            hint = (
                "Name the columns to load by 'columns' as a mapping, {'name in the file': 'name in the table'}, which "
                "leaves it out; or name the table's column for each one as a list, in the file's order."
            )
            raise self._error(what, hint)

    def _nullable(self, columns: Sequence[Column]) -> list[str]:
        """Return the columns for which the text of NULL is no value, so that it cannot mean another thing in quotes."""
        found = []
        for column in columns:
            kind = self.request.casts.get(column.name, column.declared)
            if kind == column.declared and column.bare in _TEXTS:
                continue
            try:
                with self.connection.transaction():
                    query = "SELECT pg_input_is_valid(%s, %s)"
                    (is_value,) = self.connection.execute(query, [self.request.null, kind]).fetchall()[0]
            except psycopg.DataError:  # a type of an extension
                is_value = False
            if not is_value:
                found.append(column.name)
        return found

    def _names_without_header(self) -> list[str]:
        if isinstance(self.request.columns, Mapping):
            hint = "Give a list of columns, in the order of the file."
            raise LakebaseSettingsError("columns is a mapping, but the file names no columns", hint=hint)
        return list(self.request.columns or self.table.loadable)

    def arrow(self, schema: Any, batches: Iterable[Any], *, label: str) -> Source:
        fields = _without_index(schema, self.request.columns, self.table.loadable)
        columns = self._columns([field.name for field in fields], label)
        everything = list(schema)
        positions = [everything.index(field) for field, column in zip(fields, columns, strict=True) if column]
        source: Source = arrow().ArrowBatches(
            batches,
            positions,
            [column for column in columns if column],
            time_zone=self.connection.info.parameter_status("TimeZone"),
            label=label,
        )
        return source

    def rows(self, source: Any) -> Source:
        if isinstance(source, NamedRows):
            return self._named_rows(source)
        if hasattr(source, "dtypes"):  # something like a data frame, which would give its columns' names as rows
            hint = "Give its rows as Arrow data, or as a data frame of pandas or polars."
            raise LakebaseSettingsError(f"source is a {type(source).__name__}", hint=hint)
        if isinstance(source, bytes | Mapping) or not isinstance(source, Iterable):
            what = f"source is a {type(source).__name__}"
            raise LakebaseSettingsError(what, hint="Give rows, paths of files or Arrow data.")
        rows = iter(source)
        first = next(rows, None)
        if first is not None:
            rows = chain([first], rows)
        if first is not None and _is_arrow(first):
            return self.arrow(first.schema, _alike(rows, first.schema), label=_ROWS)
        if hasattr(first, "read"):
            hint = "Load one at a time, or give their paths."
            raise LakebaseSettingsError("source is a list of open files", hint=hint)
        if isinstance(first, Mapping):
            return self._dicts(rows, _ROWS)
        columns = self._columns(self._names_without_header(), _ROWS)
        return Rows(rows, [column for column in columns if column], label=_ROWS)

    def _named_rows(self, source: NamedRows) -> Source:
        columns = self._columns(source.names, _ROWS)
        positions = [number for number, column in enumerate(columns) if column]
        rows = source.rows
        if len(positions) < len(columns):
            rows = (tuple(row[position] for position in positions) for row in source.rows)
        return Rows(rows, [column for column in columns if column], label=_ROWS)

    def _dicts(self, rows: Iterator[Any], label: str, *, unit: str = "row", json_strings: bool = False) -> Source:
        wanted = self.request.columns
        names = list(wanted or ())
        if not names:
            try:
                first = next(rows, None)
            except BadValue as bad:
                raise load_error(bad, Rows(rows, (), label=label, unit=unit), self.table.name, self.context) from None
            names = list(first or self.table.loadable)
            rows = chain([first] if first is not None else [], rows)
        columns = self._columns(names, label)
        filled = [column for column in columns if column]
        return Rows(
            rows,
            filled,
            names=names,
            others=isinstance(wanted, Mapping),
            label=label,
            unit=unit,
            json_strings=json_strings,
        )

    def _columns(self, names: Sequence[str], label: str, *, is_header: bool = False) -> list[Column | None]:
        """Return, for each name of a source, the table's column for it; None for one that is left out."""
        targets = _targets(names, self.request.columns, label, is_header=is_header)
        for number, name in enumerate(targets, 1):
            if name is None or name in self.table.loadable:
                continue
            if name in {column.name for column in self.table.columns}:
                what = f"Column '{name}' of table {self.table.name} is generated, so {label} cannot fill it"
                raise self._error(what, "Leave it out, by 'columns' as a mapping.")
            if self.request.columns:
                what = f"columns names '{name}', which table {self.table.name} does not have"
                hint = f"Its columns are {', '.join(self.table.loadable)}."
                raise LakebaseSettingsError(what, context=self.context, hint=hint)
            raise self._no_column(number, name, label, is_header)
        if unknown := sorted(set(self.request.casts) - set(targets)):
            hint = "Name columns of the table that the source fills."
            raise LakebaseSettingsError(f"casts holds '{unknown[0]}'", context=self.context, hint=hint)
        return [None if name is None else self._column(name) for name in targets]

    def _column(self, name: str) -> Column:
        column = self.table.loadable[name]
        return column.as_text() if name in self.request.casts else column

    def _no_column(self, number: int, name: str, label: str, is_header: bool) -> LakebaseLoadError:
        hint = f"The table's are {', '.join(self.table.loadable)}. Map other names to them by 'columns'"
        if not is_header:
            return self._error(f"Table {self.table.name} has no column '{name}', which {label} holds", f"{hint}.")
        # What stands there may be no name, but a value of the first row.
        close = get_close_matches(name.lower(), map(str.lower, self.table.loadable), 1, 0.7)
        shown = f" '{name}'" if close and not any(each.isdigit() for each in name) else ""
        what = f"Name {number}{shown} in the first line of {label} is no column of table {self.table.name}"
        return self._error(what, f"{hint}; {_NO_HEADER}")

    def _error(self, what: str, hint: str) -> LakebaseLoadError:
        return LakebaseLoadError(what, context=self.context, hint=hint)


def _targets(
    names: Sequence[str],
    wanted: Sequence[str] | Mapping[str, str] | None,
    label: str,
    *,
    is_header: bool = False,
) -> list[str | None]:
    """Return the names in the table for the names of a source."""
    if isinstance(wanted, Mapping):
        if unknown := sorted(set(wanted) - set(names)):
            hint = f"Correct it; {_NO_HEADER}" if is_header else f"Its columns are {', '.join(names)}."
            raise LakebaseSettingsError(f"columns names '{unknown[0]}', which {label} does not hold", hint=hint)
        targets: list[str | None] = [wanted.get(name) if name else None for name in names]
    else:
        targets = list(wanted or names)
    if len(targets) != len(names):
        what = f"columns holds {len(targets)} names, but {label} has {len(names)} columns"
        raise LakebaseSettingsError(what, hint="Name one for each, or map the source's names to the table's.")
    if wanted is None or isinstance(wanted, Mapping):  # else they go by their order
        used = [name for name, target in zip(names, targets, strict=True) if target is not None]
        if repeated := sorted({name for name in used if used.count(name) > 1}):
            hint = "Give each a name of its own, or name the table's columns as a list, in the source's order."
            raise LakebaseSettingsError(f"{label} has two columns of the name '{repeated[0]}'", hint=hint)
    given = [target for target in targets if target is not None]
    if len(set(given)) < len(given):
        raise LakebaseSettingsError("columns names a column twice", hint="Name each once.")
    return targets


def _nowhere(number: int) -> Column:
    """Return a column of the temporary table for what goes nowhere."""
    return Column(f"left out {number}", "text", "text", -1, "any text")
