"""The example DAGs that load and export run green on Airflow and the emulator, again and again, and leak no secret."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

import pytest
from _environment import REPOSITORY
from _examples import Examples, leaks, task_states
from _openlineage import lineage

FOLDER = REPOSITORY / "dags_examples"
# What Airflow is to ignore needs Dagster, or Cosmos and dbt: tests/dagster and tests/dbt run it.
ELSEWHERE = (FOLDER / ".airflowignore").read_text().split()
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py") if path.name not in ELSEWHERE)


def test_the_search_for_secrets_finds_one(tmp_path: Path):
    secret = "dose" + "0123456789abcdef" * 4
    (tmp_path / "log").write_text(f"x{secret[5:29]}x")
    assert leaks(tmp_path, [secret]) == [str(tmp_path / "log")]


@pytest.mark.long
def test_flights_etl_runs_twice_with_the_same_counts(examples: Examples):
    examples.emulator.suspend()
    before = len(examples.emulator.secrets)
    query = """
        SELECT (SELECT count(*) FROM nycflights.flights), (SELECT count(*) FROM nycflights.weather),
               (SELECT count(*) FROM nycflights.planes), (SELECT count(*) FROM nycflights.airports),
               (SELECT count(*) FROM nycflights.airlines), count(*), sum(flights), sum(late)
        FROM nycflights.delays
    """
    tables = ["airlines", "flights", "weather"]
    read = [f"databricks_postgres.nycflights.{table}" for table in tables]
    delays = "databricks_postgres.nycflights.delays"
    counts = []
    for _ in range(2):
        events = examples.run("flights_etl")
        counts.append(examples.hook.get_first(query))
        assert lineage(events, "flights_etl.transform") == [(read, [delays])]
        assert lineage(events, "flights_etl.report") == [([delays], [])]
    assert counts[0] == counts[1]
    assert counts[0][:5] == (336_776, 26_115, 3_322, 1_458, 16)
    assert counts[0][6] == 336_776
    assert task_states(examples.home, "flights_etl") == [("success", 24)]
    assert len(examples.emulator.secrets) - before > 20


@pytest.mark.long
def test_dbt_flights_runs_twice_with_the_same_counts(examples: Examples, tmp_path: Path):
    dbt = runpy.run_path(str(REPOSITORY / "scripts" / "_environment.py"))["prepare_dbt"]().with_name("dbt")
    project = REPOSITORY / "dags_examples" / "dbt_flights"
    before = sorted(project.rglob("*"))
    emulator, executable = examples.emulator, {"AIRFLOW_VAR_DBT_EXECUTABLE": str(dbt)}
    kept = {"DBT_LOG_PATH": str(tmp_path / "dbt"), "DBT_TARGET_PATH": str(tmp_path / "dbt")}
    requests, logins = len(emulator.requests), len(emulator.logins)
    query = """
        SELECT (SELECT count(*) FROM dbt_flights.flights), (SELECT count(*) FROM dbt_flights.stg_flights),
               (SELECT count(*) FROM dbt_flights.delays_by_hour), count(*), sum(flights), sum(late)
        FROM dbt_flights.delays_by_airline
    """
    counts = []
    for variables in (executable, executable | kept):
        examples.run_with(variables, "dbt_flights")
        assert "Done. PASS=5 WARN=0 ERROR=0" in examples.log()
        counts.append(examples.hook.get_first(query))
    assert counts[0] == counts[1]
    assert counts[0][:5] == (61, 61, 5, 8, 61)
    assert task_states(examples.home, "dbt_flights") == [("success", 12)]
    assert {path.name for path in (tmp_path / "dbt").iterdir()} >= {"dbt.log", "manifest.json", "run_results.json"}
    assert leaks(tmp_path, emulator.secrets) == []
    credentials = [each for each in emulator.requests[requests:] if each.path.endswith("/credentials")]
    assert len(emulator.logins) - logins > len(credentials)  # the threads of dbt share one
    assert sorted(project.rglob("*")) == before


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_parquet_export_runs_twice_and_the_file_holds_all_rows(examples: Examples, tmp_path: Path):
    for _ in range(2):
        events = examples.run("parquet_export", folder=str(tmp_path))
        [(read, [written])] = lineage(events, "parquet_export.export")
        assert read == ["databricks_postgres.parquet_export.weather"]
        assert written.startswith(f"file:{tmp_path}/weather-")
    assert examples.results("parquet_export", "count_rows") == [26_115, 26_115]
    assert examples.hook.get_first("SELECT count(*) FROM parquet_export.weather") == (26_115,)
    assert all(re.fullmatch(r"weather-\d{4}-\d\d-\d\d\.parquet", name) for name in os.listdir(tmp_path))


@pytest.mark.long
def test_embeddings_runs_twice_and_finds_the_nearest(examples: Examples):
    for _ in range(2):
        examples.run("embeddings")
        assert examples.hook.get_first("SELECT count(*) FROM embeddings.airports") == (1458,)
    nearest = examples.results("embeddings", "find_nearest")
    assert [found[:2] for found in nearest] == [["Chicago Ohare Intl", "Chicago Midway Intl"]] * 2
    index = "SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE relname = 'airports_embedding'"
    assert examples.hook.get_first(index) == ("hnsw",)


@pytest.mark.long
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
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_example_*.py"))
    assert EXAMPLES
    assert all(f"def test_{name}_runs" in source for name in EXAMPLES)
