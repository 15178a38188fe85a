"""Unity Catalog over HTTP: its tables, and the catalogs that stand for a Postgres database."""

from __future__ import annotations

import re

from airflow_provider_lakebase.emulator.api.access import require_use_of_branch
from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json, invalid, not_imitated
from airflow_provider_lakebase.emulator.model.fields import read_flag, read_object, read_text, required, spec_of
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.missing_database import require_database
from airflow_provider_lakebase.emulator.model.operations import EMPTY
from airflow_provider_lakebase.emulator.model.postgres_catalogs import PostgresCatalog
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_NAME = re.compile(r"[^.\s/]+")


def _get_table(workspace: Workspace, call: Call, caller: Principal) -> Json:
    full_name = call.values["table"]
    for option in ("include_delta_metadata", "include_manifest_capabilities"):
        if call.flag(option):
            raise not_imitated(f"the parameter '{option}'")
    if f"synced_tables/{full_name}" in workspace.synced_tables:
        raise not_imitated("Unity Catalog's view of a synced table; ask for synced_tables/<name>")
    return workspace.catalog.require(full_name).json()


def _create(workspace: Workspace, call: Call, caller: Principal) -> Json:
    catalog_id = required("catalog_id", call.query.get("catalog_id"))
    if not _NAME.fullmatch(catalog_id):
        raise invalid(f"Field 'catalog_id' cannot contain spaces, periods or slashes, got '{catalog_id}'")
    fields = {"branch", "postgres_database", "create_database_if_missing"}
    spec = read_object("spec", spec_of("catalog", call.json()), fields)
    branch = workspace.branches.require_ready(read_text("spec.branch", spec.get("branch", "")))
    require_use_of_branch(workspace, branch.name, caller)
    database = read_text("spec.postgres_database", spec.get("postgres_database", ""))
    create = read_flag("spec.create_database_if_missing", spec.get("create_database_if_missing", False))
    catalogs = workspace.postgres_catalogs

    def work() -> Json:
        require_database(workspace.clusters, branch.uid, database, creator=caller, create_missing=create)
        return catalog.json()

    with workspace.lock:
        catalog = catalogs.make(catalog_id, branch.name, database)
        return workspace.operations.submit(
            catalog.name,
            "create_catalog",
            work,
            begin=lambda: catalogs.add(catalog),
            undo=lambda: catalogs.discard(catalog),
        ).json()


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return _require(workspace, call, caller).json()


def _delete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    catalog = _require(workspace, call, caller)

    def work() -> Json:
        workspace.postgres_catalogs.discard(catalog)
        return EMPTY

    return workspace.operations.submit(catalog.name, "delete_catalog", work).json()


def _require(workspace: Workspace, call: Call, caller: Principal) -> PostgresCatalog:
    catalog = workspace.postgres_catalogs.require(call.name)
    require_use_of_branch(workspace, catalog.branch, caller)
    return catalog


ROUTES = [
    Route("GET", "/api/2.1/unity-catalog/tables/{table=*}", _get_table),
    Route("POST", "/api/2.0/postgres/catalogs", _create),
    Route("GET", "/api/2.0/postgres/{name=catalogs/*}", _get),
    Route("DELETE", "/api/2.0/postgres/{name=catalogs/*}", _delete),
]
