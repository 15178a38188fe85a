"""The resources of the workspace API as JSON."""

from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.api.web_pages import web_page
from airflow_provider_lakebase.emulator.model.endpoints import READ_ONLY
from airflow_provider_lakebase.emulator.model.fields import timestamp
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, ENDPOINT, PROJECT, Workspace


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(clock=lambda: 1_800_000_000.25, suspend_timeout=300.0, asleep=True)


def test_a_timestamp_is_rfc_3339_in_utc():
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1_800_000_000.25) == "2027-01-15T08:00:00.250000Z"


def test_a_resource_has_its_id_and_parent(workspace: Workspace):
    assert workspace.projects[PROJECT].json()["project_id"] == "demo"
    assert "parent" not in workspace.projects[PROJECT].json()
    branch = workspace.branches[BRANCH].json()
    assert (branch["branch_id"], branch["parent"]) == ("production", PROJECT)
    endpoint = workspace.endpoints[ENDPOINT].json()
    assert (endpoint["endpoint_id"], endpoint["parent"]) == ("primary", BRANCH)


def test_a_duration_is_whole_seconds_where_it_can_be(workspace: Workspace):
    assert workspace.endpoints[ENDPOINT].json()["status"]["suspend_timeout_duration"] == "300s"
    workspace.endpoints[ENDPOINT].suspend_timeout = 0.5
    assert workspace.endpoints[ENDPOINT].json()["status"]["suspend_timeout_duration"] == "0.5s"


def test_a_waking_endpoint_names_the_state_that_it_will_have(workspace: Workspace):
    endpoint = workspace.endpoints[ENDPOINT]
    assert "pending_state" not in endpoint.json()["status"]
    endpoint.move("wake")
    status = endpoint.json()["status"]
    assert (status["current_state"], status["pending_state"]) == ("INIT", "ACTIVE")


def test_a_read_only_endpoint_has_its_host_as_read_only_host_too(workspace: Workspace):
    hosts = workspace.add_endpoint("replica", endpoint_type=READ_ONLY).json()["status"]["hosts"]
    assert hosts["host"] == hosts["read_only_host"]
    assert "read_only_pooled_host" in hosts


def test_readable_secondaries_count_as_a_second_compute(workspace: Workspace):
    endpoint = workspace.endpoints[ENDPOINT]
    assert endpoint.json()["status"]["group"]["max"] == 1
    address = workspace.endpoints.enable_readable_secondary(endpoint)
    status = endpoint.json()["status"]
    assert status["group"] == {"min": 2, "max": 2, "enable_readable_secondaries": True}
    assert status["hosts"]["read_only_host"] == address


def test_web_pages_are_those_of_the_project_its_branches_and_their_editors(workspace: Workspace):
    project = f"/lakebase/projects/{workspace.projects[PROJECT].uid}"
    branch = f"{project}/branches/{workspace.branches[BRANCH].uid}"
    for path, title in ((project, PROJECT), (branch, BRANCH), (f"{branch}/sql-editor", f"SQL editor of {BRANCH}")):
        assert f"<h1>{title}</h1>" in (web_page(workspace, path) or "")
    assert web_page(workspace, f"{project}/branches/other") is None
