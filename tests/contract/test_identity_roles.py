"""The extension databricks_auth and its function databricks_create_role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal

CREATE = "SELECT databricks_create_role(%s::text, %s::text)"


@pytest.fixture
def owner(administrator: Any) -> Iterator[psycopg.Connection[Any]]:
    """A session of the database's owner."""
    with administrator.connect() as connection:
        yield connection


@pytest.mark.belief(
    "the owner of the database may create the extension databricks_auth, again and again with IF NOT EXISTS",
    source="Databricks docs, Lakebase: Manage Postgres roles",
    sure="documented",
)
def test_owner_creates_the_extension(place: Any) -> None:
    with place.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        signature = connection.execute("SELECT 'public.databricks_create_role(text, text)'::regprocedure").fetchone()
    assert signature is not None


@pytest.mark.belief(
    "databricks_create_role creates a role that its identity can log in as",
    source="Databricks docs, Lakebase: Manage Postgres roles",
    sure="documented",
)
def test_identity_logs_in_as_its_new_role(owner: psycopg.Connection[Any], newcomer: Principal, place_of: Any) -> None:
    owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    with place_of(newcomer).connect() as connection:
        assert connection.execute("SELECT current_user").fetchone() == (newcomer.client_id,)


@pytest.mark.belief(
    "the new role may log in and nothing else: no superuser, no CREATEROLE, no CREATEDB, no REPLICATION, no BYPASSRLS",
    source="field reports of Lakebase Autoscaling",
    sure="seen in the field",
)
def test_new_role_may_log_in_only(owner: psycopg.Connection[Any], newcomer: Principal) -> None:
    owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    row = owner.execute(
        "SELECT rolcanlogin, rolinherit, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls "
        "FROM pg_roles WHERE rolname = %s",
        (newcomer.client_id,),
    ).fetchone()
    assert row == (True, True, False, False, False, False, False)


@pytest.mark.belief(
    "an identity's role has a security label of the provider databricks_auth with the identity's SCIM id",
    source="field reports of Lakebase Autoscaling",
    sure="seen in the field",
)
def test_identity_role_carries_a_label(place: Any) -> None:
    with place.connect() as connection:
        rows = connection.execute(
            "SELECT label FROM pg_seclabels WHERE provider = 'databricks_auth' AND objtype = 'role' "
            "AND objname = quote_ident(session_user)"
        ).fetchall()
    assert len(rows) == 1
    assert place.client().current_user.me().id in rows[0][0]


@pytest.mark.belief(
    "dropping the role also drops its label",
    source="PostgreSQL, DROP ROLE",
    sure="documented",
)
def test_label_goes_with_the_role(owner: psycopg.Connection[Any], newcomer: Principal) -> None:
    owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    count = "SELECT count(*) FROM pg_seclabels WHERE objname = quote_ident(%s)"
    assert owner.execute(count, (newcomer.client_id,)).fetchone() == (1,)
    owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(newcomer.client_id)))
    assert owner.execute(count, (newcomer.client_id,)).fetchone() == (0,)


@pytest.mark.belief(
    "the creator gets ADMIN membership of the new role, granted by the superuser",
    source="field reports of Lakebase Autoscaling",
    sure="seen in the field",
)
def test_creator_administers_the_role(owner: psycopg.Connection[Any], newcomer: Principal) -> None:
    owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    row = owner.execute(
        "SELECT m.admin_option, pg_get_userbyid(m.member) = session_user, pg_get_userbyid(m.grantor) "
        "FROM pg_auth_members m WHERE m.roleid = quote_ident(%s)::regrole",
        (newcomer.client_id,),
    ).fetchone()
    assert row == (True, True, "cloud_admin")


@pytest.mark.belief(
    "who administers a role can become its member, change the default privileges of what it creates, and leave again",
    source="PostgreSQL, CREATE ROLE, GRANT, ALTER DEFAULT PRIVILEGES; that Lakebase allows it for an identity's role",
    sure="inferred",
)
def test_creator_borrows_the_role(owner: psycopg.Connection[Any], newcomer: Principal) -> None:
    owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    role = sql.Identifier(newcomer.client_id)
    change = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT SELECT ON TABLES TO PUBLIC").format(role)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute(change)
    with owner.transaction(force_rollback=True):
        owner.execute(sql.SQL("GRANT {} TO current_user WITH INHERIT TRUE, SET TRUE").format(role))
        owner.execute(change)
        owner.execute(sql.SQL("REVOKE {} FROM current_user").format(role))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), owner.transaction():
            owner.execute(change)


