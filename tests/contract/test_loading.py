"""What a session may do to store rows: COPY, extensions, synced tables."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from airflow_provider_lakebase.emulator import Principal


@pytest.mark.belief(
    "COPY … FROM STDIN and TO STDOUT work",
    source="PostgreSQL; christophergrant/lakebase-foreachwriter, mode bulk-insert",
    sure="seen in the field",
)
def test_copy_through_the_connection(place: Any) -> None:
    with place.connect() as connection:
        connection.execute("CREATE TEMP TABLE numbers (n int)")
        with connection.cursor() as cursor:
            with cursor.copy("COPY numbers FROM STDIN") as copy:
                for number in range(1000):
                    copy.write_row((number,))
            with cursor.copy("COPY numbers TO STDOUT") as copy:
                assert sum(1 for _ in copy.rows()) == 1000


@pytest.mark.parametrize("source", ["'/etc/hostname'", "PROGRAM 'true'"])
@pytest.mark.belief(
    "COPY from a file or program on the server is refused: 42501",
    source="Databricks docs, Lakebase: Compatibility (no superuser, no access to the server's files)",
    sure="documented",
)
def test_copy_from_the_server_is_refused(place: Any, source: str) -> None:
    with place.connect() as connection:
        connection.execute("CREATE TEMP TABLE lines (line text)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"COPY lines FROM {source}")


@pytest.mark.belief(
    "Postgres is version 16 or newer",
    source="Databricks docs, Lakebase: Compatibility",
    sure="documented",
)
def test_postgres_version(place: Any) -> None:
    with place.connect() as connection:
        assert connection.info.server_version >= 160000


@pytest.mark.belief(
    "no role that can log in is a superuser",
    source="Databricks docs, Lakebase: Compatibility",
    sure="documented",
)
def test_nobody_is_superuser(place: Any) -> None:
    with place.connect() as connection:
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = session_user").fetchone()
    assert row == (False,)


@pytest.mark.belief(
    "the project's owner may create the extension vector",
    source="Databricks docs, Lakebase: Postgres extensions; neondatabase/neon compute Dockerfile (vector is trusted)",
    sure="documented",
)
def test_owner_creates_the_extension_vector(place: Any) -> None:
    with place.connect(autocommit=False) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        assert connection.execute("SELECT '[3, 4]'::vector <-> '[0, 0]'").fetchone() == (5.0,)
        connection.rollback()


@pytest.mark.belief(
    "a role without CREATE on the database may not create the extension vector: 42501",
    source="PostgreSQL, CREATE EXTENSION (of a trusted extension)",
    sure="inferred",
)
def test_plain_role_creates_no_extension(administrator: Any, newcomer: Principal, place_of: Any) -> None:
    with administrator.connect() as connection:
        connection.execute("SELECT databricks_create_role(%s::text, 'SERVICE_PRINCIPAL')", (newcomer.client_id,))
    with place_of(newcomer).connect() as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE EXTENSION vector")
