"""The workspace API over HTTP on 127.0.0.1. It stores neither bodies nor headers, and logs nothing."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any

from airflow_provider_lakebase.emulator.api.messages import Call, Reply, fault_reply
from airflow_provider_lakebase.emulator.faults import Answer, Delay, Drop, Faults, RequestFault, Swallow

_MAX_BODY = 1 << 20


@dataclass(frozen=True)
class Request:
    """A request that arrived.

    :param principal: client ID of the caller, or None if it is unknown
    :param status: HTTP status of the answer; 0 if a fault left the request unanswered
    """

    method: str
    path: str
    status: int
    principal: str | None


class Web(http.server.ThreadingHTTPServer):
    """An HTTP server with one thread for each connection; ``answer`` turns a call into a reply."""

    request_queue_size = 128

    def __init__(
        self,
        answer: Callable[[Call], Reply],
        faults: Faults,
        control: Callable[[Call, Message], Reply | None] = lambda call, headers: None,
        *,
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Listen on a port, by default a free one; with ``context``, speak HTTPS.

        ``control`` answers the emulator's own API: such a call is not recorded and takes no fault.
        """
        super().__init__(("127.0.0.1", port), _Handler)
        self._context = context
        self.answer = answer
        self.control = control
        self.faults = faults
        self.stopping = threading.Event()
        self.requests: list[Request] = []
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server_address[1]}"
        self._serving: dict[threading.Thread, socket.socket] = {}
        # Daemon threads: a program that does not stop the emulator can still exit.
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="lakebase-web", daemon=True)

    def start(self) -> None:
        """Start serving. The constructor has already bound the port."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection, kept-alive ones included, and end the threads."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        for thread, connection in self._serving.items():
            _shut(connection)
            thread.join()
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. Its own thread does the TLS handshake, when it reads."""
        connection, address = super().get_request()
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a new thread. Only the thread of ``serve_forever`` calls this."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="lakebase-web-call", daemon=True
        )
        self._serving = {each: open_ for each, open_ in self._serving.items() if each.is_alive()}
        self._serving[thread] = request
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of a connection: the client closed it early."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Web
    protocol_version = "HTTP/1.1"
    server_version = "LakebaseEmulator"
    sys_version = ""
    wbufsize = -1
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        length = _length(self.headers)
        if length is None:
            self.send_error(411, "A request needs a Content-Length, and no Transfer-Encoding")
            return
        if length > _MAX_BODY:
            self.send_error(413)
            return
        path, _, query = self.path.partition("?")
        path = urllib.parse.unquote(path)
        authorization = self.headers.get("Authorization", "")
        body = self.rfile.read(length)
        call = Call(self.command, self.server.url, path, authorization, body, dict(urllib.parse.parse_qsl(query)))
        own = self.server.control(call, self.headers)
        if own:
            self._send(own)
            return
        fault = self.server.faults.take(RequestFault, path)
        if isinstance(fault, Drop | Swallow):
            self._leave_unanswered(call, fault)
            return
        if isinstance(fault, Delay):
            self.server.stopping.wait(fault.seconds)
        reply = fault_reply(call, fault) if isinstance(fault, Answer) else self.server.answer(call)
        self._note(call, reply.status, reply.principal)
        self._send(reply)

    def _leave_unanswered(self, call: Call, fault: Drop | Swallow) -> None:
        self._note(call, 0, None)
        if isinstance(fault, Swallow):
            self.server.stopping.wait()
        self.close_connection = True

    def _note(self, call: Call, status: int, principal: str | None) -> None:
        self.server.requests.append(Request(call.method, call.path, status, principal))

    def _send(self, reply: Reply) -> None:
        page = isinstance(reply.body, str)
        body = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if page else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _length(headers: Message) -> int | None:
    """Return the length of the body; None if the request states it in an unsupported way."""
    text = headers.get("Content-Length") or "0"
    return int(text) if text.isdecimal() and "Transfer-Encoding" not in headers else None


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # already closed
        pass
