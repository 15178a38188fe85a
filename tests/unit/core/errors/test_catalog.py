"""Each rule of the catalogs matches its own example, and no other rule's."""

from __future__ import annotations

import re

import pytest

from airflow_provider_lakebase.core.errors.catalog_postgres import POSTGRES_RULES, find_postgres_rule
from airflow_provider_lakebase.core.errors.catalog_workspace import WORKSPACE_RULES, find_workspace_rule
from airflow_provider_lakebase.core.errors.rules import ErrorRule, Retry
from airflow_provider_lakebase.exceptions import LakebaseAuthenticationError, LakebaseError

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


@pytest.mark.parametrize("rule", POSTGRES_RULES + WORKSPACE_RULES, ids=lambda rule: rule.example)
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
