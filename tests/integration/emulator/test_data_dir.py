"""A data directory keeps an emulator between its runs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from _clients import workspace_client
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest
from databricks.sdk.service.postgres import Branch, BranchSpec, Snapshot, SnapshotSpec

from airflow_provider_lakebase.emulator import LakebaseEmulator

COMMAND = [sys.executable, "-m", "airflow_provider_lakebase.emulator", "--format", "json", "--wake-seconds", "0.1"]
PROJECT = "projects/demo"
PRODUCTION = f"{PROJECT}/branches/production"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose way every account may go: run by root, PostgreSQL is another account's."""
    with tempfile.TemporaryDirectory(prefix="kept-") as directory:
        os.chmod(directory, 0o711)
        # With a space, since it may be any.
        yield Path(directory, "a folder")


@pytest.fixture
def runs(folder: Path) -> Iterator[Any]:
    """Start the command in the folder: return its process and variables."""
    processes = []

    def run() -> tuple[subprocess.Popen[str], dict[str, str]]:
        process = subprocess.Popen([*COMMAND, "--data-dir", str(folder)], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout
        lines: list[str] = []
        while "}\n" not in lines:
            line = process.stdout.readline()
            assert line, "it has ended"
            lines.append(line)
        return process, json.loads("".join(lines))

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def kept() -> Iterator[Path]:
    """The directory of a run that has ended, with a branch ``dev``. It is only copied."""
    with tempfile.TemporaryDirectory(prefix="kept-") as directory:
        os.chmod(directory, 0o711)
        with LakebaseEmulator(data_dir=Path(directory, "kept"), asleep=True) as emulator:
            emulator.create_branch("dev")
        yield Path(directory, "kept")


def sign_in(variables: dict[str, str]) -> dict[str, str]:
    names = {"host": "HOST", "client_id": "CLIENT_ID", "client_secret": "CLIENT_SECRET", "auth_type": "AUTH_TYPE"}
    return {argument: variables[f"DATABRICKS_{name}"] for argument, name in names.items()}


def session_of(variables: dict[str, str], client: WorkspaceClient) -> psycopg.Connection[Any]:
    """Open a session of the service principal."""
    return psycopg.connect(
        host=variables["PGHOST"],
        port=variables["PGPORT"],
        dbname=variables["PGDATABASE"],
        user=variables["PGUSER"],
        password=client.postgres.generate_database_credential(variables["LAKEBASE_ENDPOINT"]).token,
        sslmode="verify-full",
        sslrootcert=variables["PGSSLROOTCERT"],
        autocommit=True,
    )


def saved_branches(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "workspace.json").read_text())["workspace"]["branches"])


def branch_of(moment: float | None = None, **spec: Any) -> Branch:
    if moment is not None:
        from google.protobuf.timestamp_pb2 import Timestamp

        spec["source_branch_time"] = Timestamp(seconds=int(moment), nanos=int(moment % 1 * 1e9))
    return Branch(spec=BranchSpec(no_expiry=True, **spec))


def test_the_next_run_has_the_workspace_and_the_data(folder: Path, connect_to: Any) -> None:
    with LakebaseEmulator(data_dir=folder, wake_seconds=0.05) as first:
        group = first.add_principal("analysts", identity_type="GROUP")
        first.add_member(group, first.service_principal)
        first.create_role(first.service_principal)
        with connect_to(first)() as session:
            session.execute("CREATE TABLE flights (n int)")
            session.execute("INSERT INTO flights VALUES (1)")
        time.sleep(0.05)
        moment = time.time()
        time.sleep(0.05)
        with connect_to(first)() as session:
            session.execute("INSERT INTO flights VALUES (2)")
        client = workspace_client(first)
        dev = first.create_branch("dev")
        first.disable(f"{dev}/endpoints/primary")
        client.postgres.create_snapshot(PROJECT, Snapshot(spec=SnapshotSpec(source_branch=PRODUCTION)), "before").wait()
        gone = first.create_branch("gone")
        client.postgres.delete_branch(gone).wait()
        names = sorted(each.name for each in client.postgres.list_branches(PROJECT))
        secrets = [first.administrator, first.service_principal, group]
    assert stat.S_IMODE((folder / "workspace.json").stat().st_mode) == 0o600

    with LakebaseEmulator(data_dir=folder, wake_seconds=0.05) as second:
        assert [second.administrator, second.service_principal, group] == secrets
        client = workspace_client(second)
        assert sorted(each.name for each in client.postgres.list_branches(PROJECT)) == names
        assert second._endpoint(f"{dev}/endpoints/primary").disabled
        second.enable(f"{dev}/endpoints/primary")
        host = second.endpoint_host(f"{dev}/endpoints/primary")
        for more in ({}, {"host": host}):
            with connect_to(second)(**more) as session:
                assert session.execute("SELECT count(*) FROM flights").fetchone() == (2,)
                # It reads the identities' file.
                session.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        # A moment of the first run, a snapshot of it, and a branch that it has deleted.
        for branch_id, spec in {
            "past": branch_of(moment, source_branch=PRODUCTION),
            "copy": branch_of(source_snapshot=f"{PROJECT}/snapshots/before"),
        }.items():
            client.postgres.create_branch(PROJECT, spec, branch_id).wait()
            past = second.endpoint_host(f"{PROJECT}/branches/{branch_id}/endpoints/primary")
            with connect_to(second)(host=past) as session:
                rows = session.execute("SELECT count(*) FROM flights").fetchone()
                assert rows == ((1,) if branch_id == "past" else (2,))
        client.postgres.undelete_branch(gone).wait()
        with connect_to(second)(host=second.endpoint_host(f"{gone}/endpoints/primary")) as session:
            assert session.execute("SELECT count(*) FROM flights").fetchone() == (2,)
        with pytest.raises(BadRequest, match="outside of the branch's history"):
            client.postgres.create_branch(PROJECT, branch_of(moment - 3600, source_branch=PRODUCTION), "early")


