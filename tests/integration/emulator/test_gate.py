from __future__ import annotations

import contextlib
import faulthandler
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)


def _startup(**parameters: str) -> bytes:
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, 196608) + body


def _exchange(
    plain: socket.socket, step: Callable[[], object], received: ssl.MemoryBIO, to_send: ssl.MemoryBIO
) -> None:
    """Call a step of TLS until it needs nothing more from the other side."""
    while True:
        try:
            step()
        except ssl.SSLWantReadError:
            plain.sendall(to_send.read())
            received.write(plain.recv(1 << 16))
        else:
            return


def _decrypt(tls: ssl.SSLObject) -> bytes:
    data = b""
    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
        while part := tls.read(1 << 16):
            data += part
    return data


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.02)


def _resident_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def test_direct_tls_is_served(connect: Any) -> None:
    with connect(sslnegotiation="direct") as connection:
        assert connection.pgconn.ssl_in_use


def test_direct_tls_without_the_name_of_the_protocol_is_cut(emulator: LakebaseEmulator) -> None:
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    with socket.create_connection(("127.0.0.1", emulator.port), 10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            assert tls.recv(1) == b""


def test_gss_encryption_is_declined_and_tls_follows(emulator: LakebaseEmulator) -> None:
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    with socket.create_connection(("127.0.0.1", emulator.port), 10) as plain:
        plain.sendall(GSSENC_REQUEST)
        assert plain.recv(1) == b"N"
        plain.sendall(SSL_REQUEST)
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(_startup(user="x"))
            assert tls.recv(9) == struct.pack("!cII", b"R", 8, 3)


def test_newest_protocol_and_its_longer_cancel_key(connect: Any) -> None:
    if psycopg.pq.version() < 180000:
        pytest.skip("this libpq speaks protocol 3.0 only")
    with connect(max_protocol_version="3.2", min_protocol_version="3.2") as connection:
        sleeper = threading.Timer(0.2, connection.cancel_safe)
        sleeper.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(10)")
        sleeper.join()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_old_way_of_cancelling_works_in_the_emulators_own_process(connect: Any, address: str) -> None:
    """psycopg's older way of cancelling speaks plain text, and nothing else runs in its process until it is taken."""
    # If it froze this process, no Python code could end the test.
    faulthandler.dump_traceback_later(30, exit=True, file=sys.__stderr__)
    with connect(hostaddr=address) as connection:
        canceller = threading.Timer(0.2, connection.pgconn.get_cancel().cancel)
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(10)")
        canceller.join()
    faulthandler.cancel_dump_traceback_later()


def test_localhost_is_served_on_both_its_addresses(emulator: LakebaseEmulator, connect: Any) -> None:
    for address in ("127.0.0.1", "::1"):
        with connect(hostaddr=address, sslmode="verify-full", sslrootcert=str(emulator.ca_file)) as connection:
            assert connection.info.hostaddr == address
    with emulator.refuse_connections(), pytest.raises(psycopg.OperationalError, match="refused"):
        connect(hostaddr="::1")


@pytest.mark.parametrize("ends_tls", [False, True])
def test_client_that_sends_no_more_still_gets_its_answer(
    emulator: LakebaseEmulator, connect: Any, ends_tls: bool
) -> None:
    with connect() as connection:
        user, password = connection.info.user, connection.info.password
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, to_send, server_hostname="localhost")
    query = b"SELECT repeat('x', 1000000) FROM pg_sleep(0.2)\0"
    with socket.create_connection(("127.0.0.1", emulator.port), 10) as plain:
        plain.sendall(SSL_REQUEST)
        assert plain.recv(1) == b"S"
        _exchange(plain, tls.do_handshake, received, to_send)
        tls.write(_startup(user=user, database="databricks_postgres"))
        tls.write(struct.pack("!cI", b"p", len(password) + 5) + password.encode() + b"\0")
        tls.write(struct.pack("!cI", b"Q", len(query) + 4) + query)
        if ends_tls:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.unwrap()
        plain.sendall(to_send.read())
        plain.shutdown(socket.SHUT_WR)
        answer = b""
        while data := plain.recv(1 << 16):
            received.write(data)
            if not ends_tls:
                answer += _decrypt(tls)
    if ends_tls:
        assert received.pending > 1_000_000
    else:
        assert b"x" * 1_000_000 in answer


