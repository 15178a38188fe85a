"""From a connection to a session: credentials, waking, refusals, an environment that must not leak in."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databricks.sdk.config import Config

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.core.session.connections import LakebaseSession
from airflow_provider_lakebase.core.workspace import client
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal
from airflow_provider_lakebase.exceptions import (
    LakebaseAuthenticationError,
    LakebaseEndpointDisabledError,
    LakebaseError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceUnreachableError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

CREDENTIALS = ("POST", "/api/2.0/postgres/credentials")
TOKEN = ("POST", "/oidc/v1/token")


@pytest.fixture
def newcomer(emulator: LakebaseEmulator, admin: LakebaseHook) -> Principal:
    """A service principal that this process has not yet signed in, with a role."""
    principal = emulator.add_principal("newcomer")
    admin.bootstrap_role(RoleRequest(principal.client_id))
    return principal


def changed(emulator: LakebaseEmulator, **changes: Any) -> str:
    """Return the default connection with changed fields; those of ``extra`` are added to it."""
    fields = json.loads(emulator.connections["lakebase_default"])
    extra = {**fields["extra"], **changes.pop("extra", {})}
    return json.dumps({**fields, **changes, "extra": extra})


@pytest.fixture
def hook_for(monkeypatch: pytest.MonkeyPatch, emulator: LakebaseEmulator) -> Callable[..., LakebaseHook]:
    """Return a function that gives a hook on the default connection with changed fields."""

    def hook_for(**changes: Any) -> LakebaseHook:
        monkeypatch.setenv("AIRFLOW_CONN_CHANGED", changed(emulator, **changes))
        return LakebaseHook("changed")

    return hook_for


def requests_of(emulator: LakebaseEmulator, principal: Principal) -> Counter[tuple[str, str]]:
    return Counter((each.method, each.path) for each in emulator.requests if each.principal == principal.client_id)


def test_each_session_has_a_credential_of_its_own_and_the_process_signs_in_once(
    emulator: LakebaseEmulator, newcomer: Principal, connect_as: Callable[..., str]
):
    hook = LakebaseHook(connect_as(newcomer))
    for _ in range(5):
        hook.get_conn().close()
    requests = requests_of(emulator, newcomer)
    assert requests[CREDENTIALS] == 5
    assert requests[TOKEN] == 1


ENDPOINT = ("GET", "/api/2.0/postgres/projects/demo/branches/production/endpoints/primary")
ENDPOINTS = ("GET", "/api/2.0/postgres/projects/demo/branches/production/endpoints")
PROJECT = ("GET", "/api/2.0/postgres/projects/demo")
BRANCH = ("GET", "/api/2.0/postgres/projects/demo/branches/production")
ME = ("GET", "/api/2.0/preview/scim/v2/Me")
DISCOVERY = ("GET", "/.well-known/databricks-config")
TOKEN_ENDPOINT = ("GET", "/oidc/.well-known/oauth-authorization-server")
SESSION = """
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
assert LakebaseHook("fresh").get_first("SELECT 1") == (1,)
"""
TASK = """
from types import SimpleNamespace
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
ti = SimpleNamespace(task=SimpleNamespace(), xcom_push=lambda **pushed: None)
assert LakebaseSQLOperator(task_id="t", sql="SELECT 1", lakebase_conn_id="fresh").execute({"ti": ti}) == [(1,)]
"""


def requests_of_a_process(emulator: LakebaseEmulator, program: str, connection: str) -> list[tuple[str, str]]:
    """Return the requests that a fresh process sends."""
    start = len(emulator.requests)
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "AIRFLOW_CONN_FRESH": connection}, check=True)
    return [(each.method, each.path) for each in emulator.requests[start:]]


@pytest.mark.parametrize(
    ("extra", "needed"),
    [
        ({}, [CREDENTIALS, ENDPOINT, TOKEN]),
        ({"pg_host": "localhost", "hostaddr": "127.0.0.1"}, [CREDENTIALS, TOKEN]),
        # The credential is for an endpoint, which has to be found first.
        ({"endpoint": "projects/demo/branches/production"}, [CREDENTIALS, ENDPOINTS, TOKEN]),
    ],
    ids=["host looked up", "host given", "branch"],
)
def test_a_fresh_process_asks_for_a_token_a_credential_and_the_host(
    emulator: LakebaseEmulator, extra: dict[str, str], needed: list[tuple[str, str]]
):
    asked = requests_of_a_process(emulator, SESSION, changed(emulator, extra=extra))
    assert sorted(asked, reverse=True) == sorted(needed, reverse=True)
    assert asked[0] == TOKEN


def test_a_process_that_runs_sql_loads_nothing_that_sql_does_not_use(emulator: LakebaseEmulator):
    unused = "pandas polars pyarrow pgpq psycopg_pool google.protobuf cryptography.x509 databricks.sdk.service.postgres"
    program = f"""
