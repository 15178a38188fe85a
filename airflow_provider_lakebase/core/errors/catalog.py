"""What the texts of failures mean: cause, whether to try again, exception class, remedy.

One table serves both ports, Postgres's and the workspace's. libpq gives no SQLSTATE for a failed login and the service
documents few of its texts, so a row is found by its words; the first row that matches wins. The server's own words
always stay part of the message, since the reading here may be wrong.

Texts: https://docs.databricks.com/aws/en/oltp/projects/ (connecting, Postgres roles), the databricks CLI's test server,
Neon's proxy, which Lakebase's front end resembles, and reports from the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from airflow_provider_lakebase.exceptions import (
    LakebaseAuthenticationError,
    LakebaseEndpointDisabledError,
    LakebaseEndpointNotFoundError,
    LakebaseError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceError,
)


class Retry(Enum):
    """When another attempt can help while a session is being opened."""

    NEVER = "no"
    WAKING = "yes, until wake_timeout"
    """The endpoint wakes, is busy or cannot be reached yet."""
    ROLE_PROPAGATING = "yes, at most 60 s"
    """A fresh role is not known everywhere yet."""
    IF_WAKING = "once, if the endpoint was waking"
    """A refused login, which a waking endpoint may answer by mistake."""


@dataclass(frozen=True)
class ErrorRule:
    """One row: what a text means and what to do about it.

    :param example: the text as seen or documented
    :param pattern: regular expression that finds it, whatever names stand in it
    :param meaning: what it means, a sentence without its full stop
    :param retry: whether another attempt can help
    :param error: class to raise
    :param hint: what to do, a sentence
    """

    example: str
    pattern: re.Pattern[str]
    meaning: str
    retry: Retry
    error: type[LakebaseError]
    hint: str


def find_postgres_rule(text: str) -> ErrorRule | None:
    """Return the row for a text met on the Postgres port while connecting, or None when it is unknown."""
    return _find(POSTGRES_RULES, text)


def find_workspace_rule(text: str) -> ErrorRule | None:
    """Return the row for a text met on the workspace's API, or None when it is unknown."""
    return _find(WORKSPACE_RULES, text)


def _find(table: tuple[ErrorRule, ...], text: str) -> ErrorRule | None:
    return next((cause for cause in table if cause.pattern.search(text)), None)


def _row(example: str, pattern: str, meaning: str, retry: Retry, error: type[LakebaseError], hint: str) -> ErrorRule:
    return ErrorRule(example, re.compile(pattern, re.IGNORECASE), meaning, retry, error, hint)


_IDENTITY_REMEDY = (
    "Check that the Postgres role carries this identity's client ID and was made by databricks_create_role "
    "(LakebaseRoleBootstrapOperator does that), and that the connection's 'user' is that role."
)
_ROLE_REMEDY = (
    "Make the role with LakebaseRoleBootstrapOperator, on the connection of an identity that may create roles."
)
_BUSY_REMEDY = "Run fewer tasks at once (an Airflow pool limits them), or raise the endpoint's maximum compute size."

