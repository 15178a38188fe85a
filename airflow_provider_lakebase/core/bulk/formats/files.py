"""Files to load from and export to, local or on object storage, plain, gzip or zstd; CSV and JSON Lines into COPY."""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import uuid4

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column, identifiers
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Source
from airflow_provider_lakebase.core.bulk.formats.csv_check import DateCheck, QuoteCheck, end_of_row, quote_end_marks
from airflow_provider_lakebase.core.storage import folder_error, shown, storage_error
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 18
"""Bytes read from a file at a time; COPY's speed does not depend on it."""
FORMATS = ("csv", "jsonl", "parquet")
_ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
_GZIP_LEVEL = 6
_ATOMIC = ("s3", "s3a", "gs", "gcs")
"""Where an object appears when its upload is completed."""
_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
_MOST_HEADER_BYTES = 1 << 20
_MOST_COMPRESSIONS = 4
_MAGIC_BYTES = 6
_MOST_INT_DIGITS = 4300
_MAGIC = (("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5\x2f\xfd"), ("zstd", b"\x50\x2a\x4d\x18"))
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (b"PK\x03\x04", "a zip file (as are Excel's)"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz"),
    (b"PAR1", "a Parquet file"),
)
_FIRST_BYTES = 1 << 16
_HEADER_REMEDY = (
    "Give a CSV file in UTF-8 whose first line holds column names; where the file has no line of names, give "
    "header=False; where it is not CSV, its 'format'."
)
_OTHER_REMEDY = "Write it as UTF-8, plain or compressed by gzip or zstd; where it is Parquet, say so as 'format'."
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)
"""What a compressed file raises that is cut short or is none."""


