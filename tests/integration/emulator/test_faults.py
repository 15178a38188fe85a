"""Every fault reaches the client that it is for, once, and harms nobody else."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from _clients import workspace_client
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import PermissionDenied

from airflow_provider_lakebase.emulator import LakebaseEmulator

CONFIG = "/.well-known/databricks-config"


@pytest.fixture(autouse=True)
def quiet(emulator: LakebaseEmulator) -> Iterator[None]:
    yield
    emulator.faults.clear()
    emulator.wake()


def _get(emulator: LakebaseEmulator, path: str = CONFIG, timeout: float = 10) -> Any:
    with urllib.request.urlopen(emulator.workspace_url + path, timeout=timeout) as reply:
        return json.load(reply)


def _client(emulator: LakebaseEmulator) -> WorkspaceClient:
    return workspace_client(emulator)


def _wait_for(login: Callable[[], psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    deadline = time.monotonic() + 60
    while True:
        try:
            return login()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "waited a minute"
            time.sleep(0.02)


# -- the workspace API


@pytest.mark.parametrize("path", [CONFIG, "/oidc/.well-known/oauth-authorization-server", "/api/2.0/postgres/projects"])
def test_answer_holds_for_every_path(emulator: LakebaseEmulator, path: str) -> None:
    emulator.faults.answer(path, status=502, message="bad gateway")
    with pytest.raises(urllib.error.HTTPError) as caught:
        _get(emulator, path)
    with caught.value as reply:
        assert (reply.code, json.load(reply)["message"]) == (502, "bad gateway")


def test_sdk_waits_as_long_as_retry_after_says(emulator: LakebaseEmulator) -> None:
    client = _client(emulator)
    emulator.faults.answer(emulator.endpoint, status=429, retry_after=1)
    begin, start = time.monotonic(), len(emulator.requests)
    client.postgres.get_endpoint(emulator.endpoint)
    assert time.monotonic() - begin >= 1
    assert [each.status for each in emulator.requests[start:] if "endpoints" in each.path] == [429, 200]


def test_sdk_shows_the_text_of_a_refusal(emulator: LakebaseEmulator) -> None:
    emulator.faults.answer("/credentials", status=403, message="Unauthorized network access to workspace 7")
    with pytest.raises(PermissionDenied, match="Unauthorized network access to workspace 7"):
        _client(emulator).postgres.generate_database_credential(emulator.endpoint)


def test_sdk_does_not_repeat_a_call_of_the_token_endpoint(emulator: LakebaseEmulator) -> None:
    emulator.faults.answer("/oidc/v1/token", status=503, message="try again", retry_after=1)
    with pytest.raises(ValueError, match="TEMPORARILY_UNAVAILABLE: try again"):
        _client(emulator).current_user.me()


def test_dropped_request_gets_no_answer(emulator: LakebaseEmulator) -> None:
    emulator.faults.drop(CONFIG)
    with pytest.raises(http.client.RemoteDisconnected):
        _get(emulator)
    assert (emulator.requests[-1].path, emulator.requests[-1].status) == (CONFIG, 0)
    assert _get(emulator)["cloud"] == "AWS"


def test_delayed_request_is_answered_later(emulator: LakebaseEmulator) -> None:
    emulator.faults.delay(CONFIG, 0.3)
    begin = time.monotonic()
    assert _get(emulator)["cloud"] == "AWS"
    assert time.monotonic() - begin >= 0.3


def test_stop_does_not_wait_for_what_is_never_answered() -> None:
    with LakebaseEmulator() as emulator:
        emulator.faults.swallow(CONFIG)
        emulator.faults.ignore_connections()
        with pytest.raises(TimeoutError):
            _get(emulator, timeout=0.2)
        assert emulator.requests[-1].status == 0
        with socket.create_connection(("127.0.0.1", emulator.port), 0.2) as connection:
            connection.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            begin = time.monotonic()
            emulator.stop()
            assert time.monotonic() - begin < 20
            connection.settimeout(5)
            with pytest.raises(ConnectionError):
                assert connection.recv(1)
                raise ConnectionError


# -- the Postgres port


def test_logins_are_refused_with_any_text(emulator: LakebaseEmulator, connect: Any) -> None:
    emulator.faults.refuse_logins("External authorization failed", times=2)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="External authorization failed"):
            connect()
        assert emulator.logins[-1].outcome == "External authorization failed"
    connect().close()


def test_hang_up_comes_before_tls(emulator: LakebaseEmulator, connect: Any) -> None:
    emulator.faults.hang_up()
    with pytest.raises(psycopg.OperationalError, match="closed the connection|reset"):
        connect(host="127.0.0.1")
    connect().close()


def test_connections_are_refused_for_a_while(emulator: LakebaseEmulator, connect: Any) -> None:
    with connect() as session:
        with emulator.refuse_connections(), pytest.raises(psycopg.OperationalError, match="Connection refused"):
            connect()
        assert session.execute("SELECT 1").fetchone() == (1,)
    connect().close()


@pytest.mark.parametrize(("missing", "rows"), [(0, 1), (1, 0)])
def test_cut_is_exact_to_the_byte(emulator: LakebaseEmulator, connect: Any, missing: int, rows: int) -> None:
    """A statement that went through completely is done, though its client never learns it."""
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute("DROP TABLE IF EXISTS cut; CREATE TABLE cut (n int); GRANT ALL ON cut TO PUBLIC")
        statement = b"INSERT INTO cut VALUES (1)"
        emulator.faults.cut_after(len(statement) + 6 - missing)
        connection = connect()
        result = connection.pgconn.exec_(statement)
        assert result.status == psycopg.pq.ExecStatus.FATAL_ERROR
        connection.close()
        count = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        deadline = time.monotonic() + 60
        while superuser.execute(count, (emulator.administrator.role,)).fetchone() != (0,):
            assert time.monotonic() < deadline
        assert superuser.execute("SELECT count(*) FROM cut").fetchone() == (rows,)


def test_cut_in_a_copy_leaves_no_rows(emulator: LakebaseEmulator, connect: Any) -> None:
    with connect() as connection:
        connection.execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (n int)")
    emulator.faults.cut_after(100_000)
    with pytest.raises(psycopg.OperationalError):
        with connect() as connection, connection.cursor() as cursor:
            with cursor.copy("COPY copied FROM STDIN") as copy:
                for _ in range(1000):
                    copy.write(b"12345\n" * 100)
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM copied").fetchone() == (0,)


def test_wake_that_fails_leaves_the_endpoint_asleep(emulator: LakebaseEmulator, connect: Any) -> None:
    emulator.suspend()
    emulator.faults.fail_wakes("Couldn't connect to compute node", times=2)
    begin = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="Couldn't connect to compute node"):
        connect()
    assert time.monotonic() - begin >= emulator.wake_seconds
    assert emulator.state == "IDLE"
    with pytest.raises(RuntimeError, match="Couldn't connect to compute node"):
        emulator.wake()
    connect().close()


def test_sessions_beyond_the_room_wait_for_one_that_ends(emulator: LakebaseEmulator, connect: Any) -> None:
    emulator.suspend()
    emulator.max_sessions = 2
    try:
        with connect(), connect():
            with pytest.raises(psycopg.OperationalError, match="FATAL: +remaining connection slots are reserved"):
                connect()
        _wait_for(connect).close()
    finally:
        emulator.max_sessions = None


def test_credential_expires_before_it_says(emulator: LakebaseEmulator, connect_to: Any) -> None:
    emulator.credential_seconds = 0.2
    try:
        connect = connect_to(emulator)
        time.sleep(0.2)
        with pytest.raises(psycopg.OperationalError, match="OAuth: User is not authorized"):
            connect()
    finally:
        emulator.credential_seconds = None
