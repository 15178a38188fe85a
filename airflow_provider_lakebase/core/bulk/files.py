"""Open files for loads and exports: local ones, those on object storage, and those that a caller opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from airflow_provider_lakebase.core.bulk.byte_reader import Unreadable, peek
from airflow_provider_lakebase.core.bulk.compression import (
    DAMAGED,
    compressing,
    compression_of_head,
    compression_of_name,
    decompressing,
)
from airflow_provider_lakebase.core.bulk.formats import FORMATS, FormatName
from airflow_provider_lakebase.core.storage import folder_error, shown, storage_error
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_ATOMIC_UPLOADS = ("s3", "s3a", "gs", "gcs")
"""Storage on which an object appears when its upload is completed."""
_MOST_COMPRESSIONS = 4


def is_open_file(source: Any) -> bool:
    """Return whether a source is the result of ``fsspec.open``: a file that a ``with`` statement opens.

    :param source: anything
    """
    return type(source).__module__.partition(".")[0] == "fsspec" and type(source).__name__ == "OpenFile"


def is_path(source: Any) -> bool:
    """Return whether a source is a path: str, ``pathlib.Path`` or Airflow's ``ObjectStoragePath``.

    :param source: anything
    """
    return isinstance(source, str | Path) or (hasattr(source, "open") and hasattr(source, "name"))


def describe_file(file: Any) -> str:
    """Return a file's name for messages: its path or URL without secrets.

    :param file: path or file object
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


def find_format(file: Any, wanted: FormatName | None) -> FormatName:
    """Return the format of a file.

    :param file: path or file object
    :param wanted: the option ``format``; if None, the file name decides, and an open file without a name is CSV
    :raises LakebaseSettingsError: if the file name has no known ending
    """
    if wanted is not None:
        return wanted
    label = describe_file(file)
    ending = _ending_of(label)
    if (found := _format_of_ending(ending)) is not None:
        return found
    if not ending and not is_path(file) and not is_open_file(file):
        return "csv"
    hint = f"Set 'format' to one of {', '.join(FORMATS)}; .gz and .zst only tell how a file is compressed."
    raise LakebaseSettingsError(f"The format of {label} is unknown", hint=hint)


def has_known_ending(label: str) -> bool:
    """Return whether a name has the ending of a format.

    :param label: path or URL
    """
    return _format_of_ending(_ending_of(label)) is not None


def _ending_of(label: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(Path(label).name).suffixes]
    if suffixes and compression_of_name(label):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _format_of_ending(ending: str) -> FormatName | None:
    return next((name for name, row in FORMATS.items() if ending in row.endings), None)


@contextmanager
def open_to_read(source: Any) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its first bytes are those of gzip or zstd, whatever its name.

    :param source: path, a file opened for reading bytes, or fsspec's ``OpenFile``
    :raises FileNotFoundError: if there is no such file
    :raises Unreadable: if it was not opened for reading bytes
    :raises LakebaseStorageError: if the storage fails
    """
    label = describe_file(source)
    with translating(label), ExitStack() as stack:
        if is_path(source):
            file = stack.enter_context(_open_path(Path(source) if isinstance(source, str) else source, label))
        else:
            file = stack.enter_context(source) if is_open_file(source) else source
        head, file = peek(file)
        if not head and is_path(source):
            _check_empty(source, label)
        for _ in range(_MOST_COMPRESSIONS):
            if (compression := compression_of_head(head)) is None:
                break
            head, file = peek(stack.enter_context(decompressing(compression, file)))
        if compression_of_head(head) is not None:
            raise Unreadable("it is compressed again and again", "Compress it once.")
        yield file


def _open_path(path: Any, label: str) -> Any:
    try:
        return path.open("rb")
    except FileNotFoundError:
        if "://" in label and path.is_dir():
            raise folder_error(label) from None
        raise


def _check_empty(source: Any, label: str) -> None:
    if "://" in label and source.is_dir():
        raise folder_error(label)  # a prefix reads as an object of no bytes
    if compression_of_name(label):
        raise EOFError("a compressed file without bytes is truncated")


@contextmanager
def open_to_write(destination: Any) -> Iterator[IO[bytes]]:
    """Open a file for writing, which appears under its name only if the ``with`` block succeeds.

    On S3 and Google Cloud Storage the file is uploaded under its own name, and a failed upload is aborted. Elsewhere a
    temporary file beside it is renamed at the end.

    :param destination: path; the ending of its name decides how it is compressed
    :raises LakebaseStorageError: if the storage fails
    """
    final = Path(destination) if isinstance(destination, str) else destination
    write = _uploaded if str(getattr(final, "protocol", "")) in _ATOMIC_UPLOADS else _renamed
    with translating(describe_file(final), writes=True), write(final) as file:
        yield file


@contextmanager
def _uploaded(final: Any) -> Iterator[IO[bytes]]:
    # Closing such a file does not end its upload.
    upload = final.open("wb", autocommit=False)
    try:
        with compressed(upload, final) as file:
            yield file
        upload.commit()
    except BaseException:
        upload.discard()
        raise


@contextmanager
def _renamed(final: Any) -> Iterator[IO[bytes]]:
    partial = final.with_name(f".{final.name}.{uuid4().hex}.partial")
    try:
        with compressed(_create(partial, final), final) as file:
            yield file
        if isinstance(partial, Path) or str(partial.protocol) in ("", "file", "local"):
            # Some versions of Airflow's paths of local files are Paths too, and warn when they are used as such.
            os.replace(getattr(partial, "path", partial), getattr(final, "path", final))
        else:  # fsspec's own rename treats a name with a question mark as a pattern
            partial.fs.cp_file(partial.path, final.path)
            partial.fs.rm_file(partial.path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _create(partial: Any, final: Any) -> Any:
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, "It is a folder", str(final))
    try:
        return partial.open("wb")
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "There is no such folder to write to", str(partial.parent)) from None


@contextmanager
def compressed(opened: Any, final: Any) -> Iterator[IO[bytes]]:
    """Yield a file that compresses what is written, as the name that it will have says, and close it.

    :param opened: open for writing bytes
    :param final: its path
    """
    with ExitStack() as stack:
        file = stack.enter_context(opened)
        if compression := compression_of_name(describe_file(final)):
            file = stack.enter_context(compressing(compression, file))
        yield file


@contextmanager
def translating(label: str, *, writes: bool = False) -> Iterator[None]:
    """Translate the errors that storage libraries raise in the ``with`` block.

    :param label: the file's name in messages
    :param writes: whether the file is being written
    :raises LakebaseStorageError: if the storage fails
    """
    try:
        yield
    except DAMAGED:
        raise
    except Exception as error:
        translated = storage_error(error, label, writes=writes)
        if translated is None:
            raise
        # The original may quote a URL with its signature.
        raise translated from None
