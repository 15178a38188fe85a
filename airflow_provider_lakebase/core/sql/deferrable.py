"""Decide which SQL may run in a process other than the task's, where a restart may repeat it.

Knows neither psycopg nor a session, so that operators and sensors check their SQL before they defer it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_lakebase.core.sql.split import Parameters, check_placeholders, read_parameters, split_statements
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_TRANSACTION_CONTROL = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT")
_OUTLASTS_TRANSACTION = ("SET", "RESET", "DISCARD", "LISTEN", "UNLISTEN", "PREPARE", "EXECUTE", "DEALLOCATE", "LOAD")
_SET_WITHIN_TRANSACTION = ("LOCAL", "CONSTRAINTS")


@dataclass(frozen=True)
class DeferredStatements:
    """Statements to run in one transaction, and how their session and their ledger record are named.

    :param statements: SQL texts, each of one or more statements; a text's result is that of its last statement
    :param parameters: parameters of each text
    :param session_name: ``application_name`` of the session, the same for all attempts of a task and for no other task
    :param fetch: whether to read rows
    :param ledger_schema: schema of the ledger; None to keep no record
    :param load_id: identity of the task in the ledger
    """

    statements: Sequence[str]
    parameters: Parameters
    session_name: str
    fetch: bool = True
    ledger_schema: str | None = None
    load_id: str = ""


def validate_deferrable(statements: Sequence[str], parameters: Parameters, *, hint: str) -> None:
    """Refuse SQL that a restart could apply twice or in part, or that needs the process of the task.

    :param statements: SQL texts, each of one or more statements
    :param parameters: parameters of each text
    :param hint: what to do instead of deferring, a sentence
    :raises LakebaseSettingsError: for COPY, transaction control, statements whose effect outlasts the transaction,
        and parameters that JSON cannot carry
    """
    for text in statements:
        for statement in split_statements(text):
            if reason := _reason_against(statement.words):
                raise LakebaseSettingsError(f"{statement.words[0]} cannot be deferred: {reason}", hint=hint)
        check_placeholders(text, read_parameters(parameters))
    validate_deferrable_parameters(parameters, hint=hint)


def validate_deferrable_parameters(parameters: Parameters, *, hint: str) -> None:
    """Refuse parameters that JSON would not carry unchanged to another process.

    :param parameters: parameters of a statement
    :param hint: what to do instead of deferring, a sentence
    :raises LakebaseSettingsError: for values other than str, int, float, bool, None, and lists and dicts of them
    """
    if not _is_json(parameters):
        raise LakebaseSettingsError(
            "parameters cannot be deferred: JSON carries only str, int, float, bool, None, and lists and dicts of them",
            hint=f"Pass them as text and cast in SQL, for example %s::date. {hint}",
        )


def _reason_against(words: Sequence[str]) -> str:
    """Return why a statement that begins with these words cannot be deferred; empty if it can."""
    first, second = [*words, "", ""][:2]
    if first == "COPY":
        return "its data cannot reach the process that runs it"
    if first in _TRANSACTION_CONTROL and "TO" not in words:  # ROLLBACK TO SAVEPOINT stays in the transaction
        return "deferred statements run in one transaction of their own"
    if first == "SET" and second in _SET_WITHIN_TRANSACTION:
        return ""
    if first in _OUTLASTS_TRANSACTION:
        return "its effect outlasts the transaction; use SET LOCAL, or libpq's 'options'"
    return ""


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):  # a tuple, which is a row in SQL, would arrive as a list
        return all(map(_is_json, value))
    return value is None or type(value) in (str, int, float, bool)
