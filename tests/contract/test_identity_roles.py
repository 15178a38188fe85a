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
