"""The control plane from Python: what the hook's methods return and change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from _operations import PROJECT, Changes, branches_and_snapshots, remove_all, without_data

from airflow_provider_lakebase.core.workspace import plans
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import (
    LakebaseOperationTimeoutError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceRefusedError,
)
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook

BRANCH = f"{PROJECT}/branches/try-it"
PRODUCTION = f"{PROJECT}/branches/production"


@pytest.fixture
def workspace(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LakebaseEmulator]:
    """The emulator, with branches that have no data; they and the snapshots are removed after the test."""
    monkeypatch.setattr(plans, "FIRST_PAUSE_SECONDS", 0.02)
    before = branches_and_snapshots()
    with without_data(emulator):
        yield emulator
        remove_all(emulator, before)


@pytest.fixture
def branches(workspace: LakebaseEmulator) -> LakebaseWorkspaceHook:
    return LakebaseWorkspaceHook()


def names(found: list[Any]) -> list[str]:
    return [each.name for each in found]


def test_a_branch_lives_and_dies(branches: LakebaseWorkspaceHook):
    made = branches.create_branch("try-it", ttl=timedelta(hours=1))
    assert (made.name, made.status and made.status.source_branch) == (BRANCH, PRODUCTION)
    assert BRANCH in names(branches.list_branches())
    assert names(branches.list_branches()) == names(branches.list_branches("demo"))
    assert branches.get_branch(BRANCH).uid == branches.get_branch("try-it").uid == made.uid
    branches.delete_branch("try-it")
    assert BRANCH not in names(branches.list_branches())
    assert BRANCH in names(branches.list_branches(show_deleted=True))
    assert branches.undelete_branch("try-it").uid == made.uid
    branches.delete_branch("try-it", purge=True)
    with pytest.raises(LakebaseResourceNotFoundError) as failed:
        branches.get_branch("try-it")
    assert (failed.value.conn_id, failed.value.resource) == ("lakebase_default", BRANCH)


def test_expiry_and_protection_change(branches: LakebaseWorkspaceHook):
    made = branches.create_branch("try-it", ttl=3600)
    assert made.status is not None
    assert made.status.expire_time is not None
    later = branches.expire_branch("try-it", ttl=7200)
    assert later.status is not None
    assert later.status.expire_time is not None
    assert later.status.expire_time.ToDatetime() > made.status.expire_time.ToDatetime()
    never = branches.expire_branch("try-it", no_expiry=True)
    assert never.status is not None
    assert never.status.expire_time is None
    kept = branches.protect_branch("try-it")
    assert kept.status is not None
    assert kept.status.is_protected
    with pytest.raises(LakebaseWorkspaceRefusedError, match="protected=False"):
        branches.delete_branch("try-it")
    with pytest.raises(LakebaseWorkspaceRefusedError, match="cannot expire"):
        branches.expire_branch("try-it", ttl=60)


def test_a_reset_branch_is_another_one(branches: LakebaseWorkspaceHook):
    former = branches.create_branch("try-it", no_expiry=True)
    assert branches.reset_branch("try-it").uid != former.uid


def test_an_endpoint_changes_only_where_it_is_asked_to(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    branches.create_branch("try-it", ttl=3600)
    before = branches.get_endpoint(BRANCH).status
    assert before is not None
    after = branches.update_endpoint(BRANCH, max_cu=8).status
    assert after is not None
    assert after.autoscaling_limit_max_cu == 8
    assert after.autoscaling_limit_min_cu == before.autoscaling_limit_min_cu
    assert after.suspend_timeout_duration == before.suspend_timeout_duration
    changes = Changes(workspace)
    branches.update_endpoint(BRANCH, max_cu=8)
    assert changes.seen == []
    never = branches.update_endpoint(BRANCH, no_suspension=True).status
    assert never is not None
    assert never.suspend_timeout_duration is None
    with pytest.raises(LakebaseSettingsError, match="min_cu is 1 and max_cu is 20"):
        branches.update_endpoint(BRANCH, max_cu=20)


def test_a_read_only_endpoint_is_made_and_deleted(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    branches.create_branch("try-it", ttl=3600)
    made = branches.create_endpoint("try-it", "reader", min_cu=1, max_cu=2)
    assert names(branches.list_endpoints("try-it")) == [f"{BRANCH}/endpoints/primary", made.name]
    changes = Changes(workspace)
    assert branches.create_endpoint("try-it", "reader").uid == made.uid
    with pytest.raises(LakebaseResourceExistsError, match="READ_WRITE"):
        branches.create_endpoint("try-it", "primary")
    assert changes.seen == []
    branches.delete_endpoint(str(made.name))
    branches.delete_endpoint(str(made.name))
    assert changes.seen == ["DELETE reader"]
    with pytest.raises(LakebaseWorkspaceRefusedError, match="belongs to its parent"):
        branches.delete_endpoint(f"{BRANCH}/endpoints/primary")


def test_without_a_name_the_connections_endpoint_is_meant(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    assert branches.get_endpoint().name == workspace.endpoint


@pytest.mark.parametrize("if_exists", ["Replace", "FAIL", None])
def test_an_unknown_way_to_treat_a_branch_that_exists_is_refused(if_exists: Any, branches: LakebaseWorkspaceHook):
    with pytest.raises(LakebaseSettingsError, match="'use', 'replace' or 'fail'"):
        branches.create_branch("try-it", ttl=60, if_exists=if_exists)


def test_a_change_feed_of_another_branch_is_refused(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    feed = branches.change_feed_name("orders", "production")
    assert branches.change_feed_name(feed, "production") == feed
    with pytest.raises(LakebaseSettingsError, match="does not belong to projects/demo/branches/other"):
        branches.change_feed_name(feed, "other")
    with pytest.raises(LakebaseSettingsError, match="does not belong to projects/other"):
        LakebaseWorkspaceHook(project="other").change_feed_name(feed)


def test_a_branch_is_made_from_a_snapshot(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    made = branches.create_snapshot("before", "production", ttl=timedelta(days=60))
    changes = Changes(workspace)
    assert branches.create_snapshot("before", PRODUCTION, no_expiry=True).uid == made.uid
    assert changes.seen == []
    assert names(branches.list_snapshots()) == [f"{PROJECT}/snapshots/before"] == [branches.get_snapshot("before").name]
    branch = branches.create_branch("try-it", source_snapshot="before", ttl=60)
    assert branch.status is not None
    assert branch.status.source_snapshot == made.name
    with pytest.raises(LakebaseWorkspaceRefusedError, match="no parent branch"):
        branches.reset_branch("try-it")
    branches.delete_snapshot("before")
    branches.delete_snapshot("before")
    assert branches.list_snapshots() == []


def test_one_cadence_changes_and_the_others_stay(branches: LakebaseWorkspaceHook):
    branches.change_snapshot_cadence("production", "daily", {"hour": 3}, retention=timedelta(days=2))
    weekly = {"day_of_week": "MONDAY", "hour": 4}
    branches.change_snapshot_cadence("production", "weekly", weekly, retention=86400)
    branches.change_snapshot_cadence("production", "daily", {"hour": 5}, retention=timedelta(days=1))
    schedule = branches.get_snapshot_schedule("production").schedule or []
    assert {each.daily_schedule.hour for each in schedule if each.daily_schedule} == {5}
    assert {each.weekly_schedule.hour for each in schedule if each.weekly_schedule} == {4}
    for cadence in ("daily", "weekly"):
        branches.change_snapshot_cadence("production", cadence, None)  # type: ignore[arg-type]
    assert not branches.get_snapshot_schedule("production").schedule
    with pytest.raises(LakebaseSettingsError, match="schedule and retention"):
        branches.change_snapshot_cadence("production", "daily", {"hour": 1})


def test_a_change_that_takes_longer_goes_on(workspace: LakebaseEmulator, branches: LakebaseWorkspaceHook):
    workspace.operation_seconds = 0.5
    with pytest.raises(LakebaseOperationTimeoutError):
        branches.create_branch("try-it", ttl=60, timeout=0.1)
    changes = Changes(workspace)
    assert branches.create_branch("try-it", ttl=60).name == BRANCH
    assert changes.seen == []


def test_a_native_login_has_no_workspace(monkeypatch: pytest.MonkeyPatch):
    native = "lakebase://role:password@/db?auth_type=password&pg_host=h"
    monkeypatch.setenv("AIRFLOW_CONN_NATIVE", native)
    with pytest.raises(LakebaseSettingsError, match="cannot use the workspace's API"):
        LakebaseWorkspaceHook("native", project="demo").list_branches()


def test_it_needs_neither_an_endpoint_nor_psycopg(workspace: LakebaseEmulator):
    program = """
import sys
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators import branch
assert not {"databricks", "psycopg"} & set(sys.modules)
print([each.name for each in LakebaseWorkspaceHook().list_branches()])
assert "psycopg" not in sys.modules
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert PRODUCTION in found.stdout.splitlines()[-1]
