"""The errors that the workspace's API answers with.

Texts: https://docs.databricks.com/aws/en/oltp/projects/, the databricks CLI's test server, and reports from the field.
"""

from __future__ import annotations

from collections.abc import Collection

from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry, find_by_text
from airflow_provider_lakebase.exceptions import (
    LakebaseConflictError,
    LakebaseLimitError,
    LakebaseOperationError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
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
        "Grant it 'Can Use' on the project, or 'Can Manage' to change branches, endpoints and snapshots; a Postgres "
        "role is not enough.",
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
        "Check {login} (client ID), {password} (OAuth secret; it may have expired) and {host} (workspace) of the "
        "{connection}.",
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
        r"(project|branch|endpoint|snapshot) id not found",
        "The project, branch, endpoint or snapshot does not exist",
        Retry.NEVER,
        LakebaseResourceNotFoundError,
        "Correct its name; the Lakebase page of the workspace shows the names.",
    ),
    ErrorRule(
        "a protected branch cannot expire",
        r"protected branch cannot expire",
        "A branch cannot both be protected and expire",
        Retry.NEVER,
        LakebaseWorkspaceRefusedError,
        "Choose one: LakebaseWorkspaceHook.expire_branch(…, no_expiry=True), or protect_branch(…, protected=False).",
    ),
    ErrorRule(
        "cannot delete protected branch",
        r"protected branch|branch is protected",
        "The branch is protected",
        Retry.NEVER,
        LakebaseWorkspaceRefusedError,
        "Remove its protection first{unprotect}.",
    ),
    ErrorRule(
        "a branch that expires cannot have children",
        r"expir\w*\b.*\bchild(ren)?\b|\bchild(ren)?\b.*\bexpir",
        "The source is a branch that expires, and such a branch cannot be copied",
        Retry.NEVER,
        LakebaseWorkspaceRefusedError,
        "Choose a source without an expiry, or remove it: LakebaseWorkspaceHook.expire_branch(…, no_expiry=True).",
    ),
    ErrorRule(
        "cannot delete branch with child branches",
        r"(has|have|with) .*\bchild(ren)?\b",
        "The branch has child branches",
        Retry.NEVER,
        LakebaseWorkspaceRefusedError,
        "Delete its child branches first.",
    ),
    ErrorRule(
        "cannot delete root branch",
        r"(delete|reset) (the )?(root|default|read-write|primary)\b|MANAGED_BY_PARENT",
        "The resource belongs to its parent and cannot be deleted alone",
        Retry.NEVER,
        LakebaseWorkspaceRefusedError,
        "Choose another one, or delete its parent.",
    ),
    ErrorRule(
        "The project has 10 unarchived branches, which is the limit.",
        r"\b(branch|snapshot|endpoint|compute|project)(e?s)?\b.*\b(limit|quota)\b|(limit|quota) of \d+"
        r"|(too many|maximum number of) .*\b(branch|snapshot|endpoint|compute|project)",
        "A limit of the service is reached",
        Retry.WAKING,
        LakebaseLimitError,
        "Delete what is no longer needed, or run fewer {tasks} at once{pool}; a retry then succeeds.",
        codes=("QUOTA_EXCEEDED", "RESOURCE_LIMIT_EXCEEDED"),
    ),
    ErrorRule(
        "a conflicting operation is in progress",
        r"conflicting operation|operation\b.*\bin progress|active update already exists",
        "Another operation on the resource is in progress",
        Retry.WAKING,
        LakebaseConflictError,
        "Try again once it is done.",
        sdk_errors=("Aborted", "ResourceConflict"),
        codes=("ABORTED", "RESOURCE_CONFLICT", "COULD_NOT_ACQUIRE_LOCK"),
    ),
    ErrorRule(
        "branch with such id already exists",
        r"already exists",
        "A resource of that name exists",
        Retry.NEVER,
        LakebaseResourceExistsError,
        "Choose another name, or delete the other resource; a deleted branch keeps its name until it is purged.",
        sdk_errors=("AlreadyExists", "ResourceAlreadyExists"),
        codes=("ALREADY_EXISTS", "RESOURCE_ALREADY_EXISTS"),
    ),
    ErrorRule(
        "Field 'endpoint' is required",
        r"Field '?[\w.]+'? (is required|must (match|be))",
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
        codes=("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"),
    ),
    ErrorRule(
        "404 NOT_FOUND",
        "",
        "The workspace does not know the resource",
        Retry.NEVER,
        LakebaseResourceNotFoundError,
        "Correct its name, or Host of the connection.",
        sdk_errors=("NotFound",),
        codes=("NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"),
    ),
    ErrorRule(
        "408, 425, 429 and no answer in time",
        "",
        "The workspace cannot answer now",
        Retry.WAKING,
        LakebaseWorkspaceError,
        "Check Host of the connection; if it is right, try again later.",
        statuses=(408, 425, 429),
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
        "501 NOT_IMPLEMENTED",
        "",
        "The workspace does not have this function",
        Retry.NEVER,
        LakebaseWorkspaceRefusedError,
        "Ask whether it is enabled in this workspace and region.",
        sdk_errors=("NotImplemented",),
        codes=("NOT_IMPLEMENTED", "FEATURE_DISABLED"),
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


OPERATION_RULES: tuple[ErrorRule, ...] = (
    *(rule for rule in WORKSPACE_RULES if rule.codes and rule.error is not LakebaseConflictError),
    ErrorRule(
        "a failure of the service",
        "",
        "The operation failed",
        Retry.WAKING,
        LakebaseOperationError,
        "Try again; the failure is the service's.",
        codes=(
            "ABORTED",
            "CANCELLED",
            "COULD_NOT_ACQUIRE_LOCK",
            "DEADLINE_EXCEEDED",
            "DEPLOYMENT_TIMEOUT",
            "INTERNAL_ERROR",
            "IO_ERROR",
            "PERMISSION_NOT_PROPAGATED",
            "PROJECTS_OPERATION_TIMEOUT",
            "REQUEST_LIMIT_EXCEEDED",
            "RESOURCE_CONFLICT",
            "RESOURCE_EXHAUSTED",
            "SERVICE_UNDER_MAINTENANCE",
            "TEMPORARILY_UNAVAILABLE",
            "UNAVAILABLE",
            "UNKNOWN",
            "WORKSPACE_TEMPORARILY_UNAVAILABLE",
        ),
    ),
)
"""The rules for the codes of failed operations."""

OPERATION_FAILED = ErrorRule(
    "any other code",
    "",
    "The operation failed",
    Retry.NEVER,
    LakebaseOperationError,
    "Correct what it names; the same operation would fail again.",
)


def find_workspace_rule(
    text: str, sdk_errors: Collection[str] = (), status: int = 0, error_code: str = ""
) -> ErrorRule | None:
    """Return the rule for an error of the workspace's API, or None when it is unknown.

    :param text: the workspace's words
    :param sdk_errors: names of the classes of databricks-sdk's error
    :param status: HTTP status of the answer; 0 when there was none
    :param error_code: the workspace's code
    """
    by_text = find_by_text(WORKSPACE_RULES, text)
    by_class = (rule for rule in WORKSPACE_RULES if set(rule.sdk_errors) & set(sdk_errors) or error_code in rule.codes)
    by_status = (rule for rule in WORKSPACE_RULES if status in rule.statuses)
    return by_text or next(by_class, None) or next(by_status, None)


def find_operation_rule(error_code: str) -> ErrorRule:
    """Return the rule for a long-running operation that failed.

    :param error_code: the code of its error
    """
    return next((rule for rule in OPERATION_RULES if error_code in rule.codes), OPERATION_FAILED)
