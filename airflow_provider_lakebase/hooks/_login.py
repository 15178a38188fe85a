"""Wait until a new endpoint or database accepts logins."""

from __future__ import annotations

import time
from contextlib import closing

from airflow_provider_lakebase.hooks._readiness import PROBE_QUERY
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


def wait_for_login(lakebase_conn_id: str, endpoint: str, database: str | None = None, *, deadline: float) -> None:
    """Log in to an endpoint, which wakes it; while it refuses the login because it is new, try again.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param endpoint: resource name
    :param database: database to log in to; by default the connection's
    :param deadline: when to give up, as a time of ``time.time()``
    :raises LakebaseError: if no session could be opened; the class says why
    """
    hook = LakebaseHook(lakebase_conn_id, endpoint=endpoint, database=database)
    settings = hook.settings
    seconds = max(min(settings.session.wake_timeout, deadline - time.time()), 1.0)
    with closing(hook.open(settings.with_wake_timeout(seconds))) as session:
        session.execute(PROBE_QUERY)


def create_auth_extension(lakebase_conn_id: str, endpoint: str, database: str) -> bool:
    """Create the extension ``databricks_auth`` in a database, unless it is there; return whether it was created.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param endpoint: resource name
    :param database: the database
    :raises LakebaseError: if no session could be opened
    """
    hook = LakebaseHook(lakebase_conn_id, endpoint=endpoint, database=database)
    with closing(hook.get_conn()) as session:
        found = "SELECT FROM pg_catalog.pg_extension WHERE extname = 'databricks_auth'"
        if session.execute(found).fetchone() is not None:
            return False
        session.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        session.commit()
        return True
