"""Every fault of the table of causes, made to happen: what is retried, what is raised, and how long it takes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from airflow_provider_lakebase.core.errors.catalog_postgres import POSTGRES_RULES
from airflow_provider_lakebase.core.errors.catalog_workspace import WORKSPACE_RULES
from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import (
    LakebaseError,
    LakebaseResourceNotFoundError,
    LakebaseWakeTimeoutError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceError,
    in_words,
)
from airflow_provider_lakebase.hooks._words import AIRFLOW_WORDS
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.sensors.query import LakebaseQuerySensor

BUSY = "Couldn't connect to compute node"
CREDENTIALS = "/api/2.0/postgres/credentials"
TOKEN = "/oidc/v1/token"


@pytest.fixture
def patient(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LakebaseHook]]:
    """Return a function that gives a hook with a ``wake_timeout`` and other extras; no fault outlives the test."""

    def patient(wake_timeout: float = 30, **extra: Any) -> LakebaseHook:
        fields = json.loads(emulator.connections["lakebase_default"])
        fields["extra"] |= {"wake_timeout": wake_timeout, **extra}
        monkeypatch.setenv("AIRFLOW_CONN_PATIENT", json.dumps(fields))
        return LakebaseHook("patient")

    yield patient
    emulator.faults.clear()


def rows(*retries: Retry) -> list[Any]:
    return [pytest.param(rule, id=rule.example) for rule in POSTGRES_RULES if rule.retry in retries]


@pytest.mark.parametrize("rule", rows(Retry.NEVER, Retry.IF_WAKING))
def test_a_refused_login_is_raised_at_once(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], rule: ErrorRule
):
    attempts = len(emulator.logins)
    # A host that leads to no endpoint is looked up once more.
    expected = 2 if rule.error is LakebaseResourceNotFoundError else 1
    emulator.faults.refuse_logins(rule.example, times=expected)
    with pytest.raises(LakebaseError) as refused:
        patient().get_conn()
    assert type(refused.value) is rule.error
    assert rule.meaning in str(refused.value)
    assert rule.example in str(refused.value)
    assert str(refused.value).endswith(in_words(rule.hint, AIRFLOW_WORDS))
    assert len(emulator.logins) == attempts + expected


@pytest.mark.parametrize("rule", rows(Retry.WAKING, Retry.ROLE_PROPAGATING))
def test_what_passes_by_itself_is_tried_again(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], rule: ErrorRule
):
    emulator.faults.refuse_logins(rule.example, times=2)
    minted = sum(request.path == CREDENTIALS for request in emulator.requests)
    patient().get_conn().close()
    assert sum(request.path == CREDENTIALS for request in emulator.requests) == minted + 3


@pytest.mark.parametrize("rule", rows(Retry.IF_WAKING))
def test_a_login_refused_while_waking_is_tried_once_more(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], rule: ErrorRule
):
    emulator.faults.refuse_logins(BUSY)
    emulator.faults.refuse_logins(rule.example)
    patient().get_conn().close()
    emulator.faults.refuse_logins(BUSY)
    emulator.faults.refuse_logins(rule.example, times=2)
    with pytest.raises(rule.error):
        patient().get_conn()


@pytest.mark.parametrize("rule", rows(Retry.WAKING))
def test_what_does_not_pass_in_time_is_told(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], rule: ErrorRule
):
    emulator.faults.refuse_logins(rule.example, times=50)
    with pytest.raises(LakebaseWakeTimeoutError) as late:
        patient(0.5).get_conn()
    assert rule.example in str(late.value)
    assert in_words(rule.hint, AIRFLOW_WORDS) in str(late.value)


@pytest.mark.parametrize(
    "rule",
    [each for each in WORKSPACE_RULES if each.pattern and each.retry is Retry.NEVER],
    ids=lambda rule: rule.example,
)
def test_a_refusal_of_the_workspace_is_raised_at_once(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], rule: ErrorRule
):
    # What is gone is looked up once more.
    times = 2 if rule.error is LakebaseResourceNotFoundError else 1
    emulator.faults.answer(CREDENTIALS, status=400, error_code="BAD_REQUEST", message=rule.example, times=times)
    with pytest.raises(LakebaseError) as refused:
        patient().get_conn()
    assert type(refused.value) is rule.error
    assert rule.example in str(refused.value)
    assert str(refused.value).endswith(in_words(rule.hint, AIRFLOW_WORDS))


def test_a_workspace_that_does_not_answer_is_told_in_words(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], monkeypatch: pytest.MonkeyPatch
):
    emulator.faults.answer(CREDENTIALS, status=400, message="Invalid URL 'None': No scheme supplied", times=50)
    with pytest.raises(LakebaseWorkspaceError, match="The workspace does not answer.*Check Host"):
        patient(2).get_conn()


def test_a_host_that_cannot_be_reached_is_looked_up_once_more(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    """A branch reset moves the host."""
    hook = patient()
    hook.get_conn().close()
    lookups = sum(request.path.endswith("/endpoints/primary") for request in emulator.requests)
    emulator.faults.refuse_logins(BUSY, times=3)
    hook.get_conn().close()
    assert sum(request.path.endswith("/endpoints/primary") for request in emulator.requests) == lookups + 1


def test_a_host_that_leads_to_no_endpoint_is_looked_up_once_more(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    hook = patient()
    hook.get_conn().close()
    lookups = sum(request.path.endswith("/endpoints/primary") for request in emulator.requests)
    emulator.faults.refuse_logins("Control plane request failed: endpoint cannot be found")
    hook.get_conn().close()
    assert sum(request.path.endswith("/endpoints/primary") for request in emulator.requests) == lookups + 1


def test_a_sign_in_that_never_answers_does_not_hold_up_the_next(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch, admin: LakebaseHook
):
    from airflow_provider_lakebase.core.grants.request import RoleRequest

    principal = emulator.add_principal("signs in twice")
    admin.bootstrap_role(RoleRequest(principal.client_id))
    fields = json.loads(emulator.connection(principal))
    fields["extra"]["wake_timeout"] = 3
    monkeypatch.setenv("AIRFLOW_CONN_TWICE", json.dumps(fields))
    emulator.faults.swallow(TOKEN)
    with pytest.raises(LakebaseWorkspaceError):
        LakebaseHook("twice").get_conn()
    LakebaseHook("twice").get_conn().close()


def test_a_workspace_that_fails_after_a_refused_login_is_not_called_a_refused_login(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.faults.refuse_logins(BUSY)
    emulator.faults.refuse_logins("OAuth: User is not authorized")
    for _ in range(2):
        emulator.faults.delay(CREDENTIALS, 0.01)
    emulator.faults.answer(CREDENTIALS, status=500, times=50)
    with pytest.raises(LakebaseWorkspaceError) as failed:
        patient(4).get_conn()
    assert failed.value.retryable


def test_what_the_workspace_said_is_part_of_the_message(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.faults.answer(CREDENTIALS, status=500, message="the cupboard is bare", times=50)
    with pytest.raises(LakebaseWorkspaceError, match="the cupboard is bare"):
        patient(3).get_conn()


def test_the_asynchronous_path_leaves_no_thread_to_wait_for(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.faults.swallow(CREDENTIALS, times=5)
    hook = patient(20)

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(hook.async_connection_pool().open(), 1)

    started_at = time.monotonic()
    asyncio.run(give_up())
    assert time.monotonic() - started_at < 15


def test_a_login_refused_after_a_held_wake_is_tried_once_more(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.suspend()
    emulator.wake_seconds = 1.5
    emulator.faults.fail_wakes("password authentication failed for user 'x'")
    patient().get_conn().close()


def test_the_sensor_waits_for_a_role_that_still_spreads(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    hook = patient()
    emulator.faults.refuse_logins("External authorization failed", times=60)
    assert hook.endpoint_is_ready(timeout=2) is False
    emulator.faults.clear()
    assert hook.endpoint_is_ready(timeout=2) is True


def test_the_error_of_the_login_is_kept_when_the_time_runs_out(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    for _ in range(20):
        emulator.faults.delay(CREDENTIALS, 0.3)
    emulator.faults.refuse_logins(BUSY, times=50)
    started_at = time.monotonic()
    with pytest.raises(LakebaseWakeTimeoutError, match="No session within 3 s.*Couldn't connect to compute node"):
        patient(3).get_conn()
    assert time.monotonic() - started_at < 15


def test_an_unknown_text_passes_as_it_is_with_the_place_as_a_note(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.faults.refuse_logins("the moon is made of cheese")
    with pytest.raises(psycopg.OperationalError, match="the moon is made of cheese") as unknown:
        patient().get_conn()
    assert "connection 'patient'" in unknown.value.__notes__[0]


def test_an_unknown_refusal_of_the_workspace_keeps_its_words(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.faults.answer(CREDENTIALS, status=403, message="computer says no")
    with pytest.raises(LakebaseWorkspaceAccessError, match="computer says no"):
        patient().get_conn()


@pytest.mark.parametrize(("status", "times"), [(429, 2), (503, 2), (500, 1), (502, 1), (504, 2)])
@pytest.mark.parametrize("path", [CREDENTIALS])
def test_a_workspace_that_is_busy_or_fails_is_tried_again(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], status: int, times: int, path: str
):
    emulator.faults.answer(path, status=status, times=times, retry_after=0)
    patient().get_conn().close()


def test_a_workspace_that_fails_in_every_way_is_tried_until_it_answers(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    for status, times in ((429, 2), (503, 2), (500, 1)):
        emulator.faults.answer(CREDENTIALS, status=status, times=times, retry_after=0)
    patient().get_conn().close()


def test_a_workspace_that_drops_a_request_is_tried_again(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.faults.drop(CREDENTIALS)
    patient().get_conn().close()


def test_a_token_that_was_revoked_is_replaced(emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]):
    patient().get_conn().close()
    emulator.faults.answer(CREDENTIALS, status=401, message="Invalid access token.")
    patient().get_conn().close()


def test_a_failing_sign_in_is_tried_again(
    emulator: LakebaseEmulator, connect_as: Callable[..., str], admin: LakebaseHook
):
    from airflow_provider_lakebase.core.grants.request import RoleRequest

    principal = emulator.add_principal("signs in late")
    admin.bootstrap_role(RoleRequest(principal.client_id))
    emulator.faults.answer(TOKEN, status=503, times=2)
    try:
        LakebaseHook(connect_as(principal)).get_conn().close()
    finally:
        emulator.faults.clear()


def test_a_connection_that_is_hung_up_is_tried_again(emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]):
    emulator.faults.hang_up(times=2)
    patient().get_conn().close()


def test_a_wake_that_fails_is_tried_again(emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]):
    emulator.suspend()
    emulator.faults.fail_wakes(BUSY)
    patient().get_conn().close()


def test_a_credential_that_expires_early_is_told(emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]):
    emulator.credential_seconds = -1
    try:
        with pytest.raises(LakebaseError, match="User is not authorized"):
            patient().get_conn()
    finally:
        emulator.credential_seconds = None


def test_a_session_is_waited_for_while_there_are_too_many(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    first = patient().get_conn()
    emulator.max_sessions = 1
    try:
        with pytest.raises(LakebaseWakeTimeoutError, match="no free connection.*remaining connection slots"):
            patient(1).get_conn()
        first.close()
        patient().get_conn().close()
    finally:
        emulator.max_sessions = None


def test_a_statement_is_never_sent_twice(emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]):
    hook = patient()
    emulator.faults.cut_after(1000)
    logins = len(emulator.logins)
    with pytest.raises(psycopg.OperationalError):
        hook.run(f"SELECT '{'x' * 5000}'")
    assert len(emulator.logins) == logins + 1


def seconds_of(work: Callable[[], Any]) -> float:
    started_at = time.monotonic()
    work()
    return time.monotonic() - started_at


def test_a_wake_of_eight_seconds_is_waited_for_and_told(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], caplog: pytest.LogCaptureFixture
):
    emulator.suspend()
    emulator.wake_seconds = 8
    with caplog.at_level(logging.INFO):
        seconds = seconds_of(lambda: patient(30).get_conn().close())
    assert 8 <= seconds <= 25
    waits = [line for line in caplog.messages if line.startswith(f"Waiting for endpoint {emulator.endpoint}, ")]
    assert len(waits) == 2
    assert " 1 s so far: it is waking" in waits[0]
    assert " 6 s so far: it is waking" in waits[1]


def test_a_wake_of_a_minute_is_not_waited_for(emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]):
    emulator.suspend()
    emulator.faults.ignore_connections(times=50)
    started_at = time.monotonic()
    with pytest.raises(LakebaseWakeTimeoutError, match="No session within 5 s"):
        patient(5).get_conn()
    assert 5 <= time.monotonic() - started_at < 25


@pytest.mark.parametrize("hole", ["host", "workspace", "sign-in"])
def test_a_black_hole_ends_at_the_deadline(
    emulator: LakebaseEmulator,
    patient: Callable[..., LakebaseHook],
    connect_as: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    hole: str,
):
    hook = patient(2)
    if hole == "host":
        emulator.faults.ignore_connections(times=50)
    elif hole == "workspace":
        emulator.faults.swallow(CREDENTIALS, times=50)
    else:
        fields = json.loads(emulator.connection(emulator.add_principal("never signed in")))
        fields["extra"]["wake_timeout"] = 2
        monkeypatch.setenv("AIRFLOW_CONN_HOLE", json.dumps(fields))
        hook = LakebaseHook("hole")
        emulator.faults.swallow(TOKEN, times=50)
    error = LakebaseWakeTimeoutError if hole == "host" else LakebaseWorkspaceError
    started_at = time.monotonic()
    with pytest.raises(error, match="in 2 s|within 2 s"):
        hook.get_conn()
    assert 2 <= time.monotonic() - started_at < 20


def test_the_asynchronous_path_wakes_and_retries_as_well(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.suspend()
    emulator.faults.refuse_logins(BUSY)
    hook = patient()

    async def use() -> Any:
        async with hook.async_connection_pool() as pool, pool.connection() as connection:
            return await (await connection.execute("SELECT 1")).fetchone()

    assert asyncio.run(use()) == (1,)


def _lend_token(fields: dict[str, Any], host: str) -> None:
    """Take the identity from a Databricks connection, of a kind that asks nothing before the first request."""
    for name in ("host", "login", "password"):
        fields.pop(name)
    fields["extra"]["databricks_conn_id"] = "lender"
    fields["lender"] = {"conn_type": "databricks", "host": host, "password": "dapi0"}


BROKEN: dict[str, tuple[Callable[[LakebaseEmulator, dict[str, Any]], None], str]] = {
    "a wrong field": (lambda emulator, fields: fields["extra"].update(sslmode="disable"), "'settings'.*sslmode"),
    "no such workspace": (
        lambda emulator, fields: fields.update(host="http://127.0.0.1:1"),
        "'workspace'.*Connection refused",
    ),
    "no such workspace for a token": (
        lambda emulator, fields: _lend_token(fields, "http://127.0.0.1:1"),
        "'workspace'.*Connection refused",
    ),
    "a token that the workspace does not know": (
        lambda emulator, fields: _lend_token(fields, emulator.workspace_url),
        "'identity'.*Invalid access token",
    ),
    "a wrong secret": (
        lambda emulator, fields: fields.update(password="dose" + "0" * 32),
        "'identity'.*refused the client",
    ),
    "no such endpoint": (
        lambda emulator, fields: fields["extra"].update(endpoint="projects/demo/branches/production/endpoints/none"),
        "'endpoint'.*endpoint id not found",
    ),
    "a disabled endpoint": (lambda emulator, fields: emulator.disable(), "'endpoint'.*disabled"),
    "no credential": (
        lambda emulator, fields: emulator.faults.answer(CREDENTIALS, status=403, message="not you"),
        "'credential'.*not you",
    ),
    "a closed network": (lambda emulator, fields: fields.update(port=1), "'network'.*Connection refused"),
    "no role": (
        lambda emulator, fields: emulator.faults.refuse_logins('role "x" does not exist'),
        "'login'.*The Postgres role does not exist",
    ),
    "no such database": (
        lambda emulator, fields: fields.update(schema="nowhere"),
        "'login'.*The database does not exist",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_test_button_names_the_stage_that_fails(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch, name: str
):
    fields = json.loads(emulator.connections["lakebase_default"])
    break_it, words = BROKEN[name]
    break_it(emulator, fields)
    monkeypatch.setenv("AIRFLOW_CONN_LENDER", json.dumps(fields.pop("lender", {})))
    monkeypatch.setenv("AIRFLOW_CONN_MADE_UP_ID", json.dumps(fields))
    started_at = time.monotonic()
    status, message = LakebaseHook("made_up_id").test_connection()
    emulator.faults.clear()
    assert time.monotonic() - started_at < 60
    assert status is False
    assert "made_up_id" not in message
    assert re.search(f"Failed at the stage {words}", message), message
    assert not any(secret in message for secret in emulator.secrets)


def test_the_test_button_does_not_wait_for_a_server_that_falls_silent(
    emulator: LakebaseEmulator, hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch
):
    """The backend is stopped as soon as it has let the session in."""
    stopped: list[int] = []
    opened = hook.open

    def open_and_stop(settings: Any) -> Any:
        session = opened(settings)
        with psycopg.connect(emulator.superuser_conninfo) as superuser:
            superuser.execute("SELECT 1")
        os.kill(session.info.backend_pid, signal.SIGSTOP)
        stopped.append(session.info.backend_pid)
        return session

    monkeypatch.setattr(hook, "open", open_and_stop)
    started_at = time.monotonic()
    try:
        status, message = hook.test_connection()
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - started_at < 60
    assert (status, message.startswith("Failed at the stage 'login'.")) == (False, True)


def test_the_variables_for_libpq_are_had_from_a_workspace_that_fails_once(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    emulator.faults.answer(CREDENTIALS, status=500)
    assert patient().libpq_environment()["PGPASSWORD"].startswith("lbc.")


def test_the_test_button_waits_for_a_sleeping_endpoint(emulator: LakebaseEmulator, hook: LakebaseHook):
    emulator.suspend()
    status, message = hook.test_connection()
    assert status is True
    assert "The endpoint was IDLE." in message


@pytest.mark.parametrize("status", [400, 402, 405, 410, 412, 418, 422, 451])
@pytest.mark.parametrize("code", ["BAD_REQUEST", "UNKNOWN", "A_NEW_ONE"])
def test_an_unknown_refusal_of_the_workspace_is_asked_once(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], status: int, code: str
):
    before = sum(request.path == CREDENTIALS for request in emulator.requests)
    emulator.faults.answer(CREDENTIALS, status=status, error_code=code, message="computer says no", times=20)
    with pytest.raises(LakebaseWorkspaceError, match="computer says no") as refused:
        patient(3).get_conn()
    assert not refused.value.retryable
    assert type(refused.value).__name__ == "LakebaseWorkspaceRefusedError"
    assert sum(request.path == CREDENTIALS for request in emulator.requests) == before + 1


@pytest.mark.parametrize("status", [408, 409, 425, 429])
def test_a_refusal_of_the_workspace_that_passes_is_asked_again(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], status: int
):
    emulator.faults.answer(CREDENTIALS, status=status, retry_after=0)
    patient().get_conn().close()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_branch_whose_endpoint_was_replaced_is_found_anew(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], read_only: bool
):
    branch = f"projects/demo/branches/replaced-{read_only}".lower()
    old = emulator.add_endpoint("first", endpoint_type="ENDPOINT_TYPE_READ_WRITE", branch=branch.split("/")[-1])
    if read_only:
        emulator.enable_readable_secondary(old)
    hook = patient(10, endpoint=branch, read_only=read_only)
    hook.get_conn().close()
    emulator.remove_endpoint(old)
    new = emulator.add_endpoint("second", endpoint_type="ENDPOINT_TYPE_READ_WRITE", branch=branch.split("/")[-1])
    if read_only:
        emulator.enable_readable_secondary(new)
    with closing(hook.get_conn()) as session:
        assert session.info.host == emulator.endpoint_host(new, read_only=read_only)
    assert hook.libpq_environment()["PGHOST"] == emulator.endpoint_host(new, read_only=read_only)


def test_a_failed_opening_lets_the_next_one_find_the_host_anew(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook]
):
    hook = patient()
    hook.get_conn().close()
    lookups = sum(request.path.endswith("/endpoints/primary") for request in emulator.requests)
    emulator.faults.refuse_logins("the moon is made of cheese")
    with pytest.raises(psycopg.OperationalError):
        hook.get_conn()
    hook.get_conn().close()
    assert sum(request.path.endswith("/endpoints/primary") for request in emulator.requests) == lookups + 1


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.OperationalError("the moon is made of cheese"), False),
        (psycopg.OperationalError("password authentication failed for user 'etl'"), False),
        (psycopg.OperationalError("Connection refused"), True),
        (psycopg.OperationalError("the connection is lost"), True),
        (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), False),
        (psycopg.errors.AdminShutdown("terminating connection"), True),
        (psycopg.errors.DeadlockDetected("deadlock detected"), True),
        (psycopg.errors.DiskFull("no space"), False),
        (psycopg.ProgrammingError("no"), False),
    ],
)
def test_one_rule_says_what_passes_by_itself(error: Exception, passes: bool):
    from airflow_provider_lakebase.core.errors.classify import is_transient

    assert is_transient(error) is passes


@pytest.mark.parametrize("refusal", ["the moon is made of cheese"])
def test_a_login_that_fails_for_an_unknown_cause_is_not_waited_for(
    emulator: LakebaseEmulator, patient: Callable[..., LakebaseHook], refusal: str
):
    patient()
    emulator.faults.refuse_logins(refusal)
    sensor = LakebaseQuerySensor(task_id="waits", sql="SELECT true", lakebase_conn_id="patient")
    with pytest.raises(psycopg.OperationalError, match=refusal):
        sensor.poke({})
