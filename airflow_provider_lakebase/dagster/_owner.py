"""The owner of a table: the asset, or the output of an op, that the I/O manager created it for."""

from __future__ import annotations

from typing import Any

import psycopg
from dagster import AssetKey, OutputContext
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Table
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_PREFIX = "Stored by LakebaseIOManager for "
_COMMENT = "SELECT obj_description(%s::oid, 'pg_class')"


def name_asset(key: AssetKey) -> str:
    """Return an asset's key as text, which no other key has.

    :param key: of the asset
    """
    return "/".join(part.replace("\\", "\\\\").replace("/", "\\/") for part in key.path)


def name_owner(context: OutputContext) -> str:
    """Return the name of the asset, or of the output of an op, that is stored.

    :param context: of the output
    """
    if context.has_asset_key:
        return f"asset {name_asset(context.asset_key)}"
    mapped = f"[{context.mapping_key}]" if context.mapping_key else ""
    output = f"output {context.name}{mapped}"
    assets = context.step_context.assets_def
    if assets is None:
        return f"{output} of step {context.step_key} in job {context.job_name}"
    # Several jobs may run the graph behind an asset, and each numbers its node anew.
    asset = min(map(name_asset, assets.node_keys_by_output_name.values()))
    step = ".".join(context.step_key.split(".")[1:])
    return f"{output} of step {step} in asset {asset}"


def claim_table(session: psycopg.Connection[Any], table: Table, owner: str, *, is_new: bool) -> None:
    """Refuse to write to a table of another owner; name the owner of a new table in its comment.

    :param session: an open session
    :param table: the target
    :param owner: from :func:`name_owner`
    :param is_new: whether the load has created the table
    :raises LakebaseSettingsError: if the comment names another owner
    """
    comment = session.execute(_COMMENT, [table.oid]).fetchall()[0][0] or ""
    own = _PREFIX + owner
    # People add what a table is for below.
    if comment == own or comment.startswith(f"{own}\n"):
        return
    if comment.startswith(_PREFIX):
        other = comment.removeprefix(_PREFIX).partition("\n")[0]
        raise LakebaseSettingsError(
            f"Table {table.name} belongs to {other}, so {owner} cannot be stored in it",
            context=session_context(session),
            hint="Give one of them the metadata 'table' or 'schema', for a table of its own. If it was renamed, or "
            f"both are to share the table, drop the comment: COMMENT ON TABLE {table.name} IS NULL.",
        )
    if is_new:
        comment_on = sql.SQL("COMMENT ON TABLE {} IS {}")
        session.execute(comment_on.format(table.identifier, sql.Literal(own)))
