"""Long-running operations: they take time, can fail, and exclude one another on a resource."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from airflow_provider_lakebase.emulator.model.errors import ApiError, invalid
from airflow_provider_lakebase.emulator.model.operations import Operations
from airflow_provider_lakebase.emulator.model.workspace import Behaviour

NAME = "projects/demo/branches/dev"


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def operations(behaviour: Behaviour) -> Iterator[Operations]:
    operations = Operations(behaviour)
    yield operations
    operations.stop()


def test_operation_has_ended_when_it_is_first_shown(operations: Operations) -> None:
    shown = operations.submit(NAME, "create_branch", lambda: {"name": NAME}).json()
    assert shown["name"].startswith(f"{NAME}/operations/")
    assert (shown["done"], shown["response"]) == (True, {"name": NAME})
    assert shown["metadata"]["@type"].endswith("BranchOperationMetadata")
    assert operations.get(shown["name"]).json() == shown


def test_operation_takes_its_time(operations: Operations, behaviour: Behaviour) -> None:
    behaviour.operation_seconds = 0.05
    operation = operations.submit(NAME, "create_snapshot_schedule", lambda: {})
    assert operation.json()["done"] is False
    assert "response" not in operation.json()
    operation.wait()
    assert operation.json()["done"] is True
    assert operation.json()["metadata"]["@type"].endswith("SnapshotScheduleOperationMetadata")


def test_error_is_kept_and_what_was_begun_is_undone(operations: Operations) -> None:
    steps: list[str] = []

    def work() -> dict[str, object]:
        steps.append("work")
        raise invalid("no")

    operation = operations.submit(
        NAME, "create_branch", work, begin=lambda: steps.append("begin"), undo=lambda: steps.append("undo")
    )
    assert operation.json()["error"] == {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}
    assert "response" not in operation.json()
    assert steps == ["begin", "work", "undo"]
    with pytest.raises(ApiError, match="no"):
        operation.wait()


def test_defect_ends_the_operation_too(operations: Operations) -> None:
    operation = operations.submit(NAME, "create_branch", lambda: {"x": 1 // 0})
    assert operation.json()["error"]["error_code"] == "INTERNAL_ERROR"
    assert "ZeroDivisionError" in operation.json()["error"]["message"]


def test_fault_fails_the_operation_that_it_names(operations: Operations, behaviour: Behaviour) -> None:
    behaviour.faults.fail_operations("delete_branch projects/demo/branches/dev", message="asked for")
    assert operations.submit(NAME, "create_branch", dict).json()["response"] == {}
    assert operations.submit(f"{NAME}2", "create_branch", dict).json()["response"] == {}
    failed = operations.submit(NAME, "delete_branch", dict).json()
    assert failed["error"] == {"error_code": "INTERNAL_ERROR", "message": "asked for"}
    assert operations.submit(NAME, "delete_branch", dict).json()["response"] == {}


@pytest.mark.parametrize("other", [NAME, f"{NAME}/endpoints/primary", "projects/demo"])
def test_related_resource_is_busy(operations: Operations, other: str) -> None:
    release = threading.Event()

    def work() -> dict[str, object]:
        release.wait(60)
        return {}

    running = operations.submit(NAME, "create_branch", work)
    begun: list[str] = []
    with pytest.raises(ApiError, match=f"conflicting operation is in progress: {NAME}/operations/") as caught:
        operations.submit(other, "update", dict, begin=lambda: begun.append(other))
    assert (caught.value.status, caught.value.body["error_code"]) == (409, "ABORTED")
    assert begun == []
    operations.submit(f"{NAME}-2", "create_branch", dict).wait()
    release.set()
    running.wait()
    operations.submit(other, "update_branch", dict).wait()


def test_unknown_operation_is_not_found(operations: Operations) -> None:
    with pytest.raises(ApiError, match="operation id not found"):
        operations.get(f"{NAME}/operations/x")


def test_stop_cancels_what_waits(behaviour: Behaviour) -> None:
    operations = Operations(behaviour)
    behaviour.operation_seconds = 60
    undone: list[str] = []
    operation = operations.submit(NAME, "create_branch", dict, undo=lambda: undone.append(NAME))
    operations.stop()
    assert operation.json()["error"]["error_code"] == "CANCELLED"
    assert undone == [NAME]


def test_what_an_operation_copies_is_not_deleted_meanwhile(operations: Operations) -> None:
    release, snapshot = threading.Event(), "projects/demo/snapshots/s"

    def work() -> dict[str, object]:
        release.wait(60)
        return {}

    running = operations.submit(NAME, "create_branch", work, source=snapshot)
    assert operations.is_busy(snapshot)
    with pytest.raises(ApiError, match="conflicting operation"):
        operations.submit(snapshot, "delete_snapshot", dict)
    # Two copies of the same are no conflict, nor is a role that is made in a branch while it is copied.
    operations.submit(f"{NAME}-2", "create_branch", dict, source=snapshot).wait()
    operations.submit(f"{snapshot}/roles/r", "create_role", dict).wait()
    release.set()
    running.wait()
    assert not operations.is_busy(snapshot)
    operations.submit(snapshot, "delete_snapshot", dict).wait()


def test_what_is_being_deleted_is_not_copied(operations: Operations, behaviour: Behaviour) -> None:
    behaviour.operation_seconds = 60
    operations.submit("projects/demo/snapshots/s", "delete_snapshot", dict)
    with pytest.raises(ApiError, match="conflicting operation"):
        operations.submit(NAME, "create_branch", dict, source="projects/demo/snapshots/s")


def test_stop_does_not_wait_for_what_waits_for_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_lakebase.emulator.model.operations._STOP_SECONDS", 0.05)
    operations, release = Operations(Behaviour()), threading.Event()
    operation = operations.submit(NAME, "delete_role", lambda: {"released": release.wait(60)})
    operations.stop()
    assert operation.json()["error"]["error_code"] == "CANCELLED"
    release.set()
    operations.join()


def test_operations_run_again_after_a_stop(operations: Operations) -> None:
    operations.stop()
    operations.start()
    assert operations.submit(NAME, "create_branch", dict).wait() is not None
