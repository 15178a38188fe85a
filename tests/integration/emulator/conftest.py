from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from _clients import workspace_client

from airflow_provider_lakebase.emulator import LakebaseEmulator

Connect = Callable[..., psycopg.Connection[Any]]


def credential(emulator: LakebaseEmulator) -> str:
    return str(workspace_client(emulator).postgres.generate_database_credential(emulator.endpoint).token)


def connecting(emulator: LakebaseEmulator) -> Connect:
    """Return a function that opens sessions of the administrator by one credential."""
    usual: dict[str, Any] = {
        "host": "localhost",
        "port": emulator.port,
        "user": emulator.administrator.client_id,
        "password": credential(emulator),
        "dbname": "databricks_postgres",
        "sslmode": "require",
        "autocommit": True,
    }
    return lambda **changes: psycopg.connect(**{**usual, **changes})


@pytest.fixture(scope="module")
def emulator() -> Iterator[LakebaseEmulator]:
    with LakebaseEmulator(wake_seconds=0.05) as running:
        yield running


@pytest.fixture
def connect(emulator: LakebaseEmulator) -> Connect:
    return connecting(emulator)


@pytest.fixture
def connect_to() -> Callable[[LakebaseEmulator], Connect]:
    """Return ``connecting``, for a test that starts an emulator of its own."""
    return connecting
