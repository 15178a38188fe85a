"""Write rows in the binary format of COPY."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from typing import Any

from psycopg.copy import Copy

try:
    # Copy.write_row calls this one by way of two functions in Python, which take a third of the time.
    from psycopg._copy_base import format_row_binary
except ImportError:  # a later psycopg
    format_row_binary = None

_START = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_BYTES_PER_WRITE = 128 * 1024
_MOST_ROWS = 100
"""Maximum number of rows that are formatted before the size of the buffer is checked; fewer if rows are wide."""


class BinaryRows:
    """Writes rows as psycopg's ``Copy.write_row`` does, but faster.

    :param copy: a running COPY … FROM STDIN (FORMAT binary)
    :param types: names of the columns' types, whose dumpers write the values
    """

    def __init__(self, copy: Copy, types: Sequence[str]) -> None:
        copy.set_types(types)
        self._copy = copy
        self._data = bytearray(_START)
        self._rows_at_once = 1

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows; the last ones are sent with the next call.

        :param rows: values of the columns
        """
        if format_row_binary is None:
            for row in rows:
                self._copy.write_row(row)
            return
        left, transformer = iter(rows), repeat(self._copy.formatter.transformer)
        while True:
            size = len(self._data)
            # deque and map call it for each row in C: a loop in Python costs a tenth of the time.
            deque(map(format_row_binary, islice(left, self._rows_at_once), transformer, repeat(self._data)), maxlen=0)
            added = len(self._data) - size
            if not added:
                return
            self._rows_at_once = max(1, min(_MOST_ROWS, self._rows_at_once * _BYTES_PER_WRITE // added))
            if len(self._data) > _BYTES_PER_WRITE:
                self._copy.write(self._data)
                self._data = bytearray()

    def end(self) -> None:
        """Send what is left."""
        if format_row_binary is not None:
            self._copy.write(self._data + _END)
