"""Lakebase catalogs: catalogs of Unity Catalog that stand for a Postgres database. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from airflow_provider_lakebase.emulator.model.errors import Json, already_exists, refused
from airflow_provider_lakebase.emulator.model.fields import timestamp
from airflow_provider_lakebase.emulator.model.resources import Resources, id_of


class PostgresCatalog:
    """A catalog for the database of a branch."""

    def __init__(self, name: str, *, branch: str, database: str, now: float) -> None:
        self.name = name
        self.uid = str(uuid.uuid4())
        self.branch = branch
        self.database = database
        self.created_at = now

    def json(self) -> Json:
        """Return it as the API does."""
        return {
            "name": self.name,
            "catalog_id": id_of(self.name),
            "uid": self.uid,
            "create_time": timestamp(self.created_at),
            "update_time": timestamp(self.created_at),
            "status": {
                "branch": self.branch,
                "postgres_database": self.database,
                "project": self.branch.split("/branches/")[0],
            },
        }


class PostgresCatalogs(Resources[PostgresCatalog]):
    """The Lakebase catalogs of the workspace."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__("catalog")
        self._clock = clock

    def make(self, catalog_id: str, branch: str, database: str) -> PostgresCatalog:
        """Return a new catalog; raise ``ApiError`` if its ID is taken or the database has a catalog already."""
        catalog = PostgresCatalog(f"catalogs/{catalog_id}", branch=branch, database=database, now=self._clock())
        if catalog.name in self:
            raise already_exists(self.kind)
        if any((each.branch, each.database) == (branch, database) for each in self.values()):
            raise refused(f"The database '{database}' of {branch} is already registered with a catalog")
        return catalog

    def database_of(self, catalog_id: str) -> str | None:
        """Return the database that a catalog stands for; None if it is not a Lakebase catalog."""
        catalog = self.get(f"catalogs/{catalog_id}")
        return catalog.database if catalog else None
