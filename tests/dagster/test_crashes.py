"""Runs that are killed, on an endpoint that suspends and with credentials that end: rows as if each ran once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from _clock import Clock

from airflow_provider_lakebase.dagster import LakebaseResource
from airflow_provider_lakebase.emulator import LakebaseEmulator

WORKER = Path(__file__).with_name("_run_worker.py")
ROWS = 20_000
KILLS = int(os.environ.get("LAKEBASE_KILLS", "3"))
HOUR = 3600


class Worker:
    """The process that forks runs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        assert self.answer() == "ready"

    def answer(self) -> Any:
        line = self.process.stdout.readline()
        assert line, "the worker has ended"
        return json.loads(line)

    def run(
        self, partition: str, parent: str | None = None, harm: Callable[[int], None] | None = None
    ) -> tuple[str, int, float]:
        """Run once, harming the run once it sends rows; return its ID, exit code, and seconds since the first row."""
        run_id = str(uuid.uuid4())
        self.process.stdin.write(json.dumps({"run_id": run_id, "partition": partition, "parent": parent}) + "\n")
        self.process.stdin.flush()
        pid, began_at = self.answer(), 0.0
        while (found := self.answer()) == "loading":
            if not began_at:
                began_at = time.monotonic()
                if harm:
                    harm(pid)
        return run_id, found, time.monotonic() - began_at

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def emulator(clock: Clock) -> Iterator[LakebaseEmulator]:
    """An emulator of the test's own, whose clock it sets forward."""
    with LakebaseEmulator(wake_seconds=0.2, clock=clock) as emulator:
        emulator.create_role(emulator.service_principal)
        yield emulator


@pytest.fixture
def worker(emulator: LakebaseEmulator, schema: str, tmp_path: Path) -> Iterator[Worker]:
    principal = emulator.service_principal
    worker = Worker(
        {
            **os.environ,
            "DAGSTER_HOME": str(tmp_path),
            "DATABRICKS_HOST": emulator.workspace_url,
            "DATABRICKS_CLIENT_ID": principal.client_id,
            "DATABRICKS_CLIENT_SECRET": principal.client_secret,
            "LAKEBASE_ENDPOINT": emulator.endpoint,
            "PGPORT": str(emulator.port),
            "TEST_SCHEMA": schema,
        }
    )
    yield worker
    worker.stop()


def test_rows_are_exact_after_kills_suspends_and_expiries(
    emulator: LakebaseEmulator, clock: Clock, worker: Worker, lakebase: LakebaseResource, schema: str
):
    lakebase.connect_and_execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.appended (day date, number int)")
    chance = random.Random(20240229)
    _, exit_code, seconds = worker.run("2026-01-01")
    assert exit_code == 0

    def kill(pid: int) -> None:
        time.sleep(chance.uniform(0, seconds))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def suspend(pid: int) -> None:
        clock.ahead += 2 * HOUR  # the credential ends, and with it nothing that is open
        time.sleep(chance.uniform(0, seconds / 2))
        emulator.suspend()

    killed = 0
    for number in range(KILLS):
        day = str(date(2026, 1, 2) + timedelta(days=number))
        emulator.suspend()
        clock.ahead += 2 * HOUR
        run_id, exit_code, _ = worker.run(day, harm=kill)
        killed += exit_code == -signal.SIGKILL
        while exit_code:
            run_id, exit_code, _ = worker.run(day, parent=run_id, harm=suspend)
            assert exit_code == 0, "a suspend and an expiry are what a retry policy heals"
    assert killed or KILLS == 0
    with lakebase.get_connection() as session:
        for table in ("appended", "stored"):
            query = f"""
                SELECT count(*), count(DISTINCT day) FROM (
                    SELECT day FROM {schema}.{table}
                    GROUP BY day HAVING count(*) = {ROWS} AND count(DISTINCT number) = {ROWS}
                ) AS exact
            """
            assert session.execute(query).fetchone() == (KILLS + 1, KILLS + 1), table
            assert session.execute(f"SELECT count(*) FROM {schema}.{table}").fetchone() == (ROWS * (KILLS + 1),)
