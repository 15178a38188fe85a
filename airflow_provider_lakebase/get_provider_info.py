"""The provider's metadata: plain data, which Airflow reads before its configuration exists."""

from __future__ import annotations

from typing import Any

from airflow_provider_lakebase import __version__

_MODULES = "airflow_provider_lakebase"
_INTEGRATION = "Databricks Lakebase"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as Airflow's ``provider_info.schema.json`` has it."""
    return {
        "package-name": "airflow-provider-lakebase",
        "name": _INTEGRATION,
        "description": "Schedule ETL into `Databricks Lakebase <https://docs.databricks.com/aws/en/oltp/>`__.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.databricks.com/aws/en/oltp/",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_MODULES}.hooks.{name}" for name in ("lakebase", "workspace")],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_MODULES}.operators.{name}" for name in _OPERATORS],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "Common SQL",
                "target-integration-name": _INTEGRATION,
                "python-module": f"{_MODULES}.transfers.sql_to_lakebase",
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_MODULES}.sensors.{name}" for name in _SENSORS],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_MODULES}.triggers.{name}" for name in _TRIGGERS],
            }
        ],
        "extra-links": [
            f"{_MODULES}.links.{name}"
            for name in ("LakebaseProjectLink", "LakebaseBranchLink", "LakebaseSQLEditorLink")
        ],
        # Airflow 2 reads "dataset-uris", Airflow 3 "asset-uris".
        "asset-uris": [_ASSETS],
        "dataset-uris": [_ASSETS],
        "connection-types": [
            {
                "connection-type": "lakebase",
                "hook-class-name": f"{_MODULES}.hooks.lakebase.LakebaseHook",
                "hook-name": _INTEGRATION,
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {
                        "host": "Workspace URL",
                        "login": "Client ID",
                        "password": "OAuth secret",
                        "schema": "Database",
                        "port": "Postgres port",
                    },
                    "placeholders": {
                        "host": "https://my-workspace.cloud.databricks.com",
                        "login": "application ID of the service principal",
                        "password": "OAuth secret of the service principal",
                        "schema": "databricks_postgres",
                        "port": "5432",
                    },
                },
                "conn-fields": {name: _text_field(*field) for name, field in _EXTRA_FIELDS.items()},
            }
        ],
    }


_OPERATORS = ("branch", "change_feed", "database", "endpoint", "load", "role", "snapshot", "sql", "synced_table")
_SENSORS = ("change_feed", "endpoint", "query", "synced_table")
_TRIGGERS = ("change_feed", "endpoint", "operation", "query", "statement", "synced_table")
_ASSETS = {
    "schemes": ["lakebase"],
    "handler": f"{_MODULES}.assets.sanitize_uri",
    "factory": f"{_MODULES}.assets.create_asset",
    "to_openlineage_converter": f"{_MODULES}.lineage.assets.convert_asset_to_openlineage",
}

_EXTRA_FIELDS: dict[str, tuple[Any, ...]] = {
    "endpoint": (
        "Endpoint",
        "projects/<project>/branches/<branch>/endpoints/<endpoint>. Required here, or on each hook and operator.",
    ),
    "project": ("Project", "Whose branches are managed, if the connection names no endpoint."),
    "auth_type": (
        "Authentication",
        "How to log in. Empty: with client ID and OAuth secret.",
        {
            "oauth-m2m": "oauth-m2m: client ID and OAuth secret",
            "env-oidc": "env-oidc: workload identity, its token in a variable",
            "file-oidc": "file-oidc: workload identity, its token in a file",
            "github-oidc": "github-oidc: workload identity of GitHub Actions",
            "azure-devops-oidc": "azure-devops-oidc: workload identity of Azure DevOps",
            "password": "password: a Postgres role with a password of its own",
        },
    ),
    "databricks_conn_id": (
        "Databricks connection",
        "Take workspace and identity from this connection instead of URL, ID and secret.",
    ),
    "oidc_token_env": ("OIDC token variable", "Environment variable that holds the identity token, for env-oidc."),
    "oidc_token_filepath": ("OIDC token file", "File that holds the identity token, for file-oidc."),
    "token_audience": ("OIDC audience", "Audience of the identity token."),
    "group_name": ("Group", "Log in as the role of this group, if the installed databricks-sdk supports it."),
    "read_only": (
        "Read only",
        "Sessions only read, on the read-only host if there is one.",
        {"true": "yes", "false": "no"},
    ),
    "pg_host": ("Postgres host", "Empty: looked up from the endpoint."),
    "user": ("Postgres role", "Empty: the client ID."),
    "sslmode": (
        "TLS mode",
        "Empty: require, which encrypts without verifying the server.",
        {
            "require": "require: encrypt",
            "verify-ca": "verify-ca: encrypt, and verify the server's certificate",
            "verify-full": "verify-full: encrypt, and verify the server's certificate and host name",
        },
    ),
    "sslrootcert": ("CA file", "Path of a file with the certificate authorities to trust."),
    "wake_timeout": ("Wake timeout", "Seconds that opening a session may take, including the wake. Empty: 120."),
    "credential_ttl": ("Credential lifetime", "Seconds, from 300 to 3600. Empty: the service's default."),
    "options": ("Options", "libpq's options, for example -c statement_timeout=5min."),
}


def _text_field(label: str, description: str, choices: dict[str, str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": ["string", "null"]}
    if choices:
        schema |= {"enum": list(choices), "values_display": choices}
    return {"label": label, "description": description, "schema": schema}
