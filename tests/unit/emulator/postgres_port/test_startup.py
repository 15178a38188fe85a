from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.postgres_port import startup
from airflow_provider_lakebase.emulator.postgres_port.startup import LoginReply


def _read(reading: Any, data: bytes) -> Any:
    async def read() -> Any:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await reading(reader.readexactly)

    return asyncio.run(read())


def test_startup_packet_is_read_and_written_as_it_came() -> None:
    body = "user\0zoë\0database\0d\0options\0-c a=b\0\0".encode()
    wire = struct.pack("!II", len(body) + 8, 196610) + body
    packet = _read(startup.read_packet, wire)
    assert packet.parameters == {"user": "zoë", "database": "d", "options": "-c a=b"}
    assert packet.code == 196610
    assert packet.wire == wire


def test_longer_cancel_key_is_kept() -> None:
    wire = struct.pack("!III", 12 + 32, startup.CANCEL_REQUEST, 77) + b"k" * 32
    assert _read(startup.read_packet, wire).wire == wire


@pytest.mark.parametrize("wire", [b"GET / HTTP/1.1\r\n", struct.pack("!II", 4, 196608), struct.pack("!II", 10_001, 0)])
def test_other_protocols_are_no_startup(wire: bytes) -> None:
    with pytest.raises(startup.ProtocolError):
        _read(startup.read_packet, wire)


def test_password_is_read() -> None:
    assert _read(startup.read_password, b"p" + struct.pack("!I", 4 + 7) + b"secret\0") == "secret"


@pytest.mark.parametrize("wire", [b"Q" + struct.pack("!I", 5) + b"\0", b"p" + struct.pack("!I", 1 << 20)])
def test_other_messages_are_no_password(wire: bytes) -> None:
    with pytest.raises(startup.ProtocolError):
        _read(startup.read_password, wire)


def test_reply_to_a_login_is_read_as_it_comes() -> None:
    accepted = struct.pack("!cII", b"R", 8, 0)
    key = struct.pack("!cIII", b"K", 12, 4711, 99)
    ready = struct.pack("!cIc", b"Z", 5, b"I")
    assert startup.read_login_reply(b"") == LoginReply(None, None)
    assert startup.read_login_reply(accepted + key[:7]) == LoginReply(None, None)
    assert startup.read_login_reply(accepted + key) == LoginReply(None, 4711)
    assert startup.read_login_reply(accepted + key + ready) == LoginReply("ok", 4711)
    error = startup.error_response("no such database")
    assert startup.read_login_reply(accepted + error) == LoginReply("no such database", None)
    assert startup.read_login_reply(accepted + error[:-1]).outcome is None


def test_startup_packet_takes_parameters_that_count_over_its_own() -> None:
    packet = startup.Packet(196608, b"user\0x\0a\0old\0\0").with_parameters({"a": "new"})
    assert packet.parameters == {"user": "x", "a": "new"}
    assert packet.body.endswith(b"new\0\0")


def test_error_says_how_grave_it_is() -> None:
    assert b"SERROR\0VERROR\0CXX000\0Mno\0" in startup.error_response("no")
    assert b"SFATAL\0VFATAL\0C53300\0Mfull\0" in startup.error_response("full", "FATAL", "53300")
