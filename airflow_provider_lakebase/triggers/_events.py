"""What a trigger tells its task, as plain values, and how the task takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import TriggerEvent

from airflow_provider_lakebase import exceptions

_SHOWN = ("status", "error", "sqlstate", "rows")
MOST_MESSAGE_CHARACTERS = 8192
"""Characters of an error that an event carries."""


class _Event(TriggerEvent):
    """An event of which the triggerer logs no row and no parameter: neither a result nor Postgres's own words."""

    def __repr__(self) -> str:
        return f"TriggerEvent<{', '.join(str(self.payload[key]) for key in _SHOWN if self.payload.get(key))}>"

    __str__ = __repr__


def event(payload: Mapping[str, Any]) -> TriggerEvent:
    """Return an event.

    :param payload: plain values
    """
    return _Event(payload)  # type: ignore[call-arg, no-untyped-call, unused-ignore]


def success(**values: Any) -> dict[str, Any]:
    """Return what tells a task that it can go on.

    :param values: plain values for the task
    """
    return {"status": "success", **values}


def failure(error: Exception) -> dict[str, Any]:
    """Return what tells a task of an error.

    :param error: raised in the trigger
    """
    return {
        "status": "error",
        "error": type(error).__name__,
        "is_psycopgs": hasattr(error, "sqlstate"),
        "sqlstate": getattr(error, "sqlstate", None),
        "message": "\n".join([str(error)[:MOST_MESSAGE_CHARACTERS], *getattr(error, "__notes__", ())]),
    }


def require_success(outcome: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what a trigger told, if it ended well; else raise its error as if it had been raised here.

    :param outcome: payload of the trigger's event
    :raises LakebaseError: of the class that the trigger saw
    :raises psycopg.Error: of the class that the trigger saw
    :raises AirflowException: for any other error
    """
    if outcome is None:
        raise AirflowException("The trigger ended without an outcome")
    if outcome["status"] == "success":
        return outcome
    kind = getattr(exceptions, outcome["error"], None)
    if kind is not None:
        raise kind(outcome["message"])
    if outcome.get("is_psycopgs"):
        import psycopg

        try:
            psycopgs = psycopg.errors.lookup(outcome["sqlstate"] or "")
        except KeyError:  # one that a function of the user's has raised, or none at all
            psycopgs = getattr(psycopg, outcome["error"], psycopg.DatabaseError)
        raise psycopgs(outcome["message"])
    raise AirflowException(f"{outcome['error']}: {outcome['message']}")
