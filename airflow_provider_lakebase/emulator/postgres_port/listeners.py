"""The addresses that clients connect to. A process of its own accepts the connections; see ``acceptor.py``."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet

_ACCEPTOR = Path(__file__).with_name("acceptor.py")
_BACKLOG = 1024
_STOP_SECONDS = 10.0
_PORTS_TO_TRY = 20
# The name localhost means either address.
_SECOND_ADDRESS = {"127.0.0.1": "::1"}

Take = Callable[[str, socket.socket | bytes], None]

_open: WeakSet[Listeners] = WeakSet()


def _close_in_child() -> None:
    """Close the sockets in a forked child: if it held them, the acceptor would outlive the process that started it."""
    for listeners in _open:
        listeners.close_sockets()


os.register_at_fork(after_in_child=_close_in_child)


class Listeners:
    """Listens on loopback addresses, all on the same port. ``stop`` ends it."""

    def __init__(self, address: str, port: int = 0) -> None:
        """Listen on the first address; port 0 chooses a free one. Raise ``OSError`` if it is in use."""
        self._sockets: dict[str, list[socket.socket]] = {address: _listen_on_any(address, port)}
        self.port = int(self._sockets[address][0].getsockname()[1])
        self._control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _open.add(self)
        with remote:
            self._process = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-S", str(_ACCEPTOR), str(remote.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                pass_fds=[remote.fileno()],
                start_new_session=True,
            )
        self._send(address)

    def __contains__(self, address: str) -> bool:
        return address in self._sockets

    def open(self, address: str) -> None:
        """Listen on an address too; raise ``OSError`` if another program uses the port there."""
        self._sockets[address] = _listen(address, self.port)
        self._send(address)

    def shut(self, address: str) -> None:
        """Refuse new connections to an address."""
        for listener in self._sockets.pop(address):
            # The acceptor has a copy of it: closing this one would not end the listening.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def shut_all(self) -> None:
        """Refuse every new connection."""
        for address in list(self._sockets):
            self.shut(address)

    async def pass_to(self, take: Take) -> None:
        """Call ``take`` for each client, with the address that it connected to: with its socket or cancel request."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._control, self._receive, take, ended)
        try:
            await ended
        finally:
            loop.remove_reader(self._control)
        # Without the acceptor nobody would be served: refuse them.
        self.shut_all()

    def _receive(self, take: Take, ended: asyncio.Future[None]) -> None:
        try:
            message, descriptors, *_ = socket.recv_fds(self._control, 2048, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message and not ended.done():
            ended.set_result(None)
        address, _, request = message.partition(b"\0")
        for descriptor in descriptors:
            take(address.decode(), socket.socket(fileno=descriptor))
        if request:
            take(address.decode(), request)

    def stop(self) -> None:
        """Stop listening, and end the process that accepts."""
        self.shut_all()
        self._control.close()
        self._process.wait(_STOP_SECONDS)

    def close_sockets(self) -> None:
        """Close this process's copies of the sockets."""
        self._control.close()
        for listener in sum(self._sockets.values(), []):
            listener.close()

    def _send(self, address: str) -> None:
        for listener in self._sockets[address]:
            socket.send_fds(self._control, [address.encode()], [listener.fileno()])


def _listen_on_any(address: str, port: int) -> list[socket.socket]:
    """Listen on a port, or on any port that is free on the address and on its second address."""
    for _ in range(_PORTS_TO_TRY - 1):
        try:
            return _listen(address, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _listen(address, port)


def _listen(address: str, port: int) -> list[socket.socket]:
    first = socket.create_server((address, port), backlog=_BACKLOG)
    second = _SECOND_ADDRESS.get(address)
    if second is None:
        return [first]
    try:
        same_port = int(first.getsockname()[1])
        return [first, socket.create_server((second, same_port), family=socket.AF_INET6, backlog=_BACKLOG)]
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # this machine has no IPv6
            return [first]
        first.close()
        raise
