"""Find out why a workspace does not answer, and stop waiting for it in time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

T = TypeVar("T")

UNREACHABLE_SECONDS = 10.0
"""Seconds after which a workspace that accepts no connection is given up."""
PROBE_SECONDS = 1.0
"""Seconds that a connection attempt may take when probing."""


class NoAnswerError(TimeoutError):
    """Raised when a call did not return in time."""


def find_obstacle(host: str) -> str:
    """Return why no connection to a workspace can be opened, which databricks-sdk does not report; empty if one can.

    :param host: URL of the workspace
    """
    url = urlsplit(host)
    if getproxies().get(url.scheme):
        return ""
    found: list[str] = []

    def probe() -> None:
        try:
            socket.create_connection((url.hostname or "", url.port or 443), timeout=PROBE_SECONDS).close()
        except OSError as error:
            found.append(str(error))

    # Name resolution has no deadline of its own.
    thread = threading.Thread(target=probe, name="lakebase-probe", daemon=True)
    thread.start()
    thread.join(2 * PROBE_SECONDS)
    if thread.is_alive():
        return "its name is not resolved"
    return found[0] if found else ""


def call_within(timeout: float, host: str, work: Callable[[], T]) -> T:
    """Run work in a thread and return its result, or give up at the deadline.

    databricks-sdk's token exchange has no timeout and its discovery retries for minutes, so the only way to stop
    waiting is to leave the thread behind. It is a daemon, so it does not keep the process alive.

    :param timeout: seconds that the work may take; a workspace that cannot be reached gets
        :data:`UNREACHABLE_SECONDS` at most
    :param host: URL of the workspace
    :param work: called without arguments
    :raises NoAnswerError: when the work takes longer
    :raises BaseException: the exception that the work raised
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="lakebase-workspace", daemon=True)
    thread.start()
    thread.join(min(timeout, UNREACHABLE_SECONDS))
    seconds = timeout
    if thread.is_alive() and timeout > UNREACHABLE_SECONDS:
        if find_obstacle(host):
            seconds = UNREACHABLE_SECONDS
        else:
            thread.join(timeout - UNREACHABLE_SECONDS)
    if errors:
        raise errors[0]
    if not results:
        raise NoAnswerError(f"no answer in {seconds:.0f} s")
    return results[0]
