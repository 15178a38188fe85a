"""Each rule of the catalogs matches its own example, and no other rule's."""

from __future__ import annotations

import re

import pytest
from databricks.sdk.service.postgres import ErrorCode

from airflow_provider_lakebase.core.errors.catalog_pipelines import (
    PIPELINE_FAILED,
    PIPELINE_RULES,
    code_in,
    find_pipeline_rule,
)
from airflow_provider_lakebase.core.errors.catalog_postgres import POSTGRES_RULES, find_postgres_rule
from airflow_provider_lakebase.core.errors.catalog_workspace import (
    OPERATION_RULES,
    WORKSPACE_RULES,
    find_operation_rule,
    find_workspace_rule,
)
from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry
from airflow_provider_lakebase.exceptions import (
    NO_CONTEXT,
    LakebaseAuthenticationError,
    LakebaseConflictError,
    LakebaseError,
    LakebaseLimitError,
    LakebaseOperationError,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceRefusedError,
)

# Texts as clients saw them, or as the service's documentation and its front end's source have them.
SEEN_ON_THE_POSTGRES_PORT = {
    "Control plane request failed: endpoint is disabled": Retry.NEVER,
    "Control plane request failed: endpoint cannot be found": Retry.NEVER,
    "Control plane request failed": Retry.WAKING,
    "Control plane request failed: endpoint is temporarily unavailable.": (Retry.WAKING),
    "Couldn't connect to compute node": Retry.WAKING,
    "Authentication timed out": Retry.WAKING,
    "Endpoint ID is not specified. Either please upgrade the postgres client library": Retry.NEVER,
    "Inconsistent project name inferred from SNI ('a') and project option ('b').": Retry.NEVER,
    "This IP address 10.0.0.1 is not allowed to connect to this endpoint.": Retry.NEVER,
    "OAuth: User is not authorized": Retry.IF_WAKING,
    "Invalid authorization for databricks identity login": Retry.IF_WAKING,
    "token's identity 1 did not match the security label configured for role x": Retry.NEVER,
    "ERROR: Provided authentication token is not a valid JWT encoding": Retry.NEVER,
    "JWT token has expired (exp=1764000000)": Retry.IF_WAKING,
    "password authentication failed for user 'x'": Retry.IF_WAKING,
    'FATAL:  password authentication failed for user "x"': Retry.IF_WAKING,
    'FATAL:  role "x" does not exist': Retry.NEVER,
    'FATAL:  database "x" does not exist': Retry.NEVER,
    "External authorization failed": Retry.ROLE_PROPAGATING,
    "Invalid protocol version: 196608": Retry.NEVER,
    "connection is insecure (try using `sslmode=require`)": Retry.NEVER,
    "SASL authentication failed": Retry.NEVER,
    "Too many connections attempts": Retry.NEVER,
    "FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute": Retry.WAKING,
    "Failed to acquire permit to connect to the database. Too many database connection attempts": Retry.WAKING,
    "Too many connections to this endpoint. Please try again later.": Retry.WAKING,
    "connection to server at 10.0.0.1, port 5432 failed: Connection refused": Retry.WAKING,
    "connection timeout expired": Retry.WAKING,
    'could not translate host name "ep-x" to address: Name or service not known': Retry.WAKING,
    "server closed the connection unexpectedly": Retry.WAKING,
    "SSL connection has been closed unexpectedly": Retry.WAKING,
    "Connection closed unexpectedly": Retry.WAKING,
    "FATAL:  the database system is starting up": Retry.WAKING,
    "FATAL:  terminating connection due to administrator command": Retry.WAKING,
    "SSL error: certificate verify failed": Retry.NEVER,
}


@pytest.mark.parametrize(("text", "retry"), SEEN_ON_THE_POSTGRES_PORT.items())
def test_a_text_of_the_postgres_port_is_known(text: str, retry: Retry):
    rule = find_postgres_rule(f'connection failed: connection to server at "h" (1.2.3.4), port 5432 failed: {text}')
    assert rule is not None
    assert rule.retry is retry


@pytest.mark.parametrize("rule", POSTGRES_RULES, ids=lambda rule: rule.example)
def test_the_example_of_a_postgres_row_finds_that_row(rule: ErrorRule):
    assert find_postgres_rule(rule.example) is rule


@pytest.mark.parametrize("rule", WORKSPACE_RULES, ids=lambda rule: rule.example)
def test_the_example_of_a_workspace_row_finds_that_row(rule: ErrorRule):
    status = int(digits[0]) if (digits := re.findall(r"\d{3}", rule.example)) else 0
    classes = rule.sdk_errors
    assert find_workspace_rule(rule.example if rule.pattern else "", classes, status) is rule


