"""What may be done with branches, and when."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model.branches import MAX_UNARCHIVED
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json
from airflow_provider_lakebase.emulator.model.fields import timestamp
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, ENDPOINT, PROJECT, Workspace

FOREVER = {"no_expiry": True}
DEV = f"{PROJECT}/branches/dev"


def create(workspace: Workspace, branch_id: str = "dev", **spec: Any) -> Json:
    return workspace.branches.create(PROJECT, branch_id, {"spec": spec or FOREVER}).wait()


def update(workspace: Workspace, mask: str, name: str = DEV, **spec: Any) -> Json:
    return workspace.branches.update(name, {"spec": spec}, mask).wait()


def refusal(status: int, text: str) -> Any:
    """Return a context that expects an ``ApiError`` with this status and text."""
    return pytest.raises(ApiError, match=text, check=lambda error: error.status == status)


def test_new_branch_is_ready_with_an_awake_endpoint(workspace: Workspace, clusters: Any) -> None:
    body = create(workspace)
    assert body["status"]["current_state"] == "READY"
    assert body["status"]["source_branch"] == BRANCH
    assert body["status"]["logical_size_bytes"] == 7_000_000
    assert clusters.sources[body["uid"]] == (workspace.branches[BRANCH].uid, None, None)
    endpoint = workspace.endpoints[f"{DEV}/endpoints/primary"]
    assert (endpoint.state, endpoint.cluster) == ("ACTIVE", body["uid"])
    assert endpoint.host != workspace.endpoints[ENDPOINT].host


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"is_protected": True}, "One of .* is required"),
        ({"no_expiry": True, "ttl": "3600s"}, "Only one of"),
        ({"no_expiry": False}, "must be true"),
        ({"ttl": "1h"}, 'not a duration such as "3600s"'),
        ({"ttl": f"{31 * 86400}s"}, "at most 30 days"),
        ({"expire_time": "2020-01-01T00:00:00Z"}, "in the future"),
        ({"expire_time": "tomorrow"}, "not an RFC 3339 time"),
        ({"no_expiry": True, "source_branch": "projects/other/branches/x"}, "must name a branch of projects/demo"),
        ({"no_expiry": True, "source_branch_lsn": "x"}, "log sequence number"),
        ({"no_expiry": True, "source_branch_lsn": "1/A1"}, "outside of the branch's history, which ends at 1/A0"),
        ({"no_expiry": True, "source_branch_lsn": "0/1", "source_branch_time": timestamp(0)}, "Only one of"),
        ({"no_expiry": True, "source_branch_time": timestamp(1_800_000_000 - 3601)}, "outside of the branch's history"),
        ({"no_expiry": True, "source_branch_time": timestamp(1_800_000_001)}, "outside of the branch's history"),
        ({"no_expiry": True, "source_snapshot": "projects/demo/snapshots/s", "source_branch": BRANCH}, "must be empty"),
        ({"ttl": "3600s", "is_protected": True}, "protected branch cannot expire"),
    ],
)
def test_spec_that_makes_no_sense_is_refused(workspace: Workspace, spec: Json, text: str) -> None:
    with refusal(400, text):
        create(workspace, **spec)
    assert DEV not in workspace.branches


def test_unknown_field_is_not_dropped_in_silence(workspace: Workspace) -> None:
    with refusal(501, "'branch.spec.color'"):
        create(workspace, no_expiry=True, color="red")


@pytest.mark.parametrize("branch_id", [None, "", "1a", "Dev", "a_b", "a-", "a" * 64])
def test_bad_id_is_refused(workspace: Workspace, branch_id: str) -> None:
    with refusal(400, "branch_id"):
        create(workspace, branch_id)


def test_id_is_taken_until_the_purge(workspace: Workspace, clusters: Any) -> None:
    uid = create(workspace)["uid"]
    with refusal(409, "branch with such id already exists"):
        create(workspace)
    workspace.branches.delete(DEV, purge=False).wait()
    with refusal(409, "already exists"):
        create(workspace)
    assert uid in clusters.sources
    workspace.branches.delete(DEV, purge=True).wait()
    assert uid not in clusters.sources
    assert create(workspace)["uid"] != uid


def test_replacing_changes_the_branch_in_place(workspace: Workspace) -> None:
    body = {"spec": {"is_protected": True, "no_expiry": True}}
    replaced = workspace.branches.create(PROJECT, "production", body, replace_existing=True).wait()
    assert replaced["uid"] == workspace.branches[BRANCH].uid
    assert replaced["status"]["is_protected"]
    with refusal(400, "source of a branch cannot change"):
        body = {"spec": {"source_branch": f"{PROJECT}/branches/other"}}
        workspace.branches.create(PROJECT, "production", body, replace_existing=True)


def test_branch_of_a_past_moment_says_so(workspace: Workspace, clusters: Any, clock: Any) -> None:
    moment = clock.now - 60
    body = create(workspace, no_expiry=True, source_branch_time=timestamp(moment))
    assert clusters.sources[body["uid"]][1] == moment
    assert body["status"]["source_branch_time"] == timestamp(moment)
    assert create(workspace, "lsn", no_expiry=True, source_branch_lsn="1/9F")["status"]["source_branch_lsn"] == "1/9F"


def test_history_ends_at_the_retention_of_the_project(workspace: Workspace, clusters: Any, clock: Any) -> None:
    clusters.oldest = 0
    with refusal(400, "outside of the branch's history"):
        create(workspace, no_expiry=True, source_branch_time=timestamp(clock.now - 7 * 86400 - 1))
    create(workspace, no_expiry=True, source_branch_time=timestamp(clock.now - 7 * 86400 + 1))


def test_project_has_so_many_branches(workspace: Workspace) -> None:
    for number in range(MAX_UNARCHIVED - 1):
        create(workspace, f"b{number}")
    with refusal(400, "10 unarchived branches"):
        create(workspace)
    workspace.branches.delete(f"{PROJECT}/branches/b0", purge=False).wait()
    create(workspace)
    with refusal(400, "10 unarchived branches"):
        workspace.branches.undelete(f"{PROJECT}/branches/b0")


# -- expiry


def test_branch_is_gone_when_it_expires(workspace: Workspace, clusters: Any, computes: Any, clock: Any) -> None:
    body = create(workspace, ttl="3600s")
    address = workspace.endpoints[f"{DEV}/endpoints/primary"].address
    assert body["status"]["expire_time"] == timestamp(clock.now + 3600)
    clock.now += 3599
    workspace.expire()
    assert DEV in workspace.branches
    clock.now += 1
    workspace.expire()
    assert DEV not in workspace.branches
    assert f"{DEV}/endpoints/primary" not in workspace.endpoints
    assert body["uid"] not in clusters.sources
    assert address not in computes.open_addresses


def test_deleted_branch_is_purged_after_a_week(workspace: Workspace, clock: Any) -> None:
    create(workspace)
    workspace.branches.delete(DEV, purge=False).wait()
    clock.now += 7 * 86400 - 1
    workspace.expire()
    assert DEV in workspace.branches
    clock.now += 1
    workspace.expire()
    assert DEV not in workspace.branches


def test_branch_with_children_does_not_expire_nor_an_expiring_one_have_any(workspace: Workspace) -> None:
    create(workspace)
    create(workspace, "child", no_expiry=True, source_branch=DEV)
    with refusal(400, "with children cannot expire"):
        update(workspace, "spec.expiration", ttl="3600s")
    update(workspace, "spec.expiration", f"{PROJECT}/branches/child", ttl="3600s")
    with refusal(400, "that expires cannot have children"):
        create(workspace, "grandchild", no_expiry=True, source_branch=f"{PROJECT}/branches/child")


# -- update


def test_mask_says_what_changes(workspace: Workspace, clock: Any) -> None:
    create(workspace)
    assert update(workspace, "spec.expiration", ttl="60s")["status"]["expire_time"] == timestamp(clock.now + 60)
    assert "expire_time" not in update(workspace, "spec.expiration", no_expiry=True)["status"]
    assert update(workspace, "spec.is_protected", is_protected=True, ttl="60s")["status"]["is_protected"]
    assert not update(workspace, "spec", is_protected=False, ttl="60s")["status"]["is_protected"]


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        ("", "'update_mask' is required"),
        ("spec.ttl", "'spec.ttl': it is one of several, which the mask names together as 'spec.expiration'"),
        ("spec.source_branch", "'spec.source_branch': the source of a branch cannot change"),
        ("spec.color", "Unknown field path in update_mask: 'spec.color'; known are 'spec.is_protected'"),
        ("*", "Unknown field path in update_mask"),
        ("spec.is_protected", "Field 'spec.is_protected' is in update_mask but not provided in request"),
        ("spec.expiration,spec.is_protected", "'spec.is_protected' is in update_mask but not provided"),
    ],
)
def test_refused_mask_says_why(workspace: Workspace, mask: str, text: str) -> None:
    create(workspace)
    with refusal(400, text):
        update(workspace, mask, no_expiry=True)


# -- protection and deletion


def test_protected_branch_is_not_deleted_and_is_the_only_one(workspace: Workspace) -> None:
    create(workspace, no_expiry=True, is_protected=True)
    create(workspace, "other")
    with refusal(400, "cannot delete protected branch"):
        workspace.branches.delete(DEV, purge=True)
    with refusal(400, "one protected branch at most"):
        update(workspace, "spec.is_protected", f"{PROJECT}/branches/other", is_protected=True)
    with refusal(400, "protected branch cannot expire"):
        update(workspace, "spec.expiration", ttl="60s")
    update(workspace, "spec.is_protected", is_protected=False)
    workspace.branches.delete(DEV, purge=True).wait()


def test_root_branch_goes_with_its_project_only(workspace: Workspace) -> None:
    with pytest.raises(ApiError, match="Root branches cannot be deleted independently") as caught:
        workspace.branches.delete(BRANCH, purge=False)
    assert caught.value.body["details"][0]["metadata"] == {"declarative_context": "MANAGED_BY_PARENT"}


def test_parent_is_not_deleted_before_its_children(workspace: Workspace) -> None:
    create(workspace)
    create(workspace, "child", no_expiry=True, source_branch=DEV)
    with refusal(400, "has children: projects/demo/branches/child"):
        workspace.branches.delete(DEV, purge=False)
    workspace.branches.delete(f"{PROJECT}/branches/child", purge=False).wait()
    workspace.branches.delete(DEV, purge=False).wait()


def test_deleted_branch_takes_no_logins_and_comes_back(workspace: Workspace, computes: Any) -> None:
    create(workspace)
    address = workspace.endpoints[f"{DEV}/endpoints/primary"].address
    workspace.branches.delete(DEV, purge=False).wait()
    assert address not in computes.open_addresses
    assert workspace.branches[DEV].json()["status"]["current_state"] == "DELETED"
    with refusal(404, "branch id not found"):
        workspace.endpoints.require_of(f"{DEV}/endpoints/primary")
    with refusal(404, "branch id not found"):
        workspace.branches.delete(DEV, purge=False)
    workspace.branches.undelete(DEV).wait()
    assert address in computes.open_addresses
    assert workspace.branches[DEV].json()["status"]["current_state"] == "READY"
    with refusal(400, "is not deleted"):
        workspace.branches.undelete(DEV)


def test_failed_create_leaves_nothing(workspace: Workspace, clusters: Any) -> None:
    workspace.behaviour.faults.fail_operations("create_branch", error_code="RESOURCE_EXHAUSTED", message="no room")
    with pytest.raises(ApiError, match="no room"):
        create(workspace)
    assert DEV not in workspace.branches
    assert len(clusters.sources) == 1
    create(workspace)


def test_moment_that_the_cluster_refuses_fails_the_operation(
    workspace: Workspace, clusters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(*args: object, **kwargs: object) -> None:
        raise ValueError("out of the history that is kept")

    monkeypatch.setattr(clusters, "copy", copy)
    with refusal(400, "out of the history"):
        create(workspace, no_expiry=True, source_branch_lsn="0/1")
    assert DEV not in workspace.branches


def test_branch_does_not_expire_while_an_operation_works_on_it(workspace: Workspace, clusters: Any, clock: Any) -> None:
    release = threading.Event()
    copy = clusters.copy

    def slow_copy(*args: Any, **keywords: Any) -> None:
        release.wait(60)
        copy(*args, **keywords)

    clusters.copy = slow_copy
    workspace.behaviour.operation_seconds = 0.001
    operation = workspace.branches.create(PROJECT, "dev", {"spec": {"ttl": "60s"}})
    clock.now += 60
    workspace.expire()
    assert DEV in workspace.branches
    release.set()
    operation.wait()
    workspace.expire()
    assert (DEV in workspace.branches, len(clusters.sources), list(workspace.endpoints)) == (False, 1, [ENDPOINT])


def test_branch_of_a_deleted_project_stays_as_it_is(workspace: Workspace) -> None:
    create(workspace)
    workspace.branches.delete(DEV, purge=False).wait()
    workspace.projects.delete(PROJECT, purge=False).wait()
    for change in (lambda: workspace.branches.undelete(DEV), lambda: workspace.branches.delete(DEV, purge=True)):
        with pytest.raises(ApiError, match="project id not found"):
            change()


def test_feeds_go_with_their_branch(workspace: Workspace) -> None:
    create(workspace)
    for branch in (BRANCH, DEV):
        names = {"postgres_schema": "app", "catalog": "main", "schema": "history"}
        feed = f"{branch}/databases/databricks-postgres/cdf-configs/app"
        workspace.change_feeds.add(workspace.change_feeds.make(feed, cluster="br-1", postgres_version=17, **names))
    workspace.branches.delete(DEV, purge=True).wait()
    assert [feed.split("/databases/")[0] for feed in workspace.change_feeds] == [BRANCH]


def test_a_tree_of_branches_goes_whatever_its_state(workspace: Workspace, clusters: Any) -> None:
    create(workspace, **FOREVER, is_protected=True)
    create(workspace, "child", **FOREVER, source_branch=DEV)
    create(workspace, "grandchild", **FOREVER, source_branch=f"{PROJECT}/branches/child")
    workspace.branches.delete(f"{PROJECT}/branches/grandchild", purge=False).wait()
    workspace.behaviour.faults.fail_operations()
    workspace.branches.purge_tree(DEV)
    assert (list(workspace.branches), len(clusters.sources), list(workspace.endpoints)) == ([BRANCH], 1, [ENDPOINT])
    workspace.branches.purge_tree(DEV)


def test_branch_that_expired_since_its_deletion_does_not_come_back(workspace: Workspace, clock: Any) -> None:
    create(workspace, ttl="60s")
    workspace.branches.delete(DEV, purge=False).wait()
    clock.now += 60
    with refusal(400, "has expired since it was deleted"):
        workspace.branches.undelete(DEV)
