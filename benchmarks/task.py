"""The first statement of a task: LakebaseHook compared with PostgresHook, which gets a ready credential.

    .environments/airflow-3.3-python-3.11/bin/python benchmarks/task.py

A supervisor forks a process for each task, which has Airflow loaded and nothing of a provider. So does this program: it
loads Airflow as a task runner does, and forks a child for each measurement, which imports its hook and selects one row,
on the emulator, on loopback. PostgresHook takes part if apache-airflow-providers-postgres is installed, as it is in
this environment: on psycopg 3, which it prefers where psycopg is installed, and on psycopg2.

``session`` is the statement once everything is imported, with a new sign-in, look-up and credential; ``import`` is the
rest. Memory is what the child does not share with its parent, beyond what it has to begin with.
"""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OURS, PEER, OLD_PEER = "LakebaseHook", "PostgresHook, psycopg 3", "PostgresHook, psycopg2"
PEER_PACKAGE = "apache-airflow-providers-postgres"
ROUNDS = 25
TASKS_AN_HOUR = 10_000
FIGURES = ("import CPU", "session CPU", "CPU", "wall", "MiB")


def main() -> int:
    """Start the emulator and measure in a process that has nothing of it."""
    from airflow_provider_lakebase.core.grants.request import RoleRequest
    from airflow_provider_lakebase.emulator import LakebaseEmulator
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

    with LakebaseEmulator() as emulator:
        for conn_id, connection in emulator.connections.items():
            os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = connection
        LakebaseHook("lakebase_admin").bootstrap_role(RoleRequest(emulator.service_principal.client_id))
        os.environ["AIRFLOW_CONN_PEER"] = json.dumps(peer_connection(LakebaseHook().libpq_environment()))
        return subprocess.run([sys.executable, __file__, "measure"]).returncode


def peer_connection(ready: dict[str, str]) -> dict[str, Any]:
    """Return the fields of a connection for PostgresHook; ``ready`` is a libpq environment with a valid credential."""
    return {
        "conn_type": "postgres",
        "host": ready["PGHOST"],
        "port": int(ready["PGPORT"]),
        "schema": ready["PGDATABASE"],
        "login": ready["PGUSER"],
        "password": ready["PGPASSWORD"],
        "extra": {"sslmode": ready["PGSSLMODE"]},
    }


def measure() -> int:
    """Load Airflow as a task runner does, fork the children and print what they used."""
    import airflow.dag_processing.dagbag
    import airflow.sdk.execution_time.supervisor
    import airflow.sdk.execution_time.task_runner  # noqa: F401
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    # At its first statement, a task loads the asset modules of all providers that happen to be installed: not here.
    ProvidersManagerTaskRuntime.initialize_providers_asset_uri_resources = lambda self: None
    gc.freeze()  # as Airflow's LocalExecutor does before it forks
    contenders = {OURS: select_by_ours}
    if importlib.util.find_spec("airflow.providers.postgres"):
        contenders |= {PEER: select_by_peer, OLD_PEER: select_by_old_peer}
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, select in contenders.items():
            costs[name].append(run_forked(select))
    medians = {
        name: {figure: statistics.median(cost[figure] for cost in each) for figure in FIGURES}
        for name, each in costs.items()
    }
    show(medians)
    peer = medians.get(PEER)
    return bool(peer) and not (medians[OURS]["CPU"] <= 2 * peer["CPU"] and medians[OURS]["MiB"] <= 1.5 * peer["MiB"])


def select_by_ours() -> None:
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

    assert LakebaseHook().get_first("SELECT 1") == (1,)


def select_by_peer() -> None:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    assert PostgresHook("peer").get_first("SELECT 1") == (1,)


def select_by_old_peer() -> None:
    sys.modules["psycopg"] = None  # type: ignore[assignment]
    select_by_peer()


def run_forked(select: Callable[[], None]) -> dict[str, float]:
    """Fork a child that selects its first row, then another one with everything imported; return what it used."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(measure_child(select)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    if not text:
        raise SystemExit("A child failed")
    cost: dict[str, float] = json.loads(text)
    return cost


def measure_child(select: Callable[[], None]) -> dict[str, float]:
    memory, cpu, wall = private_mib(), time.process_time(), time.perf_counter()
    select()
    cpu, wall, memory = time.process_time() - cpu, time.perf_counter() - wall, private_mib() - memory
    forget_workspace()
    started_at = time.process_time()
    select()
    session = time.process_time() - started_at
    return {"import CPU": cpu - session, "session CPU": session, "CPU": cpu, "wall": wall, "MiB": memory}


def forget_workspace() -> None:
    """Let the next session sign in and look up its host again."""
    if "airflow_provider_lakebase.core.workspace.client" in sys.modules:
        from airflow_provider_lakebase.core.workspace.client import PROCESS_CLIENTS
        from airflow_provider_lakebase.core.workspace.endpoints import PROCESS_ADDRESSES
        from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

        PROCESS_CLIENTS.forget_all()
        PROCESS_ADDRESSES.forget(LakebaseHook().settings)


def private_mib() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def show(medians: dict[str, dict[str, float]]) -> None:
    names = ("apache-airflow", "databricks-sdk", "psycopg", PEER_PACKAGE)
    print(f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names))
    heading = "".join(f"{figure:>13}" for figure in FIGURES)
    print(f"\n{f'median of {ROUNDS}, seconds':<26}{heading}{f'CPU hours for {TASKS_AN_HOUR:,} tasks':>31}")
    for name, cost in medians.items():
        figures = "".join(f"{cost[figure]:>13.{1 if figure == 'MiB' else 3}f}" for figure in FIGURES)
        print(f"{name:<26}{figures}{cost['CPU'] * TASKS_AN_HOUR / 3600:>31.2f}")
    for peer in (PEER, OLD_PEER):
        if peer in medians:
            ratios = "".join(f"{medians[OURS][figure] / medians[peer][figure]:>13.2f}" for figure in FIGURES)
            print(f"{'to ' + peer:<26}{ratios}")
        else:
            print(f"{peer}: left out, {PEER_PACKAGE} is not installed")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        sys.exit(measure())
    with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        # The first round writes what an installation has: all bytecode.
        os.environ["PYTHONPYCACHEPREFIX"] = f"{home}/bytecode"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.exit(main())
