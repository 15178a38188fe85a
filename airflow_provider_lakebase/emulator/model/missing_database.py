"""The database of a synced table or a catalog, and the caller's role in it, created if they are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakebase.emulator.model.errors import ApiError
from airflow_provider_lakebase.emulator.model.role_statements import Statements

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.data_plane import Clusters
    from airflow_provider_lakebase.emulator.model.identities import Principal


def require_database(
    clusters: Clusters, cluster: str, database: str, *, creator: Principal, create_missing: bool
) -> None:
    """Make a role for the creator if there is none, and the database if it is missing.

    Raise ``ApiError`` 404 if it is missing and ``create_missing`` is False.
    """
    statements = Statements(clusters, cluster)
    if creator.role not in [role.name for role in statements.roles()]:
        statements.create_role(creator.role, label=creator.label, password=None)
    if database not in [name for name, _ in statements.databases()]:
        if not create_missing:
            raise ApiError(404, "NOT_FOUND", f'database "{database}" does not exist')
        statements.create_database(database, creator.role)
