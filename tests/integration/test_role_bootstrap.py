"""An identity gets its role and grants: once, all of them or none, read back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from psycopg import sql

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator


@pytest.fixture
def principal(emulator: LakebaseEmulator) -> Principal:
    return emulator.add_principal("etl")


@pytest.fixture
def schema(admin: LakebaseHook) -> Iterator[str]:
    """A schema of the administrator's with a table, a sequence and a name that needs quoting."""
    admin.run(
        """DROP SCHEMA IF EXISTS "Sales 2026" CASCADE; CREATE SCHEMA "Sales 2026";
        CREATE TABLE "Sales 2026"."Orders" (id serial PRIMARY KEY, amount int)"""
    )
    yield "Sales 2026"
    admin.run('DROP SCHEMA "Sales 2026" CASCADE')


@pytest.fixture
def empty_schema(admin: LakebaseHook) -> Iterator[str]:
    admin.run("DROP SCHEMA IF EXISTS empty CASCADE; CREATE SCHEMA empty")
    yield "empty"
    admin.run("DROP SCHEMA empty CASCADE")


def bootstrap(identity: str, conn_id: str = "lakebase_admin", **arguments: Any) -> Any:
    operator = LakebaseRoleBootstrapOperator(
        task_id="bootstrap", lakebase_conn_id=conn_id, identity=identity, **arguments
    )
    return operator.execute({})


def test_the_first_run_creates_and_the_second_changes_nothing(
    principal: Principal, schema: str, empty_schema: str, admin: LakebaseHook, task_log: Callable[[], str]
):
    schemas = [empty_schema, schema]
    first = bootstrap(principal.client_id, schemas=schemas, create_on_database=True)
    assert (first["role"], first["changed"]) == ("created", True)
    assert first["identity"] == principal.client_id
    assert first["databases"] == ["databricks_postgres"]
    grantor = admin.get_first("SELECT current_user")[0]
    assert first["granted"] == [
        "CONNECT, CREATE on database databricks_postgres",
        "USAGE on schema empty",
        f"SELECT, INSERT, UPDATE, DELETE on later tables of '{grantor}' in schema empty",
        f"SELECT, USAGE on later sequences of '{grantor}' in schema empty",
        'USAGE on schema "Sales 2026"',
        'SELECT, INSERT, UPDATE, DELETE on table "Sales 2026"."Orders"',
        'SELECT, USAGE on sequence "Sales 2026"."Orders_id_seq"',
        f"SELECT, INSERT, UPDATE, DELETE on later tables of '{grantor}' in schema \"Sales 2026\"",
        f"SELECT, USAGE on later sequences of '{grantor}' in schema \"Sales 2026\"",
        "USAGE on schema airflow_lakebase",
        "SELECT, INSERT, UPDATE, DELETE on 3 tables in schema airflow_lakebase",
    ]
    second = bootstrap(principal.client_id, schemas=schemas, create_on_database=True)
    assert second == {
        **first,
        "extension": "found",
        "role": "found",
        "ledger": "found",
        "created": [],
        "granted": [],
        "short": [],
        "changed": False,
    }
    assert "nothing was changed" in task_log()


def test_the_identity_can_write_now_and_into_tables_made_later(
    principal: Principal, schema: str, admin: LakebaseHook, connect_as: Callable[..., str]
):
    bootstrap(principal.client_id, schemas=[schema])
    admin.run(f'CREATE TABLE "{schema}".later (id serial, amount int)')
    hook = LakebaseHook(connect_as(principal))
    for table in ("Orders", "later"):
        hook.run(f'INSERT INTO "{schema}"."{table}" (amount) VALUES (1)')
        assert hook.get_first(f'SELECT id, amount FROM "{schema}"."{table}"') == (1, 1)


def test_a_grant_that_was_revoked_is_given_again(principal: Principal, schema: str, admin: LakebaseHook):
    bootstrap(principal.client_id, schemas=[schema])
    admin.run(f'REVOKE INSERT ON "{schema}"."Orders" FROM "{principal.client_id}"')
    again = bootstrap(principal.client_id, schemas=[schema])
    assert again["granted"] == ['INSERT on table "Sales 2026"."Orders"']


