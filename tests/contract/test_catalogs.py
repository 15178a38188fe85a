"""Catalogs of Unity Catalog that stand for a Postgres database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from _clients import open_session, workspace_client
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import AlreadyExists, BadRequest, NotFound
from databricks.sdk.service.postgres import Catalog, CatalogCatalogSpec

from airflow_provider_lakebase.emulator import LakebaseEmulator

BRANCH = "projects/demo/branches/production"

Session = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def client(emulator: LakebaseEmulator) -> WorkspaceClient:
    return workspace_client(emulator)


@pytest.fixture(scope="module")
def session(emulator: LakebaseEmulator) -> Iterator[Session]:
    with open_session(emulator) as session:
        yield session


@pytest.mark.belief(
    "a database has one catalog at a time, and reading the catalog tells its status and no spec",
    source="databricks-sdk-py service/postgres.py CatalogCatalogSpec; databricks/cli libs/testserver/postgres.go",
    sure="documented",
)
def test_a_catalog_stands_for_one_database(client: WorkspaceClient, session: Session) -> None:
    spec = CatalogCatalogSpec("databricks_postgres", branch=BRANCH)
    catalog = client.postgres.create_catalog(Catalog(spec=spec), "lake").wait()
    assert catalog.status and (catalog.status.branch, catalog.status.project) == (BRANCH, "projects/demo")
    assert client.postgres.get_catalog("catalogs/lake") == catalog
    with pytest.raises(AlreadyExists):
        client.postgres.create_catalog(Catalog(spec=spec), "lake")
    with pytest.raises(BadRequest, match="already registered"):
        client.postgres.create_catalog(Catalog(spec=spec), "other")
    client.postgres.delete_catalog("catalogs/lake").wait()
    with pytest.raises(NotFound, match="catalog id not found"):
        client.postgres.get_catalog("catalogs/lake")


@pytest.mark.belief(
    "a catalog for a missing database is refused, unless create_database_if_missing is set; the error is a guess",
    source="databricks-sdk-py service/postgres.py CatalogCatalogSpec",
    sure="documented",
)
def test_the_database_of_a_catalog_is_made_on_request(client: WorkspaceClient, session: Session) -> None:
    missing = CatalogCatalogSpec("sales", branch=BRANCH)
    with pytest.raises(Exception, match='database "sales" does not exist'):
        client.postgres.create_catalog(Catalog(spec=missing), "sales").wait()
    made = CatalogCatalogSpec("sales", branch=BRANCH, create_database_if_missing=True)
    client.postgres.create_catalog(Catalog(spec=made), "sales").wait()
    assert session.execute("SELECT 1 FROM pg_database WHERE datname = 'sales'").fetchall() == [(1,)]
