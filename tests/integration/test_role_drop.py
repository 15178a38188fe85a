"""A role is dropped, and what it owned belongs to another role, in every database; or nothing is changed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lakebase.core.grants import drop as module
from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal
from airflow_provider_lakebase.exceptions import LakebaseRoleError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.role import LakebaseDropRoleOperator

HOME, SALES, QUOTED = "databricks_postgres", "drop_sales", 'Drop "2026"'


@dataclass
class Roles:
    """A role that owns something in three databases, one that is to get it, and one that was granted some of it."""

    old: Principal
    heir: Principal
    reader: Principal


@pytest.fixture(scope="module")
def databases(shared_emulator: LakebaseEmulator) -> Iterator[None]:
    with closing(LakebaseHook("lakebase_admin").get_conn()) as session:
        session.autocommit = True
        for name in (SALES, QUOTED):
            session.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        yield
    with psycopg.connect(shared_emulator.superuser_conninfo, autocommit=True) as superuser:
        for name in (SALES, QUOTED):
            superuser.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))


@pytest.fixture
def roles(emulator: LakebaseEmulator, databases: None, connect_as: Callable[..., str]) -> Iterator[Roles]:
    with made_roles(emulator, connect_as) as made:
        yield made


@contextmanager
def made_roles(emulator: LakebaseEmulator, connect_as: Callable[..., str]) -> Iterator[Roles]:
    made = Roles(*(emulator.add_principal(name) for name in ("old", "heir", "reader")))
    admin = LakebaseHook("lakebase_admin")
    for each in (made.old, made.heir, made.reader):
        admin.bootstrap_role(RoleRequest(each.client_id, create_on_database=True))
    old, reader = made.old.client_id, made.reader.client_id
    for database in (SALES, QUOTED):
        LakebaseHook("lakebase_admin", database=database).run(
            f"""GRANT CREATE ON DATABASE "{database.replace('"', '""')}" TO "{old}";
            CREATE TABLE IF NOT EXISTS public.everyones (id int); GRANT SELECT ON public.everyones TO "{old}" """
        )
    connect_as(made.old, "lakebase_old")
    connect_as(made.reader, "lakebase_reader")
    for database in (HOME, SALES, QUOTED):
        LakebaseHook("lakebase_old", database=database).run(
            f"""CREATE SCHEMA "Of old"; CREATE TABLE "Of old"."Orders" (id serial PRIMARY KEY);
            CREATE VIEW "Of old".view AS SELECT * FROM "Of old"."Orders";
            CREATE FUNCTION "Of old".f() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE TYPE "Of old".kind AS ENUM ('a'); SELECT lo_create(0);
            GRANT USAGE ON SCHEMA "Of old" TO "{reader}"; GRANT SELECT ON "Of old"."Orders" TO "{reader}";
            ALTER DEFAULT PRIVILEGES IN SCHEMA "Of old" GRANT SELECT ON TABLES TO "{reader}" WITH GRANT OPTION;
            ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"""
        )
    yield made
    for each in (made.old, made.heir, made.reader):
        admin.drop_role(each.client_id, reassign_owned_to=emulator.administrator.client_id)
    for database in (HOME, SALES, QUOTED):
        LakebaseHook("lakebase_admin", database=database).run(
            'DROP SCHEMA IF EXISTS "Of old" CASCADE; DROP TABLE IF EXISTS public.everyones'
        )


def drop(identity: str, heir: str | None = None, conn_id: str = "lakebase_admin", **arguments: Any) -> Any:
    operator = LakebaseDropRoleOperator(
        task_id="drop", lakebase_conn_id=conn_id, identity=identity, reassign_owned_to=heir, **arguments
    )
    return operator.execute({})


CATALOG = """
    SELECT classid::regclass::text, pg_describe_object(classid, objid, objsubid), rolname, deptype::text
    FROM pg_shdepend JOIN pg_roles r ON r.oid = refobjid
    WHERE dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION ALL
    SELECT 'acl', nspname || relname, relacl::text, '' FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = 'Of old' OR relname = 'everyones'
    UNION ALL
    SELECT 'member', roleid::regrole::text || member::regrole::text, grantor::regrole::text,
        admin_option::text || inherit_option || set_option FROM pg_auth_members
    UNION ALL SELECT 'role', rolname, '', '' FROM pg_roles
    ORDER BY 1, 2, 3, 4
