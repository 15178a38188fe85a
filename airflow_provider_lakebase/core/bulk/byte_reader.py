"""Read bytes from any open file, and text without its byte order mark."""

from __future__ import annotations

import codecs
import io
from typing import IO, Any

from airflow_provider_lakebase.core.bulk.compression import DAMAGED, MAGIC_BYTES

BLOCK_BYTES = 1 << 18
"""Bytes read from a file at a time; the speed of COPY does not depend on it."""
_OTHER_CONTENT = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (b"PK\x03\x04", "a zip file (as are Excel's)"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz"),
    (b"PAR1", "a Parquet file"),
)


class Unreadable(ValueError):
    """A file cannot be read: it is of the wrong kind, or was opened in the wrong mode.

    :param what: why, without a value; completes "the file cannot be read: …"
    :param hint: what to do, a sentence
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class ByteReader(io.RawIOBase):
    """Read a file that may have nothing but ``read(size)``.

    :param file: the file
    :raises Unreadable: on reading, if it does not return bytes
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

    def peek_magic(self) -> bytes:
        """Return the first bytes, which the next read returns again."""
        head = b""
        while len(head) < MAGIC_BYTES and (more := self.read(MAGIC_BYTES - len(head))):
            head += more
        self.head = head
        return head

    def _read(self, size: int) -> bytes:
        try:
            data = self.file.read(size)
        except DAMAGED:
            raise
        except (TypeError, AttributeError, ValueError) as error:  # closed, opened for writing, read() without a size
            if isinstance(error, Unreadable):
                raise
            reason = "it is closed, or not open for reading bytes"
            raise Unreadable(reason, "Give an open file: open(path, 'rb').") from error
        if isinstance(data, str):
            raise Unreadable("it was opened as text", "Open it for bytes: open(path, 'rb').")
        if data is None:
            raise Unreadable("it is non-blocking and has no bytes yet", "Give a file that blocks until it has bytes.")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise Unreadable(f"its read() returns {type(data).__name__}", "Open it for bytes: open(path, 'rb').")
        return bytes(data)


def peek(file: Any) -> tuple[bytes, Any]:
    """Return the first bytes of a file, and a file that starts with them.

    :param file: the file, which may not be seekable
    """
    reader = ByteReader(file)
    head = reader.peek_magic()
    if not head:
        return head, file
    try:
        if file.seekable():
            file.seek(-len(head), io.SEEK_CUR)
            return head, file
    except (AttributeError, OSError, ValueError):
        pass
    return head, io.BufferedReader(reader, BLOCK_BYTES)


def open_as_text(file: IO[bytes]) -> io.RawIOBase:
    """Return a file of UTF-8 text without its byte order mark.

    :param file: open for reading bytes
    :raises Unreadable: if it starts like another encoding or format
    """
    text = ByteReader(file)
    head = text.peek_magic()
    for mark, name in _OTHER_CONTENT:
        if head.startswith(mark):
            hint = "Write it as UTF-8, plain or compressed by gzip or zstd; if it is Parquet, set 'format'."
            raise Unreadable(f"it is {name}, not UTF-8 text", hint)
    text.head = head.removeprefix(codecs.BOM_UTF8)
    return text
