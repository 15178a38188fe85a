"""The errors that the workspace's API answers with.

Texts: https://docs.databricks.com/aws/en/oltp/projects/, the databricks CLI's test server, and reports from the field.
"""

from __future__ import annotations

from collections.abc import Collection

from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry, find_by_text
from airflow_provider_lakebase.exceptions import (
    LakebaseEndpointNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceRefusedError,
    LakebaseWorkspaceUnreachableError,
)

WORKSPACE_RULES: tuple[ErrorRule, ...] = (
    ErrorRule(
        "This API is disabled for users without the workspace-access entitlement",
        r"API is disabled for users without",
        "The identity has no workspace access",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Grant the service principal the entitlement 'Workspace access'; it can take ten minutes to apply.",
    ),
    ErrorRule(
        "The user is not authorized to make the request, please contact the workspace admin to assign the user 1234 "
        "'Can Use' or 'Can Manage' for Database project 5678.",
        r"for Database project|'Can Use' or 'Can Manage'",
        "The identity has no permission on the Lakebase project",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Grant it 'Can Use' on the project; a Postgres role is not enough.",
    ),
    ErrorRule(
        "Unauthorized network access to workspace 1234",
        r"Unauthorized network access|is blocked by Databricks IP ACL",
        "The workspace does not accept this worker's network address",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Allow the worker's address in the workspace's IP access list, or add a private endpoint for direct services.",
    ),
    ErrorRule(
        "invalid_client: Client authentication failed",
        r"invalid_client|Client authentication failed|invalid_grant|unauthorized_client",
        "The workspace refused the client ID and secret",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Check Login (client ID), Password (OAuth secret; it may have expired) and Host (workspace) of the connection.",
    ),
    ErrorRule(
        "default auth: cannot configure default credentials",
        r"cannot configure default credentials",
        "databricks-sdk finds no identity of the kind that 'auth_type' names",
        Retry.NEVER,
        LakebaseSettingsError,
        "Check that the token named by 'oidc_token_env' or 'oidc_token_filepath' exists.",
    ),
    ErrorRule(
        "Invalid URL 'None': No scheme supplied",
        r"Invalid URL 'None'",
        "The workspace does not answer, so databricks-sdk cannot find where to sign in",
        Retry.WAKING,
        LakebaseWorkspaceError,
        "Check Host of the connection, and that this machine can reach it.",
    ),
    ErrorRule(
        "project id not found [TraceId: 0af7]",
        r"(project|branch|endpoint) id not found",
        "The project, branch or endpoint does not exist",
        Retry.NEVER,
        LakebaseEndpointNotFoundError,
        "Correct 'endpoint'; the Lakebase page of the workspace shows the names.",
    ),
    ErrorRule(
        "Field 'endpoint' is required",
        r"Field '?\w+'? (is required|must match)",
        "The workspace refused a field of the request",
        Retry.NEVER,
        LakebaseSettingsError,
        "Correct the field it names.",
    ),
    ErrorRule(
        "401 UNAUTHENTICATED, 403 PERMISSION_DENIED",
        "",
        "The workspace refused the identity",
        Retry.NEVER,
        LakebaseWorkspaceAccessError,
        "Check the identity's secret or token, and its permissions in the workspace.",
        sdk_errors=("Unauthenticated", "PermissionDenied"),
    ),
    ErrorRule(
        "404 NOT_FOUND",
        "",
        "The workspace does not know the resource",
        Retry.NEVER,
        LakebaseEndpointNotFoundError,
        "Correct 'endpoint', or Host of the connection.",
        sdk_errors=("NotFound",),
    ),
    ErrorRule(
        "408, 409, 425, 429 and no answer in time",
        "",
        "The workspace cannot answer now",
        Retry.WAKING,
        LakebaseWorkspaceError,
        "Check Host of the connection; if it is right, try again later.",
        statuses=(408, 409, 425, 429),
    ),
    ErrorRule(
        "any other status from 400 to 499",
        "",
        "The workspace refused the request",
        Retry.NEVER,
        LakebaseWorkspaceRefusedError,
        "Correct what it names; the same request would be refused again.",
        statuses=range(400, 500),
    ),
    ErrorRule(
        "any status from 500",
        "",
        "The workspace failed",
        Retry.WAKING,
        LakebaseWorkspaceError,
        "Check Host of the connection; if it is right, try again later.",
        statuses=range(500, 600),
    ),
)
"""The rules, in the order in which they are tried: by text, by class, by status."""

UNREACHABLE = ErrorRule(
    "no connection",
    "",
    "The workspace cannot be reached",
    Retry.WAKING,
    LakebaseWorkspaceUnreachableError,
    "Check Host of the connection, and that this machine can reach it.",
)


def find_workspace_rule(text: str, sdk_errors: Collection[str] = (), status: int = 0) -> ErrorRule | None:
    """Return the rule for an error of the workspace's API, or None when it is unknown.

    :param text: the workspace's words
    :param sdk_errors: names of the classes of databricks-sdk's error
    :param status: HTTP status of the answer; 0 when there was none
    """
    by_text = find_by_text(WORKSPACE_RULES, text)
    by_class = (rule for rule in WORKSPACE_RULES if set(rule.sdk_errors) & set(sdk_errors))
    by_status = (rule for rule in WORKSPACE_RULES if status in rule.statuses)
    return by_text or next(by_class, None) or next(by_status, None)
