"""dbt's adapter opens each session with a new credential, waits for a wake, and explains what waiting does not cure."""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
import yaml
from dbt.adapters.contracts.connection import Connection
from dbt.adapters.exceptions import FailedToConnectError
from dbt_common.dataclass_schema import ValidationError
from dbt_common.exceptions import DbtDatabaseError, DbtRuntimeError

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.emulator.environment import variables
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


def test_dbt_tells_which_endpoint_lost_the_session_and_how_to_go_on(
    emulator: LakebaseEmulator, profile: dict[str, Any]
):
    target = SimpleNamespace(credentials=LakebaseCredentials.from_dict(profile))
    sessions = LakebaseConnectionManager(target, multiprocessing.get_context("spawn"))  # type: ignore[arg-type]
    sessions.set_connection_name("model.shop.orders")
    with pytest.raises(DbtDatabaseError, match="(?s)^Database Error\n  relation.*does not exist"):
        sessions.add_query("SELECT * FROM nowhere")
    emulator.suspend()
    for _ in range(2):
        with pytest.raises(DbtDatabaseError, match=f"(?s)session was lost.*{emulator.endpoint}.*`dbt retry`"):
            sessions.add_query("SELECT 1", auto_begin=False)
    sessions.release()
    sessions.set_connection_name("model.shop.customers")
    assert sessions.add_query("SELECT 1")[1].fetchone() == (1,)
    sessions.cleanup_all()


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


def documented(target: str) -> dict[str, Any]:
    page = (Path(__file__).parents[2] / "docs" / "dbt.md").read_text()
    return yaml.safe_load(page.split("```text\n")[1].split("```")[0])["shop"]["outputs"][target]


def test_the_documented_profile_opens_sessions_on_the_emulator(emulator: LakebaseEmulator):
    names = variables(emulator, {})
    names["DBT_ENV_SECRET_CLIENT_SECRET"] = names["DATABRICKS_CLIENT_SECRET"]
    target = {
        name: re.sub(r"\{\{ env_var\('(\w+)'\) \}\}", lambda found: names[found[1]], str(text))
        for name, text in documented("emulator").items()
        if name not in ("type", "threads")
    }
    assert value(opened(target), "SELECT 1") == 1


def test_the_documented_profile_is_one(profile: dict[str, Any]):
    target = documented("production")
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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"client_secret": 987654321}, "Field 'client_secret' holds a int. Give a text: put the value in quotes."),
        ({"role": ["a"]}, "Field 'role' holds a list. Give a text"),
        ({"databricks": "dapi-s3cret"}, "Field 'databricks' holds a str. Write the fields"),
        ({"autocommit": "yes"}, "Field 'autocommit' holds a str. Give true or false."),
        ({"port": 5432.5}, "Field 'port' holds a float. Give a whole number"),
        ({"schema": None}, "Field 'schema' is missing"),
        ({"database": ""}, "Field 'database' is missing"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_and_not_shown(
    profile: dict[str, Any], wrong: dict[str, Any], message: str, leaks: Callable[..., list[str]]
):
    fields = {**profile, **wrong}
    with pytest.raises(ValidationError) as raised:
        LakebaseCredentials.validate(fields)
    assert message in raised.value.message
    shown = "".join(traceback.format_exception(raised.value))
    assert leaks(shown.encode(), ["987654321", "dapi-s3cret", profile["client_secret"]]) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"port": "abc"}, "Field 'port' is 'abc'. Give a whole number from 1 to 65535"),
        ({"endpoint": None}, "Field 'endpoint' is missing. Name it, as projects/"),
        ({"client_secret": None}, "Field 'client_secret' is missing"),
        ({"databricks_conn_id": "lake"}, "'databricks_conn_id' is unknown. Write .* below 'databricks'"),
        ({"placeholder": "?"}, "Field 'placeholder' is unknown. Remove it"),
        ({"serach_path": "a"}, "Field 'serach_path' is unknown. Did you mean 'search_path'"),
        ({"sslmod": "require"}, "Field 'sslmod' is unknown. Did you mean 'sslmode'"),
        ({"pass": "s3cret"}, "Field 'pass' is unknown. Use 'client_secret'"),
        ({"password": "s3cret"}, "Field 'password' is not for the profile. Use the field client_secret"),
        ({"retries": 2}, "Field 'retries' is unknown. Use 'wake_timeout'"),
        ({"databricks": {}}, "Field 'databricks.host' is missing"),
        ({"databricks": {"host": "ftp://w"}}, "Field 'databricks.host' is not an https address"),
        ({"databricks": {"host": "https://w", "tokn": "x"}}, "Field 'databricks.tokn' is unknown.* token"),
        ({"databricks": {"host": "https://w", "token": 12}}, "Field 'databricks.token' holds a int. Give a text"),
        ({"databricks": {"host": "https://w", "token": "x"}}, "Field 'host' clashes with 'databricks'"),
        ({"databricks": {"host": "https://w"}}, "'databricks' holds no identity.* or give client_id and client_secret"),
    ],
)
def test_dbt_refuses_what_a_profile_cannot_hold_in_the_words_of_the_profile(
    profile: dict[str, Any], wrong: dict[str, Any], message: str
):
    fields = {**profile, **wrong}
    LakebaseCredentials.validate(fields)
    with pytest.raises(DbtRuntimeError, match=message) as raised:
        LakebaseCredentials.from_dict(fields)
    assert "connection '" not in str(raised.value)


def test_dbt_debug_shows_the_endpoint_and_no_secret(
    emulator: LakebaseEmulator, profile: dict[str, Any], leaks: Callable[..., list[str]]
):
    shown = dict(LakebaseCredentials.from_dict(profile | {"sslpassword": "hunter2"}).connection_info())
    assert (shown["endpoint"], shown["host"]) == (emulator.endpoint, profile["host"])
    assert leaks(str(shown).encode(), [*emulator.secrets, "hunter2"]) == []


def test_a_role_that_cannot_be_set_is_named_and_leaves_no_session(emulator: LakebaseEmulator, profile: dict[str, Any]):
    count = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{profile['client_id']}'"
    admin = LakebaseHook("lakebase_admin")
    before = admin.get_first(count)
    with pytest.raises(FailedToConnectError, match="Field 'role' is 'nosuch'.*does not exist.*endpoint.*Correct it"):
        opened(profile | {"role": "nosuch"})
    with pytest.raises(FailedToConnectError, match="Field 'role' is 'a b'.*syntax error"):
        opened(profile | {"role": "a b"})
    assert admin.get_first(count) == before


def test_keepalives_of_0_are_the_systems_own(profile: dict[str, Any]):
    zeros = {"keepalives_idle": 0, "keepalives_interval": "0", "keepalives_count": 0}
    assert value(opened(profile | zeros), "SELECT 1") == 1


def test_dbt_loads_no_airflow():
    program = "import dbt.adapters.lakebase, sys; print('airflow' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "False"
