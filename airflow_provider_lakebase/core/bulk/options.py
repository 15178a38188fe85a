"""The options of loads and exports: their names, types, defaults, documentation and checks.

Hook and operators derive their arguments from the dataclasses below; the keyword arguments are repeated for type
checkers only. Importing this module loads no driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypedDict, get_args, get_type_hints

from airflow_provider_lakebase.core.bulk.formats import FORMATS, FormatName
from airflow_provider_lakebase.core.bulk.formats.csv_options import (
    check_characters,
    check_encoding,
    check_null,
    check_numbers,
)
from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

Mode = Literal["append", "replace", "upsert"]
Duplicates = Literal["last", "error"]
CsvDialectName = Literal["auto"]
NewColumns = Literal["error", "add", "ignore"]
MissingColumns = Literal["default", "error"]

_CSV_ONLY: Mapping[str, Any] = {"format": "csv", "needs_file": True}
_FILES_ONLY: Mapping[str, Any] = {"needs_file": True}
"""For options that do not apply to the rows of a query."""
_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%")
_PARAM = re.compile(r"^ *:param (\w+): *(.*(?:\n(?! *:| *$).*)*)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How a file is read or written.

    :param format: ``csv``, ``json`` (one array of objects), ``jsonl`` (an object per line) or ``parquet``; by default
        the file name decides, ignoring a final ``.gz`` or ``.zst``
    :param header: whether the first line of a CSV file holds the column names
    :param null: unquoted text that stands for NULL in a CSV file; for a file to load, also a list of several texts
    :param delimiter: character that separates the values of a CSV file; for exports, one of ASCII
    :param quote: character that quotes values of a CSV file; for exports, one of ASCII. None if a file to load has no
        quoted values
    :param escape: character that stands before a quote, a delimiter, a line break or itself where that is part of a
        value; by default a quote is doubled within quotes, which a load understands in any case
    :param encoding: encoding of a CSV file, by its name in Python: ``latin-1``, ``cp1252``, ``utf-16``
    :raises LakebaseSettingsError: if a value is invalid
    """

    format: FormatName | None = field(default=None, metadata=_FILES_ONLY)
    header: bool = field(default=True, metadata=_CSV_ONLY)
    null: str | Sequence[str] = field(default="", metadata=_CSV_ONLY)
    delimiter: str = field(default=",", metadata=_CSV_ONLY)
    quote: str | None = field(default='"', metadata=_CSV_ONLY)
    escape: str | None = field(default=None, metadata=_CSV_ONLY)
    encoding: str = field(default="utf-8", metadata=_CSV_ONLY)

    def given_for_one_format(self) -> Iterator[tuple[str, FormatName]]:
        """Yield the name and the format of each option that applies to one format only and differs from its default."""
        for each in fields(self):
            if "format" in each.metadata and getattr(self, each.name) != each.default:
                yield each.name, each.metadata["format"]

    def __post_init__(self) -> None:
        if self.format is not None:
            _check_choice("format", self.format, tuple(FORMATS))
        check_characters(self._characters())
        check_encoding(self.encoding)
        check_null(self.nulls, self.delimiter, self.quote)

    @property
    def nulls(self) -> tuple[str, ...]:
        """The texts that stand for NULL."""
        return tuple(self.null) if isinstance(self.null, Sequence) and not isinstance(self.null, str) else (self.null,)

    def _characters(self) -> dict[str, str | None]:
        return {"delimiter": self.delimiter, "quote": self.quote, "escape": self.escape}


@dataclass(frozen=True, kw_only=True)
class ExportOptions(FileOptions):
    """How rows are exported to a file, or to numbered files in a folder.

    :param max_rows_per_file: make the destination a folder of files with at most so many rows each: ``part-00000.csv``
        and so on. They replace those of an earlier export; by default all rows are in one file
    :raises LakebaseSettingsError: if a value is invalid
    """

    max_rows_per_file: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.max_rows_per_file
        if most is not None and (type(most) is not int or most < 1):
            hint = "Give the most rows of a file, 1 or more; or None for one file."
            raise LakebaseSettingsError(f"max_rows_per_file is {most!r}", hint=hint)
        if not isinstance(self.null, str):
            raise LakebaseSettingsError("null is no text", hint="Give the one text that an export writes for NULL.")
        for name, value in self._characters().items():
            if value is not None and not value.isascii():
                hint = "Postgres writes CSV with characters of ASCII only; give one of these."
                raise LakebaseSettingsError(f"{name} is {value!r}, and this is an export", hint=hint)


