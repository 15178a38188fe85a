from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.model.endpoints import READ_ONLY, READ_WRITE, TRANSITIONS, Endpoint
from airflow_provider_lakebase.emulator.model.workspace import ENDPOINT, Workspace


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(clock: Clock) -> Workspace:
    return Workspace(clock=clock, suspend_timeout=60, asleep=False)


@pytest.fixture
def endpoint(workspace: Workspace) -> Endpoint:
    return workspace.endpoints[ENDPOINT]


def test_states_move_by_the_table_only(endpoint: Endpoint) -> None:
    events = [("suspend", "IDLE"), ("activate", "IDLE"), ("wake", "INIT"), ("wake", "INIT"), ("activate", "ACTIVE")]
    for event, expected in [("wake", "ACTIVE"), *events, ("wake", "ACTIVE")]:
        before = endpoint.state
        assert endpoint.move(event) == ((before, event) in TRANSITIONS)
        assert endpoint.state == expected


def test_suspend_is_due_after_the_timeout_without_traffic(endpoint: Endpoint, clock: Clock) -> None:
    clock.now += 59
    assert not endpoint.suspend_is_due()
    endpoint.touch()
    clock.now += 59
    assert not endpoint.suspend_is_due()
    clock.now += 1
    assert endpoint.suspend_is_due()
    endpoint.move("suspend")
    assert not endpoint.suspend_is_due()


def test_waking_counts_as_traffic(endpoint: Endpoint, clock: Clock) -> None:
    endpoint.move("suspend")
    clock.now += 1000
    endpoint.move("wake")
    endpoint.move("activate")
    assert not endpoint.suspend_is_due()


def test_endpoints_are_apart_from_each_other(workspace: Workspace, endpoint: Endpoint, clock: Clock) -> None:
    other = workspace.add_endpoint("reporting", endpoint_type=READ_ONLY, suspend_timeout=600)
    clock.now += 60
    assert (endpoint.suspend_is_due(), other.suspend_is_due()) == (True, False)
    other.set_disabled(True)
    other.move("suspend")
    assert (endpoint.state, endpoint.disabled) == ("ACTIVE", False)
    assert (endpoint.host, other.host) == ("localhost", "127.0.0.2")
    assert endpoint.uid != other.uid


def test_branch_has_one_endpoint_that_writes(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="read_write endpoint already exists"):
        workspace.add_endpoint("second", endpoint_type=READ_WRITE)
    assert workspace.add_endpoint("primary", endpoint_type=READ_WRITE, branch="dev").branch in workspace.branches
    with pytest.raises(ValueError, match="already exists"):
        workspace.add_endpoint("primary", endpoint_type=READ_ONLY)
    with pytest.raises(ValueError, match="endpoint_type is"):
        workspace.add_endpoint("third", endpoint_type="READ_ONLY")


def test_there_are_only_so_many_addresses(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="only 254 hosts"):
        for number in range(260):
            workspace.add_endpoint(f"e{number}", endpoint_type=READ_ONLY)


def test_secondary_has_an_address_of_its_own_and_only_one(workspace: Workspace, endpoint: Endpoint) -> None:
    assert endpoint.direct_addresses == ["127.0.0.1"]
    assert (
        workspace.endpoints.enable_readable_secondary(endpoint)
        == workspace.endpoints.enable_readable_secondary(endpoint)
        == "127.0.0.2"
    )
    assert endpoint.direct_addresses == ["127.0.0.1", "127.0.0.2"]
    assert workspace.add_endpoint("r", endpoint_type=READ_ONLY).direct_addresses == ["127.0.0.3"]


def test_credentials_may_expire_earlier_than_they_say(workspace: Workspace, clock: Clock) -> None:
    principal = workspace.identities.add_principal("p")
    workspace.behaviour.credential_seconds = 5
    issued = workspace.identities.credential(workspace.issue_credential(principal, clock.now + 3600))
    assert issued and issued.expires_at == clock.now + 5