import sys
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
connection = LakebaseHook("fresh").get_conn()
assert connection.execute("SELECT 1").fetchone() == (1,)
connection.close()
assert [name for name in {unused.split()} if name in sys.modules] == []
bulk = [name for name in sys.modules if name.startswith("airflow_provider_lakebase.core.bulk.")]
assert [name for name in bulk if not name.endswith(("options", "formats", "option_signature"))] == [], bulk
"""
    requests_of_a_process(emulator, program, changed(emulator))


def test_a_task_asks_for_its_links_besides(emulator: LakebaseEmulator):
    asked = requests_of_a_process(emulator, TASK, changed(emulator))
    assert sorted(asked[:3]) == sorted([CREDENTIALS, ENDPOINT, TOKEN])
    assert sorted(asked[3:]) == sorted([PROJECT, BRANCH])


def test_a_personal_access_token_needs_no_other_and_the_name_of_its_user(
    emulator: LakebaseEmulator, admin: LakebaseHook, monkeypatch: pytest.MonkeyPatch
):
    person = emulator.add_principal(f"eve{len(emulator.secrets)}@example.com", identity_type="USER")
    admin.bootstrap_role(RoleRequest(person.display_name, "USER"))
    token = emulator.issue_personal_access_token(person)
    fields = {"conn_type": "databricks", "host": emulator.workspace_url, "password": token}
    monkeypatch.setenv("AIRFLOW_CONN_LENDER", json.dumps(fields))
    extra = {"databricks_conn_id": "lender", "endpoint": emulator.endpoint}
    borrower = json.dumps({"conn_type": "lakebase", "port": emulator.port, "extra": extra})
    assert sorted(requests_of_a_process(emulator, SESSION, borrower)) == sorted([ME, CREDENTIALS, ENDPOINT])


def test_the_credential_is_minted_while_the_host_is_looked_up(
    emulator: LakebaseEmulator, newcomer: Principal, connect_as: Callable[..., str]
):
    emulator.faults.delay("/endpoints/primary", 1)
    LakebaseHook(connect_as(newcomer)).get_conn().close()
    # The emulator notes a request when it answers.
    asked = list(requests_of(emulator, newcomer))
    assert asked.index(CREDENTIALS) < asked.index(ENDPOINT)


@pytest.mark.parametrize("status", [404, 405, 503])
def test_a_host_that_issues_no_token_where_a_workspace_does_is_asked_where_it_does(
    emulator: LakebaseEmulator, newcomer: Principal, connect_as: Callable[..., str], status: int
):
    emulator.faults.answer("/oidc/v1/token", status=status)
    start = len(emulator.requests)
    LakebaseHook(connect_as(newcomer)).get_conn().close()
    asked = [(each.method, each.path) for each in emulator.requests[start:]]
    assert asked[:4] == [TOKEN, DISCOVERY, TOKEN_ENDPOINT, TOKEN]


@pytest.mark.parametrize("path", ["/endpoints/primary", "/credentials"])
def test_a_token_that_the_workspace_does_not_accept_is_asked_for_by_discovery(
    emulator: LakebaseEmulator, newcomer: Principal, connect_as: Callable[..., str], path: str
):
    emulator.faults.answer(path, status=401, message="Invalid access token.")
    start = len(emulator.requests)
    LakebaseHook(connect_as(newcomer)).get_conn().close()
    asked = [(each.method, each.path) for each in emulator.requests[start:]]
    assert DISCOVERY in asked and asked.count(TOKEN) == 2


def test_a_secret_that_is_refused_is_refused_to_one_of_the_requests(
    emulator: LakebaseEmulator, hook_for: Callable[..., LakebaseHook]
):
    """Not again to the one that would have run beside it."""
    start = len(emulator.requests)
    with pytest.raises(LakebaseWorkspaceAccessError, match="invalid_client"):
        hook_for(password="dose" + "1" * 32).get_conn()
    asked = [(each.method, each.path) for each in emulator.requests[start:]]
    assert asked == [TOKEN, DISCOVERY, TOKEN_ENDPOINT, TOKEN]


def test_fifty_threads_at_once_sign_in_once(
    emulator: LakebaseEmulator, newcomer: Principal, connect_as: Callable[..., str]
):
    conn_id, seen = connect_as(newcomer), []
    threads = [
        threading.Thread(target=lambda: seen.append(LakebaseHook(conn_id).get_first("SELECT 1"))) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(1,)] * 50
    assert requests_of(emulator, newcomer)[CREDENTIALS] == 50
    assert requests_of(emulator, newcomer)[TOKEN] == 1


def variables() -> list[str]:
    """Return every variable that databricks-sdk or libpq reads, as far as they say so themselves."""
    sdk = {name for field in Config.attributes() for name in (field.env, *field.env_aliases) if name}
    libpq = {option.envvar.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar}
    others = {
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "PGPASSFILE",
    }
    return sorted((sdk | libpq | others) - {"PGSERVICE"})


@pytest.mark.parametrize("variable", variables())
def test_garbage_in_a_variable_changes_nothing(
    emulator: LakebaseEmulator, connect_as: Callable[..., str], monkeypatch: pytest.MonkeyPatch, variable: str
):
    principal = emulator.administrator
    # A sign-in of its own: the client is made with the variable set.
    client.PROCESS_CLIENTS.forget_all()
    monkeypatch.setenv(variable, "https://garbage.example")
    hook = LakebaseHook(connect_as(principal))
    assert hook.get_first("SELECT current_user, current_database()") == (principal.client_id, "databricks_postgres")


def test_garbage_in_files_changes_nothing(
    emulator: LakebaseEmulator, connect_as: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / ".databrickscfg").write_text("[DEFAULT]\nhost = https://garbage.example\ntoken = dapi-garbage\n")
    (tmp_path / ".pgpass").write_text("*:*:*:*:garbage\n")
    (tmp_path / ".pgpass").chmod(0o600)
    (tmp_path / ".pg_service.conf").write_text("[garbage]\nhost=garbage.example\n")
    (tmp_path / ".postgresql").mkdir()
    for name in ("root.crt", "root.crl", "postgresql.crt", "postgresql.key"):
        (tmp_path / ".postgresql" / name).write_text("garbage")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login garbage password garbage\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    client.PROCESS_CLIENTS.forget_all()
    hook = LakebaseHook(connect_as(emulator.administrator))
    assert hook.get_first("SELECT current_user") == (emulator.administrator.client_id,)


@pytest.mark.parametrize("variable", ["PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO"])
def test_what_cannot_be_shut_out_is_refused_with_a_sentence(
    hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, "garbage")
    with pytest.raises(LakebaseSettingsError, match=f"{variable} is set.*Unset {variable}"):
        hook.get_conn()


def test_requests_tell_the_provider_and_airflow(hook: LakebaseHook):
    seen: list[str] = []
    workspace = client.Workspace.of(hook.settings)
    workspace.call(lambda sdk: seen.append(sdk.config.user_agent), timeout=10)
    assert seen[0].startswith("airflow-provider-lakebase/")
    assert re.search(r" airflow/[23]\.\d+\.\d+", seen[0])


def test_a_fork_signs_in_by_itself(emulator: LakebaseEmulator, newcomer: Principal, connect_as: Callable[..., str]):
    hook = LakebaseHook(connect_as(newcomer))
    hook.get_first("SELECT 1")
    child = os.fork()
    if child == 0:
        os._exit(0 if hook.get_first("SELECT 2") == (2,) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert requests_of(emulator, newcomer)[TOKEN] == 2


def test_a_sleeping_endpoint_is_woken(hook: LakebaseHook, emulator: LakebaseEmulator):
    emulator.wake_seconds = 1.0
    emulator.suspend()
    started_at = time.monotonic()
    assert hook.get_first("SELECT 1") == (1,)
    assert 1.0 <= time.monotonic() - started_at < 10
    assert emulator.state == "ACTIVE"


def test_an_endpoint_that_does_not_wake_in_time_is_told_apart(
    emulator: LakebaseEmulator, hook_for: Callable[..., LakebaseHook]
):
    emulator.wake_seconds = 30
    emulator.suspend()
    started_at = time.monotonic()
    with pytest.raises(LakebaseWakeTimeoutError, match="No session within 2 s.*timeout expired.*connection 'changed'"):
        hook_for(extra={"wake_timeout": 2}).get_conn()
    assert 2 <= time.monotonic() - started_at < emulator.wake_seconds


def test_a_port_where_nobody_listens_is_tried_until_the_deadline(
    hook_for: Callable[..., LakebaseHook], task_log: Callable[[], str]
):
    started_at = time.monotonic()
    with (
        pytest.raises(LakebaseWakeTimeoutError, match="No session within 4 s.*Connection refused.*port"),
    ):
        hook_for(port=1, extra={"wake_timeout": 4}).get_conn()
    assert time.monotonic() - started_at < 10
    assert "Waiting for endpoint projects/demo/branches/production/endpoints/primary" in task_log()


def test_a_disabled_endpoint_fails_at_once(hook: LakebaseHook, emulator: LakebaseEmulator):
    emulator.disable()
    started_at = time.monotonic()
    with pytest.raises(LakebaseEndpointDisabledError, match="disabled.*Enable the endpoint"):
        hook.get_conn()
    assert time.monotonic() - started_at < 60  # of the 120 seconds of wake_timeout


def test_an_expired_credential_matters_to_new_sessions_only(hook: LakebaseHook, emulator: LakebaseEmulator):
    connection = hook.get_conn()
    emulator.expire_credentials()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()
    assert hook.get_first("SELECT 2") == (2,)


def test_a_suspend_cuts_the_session_and_the_next_one_is_fine(hook: LakebaseHook, emulator: LakebaseEmulator):
    connection = hook.get_conn()
    emulator.suspend()
    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        connection.execute("SELECT 1")
    connection.close()
    assert hook.get_first("SELECT 2") == (2,)


def test_verify_full_accepts_the_right_authority_and_no_other(
    emulator: LakebaseEmulator, hook_for: Callable[..., LakebaseHook]
):
    right = hook_for(extra={"sslmode": "verify-full", "sslrootcert": str(emulator.ca_file)})
    assert right.get_first("SELECT 1") == (1,)
    with pytest.raises(LakebaseSettingsError, match="certificate was not accepted.*sslrootcert"):
        hook_for(extra={"sslmode": "verify-full"}).get_conn()


def test_a_credential_lives_as_long_as_the_connection_says(
    emulator: LakebaseEmulator, hook_for: Callable[..., LakebaseHook]
):
    assert hook_for(extra={"credential_ttl": 300}).get_first("SELECT 1") == (1,)


REFUSALS: list[tuple[str, dict[str, Any], type[LakebaseError], str]] = [
    ("wrong secret", {"password": "dose" + "f" * 32}, LakebaseWorkspaceAccessError, "refused the client ID and secret"),
    ("wrong client", {"login": "nobody"}, LakebaseWorkspaceAccessError, "refused the client ID and secret"),
    (
        "missing project",
        {"extra": {"endpoint": "projects/none/branches/b/endpoints/e"}},
        LakebaseResourceNotFoundError,
        "project id not found",
    ),
    (
        "missing endpoint",
        {"extra": {"endpoint": "projects/demo/branches/production/endpoints/none"}},
        LakebaseResourceNotFoundError,
        "endpoint id not found",
    ),
    ("wrong role", {"extra": {"user": "someone_else"}}, LakebaseAuthenticationError, "User is not authorized"),
    ("missing database", {"schema": "nowhere"}, LakebaseSettingsError, "The database does not exist"),
    ("pooled host", {"extra": {"pg_host": "ep-x-pooler.example"}}, LakebaseSettingsError, "pooled host"),
    ("plaintext", {"extra": {"sslmode": "disable"}}, LakebaseSettingsError, "'sslmode' is 'disable'"),
    (
        "dead workspace",
        {"host": "http://127.0.0.1:1", "extra": {"wake_timeout": 3}},
        LakebaseWorkspaceUnreachableError,
        "Connection refused",
    ),
]


@pytest.mark.parametrize(
    ("host", "words"), [("http://127.0.0.1:1", "Connection refused"), ("https://no-such-host.invalid", "not known")]
)
def test_a_workspace_that_cannot_be_reached_is_told_at_once_and_not_waited_for_to_the_end(
    hook_for: Callable[..., LakebaseHook], caplog: pytest.LogCaptureFixture, host: str, words: str
):
    started_at = time.monotonic()
    with caplog.at_level(logging.INFO), pytest.raises(LakebaseWorkspaceUnreachableError, match=words):
        hook_for(host=host).get_conn()
    assert time.monotonic() - started_at < 60  # of the 120 seconds of wake_timeout
    waits = [line for line in caplog.messages if line.startswith("Waiting for endpoint")]
    assert words in waits[0] or "is not resolved" in waits[0]
    assert len(waits) <= 4


def test_resolving_a_name_is_bounded_by_the_wait(
    hook_for: Callable[..., LakebaseHook], monkeypatch: pytest.MonkeyPatch
):
    resolve = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host == "ep-slow.example":
            time.sleep(60)
            raise socket.gaierror("no answer")
        return resolve(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    started_at = time.monotonic()
    with pytest.raises(LakebaseWakeTimeoutError, match="could not translate host name"):
        hook_for(extra={"wake_timeout": 3, "pg_host": "ep-slow.example"}).get_conn()
    assert time.monotonic() - started_at < 30


def test_all_addresses_together_get_no_more_than_the_wait(
    hook_for: Callable[..., LakebaseHook], monkeypatch: pytest.MonkeyPatch
):
    """Of a host with many silent addresses, as many are tried as two seconds each leave time for."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{n}", 0)) for n in range(1, 30)]
    resolve = socket.getaddrinfo

    def many(host: Any, *arguments: Any, **keywords: Any) -> Any:
        return answers if host == "ep-many.example" else resolve(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", many)
    tried: list[dict[str, Any]] = []

    def refuse(**arguments: Any) -> Any:
        tried.append(arguments)
        raise psycopg.OperationalError("connection timeout expired")

    monkeypatch.setattr(LakebaseSession, "connect", staticmethod(refuse))
    with pytest.raises(LakebaseWakeTimeoutError):
        hook_for(extra={"wake_timeout": 6, "pg_host": "ep-many.example"}).get_conn()
    addresses = tried[0]["hostaddr"].split(",")
    assert len(addresses) * tried[0]["connect_timeout"] <= 6
    assert tried[0]["host"].split(",") == ["ep-many.example"] * len(addresses)


@pytest.mark.parametrize(
    ("changes", "error", "words"), [each[1:] for each in REFUSALS], ids=[each[0] for each in REFUSALS]
)
def test_a_refusal_is_typed_and_names_connection_and_remedy(
    emulator: LakebaseEmulator, hook_for: Callable[..., LakebaseHook], changes: dict[str, Any], error: Any, words: str
):
    hook = hook_for(**changes)
    with pytest.raises(LakebaseError) as refused:
        hook.get_conn()
    assert type(refused.value) is error
    message = str(refused.value)
    assert words in message
    assert "connection 'changed'" in message
    assert message.endswith(".")
    assert not any(secret in message for secret in emulator.secrets)


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        ({"workspace_access": False}, "no workspace access.*Grant"),
        ({"can_use_project": False}, "no permission on the Lakebase project.*Can Use"),
    ],
)
def test_an_identity_without_permission_is_told_which(
    emulator: LakebaseEmulator, connect_as: Callable[..., str], lacks: dict[str, bool], words: str
):
    hook = LakebaseHook(connect_as(emulator.add_principal("outsider", **lacks)))
    with pytest.raises(LakebaseWorkspaceAccessError, match=words):
        hook.get_conn()


