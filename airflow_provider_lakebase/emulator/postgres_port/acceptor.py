"""Accepts clients in a process of its own and passes their sockets on. ``listeners.py`` starts it.

Drivers cancel a statement by ``PQcancel``, which waits until the server has taken the request; psycopg and psycopg2
hold Python's global lock meanwhile. If they run in the emulator's process, nothing of the emulator can run. So this
process takes such a request, closes its connection at once, and passes the request on.

Standard library only: it starts without site-packages.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import sys
import time
from collections import deque

_CANCEL_REQUEST = 80877102
_MAX_CANCEL = 1024
# A client that sends nothing for so long is passed on, so that the gate's timeout applies to it.
_SILENT_SECONDS = 1.0
_REST_SECONDS = 0.05


class Acceptor:
    """Serves until its control socket is closed.

    Each message to it is the address of a listening socket, and the socket. Each message from it is that address and a
    client's socket, or that address, a null byte and a cancel request.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._control.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        # Accepted connections that have sent nothing yet, oldest first, with address and time.
        self._silent: dict[socket.socket, tuple[bytes, float]] = {}
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()

    def serve(self) -> None:
        """Accept connections until the control socket is closed."""
        while True:
            timeout = _SILENT_SECONDS if self._silent else None
            for key, events in self._selector.select(timeout):
                if key.fileobj is not self._control:
                    self._read(key.fileobj, key.data)  # type: ignore[arg-type]
                elif events & selectors.EVENT_READ and not self._add_listener():
                    return
            self._pass_on_silent()
            self._send()

    def _add_listener(self) -> bool:
        """Receive a listening socket; return False if the control socket is closed."""
        message, descriptors, *_ = socket.recv_fds(self._control, 100, 1)
        for descriptor in descriptors:
            self._selector.register(socket.socket(fileno=descriptor), selectors.EVENT_READ, message)
        return bool(message)

    def _read(self, readable: socket.socket, address: bytes) -> None:
        if readable in self._silent:
            self._take(readable, address)
            return
        try:
            connection, _ = readable.accept()
        except ConnectionError:
            return
        except OSError as error:
            if error.errno == errno.EINVAL:  # it no longer listens
                self._selector.unregister(readable)
                readable.close()
            else:  # out of file handles or memory
                time.sleep(_REST_SECONDS)
            return
        self._silent[connection] = address, time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ, address)

    def _take(self, connection: socket.socket, address: bytes) -> None:
        self._silent.pop(connection)
        self._selector.unregister(connection)
        try:
            begin = connection.recv(_MAX_CANCEL, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            begin = b""
        if len(begin) >= 8 and struct.unpack_from("!II", begin) == (len(begin), _CANCEL_REQUEST):
            # Read it: a socket that is closed with unread data resets the connection.
            connection.recv(_MAX_CANCEL)
            connection.close()
            self._unsent.append((address + b"\0" + begin, None))
        else:
            self._unsent.append((address, connection))

    def _pass_on_silent(self) -> None:
        while self._silent:
            connection, (address, since) = next(iter(self._silent.items()))
            if time.monotonic() - since < _SILENT_SECONDS:
                return
            self._take(connection, address)

    def _send(self) -> None:
        """Send what the gate takes now; the rest follows when it takes more."""
        while self._unsent:
            message, connection = self._unsent[0]
            try:
                socket.send_fds(self._control, [message], [connection.fileno()] if connection else [])
            except BlockingIOError:
                break
            except ConnectionError:  # the gate is gone; the control socket says so too
                return
            self._unsent.popleft()
            if connection:
                connection.close()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._control, wanted)


if __name__ == "__main__":
    Acceptor(socket.socket(fileno=int(sys.argv[1]))).serve()
