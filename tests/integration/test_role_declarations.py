"""What a declaration of a role can hold, who may carry it out, and what a task's log and report say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_lakebase.core.grants import bootstrap as module
from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator

if TYPE_CHECKING:
    from _synced_tables import World

ITSELF = "itself"


@pytest.fixture
def principal(emulator: LakebaseEmulator) -> Principal:
    return emulator.add_principal("declared")


@pytest.fixture
def superuser(emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        yield connection


@pytest.fixture
def schema(admin: LakebaseHook, superuser: psycopg.Connection[Any]) -> Iterator[str]:
    """A schema with a table and a function of the administrator."""
    superuser.execute("DROP SCHEMA IF EXISTS told CASCADE")
    admin.run(
        """CREATE SCHEMA told; CREATE TABLE told.orders (id serial PRIMARY KEY, amount int);
        CREATE TABLE told.prices (id int);
        CREATE FUNCTION told.total(int) RETURNS int LANGUAGE sql RETURN $1;
        CREATE FUNCTION told.total(text) RETURNS int LANGUAGE sql RETURN 1"""
    )
    yield "told"
    superuser.execute("DROP SCHEMA told CASCADE")


@pytest.fixture
def team(superuser: psycopg.Connection[Any], admin: LakebaseHook) -> Iterator[str]:
    admin.run("CREATE ROLE team")
    yield "team"
    superuser.execute("DROP OWNED BY team CASCADE")
    superuser.execute("DROP ROLE team")


def bootstrap(identity: str, conn_id: str = "lakebase_admin", **arguments: Any) -> Any:
    arguments.setdefault("schemas", [])
    arguments.setdefault("ledger_schema", None)
    operator = LakebaseRoleBootstrapOperator(
        task_id="bootstrap", lakebase_conn_id=conn_id, identity=identity, **arguments
    )
    return operator.execute({})


def test_named_tables_get_their_schema_and_the_sequences_of_their_columns(
    principal: Principal, schema: str, connect_as: Callable[..., str]
):
    bootstrap(principal.client_id, tables={"told.orders": "write", "told.prices": ["SELECT"]})
    hook = LakebaseHook(connect_as(principal))
    hook.run("INSERT INTO told.orders (amount) VALUES (1)")
    assert hook.get_records("SELECT * FROM told.prices") == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        hook.run("INSERT INTO told.prices VALUES (1)")


def test_a_function_is_named_with_its_types_where_several_have_its_name(
    principal: Principal, schema: str, admin: LakebaseHook
):
    admin.run("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA told FROM PUBLIC")
    with pytest.raises(AirflowFailException, match=r"may be one of total\(integer\), total\(text\)"):
        bootstrap(principal.client_id, functions=["told.total"])
    report = bootstrap(principal.client_id, functions=["told.total( int4 )"])
    assert report["granted"][1:] == ["USAGE on schema told", "EXECUTE on function told.total(integer)"]


@pytest.mark.parametrize(
    "arguments",
    ["numeric, text[]", "numeric(10,2), text[]", "numeric ( 10 , 2 ),VARIADIC text[]", "IN numeric, variadic _text"],
)
def test_the_types_of_arguments_may_have_a_size_and_a_mode(
    principal: Principal, schema: str, admin: LakebaseHook, arguments: str
):
    admin.run("CREATE FUNCTION told.num(numeric(10,2), VARIADIC text[]) RETURNS int LANGUAGE sql RETURN 1")
    report = bootstrap(principal.client_id, functions=[f"told.num({arguments})"])
    assert report["granted"][-1] == "EXECUTE on function told.num(numeric, text[])"


def test_a_type_may_have_a_comma_in_its_name(principal: Principal, schema: str, admin: LakebaseHook):
    admin.run('CREATE TYPE told."a,b" AS (a int); CREATE FUNCTION told.g(told."a,b") RETURNS int LANGUAGE sql RETURN 1')
    report = bootstrap(principal.client_id, functions=['told.g(told."a,b")'])
    assert report["granted"][-1] == 'EXECUTE on function told.g(told."a,b")'


def test_each_creating_role_gets_default_privileges(
    principal: Principal, schema: str, admin: LakebaseHook, team: str, connect_as: Callable[..., str]
):
    """Also one that the connection's role may only administer: what Lakebase gives whoever creates a role."""
    admin.run("GRANT USAGE, CREATE ON SCHEMA told TO team")
    report = bootstrap(principal.client_id, schemas={"told": "read"}, created_by=[team])
    assert "SELECT on later tables of 'team' in schema told" in report["granted"]
    admin.run("GRANT team TO current_user; SET ROLE team; CREATE TABLE told.later AS SELECT 1 AS id; RESET ROLE")
    assert LakebaseHook(connect_as(principal)).get_first("SELECT id FROM told.later") == (1,)


