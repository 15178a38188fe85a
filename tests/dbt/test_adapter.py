"""dbt's adapter opens each session with a new credential, waits for a wake, and explains what waiting does not cure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from dbt.adapters.contracts.connection import Connection
from dbt.adapters.exceptions import FailedToConnectError
from dbt_common.exceptions import DbtRuntimeError

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from dbt.adapters.lakebase import LakebaseConnectionManager, LakebaseCredentials


@pytest.fixture
def profile(emulator: LakebaseEmulator) -> dict[str, Any]:
    connection = json.loads(emulator.connections["lakebase_default"])
    return {
        "host": connection["host"],
        "endpoint": emulator.endpoint,
        "client_id": connection["login"],
        "client_secret": connection["password"],
        "port": connection["port"],
        "database": "databricks_postgres",
        "schema": "marts",
    }


def opened(fields: dict[str, Any]) -> Any:
    """Open a session, and return psycopg2's connection."""
    LakebaseCredentials.validate(fields)
    connection = Connection("lakebase", "model", LakebaseCredentials.from_dict(fields))
    return LakebaseConnectionManager.open(connection).handle


def value(session: Any, query: str) -> Any:
    with session.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def minted(emulator: LakebaseEmulator) -> int:
    return sum(each.path.endswith("/credentials") for each in emulator.requests)


def test_each_session_has_a_credential_of_its_own_and_a_sleeping_endpoint_is_woken(
    emulator: LakebaseEmulator, profile: dict[str, Any]
):
    before = minted(emulator)
    for _ in range(2):
        emulator.suspend()
        emulator.expire_credentials()
        session = opened(profile)
        assert value(session, "SELECT 1") == 1
        session.close()
    assert minted(emulator) == before + 2


def test_a_suspend_ends_the_statement_and_the_next_session_wakes_the_endpoint(
    emulator: LakebaseEmulator, profile: dict[str, Any]
):
    session = opened(profile)
    assert value(session, "SELECT 1") == 1
    emulator.suspend()
    with pytest.raises(psycopg2.OperationalError):
        value(session, "SELECT 1")
    assert value(opened(profile), "SELECT 1") == 1


def test_role_search_path_and_name_of_a_session_are_the_profiles(emulator: LakebaseEmulator, profile: dict[str, Any]):
    LakebaseHook("lakebase_admin").run('CREATE SCHEMA IF NOT EXISTS "two words"')
    more = {"search_path": '"two words", public', "application_name": "nightly", "role": profile["client_id"]}
    session = opened(profile | {**more, "role": f'"{profile["client_id"]}"', "options": "-c statement_timeout=77s"})
    assert value(session, "SHOW search_path") == '"two words", public'
    assert value(session, "SHOW application_name") == "nightly"
    assert value(session, "SHOW statement_timeout") == "77s"
    assert value(session, "SELECT current_user") == profile["client_id"]
    assert session.autocommit is False


def test_what_waiting_does_not_cure_fails_at_once_with_a_hint(
    emulator: LakebaseEmulator, profile: dict[str, Any], leaks: Callable[..., list[str]]
):
    emulator.disable()
    with pytest.raises(FailedToConnectError, match="disabled") as raised:
        opened(profile)
    emulator.enable()
    assert leaks(repr(raised.value).encode(), emulator.secrets) == []


def test_the_documented_profile_is_one(profile: dict[str, Any]):
    page = (Path(__file__).parents[2] / "docs" / "dbt.md").read_text()
    target = yaml.safe_load(page.split("```text\n")[1].split("```")[0])["shop"]["outputs"]["production"]
    assert (target.pop("type"), target.pop("threads")) == ("lakebase", 4)
    LakebaseCredentials.validate(target)
    credentials = LakebaseCredentials.from_dict(target)
    # dbt copies it for each package of a project.
    assert deepcopy(credentials).settings == credentials.settings
    assert target.keys() == profile.keys() - {"port"}


def test_dbt_names_a_wrong_field_of_the_profile(profile: dict[str, Any]):
    with pytest.raises(DbtRuntimeError, match=r"Field 'wake_timeout' is 'soon'.*Give seconds"):
        LakebaseCredentials.from_dict(profile | {"wake_timeout": "soon"})
    with pytest.raises(DbtRuntimeError, match="Field 'endpont' is unknown.*Did you mean 'endpoint'"):
        LakebaseCredentials.from_dict({**profile, "endpont": profile["endpoint"], "endpoint": None})


def test_dbt_loads_no_airflow():
    program = "import dbt.adapters.lakebase, sys; print('airflow' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "False"
