"""Start the emulator, then run the example DAG or open Airflow's web UI. scripts/demo starts this."""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import FrameType

from _stack import Stack

from airflow_provider_lakebase.emulator import LakebaseEmulator

REPOSITORY = Path(__file__).resolve().parent.parent
HOME = REPOSITORY / ".demo"
DAG_ID = "flights_etl"
ELSEWHERE = ("database_to_lakebase.py", "dbt_*", "roles.py")
"""Examples that the demo leaves out: they need another database, dbt or further identities."""
SHOWN = ("running", "success", "failed", "up_for_retry", "up_for_reschedule")
DELAYS = """
    SELECT airline, sum(flights),
           round((sum(departed * departure_delay_minutes) / sum(departed))::numeric, 1),
           round(100 * sum(late) / sum(departed), 1) AS late_percent
    FROM nycflights.delays GROUP BY airline ORDER BY late_percent DESC LIMIT 8
"""
TASKS = """
    SELECT ti.task_id, coalesce(ti.rendered_map_index, nullif(ti.map_index, -1)), coalesce(ti.state, ''), ti.duration,
      xcom.value
    FROM task_instance ti LEFT JOIN xcom ON ti.task_id = 'load' AND xcom.task_id = ti.task_id
      AND xcom.map_index = ti.map_index AND xcom.run_id = ti.run_id AND xcom.key = 'return_value'
    ORDER BY ti.start_date IS NULL, ti.start_date
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Show the provider at work on the emulator.")
    parser.add_argument("--ui", action="store_true", help="open Airflow's web UI, until Ctrl-C")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    lock = (REPOSITORY / ".environments" / "demo").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"Another demo is running in {REPOSITORY}.")
    # The emulator is on this machine, not behind a proxy.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    print("Starting the Lakebase emulator with a suspended endpoint …", flush=True)
    with LakebaseEmulator(asleep=True) as emulator:
        print(f"  workspace {emulator.workspace_url}, Postgres on port {emulator.port}")
        return (show_ui if arguments.ui else run_example)(emulator.connections)


def run_example(connections: Mapping[str, str]) -> int:
    """Run the example DAG, print its tasks and the loaded data; return the exit code."""
    started_at = time.monotonic()
    variables = airflow_variables(HOME, connections)
    print("Creating Airflow's database …", flush=True)
    if run_airflow(variables, HOME / "migrate.log", "db", "migrate").wait():
        return failed(HOME / "migrate.log")
    print(f"Running the DAG {DAG_ID} …", flush=True)
    run = run_airflow(variables, HOME / "dag.log", "dags", "test", DAG_ID)
    try:
        follow(run, HOME / "airflow.db")
    finally:
        # A running task may ignore SIGTERM.
        run.kill()
        run.wait()
    tasks = task_rows(HOME / "airflow.db")
    print_tasks(tasks)
    if run.returncode or not tasks or any(state != "success" for _, state, _, _ in tasks):
        return failed(HOME / "dag.log")
    query_back(variables)
    seconds = time.monotonic() - started_at
    print(f"\nDone in {seconds:.0f} s. The tasks' log is in {(HOME / 'dag.log').relative_to(REPOSITORY)}.")
    return 0


def show_ui(connections: Mapping[str, str]) -> int:
    """Run a whole Airflow with the example DAGs and the emulator's connections until it is interrupted."""
    password = secrets.token_urlsafe(12)
    # Paused until someone starts them: one of the examples polls for new rows all the time.
    paused = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
    dags = shutil.copytree(REPOSITORY / "dags_examples", HOME / "dags", ignore=shutil.ignore_patterns(*ELSEWHERE))
    stack = Stack(HOME, paused, dags, login=("admin", password))
    print("Starting Airflow: api-server, scheduler, dag-processor, triggerer …", flush=True)
    try:
        stack.start()
        stack.import_connections(connections)
        print(f"\n  {stack.url}    user admin, password {password}\n")
        print(f"Trigger the DAG {DAG_ID}, or press Test on a connection (Admin, Connections). Ctrl-C stops everything.")
        sys.stdout.flush()
        while (ended := stack.ended()) is None:
            time.sleep(0.5)
        return failed(HOME / f"{ended}.log")
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
        return 0
    finally:
        stack.stop()


def airflow_variables(home: Path, connections: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables for an Airflow with the example DAGs and the emulator's connections."""
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags_examples"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        **{f"AIRFLOW_CONN_{name.upper()}": connection for name, connection in connections.items()},
    }


def run_airflow(variables: dict[str, str], log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start an Airflow command and write its output to a file."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", *arguments], env=variables, stdout=file, stderr=subprocess.STDOUT
        )


def follow(run: subprocess.Popen[bytes], database: Path) -> None:
    """Print each task as it starts and ends, until the run ends."""
    shown: set[tuple[str, str]] = set()
    while run.poll() is None:
        time.sleep(0.2)
        for task, state, seconds, _ in task_rows(database):
            if state in SHOWN and (task, state) not in shown:
                shown.add((task, state))
                took = f" in {seconds:.1f} s" if state == "success" and seconds is not None else ""
                print(f"  {task}: {state}{took}", flush=True)


def task_rows(database: Path) -> list[tuple[str, str, float | None, int | None]]:
    """Return task, state, seconds and, for a load, rows of each task, in the order in which they ran."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            found = connection.execute(TASKS).fetchall()
    except sqlite3.OperationalError:  # not created yet, or being written
        return []
    return [
        (task if index is None else f"{task}[{index}]", state, seconds, None if rows is None else int(rows))
        for task, index, state, seconds, rows in found
    ]


def print_tasks(tasks: list[tuple[str, str, float | None, int | None]]) -> None:
    """Print a table of the tasks."""
    print(f"\n{'task':<22}{'state':<12}{'seconds':>8}{'rows loaded':>14}")
    for task, state, seconds, rows in tasks:
        took = "" if seconds is None else f"{seconds:.1f}"
        print(f"{task:<22}{state:<12}{took:>8}{'' if rows is None else f'{rows:,}':>14}")


def query_back(variables: dict[str, str]) -> None:
    """Query the loaded data through the hook and print it."""
    os.environ.update(variables | {"AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"})
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

    hook = LakebaseHook(log_sql=False)
    (flights,) = hook.get_first("SELECT count(*) FROM nycflights.flights")
    print(f"\nIn Lakebase: {flights:,} flights. The airlines that leave late most often:\n")
    print(f"{'airline':<28}{'flights':>9}{'mean delay, min':>17}{'> 15 min late, %':>18}")
    for airline, count, delay, late in hook.get_records(DELAYS):
        print(f"{airline:<28}{count:>9,}{delay:>17}{late:>18}")


def failed(log: Path) -> int:
    """Print the end of a log and return the exit code of a failure."""
    print(f"\nFailed. The end of {log.relative_to(REPOSITORY)}:\n")
    print("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
    return 1


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
