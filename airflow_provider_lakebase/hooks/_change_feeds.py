"""What change feeds need from Postgres: their tables checked, and the log sequence number of now."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_lakebase.core.workspace.change_feeds import DATABASE
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


def prepare_tables(
    lakebase_conn_id: str, branch: str, schema: str, tables: Sequence[str] | None, *, set_identity: bool
) -> None:
    """Check that a feed can replicate the tables of a schema, and set REPLICA IDENTITY FULL where that is wanted.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param branch: resource name of the branch
    :param schema: schema in Postgres
    :param tables: the tables that the feed has to replicate; None is all
    :param set_identity: set REPLICA IDENTITY FULL where it is missing
    :raises LakebaseChangeFeedError: with the faults of all tables; nothing was changed
    """
    from airflow_provider_lakebase.core import replication

    with _hook(lakebase_conn_id, branch)._create_autocommit_connection(autocommit=True) as connection:
        context = connection.context
        replication.prepare_tables(connection, schema, tables, set_identity=set_identity, context=context)


def read_current_lsn(lakebase_conn_id: str, branch: str) -> str:
    """Return a log sequence number behind all that is committed now.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param branch: resource name of the branch
    """
    return str(_hook(lakebase_conn_id, branch).get_first("SELECT pg_current_wal_insert_lsn()::text")[0])


def _hook(lakebase_conn_id: str, branch: str) -> LakebaseHook:
    own = LakebaseHook(lakebase_conn_id).settings.endpoint
    # The connection's own endpoint may have a host of its own.
    endpoint = None if own is not None and own.branch and str(own.up_to("branch")) == branch else branch
    return LakebaseHook(lakebase_conn_id, endpoint=endpoint, database=DATABASE, read_only=False)
