"""databricks-sdk's configuration, shut off from the environment, and its log, without credentials."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

from airflow_provider_lakebase import __version__
from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.workspace.light_sdk import Config, ConfigAttribute, OidcEndpoints

KNOWN_SIGN_IN = frozenset({"oauth-m2m", "env-oidc", "file-oidc", "pat", "azure-client-secret"})
"""The kinds of authentication that need nothing of what discovery answers but the token endpoint.

``github-oidc`` and ``azure-devops-oidc`` are not among them: they ask for an identity token for the audience that
discovery names.
"""
CALLERS = {"airflow": "apache-airflow", "dagster": "dagster", "dbt": "dbt-core"}
"""Modules and packages of the programs whose versions the user agent names."""
TOKEN_PATH = "/oidc/v1/token"  # noqa: S105 - a path
"""Where a workspace issues tokens; databricks-sdk has it as ``core.OIDC_TOKEN_PATH``."""


class PinnedConfig(Config):
    """A configuration built from an identity alone.

    databricks-sdk reads ``DATABRICKS_*``, ``ARM_*`` and ``~/.databrickscfg`` even beside explicit arguments. One of
    them, DATABRICKS_DISCOVERY_URL, decides where the secret is sent.
    """

    @classmethod
    def of(cls, identity: WorkspaceIdentity) -> Self:
        """Return the configuration of an identity."""
        keywords: dict[str, Any] = {"host": identity.host, "auth_type": identity.auth_type, **identity.keywords}
        config = cls(
            **keywords,
            # Longer retries happen where a session is opened, which logs and bounds them.
            http_timeout_seconds=20,
            retry_timeout_seconds=10,
            debug_headers=False,
            product="airflow-provider-lakebase",
            product_version=__version__,
        )
        for module, package in CALLERS.items():
            # Several may be installed; the one that runs this process is loaded.
            if module in sys.modules:
                with suppress(PackageNotFoundError):
                    config.with_user_agent_extra(module, version(package))
        return config

    @classmethod
    def attributes(cls) -> Iterable[ConfigAttribute]:
        """Return the SDK's own attributes: it looks for them in the class itself, not in its bases."""
        return Config.attributes()

    def _load_from_env(self) -> None:
        """Ignore the environment."""

    def _known_file_config_loader(self) -> None:
        """Ignore ``~/.databrickscfg``."""


class DirectConfig(PinnedConfig):
    """A configuration that asks nothing of the workspace before it asks for a token.

    Discovery takes two requests. The first tells a workspace's ID, cloud and audience, which are for hosts that serve
    several workspaces and for other kinds than :data:`KNOWN_SIGN_IN`, and where the second is sent; that tells the
    token endpoint, which databricks-sdk itself takes as known for a workspace where it exchanges tokens. The secret
    goes to no other host than the requests. If the host does not issue a token there, or does not accept it, the caller
    signs in by discovery.
    """

    def _resolve_host_metadata(self) -> None:
        """Ask nothing."""

    @property
    def databricks_oidc_endpoints(self) -> OidcEndpoints:
        """The endpoints of a workspace."""
        return OidcEndpoints(f"{self.host}/oidc/v1/authorize", f"{self.host}{TOKEN_PATH}")


class _WithoutCredentials(logging.Filter):
    """Remove the bodies that hold a credential from databricks-sdk's log, which prints them at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep only the first line, which names the request."""
        text = record.getMessage()
        if "/postgres/credentials" in text:
            record.msg, record.args = f"{text.splitlines()[0]} (body withheld)", ()
        return True


logging.getLogger("databricks.sdk").addFilter(_WithoutCredentials())
