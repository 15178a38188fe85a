"""The example DAGs run green on Airflow and the emulator, again and again, and leave no secret anywhere."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import runpy
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest
from _openlineage import lineage, read_events, transport
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.core.grants.request import RoleRequest
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


@pytest.mark.long
def test_flights_etl_runs_twice_with_the_same_counts_and_leaks_nothing(tmp_path: Path):
    with LakebaseEmulator(asleep=True) as emulator, pytest.MonkeyPatch.context() as environment:
        variables = demo.airflow_variables(tmp_path, emulator.connections)
        variables["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
        variables |= transport(tmp_path / "lineage.jsonl")
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
        tables = ["airlines", "flights", "weather"]
        read = [f"databricks_postgres.nycflights.{table}" for table in tables]
        delays = "databricks_postgres.nycflights.delays"
        events = read_events(tmp_path / "lineage.jsonl")
        assert lineage(events, "flights_etl.transform") == [(read, [delays])] * 2
        assert lineage(events, "flights_etl.report") == [([delays], [])] * 2


@pytest.mark.long
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


# Airflow takes seconds to start, so one process runs many of its commands; it answers each with its exit code.
COMMANDS = """
import json, os, sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from airflow.__main__ import main

for line in sys.stdin:
    sys.argv = ["airflow", *json.loads(line)]
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    sys.stdout.flush()
    print(code, file=answers, flush=True)
"""


ERROR_LINE = re.compile(r"\[(?:error|critical) *\]|\} (?:ERROR|CRITICAL) -|^(?:ERROR|CRITICAL)\b")


@dataclass(frozen=True)
class Examples:
    """An Airflow that runs the example DAGs on an emulator where the service principal has its role."""

    home: Path
    emulator: LakebaseEmulator
    airflow: subprocess.Popen[str]
    hook: LakebaseHook

    def run(self, dag_id: str, **params: str) -> list[dict[str, Any]]:
        """Run a DAG; every one of its tasks succeeds, and its OpenLineage events, which are returned, are valid."""
        events = self.home / "lineage.jsonl"
        events.unlink(missing_ok=True)
        log = self.home / "dags.log"
        before = log.stat().st_size if log.exists() else 0
        self.command("dags", "test", dag_id, "--conf", json.dumps(params))
        written = log.read_bytes()[before:].decode(errors="replace")
        # A task that succeeds logs no error, whoever writes it.
        assert [line for line in written.splitlines() if ERROR_LINE.search(line)] == []
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            query = "SELECT DISTINCT state FROM task_instance WHERE dag_id = ?"
            assert database.execute(query, [dag_id]).fetchall() == [("success",)]
        assert leaks(self.home, self.emulator.secrets) == []
        return read_events(events)

    def command(self, *arguments: str) -> None:
        """Run a command of Airflow."""
        assert self.airflow.stdin
        assert self.airflow.stdout
        print(json.dumps(arguments), file=self.airflow.stdin, flush=True)
        answer = self.airflow.stdout.readline()
        assert answer in ("0\n", "None\n"), (self.home / "dags.log").read_text()[-3000:]

    def results(self, dag_id: str, task_id: str) -> list[Any]:
        """Return what a task has returned, in all runs so far and for all map indexes."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            query = "SELECT CAST(value AS TEXT) FROM xcom WHERE key = 'return_value' AND dag_id = ? AND task_id = ?"
            return [json.loads(value) for (value,) in database.execute(query, [dag_id, task_id])]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    home = tmp_path_factory.mktemp("examples")
    source = {"conn_type": "sqlite", "host": str(tmp_path_factory.mktemp("source") / "source.db")}
    with LakebaseEmulator(asleep=True) as emulator, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_EXAMPLES_ADMIN", emulator.connections["lakebase_admin"])
        environment.setenv("AIRFLOW_CONN_EXAMPLES", emulator.connections["lakebase_default"])
        role = RoleRequest(emulator.service_principal.client_id, create_on_database=True)
        LakebaseHook("examples_admin").bootstrap_role(role)
        variables = {
            **demo.airflow_variables(home, emulator.connections),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW_CONN_SOURCE_DATABASE": json.dumps(source),
            "LAKEBASE_WORKSPACE": emulator.workspace_url.removeprefix("http://"),
            **transport(home / "lineage.jsonl"),
        }
        run(variables, home / "migrate.log", "db", "migrate")
        command = [sys.executable, "-c", COMMANDS]
        pipe = subprocess.PIPE
        with (
            (home / "dags.log").open("w") as log,
            subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, stderr=log, text=True) as airflow,
        ):
            yield Examples(home, emulator, airflow, LakebaseHook("examples"))


