"""Branches with data of their own, made and deleted through databricks-sdk."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from _clients import workspace_client
from _clock import Clock
from databricks.sdk.errors import InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as sdk
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from airflow_provider_lakebase.emulator import LakebaseEmulator

PROJECT = "projects/demo"
PRODUCTION = f"{PROJECT}/branches/production"
Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def emulator(clock: Clock) -> Iterator[LakebaseEmulator]:
    with LakebaseEmulator(wake_seconds=0, clock=clock) as running:
        yield running


@pytest.fixture(scope="module")
def postgres(emulator: LakebaseEmulator) -> Any:
    return workspace_client(emulator).postgres


@pytest.fixture
def run(emulator: LakebaseEmulator, postgres: Any) -> Run:
    """Return a function that runs a statement on a branch, over TLS and with a credential."""

    def run(branch: str, statement: str) -> list[tuple[Any, ...]]:
        endpoint = f"{branch}/endpoints/primary"
        with psycopg.connect(
            host=postgres.get_endpoint(endpoint).status.hosts.host,
            port=emulator.port,
            user=emulator.administrator.client_id,
            password=postgres.generate_database_credential(endpoint).token,
            dbname="databricks_postgres",
            sslmode="require",
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    return run


@pytest.fixture
def create(emulator: LakebaseEmulator, postgres: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that creates a branch, which does not outlive the test."""
    made: list[str] = []

    def create(branch_id: str, **spec: Any) -> Any:
        made.append(f"{PROJECT}/branches/{branch_id}")
        branch = sdk.Branch(spec=sdk.BranchSpec(**(spec if "ttl" in spec else {"no_expiry": True, **spec})))
        return postgres.create_branch(PROJECT, branch, branch_id).wait()

    yield create
    for name in reversed(made):
        try:
            emulator.delete_branch(name)
        except Exception as error:
            assert "not found" in str(error)


@pytest.fixture
def table(run: Run) -> Iterator[str]:
    """A table of production with one row."""
    run(PRODUCTION, "CREATE TABLE things AS SELECT 1 AS n")
    yield "things"
    run(PRODUCTION, "DROP TABLE IF EXISTS things")


