"""One root, drawn in the module's docstring; messages in three parts."""

from __future__ import annotations

import inspect
import pickle

import pytest

from airflow_provider_lakebase import exceptions
from airflow_provider_lakebase.exceptions import (
    ErrorContext,
    LakebaseError,
    LakebaseOperationError,
    LakebaseOperationTimeoutError,
    LakebaseSettingsError,
    LakebaseWakeTimeoutError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceError,
)

CONTEXT = ErrorContext("a", "projects/p/branches/b/endpoints/e", role="r")
CLASSES = [each for _, each in inspect.getmembers(exceptions, inspect.isclass) if issubclass(each, Exception)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_descends_from_the_root_and_is_drawn(kind: type[Exception]):
    assert issubclass(kind, LakebaseError)
    assert kind.__name__ in (exceptions.__doc__ or "")


def test_a_message_says_what_happened_where_and_what_to_do():
    error = LakebaseWorkspaceError("It failed", context=CONTEXT, hint="Try again.")
    assert str(error) == "It failed (connection 'a', endpoint projects/p/branches/b/endpoints/e, role r). Try again."


@pytest.mark.parametrize("kind", ["database", "role"])
def test_a_database_or_role_of_the_workspace_is_shown_beside_that_of_the_session(kind: str):
    name = f"projects/p/branches/b/{kind}s/x"
    assert str(ErrorContext("a", name)) == f"connection 'a', {kind} {name}"


def test_an_error_carries_its_facts_as_attributes():
    error = LakebaseWorkspaceError("It failed", context=CONTEXT, hint="Try again.", sqlstate="57P03", retryable=False)
    assert (error.message, error.hint, error.sqlstate) == ("It failed", "Try again.", "57P03")
    assert (error.conn_id, error.resource, error.role) == ("a", "projects/p/branches/b/endpoints/e", "r")
    assert not error.retryable
    assert LakebaseWorkspaceError("It failed").retryable


def test_an_error_of_an_operation_names_it():
    context = ErrorContext("a", "projects/p/branches/b", operation="projects/p/branches/b/operations/1")
    error = LakebaseOperationError("It failed", context=context, error_code="ABORTED")
    assert (error.operation, error.error_code) == (context.operation, "ABORTED")
    assert str(error) == f"It failed (connection 'a', branch projects/p/branches/b, operation {context.operation})"


def test_errors_are_of_the_kind_that_a_caller_would_catch():
    assert issubclass(LakebaseSettingsError, ValueError)
    assert issubclass(LakebaseWakeTimeoutError, TimeoutError)
    assert issubclass(LakebaseOperationTimeoutError, TimeoutError)


def test_each_class_says_whether_a_retry_can_help():
    retryable = {kind.__name__ for kind in CLASSES if kind.retryable}
    assert retryable == {
        "LakebaseConflictError",
        "LakebaseLimitError",
        "LakebaseOperationTimeoutError",
        "LakebaseStorageError",
        "LakebaseWakeTimeoutError",
        "LakebaseWorkspaceError",
        "LakebaseWorkspaceUnreachableError",
    }
    assert not LakebaseWorkspaceAccessError.retryable


def test_an_error_survives_pickling():
    error = LakebaseWakeTimeoutError("It slept", context=CONTEXT, hint="Wait.", retryable=False)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.context, copy.hint, copy.retryable) == (CONTEXT, "Wait.", False)
