"""Resolve the name of a Postgres host within a deadline."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import psycopg


def resolve(host: str, timeout: float) -> list[str]:
    """Return the addresses of a host; none for an unknown name, which libpq then reports in its own words.

    :param host: name of the Postgres host
    :param timeout: seconds that it may take; the system's resolver has no deadline of its own
    :raises psycopg.errors.ConnectionTimeout: when it takes longer
    """
    found: list[str] = []

    def look_up() -> None:
        # UnicodeError: a name that is no host name at all.
        with suppress(OSError, UnicodeError):
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))

    thread = threading.Thread(target=look_up, name="lakebase-resolving", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise psycopg.errors.ConnectionTimeout(
            f'could not translate host name "{host}" to address: no answer in {timeout:.0f} s'
        )
    return found