@pytest.mark.parametrize(
    "noise", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0\0\0\x08\xff", b"\x16\x03\x01"]
)
def test_noise_harms_nobody_else(emulator: LakebaseEmulator, connect: Any, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", emulator.port), 10) as connection:
        connection.sendall(noise)
        # What is no Postgres is cut at once, maybe before the rest of it was sent.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1000):
                pass
    connect().close()


def test_client_that_leaves_during_the_wake_leaves_nothing(emulator: LakebaseEmulator, connect: Any) -> None:
    with connect() as connection:
        conninfo = psycopg.conninfo.make_conninfo(connection.info.dsn, password=connection.info.password)
    emulator.suspend()
    usual, emulator.wake_seconds = emulator.wake_seconds, 1.0
    command = [sys.executable, "-c", "import psycopg, sys; psycopg.connect(sys.stdin.read())"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as client:
        assert client.stdin
        client.stdin.write(conninfo)
        client.stdin.close()
        _wait_until(lambda: emulator.state == "INIT")
        client.kill()
    emulator.wake_seconds = usual
    emulator.wake()
    count = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        _wait_until(lambda: connection.execute(count, (emulator.administrator.role,)).fetchone() == (0,))


def test_copy_of_any_size_takes_no_memory(connect: Any) -> None:
    block = b"".join(b"%d\tsome text of row %d\n" % (number, number) for number in range(30_000))
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE t (n int, s text)")
        with cursor.copy("COPY t FROM STDIN") as copy:
            copy.write(block)
        before = _resident_mib()
        with cursor.copy("COPY t FROM STDIN") as copy:
            for _ in range(100):
                copy.write(block)
        with cursor.copy("COPY t TO STDOUT") as copy:
            # A slow reader: what it does not take must wait in PostgreSQL, not in the gate.
            time.sleep(1)
            size = sum(len(data) for data in copy)
    assert size == 101 * len(block)
    assert _resident_mib() - before < 40


def test_session_that_reads_nothing_is_cut_by_a_suspend(emulator: LakebaseEmulator, connect: Any) -> None:
    connection = connect()
    connection.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
    connection.pgconn.flush()
    time.sleep(0.3)
    begin = time.monotonic()
    emulator.suspend()
    assert time.monotonic() - begin < 20
    connection.close()
    emulator.wake()


def test_every_login_is_noted(emulator: LakebaseEmulator, connect: Any) -> None:
    start = len(emulator.logins)
    connect().close()
    for changes in ({"dbname": "nowhere"}, {"password": "wrong"}):
        with pytest.raises(psycopg.OperationalError):
            connect(**changes)
    outcomes = [(login.database, login.outcome) for login in emulator.logins[start:]]
    assert outcomes == [
        ("databricks_postgres", "ok"),
        ("nowhere", 'database "nowhere" does not exist'),
        ("databricks_postgres", "Provided authentication token is not a valid JWT encoding"),
    ]


def test_suspend_and_wake_race_with_logins(emulator: LakebaseEmulator, connect: Any) -> None:
    """Every session is either cut by a suspend or in an active endpoint; none is left in a suspended one."""
    stop = threading.Event()

    def log_in_and_out() -> None:
        while not stop.is_set():
            try:
                with connect() as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                pass

    usual, emulator.wake_seconds = emulator.wake_seconds, 0.001
    threads = [threading.Thread(target=log_in_and_out) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        emulator.suspend()
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    emulator.wake_seconds = usual
    emulator.suspend()
    # The backend of a client that has just closed its connection takes a moment to exit.
    deadline = time.monotonic() + 60
    query = "SELECT usename FROM pg_stat_activity WHERE usename <> 'cloud_admin'"
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        while (left := connection.execute(query).fetchall()) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert left == []