"""


def snapshot(emulator: LakebaseEmulator) -> list[Any]:
    """Return who owns and may do what, in all databases."""
    found = []
    for database in (HOME, SALES, QUOTED):
        info = psycopg.conninfo.make_conninfo(emulator.superuser_conninfo, dbname=database)
        with psycopg.connect(info) as superuser:
            found.append(superuser.execute(CATALOG).fetchall())
    return found


def left_of(emulator: LakebaseEmulator, role: str) -> list[Any]:
    return [row for database in snapshot(emulator) for row in database if role in str(row)]


def test_what_it_owned_belongs_to_the_heir_in_every_database(
    roles: Roles, emulator: LakebaseEmulator, connect_as: Callable[..., str], task_log: Callable[[], str]
):
    old, heir, reader = (each.client_id for each in (roles.old, roles.heir, roles.reader))
    members = [row for row in snapshot(emulator)[0] if row[0] == "member" and old not in row[1]]
    report = drop(old, heir)
    assert (report["role"], report["changed"], report["default_privileges"]) == ("dropped", True, 6)
    assert set(report["databases"]) == {HOME, SALES, QUOTED}
    assert 'table "Of old"."Orders"' in report["databases"][QUOTED]
    assert left_of(emulator, old) == []
    # The memberships that it needed are gone.
    assert [row for row in snapshot(emulator)[0] if row[0] == "member"] == members
    connect_as(roles.heir, "lakebase_heir")
    for database in (HOME, SALES, QUOTED):
        hook = LakebaseHook("lakebase_heir", database=database)
        hook.run('INSERT INTO "Of old"."Orders" DEFAULT VALUES; CREATE TABLE "Of old".later (id int)')
        hook.run("""CREATE FUNCTION "Of old".g() RETURNS int LANGUAGE sql AS 'SELECT 1'""")
        for table in ("Orders", "later"):
            LakebaseHook("lakebase_reader", database=database).get_records(f'SELECT * FROM "Of old"."{table}"')
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            LakebaseHook("lakebase_reader", database=database).get_records('SELECT "Of old".g()')
        owners = "SELECT DISTINCT lomowner::regrole::text FROM pg_largeobject_metadata"
        assert hook.get_records(owners) == [(f'"{heir}"',)]
    log = task_log()
    assert f"objects in database '{SALES}' to '{heir}'" in log
    assert f"Dropped role '{old}'" in log
    again = drop(old, heir)
    assert (again["role"], again["changed"]) == ("gone", False)
    assert f"There is no role '{old}'; nothing was changed" in task_log()
    assert reader


def test_without_heir_a_role_that_owns_something_stays_as_it_is(roles: Roles, emulator: LakebaseEmulator):
    before = snapshot(emulator)
    with pytest.raises(AirflowFailException, match=r"it owns .*Of old.*nothing was changed.*reassign_owned_to"):
        drop(roles.old.client_id)
    assert snapshot(emulator) == before


def test_without_heir_a_role_that_owns_nothing_is_dropped_with_its_grants(roles: Roles, emulator: LakebaseEmulator):
    report = drop(roles.reader.client_id)
    assert (report["role"], report["databases"]) == ("dropped", {})
    assert left_of(emulator, roles.reader.client_id) == []


def test_functions_in_a_schema_in_which_the_heir_may_not_create_are_its_own_too(
    roles: Roles, emulator: LakebaseEmulator
):
    old, heir = roles.old.client_id, roles.heir.client_id
    admin = LakebaseHook("lakebase_admin", database=SALES)
    admin.run(f'CREATE SCHEMA "Shared"; GRANT USAGE, CREATE ON SCHEMA "Shared" TO "{old}"')
    LakebaseHook("lakebase_old", database=SALES).run(
        """CREATE FUNCTION "Shared".f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE "Shared".t AS ENUM ('a')"""
    )
    drop(old, heir)
    query = "SELECT proowner::regrole::text, nspacl::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace"
    owner, access = admin.get_first(f"{query} WHERE nspname = 'Shared'")
    assert owner == f'"{heir}"'
    assert heir not in access
    admin.run('DROP SCHEMA "Shared" CASCADE')


def test_grants_of_owners_that_it_is_a_member_of_and_of_the_databases_owner_are_revoked(
    roles: Roles, emulator: LakebaseEmulator, admin: LakebaseHook
):
    """Postgres would revoke in the name of databricks_superuser, which has not granted them."""
    old, heir, reader = (each.client_id for each in (roles.old, roles.heir, roles.reader))
    LakebaseHook("lakebase_reader").run(
        f"""CREATE SCHEMA of_reader; GRANT USAGE ON SCHEMA of_reader TO "{old}";
        CREATE TABLE of_reader."T {0} %" (a int, b int); GRANT SELECT (a) ON of_reader."T {0} %" TO "{old}";
        CREATE SEQUENCE of_reader.s; GRANT USAGE ON SEQUENCE of_reader.s TO "{old}";
        CREATE FUNCTION of_reader.f("A" int) RETURNS int LANGUAGE sql AS 'SELECT 1';
        GRANT EXECUTE ON FUNCTION of_reader.f TO "{old}" WITH GRANT OPTION;
        CREATE TYPE of_reader."Kind" AS ENUM ('a'); GRANT USAGE ON TYPE of_reader."Kind" TO "{old}" """
    )
    admin.run(f'GRANT "{reader}" TO "{old}"')
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute(f'GRANT USAGE ON SCHEMA public TO "{old}"')
        superuser.execute(f'GRANT CREATE ON DATABASE {SALES} TO "{old}"')
    assert drop(old, heir)["role"] == "dropped"
    assert left_of(emulator, old) == []
    LakebaseHook("lakebase_reader").run("DROP SCHEMA of_reader CASCADE")


def test_what_one_database_refuses_is_known_before_anything_is_changed(roles: Roles, emulator: LakebaseEmulator):
    """In the last database someone else has granted it something, which the session may not revoke."""
    old = roles.old.client_id
    info = psycopg.conninfo.make_conninfo(emulator.superuser_conninfo, dbname=SALES)
    with psycopg.connect(info, autocommit=True) as superuser:
        superuser.execute(f'CREATE TABLE public.secret (id int); GRANT SELECT ON public.secret TO "{old}"')
        before = snapshot(emulator)
        with pytest.raises(AirflowFailException, match=r"database 'drop_sales'.*table secret; nothing was changed"):
            drop(old, roles.heir.client_id)
        assert snapshot(emulator) == before
        superuser.execute("DROP TABLE public.secret")


def test_a_database_that_allows_no_connections_is_named_before_anything_is_changed(
    roles: Roles, emulator: LakebaseEmulator
):
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute(f"ALTER DATABASE {SALES} ALLOW_CONNECTIONS false")
        before = superuser.execute(CATALOG).fetchall()
        with pytest.raises(AirflowFailException, match=r"allow no connections: drop_sales; nothing was changed"):
            drop(roles.old.client_id, roles.heir.client_id)
        assert superuser.execute(CATALOG).fetchall() == before
        superuser.execute(f"ALTER DATABASE {SALES} ALLOW_CONNECTIONS true")


def test_a_database_that_the_session_may_not_enter_is_named_before_anything_is_changed(
    roles: Roles, emulator: LakebaseEmulator
):
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        others = f'PUBLIC, databricks_superuser, "{emulator.administrator.client_id}"'
        superuser.execute(f"REVOKE CONNECT ON DATABASE {SALES} FROM {others}")
        before = superuser.execute(CATALOG).fetchall()
        with pytest.raises(AirflowFailException, match=r"database 'drop_sales'.*may not connect.*nothing was changed"):
            drop(roles.old.client_id, roles.heir.client_id)
        assert superuser.execute(CATALOG).fetchall() == before
        superuser.execute(f"GRANT CONNECT ON DATABASE {SALES} TO {others}")


def test_an_identity_below_the_owner_is_refused_and_changes_nothing(
    roles: Roles, emulator: LakebaseEmulator, connect_as: Callable[..., str]
):
    connect_as(roles.heir, "lakebase_heir")
    before = snapshot(emulator)
    with pytest.raises(AirflowFailException, match=r"Not permitted.*nothing was changed.*identity that created"):
        drop(roles.old.client_id, roles.heir.client_id, conn_id="lakebase_heir")
    assert snapshot(emulator) == before


def test_its_own_role_system_roles_and_the_owner_are_refused(
    roles: Roles, emulator: LakebaseEmulator, connect_as: Callable[..., str]
):
    owner = emulator.administrator.client_id
    connect_as(roles.heir, "lakebase_heir")
    before = snapshot(emulator)
    for name, conn_id, told in (
        (owner, "lakebase_admin", "is the role of this session"),
        (owner, "lakebase_heir", "is the owner of database 'databricks_postgres'"),
        ("databricks_superuser", "lakebase_admin", "is a system role"),
        ("cloud_admin", "lakebase_admin", "is a system role"),
        ("pg_monitor", "lakebase_admin", "is a system role"),
    ):
        with pytest.raises(AirflowFailException, match=f"'{name}' {told}.*nothing was changed"):
            drop(name, roles.heir.client_id, conn_id=conn_id)
    for heir, told in (
        ("databricks_superuser", "is a system role"),
        ("nobody", "There is no role"),
        (roles.old.client_id, "is"),
    ):
        with pytest.raises(AirflowFailException, match=told):
            drop(roles.old.client_id, heir)
    assert snapshot(emulator) == before


def test_a_name_that_postgres_would_cut_drops_no_other_role(roles: Roles, emulator: LakebaseEmulator):
    name = "é" * 31 + "x"
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {name}")
        try:
            before = snapshot(emulator)
            for identity, heir in ((f"{name}y", None), (roles.old.client_id, f"{name}y")):
                with pytest.raises(AirflowFailException, match="63 bytes at most"):
                    drop(identity, heir)
            assert snapshot(emulator) == before
        finally:
            superuser.execute(f"DROP ROLE {name}")


def test_a_database_that_it_owns_goes_to_the_heir(roles: Roles, emulator: LakebaseEmulator):
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        superuser.execute(f'ALTER DATABASE {SALES} OWNER TO "{roles.old.client_id}"')
        drop(roles.old.client_id, roles.heir.client_id)
        query = "SELECT datdba::regrole::text FROM pg_database WHERE datname = %s"
        assert superuser.execute(query, [SALES]).fetchone() == (f'"{roles.heir.client_id}"',)
        superuser.execute(f'ALTER DATABASE {SALES} OWNER TO "{emulator.administrator.client_id}"')


def test_its_open_sessions_are_ended(roles: Roles, task_log: Callable[[], str]):
    with closing(LakebaseHook("lakebase_old").get_conn()) as session:
        session.autocommit = True
        session.execute("CREATE TEMPORARY TABLE mine (id int)")
        assert drop(roles.old.client_id, roles.heir.client_id)["sessions"] == 1
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert "Ended 1 session" in task_log()


def test_a_temporary_table_of_an_open_session_keeps_no_role(roles: Roles):
    with closing(LakebaseHook("lakebase_reader").get_conn()) as session:
        session.autocommit = True
        session.execute("CREATE TEMPORARY TABLE mine (id int)")
        assert drop(roles.reader.client_id)["role"] == "dropped"


def test_a_lock_on_its_objects_is_waited_for_a_while_and_the_error_may_be_retried(
    roles: Roles, emulator: LakebaseEmulator
):
    with closing(LakebaseHook("lakebase_old").get_conn()) as session:
        session.execute('SELECT * FROM "Of old"."Orders"')
        before = snapshot(emulator)
        with pytest.raises(LakebaseRoleError, match="holds a lock.*nothing was changed") as caught:
            drop(roles.old.client_id, roles.heir.client_id, hook_params={"options": "-c lock_timeout=100ms"})
        assert caught.value.retryable
        assert snapshot(emulator) == before


def test_objects_made_while_it_runs_keep_the_role_and_a_retry_goes_on(
    roles: Roles, connect_as: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    old, done = roles.old.client_id, module._Drop._log
    sales = LakebaseHook("lakebase_admin", database=SALES)
    sales.run(f"GRANT CREATE ON DATABASE {SALES} TO PUBLIC")

    def log(self: Any, database: str, report: Any) -> None:
        done(self, database, report)
        LakebaseHook("lakebase_old", database=SALES).run("CREATE SCHEMA meanwhile")

    monkeypatch.setattr(module._Drop, "_log", lambda *given: (log if given[1] == SALES else done)(*given))
    with pytest.raises(LakebaseRoleError, match=f"it has nothing left in {QUOTED}, {SALES}") as caught:
        drop(old, roles.heir.client_id)
    assert caught.value.retryable
    monkeypatch.setattr(module._Drop, "_log", done)
    assert drop(old, roles.heir.client_id)["databases"] == {HOME: ANY, SALES: ["schema meanwhile"]}
    sales.run(f"REVOKE CREATE ON DATABASE {SALES} FROM PUBLIC")
    LakebaseHook(connect_as(roles.heir, "lakebase_heir"), database=SALES).run("DROP SCHEMA meanwhile")


WORKER = """
import json, os, signal, sys
from contextlib import closing, contextmanager

