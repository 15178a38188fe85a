"""What an Airflow connection of type ``lakebase`` says, checked once and frozen.

This module knows neither Airflow nor libpq: it gets the connection's fields as plain values and answers with
:class:`LakebaseSettings`, or with a :class:`LakebaseSettingsError` that names the field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from airflow_provider_lakebase.core.connection.fields import (
    DBAPI_HOOK_EXTRAS,
    DEFAULT_AUTH_TYPE,
    DEFAULT_DATABASE,
    DEFAULT_PORT,
    DEFAULT_SSLMODE,
    DEFAULT_WAKE_TIMEOUT,
    ENDPOINT_SHAPE,
    EXTRA_FIELDS,
    LOGIN_REMEDY,
    OIDC_FIELDS,
    POSTGRES_HOOK_EXTRAS,
    SECRETS,
    is_pooled,
    read_endpoint_name,
    read_text,
    refuse_reserved,
    required,
    unknown_field,
    whole_number,
    workspace_url,
    wrong_field,
)
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

_SETTINGS_FIELDS = frozenset(EXTRA_FIELDS) - {"auth_type", "databricks_conn_id", *OIDC_FIELDS}


@dataclass(frozen=True)
class SessionAddress:
    """Hold where a session is opened, and as whom, once the workspace has been asked.

    :param endpoint: resource name of the endpoint; empty for a native Postgres login
    :param host: Postgres host
    :param user: Postgres role
    """

    endpoint: str
    host: str
    user: str


@dataclass(frozen=True)
class LakebaseSettings:
    """Hold everything that opening a session needs to know.

    :param conn_id: Airflow connection id, for messages; empty where it would say nothing
    :param endpoint: ``projects/<project>/branches/<branch>/endpoints/<endpoint>``, or a branch, whose one read-write
        endpoint is meant; empty for a native Postgres login
    :param workspace: keywords of databricks-sdk's ``Config``, workspace URL and identity; left out of the repr
    :param user: Postgres role to log in as, or None to follow the identity
    :param database: Postgres database
    :param port: Postgres port
    :param pg_host: Postgres host, or None to look it up from the endpoint
    :param password: password of a native Postgres login, or None to mint credentials; left out of the repr
    :param group_name: group whose role the credential is for
    :param read_only: whether sessions only read, on the read-only host where there is one
    :param sslmode: ``require``, ``verify-ca`` or ``verify-full``
    :param sslrootcert: path of a file with the certificate authorities to trust, or None
    :param wake_timeout: seconds that opening a session may take, waking included
    :param credential_ttl: seconds that a minted credential lives, or None for the service's own
    :param libpq: further keywords for libpq, as given; left out of the repr
    """

    conn_id: str
    endpoint: str
    workspace: Mapping[str, str] = field(repr=False)
    user: str | None = None
    database: str = DEFAULT_DATABASE
    port: int = DEFAULT_PORT
    pg_host: str | None = None
    password: str | None = field(default=None, repr=False)
    group_name: str | None = None
    read_only: bool = False
    sslmode: str = DEFAULT_SSLMODE
    sslrootcert: str | None = None
    wake_timeout: float = DEFAULT_WAKE_TIMEOUT
    credential_ttl: int | None = None
    libpq: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def secrets(self) -> list[str]:
        """Return what must not be shown: passwords, secrets and tokens."""
        return [
            *filter(None, [self.password, self.libpq.get("sslpassword")]),
            *(self.workspace[name] for name in SECRETS if name in self.workspace),
        ]

    @property
    def identity(self) -> str:
        """Return a name for the workspace and identity that differs from any other's and reveals nothing."""
        return hashlib.sha256(repr(sorted(self.workspace.items())).encode()).hexdigest()

    @property
    def context(self) -> ErrorContext:
        """Return what errors name: connection, endpoint, host, database and role."""
        return ErrorContext(self.conn_id, self.endpoint, self.pg_host or "", self.database, self.user or "")

    def override(self, *, database: str | None = None, options: str | None = None) -> LakebaseSettings:
        """Return settings with what a hook or an operator gave put in place of the connection's.

        :param database: another database
        :param options: libpq's ``options``, for example ``-c statement_timeout=5min``; added behind the connection's
        """
        changed = self
        if database:
            changed = replace(changed, database=database)
        if options:
            merged = " ".join(filter(None, [self.libpq.get("options"), options]))
            changed = replace(changed, libpq=MappingProxyType({**self.libpq, "options": merged}))
        return changed


