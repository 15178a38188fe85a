"""Open and close a session: LakebaseHook compared with bare psycopg and PostgresHook, which get a ready credential.

    .environments/airflow-3.3-python-3.11/bin/python benchmarks/session.py

runs on the emulator, on loopback, with all contenders in turn in one process. PostgresHook takes part if
apache-airflow-providers-postgres is installed, for example for one run on top of the provider's own environment:

    uv run --no-project --python .environments/airflow-3.3-python-3.11/bin/python \
        --with apache-airflow-providers-postgres==7.1.1 benchmarks/session.py

The difference between the first two rows is the cost of a fresh credential; a real workspace is further away. The
first and last sessions of the run are shown separately: state that a process kept for each session would slow the next.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import psycopg

_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _HOME.name
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

from airflow_provider_lakebase.core.grants.request import RoleRequest  # noqa: E402
from airflow_provider_lakebase.emulator import LakebaseEmulator  # noqa: E402
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook  # noqa: E402

SESSIONS = 200
WARM_UP = 10
OURS, BARE, PEER = "LakebaseHook.get_conn", "psycopg.connect", "PostgresHook.get_conn"
PEER_PACKAGE = "apache-airflow-providers-postgres"


class Session(Protocol):
    def close(self) -> object: ...


def main() -> int:
    with LakebaseEmulator() as emulator:
        for conn_id, connection in emulator.connections.items():
            os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = connection
        LakebaseHook("lakebase_admin").bootstrap_role(RoleRequest(emulator.service_principal.client_id))
        contenders = find_contenders(LakebaseHook().libpq_environment())
        for open_session in contenders.values():
            measure(open_session, WARM_UP)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        requests = 0
        for _ in range(SESSIONS):
            for name, open_session in contenders.items():
                before = len(emulator.requests)
                seconds[name] += measure(open_session, 1)
                requests += len(emulator.requests) - before if name == OURS else 0
    show(seconds)
    print(f"\n{OURS}: {requests / SESSIONS:g} workspace requests a session (must be 1); median of the", end=" ")
    first, last = (1000 * statistics.median(part) for part in (seconds[OURS][:50], seconds[OURS][-50:]))
    print(f"first 50 {first:.1f} ms, of the last 50 {last:.1f} ms")
    return requests != SESSIONS


def find_contenders(ready: Mapping[str, str]) -> dict[str, Callable[[], Session]]:
    """Return functions that open a session, by name; ``ready`` is a libpq environment with a valid credential."""
    keywords = {
        "host": ready["PGHOST"],
        "port": ready["PGPORT"],
        "dbname": ready["PGDATABASE"],
        "user": ready["PGUSER"],
        "password": ready["PGPASSWORD"],
        "sslmode": ready["PGSSLMODE"],
    }
    contenders: dict[str, Callable[[], Session]] = {
        OURS: lambda: LakebaseHook().get_conn(),
        BARE: lambda: psycopg.connect(**keywords),
    }
    if importlib.util.find_spec("airflow.providers.postgres"):
        from airflow.providers.postgres.hooks.postgres import PostgresHook

        fields = {
            "conn_type": "postgres",
            "host": keywords["host"],
            "port": int(keywords["port"]),
            "schema": keywords["dbname"],
            "login": keywords["user"],
            "password": keywords["password"],
            "extra": {"sslmode": keywords["sslmode"]},
        }
        os.environ["AIRFLOW_CONN_PEER"] = json.dumps(fields)
        contenders[PEER] = lambda: PostgresHook("peer").get_conn()
    return contenders


def measure(open_session: Callable[[], Session], times: int) -> list[float]:
    """Return the seconds of each opening and closing."""
    seconds = []
    for _ in range(times):
        started_at = time.perf_counter()
        open_session().close()
        seconds.append(time.perf_counter() - started_at)
    return seconds


def show(seconds: Mapping[str, list[float]]) -> None:
    names = ("apache-airflow", "databricks-sdk", "psycopg", PEER_PACKAGE)
    print(f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\n{f'{SESSIONS} each, ms':<24}{'median':>8}{'min':>8}{'max':>8}{'to psycopg':>12}{'to PostgresHook':>17}")
    for name, values in seconds.items():
        figures = "".join(f"{1000 * value:>8.1f}" for value in (medians[name], min(values), max(values)))
        peer = f"{medians[name] / medians[PEER]:.2f}" if PEER in medians else "–"
        print(f"{name:<24}{figures}{medians[name] / medians[BARE]:>12.2f}{peer:>17}")
    if PEER not in medians:
        print(f"{PEER}: left out, {PEER_PACKAGE} is not installed")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
