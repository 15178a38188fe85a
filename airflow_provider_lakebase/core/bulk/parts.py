"""Open the parts of a source one after another, and translate the errors of reading them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from airflow_provider_lakebase.core.bulk.byte_reader import Unreadable
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper
from airflow_provider_lakebase.core.bulk.compression import DAMAGED
from airflow_provider_lakebase.core.bulk.copy import Part, SourceFailed
from airflow_provider_lakebase.core.bulk.files import open_to_read
from airflow_provider_lakebase.core.bulk.formats import import_format, import_from_extra
from airflow_provider_lakebase.core.bulk.formats.row_parts import dicts_part, named_rows_part, tuples_part
from airflow_provider_lakebase.core.bulk.heads import Head
from airflow_provider_lakebase.core.bulk.partitions import FolderCheck, read_folders
from airflow_provider_lakebase.core.bulk.source import ROWS_LABEL, ArrowSource, Dicts, File, Files, NamedRows, Source
from airflow_provider_lakebase.core.storage import storage_error
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseLoadError


class PartOpener:
    """Open the parts of a source and map their columns to the table's.

    :param mapper: maps names to the table's columns
    """

    def __init__(self, mapper: ColumnMapper) -> None:
        self.mapper = mapper
        self._folder_check = FolderCheck(mapper.connection, mapper.options.casts or {})

    def read_heads(self, source: Source) -> list[Head]:
        """Return the heads of all parts, if there are several; otherwise none, because a part may be opened only once.

        :param source: from :func:`~airflow_provider_lakebase.core.bulk.source.classify`
        """
        if not (isinstance(source, Files) and len(source.files) > 1):
            return []
        heads = []
        for opened in self.parts(source):
            with opened as part:
                heads.append(Head.of(part))
        self.mapper.check_used()
        return heads

    def parts(self, source: Source) -> Iterator[AbstractContextManager[Part]]:
        """Yield each part as a context manager, which opens it and closes it when its rows are sent.

        :param source: from :func:`~airflow_provider_lakebase.core.bulk.source.classify`
        """
        if isinstance(source, Files) and source.files:
            yield from map(self._open_file, source.files)
        else:
            yield self._open_rows(Dicts(iter(()), ()) if isinstance(source, Files) else source)

    @contextmanager
    def _open_file(self, file: File) -> Iterator[Part]:
        if isinstance(file.opener, io.TextIOBase):
            raise self.mapper.error(f"{file.label} was opened as text", "Open it for bytes: open(path, 'rb').")
        with reading_file(file.label, self.mapper.context), open_to_read(file.opener) as opened:
            self.mapper.folders = read_folders(file.label)
            part = import_format(file.format).open_part(opened, file.label, self.mapper)
            part.folder_values = self._folder_values(part)
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
            return named_rows_part(source, ROWS_LABEL, self.mapper)
        if isinstance(source, Dicts):
            return dicts_part(source.rows, ROWS_LABEL, self.mapper)
        assert not isinstance(source, Files)  # noqa: S101 - for the type checker
        return tuples_part(source.rows, ROWS_LABEL, self.mapper)

    def _folder_values(self, part: Part) -> dict[str, str | None]:
        found = self.mapper.folder_columns(column.name for column in part.columns)
        for name, folder in found.items():
            self._folder_check.check(self.mapper.table, name, folder, part.label)
        return {name: folder.value for name, folder in found.items()}


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