def test_an_empty_list_of_creating_roles_gives_nothing_on_later_tables(principal: Principal, schema: str):
    report = bootstrap(principal.client_id, schemas=["told"], created_by=[])
    assert report["granted"]
    assert not any("later" in text for text in report["granted"])


def test_an_owned_schema_needs_no_later_grant(
    principal: Principal, superuser: psycopg.Connection[Any], connect_as: Callable[..., str]
):
    superuser.execute('DROP SCHEMA IF EXISTS "Own" CASCADE')
    report = bootstrap(principal.client_id, owned_schemas=["Own", "Own"])
    assert report["created"] == [f"schema \"Own\" of '{principal.client_id}'"]
    hook = LakebaseHook(connect_as(principal))
    hook.run('CREATE TABLE "Own".t (id int); ALTER TABLE "Own".t ADD COLUMN name text; DROP SCHEMA "Own" CASCADE')
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        hook.run("CREATE SCHEMA other")
    borrowed = superuser.execute(
        "SELECT FROM pg_auth_members WHERE pg_get_userbyid(roleid) = %s AND (inherit_option OR set_option)",
        [principal.client_id],
    ).fetchall()
    assert borrowed == []


def test_a_schema_of_another_role_is_not_taken_silently(principal: Principal, schema: str):
    with pytest.raises(AirflowFailException, match=r"Schema 'told' belongs to .* schemas=\{\"told\": \"owner\"\}"):
        bootstrap(principal.client_id, owned_schemas=["told"])


def test_the_owner_of_a_schema_owns_what_is_in_it(
    principal: Principal, schema: str, admin: LakebaseHook, connect_as: Callable[..., str], team: str
):
    admin.run("GRANT team TO current_user; CREATE TABLE told.of_team (id int)")
    admin.run("GRANT CREATE, USAGE ON SCHEMA told TO team; ALTER TABLE told.of_team OWNER TO team")
    admin.run("REVOKE team FROM current_user")
    dry = bootstrap(principal.client_id, schemas={"told": "owner"}, dry_run=True)
    report = bootstrap(principal.client_id, schemas={"told": "owner"})
    assert {**dry, "dry_run": False} == report
    grantor = admin.get_first("SELECT current_user")[0]
    assert report["owned"] == [
        f"schema told, owned by '{grantor}' before",
        "table told.of_team, owned by 'team' before",
        f"2 tables in schema told, owned by '{grantor}' before",
        f"2 functions in schema told, owned by '{grantor}' before",
    ]
    LakebaseHook(connect_as(principal)).run(
        "ALTER TABLE told.orders ADD COLUMN note text; ALTER TABLE told.of_team RENAME TO mine; "
        "DROP FUNCTION told.total(int)"
    )
    assert not bootstrap(principal.client_id, schemas={"told": "owner"})["changed"]