def test_parquet_upsert_runs_twice_and_restores_what_was_changed_between(examples: Examples, tmp_path: Path):
    query = "SELECT count(*), count(dep_delay), sum(dep_delay), max(time_hour)::text FROM serving.flights"
    found = []
    for _ in range(2):
        events = examples.run("parquet_upsert", folder=str(tmp_path))
        file, table = f"file:{tmp_path}/flights-2013-01-01.parquet", "databricks_postgres.serving.flights"
        assert lineage(events, "parquet_upsert.upsert") == [([file], [table])]
        found.append(examples.hook.get_first(query))
        examples.hook.run("UPDATE serving.flights SET dep_delay = 0; DELETE FROM serving.flights WHERE carrier = 'UA'")
    assert found[0] == found[1]
    assert found[0][0] == 842
    assert os.listdir(tmp_path) == ["flights-2013-01-01.parquet"]


def test_csv_files_runs_twice_and_each_file_is_a_task_that_loads_once(examples: Examples, tmp_path: Path):
    for _ in range(2):
        events = examples.run("csv_files", folder=str(tmp_path))
        read = sorted(inputs for inputs, _ in lineage(events, "csv_files.load"))
        assert read == [[f"file:{tmp_path}/flights-2013-{month:02}.csv"] for month in range(1, 13)]
        counted = examples.hook.get_first("SELECT count(*), count(DISTINCT month) FROM csv_files.flights")
        assert counted == (336_776, 12)
    assert len(os.listdir(tmp_path)) == 12
    loads = examples.results("csv_files", "load")
    assert [load["already_loaded"] for load in loads] == [False] * 24
    assert sum(load["rows"] for load in loads) == 2 * 336_776
    assert examples.hook.get_first("SELECT count(*), sum(rows) FROM airflow_lakebase.loads") == (24, 2 * 336_776)


def test_database_to_lakebase_runs_twice_with_the_same_rows(examples: Examples):
    query = """
        SELECT (SELECT count(*) FROM reference.airports), (SELECT count(*) FROM reference.planes),
               (SELECT count(built) FROM reference.planes), (SELECT sum(seats) FROM reference.planes),
               (SELECT latitude FROM reference.airports WHERE faa = '04G')
    """
    for _ in range(2):
        events = examples.run("database_to_lakebase")
        tables = [f"databricks_postgres.reference.{name}" for name in ("airports", "planes")]
        # OpenLineage has no names for the tables of SQLite.
        assert lineage(events, "database_to_lakebase.airports") == [([], tables[:1])]
        assert lineage(events, "database_to_lakebase.report") == [(tables, [])]
        assert examples.hook.get_first(query) == (1458, 3322, 3252, 512_639, 41.1304722)


def test_parquet_export_runs_twice_and_the_file_holds_all_rows(examples: Examples, tmp_path: Path):
    for _ in range(2):
        events = examples.run("parquet_export", folder=str(tmp_path))
        [(read, [written])] = lineage(events, "parquet_export.export")
        assert read == ["databricks_postgres.parquet_export.weather"]
        assert written.startswith(f"file:{tmp_path}/weather-")
    assert examples.results("parquet_export", "count_rows") == [26_115, 26_115]
    assert examples.hook.get_first("SELECT count(*) FROM parquet_export.weather") == (26_115,)
    assert all(re.fullmatch(r"weather-\d{4}-\d\d-\d\d\.parquet", name) for name in os.listdir(tmp_path))


def test_embeddings_runs_twice_and_finds_the_nearest(examples: Examples):
    for _ in range(2):
        examples.run("embeddings")
        assert examples.hook.get_first("SELECT count(*) FROM embeddings.airports") == (1458,)
    nearest = examples.results("embeddings", "find_nearest")
    assert [found[:2] for found in nearest] == [["Chicago Ohare Intl", "Chicago Midway Intl"]] * 2
    index = "SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE relname = 'airports_embedding'"
    assert examples.hook.get_first(index) == ("hnsw",)


