"""What wakes an endpoint, and what a suspend does to sessions."""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any

import psycopg
import pytest
from databricks.sdk.service.postgres import EndpointStatusState

from airflow_provider_lakebase.emulator import LakebaseEmulator


@pytest.mark.belief(
    "reading an endpoint's state and minting a credential do not wake it",
    source="no source says that they do; databricks/cli shows `idle, waking up` and then connects",
    sure="inferred",
)
def test_looking_does_not_wake(emulator: LakebaseEmulator, administrator: Any) -> None:
    emulator.suspend()
    postgres = administrator.client().postgres
    postgres.generate_database_credential(administrator.endpoint)
    assert postgres.get_endpoint(administrator.endpoint).status.current_state == EndpointStatusState.IDLE
    assert emulator.state == "IDLE"


@pytest.mark.belief(
    "a login wakes the endpoint and waits until it is awake",
    source="Databricks docs, Lakebase: Scale to zero; neondatabase/neon proxy/src/proxy/wake_compute.rs",
    sure="documented",
)
def test_login_wakes_and_is_held(emulator: LakebaseEmulator, administrator: Any) -> None:
    credential = administrator.credential()
    emulator.suspend()
    begin = time.monotonic()
    with administrator.connect(password=credential) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert time.monotonic() - begin >= emulator.wake_seconds
    assert emulator.state == "ACTIVE"


@pytest.mark.belief(
    "logins that arrive during a wake share it",
    source="neondatabase/neon proxy/src/proxy/wake_compute.rs",
    sure="inferred",
)
def test_logins_share_a_wake(emulator: LakebaseEmulator, administrator: Any) -> None:
    credential = administrator.credential()
    emulator.suspend()
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        for connection in pool.map(lambda _: administrator.connect(password=credential), range(5)):
            connection.close()
    assert time.monotonic() - begin < 3 * emulator.wake_seconds + 1


@pytest.mark.belief(
    "a login that is refused for its credential does not wake the endpoint",
    source="neondatabase/neon proxy/src/auth (the credential is checked before the compute is woken)",
    sure="inferred",
)
def test_refused_login_does_not_wake(emulator: LakebaseEmulator, administrator: Any) -> None:
    emulator.suspend()
    administrator.refusal(password="dapi0123456789")
    administrator.refusal(user="somebody-else")
    assert emulator.state == "IDLE"


@pytest.mark.belief(
    "a waking endpoint is INIT before it is ACTIVE",
    source="databricks-sdk-py service/postgres.py EndpointStatusState",
    sure="inferred",
)
def test_waking_endpoint_is_init(emulator: LakebaseEmulator, administrator: Any) -> None:
    credential = administrator.credential()
    emulator.suspend()
    usual, emulator.wake_seconds = emulator.wake_seconds, 1.0
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            login = pool.submit(administrator.connect, password=credential)
            deadline = time.monotonic() + 60
            while emulator.state == "IDLE" and time.monotonic() < deadline:
                time.sleep(0.01)
            status = administrator.client().postgres.get_endpoint(administrator.endpoint).status
            login.result().close()
    finally:
        emulator.wake_seconds = usual
    assert (status.current_state, status.pending_state) == (EndpointStatusState.INIT, EndpointStatusState.ACTIVE)


@pytest.mark.belief(
    "a suspend cuts every session: its next use fails with 57P01 or a closed connection",
    source="Databricks docs, Lakebase: Compatibility; the SQLSTATE from field reports of Neon",
    sure="seen in the field",
)
def test_suspend_cuts_sessions(emulator: LakebaseEmulator, administrator: Any) -> None:
    with administrator.connect() as connection:
        emulator.suspend()
        with pytest.raises(psycopg.OperationalError) as caught:
            connection.execute("SELECT 1")
    assert caught.value.sqlstate == "57P01"
    assert "terminating connection due to administrator command" in str(caught.value)


@pytest.mark.belief(
    "a suspend removes everything that belongs to a session: temporary tables, settings, locks",
    source="Databricks docs, Lakebase: Compatibility",
    sure="documented",
)
def test_suspend_loses_session_state(emulator: LakebaseEmulator, administrator: Any) -> None:
    with administrator.connect() as connection:
        connection.execute("CREATE TEMP TABLE staging (n int)")
        emulator.suspend()
    with administrator.connect() as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM staging")


@pytest.mark.belief(
    "a suspend empties UNLOGGED tables and loses statistics; everything else that was committed stays",
    source="Databricks docs, Lakebase: Compatibility",
    sure="documented",
)
def test_suspend_empties_unlogged_tables(emulator: LakebaseEmulator, administrator: Any) -> None:
    with administrator.connect() as connection:
        connection.execute("CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS n")
        connection.execute("CREATE TABLE lasting AS SELECT 1 AS n")
    # A read-only endpoint that is awake keeps the emulator's server running.
    for endpoint in administrator.client().postgres.list_endpoints(administrator.endpoint.split("/endpoints/")[0]):
        emulator.suspend(endpoint.name)
    with administrator.connect() as connection:
        counts = "SELECT (SELECT count(*) FROM fleeting), (SELECT count(*) FROM lasting)"
        assert connection.execute(counts).fetchone() == (0, 1)
        connection.execute("DROP TABLE fleeting, lasting")


@pytest.mark.belief(
    "a disabled endpoint refuses logins with `Control plane request failed: endpoint is disabled` and stays asleep",
    source="databricks-sdk-py EndpointSpec.disabled; the text from neondatabase/neon proxy/src/control_plane",
    sure="inferred",
)
def test_disabled_endpoint_refuses_logins(emulator: LakebaseEmulator, administrator: Any) -> None:
    credential = administrator.credential()
    emulator.disable()
    try:
        refusal = administrator.refusal(password=credential)
        status = administrator.client().postgres.get_endpoint(administrator.endpoint).status
    finally:
        emulator.enable()
    assert "Control plane request failed: endpoint is disabled" in refusal
    assert (status.current_state, status.disabled) == (EndpointStatusState.IDLE, True)
    administrator.connect(password=credential).close()