def test_several_databases_each_have_a_transaction_and_all_are_looked_at_first(
    principal: Principal, emulator: LakebaseEmulator, admin: LakebaseHook, superuser: psycopg.Connection[Any]
):
    admin.run("CREATE DATABASE first_of_two", autocommit=True)
    admin.run("CREATE DATABASE second_of_two", autocommit=True)
    try:
        arguments = {"databases": ["first_of_two", "second_of_two"], "schemas": ["public"], "member_of": []}
        second = LakebaseHook("lakebase_admin", database="second_of_two")
        second.run("ALTER SCHEMA public RENAME TO other")
        with pytest.raises(AirflowFailException, match="Schema 'public' does not exist.*database second_of_two"):
            bootstrap(principal.client_id, **arguments)
        query = "SELECT count(*) FROM pg_roles WHERE rolname = %s"
        assert superuser.execute(query, [principal.client_id]).fetchall() == [(0,)]
        second.run("ALTER SCHEMA other RENAME TO public")
        dry = bootstrap(principal.client_id, dry_run=True, **arguments)
        report = bootstrap(principal.client_id, **arguments)
        assert {**dry, "dry_run": False} == report
        assert (report["role"], report["databases"]) == ("created", ["first_of_two", "second_of_two"])
        assert "USAGE on schema public (database second_of_two)" in report["granted"]
        assert not bootstrap(principal.client_id, **arguments)["changed"]
        with pytest.raises(AirflowFailException, match="database is 'x', and databases is given too"):
            bootstrap(principal.client_id, database="x", **arguments)
    finally:
        for name in ("first_of_two", "second_of_two"):
            admin.run(f"DROP DATABASE {name} WITH (FORCE)", autocommit=True)


def test_the_log_reads_as_a_sentence_for_each_change(
    principal: Principal,
    schema: str,
    admin: LakebaseHook,
    team: str,
    task_log: Callable[[], str],
):
    identity = principal.client_id
    bootstrap(identity, schemas={"told": "write"}, member_of=["team"])
    admin.run("GRANT SELECT ON told.prices TO team; GRANT TRUNCATE ON told.prices TO PUBLIC")
    grantor = admin.get_first("SELECT current_user")[0]
    task_log()
    arguments = {"schemas": {"told": ["SELECT"]}, "prune": True, "member_of": ["team"]}
    bootstrap(identity, dry_run=True, **arguments)
    log = task_log()
    would, did = f"Would revoke from '{identity}': ", f"Revoked from '{identity}': "
    assert f"{would}INSERT, UPDATE, DELETE on 2 tables in schema told, granted by '{grantor}'" in log
    bootstrap(identity, **arguments)
    log = task_log().removeprefix(log)
    assert f"{did}INSERT, UPDATE, DELETE on 2 tables in schema told, granted by '{grantor}'" in log
    assert f"{did}USAGE on sequence told.orders_id_seq, granted by '{grantor}'" in log
    assert f"{did}INSERT, UPDATE, DELETE on later tables of '{grantor}' in schema told, granted by" in log
    assert f"'{identity}' also has TRUNCATE on table told.prices, as every role has" in log


def test_prune_leaves_system_roles_and_says_so(
    principal: Principal, emulator: LakebaseEmulator, admin: LakebaseHook, superuser: psycopg.Connection[Any]
):
    bootstrap(principal.client_id)
    superuser.execute(f'GRANT databricks_superuser TO "{principal.client_id}"'.encode())
    report = bootstrap(principal.client_id, member_of=[], prune=True)
    assert report["revoked"] == []
    rows = [row for row in report["remaining"] if row["object"] == "role 'databricks_superuser'"]
    assert [row["why"] for row in rows] == ["'databricks_superuser' is a system role"]
    assert {row["from"] for row in report["remaining"]} >= {"databricks_superuser", "pg_read_all_data"}


def test_prune_revokes_nothing_from_the_owner_of_the_database(emulator: LakebaseEmulator, admin: LakebaseHook):
    owner = emulator.administrator.client_id
    admin.run("CREATE ROLE giver; GRANT CREATE ON SCHEMA public TO giver; GRANT giver TO current_user")
    admin.run(f'SET ROLE giver; CREATE TABLE public.given (id int); GRANT SELECT ON public.given TO "{owner}"')
    try:
        report = bootstrap(owner, prune=True, member_of=[])
        assert report["revoked"] == []
        rows = [row for row in report["remaining"] if "table public.given" in row["names"] and row["by"] == "direct"]
        assert [row["why"] for row in rows] == ["the role owns the database"]
    finally:
        admin.run("DROP OWNED BY giver CASCADE; DROP ROLE giver")


