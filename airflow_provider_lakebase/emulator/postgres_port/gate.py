"""The gate in front of PostgreSQL: TLS, the check of the credential, the wake, then a relay of bytes both ways.

An event loop in its own thread serves all clients. The errors that clients get, and the order of the checks, follow
the proxy in front of Lakebase as far as it is known. After the login the gate changes nothing: cancel keys, errors and
the end of a session are PostgreSQL's own.

Lakebase identifies the endpoint by the TLS server name. Only ``localhost`` is sure to resolve to this machine, so here
each endpoint has its own loopback addresses, and the address that a client connects to identifies it.
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

import psycopg

from airflow_provider_lakebase.emulator.faults import HangUp, Ignore, RefuseLogin
from airflow_provider_lakebase.emulator.model.endpoints import FIRST_ADDRESS, Endpoint
from airflow_provider_lakebase.emulator.model.workspace import Workspace
from airflow_provider_lakebase.emulator.postgres_port import startup
from airflow_provider_lakebase.emulator.postgres_port.authentication import check_password, check_role
from airflow_provider_lakebase.emulator.postgres_port.cluster import Cluster
from airflow_provider_lakebase.emulator.postgres_port.clusters import Clusters
from airflow_provider_lakebase.emulator.postgres_port.compute import Compute
from airflow_provider_lakebase.emulator.postgres_port.handshake import ALPN, Client, open_client, remember_server_name
from airflow_provider_lakebase.emulator.postgres_port.keeper import PostgresError
from airflow_provider_lakebase.emulator.postgres_port.listeners import Listeners
from airflow_provider_lakebase.emulator.postgres_port.login_errors import INSECURE, LoginRefused
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
    pooled: bool


class Gate:
    """Serves clients on loopback addresses, all on the same port."""

    def __init__(self, state: Workspace, clusters: Clusters, context: ssl.SSLContext) -> None:
        self.logins: list[Login] = []
        self._state = state
        self._faults = state.behaviour.faults
        self._clusters = clusters
        self._context = context
        self._context.set_alpn_protocols([ALPN])
        self._context.sni_callback = remember_server_name
        self._computes: dict[Endpoint, Compute] = {}
        self._doors: dict[str, _Door] = {}
        self._clients: set[Side] = set()
        self._ignored: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # -- called from any thread

    def start(self, port: int = 0) -> int:
        """Listen on a port, by default a free one, and return it; raise ``OSError`` if that fails."""
        self._listeners = Listeners(FIRST_ADDRESS, port)
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
            self._listeners.stop()
            raise
        return self._listeners.port

    def stop(self) -> None:
        """Cut every client and end the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._listeners.stop()

    def open(self, endpoint: Endpoint) -> None:
        """Listen on every address of an endpoint; raise ``OSError`` if one of them is in use."""
        self._run(self._open(endpoint))

    def close(self, endpoint: Endpoint) -> None:
        """Cut an endpoint's sessions and refuse connections to it from now on."""
        self._run(self._close_endpoint(endpoint))

    def shut(self) -> None:
        """Stop listening until ``reopen``; open sessions continue."""
        self._run(self._shut())

    def reopen(self) -> None:
        """Listen again; raise ``OSError`` if the port is in use by now."""
        self._run(self._open_all())

    def suspend(self, endpoint: Endpoint) -> None:
        """Suspend an endpoint; return when its sessions are cut."""
        self._run(self._compute(endpoint).suspend())

    def wake(self, endpoint: Endpoint) -> None:
        """Wake an endpoint and return when it is active; raise ``LoginRefused`` if the wake fails."""
        self._run(self._compute(endpoint).wake())

    def _compute(self, endpoint: Endpoint) -> Compute:
        found = self._computes.get(endpoint)
        if found is None:
            raise RuntimeError(f"{endpoint.name} takes no logins: its branch is deleted or not ready")
        return found

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except RuntimeError:
            # The loop has ended. Without this, Python warns of a coroutine that nobody awaited.
            work.close()
            raise

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
            self._start_task(self._listeners.pass_to(self._take))
            ready.set_result(None)
            await self._stopping.wait()
        await self._close()

    async def _close(self) -> None:
        self._listeners.shut_all()
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
        self._listeners.shut_all()

    async def _open_all(self) -> None:
        for endpoint in self._state.endpoints.values():
            if not self._state.branches.is_closed(endpoint.branch):
                await self._open(endpoint)

    async def _open(self, endpoint: Endpoint) -> None:
        if endpoint not in self._computes:
            cluster = await asyncio.to_thread(self._cluster, endpoint)
            self._computes[endpoint] = Compute(endpoint, cluster, self._state.behaviour)
            await self._computes[endpoint].open()
        for address in endpoint.addresses:
            if address not in self._listeners:
                self._listeners.open(address)
            self._doors[address] = _Door(
                self._computes[endpoint],
                read_only=endpoint.is_read_only(address),
                pooled=endpoint.is_pooled(address),
            )

    async def _close_endpoint(self, endpoint: Endpoint) -> None:
        for address in endpoint.addresses:
            self._doors.pop(address, None)
            if address in self._listeners:
                self._listeners.shut(address)
        compute = self._computes.pop(endpoint, None)
        if compute:
            await compute.close()

    def _cluster(self, endpoint: Endpoint) -> Cluster:
        """Return the cluster of an endpoint's branch; one that is new is a copy of the first branch."""
        if endpoint.cluster not in self._clusters:
            self._clusters.copy(next(iter(self._state.branches.values())).uid, endpoint.cluster)
        return self._clusters.get(endpoint.cluster)

    def _take(self, address: str, client: socket.socket | bytes) -> None:
        """Serve a client that connected to an address, or forward its cancel request."""
        door = self._doors.get(address)
        if isinstance(client, bytes):
            if door:
                self._start_task(self._forward_cancel(door, client))
        elif door is None:  # the endpoint was deleted in this moment
            client.close()
        elif self._faults.take(HangUp):
            # Read what it sent: a socket that is closed with unread data resets the connection.
            with contextlib.suppress(OSError):
                client.recv(10_000, socket.MSG_DONTWAIT)
            client.close()
        elif self._faults.take(Ignore):
            self._ignored.append(client)
        else:
            client.setblocking(False)
            # asyncio sets it only on sockets created with a protocol number; without it a login takes 45 ms.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start_task(self._attend(client, door))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for compute in list(self._computes.values()):
                # Its server may be stopped or killed meanwhile; the next time, it runs again.
                with contextlib.suppress(psycopg.Error, PostgresError, OSError):
                    await compute.suspend_if_due()
            await asyncio.to_thread(self._clusters.tend)
            await asyncio.to_thread(self._state.expire)
            # What cannot be written now is written the next time.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._state.keep)

    # -- one client

    async def _attend(self, connection: socket.socket, door: _Door) -> None:
        """Serve one client until the relay starts. Whatever it sends can only end its own connection."""
        with contextlib.suppress(OSError, EOFError, startup.ProtocolError):
            async with asyncio.timeout(_LOGIN_SECONDS):
                client = await open_client(connection, self._context, self._clients)
            if client.packet.code == startup.CANCEL_REQUEST:
                client.side.transport.close()
                await self._forward_cancel(door, client.packet.wire)
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
        user, cluster = client.packet.parameters.get("user", ""), door.compute.cluster
        pooled, native = door.pooled or client.pooled, self._state.native_login(door.compute.endpoint)
        credential = await check_password(self._state, cluster, user, password, native=native, pooled=pooled)
        await door.compute.wake()
        if credential:
            await check_role(cluster, user, credential)
        await door.compute.open_session(
            client,
            lambda outcome: self._note(client, door, outcome),
            read_only=door.read_only or (credential is not None and credential.read_only),
        )

    def _note(self, client: Client, door: _Door, outcome: str) -> None:
        parameters = client.packet.parameters
        user = parameters.get("user", "")
        database = parameters.get("database", user)
        self.logins.append(Login(user, database, outcome, self._state.clock(), door.compute.endpoint.name))

    async def _forward_cancel(self, door: _Door, request: bytes) -> None:
        """Forward a cancel request to PostgreSQL, which knows the keys. As in PostgreSQL, it gets no answer."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(door.compute.cluster.socket)
            try:
                writer.write(request)
                await reader.read()
            finally:
                writer.close()