POSTGRES_RULES: tuple[ErrorRule, ...] = (
    _row(
        "Control plane request failed: endpoint is disabled",
        r"endpoint is disabled",
        "The endpoint is disabled, and a connection cannot wake it",
        Retry.NEVER,
        LakebaseEndpointDisabledError,
        "Enable the endpoint in the workspace, or name another one.",
    ),
    _row(
        "Control plane request failed: endpoint cannot be found",
        r"endpoint cannot be found|endpoint ID is not specified|Inconsistent project name inferred from SNI",
        "The host does not lead to an endpoint",
        Retry.NEVER,
        LakebaseEndpointNotFoundError,
        "Remove 'pg_host' so that the host is looked up, and use 'hostaddr' rather than an address as host.",
    ),
    _row(
        "External authorization failed",
        r"External authorization failed",
        "The role is not accepted, or not yet: a fresh role takes up to a minute to be known",
        Retry.ROLE_PROPAGATING,
        LakebaseAuthenticationError,
        "If it stays so, check that the role exists and that this address may connect.",
    ),
    _row(
        "This IP address 203.0.113.7 is not allowed to connect to this endpoint.",
        r"IP address .* is not allowed",
        "The network address of this worker is not allowed",
        Retry.NEVER,
        LakebaseAuthenticationError,
        "Add the worker's address to the workspace's IP access list.",
    ),
    _row(
        "OAuth: User is not authorized",
        r"OAuth: User is not authorized",
        "The credential belongs to another identity than the role, or the role was made with another identity type",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        _IDENTITY_REMEDY,
    ),
    _row(
        "Invalid authorization for databricks identity login",
        r"Invalid authorization for databricks identity login",
        "The credential does not fit the role",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        _IDENTITY_REMEDY,
    ),
    _row(
        "token's identity 1234 did not match the security label configured for role etl",
        r"did not match the security label",
        "The role belongs to another identity",
        Retry.NEVER,
        LakebaseAuthenticationError,
        _IDENTITY_REMEDY,
    ),
    _row(
        "Provided authentication token is not a valid JWT encoding",
        r"not a valid JWT encoding",
        "The password that was sent is not a database credential",
        Retry.NEVER,
        LakebaseAuthenticationError,
        "Leave the password to the provider, which mints a credential for every session.",
    ),
    _row(
        "JWT token has expired (exp=1764000000)",
        r"JWT token has expired",
        "The credential had expired when it arrived",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        "Check the clock of this machine and 'credential_ttl'.",
    ),
    _row(
        "Too many connections attempts",
        r"SASL authentication failed|Too many connections attempts",
        "An OAuth credential was used on a pooled host",
        Retry.NEVER,
        LakebaseSettingsError,
        "Use the direct host: the same name without '-pooler'.",
    ),
    _row(
        "Failed to acquire permit to connect to the database. Too many database connection attempts are currently "
        "ongoing.",
        r"Failed to acquire permit|remaining connection slots are reserved|Too many connections to this endpoint"
        r"|sorry, too many clients already|too many connections for",
        "The endpoint has no free connection",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        _BUSY_REMEDY,
    ),
    _row(
        "Invalid protocol version: 196608",
        r"Invalid protocol version|connection is insecure",
        "The session was opened without TLS",
        Retry.NEVER,
        LakebaseSettingsError,
        "Set 'sslmode' to require, verify-ca or verify-full.",
    ),
    _row(
        'unrecognized configuration parameter "work_men"',
        r"unrecognized configuration parameter|invalid value for parameter|permission denied to set parameter"
        r"|invalid (integer )?(value|\w+ value)|invalid connection option",
        "A keyword or an option of the connection is wrong",
        Retry.NEVER,
        LakebaseSettingsError,
        "Correct it in the connection's extra, or 'options' on the hook or operator.",
    ),
    _row(
        'role "etl" does not exist',
        r'role ".*" does not exist|role does not exist',
        "There is no Postgres role of that name",
        Retry.NEVER,
        LakebaseAuthenticationError,
        _ROLE_REMEDY,
    ),
    _row(
        'database "sales" does not exist',
        r'database ".*" does not exist',
        "There is no database of that name",
        Retry.NEVER,
        LakebaseSettingsError,
        "Correct the database in the field Schema of the connection, or on the hook or operator.",
    ),
    _row(
        'permission denied for database "sales"',
        r"permission denied for database",
        "The role may not connect to the database",
        Retry.NEVER,
        LakebaseAuthenticationError,
        "Grant CONNECT on the database to the role (LakebaseRoleBootstrapOperator does that).",
    ),
    _row(
        "password authentication failed for user 'etl'",
        r"password authentication failed for user",
        "Postgres refused the credential: no such role, a role without Databricks identity, or an expired credential",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        _ROLE_REMEDY,
    ),
    _row(
        "certificate verify failed",
        r"certificate verify failed|server certificate for .* does not match|root certificate file .* does not exist"
        r"|could not read root certificate file",
        "The server's certificate was not accepted",
        Retry.NEVER,
        LakebaseSettingsError,
        "Check 'sslrootcert' and 'sslmode', and that 'pg_host' is the endpoint's own host name.",
    ),
    _row(
        "Couldn't connect to compute node",
        r"Couldn't connect to compute node|Control plane request failed|temporarily unavailable"
        r"|Authentication timed out",
        "The endpoint does not answer yet",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        "Look at the endpoint in the workspace; raise 'wake_timeout' if it wakes more slowly.",
    ),
    _row(
        "the database system is starting up",
        r"the database system is (starting up|shutting down|not yet accepting connections)"
        r"|terminating connection due to administrator command",
        "Postgres is starting up or shutting down",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        "Look at the endpoint in the workspace; raise 'wake_timeout' if it wakes more slowly.",
    ),
    _row(
        "Connection refused",
        r"Connection refused|timeout expired|timed out|could not translate host name|Name or service not known"
        r"|nodename nor servname|No route to host|Network is unreachable|Connection reset by peer"
        r"|server closed the connection unexpectedly|SSL connection has been closed unexpectedly"
        r"|SSL SYSCALL error|Connection closed unexpectedly|failure in name resolution",
        "The endpoint could not be reached",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        "Check that this machine may reach that host and port, and 'pg_host' if it is set; raise 'wake_timeout' if the "
        "endpoint wakes more slowly.",
    ),
)
"""Texts met while connecting to Postgres."""

