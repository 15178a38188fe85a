"""The gate in front of PostgreSQL: TLS, the check of the credential, the wake, then a relay of bytes both ways.

An event loop in its own thread serves all clients. The errors that clients get, and the order of the checks, follow
the proxy in front of Lakebase as far as it is known. After the login the gate changes nothing: cancel keys, errors and
the end of a session are PostgreSQL's own.

Lakebase identifies the endpoint by the TLS server name. Only ``localhost`` is sure to resolve to this machine, so here
each endpoint has its own loopback address, and the address that a client connects to identifies it.
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

from airflow_provider_lakebase.emulator.faults import HangUp, Ignore, RefuseLogin
from airflow_provider_lakebase.emulator.model.workspace import FIRST_ADDRESS, Endpoint, State
from airflow_provider_lakebase.emulator.postgres_port import startup
from airflow_provider_lakebase.emulator.postgres_port.authentication import check_password, check_role
from airflow_provider_lakebase.emulator.postgres_port.compute import Compute
from airflow_provider_lakebase.emulator.postgres_port.handshake import ALPN, Client, open_client, remember_server_name
from airflow_provider_lakebase.emulator.postgres_port.login_errors import INSECURE, LoginRefused
from airflow_provider_lakebase.emulator.postgres_port.postgres import Postgres
from airflow_provider_lakebase.emulator.postgres_port.relay import Side, abort_all

_LOGIN_SECONDS = 60.0
_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Login:
    """A login attempt.

    :param outcome: ``ok``, or the text of the error that the client got
    :param time: seconds since 1970
    :param endpoint: resource name of the endpoint
    """

    user: str
    database: str
    outcome: str
    time: float
    endpoint: str = ""


@dataclass(frozen=True)
class _Door:
    """The endpoint behind an address that clients connect to."""

    compute: Compute
    read_only: bool


class Gate:
    """Serves clients on loopback addresses, all on the same port."""

    def __init__(self, state: State, postgres: Postgres, context: ssl.SSLContext) -> None:
        self.logins: list[Login] = []
        self._state = state
        self._faults = state.behaviour.faults
        self._postgres = postgres
        self._context = context
        self._context.set_alpn_protocols([ALPN])
        self._context.sni_callback = remember_server_name
        self._computes: dict[Endpoint, Compute] = {}
        self._listeners: dict[str, tuple[socket.socket, asyncio.Task[None]]] = {}
        self._clients: set[Side] = set()
        self._ignored: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # -- called from any thread

    def start(self) -> int:
        """Listen on a free port and return it; raise ``OSError`` if that fails."""
        listener = socket.create_server((FIRST_ADDRESS, 0), backlog=256)
        self._ready_made = {FIRST_ADDRESS: listener}
        self._port = int(listener.getsockname()[1])
        ready: Future[None] = Future()
        # A daemon thread: a program that does not stop the emulator can still exit.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="lakebase-gate", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except OSError:
            self._thread.join()
            raise
        return self._port

    def stop(self) -> None:
        """Cut every client and end the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def open(self, endpoint: Endpoint) -> None:
        """Listen on every address of an endpoint; raise ``OSError`` if one of them is in use."""
        self._run(self._open(endpoint))

    def shut(self) -> None:
        """Stop listening until ``reopen``; open sessions continue."""
        self._run(self._shut())

    def reopen(self) -> None:
        """Listen again; raise ``OSError`` if the port is in use by now."""
        self._run(self._open_all())

    def suspend(self, endpoint: Endpoint) -> None:
        """Suspend an endpoint; return when its sessions are cut."""
        self._run(self._computes[endpoint].suspend())

    def wake(self, endpoint: Endpoint) -> None:
        """Wake an endpoint and return when it is active; raise ``LoginRefused`` if the wake fails."""
        self._run(self._computes[endpoint].wake())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # -- the event loop

    async def _serve(self, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            await self._open_all()
        except OSError as error:
            ready.set_exception(error)
        else:
            self._start_task(self._tick())
            ready.set_result(None)
            await self._stopping.wait()
        await self._close()

    async def _close(self) -> None:
        await self._shut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._ignored:
            each.close()
        await abort_all(self._clients.union(*(compute.sessions for compute in self._computes.values())))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _shut(self) -> None:
        for listener, task in self._listeners.values():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            listener.close()
        self._listeners.clear()

    async def _open_all(self) -> None:
        for endpoint in self._state.endpoints.values():
            await self._open(endpoint)

    async def _open(self, endpoint: Endpoint) -> None:
        if endpoint not in self._computes:
            self._computes[endpoint] = Compute(endpoint, self._postgres, self._state.behaviour)
        for address in endpoint.addresses:
            if address in self._listeners:
                continue
            ready_made = self._ready_made.pop(address, None)
            listener = ready_made or socket.create_server((address, self._port), backlog=256)
            listener.setblocking(False)
            door = _Door(self._computes[endpoint], read_only=address == endpoint.read_only_address)
            self._listeners[address] = listener, self._start_task(self._accept(listener, door))

    async def _accept(self, listener: socket.socket, door: _Door) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            if self._faults.take(HangUp):
                connection.close()
            elif self._faults.take(Ignore):
                self._ignored.append(connection)
            else:
                connection.setblocking(False)
                # asyncio sets it only on sockets created with a protocol number; without it a login takes 45 ms.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._start_task(self._attend(connection, door))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for compute in list(self._computes.values()):
                await compute.suspend_if_due()

    # -- one client

    async def _attend(self, connection: socket.socket, door: _Door) -> None:
        """Serve one client until the relay starts. Whatever it sends can only end its own connection."""
        with contextlib.suppress(OSError, EOFError, startup.ProtocolError):
            async with asyncio.timeout(_LOGIN_SECONDS):
                client = await open_client(connection, self._context, self._clients)
            if client.packet.code == startup.CANCEL_REQUEST:
                await self._forward_cancel(client)
                return
            try:
                await self._login(client, door)
            except LoginRefused as refused:
                self._note(client, door, str(refused))
                reply = startup.error_response(str(refused), refused.severity, refused.sqlstate)
                client.side.transport.write(reply)
                client.side.transport.close()
            except BaseException:
                client.side.transport.abort()
                raise

    async def _login(self, client: Client, door: _Door) -> None:
        if not client.secure:
            raise LoginRefused(INSECURE.format(client.packet.code))
        client.side.transport.write(startup.cleartext_password_request())
        async with asyncio.timeout(_LOGIN_SECONDS):
            password = await startup.read_password(client.side.readexactly)
        fault = self._faults.take(RefuseLogin)
        if fault:
            raise LoginRefused(fault.text)
        user = client.packet.parameters.get("user", "")
        credential = await check_password(self._state, self._postgres, user, password, pooled=client.pooled)
        await door.compute.wake()
        if credential:
            await check_role(self._postgres, user, credential)
        await door.compute.open_session(
            client, lambda outcome: self._note(client, door, outcome), read_only=door.read_only
        )

    def _note(self, client: Client, door: _Door, outcome: str) -> None:
        parameters = client.packet.parameters
        user = parameters.get("user", "")
        database = parameters.get("database", user)
        self.logins.append(Login(user, database, outcome, self._state.clock(), door.compute.endpoint.name))

    async def _forward_cancel(self, client: Client) -> None:
        """Forward a cancel request to PostgreSQL, which knows the keys. As in PostgreSQL, it gets no answer."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._postgres.socket)
            writer.write(client.packet.wire)
            await reader.read()
            writer.close()
            await writer.wait_closed()
        finally:
            client.side.transport.close()