@dataclass(frozen=True, kw_only=True)
class LoadOptions(FileOptions):
    """How rows are loaded into a table.

    :param mode: ``append``; ``replace`` all rows, or those that match ``replace_where``, while readers see the old rows
        until the commit; or ``upsert`` on ``key_columns``
    :param columns: target columns in the order of the source, or a mapping from source names to target columns, which
        skips the names that it does not list; by default the names of the source, or all columns if it has none
    :param key_columns: columns of the unique index that an upsert matches rows by; by default the primary key
    :param update_columns: columns that an upsert changes in existing rows; by default all loaded columns except the
        key. An empty list leaves existing rows unchanged
    :param duplicates: how an upsert treats several source rows with the same key: the ``last`` one wins, or
        ``error``
    :param version_column: an upsert changes an existing row only if this column is larger in the source
    :param replace_where: SQL condition on unqualified columns of the table, which selects the rows to ``replace``; all
        loaded rows must match it too
    :param casts: SQL types by target column: the text of the source is cast to that type before it is stored
    :param skip_lines: lines at the start of a CSV file to ignore, before the line of column names
    :param comment: character that begins lines of a CSV file to ignore, wherever they stand outside quotes
    :param decimal: character before the decimal places of numbers in a CSV file
    :param thousands: character between groups of three digits of numbers in a CSV file
    :param dialect: ``auto`` finds out delimiter, quote, escape, comment, encoding, lines to skip and header of a CSV
        file from its first MiB, and logs what it found. It keeps options that differ from their defaults, and rejects
        a file that has more than one reading
    :param index: whether the index of a pandas frame is loaded, under its names
    :param create_table: create the table if it does not exist, with ``key_columns`` as its primary key: True for the
        types of the Parquet or Arrow schema, or of a query on Postgres; or the SQL type by column, ``"*"`` for all
        other columns of the source
    :param reject_limit: how many rows that cannot be stored may be left out: a number of rows, or a share of all rows
        such as ``"1%"``; with more, nothing is loaded
    :param rejects_table: table, as in SQL, that the rows left out are written to in the same transaction; created if it
        does not exist
    :param allow_empty: load nothing, instead of failing, if there is no file in a folder or for a pattern. The mode
        ``replace`` then leaves no rows
    :param new_columns: what to do with columns that the source has and the table lacks: ``error``; ``add`` them at the
        end of the table, in the same transaction, with the type that ``create_table`` or ``casts`` gives or that the
        source declares; or ``ignore`` them
    :param missing_columns: whether columns that the table has and the source lacks get their ``default``, or are an
        ``error``
    :param load_id: identity of the load in the ledger, which is written in the same transaction: another load of the
        same identity into the table does nothing
    :param ledger_schema: schema of the ledger; created if the role may
    :raises LakebaseSettingsError: if a value is invalid, or contradicts another one
    """

    mode: Mode = "append"
    columns: Sequence[str] | Mapping[str, str] | None = None
    key_columns: Sequence[str] | None = None
    update_columns: Sequence[str] | None = None
    duplicates: Duplicates = "last"
    version_column: str | None = None
    replace_where: str | None = None
    casts: Mapping[str, str] | None = None
    skip_lines: int = field(default=0, metadata=_CSV_ONLY)
    comment: str | None = field(default=None, metadata=_CSV_ONLY)
    decimal: str = field(default=".", metadata=_CSV_ONLY)
    thousands: str | None = field(default=None, metadata=_CSV_ONLY)
    dialect: CsvDialectName | None = field(default=None, metadata=_CSV_ONLY)
    index: bool = field(default=False, metadata=_FILES_ONLY)
    create_table: bool | Mapping[str, str] = False
    reject_limit: int | str = 0
    rejects_table: str | None = None
    allow_empty: bool = field(default=False, metadata=_FILES_ONLY)
    new_columns: NewColumns = "error"
    missing_columns: MissingColumns = "default"
    load_id: str | None = None
    ledger_schema: str = LEDGER_SCHEMA

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("mode", self.mode, get_args(Mode))
        _check_choice("duplicates", self.duplicates, get_args(Duplicates))
        _check_choice("new_columns", self.new_columns, get_args(NewColumns))
        _check_choice("missing_columns", self.missing_columns, get_args(MissingColumns))
        if type(self.skip_lines) is not int or self.skip_lines < 0:
            raise LakebaseSettingsError(f"skip_lines is {self.skip_lines!r}", hint="Give a number of lines.")
        if self.dialect is not None:
            _check_choice("dialect", self.dialect, get_args(CsvDialectName))
        check_numbers(self.decimal, self.thousands, self._characters())
        check_null(self.nulls, self.delimiter, self.quote, self.comment)
        for name in ("update_columns", "version_column"):
            self._check_mode(name, "upsert")
        self._check_mode("replace_where", "replace")
        if self.key_columns and not self.create_table:
            self._check_mode("key_columns", "upsert")
        if self.load_id is not None and not self.load_id.strip():
            raise LakebaseSettingsError("load_id is empty", hint="Give each load its own identity, or None.")
        if self.rejects_table is not None and not self.rejects:
            hint = "Set 'reject_limit' to the number of rows, or the share of them, that may be left out."
            raise LakebaseSettingsError("rejects_table is given, but reject_limit is 0", hint=hint)
        if not isinstance(self.create_table, bool | Mapping):
            hint = "Give True, or a mapping from columns to SQL types."
            raise LakebaseSettingsError(f"create_table is a {type(self.create_table).__name__}", hint=hint)
        for name in ("columns", "key_columns", "update_columns"):
            if isinstance(getattr(self, name), str):
                raise LakebaseSettingsError(f"{name} is a str", hint="Give a list of names.")

    @property
    def rejects(self) -> bool:
        """Whether rows that cannot be stored are left out."""
        return self.most_rejects != (0, 0.0)

    @cached_property
    def most_rejects(self) -> tuple[int | None, float]:
        """The rows that may be left out: a number, or None and a share between 0 and 1."""
        limit = self.reject_limit
        if type(limit) is int and limit >= 0:
            return limit, 0.0
        if isinstance(limit, str) and (found := _SHARE.fullmatch(limit)) and float(found[1]) <= 100:
            return (None, float(found[1]) / 100) if float(found[1]) else (0, 0.0)
        hint = "Give a number of rows, or a share of them such as '1%'."
        raise LakebaseSettingsError(f"reject_limit is {limit!r}", hint=hint)

    def _characters(self) -> dict[str, str | None]:
        return {**super()._characters(), "comment": self.comment}

    def _check_mode(self, name: str, mode: Mode) -> None:
        if getattr(self, name) is not None and self.mode != mode:
            raise LakebaseSettingsError(f"{name} is given with mode '{self.mode}'", hint=f"Use mode '{mode}'.")


