"""The errors with which the pipelines of synced tables fail.

Texts: Databricks docs, SYNCED_TABLE_USER_ERROR error condition, and reports from the field.
"""

from __future__ import annotations

import re

from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry, find_by_text
from airflow_provider_lakebase.exceptions import LakebaseOperationError

PIPELINE_RULES: tuple[ErrorRule, ...] = (
    ErrorRule(
        "[SYNCED_TABLE_USER_ERROR.PRIMARY_KEY_CONSTRAINT_VIOLATION] Duplicate rows detected based on primary key.",
        r"PRIMARY_KEY_CONSTRAINT_VIOLATION",
        "Two rows of the source have the same primary key",
        Retry.NEVER,
        LakebaseOperationError,
        "Remove the duplicates from the source, or give the synced table a timeseries_key.",
    ),
    ErrorRule(
        "[SYNCED_TABLE_USER_ERROR.COLUMN_TYPE_CHANGE_NOT_SUPPORTED] Changing the column type is not supported.",
        r"COLUMN_TYPE_CHANGE_NOT_SUPPORTED|CHANGED_PRIMARY_KEY|INCOMPATIBLE_SCHEMA_CHANGE",
        "The source has changed its columns in a way that a synced table cannot follow",
        Retry.NEVER,
        LakebaseOperationError,
        "Sync it with full_refresh=True; if that fails as well, delete the synced table and create it again.",
    ),
    ErrorRule(
        "[SYNCED_TABLE_USER_ERROR.DEPENDENT_OBJECTS_STILL_EXIST] Cannot drop because other objects depend on it.",
        r"DEPENDENT_OBJECTS_STILL_EXIST",
        "Views or other objects depend on the Postgres table",
        Retry.NEVER,
        LakebaseOperationError,
        "Drop them before the sync, and create them again after it.",
    ),
    ErrorRule(
        "[SYNCED_TABLE_USER_ERROR.CHARACTER_NOT_IN_REPERTOIRE] A string contains a null byte.",
        r"CHARACTER_NOT_IN_REPERTOIRE",
        "The source has a text that Postgres cannot store",
        Retry.NEVER,
        LakebaseOperationError,
        "Remove null bytes from the source's strings.",
    ),
    ErrorRule(
        "[TABLE_OR_VIEW_NOT_FOUND] The table main.gold.orders cannot be found.",
        r"TABLE_OR_VIEW_NOT_FOUND",
        "The source does not exist, or the pipeline may not read it",
        Retry.NEVER,
        LakebaseOperationError,
        "Create the source, or grant SELECT on it.",
    ),
    ErrorRule(
        "[SYNCED_TABLE_USER_ERROR.…] Synced table pipeline user error.",
        r"SYNCED_TABLE_USER_ERROR",
        "The pipeline failed",
        Retry.NEVER,
        LakebaseOperationError,
        "Correct what it names; the same update would fail again.",
    ),
)
"""The rules, in the order in which they are tried."""

PIPELINE_FAILED = ErrorRule(
    "any other text",
    "",
    "The pipeline failed",
    Retry.WAKING,
    LakebaseOperationError,
    "Try again; the pipeline's page in the workspace shows its events.",
)


def find_pipeline_rule(text: str) -> ErrorRule:
    """Return the rule for a pipeline that failed.

    :param text: the service's message
    """
    return find_by_text(PIPELINE_RULES, text) or PIPELINE_FAILED


def code_in(text: str) -> str:
    """Return the error condition at the beginning of a message, or an empty text.

    :param text: the service's message
    """
    found = re.match(r"\[([A-Z0-9_.]+)\]", text)
    return found[1] if found else ""
