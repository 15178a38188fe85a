"""The endpoint falls asleep when nobody uses it, and an identity becomes known while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from _clock import Clock

from airflow_provider_lakebase.emulator import LakebaseEmulator


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.02)


def _kill_the_emulators_own_sessions(emulator: LakebaseEmulator) -> None:
    with psycopg.connect(emulator.superuser_conninfo) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND usename = current_user AND pid <> pg_backend_pid()"
        )


def test_idle_endpoint_falls_asleep_and_a_login_wakes_it(connect_to: Any) -> None:
    clock = Clock()
    with LakebaseEmulator(clock=clock, suspend_timeout=300, wake_seconds=0.05) as emulator:
        connect = connect_to(emulator)
        with connect() as connection:
            connection.execute("SELECT 1")
            _kill_the_emulators_own_sessions(emulator)
            clock.ahead += 301
            _wait_until(lambda: emulator.state == "IDLE")
            with pytest.raises(psycopg.errors.AdminShutdown):
                connection.execute("SELECT 1")
        connect().close()
        assert emulator.state == "ACTIVE"


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(30)", "BEGIN"])
def test_open_work_keeps_the_endpoint_awake(connect_to: Any, statement: str) -> None:
    clock = Clock()
    with LakebaseEmulator(clock=clock, suspend_timeout=300) as emulator:
        connection = connect_to(emulator)()
        connection.pgconn.send_query(statement.encode())
        connection.pgconn.flush()
        time.sleep(0.2)
        clock.ahead += 301
        time.sleep(1.5)
        assert emulator.state == "ACTIVE"
        connection.close()


def test_credential_expires_by_the_clock(connect_to: Any) -> None:
    clock = Clock()
    with LakebaseEmulator(clock=clock) as emulator:
        connect = connect_to(emulator)
        connect().close()
        clock.ahead += 3601
        with pytest.raises(psycopg.OperationalError, match="OAuth: User is not authorized"):
            connect()


def test_starts_asleep_when_asked_to() -> None:
    with LakebaseEmulator(asleep=True, wake_seconds=0.0) as emulator:
        assert emulator.state == "IDLE"
        emulator.wake()
        assert emulator.state == "ACTIVE"
        emulator.disable()
        assert (emulator.state, emulator.disabled) == ("IDLE", True)
        with pytest.raises(RuntimeError, match="enable it first"):
            emulator.wake()
        emulator.enable()
        assert (emulator.state, emulator.disabled) == ("IDLE", False)


def test_role_of_another_identity_is_refused(emulator: LakebaseEmulator, connect: Any) -> None:
    """A user named like a service principal has a role of the right name and the wrong label."""
    person = emulator.add_principal(emulator.service_principal.client_id, identity_type="USER")
    with connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        connection.execute("SELECT databricks_create_role(%s::text, 'USER')", (person.role,))
    token = emulator._identities.issue_credential(emulator.service_principal, time.time() + 600)
    with pytest.raises(psycopg.OperationalError, match="OAuth: User is not authorized"):
        connect(user=person.role, password=token)


def test_requests_hold_no_secret(emulator: LakebaseEmulator, connect: Any) -> None:
    connect().close()
    told = repr(emulator.requests) + repr(emulator.logins) + repr(emulator.administrator)
    assert emulator.requests[-1].principal == emulator.administrator.client_id
    assert emulator.secrets
    assert not [secret for secret in emulator.secrets if secret in told]
