"""Classify the source of a load: files, Arrow data or rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

from airflow_provider_lakebase.core.bulk.byte_reader import Unreadable
from airflow_provider_lakebase.core.bulk.compression import DAMAGED
from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.files import describe_file, find_format, is_open_file, is_path, open_to_read
from airflow_provider_lakebase.core.bulk.formats import FORMATS, FileFormat, FormatName, import_from_extra
from airflow_provider_lakebase.core.bulk.formats.server_copy import QueryCopy
from airflow_provider_lakebase.core.bulk.listing import list_files
from airflow_provider_lakebase.core.frame_values import is_frame
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

ROWS_LABEL = "the source"
"""What messages call a source that is not a file."""


@dataclass(frozen=True)
class File:
    """A file to load.

    :param opener: its path, or an open file
    :param format: its format
    """

    opener: Any
    format: FormatName

    @cached_property
    def label(self) -> str:
        """Its name in messages."""
        return describe_file(self.opener)

    @property
    def kind(self) -> FileFormat:
        """Its row in the table of formats."""
        return FORMATS[self.format]


@dataclass(frozen=True)
class Files:
    """Files, loaded in one transaction; none if a folder or pattern may be empty, and is."""

    files: tuple[File, ...]


@dataclass(frozen=True)
class ArrowSource:
    """Arrow data; each batch has the columns of the schema, in its order."""

    schema: Any
    batches: Iterable[Any]


@dataclass(frozen=True)
class FrameSource(ArrowSource):
    """Arrow data of data frames, which may have an index."""


@dataclass(frozen=True)
class NamedRows:
    """Rows whose values have names, such as those of a query.

    :param rows: tuples of values
    :param names: the name of each value
    :param types: the Postgres type of each value, as DDL writes it; None if they are unknown
    :param query: the query whose rows they are, if COPY can run it; the rows are then read only if COPY is not used
    """

    rows: Iterable[Sequence[Any]]
    names: Sequence[str]
    types: Sequence[str] | None = None
    query: QueryCopy | None = None


@dataclass(frozen=True)
class Dicts:
    """Dicts by column name.

    :param rows: the dicts
    :param names: the keys of the first one
    """

    rows: Iterator[Any]
    names: Sequence[str]


@dataclass(frozen=True)
class Tuples:
    """Rows whose values have no names."""

    rows: Iterator[Any]


Source: TypeAlias = Files | ArrowSource | NamedRows | Dicts | Tuples


def classify(
    source: Any, format: FormatName | None = None, index: bool = False, *, allow_empty: bool = False
) -> Source:
    """Return a source as one of the classes above. Reads the first item of an iterable; opens no file of known format.

    :param source: the source, as the caller gave it
    :param format: the option of that name
    :param index: the option of that name
    :param allow_empty: the option of that name
    :raises LakebaseSettingsError: for a source that cannot be loaded, or a file whose format is unknown
    :raises FileNotFoundError: if a folder or pattern has no file; if there is no such file, and its name does not tell
        its format
    """
    if is_frame(source) and not _is_lazy_frame(source):
        table = import_from_extra("frames").frame_to_arrow(source, index)
        return ArrowSource(table.schema, _batches(table))
    found = source if isinstance(source, NamedRows) else _classify_other(source, format, index, allow_empty)
    if index and not isinstance(found, FrameSource):
        raise LakebaseSettingsError("index is True, but the source is no pandas frame", hint="Leave it out.")
    return found


def _classify_other(source: Any, format: FormatName | None, index: bool, allow_empty: bool) -> Source:
    if _is_library(source, "pyarrow") and hasattr(source, "iter_batches"):  # an opened Parquet file
        return ArrowSource(source.schema_arrow, source.iter_batches())
    if named := _named_files(source):
        return Files(tuple(_file(file, format) for file in list_files(named, allow_empty=allow_empty)))
    if _is_library(source, "pyarrow") and hasattr(source, "schema"):
        return ArrowSource(source.schema, _batches(source))
    if _is_lazy_frame(source):
        return _unite(import_from_extra("frames").lazy_frame_to_arrow(source))
    if hasattr(source, "__arrow_c_stream__"):
        stream = import_from_extra("frames").stream_to_arrow(source)
        return ArrowSource(stream.schema, stream)
    return _classify_rows(source, index)


def _file(opener: Any, format: FormatName | None) -> File:
    try:
        return File(opener, find_format(opener, format))
    except LakebaseSettingsError:
        # That it is missing, or a folder, says more than that its name has no ending.
        with suppress(Unreadable, *DAMAGED), open_to_read(opener):
            pass
        raise


def _named_files(source: Any) -> list[Any]:
    # A reader of pandas also has a method of that name, but yields frames.
    has_bytes = hasattr(source, "read") and not _is_library(source, "pandas")
    if is_path(source) or is_open_file(source) or has_bytes:
        return [source]
    if isinstance(source, list | tuple) and source and all(is_path(each) or is_open_file(each) for each in source):
        return list(source)
    return []


def _classify_rows(source: Any, index: bool) -> Source:
    if hasattr(source, "dtypes"):  # another kind of data frame, which iterates over the names of its columns
        hint = "Give its rows as Arrow data, or as a data frame of pandas or polars."
        raise LakebaseSettingsError(f"source is a {type(source).__name__}", hint=hint)
    if isinstance(source, bytes | Mapping) or not isinstance(source, Iterable):
        what = f"source is a {type(source).__name__}"
        raise LakebaseSettingsError(what, hint="Give rows, paths of files or Arrow data.")
    rows = iter(source)
    first = next(rows, None)
    if first is None:
        return Tuples(rows)
    rows = chain([first], rows)
    if is_frame(first):
        united = _unite(import_from_extra("frames").frames_to_arrow(rows, index))
        return FrameSource(united.schema, united.batches)
    if hasattr(first, "__arrow_c_stream__") and not _is_library(first, "pyarrow"):
        return _unite(map(import_from_extra("frames").stream_to_arrow, rows))
    if _is_library(first, "pyarrow") and hasattr(first, "schema"):
        return _unite(rows)
    if hasattr(first, "read"):
        raise LakebaseSettingsError("source is a list of open files", hint="Load one at a time, or give their paths.")
    return Dicts(rows, tuple(first)) if isinstance(first, Mapping) else Tuples(rows)


def _is_library(value: Any, *names: str) -> bool:
    return type(value).__module__.partition(".")[0] in names


def _is_lazy_frame(value: Any) -> bool:
    return _is_library(value, "polars") and type(value).__name__ == "LazyFrame"


def _batches(data: Any) -> Iterable[Any]:
    if hasattr(data, "to_batches"):
        return data.to_batches()  # type: ignore[no-any-return]
    return [data] if hasattr(data, "num_rows") else data


def _unite(parts: Iterator[Any]) -> ArrowSource:
    first = next(parts)
    return ArrowSource(first.schema, _alike(chain([first], parts), first.schema))


def _alike(parts: Iterable[Any], schema: Any) -> Iterator[Any]:
    """Yield the batches of several tables in the column order of the first. Their column types may differ."""
    for part in parts:
        if part.schema.names != schema.names:
            if sorted(part.schema.names) != sorted(schema.names) or len(set(schema.names)) < len(schema.names):
                raise BadValue("its record batch has different columns from the first one", None)
            part = part.select(schema.names)
        yield from _batches(part)
