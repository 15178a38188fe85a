"""Start PostgreSQL, the gate and the workspace API, in this order; stop them in reverse."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path

from airflow_provider_lakebase.emulator.api.http import Web
from airflow_provider_lakebase.emulator.api.messages import Call, Reply
from airflow_provider_lakebase.emulator.api.router import answer
from airflow_provider_lakebase.emulator.data_directory import DataDirectory
from airflow_provider_lakebase.emulator.model.clock import ObservedClock
from airflow_provider_lakebase.emulator.model.endpoints import ADDRESSES, FIRST_ADDRESS, pooled_address
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace
from airflow_provider_lakebase.emulator.postgres_port.certificate import make_server_contexts
from airflow_provider_lakebase.emulator.postgres_port.clusters import Clusters
from airflow_provider_lakebase.emulator.postgres_port.gate import Gate
from airflow_provider_lakebase.emulator.postgres_port.roles import create_role_statement
from airflow_provider_lakebase.emulator.postgres_port.server_process import DATABASE
from airflow_provider_lakebase.emulator.postgres_port.synced_tables import TableWriter

# Names of pooled hosts as Lakebase has them reach the gate only if a client is given the address as well.
_NAMES = ["localhost", "localhost-pooler", "*.localhost"]
_ADDRESSES = [*ADDRESSES, *map(pooled_address, ADDRESSES), "::1"]


class Server:
    """The running parts of an emulator."""

    def __init__(
        self,
        state: Workspace,
        owner: Principal,
        clock: ObservedClock,
        control: Callable[[Call, Message], Reply | None],
        *,
        port: int = 0,
        workspace_port: int = 0,
        https: bool = False,
        data_directory: DataDirectory | None = None,
    ) -> None:
        """Start all parts. If one fails to start, stop the others and raise its error."""
        # Before PostgreSQL takes its time. Another program may still be faster: so opening them is explained as well.
        for argument, number in (("port", port), ("workspace_port", workspace_port)):
            with _explained(argument, number):
                socket.create_server((FIRST_ADDRESS, number)).close()
        with contextlib.ExitStack() as started:
            kept = data_directory.kept() if data_directory else None
            self.clusters = Clusters(state.pg_version, state.postgres_bindir, clock, owner, kept)
            started.callback(state.pipelines.join)
            started.callback(state.operations.join)
            started.callback(self.clusters.stop)
            state.operations.start()
            self.publish_identities(state)
            state.synced_tables.writer = TableWriter(self.clusters)
            if not (kept and kept.clusters):
                self.clusters.create(next(iter(state.branches.values())).uid)
                state.forget_data()
            if data_directory:
                state.keep = data_directory.save
                # The directory may be another emulator's afterwards, while an operation that was cancelled still ends.
                started.callback(setattr, state, "keep", lambda: None)
                started.callback(state.keep)
                state.keep()
            # In a data directory, so that the next run has these files at the same place.
            directory = data_directory.path if data_directory else self.clusters.directory
            context, web_context = make_server_contexts(directory, _NAMES, _ADDRESSES)
            self.ca_file: Path = directory / "ca.pem"
            self.gate = Gate(state, self.clusters, context)
            state.clusters, state.computes = self.clusters, self.gate
            with _explained("port", port):
                self.port = self.gate.start(port)
            started.callback(self.gate.stop)
            with _explained("workspace_port", workspace_port):
                self.web = Web(
                    functools.partial(answer, state),
                    state.behaviour.faults,
                    control,
                    port=workspace_port,
                    context=web_context if https else None,
                )
            started.callback(self.web.server_close)
            started.callback(state.pipelines.stop_all)
            self.web.start()
            started.callback(self.web.stop)
            started.callback(state.operations.stop)
            self._started = started.pop_all()

    def publish_identities(self, state: Workspace) -> None:
        """Write the workspace's identities to the file that ``databricks_create_role`` reads."""
        self.clusters.write_identities(
            [
                {"name": each.role, "type": each.identity_type, "id": each.scim_id}
                for each in state.identities.principals()
            ]
        )

    def create_role(self, cluster: str, creator: Principal, principal: Principal) -> None:
        """Create an identity's role as ``creator`` would, with CREATE on the database; do nothing if it exists."""
        self.clusters.execute(cluster, DATABASE, create_role_statement(creator, principal, DATABASE))

    def stop(self) -> None:
        """Stop all parts and remove their files."""
        self._started.close()


@contextlib.contextmanager
def _explained(argument: str, port: int) -> Iterator[None]:
    """Name the argument in the error of a port that cannot be had."""
    if not 0 <= port <= 65535:
        raise RuntimeError(f"{argument}={port}: a port is a number from 0 to 65535")
    try:
        yield
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        message = f"{argument}={port}: this port of 127.0.0.1 {reason}; choose another, or 0 for a free one"
        raise RuntimeError(message) from error
