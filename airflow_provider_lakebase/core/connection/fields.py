"""The fields of an Airflow connection of type ``lakebase``: their names, defaults, and the reader of each.

libpq's keywords are not known here: ``session`` checks them against the libpq that is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from airflow_provider_lakebase.core.connection.identity import AUTH_KINDS
from airflow_provider_lakebase.core.connection.readers import (
    Reader,
    one_of,
    read_boolean,
    read_endpoint_name,
    read_host_name,
    read_project_id,
    read_seconds,
    read_sslmode,
    read_text,
    whole_number,
    wrong_field,
)
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

CONNECTION_TYPE = "lakebase"
DEFAULT_CONN_ID = "lakebase_default"
LEDGER_SCHEMA = "airflow_lakebase"
DEFAULT_DATABASE = "databricks_postgres"
DEFAULT_PORT = 5432
DEFAULT_SSLMODE = "require"
DEFAULT_WAKE_TIMEOUT = 120.0

EXTRA_FIELDS: Mapping[str, Reader] = {
    "endpoint": read_endpoint_name,
    "project": read_project_id,
    "auth_type": one_of(*AUTH_KINDS),
    "databricks_conn_id": read_text,
    "oidc_token_env": read_text,
    "oidc_token_filepath": read_text,
    "token_audience": read_text,
    "user": read_text,
    "group_name": read_text,
    "pg_host": read_host_name,
    "read_only": read_boolean,
    "sslmode": read_sslmode,
    "sslrootcert": read_text,
    "wake_timeout": read_seconds,
    "credential_ttl": whole_number(300, 3600),
}
"""The provider's own extras and the reader of each."""

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

_NO_AWS = "Remove it: the provider mints a database credential for each session, from the identity that signs in."
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
"""Similarity, from 0 to 1, above which a known name is suggested for an unknown one."""

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
"""libpq keywords that the provider sets, or that would change the server or the role."""


_OWN_FIELDS = {
    "dbname": "the field {schema}",
    "host": "'pg_host'",
    "password": "the field {password}",
    "port": "the field {port}",
}


def unknown_field(conn_id: str, name: str, known: Iterable[str]) -> LakebaseSettingsError:
    """Return the error for an unknown field; it suggests the nearest known one.

    :param conn_id: Airflow connection id
    :param name: the field
    :param known: names that are known beside the provider's own
    """
    if name in POSTGRES_HOOK_EXTRAS:
        return wrong_field(conn_id, name, "is for PostgresHook", POSTGRES_HOOK_EXTRAS[name])
    names = {*EXTRA_FIELDS, *DBAPI_HOOK_EXTRAS, *known} - RESERVED_LIBPQ_KEYWORDS
    hint = suggest(name, names) or "Remove it, or see the connection's fields in the documentation."
    return wrong_field(conn_id, name, "is unknown", hint)


def suggest(name: str, known: Iterable[str]) -> str | None:
    """Return the hint that asks whether a known name was meant; None if none is near.

    :param name: unknown
    :param known: names to choose from
    """
    near = get_close_matches(name, known, n=1, cutoff=_NEAR)
    return f"Did you mean '{near[0]}'?" if near else None


def refuse_reserved(conn_id: str, given: Mapping[str, Any]) -> None:
    """Refuse libpq keywords that the provider sets itself.

    :param conn_id: Airflow connection id
    :param given: the connection's extras
    :raises LakebaseSettingsError: for the first one; it names the field to use
    """
    for name in sorted(RESERVED_LIBPQ_KEYWORDS & set(given)):
        own = _OWN_FIELDS.get(name)
        hint = (
            f"Use {own}."
            if own
            else "Remove it: the provider sets it, or it would change which server the session connects to or what it "
            "reads."
        )
        raise wrong_field(conn_id, name, "is not for {libpq}", hint)
