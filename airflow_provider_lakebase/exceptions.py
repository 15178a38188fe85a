"""Errors of the provider, one class for each failure that a user may want to retry or not.

::

    LakebaseError
    ├── LakebaseSettingsError (ValueError)         the connection or an argument is wrong; nothing was sent
    ├── LakebaseWorkspaceError                     the workspace's API failed or could not be reached
    │   ├── LakebaseWorkspaceRefusedError          it refused the request for another reason; the same one fails again
    │   ├── LakebaseWorkspaceUnreachableError      no connection to it can be opened: a wrong Host, or the network
    │   ├── LakebaseWorkspaceAccessError           wrong secret, no workspace access, no permission on the project
    │   ├── LakebaseResourceNotFoundError          no such project, branch, endpoint or snapshot
    │   ├── LakebaseResourceExistsError            another resource has the name
    │   ├── LakebaseConflictError                  another operation on the resource is in progress
    │   ├── LakebaseLimitError                     a limit of the service is reached, such as ten branches
    │   ├── LakebaseOperationError                 a long-running operation failed
    │   └── LakebaseOperationTimeoutError          a long-running operation takes longer than the timeout (TimeoutError)
    ├── LakebaseEndpointDisabledError              disabled: a connection cannot wake it
    ├── LakebaseWakeTimeoutError (TimeoutError)    did not wake or answer within wake_timeout
    ├── LakebaseAuthenticationError                Postgres refused the login: role missing, wrong identity, ...
    ├── LakebaseChangeFeedError                    a change feed cannot replicate a table, or no longer does
    ├── LakebaseRoleError                          a role was not created, granted to or dropped
    ├── LakebaseSyncedTableError                   the Postgres table of a synced table cannot be replaced or dropped
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

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORDS: Mapping[str, str] = {
    "host": "host",
    "login": "login",
    "password": "password",
    "schema": "database",
    "port": "port",
    "connection": "connection",
    "extra": "the settings",
    "libpq": "libpq",
    "or_caller": "",
    "tasks": "programs",
    "pool": "",
    "create_schema": "",
    "update_endpoint": "Change it",
    "died_midway": "It can be missing because an earlier try died midway.",
    "unprotect": "",
    "rename_or_add": "Map other names to them with 'columns', or set new_columns='add' or new_columns='ignore'",
    "name_a_column": "Name at least one in 'columns'.",
    "rename_column": "Rename it with 'columns': a mapping from the source's names, or a list in its order.",
    "or_list_columns": ", or list the table's columns in the order of the source as 'columns'",
    "name_type": "name its type in 'casts'",
    "skip_column": "skip the column with 'columns'",
    "correct_creation": "Correct the name and 'create_table', or create the table first.",
    "other_row": "it does not match replace_where",
    "kept_row": "a row that replace_where does not match",
    "cast_to_text": "Cast its column to text in the query",
}
"""What hints and messages call a thing, by the name that stands for it in their text, such as ``{login}``.

