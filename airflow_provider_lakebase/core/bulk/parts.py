"""Open the parts of a source one after another, and translate the errors of reading them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import unquote

from airflow_provider_lakebase.core.bulk.byte_reader import Unreadable
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.compression import DAMAGED
from airflow_provider_lakebase.core.bulk.copy import Part, SourceFailed
from airflow_provider_lakebase.core.bulk.files import open_to_read
from airflow_provider_lakebase.core.bulk.formats import import_format, import_from_extra
from airflow_provider_lakebase.core.bulk.formats.row_parts import dicts_part, named_rows_part, tuples_part
from airflow_provider_lakebase.core.bulk.source import ROWS_LABEL, ArrowSource, Dicts, File, Files, NamedRows, Source
from airflow_provider_lakebase.core.storage import storage_error
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError


class PartOpener:
    """Open the parts of a source and map their columns to the table's.

    :param mapper: maps names to the table's columns
    """

    def __init__(self, mapper: ColumnMapper) -> None:
        self.mapper = mapper
        self._filled: set[str] | None = None

    def parts(self, source: Source) -> Iterator[AbstractContextManager[Part]]:
        """Yield each part as a context manager, which opens it and closes it when its rows are sent.

        :param source: from :func:`~airflow_provider_lakebase.core.bulk.source.classify`
        """
        if isinstance(source, Files):
            yield from map(self._open_file, source.files)
        else:
            yield self._open_rows(source)

    @contextmanager
    def _open_file(self, file: File) -> Iterator[Part]:
        if isinstance(file.opener, io.TextIOBase):
            raise self.mapper.error(f"{file.label} was opened as text", "Open it for bytes: open(path, 'rb').")
        with reading_file(file.label, self.mapper.context), open_to_read(file.opener) as opened:
            part = import_format(file.format).open_part(opened, file.label, self.mapper)
            self._check_columns(part)
            yield part

    @contextmanager
    def _open_rows(self, source: Source) -> Iterator[Part]:
        try:
            yield self._rows_part(source)
        except SourceFailed as failed:
            raise (failed.__cause__ or failed) from None

    def _rows_part(self, source: Source) -> Part:
        if isinstance(source, ArrowSource):
            part: Part = import_from_extra("arrow").arrow_part(source.schema, source.batches, ROWS_LABEL, self.mapper)
            return part
        if isinstance(source, NamedRows):
            return named_rows_part(source.rows, source.names, ROWS_LABEL, self.mapper)
        if isinstance(source, Dicts):
            return dicts_part(source.rows, ROWS_LABEL, self.mapper)
        assert not isinstance(source, Files)  # noqa: S101 - for the type checker
        return tuples_part(source.rows, ROWS_LABEL, self.mapper)

    def _check_columns(self, part: Part) -> None:
        loadable = self.mapper.table.loadable
        names = {column.name for column in part.columns if column.name in loadable}
        if self._filled is not None and names != self._filled:
            raise self.mapper.error(
                f"{part.label} has different columns from the files before it", "Load it separately."
            )
        if not self.mapper.options.columns:
            self._check_folders(part.label, names)
        self._filled = names

    def _check_folders(self, label: str, names: set[str]) -> None:
        """Reject a file in a folder such as day=2026-01-01 if the table has that column, but the file does not."""
        for folder in label.split("/")[:-1]:
            key, found, _ = folder.partition("=")
            name = unquote(key)
            if found and name in self.mapper.table.loadable and name not in names:
                raise self.mapper.error(
                    f"{label} has no column '{name}', which a folder in its path names and the table has",
                    "Nothing was loaded. Add the column to the file; or, to leave it to its default, list the columns "
                    "to load in 'columns'.",
                )


@contextmanager
def reading_file(label: str, context: ErrorContext) -> Iterator[None]:
    """Translate the errors that reading a file raises in the ``with`` block.

    :param label: the file's name in messages
    :param context: for errors
    :raises LakebaseLoadError: if the file is damaged, or not of the format that its name says
    :raises LakebaseStorageError: if its storage fails
    """
    try:
        yield
    except (SourceFailed, Unreadable, *DAMAGED) as error:
        cause = (error.__cause__ or error) if isinstance(error, SourceFailed) else error
        if isinstance(cause, Unreadable):
            what = f"{label} cannot be read: {cause}"
            raise LakebaseLoadError(what, context=context, hint=cause.hint, source=label) from None
        # Errors of the network and the disk have a number; those of a file's content have none.
        if isinstance(cause, (*DAMAGED, ValueError)) or getattr(cause, "errno", 0) is None:
            what = f"{label} is not what its name says, or is damaged or truncated"
            hint = "Write it again; nothing was loaded."
            raise LakebaseLoadError(what, context=context, hint=hint, source=label) from cause
        raise (storage_error(cause, label) or cause) from None
