"""Requests of the workspace API and their replies, independent of HTTP.

Errors have Databricks's form, ``{"error_code", "message"}``; those of the token endpoint have OAuth's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from airflow_provider_lakebase.emulator.faults import Answer
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, invalid

TOKEN_PATH = "/oidc/v1/token"  # noqa: S105 - a path


@dataclass(frozen=True)
class Call:
    """A request.

    :param url: the workspace's
    :param path: the path without the query
    :param authorization: the raw header
    :param values: the values of the variables of the route's path, such as ``name``
    """

    method: str
    url: str
    path: str
    authorization: str
    body: bytes
    query: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the resource that the route is about."""
        return self.values["name"]

    @property
    def parent(self) -> str:
        """Return the name of the resource whose children the route is about."""
        return self.values["parent"]

    def flag(self, name: str) -> bool:
        """Return a query parameter that is ``true`` or ``false``; it is false if it is not there."""
        value = self.query.get(name, "false").lower()
        if value not in ("true", "false"):
            raise invalid(f"Field '{name}' must be true or false, not {value!r}")
        return value == "true"

    def json(self) -> Json:
        """Return the body; raise ``ApiError`` unless it is a JSON object."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ApiError(400, "MALFORMED_REQUEST", "Could not parse request object: a JSON object is expected")
        return value


@dataclass(frozen=True)
class Reply:
    """An answer. ``principal`` is the caller's client ID, if known. A ``body`` of type str is an HTML page."""

    status: int
    body: Json | str
    principal: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


class OAuthError(ApiError):
    """An error reply of the token endpoint, in OAuth's form."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(status, error, description)
        self.body = {"error": error, "error_description": description}


def fault_reply(call: Call, fault: Answer) -> Reply:
    """Return the error reply of a fault."""
    kind = OAuthError if call.path == TOKEN_PATH else ApiError
    error = kind(fault.status, fault.error_code, fault.message)
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return Reply(error.status, error.body, headers=headers)