def moment(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp


def test_rows_of_a_branch_are_its_own(run: Run, create: Any, table: str) -> None:
    branch = create("dev").name
    run(branch, "INSERT INTO things VALUES (2)")
    run(PRODUCTION, "INSERT INTO things VALUES (3)")
    assert run(branch, "SELECT n FROM things ORDER BY n") == [(1,), (2,)]
    assert run(PRODUCTION, "SELECT n FROM things ORDER BY n") == [(1,), (3,)]


def test_branch_of_a_past_moment_has_its_rows(run: Run, create: Any, table: str) -> None:
    time.sleep(0.05)  # so that the moment is between the two commits, whatever the resolution of the clocks
    before = time.time()
    time.sleep(0.05)
    run(PRODUCTION, "INSERT INTO things VALUES (2)")
    branch = create("past", source_branch_time=moment(before))
    assert run(branch.name, "SELECT n FROM things") == [(1,)]
    assert branch.status.source_branch_time.ToNanoseconds() == pytest.approx(before * 1e9, rel=1e-12)


def test_moment_outside_of_the_history_is_refused(create: Any) -> None:
    for seconds in (time.time() - 86400, time.time() + 86400):
        with pytest.raises(InvalidParameterValue, match="outside of the branch's history, which is from 20"):
            create("never", source_branch_time=moment(seconds))
    with pytest.raises(InvalidParameterValue, match="outside of the branch's history, which ends at "):
        create("never", source_branch_lsn="FF/0")


@pytest.mark.skipif(not hasattr(sdk, "Snapshot"), reason="this SDK has no snapshots")
def test_snapshot_still_has_a_dropped_table(run: Run, create: Any, postgres: Any, table: str) -> None:
    snapshot = sdk.Snapshot(spec=sdk.SnapshotSpec(source_branch=PRODUCTION))
    taken = postgres.create_snapshot(PROJECT, snapshot, "before-drop").wait()
    assert taken.status.full_size_bytes > 10**6
    run(PRODUCTION, "DROP TABLE things")
    branch = create("restored", source_snapshot=taken.name)
    assert branch.status.source_snapshot == taken.name
    assert run(branch.name, "SELECT n FROM things") == [(1,)]
    postgres.delete_snapshot(taken.name).wait()
    assert run(branch.name, "SELECT n FROM things") == [(1,)]
    with pytest.raises(NotFound, match="snapshot id not found"):
        postgres.get_snapshot(taken.name)


def test_branch_goes_and_comes_back_with_its_rows(run: Run, create: Any, postgres: Any, table: str) -> None:
    branch = create("dev").name
    run(branch, "INSERT INTO things VALUES (2)")
    host = postgres.get_endpoint(f"{branch}/endpoints/primary").status.hosts.host
    postgres.delete_branch(branch).wait()
    assert postgres.get_branch(branch).status.current_state == sdk.BranchStatusState.DELETED
    assert branch not in [each.name for each in postgres.list_branches(PROJECT)]
    assert branch in [each.name for each in postgres.list_branches(PROJECT, show_deleted=True)]
    with pytest.raises(NotFound, match="branch id not found"):
        postgres.get_endpoint(f"{branch}/endpoints/primary")
    postgres.undelete_branch(branch).wait()
    assert run(branch, "SELECT n FROM things ORDER BY n") == [(1,), (2,)]
    assert postgres.get_endpoint(f"{branch}/endpoints/primary").status.hosts.host == host
    postgres.delete_branch(branch, purge=True).wait()
    with pytest.raises(NotFound, match="branch id not found"):
        postgres.get_branch(branch)


def test_expired_branch_takes_no_logins(emulator: LakebaseEmulator, create: Any, postgres: Any, clock: Clock) -> None:
    branch = create("short", ttl=Duration(seconds=60))
    host = postgres.get_endpoint(f"{branch.name}/endpoints/primary").status.hosts.host
    token = postgres.generate_database_credential(emulator.endpoint).token
    clock.ahead += 61
    # Nobody asks the API: the emulator notices by itself.
    deadline = time.monotonic() + 60
    while True:
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(host=host, port=emulator.port, user="x", password=token, sslmode="require").close()
        if "refused" in str(caught.value):
            break
        assert time.monotonic() < deadline, caught.value
    with pytest.raises(NotFound, match="branch id not found"):
        postgres.get_branch(branch.name)


def test_operation_is_found_by_name_while_it_runs(emulator: LakebaseEmulator, create: Any, postgres: Any) -> None:
    emulator.operation_seconds = 0.5
    try:
        spec = sdk.BranchSpec(no_expiry=True)
        started = postgres.create_branch(PROJECT, sdk.Branch(spec=spec), "slow")
        assert not postgres.get_operation(started.name()).done
        assert postgres.get_branch(f"{PROJECT}/branches/slow").status.current_state == sdk.BranchStatusState.INIT
        assert started.wait().status.current_state == sdk.BranchStatusState.READY
    finally:
        emulator.operation_seconds = 0
        emulator.delete_branch(f"{PROJECT}/branches/slow")


def test_failed_operation_says_why(emulator: LakebaseEmulator, create: Any, postgres: Any) -> None:
    emulator.faults.fail_operations("create_branch", error_code="RESOURCE_EXHAUSTED", message="out of computes")
    with pytest.raises(Exception, match=r"operation failed: \[.*RESOURCE_EXHAUSTED\] out of computes"):
        create("failed")
    with pytest.raises(NotFound, match="branch id not found"):
        postgres.get_branch(f"{PROJECT}/branches/failed")


def test_emulator_makes_a_branch_in_one_call(emulator: LakebaseEmulator, run: Run, table: str) -> None:
    first, second = emulator.create_branch(), emulator.create_branch("of-mine", source=PRODUCTION)
    try:
        assert first != second == f"{PROJECT}/branches/of-mine"
        run(first, "DELETE FROM things")
        assert run(second, "SELECT n FROM things") == [(1,)]
    finally:
        emulator.delete_branch(first)
        emulator.delete_branch(second)
    assert emulator.endpoint_state() == "ACTIVE"


def test_deleted_branch_stays_closed_when_the_port_opens_again(emulator: LakebaseEmulator, run: Run) -> None:
    branch = emulator.create_branch()
    emulator._state.branches.delete(branch, purge=False).wait()
    host = emulator.endpoint_host(f"{branch}/endpoints/primary")
    with emulator.refuse_connections():
        pass
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, emulator.port), 5).close()
        for change in (emulator.suspend, emulator.wake):
            with pytest.raises(RuntimeError, match="takes no logins: its branch is deleted"):
                change(f"{branch}/endpoints/primary")
        assert run(PRODUCTION, "SELECT 1") == [(1,)]
    finally:
        emulator.delete_branch(branch)


def test_name_in_a_path_may_be_quoted(postgres: Any, run: Run) -> None:
    run(PRODUCTION, 'CREATE SCHEMA odd; CREATE TABLE odd."größe x" (id int)')
    parent = f"{PRODUCTION}/databases/databricks-postgres"
    feed = sdk.CdfConfig(catalog="main", schema="history", postgres_schema="odd")
    name = postgres.create_cdf_config(parent, feed).wait().name
    status = postgres.get_cdf_status(quote(f"{name}/cdf-statuses/größe x"))
    assert status.postgres_table == "größe x"
    postgres.delete_cdf_config(name).wait()


@pytest.mark.parametrize("header", [{"Content-Length": "many"}, {"Transfer-Encoding": "chunked"}])
def test_body_without_a_length_is_refused(emulator: LakebaseEmulator, header: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(emulator.workspace_url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/api/2.0/postgres/credentials", headers=header)
    assert connection.getresponse().status == 411
    connection.close()