class FileKeywords(TypedDict, total=False):
    """The fields of :class:`FileOptions` as keyword arguments."""

    format: FormatName | None
    header: bool
    null: str | Sequence[str]
    delimiter: str
    quote: str | None
    escape: str | None
    encoding: str


class ExportKeywords(FileKeywords, total=False):
    """The fields of :class:`ExportOptions` as keyword arguments."""

    max_rows_per_file: int | None


class LoadKeywords(FileKeywords, total=False):
    """The fields of :class:`LoadOptions` as keyword arguments."""

    mode: Mode
    columns: Sequence[str] | Mapping[str, str] | None
    key_columns: Sequence[str] | None
    update_columns: Sequence[str] | None
    duplicates: Duplicates
    version_column: str | None
    replace_where: str | None
    casts: Mapping[str, str] | None
    skip_lines: int
    comment: str | None
    decimal: str
    thousands: str | None
    dialect: CsvDialectName | None
    index: bool
    create_table: bool | Mapping[str, str]
    reject_limit: int | str
    rejects_table: str | None
    allow_empty: bool
    new_columns: NewColumns
    missing_columns: MissingColumns
    load_id: str | None
    ledger_schema: str


class Option(NamedTuple):
    """An option as callers see it.

    :param name: its name
    :param annotation: its type
    :param default: its default
    :param description: its documentation, on one line
    :param needs_file: whether it applies to files, but not to the rows of a query
    """

    name: str
    annotation: Any
    default: Any
    description: str
    needs_file: bool


def list_options(options: type[FileOptions], *, without: Sequence[str] = ()) -> tuple[Option, ...]:
    """Return the options of a dataclass, its own before those that it inherits.

    :param options: one of the dataclasses of this module
    :param without: names to skip
    """
    types = get_type_hints(options)
    known = {each.name: each for each in fields(options)}
    return tuple(
        Option(name, types[name], known[name].default, text, "needs_file" in known[name].metadata)
        for name, text in _describe(options)
        if name not in without
    )


def _describe(options: type[FileOptions]) -> Iterator[tuple[str, str]]:
    """Yield each option and its ``:param:`` text on one line; under ``python -OO`` an empty text."""
    for each in options.__mro__:
        texts = dict(_PARAM.findall(each.__doc__ or ""))
        for name in vars(each).get("__annotations__", {}):
            yield name, " ".join(texts.get(name, "").split())


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise LakebaseSettingsError(f"{name} is {value!r}", hint=f"Choose from {', '.join(choices)}.")
