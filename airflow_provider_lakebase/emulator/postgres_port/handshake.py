"""The handshake with a client, from an accepted socket to its first packet.

A client may begin with an SSLRequest, a GSSENCRequest (declined; the client then tries another way), direct TLS with
the ALPN protocol ``postgresql``, or a start-up or cancel packet in plain text.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
from dataclasses import dataclass

from airflow_provider_lakebase.emulator.postgres_port.relay import Side
from airflow_provider_lakebase.emulator.postgres_port.startup import (
    GSSENC_REQUEST,
    SSL_REQUEST,
    TLS_FIRST_BYTE,
    Packet,
    ProtocolError,
    read_packet,
)
from airflow_provider_lakebase.emulator.postgres_port.tls import Tls

ALPN = "postgresql"

_TLS_SECONDS = 30.0


class _Tls(enum.Enum):
    REQUESTED = "after an SSLRequest"
    AT_ONCE = "without asking"


@dataclass(frozen=True)
class Client:
    """A client and its first packet: a start-up packet or a cancel request."""

    side: Side
    packet: Packet
    secure: bool
    server_name: str | None

    @property
    def pooled(self) -> bool:
        """Return whether it connected to a pooled host."""
        return bool(self.server_name) and str(self.server_name).split(".")[0].endswith("-pooler")


def remember_server_name(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    """Store the TLS server name that the client sent; a callback for ``SSLContext.sni_callback``."""
    tls.lakebase_server_name = name  # type: ignore[attr-defined]


async def open_client(connection: socket.socket, context: ssl.SSLContext, register: set[Side]) -> Client:
    """Negotiate TLS with a client and read its first packet.

    Close the socket and raise ``EOFError``, ``OSError`` or ``ProtocolError`` if that fails.
    """
    try:
        begin = await _negotiate(connection)
        secure = isinstance(begin, _Tls)
        side = await _open_side(connection, context if secure else None, register)
    except BaseException:
        connection.close()
        raise
    tls = side.transport.get_extra_info("ssl_object")
    try:
        # As PostgreSQL does: without ALPN, direct TLS may come from a client of another protocol.
        if begin is _Tls.AT_ONCE and tls.selected_alpn_protocol() != ALPN:
            raise ProtocolError("TLS without the ALPN name of Postgres")
        packet = await read_packet(side.readexactly) if isinstance(begin, _Tls) else begin
    except BaseException:
        side.transport.abort()
        raise
    return Client(side, packet, secure, getattr(tls, "lakebase_server_name", None))


async def _negotiate(connection: socket.socket) -> Packet | _Tls:
    """Answer the requests before TLS; return how TLS starts, or the first packet if it is plain text."""
    loop = asyncio.get_running_loop()
    while await _peek_byte(connection) != TLS_FIRST_BYTE:
        packet = await read_packet(lambda size: _receive_exactly(connection, size))
        if packet.code == SSL_REQUEST:
            await loop.sock_sendall(connection, b"S")
            return _Tls.REQUESTED
        if packet.code != GSSENC_REQUEST:
            return packet
        await loop.sock_sendall(connection, b"N")
    return _Tls.AT_ONCE


async def _open_side(connection: socket.socket, context: ssl.SSLContext | None, register: set[Side]) -> Side:
    side = Side(register, half_open=True)
    loop = asyncio.get_running_loop()
    if context is None:
        await loop.connect_accepted_socket(lambda: side, connection)
        return side
    _, tls = await loop.connect_accepted_socket(lambda: Tls(context, side), connection)
    try:
        async with asyncio.timeout(_TLS_SECONDS):
            await tls.handshaken
    except BaseException:
        tls.abort()
        raise
    return side


async def _peek_byte(connection: socket.socket) -> bytes:
    """Return the next byte without consuming it."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
    byte = connection.recv(1, socket.MSG_PEEK)
    if not byte:
        raise EOFError
    return byte


async def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await asyncio.get_running_loop().sock_recv(connection, size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