def test_objects_of_extensions_keep_what_was_granted(
    principal: Principal, schema: str, superuser: psycopg.Connection[Any]
):
    bootstrap(principal.client_id)
    superuser.execute(f'GRANT SELECT ON told.prices TO "{principal.client_id}"'.encode())
    superuser.execute("ALTER EXTENSION databricks_auth ADD TABLE told.prices")
    try:
        report = bootstrap(principal.client_id, prune=True)
        rows = [row for row in report["remaining"] if row["object"] == "table told.prices"]
        assert (report["revoked"], [row["why"] for row in rows]) == ([], ["the object belongs to an extension"])
    finally:
        superuser.execute("ALTER EXTENSION databricks_auth DROP TABLE told.prices")


def test_a_dry_run_needs_only_a_login(
    principal: Principal, schema: str, emulator: LakebaseEmulator, task_log: Callable[[], str]
):
    """The service principal may read no table in the schema, and grant nothing."""
    # By default, the later objects are those of the connection's own role.
    arguments = {"schemas": {"told": "read"}, "owned_schemas": ["unmade"], "prune": True, "default_privileges": False}
    report = bootstrap(principal.client_id, conn_id="lakebase_default", dry_run=True, **arguments)
    assert (report["role"], report["changed"]) == ("created", True)
    assert any("SELECT on 2 tables in schema told" in text for text in report["not_permitted"])
    lack = f"create role '{principal.client_id}': needs CREATEROLE"
    assert report["not_permitted"][0] == lack
    assert "The connection's role may not grant SELECT on 2 tables in schema told: it is neither" in task_log()
    as_owner = bootstrap(principal.client_id, dry_run=True, **arguments)
    assert as_owner["not_permitted"] == []
    for name in ("created", "granted", "revoked", "beyond"):
        assert as_owner[name] == report[name]


@pytest.mark.parametrize(
    ("given", "asked", "words"),
    [
        ("", {"schemas": ["told"]}, "may not grant USAGE on schema told: it is neither .* nor a member of it"),
        ("USAGE", {"owned_schemas": ["unmade"]}, "may not create schema unmade .*needs CREATE on database"),
        ("USAGE", {"member_of": ["team"]}, "may not grant membership of 'team': needs ADMIN OPTION on 'team'"),
        ("USAGE", {"schemas": {"told": "owner"}}, "may not own schema told.*it is neither .* nor a member of it"),
        ("USAGE", {"created_by": ["team"], "schemas": ["told"]}, "'team' in schema told: it is neither 'team'"),
    ],
)
def test_what_the_connections_role_lacks_is_said_before_anything_changes(
    principal: Principal,
    schema: str,
    team: str,
    emulator: LakebaseEmulator,
    superuser: psycopg.Connection[Any],
    connect_as: Callable[..., str],
    given: str,
    asked: dict[str, Any],
    words: str,
):
    bootstrap(principal.client_id)
    weak = emulator.add_principal("weak")
    bootstrap(weak.client_id)
    if given:
        superuser.execute(f'GRANT {given} ON SCHEMA told TO "{weak.client_id}"'.encode())
    before = superuser.execute("SELECT md5(string_agg(c::text, '')) FROM pg_namespace c").fetchall()
    with pytest.raises(AirflowFailException, match=f"Not permitted: '{weak.client_id}' .*{words}.*nothing was changed"):
        bootstrap(principal.client_id, conn_id=connect_as(weak), **asked)
    assert superuser.execute("SELECT md5(string_agg(c::text, '')) FROM pg_namespace c").fetchall() == before


