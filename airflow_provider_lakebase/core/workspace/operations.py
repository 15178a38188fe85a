"""Start long-running operations, and find them again by their names.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.errors.catalog_workspace import find_operation_rule
from airflow_provider_lakebase.core.workspace.resources import REQUEST_SECONDS, Resource
from airflow_provider_lakebase.exceptions import (
    ErrorContext,
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace
    from airflow_provider_lakebase.core.workspace.postgres_api import PostgresApi

POLL_SECONDS = 30.0
"""Seconds that one poll may take, with databricks-sdk's own retries."""

ENDED_UPDATES = ("COMPLETED", "FAILED", "CANCELED")
"""States of a pipeline's update that has ended."""


@dataclass(frozen=True)
class Operation:
    """A long-running operation, as the workspace described it last.

    :param name: its name, by which it is found again
    :param is_done: whether it has succeeded or failed
    :param error_code: code of its error, if it failed
    :param message: the workspace's words about its error, if it failed
    :param response: what it returned, if it succeeded
    """

    name: str
    is_done: bool = False
    error_code: str = ""
    message: str = ""
    response: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Operation:
        """Return the operation that an answer describes.

        :param answer: the API's JSON
        """
        error = answer.get("error") or {}
        return cls(
            name=str(answer.get("name") or ""),
            is_done=bool(answer.get("done")),
            error_code=str(error.get("error_code") or ("UNKNOWN" if error else "")),
            message=str(error.get("message") or ""),
            response=answer.get("response") or {},
        )

    def require_success(self, context: ErrorContext) -> None:
        """Raise the error of an operation that failed.

        :param context: context for the error
        :raises LakebaseOperationError: or another class that the code of its error calls for
        """
        if self.error_code:
            rule = find_operation_rule(self.error_code)
            text = f"[{self.error_code}] {self.message}"
            raise rule.to_error(text, replace(context, operation=self.name), self.error_code)


def read_operation(workspace: Workspace, name: str) -> Operation | None:
    """Return an operation, or None when the workspace no longer knows it.

    :param workspace: the workspace to ask
    :param name: name of the operation, or of the update of a pipeline
    """
    try:
        if is_update(name):
            return _read_update(workspace, name)
        return Operation.of(workspace.call(lambda client: client.postgres.get(name), timeout=POLL_SECONDS))
    except LakebaseResourceNotFoundError:
        return None


def is_anothers(error: LakebaseResourceExistsError) -> bool:
    """Return whether the resource that a request could not create was there before it.

    Otherwise an answer was lost: databricks-sdk has sent the request again, and the first may have created it.

    :param error: of the request
    """
    return not getattr(error.__cause__, "answers_missing", 0)


def is_update(name: str) -> bool:
    """Return whether the name of an operation is that of an update of a pipeline.

    :param name: the name
    """
    return name.startswith("pipelines/")


def create(workspace: Workspace, name: str, spec: Resource) -> Operation:
    """Start to create a resource.

    :param workspace: the workspace to ask
    :param name: resource name
    :param spec: what it shall be
    :raises LakebaseResourceExistsError: when there is one of that name
    :raises LakebaseResourceNotFoundError: when its project or branch does not exist
    :raises LakebaseConflictError: when another operation is in progress
    :raises LakebaseLimitError: when the project has as many as it may have
    """
    return create_flat(workspace, name, {"spec": dict(spec)})


def create_flat(workspace: Workspace, name: str, body: Resource) -> Operation:
    """Start to create a resource whose fields are not below ``spec``, such as a change feed.

    :param workspace: the workspace to ask
    :param name: resource name
    :param body: what it shall be
    :raises LakebaseWorkspaceError: as :func:`create` does
    """
    return _start(workspace, name, lambda postgres: postgres.create(name, body))


def update(workspace: Workspace, name: str, body: Resource, *paths: str) -> Operation:
    """Start to update a resource.

    :param workspace: the workspace to ask
    :param name: resource name
    :param body: the resource, with the fields to update
    :param paths: those fields, such as ``spec.is_protected``
    """
    return _start(workspace, name, lambda postgres: postgres.update(name, {"name": name, **body}, paths))


def delete(workspace: Workspace, name: str, **query: Any) -> Operation:
    """Start to delete a resource.

    :param workspace: the workspace to ask
    :param name: resource name
    :param query: for a branch ``purge=True``, after which it cannot be undeleted
    """
    return _start(workspace, name, lambda postgres: postgres.delete(name, **query))


def undelete(workspace: Workspace, name: str) -> Operation:
    """Start to undelete a branch.

    :param workspace: the workspace to ask
    :param name: resource name
    """
    return _start(workspace, name, lambda postgres: postgres.undelete(name))


def _read_update(workspace: Workspace, name: str) -> Operation:
    """Return an update of a pipeline. Why one has failed is told by its tables."""
    _, pipeline, _, update_id = name.split("/")
    answer = workspace.call(lambda client: client.pipelines.get_update(pipeline, update_id), timeout=POLL_SECONDS)
    return Operation(name, is_done=answer.get("state") in ENDED_UPDATES)


def _start(workspace: Workspace, name: str, request: Callable[[PostgresApi], dict[str, Any]]) -> Operation:
    return Operation.of(workspace.about(name).call(lambda client: request(client.postgres), timeout=REQUEST_SECONDS))
