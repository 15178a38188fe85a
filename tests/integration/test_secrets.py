"""No secret in a log at DEBUG, a traceback with the values of variables, a repr or a URL."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseError
from airflow_provider_lakebase.hooks._masking import _Masks
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

CREDENTIALS = "/api/2.0/postgres/credentials"
Leaks = Callable[[bytes, list[str]], list[str]]


@pytest.mark.parametrize(
    "form", [str, lambda secret: quote(secret, safe=""), lambda s: base64.b64encode(s.encode()).decode()]
)
def test_the_search_finds_any_24_characters(leaks: Leaks, form: Callable[[str], str]):
    secret = "lbc./+_" + "".join(chr(ord("a") + n % 26) for n in range(70))
    shown = form(secret)
    for start in range(8, len(shown) - 32):
        assert leaks(f"x {shown[start : start + 24]} x".encode(), [secret]) == [secret]
    assert leaks(b"nothing of it", [secret]) == []


FAILURES: dict[str, Callable[[LakebaseEmulator, dict[str, Any]], object]] = {
    "wrong secret": lambda emulator, fields: fields.update(password=fields["password"][:-2] + "xx"),
    "no workspace": lambda emulator, fields: fields.update(host="http://127.0.0.1:1"),
    "no endpoint": lambda emulator, fields: fields["extra"].update(
        endpoint="projects/none/branches/b/endpoints/primary"
    ),
    "refused credential": lambda emulator, fields: emulator.faults.answer(CREDENTIALS, status=403),
    "nonsense from the workspace": lambda emulator, fields: emulator.faults.answer(CREDENTIALS, status=418, times=50),
    "dropped request": lambda emulator, fields: emulator.faults.drop(CREDENTIALS, times=20),
    "swallowed request": lambda emulator, fields: emulator.faults.swallow(CREDENTIALS, times=20),
    "refused login": lambda emulator, fields: emulator.faults.refuse_logins("OAuth: User is not authorized"),
    "unknown text": lambda emulator, fields: emulator.faults.refuse_logins("the moon is made of cheese"),
    "black hole": lambda emulator, fields: emulator.faults.ignore_connections(times=20),
    "hung up": lambda emulator, fields: emulator.faults.hang_up(times=20),
    "closed port": lambda emulator, fields: fields.update(port=1),
    "disabled": lambda emulator, fields: emulator.disable(),
    "unknown keyword": lambda emulator, fields: fields["extra"].update(nonsense=fields["password"]),
    "bad keyword": lambda emulator, fields: fields["extra"].update(keepalives="x"),
    "wrong certificate": lambda emulator, fields: fields["extra"].update(sslmode="verify-full"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_shows_no_secret(
    emulator: LakebaseEmulator,
    monkeypatch: pytest.MonkeyPatch,
    task_log: Callable[[], str],
    leaks: Leaks,
    name: str,
):
    principal = emulator.add_principal(f"fails by {name}") if name in ("wrong secret", "no workspace") else None
    fields = json.loads(emulator.connection(principal or emulator.service_principal))
    fields["extra"]["wake_timeout"] = 1
    FAILURES[name](emulator, fields)
    monkeypatch.setenv("AIRFLOW_CONN_FAILING", json.dumps(fields))
    hook = LakebaseHook("failing")
    try:
        with pytest.raises((LakebaseError, psycopg.Error)) as failed:
            hook.run("SELECT 1")
        shown = "".join(traceback.TracebackException.from_exception(failed.value, capture_locals=True).format())
    finally:
        emulator.faults.clear()
    # The test's own frame, the first one, holds the connection's fields.
    ours = shown[shown.index("providers/common/sql/hooks/sql.py") :]
    content = "\n".join([ours, str(failed.value), repr(failed.value), repr(hook), task_log()])
    assert "airflow_provider_lakebase/hooks/lakebase.py" in ours
    assert leaks(content.encode(), [*emulator.secrets, fields["password"]]) == []


def test_what_describes_a_session_shows_no_secret(
    hook: LakebaseHook, emulator: LakebaseEmulator, task_log: Callable[[], str], leaks: Leaks
):
    connection = hook.get_conn()
    shown = [repr(connection), connection.info.dsn, repr(hook.settings), str(hook.settings), hook.get_uri()]
    shown += [str(hook.sqlalchemy_url), hook.sqlalchemy_url.render_as_string(hide_password=False)]
    if sqlalchemy.__version__.startswith("2."):
        engine = hook.get_sqlalchemy_engine()
        with engine.connect() as sqlalchemy_connection:
            sqlalchemy_connection.execute(sqlalchemy.text("SELECT 1"))
            shown += [repr(engine), repr(engine.url), repr(sqlalchemy_connection), repr(engine.pool)]
        engine.dispose()
    with hook.connection_pool() as pool:
        shown += [repr(pool), str(vars(pool))]
    connection.close()
    hook.get_df("SELECT 1")
    assert leaks("\n".join([*shown, task_log()]).encode(), emulator.secrets) == []


def test_the_sdks_log_of_a_reply_with_a_credential_is_withheld(hook: LakebaseHook, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("DEBUG"):
        hook.get_conn().close()
    replies = [message for message in caplog.messages if "/postgres/credentials" in message and "body" in message]
    assert replies == ["POST /api/2.0/postgres/credentials (body withheld)"]


def test_a_secret_is_masked_as_soon_as_it_is_known(
    hook: LakebaseHook, emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
):
    masked: list[str] = []
    monkeypatch.setattr("airflow_provider_lakebase.hooks._masking.PROCESS_MASKS", _Masks())
    monkeypatch.setattr("airflow_provider_lakebase.hooks._masking.mask_secret", masked.append)
    for _ in range(2):
        hook.get_conn().close()
    assert len(masked) == 3
    assert emulator.service_principal.client_secret in masked
    assert emulator.secrets[-1] in masked