def test_a_role_that_may_not_log_in_is_never_fine(principal: Principal, superuser: psycopg.Connection[Any]):
    bootstrap(principal.client_id)
    superuser.execute(f'ALTER ROLE "{principal.client_id}" NOLOGIN'.encode())
    for dry_run in (True, False):
        with pytest.raises(AirflowFailException, match="may not log in"):
            bootstrap(principal.client_id, dry_run=dry_run)


def test_a_role_without_a_databricks_identity_is_never_fine(principal: Principal, admin: LakebaseHook):
    admin.run(f'CREATE ROLE "{principal.client_id}" LOGIN')
    for arguments in ({}, {"dry_run": True}, {"prune": True}, {"databases": ["databricks_postgres"]}):
        with pytest.raises(AirflowFailException, match="has no Databricks identity"):
            bootstrap(principal.client_id, **arguments)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_role_of_another_type_of_identity_gets_nothing(
    principal: Principal, schema: str, superuser: psycopg.Connection[Any], dry_run: bool
):
    bootstrap(principal.client_id)
    words = (
        "exists with the identity type SERVICE_PRINCIPAL, so no GROUP can log in as it; "
        "nothing was changed.*identity_type"
    )
    with pytest.raises(AirflowFailException, match=words):
        bootstrap(principal.client_id, identity_type="GROUP", schemas=["told"], dry_run=dry_run)
    query = "SELECT has_schema_privilege(%s, 'told', 'USAGE')"
    assert superuser.execute(query, [principal.client_id]).fetchall() == [(False,)]


def test_only_its_pipeline_may_write_a_synced_table(
    principal: Principal, world: World, admin: LakebaseHook, task_log: Callable[[], str]
):
    identity, table = principal.client_id, world.settled(world.source({"id": [1]}))
    name = str(table.name).split(".")[-1]
    bootstrap(identity)
    admin.run(f'GRANT INSERT ON synced.{name} TO "{identity}"')
    what = f"tables asks for INSERT, UPDATE, DELETE on 'synced.{name}', which is a synced table"
    words = f"{what}; nothing was changed.*only its pipeline"
    for dry_run in (True, False):
        with pytest.raises(AirflowFailException, match=words):
            bootstrap(identity, tables={f"synced.{name}": "write"}, dry_run=dry_run)
    dry = bootstrap(identity, schemas=["synced"], prune=True, dry_run=True)
    report = bootstrap(identity, schemas=["synced"], prune=True)
    assert {**dry, "dry_run": False} == report
    assert f"SELECT on table synced.{name}" in report["granted"]
    assert any(text.startswith(f"INSERT on table synced.{name}, granted by ") for text in report["revoked"])
    assert report["synced"] == [f"synced.{name}"]
    assert f"no privilege to write to synced tables, since only their pipelines may: synced.{name}" in task_log()
    again = bootstrap(identity, schemas={"synced": "write"}, tables={f"synced.{name}": "read"})
    assert (again["changed"], again["synced"]) == (False, [f"synced.{name}"])


def test_thousands_of_tables_make_a_small_report(principal: Principal, schema: str, admin: LakebaseHook):
    create = "EXECUTE format('CREATE TABLE told.%I (id int)', 'table ' || n);"
    admin.run(f"DO $$ BEGIN FOR n IN 1..1500 LOOP {create} END LOOP; END $$")
    report = bootstrap(principal.client_id, schemas={"told": "read"})
    assert "SELECT on 1502 tables in schema told" in report["granted"]
    assert len(str(report)) < 20_000
    assert not bootstrap(principal.client_id, schemas={"told": "read"})["changed"]


