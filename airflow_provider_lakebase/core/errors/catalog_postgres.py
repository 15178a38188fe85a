"""The errors that Postgres and the front end before it answer a login with.

libpq gives no SQLSTATE for a failed login, so rules match by text. Texts:
https://docs.databricks.com/aws/en/oltp/projects/ (connecting, Postgres roles), Neon's proxy, which Lakebase's front end
resembles, and reports from the field.
"""

from __future__ import annotations

from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry, find_by_text
from airflow_provider_lakebase.exceptions import (
    LakebaseAuthenticationError,
    LakebaseEndpointDisabledError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
)

_ROLE_OF_IDENTITY_HINT = (
    "Check that the Postgres role is named by this identity's client ID and was created by databricks_create_role "
    "(the role bootstrap does that), and that the connection's 'user' is that role."
)
_CREATE_ROLE_HINT = "Create the role with the role bootstrap, on the connection of an identity that may create roles."
_BUSY_HINT = "Run fewer {tasks} at once{pool}, or raise the endpoint's maximum compute size."

POSTGRES_RULES: tuple[ErrorRule, ...] = (
    ErrorRule(
        "Control plane request failed: endpoint is disabled",
        r"endpoint is disabled",
        "The endpoint is disabled, and a connection cannot wake it",
        Retry.NEVER,
        LakebaseEndpointDisabledError,
        "Enable the endpoint in the workspace, or name another one.",
    ),
    ErrorRule(
        "Control plane request failed: endpoint cannot be found",
        r"endpoint cannot be found|endpoint ID is not specified|Inconsistent project name inferred from SNI",
        "The host is not the host of an endpoint",
        Retry.NEVER,
        LakebaseResourceNotFoundError,
        "Remove 'pg_host' so that the host is looked up, and use 'hostaddr' rather than an address as host.",
    ),
    ErrorRule(
        "External authorization failed",
        r"External authorization failed",
        "The role is not accepted, or not yet: a new role can take a minute to become known",
        Retry.ROLE_PROPAGATING,
        LakebaseAuthenticationError,
        "If it persists, check that the role exists and that this address may connect.",
    ),
    ErrorRule(
        "This IP address 203.0.113.7 is not allowed to connect to this endpoint.",
        r"IP address .* is not allowed",
        "The endpoint does not accept this worker's network address",
        Retry.NEVER,
        LakebaseAuthenticationError,
        "Add the worker's address to the workspace's IP access list.",
    ),
    ErrorRule(
        "OAuth: User is not authorized",
        r"OAuth: User is not authorized",
        "The credential and the role belong to different identities, or the role has another identity type",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        _ROLE_OF_IDENTITY_HINT,
    ),
    ErrorRule(
        "Invalid authorization for databricks identity login",
        r"Invalid authorization for databricks identity login",
        "The credential does not belong to the role",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        _ROLE_OF_IDENTITY_HINT,
    ),
    ErrorRule(
        "token's identity 1234 did not match the security label configured for role etl",
        r"did not match the security label",
        "The role belongs to another identity",
        Retry.NEVER,
        LakebaseAuthenticationError,
        _ROLE_OF_IDENTITY_HINT,
    ),
    ErrorRule(
        "Provided authentication token is not a valid JWT encoding",
        r"not a valid JWT encoding",
        "The password is not a database credential",
        Retry.NEVER,
        LakebaseAuthenticationError,
        "Leave the password to the provider, which mints a credential for every session.",
    ),
    ErrorRule(
        "JWT token has expired (exp=1764000000)",
        r"JWT token has expired",
        "The credential had expired when it arrived",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        "Check the clock of this machine and 'credential_ttl'.",
    ),
    ErrorRule(
        "Too many connections attempts",
        r"SASL authentication failed|Too many connections attempts",
        "An OAuth credential was used on a pooled host",
        Retry.NEVER,
        LakebaseSettingsError,
        "Use the direct host: the same name without '-pooler'.",
    ),
    ErrorRule(
        "Failed to acquire permit to connect to the database. Too many database connection attempts are currently "
        "ongoing.",
        r"Failed to acquire permit|remaining connection slots are reserved|Too many connections to this endpoint"
        r"|sorry, too many clients already|too many connections for",
        "The endpoint has no free connection",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        _BUSY_HINT,
    ),
    ErrorRule(
        "Invalid protocol version: 196608",
        r"Invalid protocol version|connection is insecure",
        "The session does not use TLS",
        Retry.NEVER,
        LakebaseSettingsError,
        "Set 'sslmode' to require, verify-ca or verify-full.",
    ),
    ErrorRule(
        'unrecognized configuration parameter "work_men"',
        r"unrecognized configuration parameter|invalid value for parameter|permission denied to set parameter"
        r"|invalid (integer )?(value|\w+ value)|invalid connection option",
        "A keyword or option of the connection is wrong",
        Retry.NEVER,
        LakebaseSettingsError,
        "Correct it in {extra}, or in 'options'.",
    ),
    ErrorRule(
        'role "etl" does not exist',
        r'role ".*" does not exist|role does not exist',
        "The Postgres role does not exist",
        Retry.NEVER,
        LakebaseAuthenticationError,
        _CREATE_ROLE_HINT,
    ),
    ErrorRule(
        'database "sales" does not exist',
        r'database ".*" does not exist',
        "The database does not exist",
        Retry.NEVER,
        LakebaseSettingsError,
        "Correct the database in the field {schema} of the {connection}{or_caller}.",
    ),
    ErrorRule(
        'permission denied for database "sales"',
        r"permission denied for database",
        "The role may not connect to the database",
        Retry.NEVER,
        LakebaseAuthenticationError,
        "Grant CONNECT on the database to the role (the role bootstrap does that).",
    ),
    ErrorRule(
        "password authentication failed for user 'etl'",
        r"password authentication failed for user",
        "Postgres refused the credential: no such role, a role without Databricks identity, or an expired credential",
        Retry.IF_WAKING,
        LakebaseAuthenticationError,
        _CREATE_ROLE_HINT,
    ),
    ErrorRule(
        "certificate verify failed",
        r"certificate verify failed|server certificate for .* does not match|root certificate file .* does not exist"
        r"|could not read root certificate file",
        "The server's certificate was not accepted",
        Retry.NEVER,
        LakebaseSettingsError,
        "Check 'sslrootcert' and 'sslmode', and that 'pg_host' is the endpoint's own host name.",
    ),
    ErrorRule(
        "Couldn't connect to compute node",
        r"Couldn't connect to compute node|Control plane request failed|temporarily unavailable"
        r"|Authentication timed out",
        "The endpoint does not answer yet",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        "Look at the endpoint in the workspace; raise 'wake_timeout' if it needs longer to wake.",
    ),
    ErrorRule(
        "the database system is starting up",
        r"the database system is (starting up|shutting down|not yet accepting connections)"
        r"|terminating connection due to administrator command",
        "Postgres is starting up or shutting down",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        "Look at the endpoint in the workspace; raise 'wake_timeout' if it needs longer to wake.",
    ),
    ErrorRule(
        "Connection refused",
        r"Connection refused|timeout expired|timed out|could not translate host name|Name or service not known"
        r"|nodename nor servname|No route to host|Network is unreachable|Connection reset by peer"
        r"|server closed the connection unexpectedly|SSL connection has been closed unexpectedly"
        r"|SSL SYSCALL error|Connection closed unexpectedly|failure in name resolution",
        "The endpoint could not be reached",
        Retry.WAKING,
        LakebaseWakeTimeoutError,
        "Check that this machine can reach that host and port, and 'pg_host' if it is set; raise 'wake_timeout' if the "
        "endpoint needs longer to wake.",
    ),
)
"""The rules, in the order in which they are tried."""


def find_postgres_rule(text: str) -> ErrorRule | None:
    """Return the rule for the text of a failed login, or None when it is unknown."""
    return find_by_text(POSTGRES_RULES, text)