Whoever raises an error knows no orchestrator; each one has its own words. These are the words without any.
"""
_WORD = re.compile(rf"\{{({'|'.join(WORDS)})\}}")
_KINDS = {"branches": "branch", "synced_tables": "synced table", "cdf-configs": "change feed"}


@dataclass(frozen=True)
class ErrorContext:
    """The connection, resource and role that an error is about.

    :param conn_id: Airflow connection id
    :param resource: resource name of the project, branch, endpoint, database, role, snapshot or synced table
    :param host: Postgres host, where the connection names one
    :param database: database name
    :param role: Postgres role
    :param workspace: URL of the workspace
    :param operation: name of a long-running operation
    """

    conn_id: str = ""
    resource: str = ""
    host: str = ""
    database: str = ""
    role: str = ""
    workspace: str = ""
    operation: str = ""

    def __str__(self) -> str:
        """Return the parts that are set, as a message shows them."""
        collections = self.resource.split("/")[::2]
        parts = (
            ("connection", f"'{self.conn_id}'" if self.conn_id else ""),
            (_KINDS.get(collections[-1], collections[-1].removesuffix("s")), self.resource),
            ("host", self.host),
            ("database", self.database),
            ("role", self.role),
            ("workspace", self.workspace),
            ("operation", self.operation),
        )
        return ", ".join(f"{name} {value}" for name, value in parts if value)


NO_CONTEXT = ErrorContext()


def in_words(text: str, words: Mapping[str, str]) -> str:
    """Return a text with the words of an orchestrator.

    :param text: with names of :data:`WORDS` in braces
    :param words: of the orchestrator
    """
    return _WORD.sub(lambda found: words[found[1]], text)


class LakebaseError(Exception):
    """Root of all errors of the provider.

    :param message: what happened, a sentence without its full stop
    :param context: the connection, resource and role it happened to
    :param hint: what to do about it, a sentence
    :param retryable: whether the same call may succeed later without anyone changing anything; by default as the class
        says
    :param sqlstate: SQLSTATE of the server's error, where there is one
    :param error_code: the workspace's code for the error, where there is one
    """

    retryable: bool = False
    words: Mapping[str, str] = WORDS

    def __init__(
        self,
        message: str,
        *,
        context: ErrorContext = NO_CONTEXT,
        hint: str = "",
        retryable: bool | None = None,
        sqlstate: str | None = None,
        error_code: str = "",
    ) -> None:
        text = f"{message} ({context})" if str(context) else message
        super().__init__(f"{text}. {hint}" if hint else text)
        self._message = message
        self.context = context
        self._hint = hint
        self.sqlstate = sqlstate
        self.error_code = error_code
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        """Return message, context and hint."""
        return in_words(super().__str__(), self.words)

    @property
    def message(self) -> str:
        """What happened, a sentence without its full stop."""
        return in_words(self._message, self.words)

    @property
    def hint(self) -> str:
        """What to do about it, a sentence, or an empty text."""
        return in_words(self._hint, self.words)

    @property
    def conn_id(self) -> str:
        """Airflow connection id, or an empty text."""
        return self.context.conn_id

    @property
    def resource(self) -> str:
        """Resource name of the project, branch, endpoint or snapshot, or an empty text."""
        return self.context.resource

    @property
    def operation(self) -> str:
        """Name of the long-running operation, or an empty text."""
        return self.context.operation

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


class LakebaseResourceNotFoundError(LakebaseWorkspaceError):
    """The project, branch, endpoint or snapshot does not exist."""

    retryable = False


class LakebaseResourceExistsError(LakebaseWorkspaceError):
    """Another resource has the name."""

    retryable = False


class LakebaseConflictError(LakebaseWorkspaceError):
    """Another operation on the resource is in progress."""


class LakebaseLimitError(LakebaseWorkspaceError):
    """A limit of the service is reached; a retry helps once something was deleted or suspended."""


class LakebaseOperationError(LakebaseWorkspaceError):
    """A long-running operation of the workspace failed. Its code says whether a retry can help."""

    retryable = False


class LakebaseOperationTimeoutError(LakebaseWorkspaceError, TimeoutError):
    """A long-running operation takes longer than the timeout. It goes on; a retry waits for it and starts no other."""


class LakebaseEndpointDisabledError(LakebaseError):
    """The endpoint is disabled; connecting does not wake it."""


class LakebaseWakeTimeoutError(LakebaseError, TimeoutError):
    """No session could be opened within ``wake_timeout`` seconds."""

    retryable = True


class LakebaseAuthenticationError(LakebaseError):
    """Postgres refused the login."""


class LakebaseChangeFeedError(LakebaseError):
    """A change feed cannot replicate a table, or no longer does. A code tells the state of such a table."""


class LakebaseRoleError(LakebaseError):
    """A role could not be created or dropped, or a privilege not granted. The message says what was changed."""


class LakebaseSyncedTableError(LakebaseError):
    """The Postgres table of a synced table, or what depends on it, cannot be replaced, put back or dropped.

    :param message: what happened, and whether anything was changed
    :param objects: what it is about, one line for each object
    :param facts: the arguments of :class:`LakebaseError`
    """

    def __init__(self, message: str, *, objects: Sequence[str] = (), **facts: Any) -> None:
        super().__init__(": ".join(filter(None, (message, "; ".join(objects)))), **facts)
        self.objects = tuple(objects)


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