class Unreadable(ValueError):
    """Say why a file cannot be read, and what to do.

    :param what: why, in words that hold no value
    :param hint: what to do, as a sentence
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def is_open_file(source: Any) -> bool:
    """Return whether a source is what ``fsspec.open`` gives: a file that is opened by a with statement.

    :param source: anything
    """
    return type(source).__module__.partition(".")[0] == "fsspec" and type(source).__name__ == "OpenFile"


def is_path(source: Any) -> bool:
    """Return whether a source is the path of a file: str, ``pathlib.Path`` or Airflow's ``ObjectStoragePath``.

    :param source: anything
    """
    return isinstance(source, str | Path) or (hasattr(source, "open") and hasattr(source, "name"))


def describe(file: Any) -> str:
    """Return what a file is called in messages; never its content.

    :param file: path, or file object
    """
    if is_path(file):
        return shown(file)
    name = getattr(file, "full_name", None)  # of fsspec's files
    if isinstance(name, str) and "://" in name and not name.startswith(("file://", "local://")):
        return shown(name)
    if is_open_file(file):
        return str(file.path)
    name = getattr(file, "name", None) or getattr(getattr(file, "raw", None), "name", None)
    return str(name) if isinstance(name, str | Path) else "the file"


def find_format(file: Any, wanted: str | None) -> str:
    """Return the format of a file: as wanted, else by the ending of its name.

    :param file: path, or file object
    :param wanted: ``csv``, ``jsonl``, ``parquet``, or None
    :raises LakebaseSettingsError: when neither tells
    """
    if wanted is None:
        suffixes = _suffixes(file)
        wanted = _ENDINGS.get(suffixes[-1] if suffixes else "")
        if wanted is None and not suffixes and not is_path(file) and not is_open_file(file):
            wanted = "csv"
    if wanted is None or wanted not in FORMATS:
        what = f"The format of {describe(file)} is not known" if wanted is None else f"format is {wanted!r}"
        hint = f"Choose 'format' from {', '.join(FORMATS)}; .gz and .zst say how a file is compressed."
        raise LakebaseSettingsError(what, hint=hint)
    return wanted


def _suffixes(file: Any) -> list[str]:
    suffixes = [suffix.lower() for suffix in Path(Path(describe(file)).name).suffixes]
    return suffixes[:-1] if suffixes and suffixes[-1] in _COMPRESSION else suffixes


def _compression(file: Any) -> str | None:
    return _COMPRESSION.get(Path(describe(file)).suffix.lower())


@contextmanager
def open_to_read(source: Any) -> Iterator[IO[bytes]]:
    """Open a file, and decompress it when its first bytes say so, whatever it is called.

    :param source: path, a file opened for reading bytes, or fsspec's ``OpenFile``
    :raises FileNotFoundError: when there is no such file
    :raises Unreadable: for a file that was opened for something else
    """
    label = describe(source)
    with _explained(label), ExitStack() as stack:
        if is_path(source):
            path = Path(source) if isinstance(source, str) else source
            file = stack.enter_context(_open_path(path, label))
        else:
            file = stack.enter_context(source) if is_open_file(source) else source
        for level in range(_MOST_COMPRESSIONS + 1):
            head, file = _peek(file)
            if level == 0 and not head and "://" in label and is_path(source) and source.is_dir():
                raise folder_error(label)  # a prefix reads as an object of no bytes
            compression = next((name for name, magic in _MAGIC if head.startswith(magic)), None)
            if level == 0 and not head and is_path(source) and _compression(source):
                raise EOFError("a compressed file of no bytes is cut short")
            if compression is None:
                break
            if level == _MOST_COMPRESSIONS:
                raise Unreadable("it is compressed over and over", "Compress it once.")
            if compression == "gzip":
                file = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb"))
            else:
                file = stack.enter_context(zstd.ZstdFile(file))
        yield file


def _open_path(path: Any, label: str) -> Any:
    try:
        return path.open("rb")
    except FileNotFoundError:
        if "://" in label and path.is_dir():
            raise folder_error(label) from None
        raise


@contextmanager
def _explained(label: str, *, writes: bool = False) -> Iterator[None]:
    try:
        yield
    except DAMAGED:
        raise
    except Exception as error:
        told = storage_error(error, label, writes=writes)
        if told is None:
            raise
        # The original may quote a URL with its signature.
        raise told from None


def _peek(file: Any) -> tuple[bytes, Any]:
    """Return the first bytes of a file, and a file that still has them before it."""
    reader = _Reader(file)
    head = b""
    while len(head) < _MAGIC_BYTES and (more := reader.read(_MAGIC_BYTES - len(head))):
        head += more
    try:
        if head and file.seekable():
            file.seek(-len(head), io.SEEK_CUR)
            return head, file
        if not head:
            return head, file
    except (AttributeError, OSError, ValueError):
        pass
    reader.head = head
    return head, io.BufferedReader(reader, BLOCK_BYTES)


class _Reader(io.RawIOBase):
    """Read a file that has no more than ``read(size)``.

    :param file: what has it
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.head = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.head:
            data, self.head = self.head, b""
            return data
        return self._read(size)

    def readinto(self, buffer: Any) -> int:
        if self.head:
            data, self.head = self.head[: len(buffer)], self.head[len(buffer) :]
        else:
            data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        try:
            data = self.file.read(size)
        except DAMAGED:
            raise
        except (TypeError, AttributeError, ValueError) as error:  # closed, opened for writing, read() without a size
            if isinstance(error, Unreadable):
                raise
            reason = "it is closed, or not open for reading bytes"
            raise Unreadable(reason, "Give a file that is open: open(path, 'rb').") from error
        if isinstance(data, str):
            raise Unreadable("it was opened as text", "Open it for bytes: open(path, 'rb').")
        if data is None:
            raise Unreadable("it does not block, and has no bytes yet", "Give a file that waits for its bytes.")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise Unreadable(f"its read() returns {type(data).__name__}", "Open it for bytes: open(path, 'rb').")
        return bytes(data)


def as_text(file: IO[bytes]) -> io.RawIOBase:
    """Return a file of UTF-8 text from behind its byte order mark.

    :param file: opened for reading bytes
    :raises Unreadable: for another encoding or format
    """
    text = _Reader(file)
    head = b""
    while len(head) < _MAGIC_BYTES and (more := text.read(_MAGIC_BYTES - len(head))):
        head += more
    for mark, name in _OTHER_MARKS:
        if head.startswith(mark):
            raise Unreadable(f"it is {name}, not UTF-8 text", _OTHER_REMEDY)
    text.head = head.removeprefix(codecs.BOM_UTF8)
    return text