@dataclass(frozen=True)
class ConnectionFields:
    """Hold the fields of an Airflow connection, as plain values.

    Values may be strings, as in a connection given as a URI: numbers are read from them. None and the empty string
    count as absent, as Airflow's form saves fields that were left alone.

    :param conn_id: Airflow connection id
    :param host: workspace URL
    :param login: client ID, or a native Postgres role
    :param password: its OAuth secret, or the role's password
    :param schema: database
    :param port: Postgres port
    :param extra: the connection's extra fields
    """

    conn_id: str
    host: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    port: int | str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def databricks_conn_id(fields: ConnectionFields) -> str | None:
    """Return the Databricks connection that a Lakebase connection takes its identity from, if any.

    :param fields: the Lakebase connection
    """
    return fields.extra.get("databricks_conn_id") or None


def read_settings(
    fields: ConnectionFields,
    *,
    endpoint: str | None = None,
    read_only: bool | None = None,
    databricks: ConnectionFields | None = None,
) -> LakebaseSettings:
    """Check the fields of an Airflow connection and return them as settings.

    :param fields: the Lakebase connection
    :param endpoint: endpoint named by the hook or operator, where the connection need not name one; a ``pg_host`` of
        the connection's does not apply to it
    :param read_only: whether sessions only read, in place of the connection's
    :param databricks: the Databricks connection that it names, if it names one
    :raises LakebaseSettingsError: for a field that is missing, wrong or unknown; the message names it
    """
    conn_id = fields.conn_id
    given = {name: value for name, value in fields.extra.items() if value is not None and value != ""}
    refuse_reserved(conn_id, given)
    known = {name: read(conn_id, name, given[name]) for name, read in EXTRA_FIELDS.items() if name in given}
    for name in POSTGRES_HOOK_EXTRAS:
        if name in given:
            raise unknown_field(conn_id, name, ())
    libpq = {
        name: read_text(conn_id, name, given[name])
        for name in sorted(set(given) - set(EXTRA_FIELDS) - DBAPI_HOOK_EXTRAS)
    }
    identity = _identity(fields, known, databricks)
    if endpoint:
        if "password" in identity and endpoint != known.get("endpoint"):
            raise wrong_field(
                conn_id,
                "endpoint",
                "has no use with auth_type 'password'",
                "A native Postgres login goes to 'pg_host': leave 'endpoint' out of the hook or operator, or name a "
                "connection of an identity of the workspace.",
            )
        if endpoint != known.get("endpoint"):
            known.pop("pg_host", None)
        known["endpoint"] = read_endpoint_name(conn_id, "endpoint", endpoint)
    if read_only is not None:
        known["read_only"] = read_only
    _require_place(conn_id, known, libpq, native="password" in identity)
    return LakebaseSettings(
        conn_id=conn_id,
        database=fields.schema or DEFAULT_DATABASE,
        port=whole_number(1, 65535)(conn_id, "Port", fields.port) if fields.port else DEFAULT_PORT,
        libpq=MappingProxyType(libpq),
        **{"endpoint": "", **identity, **{name: known[name] for name in known if name in _SETTINGS_FIELDS}},
    )


