"""Run dbt with Astronomer Cosmos on a connection of type ``lakebase``.

Every DAG file that uses it imports this module: it asks no workspace, and loads neither databricks-sdk nor a driver.
The process of dbt does, in the adapter ``lakebase``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import Asset
from cosmos import dataset
from cosmos.exceptions import CosmosValueError
from cosmos.profiles import BaseProfileMapping

from airflow_provider_lakebase.assets import SCHEME, branch_of
from airflow_provider_lakebase.core.connection.fields import (
    CONNECTION_TYPE,
    DBAPI_HOOK_EXTRAS,
    DEFAULT_DATABASE,
    EXTRA_FIELDS,
    unknown_field,
)
from airflow_provider_lakebase.core.connection.identity import DATABRICKS_FIELDS, NATIVE, SECRET_KEYWORDS
from airflow_provider_lakebase.core.connection.settings import ConnectionFields, databricks_conn_id, read_settings
from airflow_provider_lakebase.hooks._connection import connection_fields
from airflow_provider_lakebase.hooks._masking import mask

_SECRETS = SECRET_KEYWORDS | {"oauth_client_secret", "scram_client_key", "scram_server_key", "sslpassword"}
# Named one by one: whatever else is given may be a secret, and is not for a file. A DAG file cannot ask libpq.
_LIBPQ = frozenset(
    {
        "channel_binding",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_issuer",
        "oauth_scope",
        "options",
        "replication",
        "requirepeer",
        "requiressl",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
    }
)
_NOT_FOR_DBT = DBAPI_HOOK_EXTRAS | {"databricks_conn_id"}
_EXTRAS = (_LIBPQ | EXTRA_FIELDS.keys()) - _NOT_FOR_DBT
_PROFILE_ARGS = _EXTRAS | {
    *("type", "schema", "threads", "role", "search_path", "application_name", "autocommit"),
    *("host", "client_id", "port", "database", "dbname"),
}
_MOCK = {
    "host": "https://mock",
    "endpoint": "projects/mock/branches/mock/endpoints/mock",
    "client_id": "mock",
    "client_secret": "mock",
    "database": "mock",
    "schema": "mock",
}


class LakebaseProfileMapping(BaseProfileMapping):  # type: ignore[misc]  # Cosmos has no types
    """Map a connection of type ``lakebase`` to a dbt profile of type ``lakebase``.

    The profile holds the connection's fields, and for each secret the name of a variable of dbt's environment. Only
    dbt itself talks to the workspace: it mints a credential for each of its sessions.

    :param conn_id: Airflow connection of type ``lakebase``
    :param profile_args: further fields of the profile, for example ``schema`` and ``threads``; or fields in place of
        the connection's, for example ``database``. Anything else is refused, since it may be a secret
    """

    airflow_connection_type = CONNECTION_TYPE
    dbt_profile_type = "lakebase"
    required_fields = list(_MOCK)

    @property
    def profile(self) -> dict[str, Any]:
        """The profile, without secrets."""
        profile: dict[str, Any] = {"type": self.dbt_profile_type}
        for path, value in self._fields():
            shown = self.get_env_var_format("_".join(path)) if path[-1] in _SECRETS else value
            (profile if len(path) == 1 else profile.setdefault(path[0], {}))[path[-1]] = shown
        return {**profile, **self.filter_null(self.profile_args)}

    @property
    def mock_profile(self) -> dict[str, Any]:
        """A profile with which dbt lists the nodes of a project; it leads nowhere."""
        given = {name: value for name, value in self.profile_args.items() if name in ("database", "schema")}
        return {"type": self.dbt_profile_type, **_MOCK, **given}

    @property
    def env_vars(self) -> dict[str, str]:
        """The connection's secrets, for the environment of dbt."""
        secrets = {
            self.get_env_var_name("_".join(path)): str(value) for path, value in self._fields() if path[-1] in _SECRETS
        }
        for secret in secrets.values():
            mask(secret)
        return secrets

    @classmethod
    def get_env_var_name(cls, field_name: str) -> str:
        """Return the name of the variable for a secret. dbt masks variables with this prefix in its logs.

        :param field_name: the secret's name
        """
        return f"DBT_ENV_SECRET_LAKEBASE_{field_name.upper()}"

    def can_claim_connection(self) -> bool:
        """Return whether the connection is of type ``lakebase``."""
        return bool(self.conn.conn_type == self.airflow_connection_type)

    def _validate_profile_args(self) -> None:
        super()._validate_profile_args()
        for name, value in self.profile_args.items():
            if name not in _PROFILE_ARGS:
                raise CosmosValueError(
                    f"profile_args must not contain {name}, which is a secret or not a field of the profile. "
                    f"Enter secrets in connection '{self.conn_id}'."
                )
            if not isinstance(value, str | int | float | None):
                raise CosmosValueError(
                    f"profile_args holds a {type(value).__name__} as {name}. Give a text, a number or a boolean."
                )

    def _fields(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Give the fields that are set, by their place in the profile.

        :raises LakebaseSettingsError: if a field of the connection is missing, wrong or unknown
        """
        own = connection_fields(self.conn_id, self.conn, CONNECTION_TYPE)
        source = databricks_conn_id(own)
        databricks = connection_fields(source, type(self)(source).conn, "databricks") if source else None
        read_settings(own, databricks=databricks)
        kept = {
            name: value for name, value in own.extra.items() if name not in _NOT_FOR_DBT and value not in (None, "")
        }
        for name in sorted(kept.keys() - _EXTRAS - _SECRETS):
            raise unknown_field(self.conn_id, name, _LIBPQ)
        mine = {"host": own.host, "client_id": own.login, "client_secret": own.password, "port": own.port, **kept}
        yield ("database",), own.schema or DEFAULT_DATABASE
        yield from (((name,), value) for name, value in mine.items() if value not in (None, ""))
        if databricks:
            theirs = {"host": databricks.host, "login": databricks.login, "password": databricks.password}
            theirs |= {name: value for name, value in databricks.extra.items() if name in DATABRICKS_FIELDS}
            yield from ((("databricks", name), value) for name, value in theirs.items() if value not in (None, ""))


def emit_assets(project_dir: str, *, context: Mapping[str, Any], **_: Any) -> None:
    """Report the tables that dbt wrote as events of assets ``lakebase://…``; a callback of Cosmos' operators.

    :param project_dir: the folder with what dbt left
    :param context: Airflow's context
    """
    operator = context["task"]
    target = Path(project_dir) / "target"
    results = target / "run_results.json"
    namespace = dataset.get_dataset_namespace(operator.profile_config)
    # dbt may have failed before it ran anything, which Cosmos reports after this.
    if namespace is None or not results.exists():
        return
    uris = dataset.compute_model_outlet_uris(target / "manifest.json", namespace)
    written = [each["unique_id"] for each in json.loads(results.read_text())["results"] if each["status"] == "success"]
    assets = [Asset(uri=uri) for name in written for uri in uris.get(name, ())]
    if assets:
        operator.register_dataset([], assets, context)


def _namespace(profile: Mapping[str, Any]) -> str:
    """Return the start of the assets' URIs for a profile; an empty text for a native Postgres login."""
    if profile.get("auth_type") == NATIVE:
        return ""
    host = (profile.get("databricks") or profile).get("host")
    # Who signs in does not matter here.
    extra = {"endpoint": profile.get("endpoint"), "auth_type": "github-oidc"}
    branch = branch_of(read_settings(ConnectionFields("dbt", host=host, login="any", extra=extra)))
    return f"{SCHEME}://{'/'.join(branch or ())}"


def _outlet_uris(
    compute: Callable[[str | Path, str], dict[str, list[str]]], manifest_path: str | Path, namespace: str
) -> dict[str, list[str]]:
    """Return the URIs of the assets of each node, as Cosmos computes them; for Lakebase encoded as loads do it."""
    found = compute(manifest_path, namespace)
    if not found or not namespace.startswith(f"{SCHEME}://"):
        return found
    nodes = json.loads(Path(manifest_path).read_text())["nodes"]
    return {name: [f"{namespace}/{_path(nodes[name])}"] for name in found}


def _path(node: Mapping[str, Any]) -> str:
    names = (node["database"], node["schema"], node.get("alias") or node["name"])
    return "/".join(quote(each, safe="") for each in names)


# Cosmos names the assets of the adapters that it knows, and has no public place for others; nor has it one for the
# names of tables, in which it takes each dot and slash for the end of a name.
dataset.compute_model_outlet_uris = partial(_outlet_uris, dataset.compute_model_outlet_uris)
dataset._ADAPTER_NAMESPACE_RESOLVERS[LakebaseProfileMapping.dbt_profile_type] = _namespace
