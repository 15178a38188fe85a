"""One side of a session: read by hand until the login is done, then joined to the other side and relayed.

Back-pressure is the transports' own: a side whose buffer is full stops the reading of the other, so that a COPY of any
size passes in constant memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

_BUFFER = 1 << 20
_MAX_UNREAD = 1 << 17


class Side(asyncio.Protocol):
    """A connection to a client or to PostgreSQL; it stands in ``register`` as long as it is open."""

    transport: asyncio.Transport

    def __init__(self, register: set[Side]) -> None:
        self.lost = asyncio.Event()
        self.observe: Callable[[bytes], None] = _ignore
        # How many more bytes may pass from here until the session is cut.
        self.limit: int | None = None
        # PostgreSQL's process, where this is the way to one.
        self.pid: int | None = None
        self._register = register
        self._other: Side | None = None
        self._unread = bytearray()
        self._arrived = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_BUFFER)
        self._register.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side too, once it has sent what it holds."""
        self._register.discard(self)
        self.lost.set()
        self._arrived.set()
        if self._other:
            self._other.transport.close()

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on, or keep them for ``readexactly`` while there is no other side."""
        if self._other:
            self._pass_on(data, self._other)
            return
        self._unread += data
        self._arrived.set()
        if len(self._unread) > _MAX_UNREAD:
            self.transport.abort()

    def _pass_on(self, data: bytes, other: Side) -> None:
        self.observe(data)
        if self.limit is None or len(data) < self.limit:
            other.transport.write(data)
            self.limit = None if self.limit is None else self.limit - len(data)
            return
        # The other side gets every byte up to the cut, then the end; this one gets no more.
        other.transport.write(data[: self.limit])
        other.transport.close()
        self.limit = 0
        self.transport.abort()

    def pause_writing(self) -> None:
        """Stop reading from the other side: this one does not keep up."""
        if self._other:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the other side again."""
        if self._other:
            self._other.transport.resume_reading()

    async def readexactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes; raise ``EOFError`` if the connection ends before."""
        while len(self._unread) < size:
            if self.lost.is_set():
                raise EOFError
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    def join(self, other: Side) -> None:
        """Relay between the two sides from now on."""
        for side, opposite in ((self, other), (other, self)):
            side._other = opposite
            if side._unread:
                opposite.transport.write(bytes(side._unread))
                side._unread.clear()
            if side.lost.is_set():
                opposite.transport.close()


async def abort_all(sides: set[Side]) -> None:
    """Cut the connections and return when they are gone."""
    for side in sides:
        side.transport.abort()
    for side in sides:
        await side.lost.wait()


def _ignore(data: bytes) -> None:
    """Observe nothing."""
