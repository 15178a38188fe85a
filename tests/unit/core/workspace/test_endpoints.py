"""Addresses of endpoints, without a workspace."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings
from airflow_provider_lakebase.core.workspace import endpoints
from airflow_provider_lakebase.core.workspace.endpoints import EndpointAddresses, EndpointStatus

IDENTITY = WorkspaceIdentity("https://w.example", "oauth-m2m", {"client_id": "id"})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the workspace return an endpoint under a name that no connection may use; return what was asked for."""
    asked: list[str] = []

    def read_endpoint(workspace: Any, name: ResourceName, *, timeout: float) -> EndpointStatus:
        asked.append(str(name))
        return EndpointStatus("projects/4711/branches/br_A/endpoints/ep_A", "IDLE", False, "ep-a.example", None)

    monkeypatch.setattr(endpoints, "read_endpoint", read_endpoint)
    return asked


def test_a_name_that_the_workspace_returns_is_used_as_it_is(read: list[str]):
    settings = LakebaseSettings("c", IDENTITY, ResourceName("shop", "production"))
    address = EndpointAddresses().resolve(settings, timeout=1)
    assert (address.endpoint, address.host) == ("projects/4711/branches/br_A/endpoints/ep_A", "ep-a.example")
    assert read == ["projects/shop/branches/production"]


def test_nothing_is_asked_for_an_endpoint_whose_host_is_given(read: list[str]):
    endpoint = ResourceName("shop", "production", "primary")
    address = EndpointAddresses().resolve(
        LakebaseSettings("c", IDENTITY, endpoint, SessionSettings(pg_host="ep-b.example")), timeout=1
    )
    assert (address.endpoint, address.host, address.user) == (str(endpoint), "ep-b.example", "id")
    assert read == []


def test_an_endpoint_is_known_once_it_was_looked_up_or_if_all_is_given(read: list[str]):
    endpoint, token = ResourceName("shop", "production", "primary"), WorkspaceIdentity("https://w.example", "pat")
    given = SessionSettings(pg_host="ep-b.example")
    addresses = EndpointAddresses()
    assert addresses.is_known(LakebaseSettings("c", IDENTITY, endpoint, given))
    assert not addresses.is_known(LakebaseSettings("c", token, endpoint, given))
    looked_up = LakebaseSettings("c", IDENTITY, endpoint)
    assert not addresses.is_known(looked_up)
    addresses.resolve(looked_up, timeout=1)
    assert addresses.is_known(looked_up)
    addresses.forget(looked_up)
    assert not addresses.is_known(looked_up)
