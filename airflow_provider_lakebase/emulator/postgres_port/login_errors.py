"""What the Postgres port says to a client that it does not let in, and nothing of it is PostgreSQL's own."""

from __future__ import annotations

INSECURE = "Invalid protocol version: {}"
POOLED = "SASL authentication failed"
UNKNOWN_CREDENTIAL = "Provided authentication token is not a valid JWT encoding"
UNAUTHORIZED = "OAuth: User is not authorized"
DISABLED = "Control plane request failed: endpoint is disabled"
NO_ROLE = 'role "{}" does not exist'
WRONG_PASSWORD = "password authentication failed for user '{}'"  # noqa: S105 - a text about a password
NO_SLOTS = "remaining connection slots are reserved for roles with the SUPERUSER attribute"


class Refused(RuntimeError):
    """A login or a wake that is refused; the text is what the client is told.

    The proxy in front of Lakebase sends its own errors with severity ERROR and SQLSTATE XX000.
    """

    def __init__(self, text: str, *, severity: str = "ERROR", sqlstate: str = "XX000") -> None:
        super().__init__(text)
        self.severity = severity
        self.sqlstate = sqlstate
