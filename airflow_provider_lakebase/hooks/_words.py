"""Airflow's words for what the errors of the core speak of."""

from __future__ import annotations

from airflow_provider_lakebase.exceptions import WORDS

AIRFLOW_WORDS = {
    **WORDS,
    "host": "Host",
    "login": "Login",
    "password": "Password",
    "schema": "Schema",
    "port": "Port",
    "extra": "the connection's extra",
    "libpq": "the extra",
    "or_caller": ", or on the hook or operator",
    "tasks": "tasks",
    "pool": " (an Airflow pool limits them)",
    "create_schema": ", for example with LakebaseSQLOperator",
    "update_endpoint": "Change it with a LakebaseUpdateEndpointOperator",
    "died_midway": "Before Airflow 3.3 it can be missing because an earlier try died midway.",
    "unprotect": ", with LakebaseWorkspaceHook.protect_branch(…, protected=False)",
}
