"""The environment variables that tell programs how to reach the emulator. No I/O."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator import LakebaseEmulator

DATABASE = "databricks_postgres"
_LOOPBACK = ("127.0.0.1", "localhost")


def variables(emulator: LakebaseEmulator, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Airflow, Databricks's SDKs and Postgres clients read.

    The SDKs sign in as the service principal. Postgres clients get all but the password, which is a credential of
    the moment.
    """
    principal = emulator.service_principal
    certificates = {"PGSSLROOTCERT": str(emulator.ca_file), "NODE_EXTRA_CA_CERTS": str(emulator.ca_file)}
    if emulator.workspace_url.startswith("https:"):
        # These two replace the public authorities, so their file has both.
        certificates |= dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(emulator.ca_bundle))
    return {
        **airflow_connections(emulator),
        "DATABRICKS_HOST": emulator.workspace_url,
        "DATABRICKS_AUTH_TYPE": "oauth-m2m",
        "DATABRICKS_CLIENT_ID": principal.client_id,
        "DATABRICKS_CLIENT_SECRET": principal.client_secret,
        "LAKEBASE_ENDPOINT": emulator.endpoint,
        "PGHOST": emulator.endpoint_host(),
        "PGPORT": str(emulator.port),
        "PGDATABASE": DATABASE,
        "PGUSER": principal.role,
        "PGSSLMODE": "require",
        **certificates,
        **no_proxy(environment),
    }


def airflow_connections(emulator: LakebaseEmulator, conn_ids: Iterable[str] = ()) -> dict[str, str]:
    """Return Airflow's connections to the first endpoint; ``conn_ids`` are further ones of the service principal."""
    own = emulator.connection(emulator.service_principal)
    connections = {**emulator.connections, **dict.fromkeys(conn_ids, own)}
    return {f"AIRFLOW_CONN_{conn_id.upper()}": value for conn_id, value in connections.items()}


def no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that keeps HTTP clients from asking a proxy for the emulator, in the spelling in use."""
    name = "no_proxy" if environment.get("no_proxy") else "NO_PROXY"
    hosts = [host.strip() for host in environment.get(name, "").split(",") if host.strip()]
    return {name: ",".join(dict.fromkeys([*hosts, *_LOOPBACK]))}


def as_shell(values: Mapping[str, str]) -> str:
    """Return the variables as commands of a POSIX shell."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def as_dotenv(values: Mapping[str, str]) -> str:
    """Return the variables as a ``.env`` file. Single quotes keep its readers from replacing anything."""
    return "\n".join(f"{name}='{value}'" for name, value in values.items())


def as_json(values: Mapping[str, str]) -> str:
    """Return the variables as a JSON object."""
    return json.dumps(values, indent=2)
