"""Start PostgreSQL, the gate and the workspace API, in this order; stop them in reverse."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from airflow_provider_lakebase.emulator.api.http import Web
from airflow_provider_lakebase.emulator.api.router import answer
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import ADDRESSES, State
from airflow_provider_lakebase.emulator.postgres_port.certificate import make_server_context
from airflow_provider_lakebase.emulator.postgres_port.gate import Gate
from airflow_provider_lakebase.emulator.postgres_port.postgres import Postgres

# The wildcard covers the pooled hosts of all endpoints but the first.
_NAMES = ["localhost", "localhost-pooler", "*.localhost"]


class Server:
    """The running parts of an emulator."""

    def __init__(self, state: State, owner: Principal) -> None:
        """Start all parts. If one fails to start, stop the others and raise its error."""
        with contextlib.ExitStack() as started:
            self.postgres = Postgres(state.postgres_version)
            self.postgres.start()
            started.callback(self.postgres.stop)
            self.postgres.create_administrator(owner.role, owner.label)
            self.publish_identities(state)
            context = make_server_context(self.postgres.directory, _NAMES, [*ADDRESSES, "::1"])
            self.ca_file: Path = self.postgres.directory / "ca.pem"
            self.gate = Gate(state, self.postgres, context)
            self.port = self.gate.start()
            started.callback(self.gate.stop)
            self.web = Web(functools.partial(answer, state), state.behaviour.faults)
            started.callback(self.web.server_close)
            self.web.start()
            started.callback(self.web.stop)
            self._started = started.pop_all()

    def publish_identities(self, state: State) -> None:
        """Write the workspace's identities to the file that ``databricks_create_role`` reads."""
        self.postgres.write_identities(
            [
                {"name": each.role, "type": each.identity_type, "id": each.scim_id}
                for each in state.identities.principals()
            ]
        )

    def stop(self) -> None:
        """Stop all parts and remove their files."""
        self._started.close()