def test_hook_params_reach_the_session_and_a_killed_task_grants_nothing(
    principal: Principal, emulator: LakebaseEmulator
):
    operator = LakebaseRoleBootstrapOperator(
        task_id="bootstrap",
        lakebase_conn_id="lakebase_admin",
        identity=principal.client_id,
        hook_params={"options": "-c default_transaction_read_only=on"},
    )
    with pytest.raises(AirflowFailException, match="read-only"):
        operator.execute({})
    killed = LakebaseRoleBootstrapOperator(
        task_id="bootstrap", lakebase_conn_id="lakebase_admin", identity=principal.client_id
    )
    killed.on_kill()
    with pytest.raises(AirflowException, match="cancelled"):
        killed.execute({})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"schemas": {"told": "reed"}}, "access to 'told' is 'reed'.*read, write, owner"),
        ({"schemas": {"told": 1}}, "access to 'told' is of type int"),
        ({"schemas": {"told": ["USAGE"]}}, "access to 'told' contains 'USAGE'.*SELECT"),
        ({"schemas": {"told": "read"}, "privileges": ["SELECT"]}, "privileges is given beside a mapping"),
        ({"schemas": {"told": "read"}, "owned_schemas": ["told"]}, "in schemas and in owned_schemas"),
        ({"tables": {"orders": "read"}}, "tables contains 'orders'.*schema and name"),
        ({"tables": ["told.orders"]}, "tables is of type list.*mapping"),
        ({"tables": {"told.orders": "owner"}}, "access to 'told.orders' is 'owner'"),
        ({"tables": {"told.nothing": "read"}}, "Table 'told.nothing' does not exist; nothing was changed"),
        ({"functions": ["total"]}, "functions contains 'total'"),
        ({"functions": ["told.nothing"]}, "Function 'told.nothing' does not exist"),
        *(
            (
                {"functions": [f"told.total({arguments})"]},
                r"is not named as SQL does.*Name only the types of its arguments: total\(integer\), total\(text\)",
            )
            for arguments in ("amount int", "int DEFAULT 0", "int)(text", "*", "'x'", "int[](", "a.b.c.d")
        ),
        ({"functions": ["told.total(nope)"]}, r"Function 'told.total\(nope\)' does not exist"),
        ({"functions": ["told.total(int, text)"]}, "does not exist"),
        ({"created_by": ["nobody"], "schemas": ["told"]}, "Role 'nobody' does not exist"),
        ({"created_by": ["x"], "tables": {"told.orders": "read"}}, "created_by is given without schemas"),
        ({"privileges": ["SELECT"]}, "privileges is given without schemas"),
        ({"created_by": ["x"], "default_privileges": False}, "created_by is given without default_privileges"),
        ({"owned_schemas": ["pg_own"]}, "owned_schemas has the schema 'pg_own'"),
        ({"ledger_schema": "y" * 64}, "ledger_schema has the schema 'yyy.*63 bytes"),
        ({"member_of": ["nobody"]}, "Role 'nobody' does not exist"),
        ({"member_of": [ITSELF]}, "member_of contains the identity itself"),
        ({"databases": []}, "databases is empty"),
        ({"databases": "x"}, "databases is of type str"),
        ({"dry_run": "False"}, "dry_run is 'False'"),
        ({"prune": "False"}, "prune is 'False'"),
    ],
)
def test_bad_declarations_are_named(principal: Principal, schema: str, arguments: dict[str, Any], words: str):
    if arguments.get("member_of") == [ITSELF]:
        arguments = {"member_of": [principal.client_id]}
    with pytest.raises(AirflowFailException, match=words):
        bootstrap(principal.client_id, **arguments)


def test_a_circular_membership_is_refused(principal: Principal, admin: LakebaseHook, team: str):
    bootstrap(principal.client_id)
    admin.run(f'CREATE ROLE between; GRANT "{principal.client_id}" TO between; GRANT between TO team')
    try:
        for role in (team, "between"):
            lack = f"grant membership of '{role}': '{role}' is itself a member of '{principal.client_id}'"
            assert bootstrap(principal.client_id, member_of=[role], dry_run=True)["not_permitted"] == [lack]
            with pytest.raises(AirflowFailException, match=f"Not permitted: .* may not {lack}; nothing was changed"):
                bootstrap(principal.client_id, member_of=[role])
    finally:
        admin.run("DROP ROLE between")


