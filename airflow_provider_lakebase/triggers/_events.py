"""Events by which a trigger passes its outcome to its task, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import TriggerEvent

from airflow_provider_lakebase import exceptions
from airflow_provider_lakebase.core.errors.classify import is_from_postgres
from airflow_provider_lakebase.exceptions import LakebaseError

_SHOWN = ("status", "error", "sqlstate", "rows")
MAX_MESSAGE_CHARACTERS = 8192
"""Characters of an error message that an event carries."""


class _Event(TriggerEvent):
    """An event whose repr, which the triggerer logs, has no rows, parameters or messages of Postgres."""

    def __repr__(self) -> str:
        return f"TriggerEvent<{', '.join(str(self.payload[key]) for key in _SHOWN if self.payload.get(key))}>"

    __str__ = __repr__


def event(payload: Mapping[str, Any]) -> TriggerEvent:
    """Return an event.

    :param payload: plain values
    """
    return _Event(payload)  # type: ignore[call-arg, no-untyped-call, unused-ignore]


def success(**values: Any) -> dict[str, Any]:
    """Return the payload of a success.

    :param values: plain values for the task
    """
    return {"status": "success", **values}


def failure(error: Exception) -> dict[str, Any]:
    """Return the payload of a failure.

    :param error: the error raised in the trigger
    """
    return {
        "status": "error",
        "error": type(error).__name__,
        "is_psycopgs": is_from_postgres(error),
        "sqlstate": getattr(error, "sqlstate", None),
        "message": "\n".join([str(error)[:MAX_MESSAGE_CHARACTERS], *getattr(error, "__notes__", ())]),
        "facts": _facts(error) if isinstance(error, LakebaseError) else None,
    }


def require_success(outcome: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the payload of a success, or raise the error of a failure.

    :param outcome: payload of the trigger's event
    :raises LakebaseError: of the class raised in the trigger
    :raises psycopg.Error: of the class raised in the trigger
    :raises AirflowException: for any other error
    """
    if outcome is None:
        raise AirflowException("The trigger ended without an outcome")
    if outcome["status"] == "success":
        return outcome
    kind = getattr(exceptions, outcome["error"], None)
    if kind is not None and (facts := outcome.get("facts")):
        raise kind(**{**facts, "context": exceptions.ErrorContext(**facts["context"])})
    if kind is not None:
        raise kind(outcome["message"])
    if outcome.get("is_psycopgs"):
        import psycopg

        try:
            psycopgs = psycopg.errors.lookup(outcome["sqlstate"] or "")
        except KeyError:  # a function of the user raised it, or there is none
            psycopgs = getattr(psycopg, outcome["error"], psycopg.DatabaseError)
        raise psycopgs(outcome["message"])
    raise AirflowException(f"{outcome['error']}: {outcome['message']}")


def _facts(error: LakebaseError) -> dict[str, Any]:
    """Return the arguments that make an error again, as plain values."""
    return {
        "message": "\n".join([error.message[:MAX_MESSAGE_CHARACTERS], *getattr(error, "__notes__", ())]),
        "context": asdict(error.context),
        "hint": error.hint,
        "retryable": error.retryable,
        "sqlstate": error.sqlstate,
        "error_code": error.error_code,
    }