# Codes of operations that failed, as databricks-sdk lists them.
FAILED_OPERATIONS = {
    "INTERNAL_ERROR": (LakebaseOperationError, True),
    "TEMPORARILY_UNAVAILABLE": (LakebaseOperationError, True),
    "ABORTED": (LakebaseOperationError, True),
    "UNKNOWN": (LakebaseOperationError, True),
    "BAD_REQUEST": (LakebaseOperationError, False),
    "INVALID_STATE": (LakebaseOperationError, False),
    "a code of next year": (LakebaseOperationError, False),
    "QUOTA_EXCEEDED": (LakebaseLimitError, True),
    "RESOURCE_LIMIT_EXCEEDED": (LakebaseLimitError, True),
    "NOT_FOUND": (LakebaseResourceNotFoundError, False),
    "RESOURCE_DOES_NOT_EXIST": (LakebaseResourceNotFoundError, False),
    "ALREADY_EXISTS": (LakebaseResourceExistsError, False),
    "PERMISSION_DENIED": (LakebaseWorkspaceAccessError, False),
}


@pytest.mark.parametrize(("code", "expected"), FAILED_OPERATIONS.items())
def test_a_failed_operation_is_told_by_its_code(code: str, expected: tuple[type[LakebaseError], bool]):
    error = find_operation_rule(code).to_error(f"[{code}] it failed", NO_CONTEXT, code)
    assert (type(error), error.retryable) == expected
    assert error.error_code == code
    assert code in str(error)


def test_the_codes_of_operations_are_those_of_databricks_sdk():
    known = {each.value for each in ErrorCode}
    assert {code for rule in OPERATION_RULES for code in rule.codes} <= known


@pytest.mark.parametrize("rule", PIPELINE_RULES, ids=lambda rule: rule.example)
def test_the_example_of_a_pipelines_row_finds_that_row(rule: ErrorRule):
    assert find_pipeline_rule(rule.example) is rule


def test_a_pipeline_that_failed_for_an_unknown_reason_may_be_tried_again():
    error = find_pipeline_rule("no space").to_error("no space", NO_CONTEXT)
    assert (type(error), error.retryable) == (LakebaseOperationError, True)
    assert code_in("no space") == ""
    assert code_in("[SYNCED_TABLE_USER_ERROR.CHANGED_PRIMARY_KEY] x") == "SYNCED_TABLE_USER_ERROR.CHANGED_PRIMARY_KEY"


# Words of refusals, which may name any branch.
REFUSALS = {
    "The project has 10 unarchived branches, which is the limit. Delete one first.": LakebaseLimitError,
    "Quota exceeded: maximum number of snapshots per project is 10": LakebaseLimitError,
    "branch limit reached": LakebaseLimitError,
    "cannot delete a branch that has children: projects/p/branches/limits": LakebaseWorkspaceRefusedError,
    "cannot delete protected branch": LakebaseWorkspaceRefusedError,
    "Cannot delete read-write endpoint 'projects/p/branches/b/endpoints/primary'.": LakebaseWorkspaceRefusedError,
    "An active update already exists for pipeline 1a.": LakebaseConflictError,
    "read_write endpoint already exists": LakebaseResourceExistsError,
    "branch with such id already exists": LakebaseResourceExistsError,
    "A conflicting operation is in progress: projects/p/branches/b/operations/1.": LakebaseConflictError,
    "Field 'spec.autoscaling_limit_max_cu' must be between 0.5 and 64, not 65": LakebaseSettingsError,
}


@pytest.mark.parametrize(("text", "kind"), REFUSALS.items())
def test_a_refusal_is_told_by_its_words(text: str, kind: type[LakebaseError]):
    rule = find_workspace_rule(text, ("BadRequest",), 400, "BAD_REQUEST")
    assert rule is not None
    assert rule.error is kind


def test_a_conflict_without_known_words_is_told_by_its_status():
    rule = find_workspace_rule("please wait", ("ResourceConflict",), 409, "RESOURCE_CONFLICT")
    assert rule is not None
    assert rule.error is LakebaseConflictError


@pytest.mark.parametrize(
    "rule",
    (*POSTGRES_RULES, *WORKSPACE_RULES, *OPERATION_RULES, *PIPELINE_RULES, PIPELINE_FAILED),
    ids=lambda rule: rule.example,
)
def test_a_row_says_what_it_means_and_what_to_do(rule: ErrorRule):
    assert issubclass(rule.error, LakebaseError)
    assert rule.meaning
    assert not rule.meaning.endswith(".")
    assert rule.hint.endswith(".")


def test_an_unknown_text_gets_no_guess():
    assert find_postgres_rule("the moon is made of cheese") is None
    assert find_workspace_rule("the moon is made of cheese") is None


def test_a_description_keeps_the_servers_own_words():
    rule = find_postgres_rule("OAuth: User is not authorized")
    assert rule is not None
    assert rule.error is LakebaseAuthenticationError
    assert rule.describe("OAuth: User\nis not authorized").endswith(": OAuth: User is not authorized")
