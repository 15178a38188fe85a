"""Errors of the provider, one class for each failure that a user may want to retry or not.

::

    LakebaseError
    ├── LakebaseSettingsError (ValueError)         the connection or an argument is wrong; nothing was sent
    ├── LakebaseWorkspaceError                     the workspace's API failed or could not be reached
    │   ├── LakebaseWorkspaceRefusedError          it refused the request for another reason; the same one fails again
    │   ├── LakebaseWorkspaceUnreachableError      no connection to it can be opened: a wrong Host, or the network
    │   ├── LakebaseWorkspaceAccessError           wrong secret, no workspace access, no permission on the project
    │   └── LakebaseEndpointNotFoundError          no such project, branch or endpoint
    ├── LakebaseEndpointDisabledError              disabled: a connection cannot wake it
    ├── LakebaseWakeTimeoutError (TimeoutError)    did not wake or answer within wake_timeout
    ├── LakebaseAuthenticationError                Postgres refused the login: role missing, wrong identity, ...
    ├── LakebaseRoleError                          a role was not created or a grant failed; nothing was changed
    ├── LakebaseLoadError                          a load failed; the target table is unchanged
    │   └── LakebaseRejectLimitError               more rows cannot be stored than reject_limit permits
    ├── LakebaseStorageError                       the storage of a file failed or could not be reached
    │   └── LakebaseStorageAccessError             it refused the login or the operation
    ├── LakebaseExportError                        rows could not be exported; the file does not exist, or is unchanged
    └── LakebaseOutcomeUnknownError                the session was lost after COMMIT or a statement was sent

Errors of SQL statements, and of logins that failed for a cause the provider does not know, are not translated: they
reach the caller as psycopg raised them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ErrorContext:
    """The connection, resource and role that an error is about.

    :param conn_id: Airflow connection id
    :param resource: resource name of the project, branch or endpoint
    :param host: Postgres host, where the connection names one
    :param database: database name
    :param role: Postgres role
    :param workspace: URL of the workspace
    """

    conn_id: str = ""
    resource: str = ""
    host: str = ""
    database: str = ""
    role: str = ""
    workspace: str = ""

    def __str__(self) -> str:
        """Return the parts that are set, as a message shows them."""
        collections = self.resource.split("/")[::2]
        parts = {
            "connection": f"'{self.conn_id}'" if self.conn_id else "",
            collections[-1].removesuffix("es").removesuffix("s"): self.resource,
            "host": self.host,
            "database": self.database,
            "role": self.role,
            "workspace": self.workspace,
        }
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


NO_CONTEXT = ErrorContext()


class LakebaseError(Exception):
    """Root of all errors of the provider.

    :param message: what happened, a sentence without its full stop
    :param context: the connection, resource and role it happened to
    :param hint: what to do about it, a sentence
    :param retryable: whether the same call may succeed later without anyone changing anything; by default as the class
        says
    :param sqlstate: SQLSTATE of the server's error, where there is one
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        context: ErrorContext = NO_CONTEXT,
        hint: str = "",
        retryable: bool | None = None,
        sqlstate: str | None = None,
    ) -> None:
        text = f"{message} ({context})" if str(context) else message
        super().__init__(f"{text}. {hint}" if hint else text)
        self.message = message
        self.context = context
        self.hint = hint
        self.sqlstate = sqlstate
        if retryable is not None:
            self.retryable = retryable

    @property
    def conn_id(self) -> str:
        """Airflow connection id, or an empty text."""
        return self.context.conn_id

    @property
    def resource(self) -> str:
        """Resource name of the project, branch or endpoint, or an empty text."""
        return self.context.resource

    @property
    def role(self) -> str:
        """Postgres role, or an empty text."""
        return self.context.role


class LakebaseSettingsError(LakebaseError, ValueError):
    """The connection or an argument is wrong; nothing was sent."""


class LakebaseWorkspaceError(LakebaseError):
    """The workspace's API failed or could not be reached."""

    retryable = True


class LakebaseWorkspaceRefusedError(LakebaseWorkspaceError):
    """The workspace refused a request, and would refuse it again."""

    retryable = False


class LakebaseWorkspaceAccessError(LakebaseWorkspaceError):
    """The workspace refused access: to this identity, from this network, or to this resource."""

    retryable = False


class LakebaseWorkspaceUnreachableError(LakebaseWorkspaceError):
    """No connection to the workspace can be opened: its name is unknown, or its address refuses connections."""


class LakebaseEndpointNotFoundError(LakebaseWorkspaceError):
    """The project, branch or endpoint does not exist."""

    retryable = False


class LakebaseEndpointDisabledError(LakebaseError):
    """The endpoint is disabled; connecting does not wake it."""


class LakebaseWakeTimeoutError(LakebaseError, TimeoutError):
    """No session could be opened within ``wake_timeout`` seconds."""

    retryable = True


class LakebaseAuthenticationError(LakebaseError):
    """Postgres refused the login."""


class LakebaseRoleError(LakebaseError):
    """A role could not be created or a privilege not granted; nothing was changed."""


class LakebaseLoadError(LakebaseError):
    """A load failed; the target table is unchanged.

    :param message: what happened
    :param table: target table, as the caller named it
    :param source: file or part of the source that contains the row, as messages name it
    :param row: number of the rejected row, from 1
    :param line: number of the rejected line of a file, from 1
    :param column: column of the rejected value
    :param facts: the arguments of :class:`LakebaseError`
    """

    def __init__(
        self,
        message: str,
        *,
        table: str = "",
        source: str = "",
        row: int | None = None,
        line: int | None = None,
        column: str = "",
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.table = table
        self.source = source
        self.row = row
        self.line = line
        self.column = column


class LakebaseRejectLimitError(LakebaseLoadError):
    """More rows cannot be stored than ``reject_limit`` permits; the target table is unchanged.

    :param message: what happened
    :param rejected: rows that cannot be stored, as far as they were counted
    :param facts: the arguments of :class:`LakebaseLoadError`
    """

    def __init__(self, message: str, *, rejected: int, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.rejected = rejected


class LakebaseStorageError(LakebaseError):
    """The storage of a file failed or could not be reached; the table or file is unchanged."""

    retryable = True


class LakebaseStorageAccessError(LakebaseStorageError):
    """The storage of a file refused access."""

    retryable = False


class LakebaseExportError(LakebaseError):
    """Rows could not be exported; the file does not exist, or is unchanged.

    :param message: what happened
    :param destination: path or URL of the file, without secrets
    :param column: column of the value that cannot be written
    :param facts: the arguments of :class:`LakebaseError`
    """

    def __init__(self, message: str, *, destination: str = "", column: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.destination = destination
        self.column = column


class LakebaseOutcomeUnknownError(LakebaseError):
    """The session was lost after COMMIT or a statement was sent, which may or may not have been applied."""
