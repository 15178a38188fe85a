"""The resources of the workspace API as JSON."""

from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.api import resources
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, ENDPOINT, PROJECT, READ_ONLY, State


@pytest.fixture
def state() -> State:
    return State(clock=lambda: 1_800_000_000.25, suspend_timeout=300.0, asleep=True)


def test_a_timestamp_is_rfc_3339_in_utc():
    assert resources.timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert resources.timestamp(1_800_000_000.25) == "2027-01-15T08:00:00.250000Z"


def test_a_resource_has_its_id_and_parent(state: State):
    assert resources.project(state)["project_id"] == "demo"
    assert "parent" not in resources.project(state)
    branch = resources.branch(state, BRANCH)
    assert (branch["branch_id"], branch["parent"]) == ("production", PROJECT)
    endpoint = resources.endpoint(state.endpoints[ENDPOINT])
    assert (endpoint["endpoint_id"], endpoint["parent"]) == ("primary", BRANCH)


def test_a_duration_is_whole_seconds_where_it_can_be(state: State):
    assert resources.endpoint(state.endpoints[ENDPOINT])["status"]["suspend_timeout_duration"] == "300s"
    state.endpoints[ENDPOINT].suspend_timeout = 0.5
    assert resources.endpoint(state.endpoints[ENDPOINT])["status"]["suspend_timeout_duration"] == "0.5s"


def test_a_waking_endpoint_names_the_state_that_it_will_have(state: State):
    endpoint = state.endpoints[ENDPOINT]
    assert "pending_state" not in resources.endpoint(endpoint)["status"]
    endpoint.move("wake")
    status = resources.endpoint(endpoint)["status"]
    assert (status["current_state"], status["pending_state"]) == ("INIT", "ACTIVE")


def test_a_read_only_endpoint_has_its_host_as_read_only_host_too(state: State):
    hosts = resources.endpoint(state.add_endpoint("replica", endpoint_type=READ_ONLY))["status"]["hosts"]
    assert hosts["host"] == hosts["read_only_host"]
    assert "read_only_pooled_host" in hosts


def test_readable_secondaries_count_as_a_second_compute(state: State):
    endpoint = state.endpoints[ENDPOINT]
    assert resources.endpoint(endpoint)["status"]["group"]["max"] == 1
    address = state.enable_readable_secondary(endpoint)
    status = resources.endpoint(endpoint)["status"]
    assert status["group"] == {"min": 2, "max": 2, "enable_readable_secondaries": True}
    assert status["hosts"]["read_only_host"] == address


def test_web_pages_are_those_of_the_project_its_branches_and_their_editors(state: State):
    project = f"/lakebase/projects/{state.project_uid}"
    branch = f"{project}/branches/{state.branches[BRANCH]}"
    for path, title in ((project, PROJECT), (branch, BRANCH), (f"{branch}/sql-editor", f"SQL editor of {BRANCH}")):
        assert f"<h1>{title}</h1>" in (resources.page(state, path) or "")
    assert resources.page(state, f"{project}/branches/other") is None