WORKSPACE_RULES: tuple[ErrorRule, ...] = (
    _row(
        "This API is disabled for users without the workspace-access entitlement",
        r"API is disabled for users without",
        "The identity has no workspace access",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Grant the service principal the entitlement 'Workspace access'; it can take ten minutes to apply.",
    ),
    _row(
        "The user is not authorized to make the request, please contact the workspace admin to assign the user 1234 "
        "'Can Use' or 'Can Manage' for Database project 5678.",
        r"for Database project|'Can Use' or 'Can Manage'",
        "The identity has no permission on the Lakebase project",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Grant it 'Can Use' on the project; a Postgres role alone does not do that.",
    ),
    _row(
        "Unauthorized network access to workspace 1234",
        r"Unauthorized network access|is blocked by Databricks IP ACL",
        "The workspace does not accept this network",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Allow the worker's address in the workspace's IP access list, or add a private endpoint for direct services.",
    ),
    _row(
        "invalid_client: Client authentication failed",
        r"invalid_client|Client authentication failed|invalid_grant|unauthorized_client",
        "The workspace refused the client ID and secret",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Check Login (client ID), Password (OAuth secret; it may have expired) and Host (workspace) of the connection.",
    ),
    _row(
        "default auth: cannot configure default credentials",
        r"cannot configure default credentials",
        "databricks-sdk finds no identity where 'auth_type' says it is",
        Retry.NEVER,
        LakebaseSettingsError,
        "Check that the token that 'oidc_token_env' or 'oidc_token_filepath' names is there.",
    ),
    _row(
        "Invalid URL 'None': No scheme supplied",
        r"Invalid URL 'None'",
        "The workspace does not answer, so that databricks-sdk does not find where to sign in",
        Retry.WAKING,
        LakebaseWorkspaceError,
        "Check Host of the connection, and that this machine may reach it.",
    ),
    _row(
        "project id not found [TraceId: 0af7]",
        r"(project|branch|endpoint) id not found",
        "There is no such project, branch or endpoint",
        Retry.NEVER,
        LakebaseEndpointNotFoundError,
        "Correct 'endpoint'; the workspace's Lakebase page shows the names.",
    ),
    _row(
        "Field 'endpoint' is required",
        r"Field '?\w+'? (is required|must match)",
        "The workspace refused a value of the request",
        Retry.NEVER,
        LakebaseSettingsError,
        "Correct the field it names.",
    ),
)
"""Texts met on the workspace's API. What is not here is told apart by its error code."""


_PASSING_SQLSTATES = ("08", "40", "53200", "53300", "53400", "55P03", "57P01", "57P02", "57P03")
_LOST = re.compile(
    r"connection is (lost|closed)|consuming input failed|sending .* failed|could not (send|receive) data"
)


def is_transient(error: BaseException) -> bool:
    """Return whether the same attempt may succeed later with nothing changed by a person.

    A lost session, a conflict of transactions and an endpoint or workspace that does not answer pass; a statement that
    took too long, a refused login and a login that failed for an unknown cause do not.

    :param error: what an attempt raised
    """
    if isinstance(error, LakebaseError):
        return error.retryable
    import psycopg

    if not isinstance(error, psycopg.OperationalError):
        return False
    if error.sqlstate:
        return error.sqlstate.startswith(_PASSING_SQLSTATES)
    cause = find_postgres_rule(str(error))
    return cause.retry is Retry.WAKING if cause else _LOST.search(str(error)) is not None


def describe(cause: ErrorRule, text: str) -> str:
    """Return the cause's meaning followed by the server's own words.

    :param cause: the row
    :param text: what the server said
    """
    return f"{cause.meaning}: {' '.join(text.split())}"
