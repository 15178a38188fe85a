"""The fields of an Airflow connection of type ``lakebase``: their names, defaults and how the value of each is read.

Every reader answers with the value, or with a :class:`LakebaseSettingsError` that names the field. Keywords of libpq
are not known here; ``session`` checks them against the libpq it has at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

CONNECTION_TYPE = "lakebase"
DEFAULT_CONN_ID = "lakebase_default"
LEDGER_SCHEMA = "airflow_lakebase"
DEFAULT_DATABASE = "databricks_postgres"
DEFAULT_PORT = 5432
DEFAULT_SSLMODE = "require"
DEFAULT_WAKE_TIMEOUT = 120.0
DAY_SECONDS = 86_400.0
ENDPOINT_SHAPE = "projects/<project>/branches/<branch>/endpoints/<endpoint>"
DEFAULT_AUTH_TYPE = "oauth-m2m"
AUTH_TYPES = (DEFAULT_AUTH_TYPE, "env-oidc", "file-oidc", "github-oidc", "azure-devops-oidc", "password")
"""``password`` is a native Postgres role; the others are databricks-sdk's names."""
OIDC_FIELDS = ("oidc_token_env", "oidc_token_filepath", "token_audience")
"""databricks-sdk's names for where an identity token is found and whom it is for."""
SECRETS = ("client_secret", "token", "azure_client_secret")
"""Keywords of databricks-sdk that hold a secret."""
SSLMODES = ("require", "verify-ca", "verify-full")

DBAPI_HOOK_EXTRAS = frozenset(
    {
        "dialect",
        "escape_column_names",
        "escape_word_format",
        "insert_statement_format",
        "placeholder",
        "replace_statement_format",
        "sqlalchemy_scheme",
    }
)
"""Extras that common-sql's ``DbApiHook`` reads itself."""

_NO_AWS = "Remove it: each session gets a database credential of Lakebase by itself, for Login and Password or OIDC."
POSTGRES_HOOK_EXTRAS: Mapping[str, str] = {
    "aws_conn_id": _NO_AWS,
    "azure_conn_id": _NO_AWS,
    "azure_oauth_scope": _NO_AWS,
    "cluster-identifier": _NO_AWS,
    "iam": _NO_AWS,
    "redshift": _NO_AWS,
    "redshift-serverless": _NO_AWS,
    "region_name": _NO_AWS,
    "workgroup-name": _NO_AWS,
    "connection_factory": "Remove it: LakebaseHook.get_conn() returns a connection of psycopg 3.",
    "cursor": "Remove it. For rows as dicts use hook.get_conn().cursor(row_factory=psycopg.rows.dict_row).",
    "cursor_factory": "Remove it. For rows as dicts use hook.get_conn().cursor(row_factory=psycopg.rows.dict_row).",
    "enable_log_db_messages": "Remove it: the server's notices are always logged.",
    "log_sql": "Remove it, and give it to the hook: LakebaseHook(…, log_sql=False).",
    "runtime_parameters": "Write them as 'options', for example '-c statement_timeout=5min'.",
    "sqlalchemy_query": "Remove it, and write the parameters of the driver as extras of their own.",
    "sqlalchemy_url": "Remove it: LakebaseHook.get_sqlalchemy_engine() makes the engine from the other fields.",
}
"""Extras of connections for PostgresHook, psycopg2 and PostgreSQL's SQLAlchemy URL, and what to write here."""
_NEAR = 0.8
"""Likeness from which on a known name is suggested for an unknown one."""

RESERVED_LIBPQ_KEYWORDS = frozenset(
    {
        "application_name",
        "client_encoding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "host",
        "passfile",
        "password",
        "port",
        "require_auth",
        "service",
        "servicefile",
        "sslnegotiation",
    }
)
"""Keywords of libpq that the provider sets, or that would change where it connects, or as whom."""

