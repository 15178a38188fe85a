"""Dagster's words for what the errors of the core speak of."""

from __future__ import annotations

from airflow_provider_lakebase.exceptions import WORDS

DAGSTER_WORDS = {
    **WORDS,
    "login": "client_id",
    "password": "client_secret",
    "schema": "database",
    "connection": "resource",
    "extra": "the resource's configuration",
    "libpq": "the field 'libpq'",
    "tasks": "assets",
    "pool": " (a concurrency pool limits them)",
    "create_schema": ", for example with connect_and_execute()",
}
