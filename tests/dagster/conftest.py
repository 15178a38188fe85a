"""A Dagster resource on the shared emulator."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from dagster import EnvVar

from airflow_provider_lakebase.dagster import LakebaseIOManager, LakebaseResource, ServicePrincipal
from airflow_provider_lakebase.emulator import LakebaseEmulator


@pytest.fixture
def lakebase(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> LakebaseResource:
    monkeypatch.setenv("LAKEBASE_CLIENT_SECRET", emulator.service_principal.client_secret)
    return LakebaseResource(
        host=emulator.workspace_url,
        endpoint=emulator.endpoint,
        port=emulator.port,
        authentication=ServicePrincipal(
            client_id=emulator.service_principal.client_id, client_secret=EnvVar("LAKEBASE_CLIENT_SECRET")
        ),
        wake_timeout=20,
    )


@pytest.fixture
def io_manager(lakebase: LakebaseResource) -> LakebaseIOManager:
    return LakebaseIOManager(lakebase=lakebase)


@pytest.fixture
def schema(lakebase: LakebaseResource) -> Iterator[str]:
    """A schema of the test's own, which it may create."""
    name = f"test_{uuid4().hex[:12]}"
    yield name
    lakebase.connect_and_execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')