def test_wait_and_bill_runs_twice_and_each_bill_is_in_the_ledger(examples: Examples):
    examples.run("wait_and_bill")
    examples.run("wait_and_bill", day="2026-01-02")
    query = "SELECT day::text, orders, amount::text FROM billing.bills ORDER BY day"
    assert examples.hook.get_records(query) == [("2026-01-01", 2, "42.50"), ("2026-01-02", 2, "42.50")]
    recorded = "SELECT count(*) FROM airflow_lakebase.loads WHERE load_id LIKE '%wait_and_bill%bill%'"
    assert examples.hook.get_first(recorded) == (2,)


if AIRFLOW_V_3_0_PLUS:  # Airflow 2 has no asset watchers

    def test_new_orders_runs_twice_and_its_watcher_tells_of_each_order_once(
        examples: Examples, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", examples.emulator.connections["lakebase_default"])
        names = runpy.run_path(str(REPOSITORY / "dags_examples" / "new_orders.py"))
        (watcher,) = names["new_orders"].watchers
        trigger = watcher.trigger
        trigger.poll_interval = 0.2
        monkeypatch.setattr("airflow_provider_lakebase.triggers.query.STORING_SECONDS", 0.2)

        async def first_event() -> Any:
            events = trigger.run()
            event = await asyncio.wait_for(anext(events), 60)
            # The commit comes after the event was taken.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 2)
            return event.payload

        examples.run("new_orders")
        examples.hook.run("INSERT INTO new_orders.orders (amount) VALUES (1), (2)")
        assert asyncio.run(first_event())["rows"] == 2
        examples.run("new_orders")
        query = "SELECT count(*), count(taken_at), count(shipped_at) FROM new_orders.orders"
        assert examples.hook.get_first(query) == (2, 2, 2)


def test_asset_scheduled_runs_twice_and_each_load_emits_an_event_of_its_tables_asset(examples: Examples):
    examples.command("dags", "reserialize")
    for times in (1, 2):
        examples.run("asset_scheduled_load")
        with closing(sqlite3.connect(examples.home / "airflow.db")) as database:
            old = bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'dataset_event'").fetchall())
            kind = "dataset" if old else "asset"
            query = f"SELECT uri, e.extra FROM {kind}_event e JOIN {kind} a ON a.id = e.{kind}_id"
            events = database.execute(query).fetchall()
        host = examples.emulator.workspace_url.removeprefix("http://")
        uri = f"lakebase://{host}/demo/production/databricks_postgres/asset_scheduled/airports"
        assert [(found, json.loads(extra)["rows"]) for found, extra in events] == [(uri, 1458)] * times
        examples.run("asset_scheduled")
        counted = examples.hook.get_first("SELECT count(*), sum(airports) FROM asset_scheduled.airports_by_zone")
        assert counted == (9, 1455)


def test_files_from_the_wild_runs_twice_and_loads_all_but_the_bad_rows(examples: Examples, tmp_path: Path):
    query = """
        SELECT (SELECT string_agg(name || ' in ' || coalesce(city, '?'), ', ' ORDER BY id) FROM wild.customers),
               (SELECT count(*) FROM wild.events), (SELECT sum(id) FROM wild.events WHERE dt = '2026-11-02'),
               (SELECT sum(price) FROM wild.prices), (SELECT count(*) FROM wild.payments)
    """
    customers = "Müller in Köln, Strauß; Söhne in Zürich, Ibáñez in ?"
    rejects = "SELECT number, column_name, sqlstate FROM wild.rejects ORDER BY number"
    for _ in range(2):
        events = examples.run("files_from_the_wild", folder=str(tmp_path))
        table = "databricks_postgres.wild.customers"
        assert lineage(events, "files_from_the_wild.customers") == [([f"file:{tmp_path}/customers.csv"], [table])]
        assert examples.hook.get_first(query) == (customers, 12, 92, 3.75, 999_997)
        found = [(4322, "id", "22P02"), (77_778, "amount", "22000"), (500_001, "id", "23505")]
        assert examples.hook.get_records(rejects) == found
    assert [load["rejected"] for load in examples.results("files_from_the_wild", "payments")] == [3, 3]


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
            # Every example there can run: these need another database, or dbt.
            there = {path.stem for path in (REPOSITORY / ".demo" / "dags").iterdir()}
            assert "flights_etl" in there and not there & {"database_to_lakebase", "dbt_flights"}
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
    assert task_states(tmp_path) == [("success", 1)]
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        (reschedules,) = database.execute("SELECT count(*) FROM task_reschedule").fetchone()
    assert reschedules >= 1
