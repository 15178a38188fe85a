"""The places where the tests run: the emulator, and a real workspace if ``LAKEBASE_LIVE_CONN`` is set.

A row that takes the fixture ``place`` runs in both; one that takes ``emulator`` needs the emulator's powers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from google.protobuf.duration_pb2 import Duration

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal

LIVE = "LAKEBASE_LIVE_CONN"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "belief(text, source, sure): what we believe of Lakebase, and how sure it is")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        places = ["emulator", "live"] if os.environ.get(LIVE) else ["emulator"]
        metafunc.parametrize("place", places, indirect=True, scope="session")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    url = json.loads(os.environ[LIVE])["host"] if os.environ.get(LIVE) else None
    terminalreporter.write_line(f"live workspace: {url}" if url else f"live workspace: not run ({LIVE} is not set)")


@dataclass(frozen=True)
class Place:
    """A workspace, one of its endpoints, and the identity that owns the database."""

    url: str
    client_id: str
    client_secret: str
    endpoint: str
    host: str
    port: int
    database: str

    def client(self, **changes: str) -> WorkspaceClient:
        arguments = {"host": self.url, "client_id": self.client_id, "client_secret": self.client_secret, **changes}
        return WorkspaceClient(**arguments, auth_type="oauth-m2m")

    def credential(self, ttl: int | None = None) -> str:
        duration = None if ttl is None else Duration(seconds=ttl)
        return str(self.client().postgres.generate_database_credential(self.endpoint, ttl=duration).token)

    def connect(self, **changes: Any) -> psycopg.Connection[Any]:
        arguments = {
            "host": self.host,
            "port": self.port,
            "user": self.client_id,
            "dbname": self.database,
            "sslmode": "require",
            "connect_timeout": 60,
            "autocommit": True,
            **changes,
        }
        if "password" not in arguments:
            arguments["password"] = self.credential()
        return psycopg.connect(**arguments)

    def refusal(self, **changes: Any) -> str:
        """Return the error text of a login that must fail."""
        with pytest.raises(psycopg.OperationalError) as caught:
            self.connect(**changes)
        assert caught.value.sqlstate is None, "psycopg has no SQLSTATE for a failed login"
        return str(caught.value)


def _place_of(connection: str, host: str | None) -> Place:
    fields = json.loads(connection)
    extra = fields["extra"] if isinstance(fields["extra"], dict) else json.loads(fields["extra"])
    place = Place(
        url=fields["host"],
        client_id=fields["login"],
        client_secret=fields["password"],
        endpoint=extra["endpoint"],
        host=host or extra.get("pg_host", ""),
        port=int(fields.get("port") or 5432),
        database=fields.get("schema") or "databricks_postgres",
    )
    if place.host:
        return place
    status = place.client().postgres.get_endpoint(place.endpoint).status
    return Place(**{**vars(place), "host": status.hosts.host})


@pytest.fixture(scope="session")
def emulator() -> Iterator[LakebaseEmulator]:
    with LakebaseEmulator(wake_seconds=0.1) as running:
        with psycopg.connect(running.superuser_conninfo, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION databricks_auth")
        yield running


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "live":
        return _place_of(os.environ[LIVE], None)
    running = request.getfixturevalue("emulator")
    return _place_of(running.connections["lakebase_admin"], "localhost")


@pytest.fixture
def administrator(emulator: LakebaseEmulator) -> Place:
    """The identity that owns the emulator's database."""
    return _place_of(emulator.connection(emulator.administrator), "localhost")


@pytest.fixture
def newcomer(emulator: LakebaseEmulator) -> Principal:
    """An identity of the emulator's workspace without a Postgres role."""
    return emulator.add_principal("newcomer")


@pytest.fixture
def place_of(emulator: LakebaseEmulator) -> Any:
    """Return a function that makes a place from an identity of the emulator."""
    return lambda principal: _place_of(emulator.connection(principal), "localhost")