def test_without_default_privileges_later_tables_stay_closed(
    principal: Principal, schema: str, admin: LakebaseHook, connect_as: Callable[..., str]
):
    bootstrap(principal.client_id, schemas=[schema], privileges=["SELECT"], default_privileges=False)
    admin.run(f'CREATE TABLE "{schema}".later (id int)')
    hook = LakebaseHook(connect_as(principal))
    assert hook.get_records(f'SELECT * FROM "{schema}"."Orders"') == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        hook.get_records(f'SELECT * FROM "{schema}".later')
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        hook.run(f'INSERT INTO "{schema}"."Orders" (amount) VALUES (1)')


def test_with_create_on_the_database_the_identity_owns_schemas_of_its_own(
    principal: Principal, connect_as: Callable[..., str]
):
    bootstrap(principal.client_id, create_on_database=True)
    hook = LakebaseHook(connect_as(principal))
    hook.run("CREATE SCHEMA of_its_own; CREATE TABLE of_its_own.t (id int); DROP SCHEMA of_its_own CASCADE")


def test_a_role_without_databricks_identity_is_refused(principal: Principal, admin: LakebaseHook):
    admin.run(f'CREATE ROLE "{principal.client_id}" LOGIN')
    with pytest.raises(AirflowFailException, match="has no Databricks identity.*Drop or rename that role"):
        bootstrap(principal.client_id)


def test_an_identity_that_the_workspace_does_not_know_is_refused(emulator: LakebaseEmulator):
    with pytest.raises(AirflowFailException, match="has no SERVICE_PRINCIPAL 'Airflow'.*client ID"):
        bootstrap("Airflow")


def test_a_user_and_a_group_get_roles_by_their_names(emulator: LakebaseEmulator):
    emulator.add_principal("ada@example.com", identity_type="USER")
    emulator.add_principal("Data Engineers", identity_type="GROUP")
    assert bootstrap("ada@example.com", identity_type="USER")["role"] == "created"
    assert bootstrap("Data Engineers", identity_type="GROUP")["role"] == "created"


def test_a_grant_without_effect_is_an_error_and_nothing_is_half_granted(
    principal: Principal, schema: str, admin: LakebaseHook, emulator: LakebaseEmulator
):
    """The administrator lost the table to another owner and kept SELECT: a GRANT by it would only warn."""
    superuser = psycopg.connect(emulator.superuser_conninfo, autocommit=True)
    try:
        superuser.execute(f'ALTER TABLE "{schema}"."Orders" OWNER TO cloud_admin')
        superuser.execute(f'REVOKE ALL ON "{schema}"."Orders" FROM databricks_superuser')
        superuser.execute(
            f'GRANT SELECT ON "{schema}"."Orders" TO "{emulator.administrator.client_id}" WITH GRANT OPTION'
        )
        with pytest.raises(
            AirflowFailException,
            match="may not grant SELECT, .*Orders.*nothing was changed.*Connect as the project's owner",
        ):
            bootstrap(principal.client_id, schemas=[schema])
        role = superuser.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [principal.client_id]).fetchone()
        assert role is None
    finally:
        superuser.execute(f'ALTER TABLE "{schema}"."Orders" OWNER TO "{emulator.administrator.client_id}"')
        superuser.close()


def test_an_identity_that_may_not_create_roles_is_told_so(principal: Principal, emulator: LakebaseEmulator):
    with pytest.raises(
        AirflowFailException, match="may not create role .*: permission denied.*nothing was changed.*needs CREATEROLE"
    ):
        bootstrap(principal.client_id, conn_id="lakebase_default")


