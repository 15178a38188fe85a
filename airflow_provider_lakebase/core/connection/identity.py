"""The identity that signs in to a workspace, and the kinds of authentication that a connection can choose.

To add a kind, add a row to :data:`AUTH_KINDS`. The names of kinds and keywords are databricks-sdk's:
https://databricks-sdk-py.readthedocs.io/en/latest/authentication.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from airflow_provider_lakebase.core.connection.readers import read_workspace_url, required, wrong_field
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

NATIVE = "password"
"""The kind that signs in to no workspace: a Postgres role with a password of its own."""
DEFAULT_AUTH_TYPE = "oauth-m2m"


@dataclass(frozen=True)
class WorkspaceIdentity:
    """A workspace and the identity that signs in to it.

    :param host: URL of the workspace
    :param auth_type: kind of authentication, as databricks-sdk names it
    :param keywords: further keywords of databricks-sdk's ``Config``; left out of the repr
    """

    host: str
    auth_type: str
    keywords: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def client_id(self) -> str | None:
        """Client ID of the service principal; None where only the workspace can tell it."""
        return self.keywords.get("client_id")

    @property
    def secrets(self) -> list[str]:
        """The values that no log may show."""
        return [value for name, value in self.keywords.items() if name in SECRET_KEYWORDS]

    @property
    def key(self) -> str:
        """A hash that is unique to this workspace and identity, and reveals neither."""
        parts = [self.host, self.auth_type, *sorted(self.keywords.items())]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class AuthKind:
    """One kind of authentication: the connection's fields that it needs, and databricks-sdk's keywords for them.

    :param auth_type: its name
    :param required: keyword by field, for fields that must be given
    :param optional: keyword by field, for fields that may be given
    :param chosen_by: extra field that chooses this kind in a Databricks connection
    """

    auth_type: str
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    chosen_by: str = ""

    def read(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return databricks-sdk's keywords for the fields that are given.

        :param fields: the connection's fields, by the names that the form shows
        """
        known = {**self.required, **self.optional}
        return {keyword: str(fields[name]) for name, keyword in known.items() if fields.get(name)}


_OIDC = {"Login": "client_id"}
_AUDIENCE = {"token_audience": "token_audience"}

AUTH_KINDS: Mapping[str, AuthKind] = {
    kind.auth_type: kind
    for kind in (
        AuthKind(DEFAULT_AUTH_TYPE, {"Login": "client_id", "Password": "client_secret"}),
        AuthKind("env-oidc", {**_OIDC, "oidc_token_env": "oidc_token_env"}, _AUDIENCE),
        AuthKind("file-oidc", {**_OIDC, "oidc_token_filepath": "oidc_token_filepath"}, _AUDIENCE),
        AuthKind("github-oidc", _OIDC, _AUDIENCE),
        AuthKind("azure-devops-oidc", _OIDC, _AUDIENCE),
        AuthKind(NATIVE, {"Login": "user", "Password": "password"}),
    )
}
"""The kinds that a Lakebase connection can choose by ``auth_type``."""

DATABRICKS_KINDS = (
    AuthKind(
        "azure-client-secret",
        {"Login": "azure_client_id", "Password": "azure_client_secret", "azure_tenant_id": "azure_tenant_id"},
        {"azure_resource_id": "azure_workspace_resource_id"},
        chosen_by="azure_tenant_id",
    ),
    AuthKind(
        "oauth-m2m",
        {"Login": "client_id", "Password": "client_secret"},
        chosen_by="service_principal_oauth",
    ),
    AuthKind("pat", {"token": "token"}, chosen_by="token"),
)
"""The kinds of a Databricks connection that can mint credentials; the first one that is chosen counts.

https://airflow.apache.org/docs/apache-airflow-providers-databricks/stable/connections/databricks.html
"""

DATABRICKS_FIELDS = frozenset({"host", "login", "password", "use_azure_managed_identity"}).union(
    *({*kind.required, *kind.optional, kind.chosen_by} for kind in DATABRICKS_KINDS)
) - {"Login", "Password"}
"""All fields of a Databricks connection that some kind of :data:`DATABRICKS_KINDS` reads, by their names in JSON."""

