"""Sessions in the database of a synced table.

All that loads psycopg is imported inside the functions, so that a DAG file that imports an operator stays light.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.workspace.branches import find_primary
from airflow_provider_lakebase.exceptions import LakebaseResourceNotFoundError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.relations.synced import SyncedTableSession
    from airflow_provider_lakebase.core.workspace.client import Workspace


class SyncedTableSessions:
    """Opens sessions in the database of one synced table, each with the table's lock.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param name: resource name of the synced table
    :param branch: resource name of its branch
    :param database: its database
    """

    def __init__(self, lakebase_conn_id: str, name: str, branch: str, database: str) -> None:
        self._hook = LakebaseHook(lakebase_conn_id, database=database, read_only=False)
        self._name = name
        self._branch = branch

    @contextmanager
    def open(self, workspace: Workspace) -> Iterator[SyncedTableSession]:
        """Open a session for the ``with`` block, which wakes the branch's endpoint.

        :param workspace: the workspace, which tells the endpoint of another branch than the connection's
        :raises LakebaseConflictError: if another session has the table's lock
        """
        from airflow_provider_lakebase.core.relations.synced import SyncedTableSession

        if self._hook.endpoint is None:
            self._hook.endpoint = self._endpoint(workspace)
        context = workspace.about(self._name).context
        with self._hook._create_autocommit_connection(autocommit=True) as connection:
            yield SyncedTableSession(connection, LEDGER_SCHEMA, self._name, context)

    def cancel(self) -> None:
        """Cancel the running statement on the server."""
        self._hook.cancel()

    def _endpoint(self, workspace: Workspace) -> str | None:
        own = self._hook.settings.endpoint
        if own is not None and str(own.up_to("branch")) == self._branch:
            return str(own)
        found = find_primary(workspace.about(self._branch), self._branch)
        if found is None:
            raise LakebaseResourceNotFoundError(
                "The branch has no read-write endpoint",
                context=workspace.about(self._branch).context,
                hint="Create one.",
            )
        return str(found["name"])


def place_of(settings: LakebaseSettings, branch: str | None, database: str | None) -> tuple[str, str]:
    """Return the branch and the database of a synced table: as given, else the connection's.

    :param settings: the connection
    :param branch: resource name, or None
    :param database: database, or None
    :raises LakebaseSettingsError: if neither names a branch
    """
    endpoint = settings.endpoint
    if not branch and endpoint is None:
        hint = "Give branch, or name an endpoint in the connection."
        raise LakebaseSettingsError("No branch is given", context=settings.context, hint=hint)
    return branch or str(endpoint and endpoint.up_to("branch")), database or settings.session.database


def settings_at(settings: LakebaseSettings, branch: str | None, database: str | None) -> LakebaseSettings:
    """Return settings that name the branch and the database of a synced table.

    :param settings: the connection
    :param branch: resource name, or None
    :param database: database, or None
    :raises LakebaseSettingsError: if neither names a branch
    """
    place, database = place_of(settings, branch, database)
    own = settings.endpoint
    is_own = own is not None and str(own.up_to("branch")) == place
    pg_host = settings.session.pg_host if is_own else None
    session = replace(settings.session, database=database, pg_host=pg_host)
    return replace(settings, session=session, endpoint=own if is_own else ResourceName.parse(place))