LOGIN_REMEDY = "Enter the client ID of the service principal, or a Postgres role with auth_type 'password'."
RESOURCE_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""Pattern of the ID of a project, branch or endpoint."""
_BRANCH = rf"projects/{RESOURCE_ID}/branches/{RESOURCE_ID}"
_ENDPOINT = re.compile(rf"{_BRANCH}(?:/endpoints/{RESOURCE_ID})?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_pooled(pg_host: str | None) -> bool:
    """Return whether a Postgres host is a pooled one, which takes native passwords only.

    :param pg_host: host name, or None
    """
    return (pg_host or "").split(".")[0].lower().endswith("-pooler")


def unknown_field(conn_id: str, name: str, known: Iterable[str]) -> LakebaseSettingsError:
    """Return the error for a field nobody knows, with the nearest known one.

    :param conn_id: Airflow connection id
    :param name: the field
    :param known: names to compare with, beside the provider's own
    """
    if name in POSTGRES_HOOK_EXTRAS:
        return wrong_field(conn_id, name, "is for PostgresHook", POSTGRES_HOOK_EXTRAS[name])
    names = {*EXTRA_FIELDS, *DBAPI_HOOK_EXTRAS, *known} - RESERVED_LIBPQ_KEYWORDS
    near = get_close_matches(name, names, n=1, cutoff=_NEAR)
    hint = f"Did you mean '{near[0]}'?" if near else "Remove it, or see the connection's fields in the documentation."
    return wrong_field(conn_id, name, "is unknown", hint)


def wrong_field(conn_id: str, name: str, what: str, hint: str) -> LakebaseSettingsError:
    return LakebaseSettingsError(f"Field '{name}' {what}", context=ErrorContext(conn_id), hint=hint)


def required(conn_id: str, name: str, value: str | None, hint: str) -> str:
    if not value or not value.strip():
        raise wrong_field(conn_id, name, "is missing", hint)
    return value


_OWN_FIELDS = {
    "dbname": "the field Schema",
    "host": "the extra 'pg_host'",
    "password": "the field Password",
    "port": "the field Port",
}


def refuse_reserved(conn_id: str, given: Mapping[str, Any]) -> None:
    for name in sorted(RESERVED_LIBPQ_KEYWORDS & set(given)):
        own = _OWN_FIELDS.get(name)
        raise wrong_field(
            conn_id,
            name,
            "is not for the extra",
            f"Use {own}."
            if own
            else "Remove it: the provider sets it, or it would change where the session goes or what it reads.",
        )


def workspace_url(conn_id: str, value: str) -> str:
    text = value.strip()
    try:
        url = urlsplit(text if "://" in text else f"https://{text}")
        _ = url.port
    except ValueError:
        url = urlsplit("")
    if url.path.strip("/") or url.query or url.fragment or url.username or url.password:
        raise wrong_field(
            conn_id,
            "Host",
            "holds more than the workspace's address",
            "Give scheme and host only, as https://my-workspace.cloud.databricks.com.",
        )
    if url.scheme == "http" and url.hostname in _LOOPBACK:
        return f"http://{url.netloc}"
    if url.scheme != "https" or not url.hostname or re.search(r"\s", url.netloc):
        raise wrong_field(
            conn_id,
            "Host",
            "is not an https address",
            "Enter the workspace URL, as https://my-workspace.cloud.databricks.com.",
        )
    return f"https://{url.netloc}"


def read_endpoint_name(conn_id: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not _ENDPOINT.fullmatch(value):
        raise wrong_field(
            conn_id,
            name,
            "is malformed" if "@" in str(value) else f"is malformed: {value!r}",
            f"Write {ENDPOINT_SHAPE}, each name in lower-case letters, digits and hyphens.",
        )
    return value


def _pg_host(conn_id: str, name: str, value: Any) -> str:
    host = read_text(conn_id, name, value)
    if "/" in host or ":" in host or "," in host:
        hint = "Give the endpoint's host alone; the port is the field Port."
        raise wrong_field(conn_id, name, "is not one host name", hint)
    return host


def _sslmode(conn_id: str, name: str, value: Any) -> str:
    if value not in SSLMODES:
        raise wrong_field(
            conn_id,
            name,
            f"is {value!r}, which Lakebase does not accept or which would send the credential in the clear",
            f"Choose one of {', '.join(SSLMODES)}.",
        )
    return str(value)


def read_text(conn_id: str, name: str, value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        hint = "Give a text or a number, or remove it if it is no field of the connection and no keyword of libpq."
        raise wrong_field(conn_id, name, f"holds a {type(value).__name__}", hint)
    return str(value)


def _number(conn_id: str, name: str, value: Any) -> float:
    text = read_text(conn_id, name, value)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number <= DAY_SECONDS:
        raise wrong_field(conn_id, name, f"is {value!r}", "Give seconds, more than 0 and at most a day.")
    return number


def whole_number(least: int, most: int) -> Callable[[str, str, Any], int]:
    def read(conn_id: str, name: str, value: Any) -> int:
        text = read_text(conn_id, name, value).strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not least <= number <= most:
            raise wrong_field(conn_id, name, f"is {value!r}", f"Give a whole number from {least} to {most}.")
        return number

    return read


def _choice(*choices: str) -> Callable[[str, str, Any], str]:
    def read(conn_id: str, name: str, value: Any) -> str:
        if value not in choices:
            raise wrong_field(conn_id, name, f"is {value!r}", f"Choose one of {', '.join(choices)}.")
        return str(value)

    return read


def _truth(conn_id: str, name: str, value: Any) -> bool:
    truth = {"true": True, "false": False}.get(str(value).lower())
    if truth is None:
        raise wrong_field(conn_id, name, f"is {value!r}", "Give true or false.")
    return truth


EXTRA_FIELDS: Mapping[str, Callable[[str, str, Any], Any]] = {
    "endpoint": read_endpoint_name,
    "auth_type": _choice(*AUTH_TYPES),
    "databricks_conn_id": read_text,
    "oidc_token_env": read_text,
    "oidc_token_filepath": read_text,
    "token_audience": read_text,
    "user": read_text,
    "group_name": read_text,
    "pg_host": _pg_host,
    "read_only": _truth,
    "sslmode": _sslmode,
    "sslrootcert": read_text,
    "wake_timeout": _number,
    "credential_ttl": whole_number(300, 3600),
}
"""The provider's own extras and how each is read."""
