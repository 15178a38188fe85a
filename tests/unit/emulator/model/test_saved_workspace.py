"""A workspace is the same after it was saved and restored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model import saved_workspace
from airflow_provider_lakebase.emulator.model.endpoints import READ_ONLY
from airflow_provider_lakebase.emulator.model.workspace import ENDPOINT, PROJECT, Workspace

BRANCH = f"{PROJECT}/branches/production"


def restored(saved: Any, clusters: Any, *, asleep: bool = False, clock: Any) -> Workspace:
    workspace = Workspace(clock=clock, suspend_timeout=60, asleep=asleep)
    saved_workspace.restore(workspace, saved, clusters.sources)
    workspace.clusters = clusters
    return workspace


@pytest.fixture
def saved(workspace: Workspace) -> Any:
    """A workspace with one of everything, as JSON."""
    owner = workspace.identities.add_principal("owner")
    workspace.identities.add_member(workspace.identities.add_principal("group", identity_type="GROUP"), owner)
    settings = {"custom_tags": [{"key": "team", "value": "gold"}], "default_endpoint_settings": {"no_suspension": True}}
    workspace.projects.create("other", {"spec": settings}, owner).wait()
    workspace.projects[PROJECT].access.replace({owner.client_id: "CAN_USE"})
    schedule = [{"daily_schedule": {"hour": 3}, "retention": "86400s"}]
    workspace.snapshot_schedules.update(f"{BRANCH}/snapshot-schedule", {"schedule": schedule}, "schedule").wait()
    workspace.snapshots.create(PROJECT, "before", {"spec": {"source_branch": BRANCH}}).wait()
    workspace.branches.create(PROJECT, "dev", {"spec": {"ttl": "3600s", "source_branch_lsn": "1/A0"}}).wait()
    workspace.branches.create(PROJECT, "gone", {"spec": {"no_expiry": True}}).wait()
    workspace.branches.delete(f"{PROJECT}/branches/gone", purge=False).wait()
    workspace.branches[BRANCH].contents.passwords["app"] = "a-password"
    workspace.branches[BRANCH].contents.role_ids.keep("app", "role-app")
    reader = {"endpoint_type": READ_ONLY, "group": {"min": 2, "max": 2, "enable_readable_secondaries": True}}
    workspace.endpoints.create(BRANCH, "reader", {"spec": {**reader, "disabled": True}}).wait()
    workspace.endpoints.enable_readable_secondary(workspace.endpoints[ENDPOINT])
    return json.loads(json.dumps(saved_workspace.save(workspace)))


def test_all_of_it_comes_back(saved: Any, workspace: Workspace, clusters: Any, clock: Any) -> None:
    again = restored(saved, clusters, clock=clock)
    assert json.loads(json.dumps(saved_workspace.save(again))) == saved
    assert again.identities.principals() == workspace.identities.principals()
    for kind in ("projects", "branches", "snapshots"):
        before, after = getattr(workspace, kind), getattr(again, kind)
        assert {name: each.json() for name, each in after.items()} == {
            name: each.json() for name, each in before.items()
        }
    assert "a-password" in again.identities.secrets


def test_addresses_in_use_stay_in_use(saved: Any, clusters: Any, clock: Any) -> None:
    again = restored(saved, clusters, clock=clock)
    used = {address for each in again.endpoints.values() for address in each.direct_addresses}
    assert len(used) > len(again.endpoints)
    assert again.endpoints.take_address() not in used


@pytest.mark.parametrize(("asleep", "state"), [(False, "ACTIVE"), (True, "IDLE")])
def test_the_first_endpoint_only_is_awake(asleep: bool, state: str, saved: Any, clusters: Any, clock: Any) -> None:
    again = restored(saved, clusters, asleep=asleep, clock=clock)
    states = {name: each.state for name, each in again.endpoints.items()}
    assert states == {**dict.fromkeys(states, "IDLE"), ENDPOINT: state}


def test_what_has_no_data_is_left_out(saved: Any, workspace: Workspace, clusters: Any, clock: Any) -> None:
    for gone in (
        workspace.branches["projects/other/branches/production"],
        workspace.snapshots[f"{PROJECT}/snapshots/before"],
    ):
        clusters.delete(gone.uid)
    again = restored(saved, clusters, clock=clock)
    assert list(again.projects) == [PROJECT]
    assert not again.snapshots
    assert all(name.startswith(PROJECT) for name in again.endpoints)


def test_tokens_are_not_saved(workspace: Workspace) -> None:
    principal = workspace.identities.add_principal("someone")
    tokens = [
        workspace.identities.issue_workspace_token(principal),
        workspace.identities.issue_personal_access_token(principal),
        workspace.issue_credential(principal, workspace.clock() + 60),
    ]
    text = json.dumps(saved_workspace.save(workspace))
    assert principal.client_secret in text
    assert not [token for token in tokens if token in text]


def test_it_is_kept_before_an_operation_shows_as_ended(workspace: Workspace) -> None:
    kept: list[list[str]] = []
    workspace.keep = lambda: kept.append(list(workspace.branches))
    workspace.branches.create(PROJECT, "dev", {"spec": {"no_expiry": True}}).wait()
    assert kept == [[BRANCH, f"{PROJECT}/branches/dev"]]