def test_objects_of_extensions_are_left_alone(principal: Principal, schema: str, emulator: LakebaseEmulator):
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute(f'CREATE TABLE "{schema}".of_an_extension (id int)')
        superuser.execute(f'ALTER EXTENSION databricks_auth ADD TABLE "{schema}".of_an_extension')
        try:
            report = bootstrap(principal.client_id, schemas=[schema])
            assert 'SELECT, INSERT, UPDATE, DELETE on table "Sales 2026"."Orders"' in report["granted"]
        finally:
            superuser.execute(f'ALTER EXTENSION databricks_auth DROP TABLE "{schema}".of_an_extension')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"identity": " "}, "identity is ' '.*client ID"),
        ({"identity_type": "ROBOT"}, "identity_type is 'ROBOT'.*SERVICE_PRINCIPAL"),
        ({"privileges": ["DROP"]}, "privileges contains 'DROP'.*SELECT"),
        ({"privileges": ["SELECT; DROP TABLE x"]}, "privileges contains"),
        ({"schemas": "public"}, "schemas is of type str"),
        ({"schemas": None}, "schemas is of type NoneType"),
        ({"schemas": ["nowhere"]}, "Schema 'nowhere' does not exist; nothing was changed"),
    ],
)
def test_bad_arguments_are_named(principal: Principal, arguments: dict[str, Any], words: str):
    with pytest.raises(AirflowFailException, match=words):
        bootstrap(**{"identity": principal.client_id, **arguments})


def test_names_are_quoted(emulator: LakebaseEmulator, admin: LakebaseHook):
    name = 'o"; DROP TABLE x; --@example.com'
    emulator.add_principal(name, identity_type="USER")
    assert bootstrap(name, identity_type="USER")["role"] == "created"
    assert admin.get_first("SELECT count(*) FROM pg_roles WHERE rolname = %s", [name]) == (1,)


@pytest.mark.parametrize("name", ["ada.smith@example.com", "Data Owners"])
def test_a_grantor_may_have_any_name(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch, name: str):
    grantor = emulator.add_principal(name, identity_type="USER")
    bootstrap(name, identity_type="USER", create_on_database=True)
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        for statement in (
            "ALTER ROLE {0} CREATEROLE",
            "CREATE SCHEMA {0} AUTHORIZATION {0}",
            "GRANT ALL ON DATABASE databricks_postgres TO {0} WITH GRANT OPTION",
        ):
            superuser.execute(sql.SQL(statement).format(sql.Identifier(name)))
    token = emulator.issue_personal_access_token(grantor)
    warehouse = {"conn_type": "databricks", "host": emulator.workspace_url, "password": token}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    extra = {"databricks_conn_id": "warehouse", "endpoint": emulator.endpoint}
    connection = {"conn_type": "lakebase", "port": emulator.port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GRANTOR", json.dumps(connection))
    identity = emulator.add_principal("granted by a person").client_id
    first, second = (bootstrap(identity, conn_id="grantor", schemas=[name], ledger_schema=name) for _ in range(2))
    assert (first["role"], first["changed"], second["changed"]) == ("created", True, False)


def test_bootstraps_in_several_databases_at_once(emulator: LakebaseEmulator, admin: LakebaseHook):
    names = [f"at_once_{number}" for number in range(3)]
    for name in names:
        admin.run(f"CREATE DATABASE {name}", autocommit=True)
    created: list[str] = []

    def run(identity: str, database: str) -> None:
        request = RoleRequest(identity)
        created.append(LakebaseHook("lakebase_admin", database=database).bootstrap_role(request)["role"])

    try:
        for number in range(5):
            identity = emulator.add_principal(f"at once {number}").client_id
            threads = [threading.Thread(target=run, args=(identity, name)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        for name in names:
            admin.run(f"DROP DATABASE {name} WITH (FORCE)", autocommit=True)
    assert sorted(created) == ["created"] * 5 + ["found"] * 10


def test_the_search_path_does_not_matter(principal: Principal):
    hook = LakebaseHook("lakebase_admin", options="-c search_path=pg_catalog")
    assert hook.bootstrap_role(RoleRequest(principal.client_id))["role"] == "created"
