"""The demo shows what it promises and leaves nothing; a sensor of a real Airflow waits through a long wake."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import _demo as demo
import psutil
import pytest
from _environment import REPOSITORY
from _examples import run, task_states

from airflow_provider_lakebase.emulator import LakebaseEmulator


def processes_of(folder: str) -> list[Any]:
    """Return the command lines of processes that name the folder, or have it as their temporary one."""
    running = psutil.process_iter(["environ", "cmdline"])
    return [each.info["cmdline"] for each in running if folder in f"{each.info['environ']} {each.info['cmdline']}"]


@pytest.fixture
def temporary() -> Iterator[str]:
    """A temporary folder whose name is short enough for a Unix socket and that every account may enter."""
    with tempfile.TemporaryDirectory(prefix="lakebase-demo-") as folder:
        os.chmod(folder, 0o777)
        yield folder


def test_the_search_for_processes_finds_one(temporary: str):
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "TMPDIR": temporary}) as process:
        assert processes_of(temporary) == [["sleep", "60"]]
        process.kill()


@pytest.mark.long
def test_the_demo_shows_what_it_did_and_leaves_nothing(temporary: str):
    command = [sys.executable, str(REPOSITORY / "scripts" / "_demo.py")]
    environment = {**os.environ, "TMPDIR": temporary}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "In Lakebase: 336,776 flights" in result.stdout
    assert "Traceback" not in result.stderr
    for task in ("bootstrap_role", "wait_for_endpoint", "load[flights]", "check_table", "report"):
        assert f"\n{task} " in result.stdout
    assert processes_of(temporary) == []
    assert [name for name in os.listdir(temporary) if "lakebase" in name] == []


@pytest.mark.long
def test_the_demos_web_ui_lets_in_whom_it_names_and_ends_at_ctrl_c(temporary: str):
    command = [sys.executable, str(REPOSITORY / "scripts" / "_demo.py"), "--ui"]
    environment = {**os.environ, "TMPDIR": temporary}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        try:
            assert demo.stdout
            printed = ""
            while "Ctrl-C" not in printed and (line := demo.stdout.readline()):
                printed += line
            found = re.search(r"(http://127\.0\.0\.1:\d+)    user admin, password (\S+)", printed)
            assert found, printed
            url, password = found.groups()
            login = json.dumps({"username": "admin", "password": password}).encode()
            header = {"Content-Type": "application/json"}
            with urlopen(Request(f"{url}/auth/token", login, header)) as reply:
                token = json.load(reply)["access_token"]
            with urlopen(Request(f"{url}/api/v2/connections", headers={"Authorization": f"Bearer {token}"})) as reply:
                shown = {each["connection_id"] for each in json.load(reply)["connections"]}
            assert shown == {"lakebase_admin", "lakebase_default"}
            # Every example there can run: these need another database, dbt, or further identities.
            there = {path.stem for path in (REPOSITORY / ".demo" / "dags").iterdir()}
            assert "flights_etl" in there and not there & {"database_to_lakebase", "dbt_flights", "roles"}
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
        finally:
            demo.terminate()
    assert processes_of(temporary) == []
    assert [name for name in os.listdir(temporary) if "lakebase" in name] == []


RESCHEDULED = """
import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor

with DAG("rescheduled", schedule=None, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)):
    LakebaseEndpointSensor(
        task_id="wait", lakebase_conn_id="lakebase_admin", mode="reschedule", poke_interval=1, timeout=120
    )
"""


@pytest.mark.long
def test_a_sensor_in_reschedule_mode_waits_through_a_long_wake(tmp_path: Path):
    """The wake takes longer than a poke may, so the first poke gives its slot back."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "rescheduled.py").write_text(RESCHEDULED)
    with LakebaseEmulator(asleep=True, wake_seconds=13) as emulator:
        variables = demo.airflow_variables(tmp_path, emulator.connections)
        variables["AIRFLOW__CORE__DAGS_FOLDER"] = str(tmp_path / "dags")
        run(variables, tmp_path / "migrate.log", "db", "migrate")
        run(variables, tmp_path / "dag.log", "dags", "test", "rescheduled")
        assert emulator.state == "ACTIVE"
    assert task_states(tmp_path, "rescheduled") == [("success", 1)]
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        (reschedules,) = database.execute("SELECT count(*) FROM task_reschedule").fetchone()
    assert reschedules >= 1
