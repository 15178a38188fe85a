"""Error texts of a refused login or wake. They come from the proxy in front of Lakebase, not from PostgreSQL."""

from __future__ import annotations

INSECURE = "Invalid protocol version: {}"
POOLED = "SASL authentication failed"
UNKNOWN_CREDENTIAL = "Provided authentication token is not a valid JWT encoding"
UNAUTHORIZED = "OAuth: User is not authorized"
DISABLED = "Control plane request failed: endpoint is disabled"
NO_ROLE = 'role "{}" does not exist'
WRONG_PASSWORD = "password authentication failed for user '{}'"  # noqa: S105 - a text about a password
NO_SLOTS = "remaining connection slots are reserved for roles with the SUPERUSER attribute"


class LoginRefused(RuntimeError):
    """A login or a wake was refused; the text is the error message for the client.

    Errors of the proxy in front of Lakebase have severity ERROR and SQLSTATE XX000.
    """

    def __init__(self, text: str, *, severity: str = "ERROR", sqlstate: str = "XX000") -> None:
        super().__init__(text)
        self.severity = severity
        self.sqlstate = sqlstate
