"""Branches and snapshots hold data of their own: each is a PostgreSQL cluster, copied from another one."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from _clock import Clock

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.emulator.postgres_port import cluster as cluster_module
from airflow_provider_lakebase.emulator.postgres_port.clusters import Clusters

PRODUCTION = "projects/demo/branches/production"
OWNERS_EXTENSIONS = ["citext", "fuzzystrmatch", "hstore", "pg_stat_statements", "pg_trgm", "unaccent"]
COPIES = ["apart", "apart-too", "at-moment", "in-between", "at-lsn", "at-its-lsn", "since-then", "snapshot", "restored"]
THREE_BRANCHES_AND_A_SNAPSHOT = """
import sys, time
from airflow_provider_lakebase.emulator import LakebaseEmulator
with LakebaseEmulator() as emulator:
    for _ in range(3):
        emulator.create_branch()
    clusters = emulator._server.clusters
    clusters.copy(next(iter(emulator._state.branches.values())).uid, "snap-1")
    print(emulator.ca_file.parent, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def emulator(clock: Clock) -> Iterator[LakebaseEmulator]:
    with LakebaseEmulator(wake_seconds=0, clock=clock) as running:
        yield running


@pytest.fixture(scope="module")
def clusters(emulator: LakebaseEmulator) -> Clusters:
    return emulator._server.clusters


@pytest.fixture(scope="module")
def production(emulator: LakebaseEmulator) -> str:
    """The name of the first branch's cluster."""
    return emulator._state.branches[PRODUCTION].uid


@pytest.fixture
def table(clusters: Clusters, production: str) -> Iterator[str]:
    """A table with one row, 1."""
    clusters.execute(production, "databricks_postgres", "CREATE TABLE numbers AS SELECT 1 AS n")
    yield "numbers"
    clusters.execute(production, "databricks_postgres", "DROP TABLE IF EXISTS numbers")
    for name in COPIES:
        clusters.delete(name)


def numbers(clusters: Clusters, cluster: str) -> list[int]:
    return [n for (n,) in clusters.execute(cluster, "databricks_postgres", "SELECT n FROM numbers ORDER BY n")]


def insert(clusters: Clusters, cluster: str, number: int) -> None:
    clusters.execute(cluster, "databricks_postgres", "INSERT INTO numbers VALUES (%s)", (number,))


@pytest.mark.usefixtures("table")
def test_rows_of_a_branch_and_of_its_parent_are_apart(clusters: Clusters, production: str) -> None:
    clusters.copy(production, "apart")
    insert(clusters, "apart", 2)
    insert(clusters, production, 3)
    assert (numbers(clusters, production), numbers(clusters, "apart")) == ([1, 3], [1, 2])
    # A copy of the copy has what that has, also while nothing runs it.
    clusters.copy("apart", "apart-too")
    assert numbers(clusters, "apart-too") == [1, 2]


@pytest.mark.usefixtures("table")
def test_branch_at_a_past_moment_has_the_rows_of_that_moment(clusters: Clusters, production: str, clock: Clock) -> None:
    moment = clock()
    insert(clusters, production, 2)
    # An hour passes at once. The moments in between have what was there before it.
    clock.ahead += 3600
    clusters.tend()
    insert(clusters, production, 3)
    clusters.copy(production, "at-moment", time=moment)
    clusters.copy(production, "in-between", time=clock() - 1800)
    assert (numbers(clusters, "at-moment"), numbers(clusters, "in-between")) == ([1], [1, 2])
    assert numbers(clusters, production) == [1, 2, 3]


@pytest.mark.usefixtures("table")
def test_branch_at_a_log_sequence_number_has_what_was_committed_until_then(clusters: Clusters, production: str) -> None:
    insert(clusters, production, 2)
    lsn = clusters.current_lsn(production)
    insert(clusters, production, 3)
    clusters.copy(production, "at-lsn", lsn=lsn)
    assert numbers(clusters, "at-lsn") == [1, 2]
    # It has a history of its own, which begins with the copy.
    insert(clusters, "at-lsn", 4)
    lsn = clusters.current_lsn("at-lsn")
    insert(clusters, "at-lsn", 5)
    clusters.copy("at-lsn", "at-its-lsn", lsn=lsn)
    assert numbers(clusters, "at-its-lsn") == [1, 2, 4]


@pytest.mark.parametrize(
    ("point", "text"),
    [
        ({"time": 0.0}, "time 0.0 is out of the history that is kept"),
        ({"time": 9e9}, "time 9000000000.0 is out of the history"),
        ({"lsn": "0/1"}, "lsn 0/1 is out of the history that is kept: 0/"),
        ({"lsn": "FFFF/0"}, "lsn FFFF/0 is out of the history"),
        ({"lsn": "late"}, "lsn is such as 0/16B3748, not 'late'"),
    ],
)
def test_point_that_is_not_kept_is_refused(clusters: Clusters, production: str, point: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        clusters.copy(production, "never", **point)
    with pytest.raises(KeyError):
        clusters.get("never")


@pytest.mark.usefixtures("table")
def test_history_begins_anew_when_it_has_become_too_long(
    clusters: Clusters, production: str, emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.wake()
    lsn, oldest = clusters.current_lsn(production), clusters.oldest_time(production)
    clusters.tend()
    assert clusters.oldest_time(production) == oldest
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "_MAX_WAL", 0)
        patch.setattr(cluster_module.Cluster, "size", lambda self: 0)
        clusters.tend()
    clusters.tend()
    assert clusters.oldest_time(production) > oldest
    with pytest.raises(ValueError, match="out of the history"):
        clusters.copy(production, "never", lsn=lsn)
    lsn = clusters.current_lsn(production)
    insert(clusters, production, 2)
    clusters.copy(production, "since-then", lsn=lsn)
    assert numbers(clusters, "since-then") == [1]


@pytest.mark.usefixtures("table")
def test_snapshot_brings_a_dropped_table_back(clusters: Clusters, production: str) -> None:
    clusters.copy(production, "snapshot")
    clusters.execute(production, "databricks_postgres", "DROP TABLE numbers")
    clusters.copy("snapshot", "restored")
    assert numbers(clusters, "restored") == [1]
    assert not clusters.get("snapshot").running
    assert clusters.size("snapshot") > 5_000_000


def test_suspend_empties_unlogged_tables_and_keeps_the_others(emulator: LakebaseEmulator, connect: Any) -> None:
    with connect() as connection:
        for kind in ("UNLOGGED", ""):
            connection.execute(f"CREATE {kind} TABLE t_{kind} AS SELECT g FROM generate_series(1, 1000) g")
        connection.execute("SELECT count(*) FROM t_")
        connection.execute("SELECT pg_stat_force_next_flush()")
    seen = "SELECT count(*) FROM pg_stat_user_tables WHERE seq_scan > 0"
    with connect() as connection:
        assert connection.execute(seen).fetchone() != (0,)
    emulator.suspend()
    with connect() as connection:
        assert connection.execute(seen).fetchone() == (0,)
        counts = "SELECT (SELECT count(*) FROM t_unlogged), (SELECT count(*) FROM t_)"
        assert connection.execute(counts).fetchone() == (0, 1000)
        connection.execute("DROP TABLE t_unlogged, t_")


def test_roles_and_logins_come_along(emulator: LakebaseEmulator, connect: Any) -> None:
    with connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        connection.execute(
            "SELECT databricks_create_role(%s::text, 'SERVICE_PRINCIPAL')", (emulator.service_principal.client_id,)
        )
    branch = emulator.create_branch("with-roles")
    credential = emulator._state.issue_credential(emulator.service_principal, emulator._state.clock() + 60)
    host = emulator.endpoint_host(f"{branch}/endpoints/primary")
    connect(host=host, user=emulator.service_principal.client_id, password=credential).close()
    # An identity that is added later is known on all branches.
    later = emulator.add_principal("later")
    with connect(host=host) as connection:
        connection.execute("SELECT databricks_create_role(%s::text, 'SERVICE_PRINCIPAL')", (later.client_id,))
    emulator.delete_branch(branch)


def test_branch_that_nobody_uses_costs_no_process(
    emulator: LakebaseEmulator, clusters: Clusters, production: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.suspend()
    assert not clusters.get(production).running
    # The superuser's string starts the server, whose endpoint still sleeps, and it stops after the last session.
    monkeypatch.setattr(cluster_module, "_VISIT_SECONDS", 0.1)
    with psycopg.connect(emulator.superuser_conninfo) as connection:
        time.sleep(0.2)
        clusters.tend()
        connection.execute("SELECT 1")
    assert emulator.state == "IDLE"
    deadline = time.monotonic() + 60
    while clusters.get(production).running:
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.05)
        clusters.tend()
    emulator.wake()


def test_deleted_branch_leaves_nothing(clusters: Clusters, production: str) -> None:
    clusters.copy(production, "to-delete")
    clusters.execute("to-delete", "postgres", "SELECT 1")
    folder = clusters.get("to-delete").folder
    clusters.delete("to-delete")
    clusters.delete("to-delete")
    assert not folder.exists()


def test_killed_emulator_leaves_nothing_of_any_branch() -> None:
    command = [sys.executable, "-c", THREE_BRANCHES_AND_A_SNAPSHOT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        directory = process.stdout.readline().strip()
        assert len(_servers(directory)) == 4
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while os.path.exists(directory) or _servers(directory):
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.02)


def _servers(directory: str) -> list[str]:
    """Return the command lines of the servers below a directory."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(Path(path).read_bytes().decode(errors="replace"))
    return [line for line in found if line.startswith(directory)]


@pytest.mark.parametrize(("version", "also"), [(17, ["pgcrypto"]), (18, ["vector"])])
def test_owner_may_create_the_extensions_of_lakebase(version: int, also: list[str], connect_to: Any) -> None:
    with LakebaseEmulator(pg_version=version) as emulator, connect_to(emulator)() as connection:
        assert connection.info.server_version // 10000 == version
        for name in [*OWNERS_EXTENSIONS, *also]:
            connection.execute(psycopg.sql.SQL("CREATE EXTENSION {}").format(psycopg.sql.Identifier(name)))
        assert connection.execute("SELECT count(*) > 0 FROM pg_stat_statements").fetchone() == (True,)