@pytest.mark.belief(
    "the creator may give itself the privileges of the role, and with them give away what the role owns and drop it",
    source="PostgreSQL, CREATE ROLE and REASSIGN OWNED; that Lakebase restricts it no further is a guess",
    sure="inferred",
)
def test_creator_can_give_away_what_the_role_owns(owner: psycopg.Connection[Any], newcomer: Principal) -> None:
    owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    role = sql.Identifier(newcomer.client_id)
    owner.execute(sql.SQL("CREATE SCHEMA given_away AUTHORIZATION CURRENT_USER"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
    owner.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE").format(role))
    owner.execute(sql.SQL("ALTER SCHEMA given_away OWNER TO {}").format(role))
    owner.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
    owner.execute(sql.SQL("DROP OWNED BY {}").format(role))
    owner.execute(sql.SQL("DROP ROLE {}").format(role))
    owner.execute("DROP SCHEMA given_away")


@pytest.mark.belief(
    "creating a role that exists gets 42710, with or without a label",
    source="databricks-ai-bridge lakebase.py create_role; for a plain role a guess",
    sure="seen in the field",
)
@pytest.mark.parametrize("make", [CREATE, "CREATE ROLE {} LOGIN"])
def test_existing_role_is_refused(owner: psycopg.Connection[Any], newcomer: Principal, make: str) -> None:
    if make == CREATE:
        owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    else:
        owner.execute(sql.SQL(make).format(sql.Identifier(newcomer.client_id)))
    with pytest.raises(psycopg.errors.DuplicateObject, match="role already exists"):
        owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))


@pytest.mark.parametrize(
    ("identity", "kind"),
    [("no-such-identity@example.com", "USER"), (None, "USER"), (None, "ROBOT")],
    ids=["unknown", "other type", "no such type"],
)
@pytest.mark.belief(
    "an identity that does not exist in the workspace with that type gets 22023",
    source="databricks-ai-bridge lakebase.py create_role",
    sure="seen in the field",
)
def test_unknown_identity_is_refused(
    owner: psycopg.Connection[Any], newcomer: Principal, identity: str | None, kind: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        owner.execute(CREATE, (identity or newcomer.client_id, kind))


@pytest.mark.belief(
    "an identity whose role lacks CREATEROLE gets 42501",
    source="databricks-ai-bridge lakebase.py create_role",
    sure="seen in the field",
)
def test_creator_needs_createrole(
    emulator: LakebaseEmulator, owner: psycopg.Connection[Any], newcomer: Principal, place_of: Any
) -> None:
    owner.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    other = emulator.add_principal("other")
    with place_of(newcomer).connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(CREATE, (other.client_id, "SERVICE_PRINCIPAL"))


@pytest.mark.belief(
    "a session of a native role cannot create roles for identities; the SQLSTATE 42501 is a guess",
    source="Databricks docs, Lakebase: Manage Postgres roles",
    sure="documented",
)
def test_native_session_creates_no_identity_roles(emulator: LakebaseEmulator, newcomer: Principal) -> None:
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="Databricks identit"):
            connection.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))


@pytest.mark.belief(
    "in a database without the extension the function is undefined: 42883",
    source="databricks-ai-bridge lakebase.py create_role",
    sure="seen in the field",
)
def test_function_needs_the_extension(owner: psycopg.Connection[Any], administrator: Any, newcomer: Principal) -> None:
    owner.execute("CREATE DATABASE without_extension")
    try:
        with administrator.connect(dbname="without_extension") as connection:
            with pytest.raises(psycopg.errors.UndefinedFunction):
                connection.execute(CREATE, (newcomer.client_id, "SERVICE_PRINCIPAL"))
    finally:
        owner.execute("DROP DATABASE without_extension WITH (FORCE)")


@pytest.mark.belief(
    "the project owner's role is a member of databricks_superuser, which cannot log in",
    source="Databricks docs, Lakebase: Manage Postgres roles",
    sure="documented",
)
def test_owner_belongs_to_databricks_superuser(place: Any) -> None:
    with place.connect() as connection:
        row = connection.execute(
            "SELECT pg_has_role(session_user, oid, 'MEMBER'), rolcanlogin, rolsuper "
            "FROM pg_roles WHERE rolname = 'databricks_superuser'"
        ).fetchone()
    assert row == (True, False, False)


@pytest.mark.belief(
    "databricks_superuser may create databases and roles and bypasses row security; it cannot log in",
    source="Databricks docs, Lakebase: Manage permissions, pre-created roles",
    sure="documented",
)
def test_superuser_has_its_attributes(place: Any) -> None:
    query = (
        "SELECT rolcanlogin, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles "
        "WHERE rolname = 'databricks_superuser'"
    )
    with place.connect() as connection:
        assert connection.execute(query).fetchone() == (False, True, True, True)


@pytest.mark.belief(
    "databricks_superuser gets all privileges on new schemas, tables, views and sequences with grant option, by event "
    "triggers; not on the sequence of a serial column",
    source="Databricks docs, Lakebase: Manage permissions; dumps and migrations in public repositories",
    sure="seen in the field",
)
def test_superuser_gets_rights_on_new_objects(owner: psycopg.Connection[Any]) -> None:
    query = (
        "SELECT count(*) FROM pg_class, aclexplode(relacl) "
        "WHERE oid = %s::regclass AND grantee = 'databricks_superuser'::regrole AND is_grantable"
    )
    owner.execute("CREATE SCHEMA rights; CREATE TABLE rights.item (id serial)")
    try:
        assert owner.execute(query, ("rights.item",)).fetchone() >= (7,)
        assert owner.execute(query, ("rights.item_id_seq",)).fetchone() == (0,)
    finally:
        owner.execute("DROP SCHEMA rights CASCADE")