def test_an_identity_without_a_role_is_told_how_to_get_one(emulator: LakebaseEmulator, connect_as: Callable[..., str]):
    hook = LakebaseHook(connect_as(emulator.add_principal("no role")))
    with pytest.raises(LakebaseAuthenticationError, match="The Postgres role does not exist.*role bootstrap"):
        hook.get_conn()


def test_a_plain_role_cannot_log_in(emulator: LakebaseEmulator, admin: LakebaseHook, connect_as: Callable[..., str]):
    principal = emulator.add_principal("plain role")
    admin.run(f'CREATE ROLE "{principal.client_id}" LOGIN')
    with pytest.raises(LakebaseAuthenticationError, match="a role without Databricks identity"):
        LakebaseHook(connect_as(principal)).get_conn()


def test_the_same_connection_from_json_a_uri_and_a_secrets_backend(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from airflow.models import Connection

    fields = json.loads(emulator.connections["lakebase_default"])
    from_json = LakebaseHook()
    uri = Connection(
        conn_id="x",
        conn_type="lakebase",
        **{name: fields[name] for name in ("host", "login", "password", "schema", "port")},
        extra=json.dumps(fields["extra"]),
    ).get_uri()
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", uri)
    from_uri = LakebaseHook()
    assert from_uri.settings == from_json.settings
    monkeypatch.delenv("AIRFLOW_CONN_LAKEBASE_DEFAULT")
    file = tmp_path / "connections.json"
    file.write_text(json.dumps({"lakebase_default": fields}))
    from airflow.secrets.local_filesystem import LocalFilesystemBackend

    connection = LocalFilesystemBackend(connections_file_path=str(file)).get_connection("lakebase_default")
    from_file = LakebaseHook(connection=connection)
    assert from_file.settings == from_json.settings
    assert from_file.get_first("SELECT 1") == (1,)
