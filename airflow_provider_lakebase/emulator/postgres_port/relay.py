"""The two sides of a session: each is read explicitly until the login is done, then relayed to the other.

A side whose write buffer is full pauses reading from the other side, so a COPY of any size needs constant memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

_BUFFER = 1 << 20
_MAX_UNREAD = 1 << 17


class Side(asyncio.Protocol):
    """A connection to a client or to PostgreSQL. ``register`` contains it while it is open.

    :param half_open: whether it stays open when the other end sends no more, to take the answer
    """

    transport: asyncio.Transport

    def __init__(self, register: set[Side], *, half_open: bool = False) -> None:
        self.lost = asyncio.Event()
        self.observe: Callable[[bytes], None] = _ignore
        # Bytes that this side may still send before the session is cut.
        self.limit: int | None = None
        # Process ID of the backend, if this side leads to PostgreSQL.
        self.pid: int | None = None
        self._register = register
        self._half_open = half_open
        # Whether the other end sends no more.
        self.ended = False
        self._other: Side | None = None
        self._unread = bytearray()
        self._arrived = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_BUFFER)
        self._register.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side too, after it has sent its buffered data."""
        self._register.discard(self)
        self.lost.set()
        self._arrived.set()
        if self._other:
            self._other.transport.close()

    def eof_received(self) -> bool:
        """Pass the end on to the other side; return whether this side stays open."""
        self.ended = True
        self._arrived.set()
        if self._half_open and self._other:
            self._other.transport.write_eof()
        return self._half_open

    def data_received(self, data: bytes) -> None:
        """Relay the bytes to the other side, or buffer them for ``readexactly`` until there is one."""
        if self._other:
            self._pass_on(data, self._other)
            return
        self._unread += data
        self._arrived.set()
        if len(self._unread) > _MAX_UNREAD:
            self.transport.abort()

    def _pass_on(self, data: bytes, other: Side) -> None:
        if other.transport.is_closing():
            return
        self.observe(data)
        if self.limit is None or len(data) < self.limit:
            other.transport.write(data)
            self.limit = None if self.limit is None else self.limit - len(data)
            return
        # The other side receives every byte up to the cut, then the end; this side receives nothing more.
        other.transport.write(data[: self.limit])
        other.transport.close()
        self.limit = 0
        self.transport.abort()

    def pause_writing(self) -> None:
        """Pause reading from the other side: this side cannot keep up."""
        if self._other:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume reading from the other side."""
        if self._other:
            self._other.transport.resume_reading()

    async def readexactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes; raise ``EOFError`` if the connection ends first."""
        while len(self._unread) < size:
            if self.ended or self.lost.is_set():
                raise EOFError
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    def join(self, other: Side) -> None:
        """Start relaying between the two sides."""
        for side, opposite in ((self, other), (other, self)):
            side._other = opposite
            if side._unread:
                opposite.transport.write(bytes(side._unread))
                side._unread.clear()
            if side.lost.is_set():
                opposite.transport.close()
            elif side.ended:
                opposite.transport.write_eof()


async def abort_all(sides: set[Side]) -> None:
    """Abort the connections and wait until they are closed."""
    for side in sides:
        side.transport.abort()
    for side in sides:
        await side.lost.wait()


def _ignore(data: bytes) -> None:
    """Observe nothing."""
