"""A worker that is killed after its request was accepted, and the try after it: one resource, changed once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from _operations import PROJECT, Changes, Store, run

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators.branch import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
    LakebaseResetBranchOperator,
)
from airflow_provider_lakebase.operators.change_feed import (
    LakebaseCreateChangeFeedOperator,
    LakebaseDeleteChangeFeedOperator,
)
from airflow_provider_lakebase.operators.database import LakebaseCreateDatabaseOperator
from airflow_provider_lakebase.operators.endpoint import (
    LakebaseCreateEndpointOperator,
    LakebaseDeleteEndpointOperator,
    LakebaseRestoreEndpointOperator,
    LakebaseUpdateEndpointOperator,
)
from airflow_provider_lakebase.operators.snapshot import (
    LakebaseCreateSnapshotOperator,
    LakebaseDeleteSnapshotOperator,
)

PRIMARY = f"{PROJECT}/branches/production/endpoints/primary"
WORKER = """
import importlib, json, os, signal, sys

from airflow_provider_lakebase.operators import _operation


class Store:
    # What Airflow 3.3 keeps in its database.
    def get(self, key, default=None):
        return default

    def set(self, key, value):
        with open(store, "w") as file:
            json.dump({key: json.dumps(value)}, file)


module, name, arguments, store = json.loads(sys.argv[1])
_operation.wait_for = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
operator = getattr(importlib.import_module(module), name)(task_id="task", **arguments)
operator.execute({"task_state_store": Store()} if store else {})
"""


@pytest.fixture
def workspace(emulator: LakebaseEmulator) -> Iterator[LakebaseWorkspaceHook]:
    """The workspace, whose operations take time; afterwards everything is as it was."""
    hook = LakebaseWorkspaceHook("lakebase_admin")
    former = hook.get_endpoint(PRIMARY).status
    assert former is not None
    # Longer than a worker takes to die, also on a busy machine: the next try is to meet the operation at work.
    emulator.operation_seconds = 1.0
    yield hook
    emulator.operation_seconds = 0
    hook.update_endpoint(PRIMARY, max_cu=former.autoscaling_limit_max_cu)
    hook.delete_snapshot("kept")
    hook.delete_change_feed("kept")
    hook.delete_database("Made here")
    for branch in ("kept", "made"):
        with suppress(LakebaseWorkspaceError):
            hook.delete_branch(branch, purge=True)


def work_and_be_killed(operator: type, arguments: dict[str, Any], store: Path | None) -> None:
    """Run an operator in a process of its own, which is killed when its request is accepted."""
    call = json.dumps([operator.__module__, operator.__name__, arguments, str(store or "")])
    process = subprocess.run([sys.executable, "-c", WORKER, call], env=os.environ, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]


BRANCH = {"branch_id": "kept"}
FEED = {"postgres_schema": "kept", "catalog": "main", "schema": "history"}
OPERATORS: dict[type, tuple[dict[str, Any], list[str]]] = {
    LakebaseCreateBranchOperator: ({"branch_id": "made", "ttl": 3600}, ["POST branches"]),
    LakebaseDeleteBranchOperator: (BRANCH, ["DELETE kept"]),
    LakebaseResetBranchOperator: (BRANCH, ["DELETE kept", "POST branches", "POST endpoints"]),
    LakebaseUpdateEndpointOperator: ({"max_cu": 4}, ["PATCH primary"]),
    LakebaseRestoreEndpointOperator: ({"former": {"endpoint": PRIMARY, "max_cu": 4}}, ["PATCH primary"]),
    LakebaseCreateEndpointOperator: ({**BRANCH, "endpoint_id": "reader"}, ["POST endpoints"]),
    LakebaseDeleteEndpointOperator: ({"endpoint": f"{PROJECT}/branches/kept/endpoints/old"}, ["DELETE old"]),
    LakebaseCreateDatabaseOperator: ({"database": "Made here"}, ["POST databases"]),
    LakebaseCreateSnapshotOperator: ({"snapshot_id": "kept", "ttl": 3600}, ["POST snapshots"]),
    LakebaseDeleteSnapshotOperator: ({"snapshot_id": "kept"}, ["DELETE kept"]),
    LakebaseCreateChangeFeedOperator: (FEED, ["POST cdf-configs"]),
    LakebaseDeleteChangeFeedOperator: ({"change_feed": "kept"}, ["DELETE kept"]),
}
BEFORE_3_3 = (LakebaseCreateBranchOperator, LakebaseUpdateEndpointOperator)
"""Tried without a store, too. In one process, tests of each operator do so for all."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("operator", "has_store"), [*((each, True) for each in OPERATORS), *((each, False) for each in BEFORE_3_3)]
)
def test_the_try_after_a_kill_starts_nothing_twice(
    operator: Any, has_store: bool, workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, tmp_path: Path
):
    arguments, expected = OPERATORS[operator]
    if "branch_id" in arguments or "endpoint" in arguments:
        workspace.create_branch("kept", ttl=3600)
        workspace.create_endpoint("kept", "old")
    if operator is LakebaseDeleteSnapshotOperator:
        workspace.create_snapshot("kept", "production", ttl=3600)
    if operator in (LakebaseCreateChangeFeedOperator, LakebaseDeleteChangeFeedOperator):
        LakebaseHook().run("CREATE SCHEMA IF NOT EXISTS kept")
    if operator is LakebaseDeleteChangeFeedOperator:
        workspace.create_change_feed(**FEED)
    kept, store = tmp_path / "store", Store()
    changes = Changes(emulator)
    work_and_be_killed(operator, arguments, kept if has_store else None)
    assert changes.seen == expected[:1]
    if has_store:
        store.values = json.loads(kept.read_text())
    result = run(operator(task_id="task", **arguments), {"task_state_store": store} if has_store else {})
    assert changes.seen == expected
    # Without a store or a run, nothing tells that it is the task's own.
    assert result is None or result.get("created", has_store) is has_store
    assert store.values == {}