import psycopg

from airflow_provider_lakebase.core.connection.settings import ConnectionFields, read_settings
from airflow_provider_lakebase.core.factory import SessionFactory
from airflow_provider_lakebase.core.grants.drop import drop_role
from airflow_provider_lakebase.core.session.connections import LakebaseSession

fields, identity, heir, at, is_answered = json.loads(sys.argv[1])
settings = read_settings(ConnectionFields("lakebase_admin", **fields))
wait, count = psycopg.Connection.wait, 0


def counted(self, *arguments):
    global count
    count += 1
    if count == at and not is_answered:
        # What was queued is sent, and nobody reads the answer.
        self.pgconn.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    result = wait(self, *arguments)
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


@contextmanager
def connect(database):
    with closing(SessionFactory(settings.override(database=database)).open(LakebaseSession)) as session:
        yield session


psycopg.Connection.wait = counted
drop_role(connect, identity, reassign_owned_to=heir)
print(count)
"""


def drop_in_a_process(emulator: LakebaseEmulator, roles: Roles, at: int, *, is_answered: bool) -> Any:
    """Drop the role in a process of its own, which is killed at a statement, before or after its answer."""
    connection = json.loads(emulator.connections["lakebase_admin"])
    fields = {name: connection.get(name) for name in ("host", "login", "password", "schema", "port", "extra")}
    arguments = json.dumps([fields, roles.old.client_id, roles.heir.client_id, at, is_answered])
    command = [sys.executable, "-c", WORKER, arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.long
def test_killed_at_any_point_and_run_again_it_ends_the_same(
    emulator: LakebaseEmulator, databases: None, connect_as: Callable[..., str]
):
    with made_roles(emulator, connect_as) as roles:
        whole = drop_in_a_process(emulator, roles, 0, is_answered=True)
        assert whole.returncode == 0, whole.stderr[-3000:]
    last = int(whole.stdout)
    owners = """SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = '"Of old"'::regnamespace"""
    for at in random.sample(range(1, last + 1), int(os.environ.get("LAKEBASE_KILLS", "5"))):
        with made_roles(emulator, connect_as) as roles:
            old, heir = f'"{roles.old.client_id}"', f'"{roles.heir.client_id}"'
            members = [row for row in snapshot(emulator)[0] if row[0] == "member" and old not in str(row)]
            killed = drop_in_a_process(emulator, roles, at, is_answered=random.choice([True, False]))
            assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
            hooks = [LakebaseHook("lakebase_admin", database=name) for name in (HOME, SALES, QUOTED)]
            # Nothing is half done: all of a database is one role's.
            assert {tuple(hook.get_records(owners)) for hook in hooks} <= {((old,),), ((heir,),)}, at
            assert drop(roles.old.client_id, roles.heir.client_id)["role"] in ("dropped", "gone")
            assert [hook.get_records(owners) for hook in hooks] == [[(heir,)]] * 3, at
            assert left_of(emulator, roles.old.client_id) == [], at
            assert [row for row in snapshot(emulator)[0] if row[0] == "member"] == members, at
