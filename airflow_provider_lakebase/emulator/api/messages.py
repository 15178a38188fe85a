"""Requests of the workspace API and their replies, independent of HTTP.

Errors have Databricks's form, ``{"error_code", "message"}``; those of the token endpoint have OAuth's.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lakebase.emulator.faults import Answer

Json = dict[str, Any]

TOKEN_PATH = "/oidc/v1/token"  # noqa: S105 - a path


@dataclass(frozen=True)
class Call:
    """A request. ``url`` is the workspace's; ``path`` excludes the query; ``authorization`` is the raw header."""

    method: str
    url: str
    path: str
    authorization: str
    body: bytes
    query: dict[str, str] = field(default_factory=dict)

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


class ApiError(Exception):
    """An error reply."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error_code": error_code, "message": message}


class OAuthError(ApiError):
    """An error reply of the token endpoint, in OAuth's form."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(status, error, description)
        self.body = {"error": error, "error_description": description}


def invalid(message: str) -> ApiError:
    """Return the error for an invalid field."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def not_found(kind: str) -> ApiError:
    """Return the error for a resource that does not exist."""
    return ApiError(404, "NOT_FOUND", f"{kind} id not found [TraceId: {uuid.uuid4()}]")


def fault_reply(call: Call, fault: Answer) -> Reply:
    """Return the error reply of a fault."""
    kind = OAuthError if call.path == TOKEN_PATH else ApiError
    error = kind(fault.status, fault.error_code, fault.message)
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return Reply(error.status, error.body, headers=headers)
