"""Wait for endpoints in a triggerer: one poll per endpoint, as this package does, compared with one poll per trigger.

    python benchmarks/triggers.py

needs Linux and Python 3.11 or newer. It creates the environments of the scripts and runs itself again in them. 1,000
deferred sensors on 10 suspended endpoints poll every 5 seconds in Airflow's own TriggerRunner, in its own process; only
its supervisor's messages are simulated. After 10 seconds, it measures for 60 seconds. Then the endpoints are woken from
outside, and each sensor must fire within one interval. This takes about four minutes.
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
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
SENSORS = 1000
ENDPOINTS = 10
INTERVAL = 5.0
START_SECONDS = 10.0
MEASURED_SECONDS = 60.0
LAG_STEP = 0.01
TARGETS = {"CPU, % of one core": 5.0, "requests to the workspace/s": 3.0, "loop lag p99, ms": 50.0, "late, s": INTERVAL}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", metavar="ENDPOINTS", help=argparse.SUPPRESS)
    parser.add_argument("--own-poll", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_triggers(json.loads(options.run), options.own_poll)
    elif options.inside:
        compare()
    else:
        sys.path.append(str(SCRIPTS))
        from _environment import environment, prepare

        python = prepare()
        sys.stdout.flush()
        os.execve(str(python), [str(python), __file__, "--inside"], environment(python))
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


def measure(*, own_poll: bool) -> dict[str, float]:
    """Run the triggers in a new process, against an emulator in this one."""
    from airflow_provider_lakebase.emulator import LakebaseEmulator

    with (
        tempfile.TemporaryDirectory(prefix="trigger-benchmark-") as folder,
        LakebaseEmulator(wake_seconds=0) as emulator,
    ):
        names = [emulator.add_endpoint(f"e{number}", branch=f"b{number}") for number in range(ENDPOINTS)]
        for name in names:
            emulator.suspend(name)
        environment = {
            **os.environ,
            **{f"AIRFLOW_CONN_{conn_id.upper()}": value for conn_id, value in emulator.connections.items()},
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW_HOME": folder,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        command = [sys.executable, __file__, "--run", json.dumps(names), *(["--own-poll"] if own_poll else [])]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdin is not None
        wait_for(process.stdout, "measuring")
        before = len(emulator.requests)
        figures = json.loads(wait_for(process.stdout, "measured"))
        figures["requests to the workspace/s"] = (len(emulator.requests) - before) / MEASURED_SECONDS
        woken_at = time.monotonic()
        for name in names:
            emulator.wake(name)
        fired_at = json.loads(wait_for(process.stdout, "fired"))
        process.kill()
        process.wait()
        return {**figures, "fired": len(fired_at), "late, s": max(fired_at, default=woken_at) - woken_at}


def wait_for(lines: Any, word: str) -> str:
    """Return the rest of the first line that starts with a word."""
    for line in lines:
        if line.startswith(f"{word} "):
            return str(line.partition(" ")[2])
    raise SystemExit("The triggers ended early.")


# ── In the process of the triggers ──


def run_triggers(endpoints: list[str], own_poll: bool) -> None:
    from airflow.executors import workloads
    from airflow.jobs.triggerer_job_runner import TriggerRunner, messages
    from airflow.models.trigger import Trigger

    path = f"{__name__}.OwnPoll" if own_poll else "airflow_provider_lakebase.triggers.endpoint.LakebaseEndpointTrigger"
    to_create = [
        workloads.RunTrigger(
            id=number,
            ti=None,
            classpath=path,
            encrypted_kwargs=Trigger.encrypt_kwargs(
                {"endpoint": endpoints[number % len(endpoints)], "wake": False, "poll_interval": INTERVAL}
            ),
        )
        for number in range(SENSORS)
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
            return own_poll_trigger() if own_poll else super().get_trigger_by_classpath(classpath)

    runner = Runner()

    async def everything() -> None:
        watching = asyncio.create_task(watch(runner))
        await runner.arun()
        await watching

    asyncio.run(everything())


async def watch(runner: Any) -> None:
    """Print the figures, and at the end the time at which each trigger fired."""
    await asyncio.sleep(START_SECONDS)
    print("measuring now", flush=True)
    used, lags = time.process_time(), []
    until = time.monotonic() + MEASURED_SECONDS
    while (started_at := time.monotonic()) < until:
        await asyncio.sleep(LAG_STEP)
        lags.append(time.monotonic() - started_at - LAG_STEP)
    figures = {
        "CPU, % of one core": (time.process_time() - used) / MEASURED_SECONDS * 100,
        "loop lag p99, ms": statistics.quantiles(lags, n=100)[98] * 1000,
    }
    print(f"measured {json.dumps(figures)}", flush=True)
    until = time.monotonic() + 6 * INTERVAL
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
