"""Assets ``lakebase://…``: a table of a branch, whatever endpoint it is read or written by.

All of an asset's URI is known from the connection, so nobody is asked for it. Airflow loads this module for every
URI of that scheme, so it is light.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow_provider_lakebase.core.connection.fields import DEFAULT_DATABASE
from airflow_provider_lakebase.core.connection.resource_names import RESOURCE_ID
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.common.compat.sdk import Asset

    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings

SCHEME = "lakebase"
DEFAULT_SCHEMA = "public"
_SHAPE = "lakebase://<workspace host>/<project>/<branch>/<database>/<schema>/<table>"


def create_asset(
    *,
    host: str,
    project: str,
    branch: str,
    table: str,
    schema: str = DEFAULT_SCHEMA,
    database: str = DEFAULT_DATABASE,
    extra: dict[str, Any] | None = None,
) -> Asset:
    """Return the asset of a table, from names as they are, not encoded for a URL.

    :param host: the workspace's host, without a scheme
    :param project: ID of the project
    :param branch: ID of the branch
    :param table: name of the table
    :param schema: its schema
    :param database: its database
    :param extra: what else to say of the asset
    :raises LakebaseSettingsError: for parts that make no URI
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(uri=_build(host, project, branch, database, schema, table), extra=extra)


def asset_uri(settings: LakebaseSettings, schema: str, table: str) -> str | None:
    """Return the URI of a table's asset, normalised; None for a native Postgres login, which knows no workspace.

    :param settings: of the connection that the table is written by
    :param schema: schema of the table, unquoted
    :param table: name of the table, unquoted
    """
    branch = branch_of(settings)
    return None if branch is None else _build(*branch, settings.session.database, schema, table)


def branch_of(settings: LakebaseSettings) -> tuple[str, str, str] | None:
    """Return workspace host, project and branch; None for a native Postgres login.

    :param settings: of a connection
    """
    if settings.identity is None:
        return None
    branch = settings.require_endpoint()
    return _host(urlsplit(settings.identity.host)), branch.project, str(branch.branch)


def namespace_of(settings: LakebaseSettings) -> str:
    """Return OpenLineage's namespace of the tables that a connection reaches.

    :param settings: of the connection
    :returns: ``postgres://host:port`` where the connection names the host; else ``lakebase://workspace/project/branch``,
        since the host could only be looked up
    """
    if settings.session.pg_host:
        return f"postgres://{settings.session.pg_host.lower()}:{settings.session.port}"
    return f"{SCHEME}://{'/'.join(branch_of(settings) or ())}"


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Return the URI as every way to write it comes out: the host in lower case, names encoded alike.

    :param uri: what somebody wrote, with the scheme ``lakebase``
    :raises LakebaseSettingsError: a ``ValueError``, when it does not name one table of one branch, or says more
    """
    if "@" in uri.netloc:
        raise LakebaseSettingsError("An asset's URI holds user or password", hint=f"Write {_SHAPE}.")
    if uri.query or uri.fragment:
        raise LakebaseSettingsError("An asset's URI holds a query or a fragment", hint=f"Write {_SHAPE}.")
    parts = uri.path.split("/")[1:]
    if len(parts) != 5:
        raise LakebaseSettingsError(f"The asset's URI {uri.geturl()} names no table", hint=f"Write {_SHAPE}.")
    return urlsplit(_build(_host(uri), *map(unquote, parts)))


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """Return the OpenLineage dataset of an asset.

    :param asset: with a ``lakebase://…`` URI
    :param lineage_context: the hook that told of it, or None
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    parts = urlsplit(asset.uri)
    project, branch, *table = parts.path.split("/")[1:]
    settings = getattr(lineage_context, "settings", None)
    namespace = namespace_of(settings) if settings else f"{SCHEME}://{parts.netloc}/{project}/{branch}"
    return Dataset(namespace=namespace, name=".".join(map(unquote, table)))


def emit_event(operator: Any, context: Mapping[str, Any], uri: str, extra: Mapping[str, Any]) -> None:
    """Emit an event for an asset, as if the task had it among its outlets.

    Airflow drops the event where no DAG names the asset.

    :param operator: the task that runs, whose outlets get the asset where they do not have it
    :param context: Airflow's, of the task
    :param uri: the asset's, normalised
    :param extra: what the event says; on Airflow 3 it is lost for an asset of another name than its URI, unless the
        asset is among the task's outlets
    """
    if "outlet_events" not in context:  # the task runs outside of Airflow
        return
    from airflow.providers.common.compat.sdk import Asset, AssetAlias
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    outlets = [each for each in operator.outlets if not isinstance(each, AssetAlias)]
    declared = next((each for each in outlets if _has_uri(each, uri, context)), None)
    try:
        event = context["outlet_events"][Asset(uri=uri) if declared is None else declared]
    except Exception as error:
        # The rows are there, so the task must not fail.
        operator.log.warning("Asset %s cannot be looked up, no event is emitted: %s", uri, error)
        return
    event.extra = {**event.extra, **extra}
    if declared is None:
        # A reference stands for the asset whatever its name is. Looking it up here would write an error into the log
        # of each load whose asset no DAG names. Airflow 2 has no references.
        operator.outlets = [*operator.outlets, Asset.ref(uri=uri) if AIRFLOW_V_3_0_PLUS else Asset(uri=uri)]


def _has_uri(outlet: Any, uri: str, context: Mapping[str, Any]) -> bool:
    """Return whether an outlet is the asset. One that is referred to by its name is looked up: it is known to exist."""
    found = getattr(outlet, "uri", None)
    if found is None and getattr(outlet, "name", None) is not None:
        with suppress(Exception):
            found = context["outlet_events"][outlet].key.uri
    return bool(found == uri)


def _build(host: str, project: str, branch: str, database: str, schema: str, table: str) -> str:
    for name, part in {"project": project, "branch": branch}.items():
        if not re.fullmatch(RESOURCE_ID, part):
            raise LakebaseSettingsError(
                f"The {name} of an asset's URI is malformed: {part!r}",
                hint=f"Write {_SHAPE}; project and branch are of lower-case letters, digits and hyphens.",
            )
    names = (database, schema, table)
    if not host or not all(names):
        raise LakebaseSettingsError("A part of an asset's URI is empty", hint=f"Write {_SHAPE}.")
    return f"{SCHEME}://{host.lower()}/{project}/{branch}/{'/'.join(quote(name, safe='') for name in names)}"


def _host(url: SplitResult) -> str:
    try:
        port = url.port
    except ValueError as error:
        raise LakebaseSettingsError("An asset's URI holds a malformed port", hint=f"Write {_SHAPE}.") from error
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if port in (None, 443) else f"{host}:{port}"