def test_after_a_kill_the_next_run_has_all_that_was_answered(folder: Path, runs: Any) -> None:
    process, variables = runs()
    client = WorkspaceClient(**sign_in(variables))
    with session_of(variables, client) as session:
        session.execute("CREATE SCHEMA mine")
        session.execute("CREATE TABLE mine.flights AS SELECT 1 AS n")
    client.postgres.create_branch(PROJECT, branch_of(), "dev").wait()
    process.kill()
    # At once: the next run waits until the servers of this one have ended.
    _, again = runs()
    kept = ("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "PGUSER", "PGSSLROOTCERT")
    assert {name: again[name] for name in kept} == {name: variables[name] for name in kept}
    client = WorkspaceClient(**sign_in(again))
    assert f"{PROJECT}/branches/dev" in [each.name for each in client.postgres.list_branches(PROJECT)]
    with session_of(again, client) as session:
        assert session.execute("SELECT n FROM mine.flights").fetchall() == [(1,)]


@pytest.mark.parametrize("milliseconds", [400, 900])
def test_killed_while_starting_it_starts_again(milliseconds: int, folder: Path, runs: Any) -> None:
    process = subprocess.Popen([*COMMAND, "--data-dir", str(folder)], stdout=subprocess.DEVNULL)
    time.sleep(milliseconds / 1000)
    process.kill()
    process.wait()
    _, variables = runs()
    with session_of(variables, WorkspaceClient(**sign_in(variables))) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_two_do_not_share_it(folder: Path) -> None:
    with LakebaseEmulator(data_dir=folder) as running:
        with pytest.raises(RuntimeError, match=f"is in use by process {os.getpid()}"):
            LakebaseEmulator(data_dir=folder).start()
        assert running.state == "ACTIVE"
        done = subprocess.run([*COMMAND, "--data-dir", str(folder)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert done.stderr.startswith(f"lakebase-emulator: data_dir={folder} is in use by process {os.getpid()}")


def test_what_is_not_its_own_is_refused_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not an emulator's, and not empty"):
        LakebaseEmulator(data_dir=folder).start()
    assert [each.name for each in folder.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pg_version": 17}, "is of PostgreSQL 17, not 18: start with pg_version=17, or choose another directory"),
        ({"format": 0}, "is of another version of the emulator"),
        ({"workspace": {}}, "workspace.json cannot be read: KeyError"),
    ],
)
def test_a_directory_of_another_version_is_refused_and_left_alone(
    change: dict[str, Any], reason: str, folder: Path, kept: Path
) -> None:
    shutil.copytree(kept, folder, symlinks=True)
    file = folder / "workspace.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    before = sorted(map(str, folder.rglob("*")))
    with pytest.raises(ValueError, match=reason):
        LakebaseEmulator(data_dir=folder).start()
    assert sorted(map(str, folder.rglob("*"))) == before


def test_what_was_added_before_the_start_is_not_lost_silently(folder: Path, kept: Path) -> None:
    shutil.copytree(kept, folder, symlinks=True)
    emulator = LakebaseEmulator(data_dir=folder)
    emulator.add_principal("analyst@example.com", identity_type="USER")
    with pytest.raises(ValueError, match="has a workspace: add to it after the emulator has started"):
        emulator.start()


def test_a_branch_that_was_being_made_is_gone_and_the_others_stay(folder: Path, kept: Path) -> None:
    shutil.copytree(kept, folder, symlinks=True)
    for path in (kept / "postgres", *(kept / "postgres").rglob("*")):
        owner = path.lstat()
        os.chown(folder / path.relative_to(kept), owner.st_uid, owner.st_gid, follow_symlinks=False)
    (dev,) = (each for each in saved_branches(folder) if each["name"].endswith("/dev"))
    (folder / "postgres/clusters" / dev["uid"] / "base.json").unlink()
    with LakebaseEmulator(data_dir=folder) as emulator:
        assert list(emulator._state.branches) == [PRODUCTION]
        assert list(emulator._state.endpoints) == [emulator.endpoint]
        assert not (folder / "postgres/clusters" / dev["uid"]).exists()
        emulator.create_branch("dev")
