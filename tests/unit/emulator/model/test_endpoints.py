"""What may be done with endpoints through the API."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model.endpoints import READ_ONLY, READ_WRITE
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, ENDPOINT, Workspace

REPLICA = f"{BRANCH}/endpoints/replica"


def create(workspace: Workspace, endpoint_id: str = "replica", kind: str = READ_ONLY, **spec: Any) -> Json:
    body = {"spec": {"endpoint_type": kind, **spec}}
    return workspace.endpoints.create(BRANCH, endpoint_id, body).wait()


def update(workspace: Workspace, mask: str, **spec: Any) -> Json:
    return workspace.endpoints.update(ENDPOINT, {"spec": spec}, mask).wait()["status"]


def test_new_endpoint_is_awake_and_has_a_host(workspace: Workspace, computes: Any) -> None:
    status = create(workspace, autoscaling_limit_min_cu=0.5, autoscaling_limit_max_cu=8)["status"]
    assert (status["current_state"], status["endpoint_type"]) == ("ACTIVE", READ_ONLY)
    assert (status["autoscaling_limit_min_cu"], status["autoscaling_limit_max_cu"]) == (0.5, 8)
    assert status["hosts"]["host"] in computes.open_addresses


def test_branch_has_one_that_writes(workspace: Workspace) -> None:
    with pytest.raises(ApiError, match="read_write endpoint already exists"):
        create(workspace, "second", READ_WRITE)
    with pytest.raises(ApiError, match="endpoint with such id already exists"):
        create(workspace, "primary", READ_WRITE)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"autoscaling_limit_max_cu": 65}, "between 0.5 and 64"),
        ({"autoscaling_limit_min_cu": 0.25}, "between 0.5 and 64"),
        ({"autoscaling_limit_max_cu": "2"}, "between 0.5 and 64"),
        ({"autoscaling_limit_min_cu": 2}, "cannot exceed"),
        ({"autoscaling_limit_min_cu": 1, "autoscaling_limit_max_cu": 17.5}, "must not exceed 16"),
        ({"suspend_timeout_duration": "59s"}, "between 60s and 604800s"),
        ({"suspend_timeout_duration": "604801s"}, "between 60s and 604800s"),
        ({"suspend_timeout_duration": "5m"}, "not a duration"),
        ({"suspend_timeout_duration": "60s", "no_suspension": True}, "Only one of"),
        ({"no_suspension": False}, "must be true"),
        ({"group": {"min": 1, "max": 2}}, "must be equal"),
        ({"group": {"min": 0, "max": 0}}, "at least 1"),
        ({"group": {"min": 1, "max": 1, "enable_readable_secondaries": True}}, "more than one compute"),
        ({"disabled": "yes"}, "true or false"),
        ({"endpoint_type": ""}, "endpoint_type' is required"),
        ({"endpoint_type": "READ_ONLY"}, "is ENDPOINT_TYPE_READ_WRITE or"),
        ({"settings": {"pg_settings": {"work_mem": "1GB"}}}, "does not imitate the field .*pg_settings"),
    ],
)
def test_spec_that_makes_no_sense_is_refused(workspace: Workspace, spec: Json, text: str) -> None:
    with pytest.raises(ApiError, match=text):
        create(workspace, **{"kind": READ_ONLY, **spec})
    assert REPLICA not in workspace.endpoints


def test_mask_says_what_changes(workspace: Workspace) -> None:
    status = update(workspace, "spec.autoscaling_limit_max_cu", autoscaling_limit_max_cu=4, disabled=True)
    assert (status["autoscaling_limit_max_cu"], status["disabled"]) == (4, False)
    assert "suspend_timeout_duration" not in update(workspace, "spec.suspension", no_suspension=True)
    assert math.isinf(workspace.endpoints[ENDPOINT].suspend_timeout)
    assert not workspace.endpoints[ENDPOINT].suspend_is_due()
    status = update(workspace, "spec", disabled=True, suspend_timeout_duration="60s", endpoint_type=READ_WRITE)
    assert (status["disabled"], status["suspend_timeout_duration"]) == (True, "60s")
    assert status["autoscaling_limit_max_cu"] == 4


@pytest.mark.parametrize(
    ("mask", "spec", "text"),
    [
        (
            "spec.suspend_timeout_duration",
            {},
            "names together as 'spec.suspension'",
        ),
        ("spec.endpoint_type", {"endpoint_type": READ_ONLY}, "type of an endpoint cannot change"),
        ("spec.disabled", {"disabled": True, "endpoint_type": READ_ONLY}, "type of an endpoint cannot change"),
        ("spec.disabled", {}, "'spec.disabled' is in update_mask but not provided"),
        ("spec.autoscaling_limit_max_cu", {"autoscaling_limit_max_cu": 40}, "must not exceed 16"),
    ],
)
def test_refused_update_says_why(workspace: Workspace, mask: str, spec: Json, text: str) -> None:
    with pytest.raises(ApiError, match=text):
        update(workspace, mask, **spec)


def test_readable_secondaries_come_and_go_with_their_host(workspace: Workspace, computes: Any) -> None:
    computes.open(workspace.endpoints[ENDPOINT])
    group = {"min": 2, "max": 2, "enable_readable_secondaries": True}
    mask = "spec.group.min,spec.group.max,spec.group.enable_readable_secondaries"
    host = update(workspace, mask, group=group)["hosts"]["read_only_host"]
    assert host in computes.open_addresses
    status = update(workspace, mask, group={"min": 1, "max": 1, "enable_readable_secondaries": False})
    assert "read_only_host" not in status["hosts"]
    assert host not in computes.open_addresses
    assert workspace.endpoints[ENDPOINT].address in computes.open_addresses


def test_primary_is_changed_by_replacing_it(workspace: Workspace) -> None:
    body = {"spec": {"endpoint_type": READ_WRITE, "suspend_timeout_duration": "600s"}}
    replaced = workspace.endpoints.create(BRANCH, "primary", body, replace_existing=True).wait()
    assert replaced["uid"] == workspace.endpoints[ENDPOINT].uid
    assert replaced["status"]["suspend_timeout_duration"] == "600s"


def test_only_a_read_only_endpoint_is_deleted(workspace: Workspace, computes: Any) -> None:
    with pytest.raises(ApiError, match="Read-write endpoints cannot be deleted") as caught:
        workspace.endpoints.delete(ENDPOINT)
    assert caught.value.body["details"][0]["metadata"] == {"declarative_context": "MANAGED_BY_PARENT"}
    create(workspace)
    address = workspace.endpoints[REPLICA].address
    workspace.endpoints.delete(REPLICA).wait()
    assert REPLICA not in workspace.endpoints
    assert address not in computes.open_addresses


def test_endpoint_of_a_protected_branch_stays(workspace: Workspace) -> None:
    create(workspace)
    workspace.branches.update(BRANCH, {"spec": {"is_protected": True}}, "spec.is_protected").wait()
    with pytest.raises(ApiError, match="protected branch"):
        workspace.endpoints.delete(REPLICA)


def test_address_that_another_program_uses_is_left_out(workspace: Workspace, computes: Any) -> None:
    computes.taken = {"127.0.0.2", "127.0.0.3"}
    assert create(workspace)["status"]["hosts"]["host"] == "127.0.0.4"


def test_address_is_used_again_only_after_the_others(workspace: Workspace) -> None:
    create(workspace)
    first = workspace.endpoints[REPLICA].address
    workspace.endpoints.delete(REPLICA).wait()
    create(workspace)
    assert workspace.endpoints[REPLICA].address != first


def test_endpoint_whose_wake_fails_is_idle(workspace: Workspace, computes: Any) -> None:
    computes.wake_error = "no capacity"
    assert create(workspace)["status"]["current_state"] == "IDLE"
