"""Bootstraps that are killed, or that meet each other: each is done as a whole or not at all, and all end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

TIMES = int(os.environ.get("LAKEBASE_KILLS", "5"))
# A bootstrap that needs the privileges of a role is a member of it meanwhile.
BORROWED = """
    SELECT count(*) FROM pg_auth_members
    WHERE pg_get_userbyid(member) = %s AND (inherit_option OR set_option)
      AND pg_get_userbyid(roleid) IN ('maker', 'team')
"""
SCHEMAS = [f"killed_{number}" for number in range(8)]


@pytest.fixture
def schemas(admin: LakebaseHook) -> Iterator[list[str]]:
    """Schemas with tables of the administrator and of another role."""
    admin.run("CREATE ROLE maker; CREATE ROLE team")
    for schema in SCHEMAS:
        admin.run(
            f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.a (id serial); CREATE VIEW {schema}.b AS SELECT 1 AS x"
        )
    yield SCHEMAS
    admin.run(";".join(f"DROP SCHEMA {schema} CASCADE" for schema in SCHEMAS))
    admin.run("GRANT maker, team TO current_user; DROP OWNED BY maker, team; DROP ROLE maker, team")


@pytest.fixture
def server(emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    """A session of the superuser, straight to PostgreSQL."""
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        yield connection


def drop(server: psycopg.Connection[Any], identity: str, *schemas: str) -> None:
    for schema in schemas:
        server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
    if server.execute("SELECT FROM pg_roles WHERE rolname = %s", [identity]).fetchone() is not None:
        server.execute(f'DROP OWNED BY "{identity}"'.encode())
        server.execute(f'DROP ROLE "{identity}"'.encode())


def wait_until_alone(server: psycopg.Connection[Any], administrator: str) -> None:
    """Wait until the sessions of a killed bootstrap are gone."""
    deadline = time.monotonic() + 60
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    while server.execute(query, [administrator]).fetchall() != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_a_killed_bootstrap_grants_all_or_nothing(
    emulator: LakebaseEmulator, admin: LakebaseHook, server: psycopg.Connection[Any], schemas: list[str]
):
    principal = emulator.add_principal("killed")
    command = {
        "identity": principal.client_id,
        "schemas": dict.fromkeys(schemas, "write"),
        "owned_schemas": ["killed_own"],
        "created_by": ["maker"],
        "member_of": ["team"],
        "ledger_schema": "killed_ledger",
    }
    request = RoleRequest(**command)
    dice = random.Random(20)
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("_role_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None and worker.stdout is not None

    def ask(**line: Any) -> int:
        worker.stdin.write(json.dumps(line) + "\n")
        worker.stdin.flush()
        return int(worker.stdout.readline())

    seconds = []
    for _ in range(2):  # the first includes what the first session costs
        start = time.monotonic()
        ask(**command)
        assert ask() == 0
        seconds.append(time.monotonic() - start)
        drop(server, principal.client_id, "killed_own", "killed_ledger")
    found = []
    for _ in range(TIMES):
        pid = ask(**command)
        time.sleep(dice.uniform(0.2, 1.4) * seconds[-1])
        os.kill(pid, signal.SIGKILL)
        ask()
        wait_until_alone(server, emulator.administrator.client_id)
        dry = admin.bootstrap_role(request, dry_run=True)
        found.append(dry["changed"])
        if dry["changed"]:
            assert (dry["role"], dry["ledger"]) == ("created", "created")
            assert server.execute("SELECT FROM pg_roles WHERE rolname = %s", [principal.client_id]).fetchone() is None
        assert server.execute(BORROWED, [emulator.administrator.client_id]).fetchall() == [(0,)]
        assert admin.bootstrap_role(request)["role"] == ("created" if dry["changed"] else "found")
        assert not admin.bootstrap_role(request)["changed"]
        drop(server, principal.client_id, "killed_own", "killed_ledger")
    with worker:
        worker.stdin.close()
    print(f"{TIMES} kills, {found.count(True)} of them before the commit")


def test_bootstraps_of_two_identities_at_once(
    emulator: LakebaseEmulator, admin: LakebaseHook, server: psycopg.Connection[Any], schemas: list[str]
):
    """In one database, and in two at a time; both make default privileges of the same other role, and a membership."""
    admin.run("CREATE DATABASE beside", autocommit=True)
    errors: list[BaseException] = []
    reports: list[dict[str, Any]] = []

    def run(identity: str, database: str, number: int) -> None:
        request = RoleRequest(
            identity,
            schemas=dict.fromkeys(schemas[:2], "write") if database != "beside" else ["public"],
            owned_schemas=[f"own_{number}"],
            created_by=["maker"],
            member_of=["team"],
        )
        try:
            reports.append(LakebaseHook("lakebase_admin", database=database).bootstrap_role(request, prune=True))
        except BaseException as error:
            errors.append(error)

    identities = []
    try:
        for number in range(20):
            pair = [emulator.add_principal(f"pair {number} {side}").client_id for side in range(2)]
            identities += pair
            others = ("databricks_postgres", "beside" if number % 2 else "databricks_postgres")
            threads = [
                threading.Thread(target=run, args=(identity, database, side))
                for side, (identity, database) in enumerate(zip(pair, others, strict=True))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            for side in range(2):
                server.execute(f"DROP SCHEMA IF EXISTS own_{side}".encode())
            admin_beside = LakebaseHook("lakebase_admin", database="beside")
            admin_beside.run(f'GRANT "{pair[1]}" TO current_user; DROP SCHEMA IF EXISTS own_1')
    finally:
        admin.run("DROP DATABASE beside WITH (FORCE)", autocommit=True)
        for identity in identities:
            drop(server, identity)
    assert not errors
    assert [report["role"] for report in reports] == ["created"] * 40
