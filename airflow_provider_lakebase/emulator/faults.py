"""What shall break, and how often: faults wait in one list until a request or a connection uses them up.

Knows no sockets. Who could break asks by the kind of fault; the oldest that fits is taken, and is then gone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class RequestFault:
    """A fault of the workspace API, for requests whose path contains ``path_part``; an empty one fits all."""

    path_part: str


@dataclass(frozen=True)
class Answer(RequestFault):
    """Answer with an error instead."""

    status: int
    error_code: str
    message: str
    retry_after: int | None


@dataclass(frozen=True)
class Drop(RequestFault):
    """Close the connection without an answer."""


@dataclass(frozen=True)
class Delay(RequestFault):
    """Answer as ever, but later."""

    seconds: float


@dataclass(frozen=True)
class Swallow(RequestFault):
    """Never answer."""


@dataclass(frozen=True)
class RefuseLogin:
    """Answer a password with this error."""

    text: str


@dataclass(frozen=True)
class HangUp:
    """Close a connection before TLS."""


@dataclass(frozen=True)
class Ignore:
    """Accept a connection and never say anything."""


@dataclass(frozen=True)
class CutAfter:
    """Cut a session once its client has sent this many bytes."""

    size: int


@dataclass(frozen=True)
class FailWake:
    """Let a wake fail with this error."""

    text: str


Fault = RequestFault | RefuseLogin | HangUp | Ignore | CutAfter | FailWake
F = TypeVar("F", bound=Fault)

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
    """The faults to come. Each method adds ``times`` faults; any thread may call.

    A request or a connection uses up one fault, the oldest that fits it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[Fault] = []

    # -- the workspace API; its token endpoint and its well-known documents too

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
        """Answer requests whose path contains ``path_part`` with an error, written as Databricks writes it."""
        code = error_code or _ERROR_CODES.get(status, "UNKNOWN")
        self._add(
            times, Answer(path_part, status, code, message or f"The emulator was told to say {code}.", retry_after)
        )

    def drop(self, path_part: str, times: int = 1) -> None:
        """Read requests whose path contains ``path_part`` and close the connection without an answer."""
        self._add(times, Drop(path_part))

    def delay(self, path_part: str, seconds: float, times: int = 1) -> None:
        """Answer requests whose path contains ``path_part`` that many seconds later."""
        self._add(times, Delay(path_part, seconds))

    def swallow(self, path_part: str, times: int = 1) -> None:
        """Read requests whose path contains ``path_part`` and never answer; the stop closes the connection."""
        self._add(times, Swallow(path_part))

    # -- the Postgres port

    def refuse_logins(self, text: str, times: int = 1) -> None:
        """Answer the password of a login, whatever it is, with an error of this text."""
        self._add(times, RefuseLogin(text))

    def hang_up(self, times: int = 1) -> None:
        """Close connections as soon as they are accepted, before TLS."""
        self._add(times, HangUp())

    def ignore_connections(self, times: int = 1) -> None:
        """Accept connections and never say anything; the stop closes them."""
        self._add(times, Ignore())

    def cut_after(self, size: int, times: int = 1) -> None:
        """Cut a session once its client has sent ``size`` bytes after the login, both sides.

        PostgreSQL gets just these bytes and then the end of the connection; the client gets nothing that comes after.
        """
        self._add(times, CutAfter(size))

    def fail_wakes(self, text: str, times: int = 1) -> None:
        """Let a wake end with an error of this text, after the time that a wake takes; the endpoint is IDLE again."""
        self._add(times, FailWake(text))

    # -- all of them

    def clear(self) -> None:
        """Forget every fault that was not used yet."""
        with self._lock:
            self._pending.clear()

    def take(self, kind: type[F], path: str = "") -> F | None:
        """Return the oldest fault of this kind that fits the path, and use it up; None if there is none."""
        with self._lock:
            for position, fault in enumerate(self._pending):
                if isinstance(fault, kind) and _fits(fault, path):
                    del self._pending[position]
                    return fault
        return None

    def _add(self, times: int, fault: Fault) -> None:
        with self._lock:
            self._pending.extend([fault] * times)


def _fits(fault: Fault, path: str) -> bool:
    return not isinstance(fault, RequestFault) or fault.path_part in path