SECRET_KEYWORDS = frozenset({"client_secret", "password", "token", "azure_client_secret"})
"""Keywords whose values are secrets."""
AUTH_FIELDS = tuple(dict.fromkeys(name for kind in AUTH_KINDS.values() for name in (*kind.required, *kind.optional)))
"""All fields that some kind of :data:`AUTH_KINDS` reads."""
_HINTS = {
    "Host": "Enter the workspace URL, https://….",
    "Login": f"Enter the client ID of the service principal, or a Postgres role with auth_type '{NATIVE}'.",
    "Password": "Enter the service principal's OAuth secret, or the password of the Postgres role.",
    "oidc_token_env": "Name the environment variable that holds the identity token.",
    "oidc_token_filepath": "Name the file that holds the identity token.",
}


def read_authentication(conn_id: str, auth_type: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Check the fields of a kind of authentication and return its keywords.

    :param conn_id: Airflow connection id
    :param auth_type: one of :data:`AUTH_KINDS`
    :param fields: ``Host``, ``Login``, ``Password`` and extras of a Lakebase connection
    :raises LakebaseSettingsError: for a field that is missing, or that this kind does not use
    """
    kind = AUTH_KINDS[auth_type]
    for name in kind.required:
        required(conn_id, name, fields.get(name), _HINTS[name])
    for name in AUTH_FIELDS:
        if fields.get(name) and name not in kind.required and name not in kind.optional:
            raise wrong_field(conn_id, name, f"is not used with auth_type '{auth_type}'", "Leave it empty.")
    return kind.read({**fields, "Login": str(fields["Login"]).strip()})


def read_identity(conn_id: str, auth_type: str, fields: Mapping[str, Any]) -> WorkspaceIdentity:
    """Return the identity of a Lakebase connection.

    :param conn_id: Airflow connection id
    :param auth_type: one of :data:`AUTH_KINDS`, but not ``password``
    :param fields: ``Host``, ``Login``, ``Password`` and extras of the connection
    :raises LakebaseSettingsError: for a field that is missing, wrong or not used
    """
    host = read_workspace_url(conn_id, "Host", required(conn_id, "Host", fields.get("Host"), _HINTS["Host"]))
    return WorkspaceIdentity(host, auth_type, MappingProxyType(read_authentication(conn_id, auth_type, fields)))


def read_databricks_identity(conn_id: str, databricks_conn_id: str, fields: Mapping[str, Any]) -> WorkspaceIdentity:
    """Return the identity of a connection of the Databricks provider.

    :param conn_id: the Lakebase connection that refers to it, for messages
    :param databricks_conn_id: its own id
    :param fields: ``Host``, ``Login``, ``Password`` and extras of the Databricks connection
    :raises LakebaseSettingsError: when it holds no identity that can mint credentials
    """
    name = databricks_conn_id
    host = required(name, "Host", fields.get("host") or fields.get("Host"), _HINTS["Host"])
    url = read_workspace_url(name, "Host", host)
    given = {
        **fields,
        "Login": str(fields.get("Login") or "").strip(),
        "token": _databricks_token(fields),
        "service_principal_oauth": _is_true(fields.get("service_principal_oauth")),
    }
    kind = next((each for each in DATABRICKS_KINDS if given.get(each.chosen_by)), None)
    if kind is None or not all(given.get(each) for each in kind.required):
        raise LakebaseSettingsError(
            f"Connection '{name}', named by 'databricks_conn_id', holds no identity: no client ID and secret "
            "with 'service_principal_oauth', no service principal of Azure with 'azure_tenant_id', no personal access "
            "token",
            context=ErrorContext(conn_id),
            hint="Complete it, or enter {login} and {password} in this connection.",
        )
    return WorkspaceIdentity(url, kind.auth_type, MappingProxyType(kind.read(given)))


def _is_true(value: Any) -> bool:
    return str(value).lower() == "true"  # a connection given as a URI carries text


def _databricks_token(fields: Mapping[str, Any]) -> str:
    """Return the personal access token, which may also be the password of a connection with no login of its own."""
    if fields.get("token"):
        return str(fields["token"])
    has_login = fields.get("Login") not in (None, "", "token")
    is_managed = _is_true(fields.get("use_azure_managed_identity"))
    return "" if is_managed or has_login else str(fields.get("Password") or "")
