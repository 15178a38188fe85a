"""CSV files: sent as they are, so that Postgres parses the values, after a check of quotes, dates and times."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import IO, Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.byte_reader import BLOCK_BYTES, open_as_text
from airflow_provider_lakebase.core.bulk.catalog import Column, identifiers
from airflow_provider_lakebase.core.bulk.columns import ColumnMapper, ignored_column
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Part
from airflow_provider_lakebase.core.bulk.copy_out import BlockWriter, NextFile, write_copy
from airflow_provider_lakebase.core.bulk.formats import import_from_extra
from airflow_provider_lakebase.core.bulk.formats.csv_dates import DateCheck
from airflow_provider_lakebase.core.bulk.formats.csv_dialect import CsvDialect
from airflow_provider_lakebase.core.bulk.formats.csv_header import (
    MOST_HEADER_BYTES,
    check_names,
    forced_nulls,
    read_header,
    skip_lines,
)
from airflow_provider_lakebase.core.bulk.formats.csv_quotes import QuoteCheck, end_of_row, quote_end_marks
from airflow_provider_lakebase.core.bulk.formats.csv_rejects import RowFilter
from airflow_provider_lakebase.core.bulk.formats.csv_rewrite import needs_rewriting, open_rewritten, read_first_names
from airflow_provider_lakebase.core.bulk.options import ExportOptions, LoadOptions
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseExportError, LakebaseSettingsError


def open_part(file: IO[bytes], label: str, mapper: ColumnMapper) -> Part:
    """Read the header of a file and return the part that sends the rest.

    :param file: open for reading bytes
    :param label: its name in messages
    :param mapper: maps names to the table's columns
    :raises Unreadable: if it does not start with a line of column names in UTF-8
    :raises LakebaseLoadError: if the names are not the table's
    """
    options = mapper.options
    if options.dialect is not None:
        file, options = _sniff(file, label, options, _known_names(mapper))
    text = open_as_text(file, options.encoding)
    rest, skipped = skip_lines(text, options.skip_lines)
    if needs_rewriting(options):
        return open_rewritten(text, rest, skipped, label, mapper, options)
    dialect = CsvDialect.of(options.delimiter, options.quote)
    header = b""
    if options.header:
        header, rest, names = read_header(text, dialect, rest)
        check_names(names, label, mapper)
    else:
        names = mapper.names_by_position()
    columns = mapper.map(names, label, is_header=bool(header))
    return CsvPart(
        text,
        [column or ignored_column(number) for number, column in enumerate(columns)],
        header=header,
        rest=rest,
        names=[column.name if column else f"{number} of the file" for number, column in enumerate(columns, 1)],
        null=options.nulls[0],
        forced_null=list(forced_nulls(columns, mapper, options.nulls)),
        label=label,
        dialect=dialect,
        skipped=skipped,
    )


def read_names(file: IO[bytes], options: LoadOptions) -> list[str] | None:
    """Return the names in the header of a file; None for a file without a header.

    :param file: open for reading bytes
    :param options: of the load
    :raises Unreadable: if it does not start with a line of column names
    """
    if options.dialect is not None:
        file, options = _sniff(file, None, options, None)  # open_part logs it
    if not options.header:
        return None
    text = open_as_text(file, options.encoding)
    rest, skipped = skip_lines(text, options.skip_lines)
    if needs_rewriting(options):
        return read_first_names(text, rest, skipped, options)
    return read_header(text, CsvDialect.of(options.delimiter, options.quote), rest)[2]


def _sniff(
    file: IO[bytes], label: str | None, options: LoadOptions, known: set[str] | None
) -> tuple[IO[bytes], LoadOptions]:
    found: tuple[IO[bytes], LoadOptions] = import_from_extra("csv_sniff", "sniff").sniff(file, label, options, known)
    return found


def _known_names(mapper: ColumnMapper) -> set[str] | None:
    """Return the names that a header may have; None if any."""
    wanted = mapper.options.columns
    if wanted and not isinstance(wanted, Mapping):
        return None
    return set(wanted or mapper.table.loadable)


def write_query(
    connection: psycopg.Connection[Any],
    query: sql.Composable,
    next_file: NextFile,
    options: ExportOptions,
    progress: Progress,
) -> int:
    """Write the rows of a query.

    :param connection: an open session
    :param query: the query
    :param next_file: opens each file
    :param options: those of CSV, and ``max_rows_per_file``
    :param progress: counts rows and bytes
    :returns: rows written
    :raises LakebaseExportError: for a character that the encoding does not have
    """
    is_utf8 = codecs.lookup(options.encoding).name == "utf-8"
    encoding = partial(_EncodingWriter, encoding=options.encoding, context=session_context(connection))
    return write_copy(
        connection,
        copy_out(query, options),
        next_file,
        progress,
        rows_per_file=options.max_rows_per_file,
        has_header=options.header,
        writer=BlockWriter if is_utf8 else encoding,
    )


class _EncodingWriter(BlockWriter):
    """Write blocks of UTF-8 in another encoding."""

    def __init__(self, file: IO[bytes], *, encoding: str, context: ErrorContext) -> None:
        super().__init__(file)
        self._encoding = encoding
        self._encoder = codecs.getincrementalencoder(encoding)()
        self._context = context

    def write(self, block: bytes) -> None:
        try:
            self.file.write(self._encoder.encode(block.decode()))
        except UnicodeEncodeError as error:
            character = f"U+{ord(error.object[error.start]):04X}"
            # The error of the codec quotes the value.
            raise LakebaseExportError(
                f"A value contains the character {character}, which {self._encoding} does not have",
                context=self._context,
                hint="Choose another 'encoding', such as utf-8.",
            ) from None


def copy_out(query: sql.Composable, options: ExportOptions) -> sql.Composed:
    """Return the statement that writes a query as CSV.

    :param query: the query
    :param options: those of CSV files have an effect
    :raises LakebaseSettingsError: without a quote, which a value that contains the delimiter needs
    """
    if options.quote is None:
        raise LakebaseSettingsError("quote is None", hint="Give the character that quotes values.")
    escape = options.escape or options.quote
    # Readers differ on what an escape means outside quotes.
    force = "" if escape == options.quote else ", FORCE_QUOTE *"
    # The line break keeps a comment at the end of the query away from the parenthesis.
    statement = sql.SQL(
        "COPY ({}\n) TO STDOUT (FORMAT csv, HEADER {}, NULL {}, DELIMITER {}, QUOTE {}, ESCAPE {}, ENCODING 'UTF8'{})"
    )
    header = sql.SQL("true" if options.header else "false")
    texts = (options.nulls[0], options.delimiter, options.quote, escape)
    return statement.format(query, header, *map(sql.Literal, texts), sql.SQL(force))


class CsvPart(Part):
    """Send a CSV file unchanged.

    :param file: UTF-8 text after its header, open for reading bytes
    :param columns: the target columns of its columns
    :param header: its first line, if that holds the names
    :param rest: bytes that were read after the header
    :param names: names of its columns in messages
    :param null: unquoted text that stands for NULL
    :param forced_null: names of the columns in which that text stands for NULL in quotes, too
    :param label: its name in messages
    :param dialect: how its values are separated and quoted
    :param skipped: lines before its header
    """

    unit = "line"
    has_null_text = True

    def __init__(
        self,
        file: io.RawIOBase,
        columns: Sequence[Column],
        *,
        header: bytes,
        rest: bytes,
        names: Sequence[str],
        null: str,
        forced_null: Sequence[str] = (),
        label: str,
        dialect: CsvDialect,
        skipped: int = 0,
    ) -> None:
        self.dialect = dialect
        self.file = file
        self.columns = columns
        self.names = names
        self.header = header
        self.rest = rest
        self.null = null
        self.forced_null = forced_null
        self.label = label
        self._header_lines = skipped + header.count(b"\r" if header.endswith(b"\r") else b"\n")
        self._lines = self._rows = 0
        self._line_end = b""
        self._quotes = QuoteCheck(self._header_lines + 1, b"\n", names, dialect)

    def locate(self, row: int) -> tuple[str, int]:
        """Return the line of a row, or its number if values contain line breaks.

        :param row: number of the row, from 1
        """
        has_a_line_each = self._lines - self._header_lines in (self._rows, self._rows - 1)
        return ("line", row + self._header_lines) if has_a_line_each else ("row", row)

    def locate_copied(self, line: int) -> tuple[str, int | None]:
        """Return the line of the file, or the row, for the line that an error of COPY names.

        :param line: as Postgres counts it
        """
        behind_own_header = line - (1 if self._line_end else 0)
        counted = self._quotes.postgres_counts
        if counted == "line":
            return "line", self._header_lines + behind_own_header
        return "row", behind_own_header if counted == "row" else None

    def copy_to(self, target: CopyTarget) -> None:
        """Send the file.

        :param target: the relation to write to
        :raises BadValue: for a misplaced quote, and for a date or time that its column would change
        :raises psycopg.Error: if Postgres rejects a line
        """
        first = self.rest or self.file.read(BLOCK_BYTES)
        # To see how its lines end.
        while not self.header and end_of_row(first, self.dialect) is None and len(first) < MOST_HEADER_BYTES:
            if not (more := self.file.read(BLOCK_BYTES)):
                break
            first += more
        self._line_end = _line_end(self.header or first, self.dialect)
        self._quotes = QuoteCheck(self._header_lines + 1, self._line_end or b"\n", self.names, self.dialect)
        before = target.rows
        with target.copy(self._copy_options()) as copy:
            if self._line_end:
                # A first line of our own tells Postgres how lines end, so that it counts line breaks in quotes right.
                own_header = b"header" + self._line_end
                copy.write(own_header)
                target.progress.add(bytes=len(self.header) - len(own_header))
            row_bytes = 0.0
            for block in quote_end_marks(
                self._checked(first, target), self.null, lambda: self._quotes.is_inside, self.dialect
            ):
                # An estimate for the log, until Postgres has counted the rows.
                row_bytes = row_bytes or len(block) / max(block.count(b"\n"), 1)
                target.progress.add(rows=int(len(block) / row_bytes))
                copy.write(block)
        self._lines = self._quotes.line - 1
        self._rows = target.rows - before + len(self.skipped)

    def _copy_options(self) -> sql.Composed:
        delimiter, quote = self.dialect.delimiter.decode(), self.dialect.quote.decode()
        options = sql.SQL("FORMAT csv, HEADER {}, NULL {}, DELIMITER {}, QUOTE {}, ESCAPE {}, ENCODING 'UTF8'").format(
            sql.SQL("true" if self._line_end else "false"),
            *map(sql.Literal, (self.null, delimiter, quote, quote)),
        )
        return (
            options + sql.SQL(", FORCE_NULL ({})").format(identifiers(self.forced_null))
            if self.forced_null
            else options
        )

    def _checked(self, block: bytes, target: CopyTarget) -> Iterator[bytes]:
        quotes, dates = self._quotes, self._row_check(target)
        while block:
            if dates.checks or target.rejects is not None:
                block = dates.read(block, quotes)
            else:
                quotes.read(block)
            if block:
                yield block
            # A row longer than a block is checked again with the next block, so take ever larger ones.
            block = self.file.read(max(BLOCK_BYTES, dates.waiting))
        if last := dates.finish(quotes):
            yield last
        quotes.finish()

    def _row_check(self, target: CopyTarget) -> DateCheck:
        if target.rejects is None:
            return DateCheck(self.columns, self.null, self.dialect)

        def reject(bad: BadValue, row: bytes, number: int) -> None:
            self.reject(target, bad, row.rstrip(b"\r\n").decode(errors="backslashreplace"), number)

        return RowFilter(self.columns, self.null, self.dialect, reject)


def _line_end(data: bytes, dialect: CsvDialect) -> bytes:
    """Return the characters that end the first row; none if it has no end."""
    end = end_of_row(data, dialect)
    if end is None:
        return b"\r" if data.endswith(b"\r") else b""
    return b"\r\n" if data[end - 2 : end] == b"\r\n" else data[end - 1 : end]
