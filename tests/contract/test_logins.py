"""Logins to the Postgres port, and the error texts of refused ones."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

import psycopg
import pytest
from psycopg import sql

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal


@pytest.mark.belief(
    "the direct host accepts a valid credential as the password for the role of the identity that minted it",
    source="Databricks docs, Lakebase: Authentication",
    sure="documented",
)
def test_own_credential_is_let_in(place: Any) -> None:
    with place.connect() as connection:
        assert connection.execute("SELECT session_user").fetchone() == (place.client_id,)
        assert connection.pgconn.ssl_in_use


@pytest.mark.belief(
    "a login as a role of another identity than the credential's gets `OAuth: User is not authorized`",
    source="field reports of Lakebase Autoscaling",
    sure="seen in the field",
)
def test_other_user_is_refused(place: Any) -> None:
    assert "OAuth: User is not authorized" in place.refusal(user="00000000-0000-0000-0000-000000000000")


@pytest.mark.belief(
    "the name of the role is case-sensitive",
    source="Databricks docs, Lakebase: Manage Postgres roles",
    sure="documented",
)
def test_role_in_upper_case_is_another_role(place: Any) -> None:
    # A client ID without a single letter is possible and would prove nothing.
    if place.client_id.upper() != place.client_id:
        place.refusal(user=place.client_id.upper())


@pytest.mark.belief(
    "an expired credential gets `OAuth: User is not authorized`",
    source="field reports of Lakebase Autoscaling",
    sure="seen in the field",
)
def test_expired_credential_is_refused(emulator: LakebaseEmulator, administrator: Any) -> None:
    credential = administrator.credential()
    emulator.expire_credentials()
    assert "OAuth: User is not authorized" in administrator.refusal(password=credential)


@pytest.mark.belief(
    "an open session outlives its credential: expiry is checked only at login",
    source="Databricks docs, Lakebase: Authentication",
    sure="documented",
)
def test_open_session_outlives_its_credential(emulator: LakebaseEmulator, administrator: Any) -> None:
    with administrator.connect() as connection:
        emulator.expire_credentials()
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("password", ["dapi0123456789abcdef0123456789abcdef", "a password of a human", ""])
@pytest.mark.belief(
    "a personal access token or any other string as password gets "
    "`Provided authentication token is not a valid JWT encoding`",
    source="field reports; neondatabase/neon proxy/src/auth/backend/jwt.rs",
    sure="seen in the field",
)
def test_what_is_no_credential_is_refused(place: Any, password: str) -> None:
    # libpq sends no empty password: it gives up by itself.
    expected = "not a valid JWT encoding" if password else "no password supplied"
    assert expected in place.refusal(password=password, passfile="/dev/null")


@pytest.mark.belief(
    "a workspace token is not accepted as a database credential",
    source="Databricks docs, Lakebase: Authentication",
    sure="documented",
)
def test_workspace_token_is_no_password(place: Any) -> None:
    token = place.client().config.authenticate()["Authorization"].removeprefix("Bearer ")
    place.refusal(password=token)


@pytest.mark.belief(
    "a login without TLS gets `Invalid protocol version: 196608`",
    source="databricks/cli experimental/postgres/cmd/connect.go, a comment there",
    sure="seen in the field",
)
def test_plaintext_is_refused(place: Any) -> None:
    assert "Invalid protocol version: 196608" in place.refusal(sslmode="disable")


@pytest.mark.belief(
    "TLS without server name indication works on a host that needs no routing",
    source="the emulator has one endpoint; Lakebase routes by SNI",
    sure="inferred",
)
def test_client_without_server_name_is_served(emulator: LakebaseEmulator, administrator: Any) -> None:
    with administrator.connect(host="127.0.0.1", sslsni=0) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.belief(
    "the certificate is valid for the host, so that sslmode=verify-full works with the authority's certificate",
    source="Databricks docs, Lakebase: Connect external apps (its Node example checks chain and host name)",
    sure="documented",
)
def test_certificate_holds_against_its_authority(emulator: LakebaseEmulator, administrator: Any) -> None:
    with administrator.connect(sslmode="verify-full", sslrootcert=str(emulator.ca_file)) as connection:
        assert connection.pgconn.ssl_in_use


@pytest.mark.belief(
    'an identity without a Postgres role gets `role "…" does not exist`',
    source="Databricks docs, Lakebase: Connect external apps, table of errors",
    sure="documented",
)
def test_identity_without_role_is_refused(emulator: LakebaseEmulator, newcomer: Principal, place_of: Any) -> None:
    assert f'role "{newcomer.client_id}" does not exist' in place_of(newcomer).refusal()


@pytest.mark.belief(
    "a role created by CREATE ROLE … LOGIN, without the security label, gets `password authentication failed for user`",
    source="Databricks docs, Lakebase: Manage Postgres roles; the text from field reports",
    sure="inferred",
)
def test_plain_role_is_refused(
    emulator: LakebaseEmulator, administrator: Any, newcomer: Principal, place_of: Any
) -> None:
    with administrator.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(newcomer.client_id)))
    expected = f"password authentication failed for user '{newcomer.client_id}'"
    assert expected in place_of(newcomer).refusal()


@pytest.mark.belief(
    "a credential on a pooled host gets `SASL authentication failed`",
    source="Databricks docs, Lakebase: Connection pooling (not available for OAuth); the text from field reports",
    sure="seen in the field",
)
def test_pooled_host_refuses_credentials(place: Any) -> None:
    hosts = place.client().postgres.get_endpoint(place.endpoint).status.hosts
    refusal = place.refusal(host=hosts.read_write_pooled_host)
    assert "SASL authentication failed" in refusal or "Too many connections attempts" in refusal


@pytest.mark.belief(
    "a database that does not exist gets Postgres' own error",
    source="PostgreSQL",
    sure="inferred",
)
def test_missing_database(place: Any) -> None:
    assert 'database "no_such_database" does not exist' in place.refusal(dbname="no_such_database")


@pytest.mark.belief(
    "the front end sends its own errors with severity ERROR and SQLSTATE XX000, not 28P01",
    source="neondatabase/neon proxy/src/stream.rs",
    sure="inferred",
)
def test_refusal_has_sqlstate_xx000_on_the_wire(place: Any) -> None:
    parameters = b"user\0x\0database\0x\0\0"
    with socket.create_connection((place.host, place.port), timeout=30) as connection:
        connection.sendall(struct.pack("!II", len(parameters) + 8, 196608) + parameters)
        reply = connection.recv(1000)
    assert reply[:1] == b"E"
    fields = {field[:1]: field[1:] for field in reply[5:].split(b"\0") if field}
    assert (fields[b"S"], fields[b"C"]) == (b"ERROR", b"XX000")


@pytest.mark.belief(
    "a statement can be cancelled through the front end",
    source="neondatabase/neon proxy/src/cancellation.rs",
    sure="inferred",
)
def test_statement_can_be_cancelled(place: Any) -> None:
    with place.connect() as connection:
        cancel = threading.Timer(0.5, connection.cancel_safe)
        cancel.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(20)")
        cancel.join()


@pytest.mark.belief(
    "logins beyond max_connections get PostgreSQL's own text, `remaining connection slots are reserved …`",
    source="field reports of Lakebase Autoscaling; PostgreSQL",
    sure="seen in the field",
)
def test_too_many_sessions_are_refused(emulator: LakebaseEmulator, administrator: Any) -> None:
    emulator.max_sessions = 0
    try:
        assert "FATAL:  remaining connection slots are reserved" in administrator.refusal()
    finally:
        emulator.max_sessions = None
