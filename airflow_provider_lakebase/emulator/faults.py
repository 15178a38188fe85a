"""Faults to inject, in one list. A request or connection takes the oldest fault that applies to it; it is then used up.

No I/O.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeVar

from airflow_provider_lakebase.emulator.model.errors import ApiError, Json


@dataclass(frozen=True)
class RequestFault:
    """A fault of the workspace API, for requests whose path contains ``part``; an empty one matches all."""

    part: str


@dataclass(frozen=True)
class Answer(RequestFault):
    """Answer with an error."""

    status: int
    error_code: str
    message: str
    retry_after: int | None


@dataclass(frozen=True)
class Drop(RequestFault):
    """Close the connection without an answer."""


@dataclass(frozen=True)
class Delay(RequestFault):
    """Answer normally, but later."""

    seconds: float


@dataclass(frozen=True)
class Swallow(RequestFault):
    """Never answer."""


@dataclass(frozen=True)
class RefuseLogin:
    """Refuse a login with this error once its password has arrived."""

    text: str


@dataclass(frozen=True)
class HangUp:
    """Close a connection before TLS."""


@dataclass(frozen=True)
class Ignore:
    """Accept a connection and never send anything."""


@dataclass(frozen=True)
class CutAfter:
    """Cut a session once its client has sent this many bytes."""

    size: int


@dataclass(frozen=True)
class FailWake:
    """Make a wake fail with this error."""

    text: str


@dataclass(frozen=True)
class FailOperation:
    """Make an operation fail with this error. ``part`` is a part of its method and resource, such as create_branch."""

    part: str
    error_code: str
    message: str

    def fail(self) -> Json:
        """Raise the error."""
        raise ApiError(400, self.error_code, self.message)


@dataclass(frozen=True)
class FailPipeline:
    """Make an update of a pipeline fail with this message."""

    text: str


@dataclass(frozen=True)
class TerminateFeed:
    """End the replication of a Postgres table with this detail."""

    table: str
    text: str


Fault = (
    RequestFault | RefuseLogin | HangUp | Ignore | CutAfter | FailWake | FailOperation | FailPipeline | TerminateFeed
)
F = TypeVar("F", bound=Fault)

_MOST = 1_000_000
_ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Faults:
    """The faults that were not used yet. Each method adds ``times`` faults of its kind; all methods are thread-safe.

    A request or connection uses up one fault: the oldest that applies to it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[Fault] = []

    # -- the workspace API, including its token endpoint and discovery documents

    def answer(
        self,
        path_part: str,
        *,
        status: int,
        times: int = 1,
        error_code: str | None = None,
        message: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Answer requests whose path contains ``path_part`` with an error in Databricks's form.

        :param path_part: part of the path; empty matches every request
        :param status: HTTP status
        :param times: number of requests
        :param error_code: Databricks's error code; by default the usual one of the status
        :param message: text of the error
        :param retry_after: seconds in the header ``Retry-After``; None sends no such header
        """
        code = error_code or _ERROR_CODES.get(status, "UNKNOWN")
        self._add(
            times, Answer(path_part, status, code, message or f"The emulator was asked to answer {code}.", retry_after)
        )

    def drop(self, path_part: str, times: int = 1) -> None:
        """Close the connection after reading a request whose path contains ``path_part``, without an answer."""
        self._add(times, Drop(path_part))

    def delay(self, path_part: str, seconds: float, times: int = 1) -> None:
        """Answer requests whose path contains ``path_part`` after ``seconds`` seconds."""
        self._add(times, Delay(path_part, seconds))

    def swallow(self, path_part: str, times: int = 1) -> None:
        """Never answer requests whose path contains ``path_part``; keep their connections open until the stop."""
        self._add(times, Swallow(path_part))

    # -- the Postgres port

    def refuse_logins(self, text: str, times: int = 1) -> None:
        """Refuse logins with this error text, whatever their password."""
        self._add(times, RefuseLogin(text))

    def hang_up(self, times: int = 1) -> None:
        """Close connections right after accepting them, before TLS."""
        self._add(times, HangUp())

    def ignore_connections(self, times: int = 1) -> None:
        """Accept connections and never send anything; they stay open until the emulator stops."""
        self._add(times, Ignore())

    def cut_after(self, size: int, times: int = 1) -> None:
        """Cut a session once its client has sent ``size`` bytes after the login.

        PostgreSQL receives exactly these bytes and then the end of the connection; the client receives nothing more.
        """
        self._add(times, CutAfter(size))

    def fail_wakes(self, text: str, times: int = 1) -> None:
        """Make wakes fail with this error text, after ``wake_seconds``; the endpoint is then IDLE again."""
        self._add(times, FailWake(text))

    # -- long-running operations

    def fail_operations(
        self, part: str = "", *, error_code: str = "INTERNAL_ERROR", message: str | None = None, times: int = 1
    ) -> None:
        """Make operations fail after ``operation_seconds``. What they should have made is then not there.

        :param part: part of the operation's method and resource, as in ``create_branch projects/demo/branches/dev``;
            empty matches every operation
        :param error_code: Databricks's error code
        :param message: text of the error
        :param times: number of operations
        """
        text = message or f"The emulator was asked to fail with {error_code}."
        self._add(times, FailOperation(part, error_code, text))

    # -- synced tables and change feeds

    def fail_pipelines(self, message: str, times: int = 1) -> None:
        """Make updates of pipelines fail with this message before they load anything."""
        self._add(times, FailPipeline(message))

    def terminate_feed(self, table: str, detail: str) -> None:
        """End the replication of a Postgres table by a change feed; ``detail`` becomes its ``status_detail``."""
        self._add(1, TerminateFeed(table, detail))

    # -- all faults

    def clear(self) -> None:
        """Remove every fault that was not used yet."""
        with self._lock:
            self._pending.clear()

    @property
    def pending(self) -> list[Fault]:
        """Return the faults that were not used yet, oldest first."""
        with self._lock:
            return list(self._pending)

    def take(self, kind: type[F], target: str = "") -> F | None:
        """Remove and return the oldest fault of this kind for a path or an operation; None if there is none."""
        with self._lock:
            for position, fault in enumerate(self._pending):
                if isinstance(fault, kind) and _applies(fault, target):
                    del self._pending[position]
                    return fault
        return None

    def _add(self, times: int, fault: Fault) -> None:
        if not 1 <= times <= _MOST:
            raise ValueError(f"times is from 1 to {_MOST}, not {times}")
        with self._lock:
            self._pending.extend([fault] * times)


def _applies(fault: Fault, target: str) -> bool:
    if isinstance(fault, TerminateFeed):
        return fault.table == target
    return not isinstance(fault, RequestFault | FailOperation) or fault.part in target
