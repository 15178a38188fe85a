"""databricks-sdk's configuration, shut off from the environment, and its log, without credentials."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from databricks.sdk.config import Config, ConfigAttribute

from airflow_provider_lakebase import __version__
from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity


class PinnedConfig(Config):
    """A configuration built from an identity alone.

    databricks-sdk reads ``DATABRICKS_*``, ``ARM_*`` and ``~/.databrickscfg`` even beside explicit arguments. One of
    them, DATABRICKS_DISCOVERY_URL, decides where the secret is sent.
    """

    @classmethod
    def of(cls, identity: WorkspaceIdentity) -> PinnedConfig:
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
        with suppress(PackageNotFoundError):
            config.with_user_agent_extra("airflow", version("apache-airflow"))
        return config

    @classmethod
    def attributes(cls) -> Iterable[ConfigAttribute]:
        """Return the SDK's own attributes: it looks for them in the class itself, not in its bases."""
        return Config.attributes()

    def _load_from_env(self) -> None:
        """Ignore the environment."""

    def _known_file_config_loader(self) -> None:
        """Ignore ``~/.databrickscfg``."""


class _WithoutCredentials(logging.Filter):
    """Remove the bodies that hold a credential from databricks-sdk's log, which prints them at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep only the first line, which names the request."""
        text = record.getMessage()
        if "/postgres/credentials" in text:
            record.msg, record.args = f"{text.splitlines()[0]} (body withheld)", ()
        return True


logging.getLogger("databricks.sdk").addFilter(_WithoutCredentials())
