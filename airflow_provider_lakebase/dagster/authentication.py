"""The kinds of authentication of a Lakebase resource, as nested configuration; their names are databricks-sdk's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dagster import Config, EnvVar
from pydantic import ConfigDict, Field

_INTEGER = EnvVar.int("")
"""Its class has no public name."""
_CLIENT_ID = Field(description="Client ID of the service principal, which is also its Postgres role.")
STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True)
"""Refuse unknown fields, which Dagster would ignore, and show no values in errors: one may be a secret."""
_AUDIENCE = Field(default=None, description="Audience of the identity token, where the workspace expects one.")


class Authentication(Config):
    """What the kinds have in common: the names of their fields in the core."""

    model_config = STRICT

    login_field: ClassVar[str] = "client_id"
    secret_field: ClassVar[str | None] = None

    def read(self, name: str | None) -> str | None:
        """Return the value of a field, from the environment where it is an ``EnvVar``.

        :param name: the field; None for a kind that has no such field
        """
        return read_value(getattr(self, name)) if name else None

    @property
    def login(self) -> str | None:
        """The client ID, or the Postgres role."""
        return self.read(self.login_field)

    @property
    def secret(self) -> str | None:
        """The secret that goes with the login, where the kind has one."""
        return self.read(self.secret_field)

    @property
    def others(self) -> Mapping[str, str | None]:
        """The kind's further fields."""
        own = type(self).model_fields.keys() - {self.login_field, self.secret_field, "auth_type"}
        return {name: self.read(name) for name in own}


class ServicePrincipal(Authentication):
    """A service principal with its OAuth secret."""

    secret_field = "client_secret"  # noqa: S105 - the name of a field

    auth_type: Literal["oauth-m2m"] = "oauth-m2m"
    client_id: str = _CLIENT_ID
    client_secret: str = Field(repr=False, description="Its OAuth secret: EnvVar(…).")


class EnvironmentOidc(Authentication):
    """A service principal, by an identity token in an environment variable."""

    auth_type: Literal["env-oidc"] = "env-oidc"
    client_id: str = _CLIENT_ID
    oidc_token_env: str = Field(description="Name of the environment variable that holds the identity token.")
    token_audience: str | None = _AUDIENCE


class FileOidc(Authentication):
    """A service principal, by an identity token in a file."""

    auth_type: Literal["file-oidc"] = "file-oidc"
    client_id: str = _CLIENT_ID
    oidc_token_filepath: str = Field(description="File that holds the identity token.")
    token_audience: str | None = _AUDIENCE


class GitHubOidc(Authentication):
    """A service principal, by the identity token of a GitHub Actions job."""

    auth_type: Literal["github-oidc"] = "github-oidc"
    client_id: str = _CLIENT_ID
    token_audience: str | None = _AUDIENCE


class AzureDevOpsOidc(Authentication):
    """A service principal, by the identity token of an Azure DevOps job."""

    auth_type: Literal["azure-devops-oidc"] = "azure-devops-oidc"
    client_id: str = _CLIENT_ID
    token_audience: str | None = _AUDIENCE


class PostgresPassword(Authentication):
    """A Postgres role with a password of its own. It needs no workspace, but ``pg_host``."""

    login_field = "user"
    secret_field = "password"  # noqa: S105 - the name of a field

    auth_type: Literal["password"] = "password"
    user: str = Field(description="The Postgres role.")
    password: str = Field(repr=False, description="Its password: EnvVar(…).")


def read_value(value: Any) -> Any:
    """Return a value; of an ``EnvVar``, which only Dagster's runs replace, the one in the environment.

    :param value: of a field
    """
    return value.get_value() if isinstance(value, EnvVar | type(_INTEGER)) else value
