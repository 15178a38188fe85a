"""Files to load from and export to, local or on object storage, plain, gzip or zstd; CSV and JSON Lines into COPY."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import uuid4

from psycopg import sql

from airflow_provider_lakebase.bulk.copying import BadValue, Destination, Source
from airflow_provider_lakebase.bulk.target import Column
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
_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
_MOST_HEADER_BYTES = 1 << 20
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)
"""What a compressed file raises that is cut short or is none."""


def is_path(source: Any) -> bool:
    """Return whether a source is the path of a file: str, ``pathlib.Path`` or Airflow's ``ObjectStoragePath``.

    :param source: anything
    """
    return isinstance(source, str | Path) or (hasattr(source, "open") and hasattr(source, "name"))


def describe(file: Any) -> str:
    """Return what a file is called in messages; never its content.

    :param file: path, or file object
    """
    return str(file) if is_path(file) else str(getattr(file, "name", None) or "the file")


def find_format(file: Any, wanted: str | None) -> str:
    """Return the format of a file: as wanted, else by the ending of its name.

    :param file: path, or file object
    :param wanted: ``csv``, ``jsonl``, ``parquet``, or None
    :raises LakebaseSettingsError: when neither tells
    """
    if wanted is None:
        suffixes = _suffixes(file)
        wanted = _ENDINGS.get(suffixes[-1] if suffixes else "")
        if wanted is None and not suffixes and not is_path(file):
            wanted = "csv"
    if wanted is None or wanted not in FORMATS:
        what = f"The format of {describe(file)} is not known" if wanted is None else f"format is {wanted!r}"
        remedy = f"Choose 'format' from {', '.join(FORMATS)}; .gz and .zst say how a file is compressed."
        raise LakebaseSettingsError(what, remedy=remedy)
    return wanted


def _suffixes(file: Any) -> list[str]:
    suffixes = [suffix.lower() for suffix in Path(Path(describe(file)).name).suffixes]
    return suffixes[:-1] if suffixes and suffixes[-1] in _COMPRESSION else suffixes


def _compression(file: Any) -> str | None:
    return _COMPRESSION.get(Path(describe(file)).suffix.lower())


@contextmanager
def open_to_read(source: Any) -> Iterator[IO[bytes]]:
    """Open a file, and decompress it by the ending of its name.

    :param source: path, or a file opened for reading bytes
    :raises FileNotFoundError: when there is no such file
    """
    with ExitStack() as stack:
        path = Path(source) if isinstance(source, str) else source
        file = stack.enter_context(path.open("rb")) if is_path(source) else source
        compression = _compression(source)
        if compression == "gzip":
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        elif compression == "zstd":
            file = stack.enter_context(zstd.ZstdFile(file))
        yield file


@contextmanager
def open_to_write(destination: Any) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name when the block has ended well, and not at all otherwise.

    :param destination: path; the ending of its name says how it is compressed
    """
    final = Path(destination) if isinstance(destination, str) else destination
    partial = final.with_name(f".{final.name}.{uuid4().hex}.partial")
    try:
        with ExitStack() as stack:
            file = stack.enter_context(_create(partial))
            compression = _compression(final)
            if compression == "gzip":
                file = stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, file))
            elif compression == "zstd":
                file = stack.enter_context(zstd.ZstdFile(file, "w"))
            yield file
        partial.replace(final) if isinstance(partial, Path) else partial.rename(final)
    except BaseException:
        if partial.exists():
            partial.unlink()
        raise


def _create(path: Any) -> Any:
    try:
        return path.open("wb")
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "There is no such folder to write to", str(path.parent)) from None


def read_header(file: IO[bytes]) -> tuple[bytes, list[str]]:
    """Return the first line of a CSV file, as it is and as names.

    :param file: opened for reading bytes
    :raises ValueError: when it is no line of names in UTF-8
    """
    header = file.readline(_MOST_HEADER_BYTES)
    while header.count(b'"') % 2 and (more := file.readline(_MOST_HEADER_BYTES)):  # a name holds a line break
        header += more
    try:
        names = next(csv.reader(io.StringIO(header.decode("utf-8-sig"), newline="")), [])
    except UnicodeDecodeError:
        names = []
    if not names or not all(names):
        raise ValueError("it does not begin with a line of UTF-8 text that names its columns")
    if len(set(names)) < len(names):
        raise ValueError("its first line names a column twice")
    return header, names


class Csv(Source):
    """Send a CSV file as it is; Postgres reads it.

    :param file: opened for reading bytes, UTF-8, behind its header
    :param columns: what its columns are for
    :param header: the first line, if it was read as names
    :param null: the unquoted text that stands for NULL
    :param label: what it is called in messages
    """

    unit = "line"

    def __init__(self, file: IO[bytes], columns: Sequence[Column], *, header: bytes, null: str, label: str) -> None:
        self.file = file
        self.columns = columns
        self.header = header
        self.lines = self.rows = 0
        self.null = null
        self.label = label

    def locate(self, row: int) -> tuple[str, int]:
        """Return what the source counts, and by it the number of a row.

        :param row: number of the row, from 1
        """
        # Where a value holds a line break, nothing tells on which line a row stands.
        header = 1 if self.header else 0
        return (self.unit, row + header) if self.lines - header in (self.rows, self.rows - 1) else ("row", row)

    def copy_to(self, destination: Destination) -> None:
        """Send the file.

        :param destination: where to
        :raises psycopg.Error: as Postgres refuses a line
        """
        options = sql.SQL("FORMAT csv, HEADER {}, NULL {}, ENCODING 'UTF8'").format(
            sql.SQL("true" if self.header else "false"), sql.Literal(self.null)
        )
        progress, before = destination.progress, destination.rows
        # Postgres counts the header as one line, whatever line breaks are in its names.
        with destination.copy(options, first=max(self.header.count(b"\n") - 1, 0)) as copy:
            if self.header:
                copy.write(self.header)
            # Only Postgres knows where a row ends; the log gets an estimate until it has told.
            row_bytes = 0.0
            self.lines = self.header.count(b"\n")
            while block := self.file.read(BLOCK_BYTES):
                self.lines += block.count(b"\n") if destination.counts_lines else 0
                row_bytes = row_bytes or len(block) / max(block.count(b"\n"), 1)
                progress.add(rows=int(len(block) / row_bytes))
                copy.write(block)
        self.rows = destination.rows - before
        progress.rows = destination.rows if not before else progress.rows


def read_json_lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Return the objects of a JSON Lines file, numbers with all their digits.

    :param file: opened for reading bytes, UTF-8
    :raises BadValue: for a line that holds no object
    """
    ended = False
    for number, line in enumerate(file, 1):
        if ended:
            raise BadValue("the line before it is empty", number)
        if not line.strip():
            ended = True
            continue
        try:
            value = json.loads(line, parse_float=Decimal, parse_int=_read_int, parse_constant=_refuse_constant)
        except BadValue as bad:
            raise BadValue(bad.reason, number) from None
        except (ValueError, RecursionError):
            raise BadValue("it is not JSON in UTF-8", number) from None
        if not isinstance(value, dict):
            raise BadValue("it is not a JSON object", number)
        yield value


def _read_int(text: str) -> int | Decimal:
    return Decimal(text) if text == "-0" else int(text)  # a float's zero has a sign


def _refuse_constant(name: str) -> NoReturn:
    raise BadValue(f"it holds {name}, which JSON does not have", None)