@contextmanager
def open_to_write(destination: Any) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name when the block has ended well, and not at all otherwise.

    On S3 and Google Cloud Storage the upload is completed or aborted under the name itself. Elsewhere a file beside it
    gets the name at the end.

    :param destination: path; the ending of its name says how it is compressed
    :raises LakebaseStorageError: when the storage fails
    """
    final = Path(destination) if isinstance(destination, str) else destination
    with _explained(describe(final), writes=True):
        if str(getattr(final, "protocol", "")) in _ATOMIC:
            with _uploaded(final) as file:
                yield file
        else:
            with _renamed(final) as file:
                yield file


@contextmanager
def _uploaded(final: Any) -> Iterator[IO[bytes]]:
    # Closing such a file does not end its upload.
    upload = final.open("wb", autocommit=False)
    try:
        with _compressed(upload, final) as file:
            yield file
        upload.commit()
    except BaseException:
        upload.discard()
        raise


@contextmanager
def _renamed(final: Any) -> Iterator[IO[bytes]]:
    partial = final.with_name(f".{final.name}.{uuid4().hex}.partial")
    try:
        with _compressed(_create(partial, final), final) as file:
            yield file
        if isinstance(partial, Path) or str(partial.protocol) in ("", "file", "local"):
            # Some versions of Airflow's paths of local files are Paths too, and warn when they are used as such.
            os.replace(getattr(partial, "path", partial), getattr(final, "path", final))
        else:  # fsspec's own renaming takes a name with a question mark for a pattern
            partial.fs.cp_file(partial.path, final.path)
            partial.fs.rm_file(partial.path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def _compressed(opened: Any, final: Any) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        file = stack.enter_context(opened)
        compression = _compression(final)
        if compression == "gzip":
            file = stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, file))
        elif compression == "zstd":
            file = stack.enter_context(zstd.ZstdFile(file, "w"))
        yield file


def _create(partial: Any, final: Any) -> Any:
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, "It is a folder", str(final))
    try:
        return partial.open("wb")
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "There is no such folder to write to", str(partial.parent)) from None


def read_header(file: io.RawIOBase) -> tuple[bytes, bytes, list[str]]:
    """Return the first line of a CSV file as it is, what was read behind it, and its names; '' where one is missing.

    :param file: UTF-8 text, opened for reading bytes
    :raises Unreadable: when it is no line of names in UTF-8
    """
    data, size = b"", _FIRST_BYTES
    while len(data) < _MOST_HEADER_BYTES and (more := file.read(size)):
        data += more
        if end_of_row(data) is not None:
            break
        size = len(data)
    end = end_of_row(data)
    if end is None and len(data) >= _MOST_HEADER_BYTES:
        raise Unreadable("its first line does not end within 1 MiB, or a quote in it is never closed", _HEADER_REMEDY)
    header, rest = (data, b"") if end is None else (data[:end], data[end:])
    check = QuoteCheck(1, b"\n", ())
    try:
        if header:
            check.read(header)
        check.finish()
        names = next(csv.reader(io.StringIO(header.decode(), newline="")), [])
    except BadValue as bad:
        raise Unreadable(f"in line {bad.number}, in its header, {bad.reason}", _HEADER_REMEDY) from None
    except (UnicodeDecodeError, csv.Error):
        names = []
    if not any(names):
        raise Unreadable("it does not begin with a line of UTF-8 text that names its columns", _HEADER_REMEDY)
    return header, rest, names


class Csv(Source):
    """Send a CSV file as it is; Postgres reads it.

    :param file: UTF-8 text, opened for reading bytes, behind its header
    :param columns: what its columns are for
    :param names: what its columns are called in messages
    :param header: the first line, if it was read as names
    :param rest: what was read behind it
    :param null: the unquoted text that stands for NULL
    :param nullable: names of the columns in which that text stands for NULL in quotes too
    :param label: what it is called in messages
    """

    unit = "line"

    def __init__(
        self,
        file: io.RawIOBase,
        columns: Sequence[Column],
        *,
        header: bytes,
        rest: bytes,
        names: Sequence[str],
        null: str,
        nullable: Sequence[str] = (),
        label: str,
    ) -> None:
        self.file = file
        self.columns = columns
        self.names = names
        self.header = header
        self.rest = rest
        self.lines = self.rows = 0
        self.null = null
        self.nullable = nullable
        self.label = label

    def locate(self, row: int) -> tuple[str, int]:
        """Return what the source counts, and by it the number of a row.

        :param row: number of the row, from 1
        """
        # Where a value holds a line break, nothing tells on which line a row stands.
        header = self._header_lines
        return ("line", row + header) if self.lines - header in (self.rows, self.rows - 1) else ("row", row)

    @property
    def _header_lines(self) -> int:
        return self.header.count(b"\r" if self.header.endswith(b"\r") else b"\n")

    def copy_to(self, destination: CopyTarget) -> None:
        """Send the file.

        :param destination: where to
        :raises BadValue: for a quote out of place, and for a date or time that its column would change
        :raises psycopg.Error: as Postgres refuses a line
        """
        first = self.rest or self.file.read(BLOCK_BYTES)
        if not self.header and end_of_row(first) is None:  # else nothing tells how its lines end
            first += self.file.read(BLOCK_BYTES)
        line_end = _line_end(self.header or first)
        options = sql.SQL("FORMAT csv, HEADER {}, NULL {}, ENCODING 'UTF8'").format(
            sql.SQL("true" if line_end else "false"), sql.Literal(self.null)
        )
        if self.nullable:
            options += sql.SQL(", FORCE_NULL ({})").format(identifiers(self.nullable))
        progress, before = destination.progress, destination.rows
        quotes = QuoteCheck(self._header_lines + 1, line_end or b"\n", self.names)
        dates = DateCheck(self.columns, self.null)
        checked = self._checked(first, quotes, dates)
        try:
            with destination.copy(options, first=self._header_lines - (1 if line_end else 0)) as copy:
                if line_end:
                    # By a first line of our own, Postgres knows how lines end, so that it counts those in quotes.
                    copy.write(b"header" + line_end)
                    progress.add(bytes=len(self.header) - len(b"header" + line_end))
                # Only Postgres knows where a row ends; the log gets an estimate until it has told.
                row_bytes = 0.0
                for block in quote_end_marks(checked, self.null, lambda: quotes.is_inside):
                    row_bytes = row_bytes or len(block) / max(block.count(b"\n"), 1)
                    progress.add(rows=int(len(block) / row_bytes))
                    copy.write(block)
        except psycopg.Error:
            counted = quotes.postgres_counts
            if counted != "line":
                self.unit = "row"
                destination.first -= self._header_lines
                destination.knows_place = counted is not None
            raise
        self.lines = quotes.line - 1
        self.rows = destination.rows - before
        progress.rows = destination.rows if not before else progress.rows

    def _checked(self, block: bytes, quotes: QuoteCheck, dates: DateCheck) -> Iterator[bytes]:
        while block:
            if dates.checks:
                block = dates.read(block, quotes)
            else:
                quotes.read(block)
            if block:
                yield block
            # A row that is longer than a block is looked at again with more of it, so with ever more.
            block = self.file.read(max(BLOCK_BYTES, dates.waiting))
        if last := dates.finish(quotes):
            yield last
        quotes.finish()


def _line_end(data: bytes) -> bytes:
    """Return what ends the first row; nothing when it has no end."""
    end = end_of_row(data)
    if end is None:
        return b"\r" if data.endswith(b"\r") else b""
    return b"\r\n" if data[end - 2 : end] == b"\r\n" else data[end - 1 : end]


def read_json_lines(file: io.RawIOBase) -> Iterator[dict[str, Any]]:
    """Return the objects of a JSON Lines file, numbers with all their digits.

    :param file: opened for reading bytes, UTF-8
    :raises BadValue: for a line that holds no object
    """
    ended = False
    for number, line in enumerate(io.BufferedReader(file, BLOCK_BYTES), 1):
        if ended:
            raise BadValue("the line before it is empty", number)
        if not line.strip():
            ended = True
            continue
        try:
            value = _decode(line.decode())
        except BadValue as bad:
            raise BadValue(bad.reason, number) from None
        except (ValueError, RecursionError):
            raise BadValue("it is not JSON in UTF-8", number) from None
        if not isinstance(value, dict):
            raise BadValue("it is not a JSON object", number)
        yield value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadValue("an object in it has two values of one name", None)
    return found


def _read_int(text: str) -> int | Decimal:
    # A float's zero has a sign, and Python makes no int of more digits.
    return Decimal(text) if text == "-0" or len(text) > _MOST_INT_DIGITS else int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise BadValue(f"it holds {name}, which JSON does not have", None)


_decode = json.JSONDecoder(
    parse_float=Decimal, parse_int=_read_int, parse_constant=_refuse_constant, object_pairs_hook=_unique
).decode
