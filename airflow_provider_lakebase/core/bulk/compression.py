"""Compress and decompress gzip and zstd: detected by a file's first bytes on reading, by its name on writing."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path
from typing import IO, Any, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)
"""What reading a damaged or truncated compressed file raises."""
MAGIC_BYTES = 6
"""Bytes at the start of a file that are enough to recognize what it is."""
_GZIP_LEVEL = 6
_BY_ENDING = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = (("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5\x2f\xfd"), ("zstd", b"\x50\x2a\x4d\x18"))


def compression_of_name(name: str) -> str | None:
    """Return ``gzip`` or ``zstd``, by the ending of a file name; None for any other ending.

    :param name: file name or path
    """
    return _BY_ENDING.get(Path(name).suffix.lower())


def compression_of_head(head: bytes) -> str | None:
    """Return ``gzip`` or ``zstd``, by a file's first bytes; None if it is not compressed.

    :param head: its first bytes
    """
    return next((name for name, magic in _MAGIC if head.startswith(magic)), None)


def decompressing(compression: str, file: Any) -> IO[bytes]:
    """Return a file that reads the decompressed content of another one.

    :param compression: ``gzip`` or ``zstd``
    :param file: open for reading bytes
    """
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb") if compression == "gzip" else zstd.ZstdFile(file))


def compressing(compression: str, file: Any) -> IO[bytes]:
    """Return a file that writes compressed content to another one.

    :param compression: ``gzip`` or ``zstd``
    :param file: open for writing bytes
    """
    made = gzip.GzipFile("", "wb", _GZIP_LEVEL, file) if compression == "gzip" else zstd.ZstdFile(file, "w")
    return cast("IO[bytes]", made)
