"""Wait for endpoints in a triggerer: one poll per endpoint, as this package does, compared with one poll per trigger.

    python benchmarks/triggers.py
    python benchmarks/triggers.py --tables

needs Linux and Python 3.11 or newer. It creates the environments of the scripts and runs itself again in them. 1,000
deferred sensors on 10 suspended endpoints poll every 5 seconds in Airflow's own TriggerRunner, in its own process; only
its supervisor's messages are simulated. When all have been read once, it measures for 60 seconds. Then the endpoints
are woken from outside, and each sensor must fire within one interval. This takes about four minutes.

With ``--tables``, as many sensors on as many synced tables poll every 60 seconds, their default: no two share a
reading.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
SENSORS = 1000
ENDPOINTS = 10
INTERVAL = 5.0
START_SECONDS = 5.0
MEASURED_SECONDS = 60.0
LAG_STEP = 0.1  # a shorter one costs more CPU than the polls
LONGEST_WAIT = 70.0
TABLE_INTERVAL = 60.0
OWN_POLL = "OwnPoll"
TARGETS = {"CPU, % of one core": 5.0, "requests to the workspace/s": 3.0, "loop lag p99, ms": 50.0, "late, s": INTERVAL}
TABLE_TARGETS = {
    "CPU, % of one core": 5.0,
    # Each is read after 0.8 to 1.0 of the interval, and some a second early.
    "requests to the workspace/s": SENSORS / (0.8 * TABLE_INTERVAL),
    "loop lag p99, ms": 50.0,
    "late, s": TABLE_INTERVAL,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", metavar="TRIGGERS", help=argparse.SUPPRESS)
    parser.add_argument("--tables", action="store_true", help="wait for synced tables instead of endpoints")
    options = parser.parse_args()
    if options.run:
        run_triggers(*json.loads(Path(options.run).read_text()))
    elif options.inside:
        show_tables() if options.tables else compare()
    else:
        sys.path.append(str(SCRIPTS))
        from _environment import environment, prepare

        python = prepare()
        sys.stdout.flush()
        os.execve(str(python), [str(python), __file__, "--inside", *sys.argv[1:]], environment(python))
    return 0


def compare() -> None:
    """Run both ways and print their figures."""
    ours, peer = measure(own_poll=False), measure(own_poll=True)
    print(f"{SENSORS:,} sensors on {ENDPOINTS} endpoints, a poll every {INTERVAL:g} s, for {MEASURED_SECONDS:g} s\n")
    print(f"{'':<30}{'one poll an endpoint':>22}{'one a trigger':>16}{'ratio':>8}{'target':>8}")
    for name, target in TARGETS.items():
        verdict = "ok" if ours[name] <= target else "MISSED"
        ratio = f"{peer[name] / ours[name]:.1f}" if ours[name] else "–"
        print(f"{name:<30}{ours[name]:>22.2f}{peer[name]:>16.2f}{ratio:>8}{f'≤ {target:g}':>8} {verdict}")
    print(f"{'fired':<30}{ours['fired']:>22.0f}{peer['fired']:>16.0f}")


def show_tables() -> None:
    """Wait for synced tables, and print the figures."""
    from airflow_provider_lakebase.emulator import LakebaseEmulator

    with LakebaseEmulator(wake_seconds=0) as emulator:
        figures = measure_tables(emulator)
        print(f"{SENSORS:,} sensors on as many synced tables, a poll every {TABLE_INTERVAL:g} s\n")
        for name, target in TABLE_TARGETS.items():
            verdict = "ok" if figures[name] <= target else "MISSED"
            print(f"{name:<30}{figures[name]:>10.2f}{f'≤ {target:.1f}':>10} {verdict}")
        print(f"{'fired':<30}{figures['fired']:>10.0f}")
        print(f"the endpoint is {emulator.state}")


def measure_tables(emulator: Any, interval: float = TABLE_INTERVAL) -> dict[str, float]:
    """Wait for synced tables, for as long as it takes to poll each."""
    emulator.suspend()
    tables = [add_synced_table(emulator, f"lake.app.t{number}") for number in range(SENSORS)]
    return watch_triggers(
        emulator,
        "synced_table.LakebaseSyncedTableSensorTrigger",
        [{"synced_table": table.spec.synced_table_id, "version": 1, "poll_interval": interval} for table in tables],
        lambda: [serve(table, 1) for table in tables],
        SENSORS,
        interval,
    )


def add_synced_table(emulator: Any, name: str) -> Any:
    """Add a synced table that serves version 0, with neither rows nor a pipeline."""
    from airflow_provider_lakebase.emulator.model.data_plane import TablePlace
    from airflow_provider_lakebase.emulator.model.synced_table import SyncedTable
    from airflow_provider_lakebase.emulator.model.synced_table_spec import Spec

    branch = "projects/demo/branches/production"
    spec = Spec(name, "main.app.t", ("id",), "SNAPSHOT", branch, "databricks_postgres", True, None, None, {}, ())
    table = SyncedTable(spec, TablePlace("", spec.database, spec.schema, spec.table), time.time())
    emulator._state.synced_tables.add(table)
    serve(table, 0)
    return table


def serve(table: Any, version: int) -> None:
    """Let a synced table serve a version."""
    from airflow_provider_lakebase.emulator.model.catalog import Version

    for event in ("prepare", "load", "loaded", "settle"):
        table.move(event)
    table.note_sync(Version(version, time.time(), (), ()), time.time(), time.time())


def measure(*, own_poll: bool) -> dict[str, float]:
    """Wait for endpoints, each trigger with a poll of its own or not."""
    from airflow_provider_lakebase.emulator import LakebaseEmulator

    with LakebaseEmulator(wake_seconds=0) as emulator:
        names = [emulator.add_endpoint(f"e{number}", branch=f"b{number}") for number in range(ENDPOINTS)]
        for name in names:
            emulator.suspend(name)
        return watch_triggers(
            emulator,
            OWN_POLL if own_poll else "endpoint.LakebaseEndpointTrigger",
            [
                {"endpoint": names[number % ENDPOINTS], "wake": False, "poll_interval": INTERVAL}
                for number in range(SENSORS)
            ],
            lambda: [emulator.wake(name) for name in names],
            ENDPOINTS,
        )


def watch_triggers(
    emulator: Any,
    trigger: str,
    arguments: list[dict[str, Any]],
    let_them_fire: Callable[[], Any],
    first_readings: int,
    seconds: float = MEASURED_SECONDS,
) -> dict[str, float]:
    """Run triggers in a new process, against an emulator in this one, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="trigger-benchmark-") as folder:
        environment = {
            **os.environ,
            **{f"AIRFLOW_CONN_{conn_id.upper()}": value for conn_id, value in emulator.connections.items()},
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW_HOME": folder,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        given = Path(folder, "triggers.json")
        given.write_text(json.dumps([trigger, arguments]))
        command = [sys.executable, __file__, "--run", str(given)]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                return watch_process(process, emulator, let_them_fire, first_readings, seconds)
            finally:
                process.kill()


def watch_process(
    process: Any, emulator: Any, let_them_fire: Callable[[], Any], first_readings: int, seconds: float
) -> dict[str, float]:
    """Return the figures of a process that runs triggers."""
    while len(emulator.requests) < first_readings:
        if process.poll() is not None:
            raise SystemExit("The triggers ended early.")
        time.sleep(0.1)
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    wait_for(process.stdout, "measuring")
    before = len(emulator.requests)
    figures = json.loads(wait_for(process.stdout, "measured"))
    figures["requests to the workspace/s"] = (len(emulator.requests) - before) / seconds
    fire_at = time.monotonic()
    let_them_fire()
    fired_at = json.loads(wait_for(process.stdout, "fired"))
    return {**figures, "fired": len(fired_at), "late, s": max(fired_at, default=fire_at) - fire_at}


def wait_for(lines: Any, word: str) -> str:
    """Return the rest of the first line that starts with a word."""
    for line in lines:
        if line.startswith(f"{word} "):
            return str(line.partition(" ")[2])
    raise SystemExit("The triggers ended early.")


# ── In the process of the triggers ──


def run_triggers(trigger: str, arguments: list[dict[str, Any]]) -> None:
    from airflow.executors import workloads
    from airflow.jobs.triggerer_job_runner import TriggerRunner, messages
    from airflow.models.trigger import Trigger

    to_create = [
        workloads.RunTrigger(
            id=number,
            ti=None,
            classpath=f"airflow_provider_lakebase.triggers.{trigger}",
            encrypted_kwargs=Trigger.encrypt_kwargs(each),
        )
        for number, each in enumerate(arguments)
    ]

    class Events(deque[Any]):
        """Collects the events of triggers and their times."""

        fired_at: list[float] = []

        def append(self, event: Any) -> None:
            self.fired_at.append(time.monotonic())
            super().append(event)

    class Runner(TriggerRunner):
        """Airflow's own runner without the messages to its supervisor."""

        def __init__(self) -> None:
            super().__init__()
            self.events = Events()

        async def init_comms(self) -> None:
            reader = asyncio.create_task(asyncio.sleep(3600))
            self.comms_decoder = type("NoSupervisor", (), {"_reader_task": reader})()

        async def asend(self, message: Any) -> Any:
            created, to_create[:] = list(to_create), []
            return messages.TriggerStateSync(to_create=created, to_cancel=set())

        def get_trigger_by_classpath(self, classpath: str) -> Any:
            return own_poll_trigger() if trigger == OWN_POLL else super().get_trigger_by_classpath(classpath)

    runner = Runner()

    async def everything() -> None:
        watching = asyncio.create_task(watch(runner))
        await runner.arun()
        await watching

    asyncio.run(everything())


async def watch(runner: Any) -> None:
    """Print the figures, and at the end the time at which each trigger fired."""
    seconds = float(await asyncio.to_thread(sys.stdin.readline))
    await asyncio.sleep(START_SECONDS)
    print("measuring now", flush=True)
    used, lags = time.process_time(), []
    until = time.monotonic() + seconds
    while (started_at := time.monotonic()) < until:
        await asyncio.sleep(LAG_STEP)
        lags.append(time.monotonic() - started_at - LAG_STEP)
    figures = {
        "CPU, % of one core": (time.process_time() - used) / seconds * 100,
        "loop lag p99, ms": statistics.quantiles(lags, n=100)[98] * 1000,
    }
    print(f"measured {json.dumps(figures)}", flush=True)
    until = time.monotonic() + LONGEST_WAIT
    while len(runner.events.fired_at) < SENSORS and time.monotonic() < until:
        await asyncio.sleep(0.1)
    print(f"fired {json.dumps(runner.events.fired_at)}", flush=True)
    threading.Event().wait()


def own_poll_trigger() -> type:
    """Return a trigger that polls the state by itself, in threads."""
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
    from airflow_provider_lakebase.triggers._events import event, success
    from airflow_provider_lakebase.triggers._shared_poll import SharedPolls
    from airflow_provider_lakebase.triggers.endpoint import LakebaseEndpointTrigger

    class OwnPoll(LakebaseEndpointTrigger):
        async def run(self) -> Any:
            hook = LakebaseHook(self.lakebase_conn_id, self.endpoint)
            settings = await hook.read_settings_async()
            while True:
                try:
                    status = await SharedPolls.of_running_loop().read_status(hook, settings)
                    if status.state == "ACTIVE":
                        break
                except Exception as error:
                    print(error, file=sys.stderr)
                await asyncio.sleep(self.poll_interval)
            yield event(success())

    return OwnPoll


if __name__ == "__main__":
    sys.exit(main())
