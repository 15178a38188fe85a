"""Roles and databases made through the API are real: logins, rights and owners are PostgreSQL's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from _clients import workspace_client
from databricks.sdk.errors import BadRequest, InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as sdk

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal

PROJECT = "projects/demo"
BRANCH = f"{PROJECT}/branches/production"
SUPERUSER = sdk.RoleMembershipRole.DATABRICKS_SUPERUSER
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def emulator() -> Iterator[LakebaseEmulator]:
    with LakebaseEmulator(wake_seconds=0) as running:
        yield running


@pytest.fixture(scope="module")
def postgres(emulator: LakebaseEmulator) -> Any:
    return workspace_client(emulator).postgres


@pytest.fixture
def robot(emulator: LakebaseEmulator) -> Principal:
    """An identity without a role."""
    return emulator.add_principal("robot")


@pytest.fixture
def create_role(postgres: Any, robot: Principal) -> Callable[..., Any]:
    """Return a function that creates a role for the robot, or of another name."""

    def create_role(postgres_role: str = "", role_id: str = "", **spec: Any) -> Any:
        if not postgres_role:
            spec = {"identity_type": sdk.RoleIdentityType.SERVICE_PRINCIPAL, **spec}
        role = sdk.Role(spec=sdk.RoleRoleSpec(postgres_role=postgres_role or robot.client_id, **spec))
        return postgres.create_role(BRANCH, role, role_id=role_id or f"role-{next(_numbers)}").wait()

    return create_role


@pytest.fixture
def login(emulator: LakebaseEmulator) -> Callable[..., psycopg.Connection[Any]]:
    """Return a function that opens a session of an identity, or of a role with a password."""

    def login(who: Principal | str, password: str = "", database: str = "databricks_postgres", **changes: Any) -> Any:
        if isinstance(who, Principal):
            credential = workspace_client(emulator, who).postgres.generate_database_credential(
                emulator.endpoint, **changes
            )
            who, password = who.role, str(credential.token)
            changes = {}
        return psycopg.connect(
            host=changes.get("host", "localhost"),
            port=emulator.port,
            user=who,
            password=password,
            dbname=database,
            sslmode="require",
            autocommit=True,
        )

    return login


def test_role_of_an_identity_logs_in_with_its_credential(create_role: Any, login: Any, robot: Principal) -> None:
    role = create_role(attributes=sdk.RoleAttributes(createdb=True), membership_roles=[SUPERUSER])
    assert role.status.auth_method == sdk.RoleAuthMethod.LAKEBASE_OAUTH_V1
    assert (role.status.attributes.createdb, role.status.attributes.createrole) == (True, False)
    with login(robot) as connection:
        row = connection.execute(
            "SELECT rolcreatedb, pg_has_role('databricks_superuser', 'MEMBER') FROM pg_roles "
            "WHERE rolname = current_user"
        ).fetchone()
    assert row == (True, True)


def test_role_that_sql_made_is_there_too(emulator: LakebaseEmulator, postgres: Any, login: Any) -> None:
    with login(emulator.administrator) as connection:
        connection.execute("CREATE ROLE made_by_sql LOGIN")
    role = postgres.get_role(f"{BRANCH}/roles/made-by-sql")
    assert role.status.postgres_role == "made_by_sql"
    postgres.delete_role(role.name).wait()
    with pytest.raises(NotFound, match='^role not found; role_id:"made-by-sql" .TraceId'):
        postgres.get_role(role.name)


@pytest.mark.parametrize(
    ("role_id", "spec", "error", "text"),
    [
        ("17a31436-08aa", {"postgres_role": "x"}, InvalidParameterValue, r"role_id must match pattern \^\[a-z\]"),
        ("abc", {"postgres_role": "x"}, InvalidParameterValue, "must be 4-63 characters"),
        (
            "nobody",
            {"postgres_role": "x", "auth_method": sdk.RoleAuthMethod.NO_LOGIN},
            InvalidParameterValue,
            "Creating roles with auth_method NO_LOGIN is not currently supported",
        ),
        (
            "nobody",
            {"postgres_role": "nobody@x", "identity_type": sdk.RoleIdentityType.USER},
            InvalidParameterValue,
            "There is no identity 'nobody@x' of type USER",
        ),
        (
            "oauth",
            {"postgres_role": "x", "auth_method": sdk.RoleAuthMethod.LAKEBASE_OAUTH_V1},
            InvalidParameterValue,
            "is LAKEBASE_OAUTH_V1 for identities",
        ),
        ("made-twice", {"postgres_role": "databricks_superuser"}, Exception, "already exists"),
        ("empty", {}, InvalidParameterValue, "Field 'role' is required and must contain at least one subfield"),
    ],
)
def test_role_that_cannot_be_is_refused(
    postgres: Any, role_id: str, spec: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        postgres.create_role(BRANCH, sdk.Role(spec=sdk.RoleRoleSpec(**spec)), role_id=role_id).wait()


def test_role_exists_once(create_role: Any) -> None:
    role = create_role()
    for again in ({"role_id": role.role_id, "postgres_role": "other"}, {}):
        with pytest.raises(BadRequest, match="role with that name already exists"):
            create_role(**again)


def test_memberships_are_replaced_as_the_mask_says(postgres: Any, create_role: Any) -> None:
    role = create_role(membership_roles=[SUPERUSER], attributes=sdk.RoleAttributes(createdb=True))

    def update(mask: str, **spec: Any) -> Any:
        body = sdk.Role(name=role.name, spec=sdk.RoleRoleSpec(**spec))
        return postgres.update_role(role.name, body, sdk.FieldMask(mask.split(","))).wait().status

    status = update("spec.attributes.createrole", attributes=sdk.RoleAttributes(createdb=False, createrole=True))
    assert (status.attributes.createdb, status.attributes.createrole) == (True, True)
    assert status.membership_roles == [SUPERUSER]
    assert not update("spec", attributes=sdk.RoleAttributes(createdb=False)).membership_roles
    assert update("spec.membership_roles", membership_roles=[SUPERUSER]).membership_roles == [SUPERUSER]
    assert not update("spec.membership_roles").membership_roles
    every = sdk.RoleAttributes(createdb=False, createrole=False, bypassrls=True)
    assert update("*", attributes=every, membership_roles=[SUPERUSER]).attributes.bypassrls
    for mask, text in (("*", "'spec.attributes.createdb' is in update_mask"), ("spec.postgres_role", "cannot change")):
        with pytest.raises(InvalidParameterValue, match=text):
            update(mask)
    replacing = sdk.Role(spec=sdk.RoleRoleSpec(postgres_role="ignored"))
    replaced = postgres.create_role(BRANCH, replacing, role_id=role.role_id, replace_existing=True).wait().status
    assert not replaced.membership_roles
    assert replaced.attributes.bypassrls


@pytest.mark.skipif(not hasattr(sdk, "RevealRolePasswordResponse"), reason="this SDK does not reveal passwords")
def test_password_is_revealed_and_is_another_one_below_a_protected_branch(
    emulator: LakebaseEmulator, postgres: Any, create_role: Any, login: Any
) -> None:
    role = create_role("app")
    password = postgres.reveal_role_password(role.name).password
    assert password in emulator.secrets
    with login(emulator.administrator) as owner:
        owner.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        statements = owner.execute("SELECT string_agg(query, ' ') FROM pg_stat_statements").fetchall()[0][0]
        assert "CREATE EXTENSION" in statements
        assert password not in statements
    with pytest.raises(psycopg.OperationalError, match="not a valid JWT encoding"):
        login("app", password)
    setting = sdk.Project(spec=sdk.ProjectSpec(enable_pg_native_login=True))
    postgres.update_project(PROJECT, setting, sdk.FieldMask(["spec.enable_pg_native_login"])).wait()
    login("app", password).close()
    protect(postgres, True)
    child = emulator.create_branch()
    try:
        host = emulator.endpoint_host(f"{child}/endpoints/primary")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            login("app", password, host=host)
        login("app", postgres.reveal_role_password(f"{child}/roles/{role.role_id}").password, host=host).close()
    finally:
        emulator.delete_branch(child)
        protect(postgres, False)
        postgres.delete_role(role.name).wait()


def protect(postgres: Any, is_protected: bool) -> None:
    branch = sdk.Branch(spec=sdk.BranchSpec(is_protected=is_protected))
    postgres.update_branch(BRANCH, branch, sdk.FieldMask(["spec.is_protected"])).wait()


def test_dropped_role_leaves_its_tables_to_another(
    postgres: Any, create_role: Any, login: Any, robot: Principal, emulator: LakebaseEmulator
) -> None:
    role = create_role(membership_roles=[SUPERUSER])
    # As the superuser: what others granted, DROP OWNED leaves, and the role with it.
    with psycopg.connect(emulator.superuser_conninfo) as connection:
        connection.execute(f'GRANT CREATE ON SCHEMA public TO "{robot.role}"')
    with login(robot) as connection:
        connection.execute("CREATE TABLE inherited AS SELECT 1 AS n")
    with pytest.raises(Exception, match="cannot be dropped because some objects depend on it"):
        postgres.delete_role(role.name).wait()
    heir = next(each for each in postgres.list_roles(BRANCH) if each.status.postgres_role != robot.role)
    postgres.delete_role(role.name, reassign_owned_to=heir.name).wait()
    with login(emulator.administrator) as connection:
        owner = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'inherited'").fetchone()
        assert owner == (heir.status.postgres_role,)
        connection.execute("DROP TABLE inherited")


def test_identity_logs_in_to_a_database_of_its_own(
    postgres: Any, create_role: Any, login: Any, robot: Principal, emulator: LakebaseEmulator
) -> None:
    role = create_role()
    spec = sdk.DatabaseDatabaseSpec(role=role.name, postgres_database="shop_db")
    database = postgres.create_database(BRANCH, sdk.Database(spec=spec), database_id="shop").wait()
    assert (database.status.postgres_database, database.status.role) == ("shop_db", role.name)
    with login(robot, database="shop_db") as connection:
        connection.execute("CREATE SCHEMA own")
        extensions = connection.execute("SELECT extname FROM pg_extension").fetchall()
    assert ("databricks_auth",) in extensions
    for again in ("shop", "shop-2"):
        with pytest.raises(BadRequest, match="database with that name already exists"):
            postgres.create_database(BRANCH, sdk.Database(spec=spec), database_id=again)
    renamed = sdk.DatabaseDatabaseSpec(role=role.name, postgres_database="store_db")
    mask = sdk.FieldMask(["spec.postgres_database"])
    postgres.update_database(database.name, sdk.Database(spec=renamed), mask).wait()
    login(robot, database="store_db").close()
    postgres.delete_database(database.name).wait()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        login(robot, database="store_db")


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("", r"Field 'database.spec.role' is required, expected non-default value \(not \"\"\)!"),
        (f"{PROJECT}/branches/other/roles/x", f"must name a role of {BRANCH}"),
        (f"{BRANCH}/roles/nobody", "names a role that does not exist"),
    ],
)
def test_database_needs_an_owner(postgres: Any, role: str, text: str) -> None:
    spec = sdk.DatabaseDatabaseSpec(role=role, postgres_database="db")
    with pytest.raises(InvalidParameterValue, match=text):
        postgres.create_database(BRANCH, sdk.Database(spec=spec), database_id="some-db")


def test_creator_of_a_project_owns_its_database(emulator: LakebaseEmulator, robot: Principal, login: Any) -> None:
    mine = workspace_client(emulator, robot).postgres
    project = mine.create_project(sdk.Project(), "robots").wait()
    try:
        assert project.status.owner == robot.role
        host = mine.get_endpoint(f"{project.status.default_branch}/endpoints/primary").status.hosts.host
        token = mine.generate_database_credential(f"{project.status.default_branch}/endpoints/primary").token
        with login(robot.role, token, host=host) as connection:
            connection.execute("CREATE SCHEMA own")
            connection.execute("CREATE TABLE own.things (n int)")
    finally:
        mine.delete_project(project.name, purge=True).wait()


def test_read_only_credential_begins_sessions_that_only_read(login: Any, emulator: LakebaseEmulator) -> None:
    claims = [sdk.RequestedClaims(permission_set=sdk.RequestedClaimsPermissionSet.READ_ONLY)]
    with login(emulator.administrator, claims=claims) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE never (n int)")
