"""Long-running operations over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_PARENTS = (
    "projects/*",
    "projects/*/branches/*",
    "projects/*/branches/*/snapshot-schedule",
    "projects/*/branches/*/*/*",
    "projects/*/branches/*/databases/*/cdf-configs/*",
    "projects/*/snapshots/*",
    "catalogs/*",
    "synced_tables/*",
)


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return workspace.operations.get(call.name).json()


ROUTES = [Route("GET", f"/api/2.0/postgres/{{name={parent}/operations/*}}", _get) for parent in _PARENTS]