def _identity(
    fields: ConnectionFields, known: Mapping[str, Any], databricks: ConnectionFields | None
) -> dict[str, Any]:
    """Return the settings that say who connects: ``workspace`` and ``user``, or ``password`` and ``user``."""
    conn_id = fields.conn_id
    auth_type = known.get("auth_type", DEFAULT_AUTH_TYPE)
    if databricks is not None:
        clash = next((name for name, value in _own_identity(fields, known).items() if value), None)
        if clash:
            raise wrong_field(conn_id, clash, "clashes with 'databricks_conn_id'", "Give one of the two.")
        return {"workspace": _databricks_identity(conn_id, databricks), "user": known.get("group_name")}
    login = required(conn_id, "Login", fields.login, LOGIN_REMEDY).strip()
    if auth_type == "password":
        password = required(conn_id, "Password", fields.password, "Enter the password of the Postgres role.")
        return {"workspace": MappingProxyType({}), "user": login, "password": password}
    workspace = {
        "host": workspace_url(conn_id, required(conn_id, "Host", fields.host, "Enter the workspace URL, https://….")),
        "auth_type": auth_type,
        "client_id": login,
        **{name: known[name] for name in OIDC_FIELDS if name in known},
    }
    for kind, name in (("env-oidc", "oidc_token_env"), ("file-oidc", "oidc_token_filepath")):
        if auth_type == kind and name not in known:
            raise wrong_field(conn_id, name, "is missing", f"With auth_type '{kind}' it says where the token is.")
    if auth_type == DEFAULT_AUTH_TYPE:
        secret = required(conn_id, "Password", fields.password, "Enter the service principal's OAuth secret.")
        workspace["client_secret"] = secret
    elif fields.password:
        raise wrong_field(conn_id, "Password", f"has no use with auth_type '{auth_type}'", "Leave it empty.")
    return {"workspace": MappingProxyType(workspace), "user": known.get("group_name") or login}


def _own_identity(fields: ConnectionFields, known: Mapping[str, Any]) -> dict[str, Any]:
    own = {"Host": fields.host, "Login": fields.login, "Password": fields.password}
    return {**own, **{name: known.get(name) for name in ("auth_type", *OIDC_FIELDS)}}


def _databricks_identity(conn_id: str, databricks: ConnectionFields) -> Mapping[str, str]:
    """Return databricks-sdk's keywords for a connection of the Databricks provider, by its documented fields."""
    name, extra = databricks.conn_id, databricks.extra
    host = extra.get("host") or databricks.host
    workspace = {"host": workspace_url(name, required(name, "Host", host, "Enter the workspace URL, https://…."))}
    secret = databricks.password or ""
    managed = str(extra.get("use_azure_managed_identity", "")).lower() == "true"
    token = extra.get("token") or ("" if managed or databricks.login not in (None, "", "token") else secret)
    if extra.get("azure_tenant_id"):
        workspace |= {
            "auth_type": "azure-client-secret",
            "azure_client_id": databricks.login or "",
            "azure_client_secret": secret,
            "azure_tenant_id": str(extra["azure_tenant_id"]),
        }
        if extra.get("azure_resource_id"):
            workspace["azure_workspace_resource_id"] = str(extra["azure_resource_id"])
    elif str(extra.get("service_principal_oauth", "")).lower() == "true":
        client_id = (databricks.login or "").strip()
        workspace |= {"auth_type": "oauth-m2m", "client_id": client_id, "client_secret": secret}
    elif token:
        workspace |= {"auth_type": "pat", "token": str(token)}
    if "auth_type" not in workspace or not all(workspace.values()):
        raise LakebaseSettingsError(
            f"Connection '{name}' holds none of: a service principal's client ID and secret with "
            "'service_principal_oauth', one of Azure with 'azure_tenant_id', a personal access token",
            context=ErrorContext(conn_id),
            hint="Complete it, or give Login and Password in this connection.",
        )
    return MappingProxyType(workspace)


def _require_place(conn_id: str, known: Mapping[str, Any], others: Mapping[str, str], *, native: bool) -> None:
    if native and not known.get("pg_host"):
        raise wrong_field(conn_id, "pg_host", "is missing", "A native Postgres login names its host itself.")
    if not native and not known.get("endpoint"):
        for near in get_close_matches("endpoint", others, n=1, cutoff=0.75):
            raise unknown_field(conn_id, near, ())
        hint = f"Name it, as {ENDPOINT_SHAPE}, in the connection's extra, or on the hook or operator."
        raise wrong_field(conn_id, "endpoint", "is missing", hint)
    if native and known.get("read_only") and is_pooled(known.get("pg_host")):
        raise wrong_field(conn_id, "read_only", "cannot be had on a pooled host", "Use the direct host.")
    if not native and is_pooled(known.get("pg_host")):
        raise wrong_field(
            conn_id,
            "pg_host",
            "is a pooled host, which does not accept OAuth credentials",
            "Use the direct host, the same name without '-pooler', or a Postgres role with auth_type 'password'.",
        )
