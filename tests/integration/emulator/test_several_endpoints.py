"""Endpoints beside the first: each has a host, a state and sessions of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from _clients import workspace_client
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.postgres import Endpoint, EndpointSpec, EndpointStatusState, EndpointType, FieldMask

from airflow_provider_lakebase.emulator import LakebaseEmulator

BRANCH = "projects/demo/branches/production"
REPORTING = f"{BRANCH}/endpoints/reporting"


@pytest.fixture(scope="module", params=[18, 16])
def emulator(request: pytest.FixtureRequest) -> Iterator[LakebaseEmulator]:
    emulator = LakebaseEmulator(wake_seconds=0.05, pg_version=request.param)
    # One is added before the start, the other after it.
    emulator.add_endpoint("reporting", endpoint_type="ENDPOINT_TYPE_READ_ONLY", suspend_timeout=600)
    with emulator:
        emulator.add_endpoint("primary", endpoint_type="ENDPOINT_TYPE_READ_WRITE", branch="dev")
        emulator.enable_readable_secondary()
        yield emulator


@pytest.fixture
def client(emulator: LakebaseEmulator) -> WorkspaceClient:
    return workspace_client(emulator)


def test_listing_shows_each_with_its_host(client: WorkspaceClient) -> None:
    primary, reporting = client.postgres.list_endpoints(BRANCH)
    assert (primary.status.hosts.host, primary.status.endpoint_type) == (
        "localhost",
        EndpointType.ENDPOINT_TYPE_READ_WRITE,
    )
    assert reporting.status.endpoint_type == EndpointType.ENDPOINT_TYPE_READ_ONLY
    assert reporting.status.hosts.host == reporting.status.hosts.read_only_host
    assert reporting.status.hosts.host.startswith("127.0.0.")
    assert reporting.status.suspend_timeout_duration.seconds == 600
    assert primary.status.suspend_timeout_duration.seconds == 300
    assert primary.status.group.enable_readable_secondaries
    assert client.postgres.get_endpoint(REPORTING).name == reporting.name == REPORTING
    branches = [each.name for each in client.postgres.list_branches("projects/demo")]
    assert branches == [BRANCH, "projects/demo/branches/dev"]


def test_endpoints_of_a_branch_lead_to_the_same_data(emulator: LakebaseEmulator, connect: Any) -> None:
    with connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS shared (n int)")
        connection.execute("INSERT INTO shared VALUES (1)")
    with connect(host=emulator.endpoint_host(REPORTING)) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM shared").fetchone() == (True,)


@pytest.mark.parametrize("endpoint", [None, REPORTING], ids=["secondary", "endpoint"])
def test_reader_cannot_write(emulator: LakebaseEmulator, connect: Any, endpoint: str | None) -> None:
    with connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS shared (n int)")
    host = emulator.endpoint_host(endpoint, read_only=True)
    # What the client asks for does not count.
    with connect(host=host, options="-c default_transaction_read_only=off") as connection:
        with pytest.raises(
            psycopg.errors.ReadOnlySqlTransaction, match="cannot execute INSERT in a read-only"
        ) as caught:
            connection.execute("INSERT INTO shared VALUES (1)")
    assert caught.value.sqlstate == "25006"
    connect(host=host, target_session_attrs="read-only").close()


def test_suspend_and_wake_are_of_one_endpoint(emulator: LakebaseEmulator, connect: Any) -> None:
    with connect(host=emulator.endpoint_host(REPORTING)) as reader, connect() as writer:
        emulator.suspend(REPORTING)
        assert (emulator.endpoint_state(REPORTING), emulator.state) == ("IDLE", "ACTIVE")
        with pytest.raises(psycopg.errors.AdminShutdown):
            reader.execute("SELECT 1")
        writer.execute("SELECT 1")
    connect(host=emulator.endpoint_host(REPORTING)).close()
    assert emulator.endpoint_state(REPORTING) == "ACTIVE"
    assert emulator.logins[-1].endpoint == REPORTING


def test_secondary_shares_the_state_of_its_endpoint(emulator: LakebaseEmulator, connect: Any) -> None:
    host = emulator.endpoint_host(read_only=True)
    with connect(host=host) as reader:
        emulator.suspend()
        with pytest.raises(psycopg.errors.AdminShutdown):
            reader.execute("SELECT 1")
    connect(host=host).close()
    assert emulator.state == "ACTIVE"


def test_certificate_is_valid_for_every_host(emulator: LakebaseEmulator, connect: Any) -> None:
    pooled_name = {"host": "reporting-pooler.localhost", "hostaddr": "127.0.0.2"}
    for host in ({"host": "127.0.0.2"}, {"host": "127.0.2.2"}, pooled_name):
        with pytest.raises(psycopg.OperationalError, match="not a valid JWT|SASL"):
            connect(password="no", sslmode="verify-full", sslrootcert=str(emulator.ca_file), **host)


def test_endpoint_is_disabled_by_a_request(emulator: LakebaseEmulator, connect: Any, client: WorkspaceClient) -> None:
    def set_disabled(disabled: bool) -> Any:
        mask = FieldMask(["spec.disabled"])
        spec = EndpointSpec(endpoint_type=EndpointType.ENDPOINT_TYPE_READ_ONLY, disabled=disabled)
        return client.postgres.update_endpoint(REPORTING, Endpoint(name=REPORTING, spec=spec), mask).wait()

    host = emulator.endpoint_host(REPORTING)
    with connect(host=host):
        assert set_disabled(True).status.disabled
        deadline = time.monotonic() + 60
        while emulator.endpoint_state(REPORTING) != "IDLE":
            assert time.monotonic() < deadline, "waited a minute"
            time.sleep(0.02)
    with pytest.raises(psycopg.OperationalError, match="endpoint is disabled"):
        connect(host=host)
    assert set_disabled(False).status.current_state == EndpointStatusState.IDLE
    connect(host=host).close()


def test_unknown_endpoint_is_named(emulator: LakebaseEmulator) -> None:
    with pytest.raises(ValueError, match="there is no endpoint 'nowhere'; there are projects/demo"):
        emulator.suspend("nowhere")
    with pytest.raises(ValueError, match="no read-only host"):
        emulator.endpoint_host("projects/demo/branches/dev/endpoints/primary", read_only=True)


def test_endpoint_whose_address_is_taken_is_not_there(emulator: LakebaseEmulator) -> None:
    used = {emulator.endpoint_host(each, read_only=True) for each in (None, REPORTING)}
    used.add(emulator.endpoint_host("projects/demo/branches/dev/endpoints/primary"))
    with socket.create_server((f"127.0.0.{max(int(each.split('.')[-1]) for each in used) + 1}", emulator.port)):
        with pytest.raises(OSError, match="in use"):
            emulator.add_endpoint("unlucky")
    with pytest.raises(ValueError, match="there is no endpoint"):
        emulator.endpoint_state(f"{BRANCH}/endpoints/unlucky")
    added = emulator.add_endpoint("unlucky")
    emulator.suspend(added)
    assert emulator.endpoint_state(added) == "IDLE"
