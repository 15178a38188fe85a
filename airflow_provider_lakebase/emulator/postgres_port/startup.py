"""The start of the Postgres protocol: parse a client's first messages, format the gate's own replies.

No sockets: a reader is any ``readexactly(n)``. Malformed messages raise ``ProtocolError``.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
TLS_FIRST_BYTE = b"\x16"

# PostgreSQL's own limit for a start-up packet. Passwords may be longer, since credentials are long.
_MAX_STARTUP = 10_000
_MAX_PASSWORD = 65_536

ReadExactly = Callable[[int], Awaitable[bytes]]


class ProtocolError(Exception):
    """A client sent bytes that do not follow the Postgres protocol."""


@dataclass(frozen=True)
class Packet:
    """A packet without a type byte: the code after its length, and the body."""

    code: int
    body: bytes

    @property
    def wire(self) -> bytes:
        """Return the packet in wire format."""
        return struct.pack("!II", len(self.body) + 8, self.code) + self.body

    def with_parameters(self, parameters: dict[str, str]) -> Packet:
        """Return a start-up packet with these parameters added; they override its own."""
        added = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
        return Packet(self.code, self.body.removesuffix(b"\0") + added + b"\0")

    @property
    def parameters(self) -> dict[str, str]:
        """Return the name/value pairs of a start-up packet (user, database, application_name, …)."""
        fields = [field.decode("utf-8", "replace") for field in self.body.split(b"\0")]
        return {name: value for name, value in zip(fields[::2], fields[1::2], strict=False) if name}


async def read_packet(readexactly: ReadExactly) -> Packet:
    """Read one packet without a type byte; raise ``ProtocolError`` if its length is invalid."""
    length, code = struct.unpack("!II", await readexactly(8))
    if not 8 <= length <= _MAX_STARTUP:
        raise ProtocolError(f"a start-up packet of {length} bytes")
    return Packet(code, await readexactly(length - 8))


async def read_password(readexactly: ReadExactly) -> str:
    """Read a PasswordMessage and return the password; raise ``ProtocolError`` for any other message."""
    kind, length = struct.unpack("!cI", await readexactly(5))
    if kind != b"p" or not 4 <= length <= _MAX_PASSWORD:
        raise ProtocolError(f"expected a password, got message {kind!r} of {length} bytes")
    return (await readexactly(length - 4)).rstrip(b"\0").decode("utf-8", "replace")


def cleartext_password_request() -> bytes:
    """Return the message AuthenticationCleartextPassword."""
    return struct.pack("!cII", b"R", 8, 3)


def error_response(text: str, severity: str = "ERROR", sqlstate: str = "XX000") -> bytes:
    """Return the message ErrorResponse. The defaults are those of the proxy in front of Lakebase."""
    parts = [(b"S", severity), (b"V", severity), (b"C", sqlstate), (b"M", text)]
    fields = b"".join(code + value.encode() + b"\0" for code, value in parts)
    return struct.pack("!cI", b"E", len(fields) + 5) + fields + b"\0"


@dataclass(frozen=True)
class LoginReply:
    """The outcome of a login, as far as the server has replied.

    :param outcome: ``ok`` or an error's text; None if it is not known yet
    :param pid: process ID of the backend; None if it is not known yet
    """

    outcome: str | None = None
    pid: int | None = None


def read_login_reply(reply: bytes) -> LoginReply:
    """Parse the first bytes of a server's reply to a login."""
    offset, pid = 0, None
    while offset + 5 <= len(reply):
        kind, length = struct.unpack_from("!cI", reply, offset)
        message = reply[offset + 5 : offset + 1 + length]
        if len(message) < length - 4:
            break
        if kind == b"E":
            return LoginReply(_error_text(message), pid)
        if kind == b"Z":
            return LoginReply("ok", pid)
        if kind == b"K":
            (pid,) = struct.unpack_from("!I", message)
        offset += 1 + length
    return LoginReply(None, pid)


def _error_text(fields: bytes) -> str:
    return next((field[1:].decode("utf-8", "replace") for field in fields.split(b"\0") if field[:1] == b"M"), "")
