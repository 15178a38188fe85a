"""A database is created through the workspace, with its owner's role, and accepts a login: once, retried or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from _operations import PROJECT, Changes, Store, context, dying, run
from airflow.providers.common.compat.sdk import AirflowFailException
from psycopg import sql

from airflow_provider_lakebase.core.workspace import plans
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal
from airflow_provider_lakebase.exceptions import (
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceRefusedError,
)
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.operators import _operation
from airflow_provider_lakebase.operators.database import LakebaseCreateDatabaseOperator
from airflow_provider_lakebase.operators.role import LakebaseDropRoleOperator, LakebaseRoleBootstrapOperator

PRODUCTION = f"{PROJECT}/branches/production"
NAME = 'Sales "2026"'
FIRST, SECOND = ["POST roles", "POST databases"], ["POST databases"]


@pytest.fixture
def workspace(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LakebaseWorkspaceHook]:
    """The workspace; afterwards, the databases and roles that a test has made are gone."""
    monkeypatch.setattr(plans, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(plans, "LONGEST_PAUSE_SECONDS", 0.05)
    hook = LakebaseWorkspaceHook("lakebase_admin")
    before = [each.name for each in (*hook.list_databases(), *hook.list_roles())]
    yield hook
    emulator.faults.clear()
    emulator.operation_seconds = 0
    for database in hook.list_databases():
        if database.name not in before and database.status:
            hook.delete_database(str(database.status.postgres_database))
    for role in hook.list_roles():
        if role.name not in before and role.status:
            hook.delete_role(str(role.status.postgres_role), reassign_owned_to=emulator.administrator.client_id)


@pytest.fixture
def loader(emulator: LakebaseEmulator) -> Principal:
    return emulator.add_principal("loader")


def create(**arguments: Any) -> LakebaseCreateDatabaseOperator:
    defaults = {"task_id": "create", "lakebase_conn_id": "lakebase_admin", "database": NAME}
    return LakebaseCreateDatabaseOperator(**{**defaults, **arguments})


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_first_run_creates_and_the_second_changes_nothing(
    deferrable: bool,
    workspace: LakebaseWorkspaceHook,
    emulator: LakebaseEmulator,
    loader: Principal,
    connect_as: Callable[..., str],
    task_log: Callable[[], str],
):
    emulator.operation_seconds = 0.1
    changes = Changes(emulator)
    first = run(create(owned_by=loader.client_id, deferrable=deferrable), context(Store()))
    assert first == {
        "database": NAME,
        "branch": PRODUCTION,
        "endpoint": f"{PRODUCTION}/endpoints/primary",
        "owner": loader.client_id,
        "created": True,
        "role_created": True,
    }
    assert changes.seen == FIRST
    hook = LakebaseHook(connect_as(loader), database=NAME)
    hook.run("CREATE SCHEMA of_its_own; CREATE TABLE public.t (id int)")
    query = "SELECT current_database(), datdba::regrole::text FROM pg_database WHERE datname = current_database()"
    assert hook.get_first(query) == (NAME, f'"{loader.client_id}"')
    assert hook.get_first("SELECT 1 FROM pg_extension WHERE extname = 'databricks_auth'")
    log = task_log()
    assert f"Creating role '{loader.client_id}'" in log
    assert f"Creating database '{NAME}'" in log
    second = run(create(owned_by=loader.client_id, deferrable=deferrable), context(Store()))
    assert second == {**first, "created": False, "role_created": False}
    assert changes.seen == FIRST
    assert "nothing was changed" in task_log()


def test_without_owner_it_is_the_connections_identity_and_one_that_exists_is_used_whoever_owns_it(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator
):
    owner = emulator.administrator.client_id
    assert run(create())["owner"] == owner
    assert run(create(lakebase_conn_id="lakebase_default"))["owner"] == owner


def test_without_wait_for_login_it_opens_no_session(workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator):
    before = len(emulator.logins)
    assert run(create(wait_for_login=False))["endpoint"] is None
    assert len(emulator.logins) == before


def test_a_database_with_another_owner_is_refused(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, loader: Principal
):
    run(create())
    workspace.create_role(loader.client_id)
    changes = Changes(emulator)
    told = f"its owner is '{emulator.administrator.client_id}', not '{loader.client_id}'"
    with pytest.raises(AirflowFailException, match=told) as caught:
        run(create(owned_by=loader.client_id))
    assert isinstance(caught.value.__cause__, LakebaseResourceExistsError)
    assert changes.seen == []


def test_a_database_of_a_plain_create_database_gets_the_extension(
    workspace: LakebaseWorkspaceHook, admin: LakebaseHook, task_log: Callable[[], str]
):
    with admin.get_conn() as session:
        session.autocommit = True
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))
    assert run(create())["created"] is False
    hook = LakebaseHook("lakebase_admin", database=NAME)
    assert hook.get_first("SELECT 1 FROM pg_extension WHERE extname = 'databricks_auth'")
    assert "Created the extension databricks_auth" in task_log()


@pytest.mark.parametrize("password", ["", "PASSWORD 'plain'"])
def test_an_owners_role_without_databricks_identity_is_refused(
    password: str, workspace: LakebaseWorkspaceHook, admin: LakebaseHook, emulator: LakebaseEmulator, loader: Principal
):
    admin.run(f'CREATE ROLE "{loader.client_id}" LOGIN {password}')
    changes = Changes(emulator)
    with pytest.raises(AirflowFailException, match="no SERVICE_PRINCIPAL can log in as it.*plain CREATE ROLE"):
        run(create(owned_by=loader.client_id))
    assert changes.seen == []
    admin.run(f'DROP ROLE "{loader.client_id}"')


def test_users_and_groups_own_databases_too(workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator):
    for name, kind in (("ada+lovelace@example.com", "USER"), ("Data Engineers", "GROUP")):
        emulator.add_principal(name, identity_type=kind)
        assert run(create(database=f"of {kind}", owned_by=name, identity_type=kind))["owner"] == name


def test_an_identity_that_begins_with_a_digit_gets_an_id_that_does_not(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator
):
    name = "9aaaaaaa-0000-4000-8000-000000000000"
    emulator.add_principal(name, identity_type="GROUP")
    role = workspace.create_role(name, identity_type="GROUP")
    assert role.status
    assert (role.name, role.status.postgres_role) == (f"{PRODUCTION}/roles/group-{name}", name)


def test_a_role_that_exists_keeps_its_memberships(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, admin: LakebaseHook
):
    owner = emulator.administrator.client_id
    before = [each.as_dict() for each in workspace.list_roles()]
    workspace.create_role(owner)
    run(create(owned_by=owner))
    for role, former in zip(workspace.list_roles(), before, strict=False):
        assert role.as_dict()["status"] == former["status"]


@pytest.mark.parametrize("has_store", [True, False])
def test_a_try_that_dies_after_each_request_is_gone_on_with(
    has_store: bool, workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, loader: Principal
):
    emulator.operation_seconds = 0.2
    changes, store = Changes(emulator), Store() if has_store else None
    with dying("airflow_provider_lakebase.operators._operation.wait_for"):
        run(create(owned_by=loader.client_id), context(store))
    assert changes.seen == FIRST[:1]
    seen: list[str] = []
    wait = _operation.wait_for

    def wait_once(workspace: Any, pending: Any, **limits: Any) -> None:
        if seen or "/databases/" in pending.operation:
            seen.append(pending.operation)
            raise KeyboardInterrupt
        wait(workspace, pending, **limits)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_operation, "wait_for", wait_once)
        run(create(owned_by=loader.client_id), context(store))
    result = run(create(owned_by=loader.client_id), context(store))
    assert changes.seen == FIRST
    # The request that found it in progress tells that it is new.
    assert (result["created"], result["role_created"]) == (True, has_store)
    assert store is None or store.values == {}


def test_two_at_once_make_one(workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, loader: Principal):
    emulator.operation_seconds = 0.05
    changes = Changes(emulator)
    with ThreadPoolExecutor(2) as threads:
        # Not the operator: Airflow 2 runs tasks in main threads only.
        runs = [threads.submit(workspace.create_database, NAME, owner=loader.client_id) for _ in range(2)]
        assert len({each.result().name for each in runs}) == 1
    assert sorted(changes.seen) == sorted(FIRST)


def test_an_identity_without_permission_on_the_project_is_told_so(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, connect_as: Callable[..., str]
):
    stranger = connect_as(emulator.add_principal("stranger", can_use_project=False))
    changes = Changes(emulator)
    with pytest.raises(AirflowFailException, match="no permission on the Lakebase project"):
        run(create(lakebase_conn_id=stranger))
    assert changes.seen == []


def test_an_identity_that_the_workspace_does_not_know_is_refused(workspace: LakebaseWorkspaceHook):
    with pytest.raises(AirflowFailException, match="no identity 'Loader'"):
        run(create(owned_by="Loader"))


def test_a_branch_that_is_missing_is_named(workspace: LakebaseWorkspaceHook):
    with pytest.raises(AirflowFailException, match="branches/missing") as caught:
        run(create(branch="missing"))
    assert isinstance(caught.value.__cause__, LakebaseResourceNotFoundError)


def test_wrong_arguments_are_refused_before_anything_is_sent(workspace: LakebaseWorkspaceHook, loader: Principal):
    for arguments, told in (
        ({"database": " "}, "database is ' '"),
        ({"owned_by": loader.client_id, "identity_type": "ROBOT"}, "identity_type is 'ROBOT'"),
        ({"branch": "Not one"}, "not the ID of a branch"),
        ({"owned_by": 5}, "identity is 5"),
        ({"owned_by": 0}, "identity is 0"),
        ({"branch": ""}, "not the ID of a branch"),
        ({"project": "other"}, "does not belong to projects/other"),
    ):
        with pytest.raises(AirflowFailException, match=told):
            run(create(**arguments))
    with pytest.raises(LakebaseSettingsError, match="wait_for_login is 'False'"):
        create(wait_for_login="False")


def test_the_tasks_own_owner_is_not_that_of_the_database(workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator):
    operator = create(default_args={"owner": "data-team"})
    assert run(operator)["owner"] == emulator.administrator.client_id
    assert operator.owner == "data-team"


def test_a_failing_service_is_asked_again(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, loader: Principal
):
    emulator.faults.fail_operations("create_database")
    with pytest.raises(LakebaseWorkspaceError):
        run(create(owned_by=loader.client_id))
    assert run(create(owned_by=loader.client_id))["created"] is True


# ── the API's route for roles ──


def test_the_api_drops_a_role_and_gives_what_it_owns_to_another(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, loader: Principal
):
    heir = emulator.administrator.client_id
    run(create(owned_by=loader.client_id))
    arguments = {"task_id": "drop", "lakebase_conn_id": "lakebase_admin", "identity": loader.client_id, "route": "api"}
    with pytest.raises(AirflowFailException, match="owns databases.*reassign_owned_to"):
        run(LakebaseDropRoleOperator(**arguments))
    report = run(LakebaseDropRoleOperator(**arguments, reassign_owned_to=heir))
    assert (report["role"], report["changed"]) == ("dropped", True)
    assert loader.client_id not in [each.status.postgres_role for each in workspace.list_roles() if each.status]
    assert run(create())["owner"] == heir
    again = run(LakebaseDropRoleOperator(**arguments, reassign_owned_to=heir))
    assert (again["role"], again["changed"]) == ("gone", False)


def test_the_api_drops_no_administrator(workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator):
    with pytest.raises(LakebaseWorkspaceRefusedError, match="administers the project's databases"):
        workspace.delete_role(emulator.administrator.client_id)
    own = {"lakebase_conn_id": "lakebase_admin", "identity": emulator.administrator.client_id}
    with pytest.raises(AirflowFailException, match="is the connection's own role"):
        run(LakebaseDropRoleOperator(task_id="drop", route="api", **own))
    with pytest.raises(AirflowFailException, match="hook_params is given beside route='api'"):
        run(LakebaseDropRoleOperator(task_id="drop", identity="x", route="api", hook_params={"read_only": False}))
    with pytest.raises(LakebaseSettingsError, match="route is 'rest'"):
        LakebaseDropRoleOperator(task_id="drop", identity="x", route="rest")  # type: ignore[arg-type]


def test_the_api_creates_a_role_where_nobody_can_log_in_yet(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, loader: Principal, connect_as: Callable[..., str]
):
    loads = connect_as(loader)
    arguments = {"task_id": "role", "lakebase_conn_id": loads, "identity": loader.client_id, "route": "api"}
    report = run(LakebaseRoleBootstrapOperator(**arguments))
    assert (report["role"], report["changed"]) == ("created", True)
    assert run(create(lakebase_conn_id=loads))["owner"] == loader.client_id
    report = run(LakebaseRoleBootstrapOperator(**arguments))
    assert (report["role"], report["changed"]) == ("found", False)
    with pytest.raises(AirflowFailException, match="Grants are declared beside route='api'"):
        run(LakebaseRoleBootstrapOperator(**arguments, schemas={"public": "read"}))
    with pytest.raises(AirflowFailException, match="database is given beside route='api'"):
        run(LakebaseRoleBootstrapOperator(**arguments, database=NAME))


def test_the_api_reassigns_to_a_role_that_exists_only(
    workspace: LakebaseWorkspaceHook, emulator: LakebaseEmulator, loader: Principal
):
    workspace.create_role(loader.client_id)
    with pytest.raises(LakebaseResourceNotFoundError, match="There is no role 'nobody'"):
        workspace.delete_role(loader.client_id, reassign_owned_to="nobody")
    with pytest.raises(LakebaseSettingsError, match="reassign_owned_to is the role itself"):
        workspace.delete_role(loader.client_id, reassign_owned_to=loader.client_id)
    with suppress(LakebaseWorkspaceError):
        assert workspace.delete_role(loader.client_id)
    assert not workspace.delete_role(loader.client_id)
