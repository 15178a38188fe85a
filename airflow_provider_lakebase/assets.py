"""Assets ``lakebase://…``: tables of a branch, whichever endpoint reads or writes them.

A URI is built from the connection alone, without a lookup. Airflow loads this module for every URI of the
scheme, so it imports little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow_provider_lakebase.core.connection.fields import DEFAULT_DATABASE
from airflow_provider_lakebase.core.connection.resource_names import RESOURCE_ID
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
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
    """Return the asset of a table. Names are given unquoted, and not URL-encoded.

    :param host: the workspace's host, without ``https://``
    :param project: ID of the project
    :param branch: ID of the branch
    :param table: name of the table
    :param schema: its schema
    :param database: its database
    :param extra: the asset's extra
    :raises LakebaseSettingsError: for an empty or malformed part
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(uri=_build(host, project, branch, database, schema, table), extra=extra)


def asset_uri(settings: LakebaseSettings, schema: str, table: str) -> str | None:
    """Return the normalized URI of a table's asset; None for a native Postgres login, which has no workspace.

    :param settings: settings of the connection
    :param schema: schema of the table, unquoted
    :param table: name of the table, unquoted
    """
    branch = branch_of(settings)
    return None if branch is None else _build(*branch, settings.session.database, schema, table)


def unity_catalog_uri(settings: LakebaseSettings, table: str) -> str:
    """Return the URI of an asset in Unity Catalog, as Airflow's Databricks provider writes it.

    :param settings: settings of the connection, whose workspace has the catalog
    :param table: ``catalog.schema.table``
    """
    return f"databricks://{workspace_host(settings)}/{table.replace('.', '/')}"


def workspace_host(settings: LakebaseSettings) -> str:
    """Return the workspace's host, with its port if it is an unusual one.

    :param settings: settings of the connection
    :raises LakebaseSettingsError: for a native Postgres login, which has none
    """
    return _host(urlsplit(settings.require_identity().host))


def branch_of(settings: LakebaseSettings) -> tuple[str, str, str] | None:
    """Return workspace host, project and branch; None for a native Postgres login.

    :param settings: settings of the connection
    """
    if settings.identity is None:
        return None
    branch = settings.require_endpoint()
    return _host(urlsplit(settings.identity.host)), branch.project, str(branch.branch)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Return a URI in its normalized form: the host in lower case, names encoded in one way.

    :param uri: a URI with the scheme ``lakebase``
    :raises LakebaseSettingsError: a ``ValueError``, if the URI does not name one table of one branch, or contains a
        user, a query or a fragment
    """
    if "@" in uri.netloc:
        raise LakebaseSettingsError("An asset's URI must not contain a user or password", hint=f"Write {_SHAPE}.")
    if uri.query or uri.fragment:
        raise LakebaseSettingsError("An asset's URI must not contain a query or a fragment", hint=f"Write {_SHAPE}.")
    parts = uri.path.split("/")[1:]
    if len(parts) != 5:
        raise LakebaseSettingsError(f"The asset's URI {uri.geturl()} does not name a table", hint=f"Write {_SHAPE}.")
    return urlsplit(_build(_host(uri), *map(unquote, parts)))


def _build(host: str, project: str, branch: str, database: str, schema: str, table: str) -> str:
    for name, part in {"project": project, "branch": branch}.items():
        if not re.fullmatch(RESOURCE_ID, part):
            raise LakebaseSettingsError(
                f"The {name} of an asset's URI is malformed: {part!r}",
                hint=f"Write {_SHAPE}; project and branch consist of lower-case letters, digits and hyphens.",
            )
    names = (database, schema, table)
    if not host or not all(names):
        raise LakebaseSettingsError("A part of an asset's URI is empty", hint=f"Write {_SHAPE}.")
    return f"{SCHEME}://{host.lower()}/{project}/{branch}/{'/'.join(quote(name, safe='') for name in names)}"


def _host(url: SplitResult) -> str:
    try:
        port = url.port
    except ValueError as error:
        raise LakebaseSettingsError("An asset's URI has a malformed port", hint=f"Write {_SHAPE}.") from error
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if port in (None, 443) else f"{host}:{port}"
