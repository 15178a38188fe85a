"""The sensor waits for what can come, and for nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor


def sensor(**arguments: Any) -> LakebaseEndpointSensor:
    return LakebaseEndpointSensor(**{"task_id": "wait", "poke_interval": 0.2, "timeout": 30, **arguments})


def test_a_poke_probes_and_wakes(emulator: LakebaseEmulator):
    emulator.suspend()
    assert sensor().poke({}) is True
    assert emulator.state == "ACTIVE"


def test_in_poke_mode_it_waits_through_the_wake(emulator: LakebaseEmulator):
    emulator.suspend()
    emulator.wake_seconds = 1
    sensor().execute({})
    assert emulator.state == "ACTIVE"


def test_a_poke_takes_ten_seconds_at_most(emulator: LakebaseEmulator):
    emulator.suspend()
    emulator.wake_seconds = 60
    started_at = time.monotonic()
    assert sensor().poke({}) is False
    assert 9 < time.monotonic() - started_at < 40
    assert emulator.state == "INIT"


def test_without_wake_it_only_watches(emulator: LakebaseEmulator):
    emulator.suspend()
    logins = len(emulator.logins)
    assert sensor(wake=False).poke({}) is False
    with pytest.raises(AirflowSensorTimeout):
        sensor(wake=False, timeout=1).execute({})
    assert emulator.state == "IDLE"
    emulator.wake()
    assert sensor(wake=False).poke({}) is True
    assert len(emulator.logins) == logins


@pytest.mark.parametrize("wake", [True, False])
def test_a_disabled_endpoint_fails_at_once(emulator: LakebaseEmulator, wake: bool):
    emulator.disable()
    started_at = time.monotonic()
    with pytest.raises(AirflowFailException, match="endpoint is disabled"):
        sensor(wake=wake).execute({})
    assert time.monotonic() - started_at < 30


def test_a_missing_endpoint_fails_at_once(emulator: LakebaseEmulator):
    with pytest.raises(AirflowFailException, match="endpoint id not found"):
        sensor(endpoint="projects/demo/branches/production/endpoints/none").execute({})


def test_an_identity_without_a_role_fails_at_once(emulator: LakebaseEmulator, connect_as: Callable[..., str]):
    with pytest.raises(AirflowFailException, match="The Postgres role does not exist"):
        sensor(lakebase_conn_id=connect_as(emulator.add_principal("no role"))).execute({})


def test_a_workspace_that_cannot_be_reached_is_tried_again(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch, task_log: Callable[[], str]
):
    connection = emulator.connections["lakebase_default"].replace(emulator.workspace_url, "http://127.0.0.1:1")
    monkeypatch.setenv("AIRFLOW_CONN_UNREACHABLE", connection)
    started_at = time.monotonic()
    assert sensor(lakebase_conn_id="unreachable").poke({}) is False
    assert time.monotonic() - started_at < 40
    assert "The endpoint is checked again later" in task_log()
