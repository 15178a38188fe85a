"""The door in front of PostgreSQL: TLS, the credential, the wake, then a relay of bytes both ways.

An event loop in a thread of its own serves every client. What a client is told, and in which order things are looked
at, is what the proxy in front of Lakebase does as far as that is known; every refusal of the gate's own is one of the
texts below. After a login the gate changes nothing of what passes: the keys for cancelling, the errors and the end of a
session are PostgreSQL's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from airflow_provider_lakebase.emulator import startup
from airflow_provider_lakebase.emulator.handshake import ALPN, Client, open_client, remember_server_name
from airflow_provider_lakebase.emulator.postgres import Postgres
from airflow_provider_lakebase.emulator.relay import Side
from airflow_provider_lakebase.emulator.state import Issued, State

HOST = "localhost"
POOLED_HOST = "localhost-pooler"

INSECURE = "Invalid protocol version: {}"
POOLED = "SASL authentication failed"
UNKNOWN_CREDENTIAL = "Provided authentication token is not a valid JWT encoding"
UNAUTHORIZED = "OAuth: User is not authorized"
DISABLED = "Control plane request failed: endpoint is disabled"
NO_ROLE = 'role "{}" does not exist'
PLAIN_ROLE = "password authentication failed for user '{}'"

_LOGIN_SECONDS = 60.0
_TICK_SECONDS = 1.0
_CUT_ATTEMPTS = 40
_CUT_SECONDS = 0.05


class Refused(Exception):
    """A login that the gate refuses; the text is what the client is told."""


@dataclass(frozen=True)
class Login:
    """One attempt to log in: its outcome is ``ok`` or the text of the error that the client got."""

    user: str
    database: str
    outcome: str
    time: float


class Gate:
    """Serves clients on 127.0.0.1; ``start`` returns the port."""

    def __init__(self, state: State, postgres: Postgres, context: ssl.SSLContext, wake_seconds: float) -> None:
        self.wake_seconds = wake_seconds
        self.logins: list[Login] = []
        self._state = state
        self._postgres = postgres
        self._context = context
        self._context.set_alpn_protocols([ALPN])
        self._context.sni_callback = remember_server_name
        self._clients: set[Side] = set()
        self._servers: set[Side] = set()

    # -- called from any thread

    def start(self) -> int:
        """Listen on a free port and return it; raise ``OSError`` if that cannot be done."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        listener.setblocking(False)
        port: int = listener.getsockname()[1]
        ready: Future[None] = Future()
        # A daemon: a program that forgets to stop the emulator shall still end.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, ready)), name="lakebase-gate", daemon=True
        )
        self._thread.start()
        ready.result()
        return port

    def stop(self) -> None:
        """Cut every client and end the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def suspend(self) -> None:
        """Suspend the endpoint and return when every session is cut."""
        self._run(self._suspend())

    def wake(self) -> None:
        """Wake the endpoint and return when it is active; do nothing while it is disabled."""
        self._run(self._wake())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # -- the event loop

    async def _serve(self, listener: socket.socket, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        # Held while the endpoint changes its state and while a session is added: none slips past a suspend.
        self._turning = asyncio.Lock()
        tasks: set[asyncio.Task[None]] = set()
        tasks.add(asyncio.create_task(self._accept(listener, tasks)))
        tasks.add(asyncio.create_task(self._tick()))
        ready.set_result(None)
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        listener.close()
        await _abort(self._clients | self._servers)

    async def _accept(self, listener: socket.socket, tasks: set[asyncio.Task[None]]) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            connection.setblocking(False)
            # asyncio does so only for sockets made with an explicit protocol number; without it a login takes 45 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._attend(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not self._state.suspend_is_due():
                continue
            if await asyncio.to_thread(self._postgres.is_busy):
                self._state.touch()
            else:
                await self._suspend()

    # -- one client

    async def _attend(self, connection: socket.socket) -> None:
        """Serve one client up to the relay; whatever it sends, only its own connection ends."""
        with contextlib.suppress(OSError, EOFError, startup.ProtocolError):
            async with asyncio.timeout(_LOGIN_SECONDS):
                client = await open_client(connection, self._context, self._clients)
            if client.packet.code == startup.CANCEL_REQUEST:
                await self._forward_cancel(client)
                return
            try:
                await self._login(client)
            except Refused as refused:
                self._note(client, str(refused))
                client.side.transport.write(startup.error_response(str(refused)))
                client.side.transport.close()
            except BaseException:
                client.side.transport.abort()
                raise

    async def _login(self, client: Client) -> None:
        if not client.secure:
            raise Refused(INSECURE.format(client.packet.code))
        client.side.transport.write(startup.cleartext_password_request())
        async with asyncio.timeout(_LOGIN_SECONDS):
            password = await startup.read_password(client.side.readexactly)
        if client.server_name and client.server_name.split(".")[0].endswith("-pooler"):
            raise Refused(POOLED)
        user = client.packet.parameters.get("user", "")
        credential = self._check_credential(user, password)
        await self._wake()
        await self._check_role(user, credential)
        await self._relay(client)

    def _check_credential(self, user: str, password: str) -> Issued:
        credential = self._state.credential(password)
        if credential is None:
            raise Refused(UNKNOWN_CREDENTIAL)
        if credential.expires_at <= self._state.clock() or credential.principal.role != user:
            raise Refused(UNAUTHORIZED)
        if self._state.endpoint.disabled:
            raise Refused(DISABLED)
        return credential

    async def _check_role(self, user: str, credential: Issued) -> None:
        exists, label = await asyncio.to_thread(self._postgres.role_label, user)
        if not exists:
            raise Refused(NO_ROLE.format(user))
        if label is None:
            raise Refused(PLAIN_ROLE.format(user))
        if label != credential.principal.label:
            raise Refused(UNAUTHORIZED)

    async def _relay(self, client: Client) -> None:
        while True:
            async with self._turning:
                if self._state.endpoint.state == "ACTIVE":
                    _, server = await self._loop.create_unix_connection(
                        lambda: Side(self._servers), self._postgres.socket
                    )
                    break
            # Suspended between the wake and here. A client that has hung up meanwhile wakes nothing.
            if client.side.lost.is_set():
                raise EOFError
            await self._wake()
        server.observe = lambda data: self._see_first_reply(client, server, data)
        client.side.observe = self._see_traffic
        server.join(client.side)
        server.transport.write(client.packet.wire)

    def _see_first_reply(self, client: Client, server: Side, data: bytes) -> None:
        self._note(client, startup.login_outcome(data))
        server.observe = self._see_traffic
        self._see_traffic(data)

    def _see_traffic(self, data: bytes) -> None:
        self._state.touch()

    def _note(self, client: Client, outcome: str) -> None:
        parameters = client.packet.parameters
        user = parameters.get("user", "")
        self.logins.append(Login(user, parameters.get("database", user), outcome, self._state.clock()))

    async def _forward_cancel(self, client: Client) -> None:
        """Hand the request to PostgreSQL, which alone knows the keys; the client hears nothing, as ever."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._postgres.socket)
            writer.write(client.packet.wire)
            await reader.read()
            writer.close()
            await writer.wait_closed()
        finally:
            client.side.transport.close()

    # -- the endpoint

    async def _wake(self) -> None:
        """Have the endpoint active; every client that waits shares one wake. Raise ``Refused`` if it is disabled."""
        async with self._turning:
            if self._state.endpoint.disabled:
                raise Refused(DISABLED)
            if self._state.move("wake"):
                await asyncio.sleep(self.wake_seconds)
            self._state.move("activate")

    async def _suspend(self) -> None:
        async with self._turning:
            # In this order, so that whoever sees the endpoint asleep finds no session left.
            await self._cut(set(self._servers))
            self._state.move("suspend")

    async def _cut(self, sessions: set[Side]) -> None:
        """End the sessions by ending their backends, again and again: one that just connected is not yet listed."""
        for _ in range(_CUT_ATTEMPTS):
            if not sessions & self._servers:
                return
            await asyncio.to_thread(self._postgres.terminate_sessions)
            waits = [asyncio.create_task(side.lost.wait()) for side in sessions & self._servers]
            if waits:
                await asyncio.wait(waits, timeout=_CUT_SECONDS)
        await _abort(sessions)


async def _abort(sides: set[Side]) -> None:
    for side in sides:
        side.transport.abort()
    for side in sides:
        await side.lost.wait()
