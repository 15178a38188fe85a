"""The example DAGs run green on Airflow and the emulator, again and again, and leave no secret anywhere."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

REPOSITORY = Path(__file__).parents[2]
# At DEBUG, `airflow dags test` prints whatever Airflow is asked to mask, its connections' passwords first of all.
AIRFLOWS_OWN = re.compile(rb"(?m)^.* Sending request .* msg=MaskSecret\(.*\n")
EXAMPLES = sorted(path.stem for path in (REPOSITORY / "dags_examples").glob("*.py"))


def load_demo() -> Any:
    spec = importlib.util.spec_from_file_location("_demo", REPOSITORY / "scripts" / "_demo.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo = load_demo()


def pieces(secret: str) -> list[bytes]:
    """Return the pieces one of which is in every 24 bytes of the secret."""
    return [secret[start : start + 16].encode() for start in range(0, len(secret) - 15, 8)]


def leaks(folder: Path, secrets: list[str]) -> list[str]:
    """Return the files that hold a piece of a secret."""
    searched = [piece for secret in secrets for piece in pieces(secret)]
    contents = {path: AIRFLOWS_OWN.sub(b"", path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    return [str(path) for path, content in contents.items() if any(piece in content for piece in searched)]


def task_states(home: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        return database.execute("SELECT state, count(*) FROM task_instance GROUP BY state").fetchall()


def run(variables: dict[str, str], log: Path, *arguments: str) -> None:
    process = demo.run_airflow(variables, log, *arguments)
    assert process.wait(200) == 0, log.read_text()[-3000:]


def test_the_search_for_secrets_finds_one(tmp_path: Path):
    secret = "dose" + "0123456789abcdef" * 4
    (tmp_path / "log").write_text(f"x{secret[5:29]}x")
    assert leaks(tmp_path, [secret]) == [str(tmp_path / "log")]


def test_flights_etl_runs_twice_with_the_same_counts_and_leaks_nothing(tmp_path: Path):
    with LakebaseEmulator(asleep=True) as emulator, pytest.MonkeyPatch.context() as environment:
        variables = demo.airflow_variables(tmp_path, emulator.connections)
        variables["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
        run(variables, tmp_path / "migrate.log", "db", "migrate")
        environment.setenv("AIRFLOW_CONN_FLIGHTS", emulator.connections["lakebase_default"])
        counts = []
        for number in (1, 2):
            run(variables, tmp_path / f"dag{number}.log", "dags", "test", "flights_etl")
            query = """
                SELECT (SELECT count(*) FROM nycflights.flights), (SELECT count(*) FROM nycflights.weather),
                       (SELECT count(*) FROM nycflights.planes), (SELECT count(*) FROM nycflights.airports),
                       (SELECT count(*) FROM nycflights.airlines), count(*), sum(flights), sum(late)
                FROM nycflights.delays
            """
            counts.append(LakebaseHook("flights").get_first(query))
        assert counts[0] == counts[1]
        assert counts[0][:5] == (336_776, 26_115, 3_322, 1_458, 16)
        assert counts[0][6] == 336_776
        assert task_states(tmp_path) == [("success", 24)]
        assert len(emulator.secrets) > 30
        assert leaks(tmp_path, emulator.secrets) == []


def test_dbt_flights_runs_twice_with_the_same_counts_and_leaks_nothing(tmp_path: Path):
    dbt = runpy.run_path(str(REPOSITORY / "scripts" / "_environment.py"))["prepare_dbt"]().with_name("dbt")
    project = REPOSITORY / "dags_examples" / "dbt_flights"
    before = sorted(project.rglob("*"))
    with LakebaseEmulator(asleep=True) as emulator, pytest.MonkeyPatch.context() as environment:
        variables = {
            **demo.airflow_variables(tmp_path, emulator.connections),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW_VAR_DBT_EXECUTABLE": str(dbt),
        }
        kept = {"DBT_LOG_PATH": str(tmp_path / "dbt"), "DBT_TARGET_PATH": str(tmp_path / "dbt")}
        run(variables, tmp_path / "migrate.log", "db", "migrate")
        environment.setenv("AIRFLOW_CONN_FLIGHTS", emulator.connections["lakebase_default"])
        counts = []
        for number, more in ((1, {}), (2, kept)):
            run({**variables, **more}, tmp_path / f"dag{number}.log", "dags", "test", "dbt_flights")
            query = """
                SELECT (SELECT count(*) FROM dbt_flights.flights), (SELECT count(*) FROM dbt_flights.stg_flights),
                       (SELECT count(*) FROM dbt_flights.delays_by_hour), count(*), sum(flights), sum(late)
                FROM dbt_flights.delays_by_airline
            """
            counts.append(LakebaseHook("flights").get_first(query))
            assert "Done. PASS=5 WARN=0 ERROR=0" in (tmp_path / f"dag{number}.log").read_text()
        assert counts[0] == counts[1]
        assert counts[0][:5] == (61, 61, 5, 8, 61)
        assert task_states(tmp_path) == [("success", 12)]
        assert {path.name for path in (tmp_path / "dbt").iterdir()} >= {"dbt.log", "manifest.json", "run_results.json"}
        credentials = [each for each in emulator.requests if each.path.endswith("/credentials")]
        assert len(emulator.logins) > len(credentials)  # the threads of dbt share one
        assert leaks(tmp_path, emulator.secrets) == []
    assert sorted(project.rglob("*")) == before


def test_every_example_is_run_by_a_test_of_its_own():
    source = Path(__file__).read_text()
    assert EXAMPLES
    assert all(f"def test_{name}_runs" in source for name in EXAMPLES)


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


def test_the_demo_shows_what_it_did_and_leaves_nothing(temporary: str):
    command = [sys.executable, str(REPOSITORY / "scripts" / "_demo.py")]
    environment = {**os.environ, "TMPDIR": temporary}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "In Lakebase: 336,776 flights" in result.stdout
    assert "Traceback" not in result.stderr
    for task in ("bootstrap_role", "wait_for_endpoint", "load[flights]", "check_table", "report"):
        assert f"\n{task} " in result.stdout
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
    assert task_states(tmp_path) == [("success", 1)]
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        (reschedules,) = database.execute("SELECT count(*) FROM task_reschedule").fetchone()
    assert reschedules >= 1
