"""TLS over a transport of asyncio, for a server.

asyncio's own TLS closes the connection as soon as the client has sent its last byte. PostgreSQL still answers then, and
some clients rely on it: they shut down their side after the last request.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

_CHUNK = 1 << 18
# A client has so long to take the end of a session before the connection is reset.
_LINGER_SECONDS = 1.0


class Tls(asyncio.Transport, asyncio.Protocol):
    """TLS on a client's connection: the protocol of the socket, and the transport of the protocol ``inner``.

    ``handshaken`` is done when ``inner`` has its transport; it has an exception if the handshake failed.
    """

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        super().__init__()
        self.handshaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inner = inner
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._opened = False
        self._ended = False
        self._closing = False

    # -- the protocol of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Decrypt the data and pass it on."""
        self._received.write(data)
        self._advance()

    def eof_received(self) -> bool:
        """Pass the end on. The connection stays open: there may still be an answer."""
        # OpenSSL is not told: without an end of TLS it would refuse to send the answer.
        self._end()
        if self._closing:
            self._transport.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection is lost."""
        if self._opened:
            self._inner.connection_lost(exc)
        elif not self.handshaken.done():
            self.handshaken.set_exception(exc or EOFError())

    def pause_writing(self) -> None:
        """Pass on that the client cannot keep up."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client takes data again."""
        self._inner.resume_writing()

    def _advance(self) -> None:
        try:
            if not self._opened:
                self._shake_hands()
            self._decrypt()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(error)
        self._flush()

    def _shake_hands(self) -> None:
        self._tls.do_handshake()
        self._opened = True
        self._inner.connection_made(self)
        if not self.handshaken.done():
            self.handshaken.set_result(None)

    def _decrypt(self) -> None:
        # Each call of read returns one record at most. They are passed on as one: it takes fewer calls of the system.
        records = []
        try:
            while record := self._tls.read(_CHUNK):
                records.append(record)
        finally:
            if records and not self._closing:
                self._inner.data_received(b"".join(records))
        # The client ended TLS.
        self._end()

    def _end(self) -> None:
        """Pass on once that the client sends no more."""
        if not self._opened:
            self._fail(EOFError())
        elif not self._ended:
            self._ended = True
            self._inner.eof_received()

    def _fail(self, error: Exception) -> None:
        if not self.handshaken.done():
            self.handshaken.set_exception(error)
        # It sends the alert first.
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._to_send.pending:
            self._transport.write(self._to_send.read())

    # -- the transport of the protocol above it

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt the data and send it."""
        if self._closing:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:  # the client broke off TLS
            self._fail(error)
        self._flush()

    def close(self) -> None:
        """Send what is buffered and the end of TLS, then close the connection when the client has closed its side."""
        if self._closing:
            return
        self._closing = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # the client has not sent its end of TLS yet
            pass
        self._flush()
        self._transport.resume_reading()
        if self._ended or self._transport.is_closing():
            self._transport.close()
            return
        self._transport.write_eof()
        self._linger()

    def _linger(self, *, sent: bool = False) -> None:
        """Reset the connection one interval after its buffer was found empty."""
        if sent:
            self._transport.abort()
            return
        empty = self._transport.get_write_buffer_size() == 0
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, lambda: self._linger(sent=empty))

    def abort(self) -> None:
        """Reset the connection."""
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be."""
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Stop receiving until ``resume_reading``."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        if not self._closing:
            self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the sizes of the buffer at which ``pause_writing`` and ``resume_writing`` are called."""
        self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the TLS object for ``ssl_object``, and the connection's own values otherwise."""
        return self._tls if name == "ssl_object" else self._transport.get_extra_info(name, default)
