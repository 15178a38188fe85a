"""The example validates, and leaves the same rows however often its assets are materialized."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from airflow_provider_lakebase.dagster import LakebaseResource
from airflow_provider_lakebase.emulator import LakebaseEmulator

EXAMPLE = Path(__file__).parents[2] / "dags_examples" / "dagster_flights.py"
# What `lakebase-emulator -- …` gives to a program.
VARIABLES = ("DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "LAKEBASE_ENDPOINT", "PGPORT")


@pytest.fixture
def environment(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    principal = emulator.service_principal
    values = (
        emulator.workspace_url,
        principal.client_id,
        principal.client_secret,
        emulator.endpoint,
        str(emulator.port),
    )
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")
    return dict(os.environ)


def test_the_example_validates_and_runs_twice(environment: dict[str, str], lakebase: LakebaseResource):
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-f", str(EXAMPLE)]
    validated = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert validated.returncode == 0, validated.stdout + validated.stderr
    example = runpy.run_path(str(EXAMPLE))
    definitions: dg.Definitions = example["defs"]
    assets = [*definitions.assets, *definitions.asset_checks]
    for day in ("2013-01-01", "2013-01-02", "2013-01-01"):
        result = dg.materialize(assets, partition_key=day, resources=definitions.resources)
        (check,) = result.get_asset_check_evaluations()
        assert check.passed
    with lakebase.get_connection() as session:
        loaded = "SELECT (SELECT count(*) FROM nyc.airlines), (SELECT count(*) FROM nyc.flights)"
        assert session.execute(loaded).fetchone() == (16, 842 + 943)
        assert session.execute("SELECT sum(flights), sum(late) > 100 FROM nyc.delays").fetchone() == (842 + 943, True)
        session.execute("DROP SCHEMA nyc CASCADE")
