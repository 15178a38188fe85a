"""Refusals of the workspace API, in Databricks's form: a status, an ``error_code`` and a message. No I/O."""

from __future__ import annotations

import uuid
from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """A refused request, or the reason why an operation failed."""

    def __init__(self, status: int, error_code: str, message: str, *, details: list[Json] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error_code": error_code, "message": message}
        if details:
            self.body["details"] = details


def invalid(message: str) -> ApiError:
    """Return the error for an invalid field."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def refused(message: str) -> ApiError:
    """Return the error for a request that is well-formed, but that the resource does not allow."""
    return ApiError(400, "BAD_REQUEST", message)


def not_found(kind: str, which: str | None = None) -> ApiError:
    """Return the error for a resource that does not exist; ``which`` says which, for the kinds whose error does."""
    what = f"{kind} not found; {which}" if which else f"{kind} id not found"
    return ApiError(404, "NOT_FOUND", f"{what} [TraceId: {uuid.uuid4()}]")


def already_exists(kind: str, where: str = "") -> ApiError:
    """Return the error for a resource whose ID is taken."""
    return ApiError(409, "ALREADY_EXISTS", f"{kind} with such id already exists{where}")


def managed_by_parent(message: str) -> ApiError:
    """Return the error for the deletion of a resource that only its parent's deletion removes."""
    return ApiError(
        400,
        "BAD_REQUEST",
        message,
        details=[
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "domain": "databricks.com",
                "reason": "RESOURCE_CONFLICT",
                "metadata": {"declarative_context": "MANAGED_BY_PARENT"},
            },
            {
                "@type": "type.googleapis.com/google.rpc.RequestInfo",
                "request_id": str(uuid.uuid4()),
                "serving_data": "",
            },
        ],
    )


def internal(error: Exception) -> ApiError:
    """Return the error for an unexpected failure: a defect of the emulator, or a failure of PostgreSQL."""
    return ApiError(500, "INTERNAL_ERROR", f"{type(error).__name__}: {error}")


def not_imitated(what: str) -> ApiError:
    """Return the error for a part of the API that the emulator does not imitate."""
    return ApiError(501, "NOT_IMPLEMENTED", f"The emulator does not imitate {what}.")
