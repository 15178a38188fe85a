"""The adapter: dbt-postgres's, with other connections."""

from __future__ import annotations

from dbt.adapters.postgres.impl import PostgresAdapter

from dbt.adapters.lakebase.connections import LakebaseConnectionManager


class LakebaseAdapter(PostgresAdapter):
    """Everything but how a session is opened is dbt-postgres's; so are the macros."""

    ConnectionManager = LakebaseConnectionManager