def test_the_hook_takes_the_same_request(principal: Principal, schema: str, admin: LakebaseHook):
    request = RoleRequest(principal.client_id, schemas={"told": "read"}, ledger_schema=None)
    assert admin.bootstrap_role(request, dry_run=True)["changed"]
    assert admin.bootstrap_role(request)["changed"]
    assert not admin.bootstrap_role(request, prune=True)["changed"]


def test_a_ledger_in_a_schema_of_the_identity_is_left_to_its_own_loads(
    principal: Principal, superuser: psycopg.Connection[Any], connect_as: Callable[..., str]
):
    bootstrap(principal.client_id, create_on_database=True)
    hook = LakebaseHook(connect_as(principal))
    hook.run("CREATE SCHEMA own_ledger")
    superuser.execute("REVOKE ALL ON SCHEMA own_ledger FROM databricks_superuser")
    try:
        assert not bootstrap(principal.client_id, create_on_database=True, ledger_schema="own_ledger")["changed"]
    finally:
        hook.run("DROP SCHEMA own_ledger")


def test_a_table_that_others_create_meanwhile_is_granted_too(
    principal: Principal, schema: str, admin: LakebaseHook, monkeypatch: pytest.MonkeyPatch
):
    make, created = module._make, []

    def create_a_table_first(*arguments: Any) -> None:
        if not created:
            created.append("told.meanwhile")
            admin.run("CREATE TABLE told.meanwhile (id int)")
        make(*arguments)

    monkeypatch.setattr(module, "_make", create_a_table_first)
    assert "SELECT on table told.meanwhile" in bootstrap(principal.client_id, schemas={"told": "read"})["granted"]
    assert not bootstrap(principal.client_id, schemas={"told": "read"})["changed"]


def test_who_may_not_create_schemas_is_told_in_a_dry_run_that_it_cannot_give_one_away(
    principal: Principal,
    emulator: LakebaseEmulator,
    superuser: psycopg.Connection[Any],
    connect_as: Callable[..., str],
):
    mover = emulator.add_principal("mover")
    bootstrap(mover.client_id, create_on_database=True)
    bootstrap(principal.client_id)
    connect_as(mover, "lakebase_mover")
    LakebaseHook("lakebase_mover").run("CREATE SCHEMA moved")
    superuser.execute(f'GRANT "{principal.client_id}" TO "{mover.client_id}"')
    superuser.execute(f'REVOKE CREATE ON DATABASE databricks_postgres FROM "{mover.client_id}"')
    try:
        report = bootstrap(principal.client_id, "lakebase_mover", schemas={"moved": "owner"}, dry_run=True)
        assert "needs CREATE on database databricks_postgres" in report["not_permitted"][0]
        with pytest.raises(AirflowFailException, match="needs CREATE on database.*nothing was changed"):
            bootstrap(principal.client_id, "lakebase_mover", schemas={"moved": "owner"})
    finally:
        superuser.execute("DROP SCHEMA moved")


def test_prune_leaves_a_table_whose_column_the_role_has_granted_to_others(
    principal: Principal, superuser: psycopg.Connection[Any], team: str, schema: str
):
    identity = principal.client_id
    bootstrap(identity, schemas={"told": "read"})
    superuser.execute(
        f"""GRANT UPDATE (id) ON told.prices TO "{identity}" WITH GRANT OPTION;
        GRANT UPDATE ON told.prices TO "{identity}";
        SET ROLE "{identity}"; GRANT UPDATE (id) ON told.prices TO {team}; RESET ROLE"""
    )
    report = bootstrap(identity, schemas={"told": ["INSERT"]}, prune=True)
    kept = {row["object"]: row["why"] for row in report["remaining"] if row["by"] == "direct"}
    assert kept == dict.fromkeys(
        ("table told.prices", "column id of table told.prices"), "the role has granted it to others"
    )
    assert not bootstrap(identity, schemas={"told": ["INSERT"]}, prune=True)["changed"]
