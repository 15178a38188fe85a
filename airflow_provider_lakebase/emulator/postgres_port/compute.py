"""The compute of an endpoint: wakes, suspends and sessions. Runs in the gate's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from airflow_provider_lakebase.emulator.faults import CutAfter, FailWake
from airflow_provider_lakebase.emulator.model.endpoints import Endpoint
from airflow_provider_lakebase.emulator.model.workspace import Behaviour
from airflow_provider_lakebase.emulator.postgres_port.cluster import Cluster
from airflow_provider_lakebase.emulator.postgres_port.handshake import Client
from airflow_provider_lakebase.emulator.postgres_port.login_errors import DISABLED, NO_SLOTS, LoginRefused
from airflow_provider_lakebase.emulator.postgres_port.relay import Side, abort_all
from airflow_provider_lakebase.emulator.postgres_port.startup import read_login_reply

_CUT_ATTEMPTS = 40
_CUT_SECONDS = 0.05
# Their clients get SQLSTATE 57P01.
_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid = ANY(%s)"
)
_BUSY = "SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s) AND state <> 'idle'"
_READ_ONLY = {"default_transaction_read_only": "on"}


class Compute:
    """Wakes and suspends one endpoint, and relays its sessions."""

    def __init__(self, endpoint: Endpoint, cluster: Cluster, behaviour: Behaviour) -> None:
        self.endpoint = endpoint
        self.cluster = cluster
        self.sessions: set[Side] = set()
        self._behaviour = behaviour
        # Held while the endpoint changes state and while a session is added, so that a suspend misses no session.
        self._turning = asyncio.Lock()

    async def wake(self) -> None:
        """Wake the endpoint unless it is active; waiting clients share one wake. Raise ``LoginRefused`` if it fails."""
        async with self._turning:
            if self.endpoint.disabled:
                raise LoginRefused(DISABLED)
            if self.endpoint.move("wake"):
                try:
                    await asyncio.gather(asyncio.sleep(self._behaviour.wake_seconds), self._start())
                except BaseException:
                    self.endpoint.move("suspend")
                    raise
                fault = self._behaviour.faults.take(FailWake)
                if fault:
                    await self._stop()
                    self.endpoint.move("suspend")
                    raise LoginRefused(fault.text)
            self.endpoint.move("activate")

    async def suspend(self) -> None:
        """Cut every session and suspend the endpoint."""
        async with self._turning:
            # In this order, so that a suspended endpoint never has sessions.
            await self._cut(set(self.sessions))
            await self._stop()
            self.endpoint.move("suspend")

    async def open(self) -> None:
        """Start the server if the endpoint is awake."""
        async with self._turning:
            if self.endpoint.state != "IDLE":
                await self._start()

    async def close(self) -> None:
        """Cut every session and let the server stop."""
        async with self._turning:
            await self._cut(set(self.sessions))
            await self._stop()

    async def _start(self) -> None:
        await asyncio.to_thread(self.cluster.wake, self.endpoint.uid)

    async def _stop(self) -> None:
        await asyncio.to_thread(self.cluster.suspend, self.endpoint.uid)

    async def suspend_if_due(self) -> None:
        """Suspend the endpoint if it is idle for long enough or disabled."""
        if self.endpoint.disabled and self.endpoint.state != "IDLE":
            await self.suspend()
        elif self.endpoint.suspend_is_due():
            if await asyncio.to_thread(self._is_busy):
                self.endpoint.touch()
            else:
                await self.suspend()

    async def open_session(self, client: Client, note: Callable[[str], None], *, read_only: bool) -> None:
        """Connect the client to PostgreSQL and start relaying; ``note`` gets the outcome of the login."""
        server = await self._connect(client)
        server.observe = _LoginWatch(server, note, self._see_traffic)
        client.side.observe = self._see_traffic
        cut = self._behaviour.faults.take(CutAfter)
        if cut:
            client.side.limit = cut.size
        packet = client.packet.with_parameters(_READ_ONLY) if read_only else client.packet
        # First, since a client may have sent more than its password already.
        server.transport.write(packet.wire)
        server.join(client.side)

    async def _connect(self, client: Client) -> Side:
        while True:
            async with self._turning:
                if self.endpoint.state == "ACTIVE":
                    room = self._behaviour.max_sessions
                    if room is not None and len(self.sessions) >= room:
                        raise LoginRefused(NO_SLOTS, severity="FATAL", sqlstate="53300")
                    loop = asyncio.get_running_loop()
                    _, server = await loop.create_unix_connection(lambda: Side(self.sessions), self.cluster.socket)
                    return server
            # The endpoint was suspended after the wake. Wake it again, unless the client has gone or sends no more.
            if client.side.lost.is_set() or client.side.ended:
                raise EOFError
            await self.wake()

    def _see_traffic(self, data: bytes) -> None:
        self.endpoint.touch()

    async def _cut(self, sessions: set[Side]) -> None:
        """Terminate the sessions' backends. Repeat: a session that just connected has no known pid yet."""
        for _ in range(_CUT_ATTEMPTS):
            if not sessions & self.sessions:
                return
            await asyncio.to_thread(self.cluster.execute, _TERMINATE, (self._pids(sessions & self.sessions),))
            waits = [asyncio.create_task(side.lost.wait()) for side in sessions & self.sessions]
            if waits:
                await asyncio.wait(waits, timeout=_CUT_SECONDS)
        await abort_all(sessions)

    def _is_busy(self) -> bool:
        return bool(self.cluster.execute(_BUSY, (self._pids(self.sessions),)))

    @staticmethod
    def _pids(sessions: set[Side]) -> list[int]:
        return [session.pid for session in sessions if session.pid is not None]


class _LoginWatch:
    """Observe PostgreSQL's reply to a login until its outcome is known, then hand over to ``afterwards``."""

    def __init__(self, server: Side, note: Callable[[str], None], afterwards: Callable[[bytes], None]) -> None:
        self._server = server
        self._note = note
        self._afterwards = afterwards
        self._seen = b""

    def __call__(self, data: bytes) -> None:
        self._seen += data
        reply = read_login_reply(self._seen)
        self._server.pid = reply.pid
        if reply.outcome is not None:
            self._note(reply.outcome)
            self._server.observe = self._afterwards
        self._afterwards(data)
