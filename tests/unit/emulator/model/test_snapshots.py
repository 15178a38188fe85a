"""What may be done with snapshots and their schedules."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model.errors import ApiError, Json
from airflow_provider_lakebase.emulator.model.fields import timestamp
from airflow_provider_lakebase.emulator.model.snapshots import MAX_SNAPSHOTS
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, PROJECT, Workspace

SNAPSHOT = f"{PROJECT}/snapshots/s"
SCHEDULE = f"{BRANCH}/snapshot-schedule"


def create(workspace: Workspace, snapshot_id: str = "s", **spec: Any) -> Json:
    return workspace.snapshots.create(PROJECT, snapshot_id, {"spec": {"source_branch": BRANCH, **spec}}).wait()


def test_snapshot_is_a_copy_that_stays(workspace: Workspace, clusters: Any) -> None:
    body = create(workspace)
    assert clusters.sources[body["uid"]] == (workspace.branches[BRANCH].uid, None, None)
    assert body["status"] == {"source_branch": BRANCH, "full_size_bytes": 7_000_000, "no_expiry": True}
    spec = {"no_expiry": True, "source_snapshot": SNAPSHOT}
    branch = workspace.branches.create(PROJECT, "restored", {"spec": spec}).wait()
    assert clusters.sources[branch["uid"]][0] == body["uid"]
    assert (branch["status"]["source_snapshot"], branch["status"].get("source_branch")) == (SNAPSHOT, None)
    workspace.snapshots.delete(SNAPSHOT).wait()
    assert body["uid"] not in clusters.sources
    assert branch["uid"] in clusters.sources


def test_snapshot_can_be_of_a_past_moment_and_expire(workspace: Workspace, clusters: Any, clock: Any) -> None:
    body = create(workspace, ttl=f"{60 * 86400}s", source_branch_time=timestamp(clock.now - 60))
    assert clusters.sources[body["uid"]][1] == clock.now - 60
    assert body["status"]["expire_time"] == timestamp(clock.now + 60 * 86400)
    clock.now += 60 * 86400
    workspace.expire()
    assert SNAPSHOT not in workspace.snapshots
    assert body["uid"] not in clusters.sources


def test_only_root_branches_have_snapshots(workspace: Workspace) -> None:
    workspace.branches.create(PROJECT, "dev", {"spec": {"no_expiry": True}}).wait()
    with pytest.raises(ApiError, match="root branches only"):
        create(workspace, source_branch=f"{PROJECT}/branches/dev")
    with pytest.raises(ApiError, match="branch id not found"):
        create(workspace, source_branch=f"{PROJECT}/branches/none")
    with pytest.raises(ApiError, match="'snapshot.spec.source_branch' is required"):
        create(workspace, source_branch="")


def test_there_are_only_so_many_and_each_has_its_id(workspace: Workspace) -> None:
    for number in range(MAX_SNAPSHOTS):
        create(workspace, f"s{number}")
    with pytest.raises(ApiError, match="10 snapshots"):
        create(workspace)
    with pytest.raises(ApiError, match="snapshot with such id already exists"):
        create(workspace, "s0")


def test_schedule_is_empty_until_it_is_set_and_is_replaced_as_a_whole(workspace: Workspace) -> None:
    assert workspace.snapshot_schedules.json(SCHEDULE) == {"name": SCHEDULE}
    daily = {"retention": "86400s", "daily_schedule": {"hour": 3}}
    weekly = {"retention": "604800s", "weekly_schedule": {"day_of_week": "SUNDAY"}}
    for schedule in ([daily, weekly], [weekly]):
        workspace.snapshot_schedules.update(SCHEDULE, {"schedule": schedule}, "schedule").wait()
        assert workspace.snapshot_schedules.json(SCHEDULE) == {"name": SCHEDULE, "schedule": schedule}
    # The SDK leaves an empty list out of the body.
    workspace.snapshot_schedules.update(SCHEDULE, {}, "schedule").wait()
    assert workspace.snapshot_schedules.json(SCHEDULE) == {"name": SCHEDULE}


@pytest.mark.parametrize(
    ("cadence", "text"),
    [
        ({"retention": "3599s", "daily_schedule": {}}, "at least 1 hour"),
        ({"retention": "3600s"}, "needs one of"),
        ({"retention": "3600s", "daily_schedule": {}, "weekly_schedule": {}}, "Only one of"),
        ({"retention": "3600s", "daily_schedule": {"hour": 24}}, "between 0 and 23"),
        ({"retention": "3600s", "monthly_schedule": {"day": 32}}, "between 1 and 31"),
        ({"retention": "3600s", "weekly_schedule": {"day_of_week": "SOMEDAY"}}, "must be one of MONDAY"),
        ({"retention": "3600s", "hourly_schedule": {}}, "does not imitate the field 'schedule.hourly_schedule'"),
    ],
)
def test_cadence_that_makes_no_sense_is_refused(workspace: Workspace, cadence: Json, text: str) -> None:
    with pytest.raises(ApiError, match=text):
        workspace.snapshot_schedules.update(SCHEDULE, {"schedule": [cadence]}, "schedule")
