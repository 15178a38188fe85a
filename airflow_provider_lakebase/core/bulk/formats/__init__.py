"""The file formats of loads and exports: one module each, listed in one table.

A module of a format defines what :class:`FormatModule` lists. It is imported when a file of its format is opened, so
that reading the table loads neither a driver nor pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

    from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
    from airflow_provider_lakebase.core.bulk.copy import Part
    from airflow_provider_lakebase.core.bulk.copy_out import NextFile
    from airflow_provider_lakebase.core.bulk.options import ExportOptions, LoadOptions
    from airflow_provider_lakebase.core.bulk.progress import Progress

FormatName = Literal["csv", "json", "jsonl", "parquet"]


class FileFormat(NamedTuple):
    """A row of the table of formats.

    :param module: name of its module in this package
    :param endings: file name endings that mean this format, in lower case
    :param has_schema: whether a file declares the types of its columns, so that a table can be created from it
    :param is_sent_as_is: whether Postgres parses the file's text, so that values are checked after COPY, not before
    """

    module: str
    endings: tuple[str, ...]
    has_schema: bool = False
    is_sent_as_is: bool = False


FORMATS: Mapping[FormatName, FileFormat] = {
    "csv": FileFormat("csv", (".csv",), is_sent_as_is=True),
    "json": FileFormat("json_array", (".json",)),
    "jsonl": FileFormat("json_lines", (".jsonl", ".ndjson")),
    "parquet": FileFormat("parquet", (".parquet", ".pq"), has_schema=True),
}


_NEED_EXTRA = {"arrow": "Parquet and Arrow need", "sniff": "dialect='auto' needs"}


class FormatModule(Protocol):
    """The interface that the module of a format implements."""

    def open_part(self, file: IO[bytes], label: str, mapper: ColumnMapper) -> Part:
        """Read the head of a file and return the part that sends its rows by COPY."""

    def write_query(
        self,
        connection: psycopg.Connection[Any],
        query: sql.Composable,
        next_file: NextFile,
        options: ExportOptions,
        progress: Progress,
    ) -> int:
        """Write the rows of a query to one or more files and return how many there were."""

    def read_names(self, file: IO[bytes], options: LoadOptions) -> list[str] | None:
        """Return the column names of a file, or None if it has none; only formats without a schema define this."""

    def read_schema(self, file: IO[bytes], label: str, context: Any) -> Any:
        """Return a file's Arrow schema; only formats that have one define this."""


def import_format(name: FormatName) -> FormatModule:
    """Return the module of a format.

    :param name: a key of :data:`FORMATS`
    :raises LakebaseSettingsError: if the format needs an extra that is not installed
    """
    return cast("FormatModule", import_from_extra(FORMATS[name].module))


def import_from_extra(module: str, extra: str = "arrow") -> ModuleType:
    """Return a module of this package that may need an extra.

    :param module: its name
    :param extra: the extra
    :raises LakebaseSettingsError: if the extra is not installed
    """
    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        hint = f"Install the extra: pip install 'airflow-provider-lakebase[{extra}]'."
        raise LakebaseSettingsError(f"{_NEED_EXTRA[extra]} {error.name}", hint=hint) from error
