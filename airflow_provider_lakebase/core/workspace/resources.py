"""Read the workspace's resources, such as branches and roles, as the API's own JSON, and tell their states apart.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.exceptions import LakebaseResourceNotFoundError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

Resource = Mapping[str, Any]
"""A branch, endpoint, database, role or snapshot, as the API writes it."""

REQUEST_SECONDS = 60.0
"""Seconds that one request may take, with databricks-sdk's own retries."""
_CHANGING = ("INIT", "IMPORTING", "RESETTING")


def read(workspace: Workspace, name: str, *, timeout: float = REQUEST_SECONDS) -> dict[str, Any]:
    """Return a resource.

    :param workspace: the workspace to ask
    :param name: resource name
    :param timeout: seconds that it may take
    :raises LakebaseResourceNotFoundError: when it does not exist
    """
    return workspace.about(name).call(lambda client: client.postgres.get(name), timeout=timeout)


def find(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """Return a resource, or None when there is none of that name, or only a deleted one.

    :param workspace: the workspace to ask
    :param name: resource name
    :raises LakebaseResourceNotFoundError: when its project or branch does not exist
    """
    try:
        found = read(workspace, name)
    except LakebaseResourceNotFoundError:
        # The answer does not always tell which one is missing.
        read(workspace, parent_of(name))
        return None
    return None if is_deleted(found) else found


def list_all(
    workspace: Workspace, parent: str, collection: str, *, timeout: float = REQUEST_SECONDS, **query: Any
) -> list[dict[str, Any]]:
    """Return the resources of a collection.

    :param workspace: the workspace to ask
    :param parent: resource name of what they belong to
    :param collection: as paths have it, such as ``branches`` or ``cdf-configs``
    :param timeout: seconds that it may take
    :param query: for example ``show_deleted=True``
    """
    return workspace.about(parent).call(
        lambda client: client.postgres.list_all(parent, collection, **query), timeout=timeout
    )


def parent_of(name: str) -> str:
    """Return the resource name of a branch's project, an endpoint's branch or a snapshot's project.

    :param name: resource name
    """
    return name.rsplit("/", 2)[0]


def status_of(resource: Resource) -> dict[str, Any]:
    """Return the status of a resource, which the API may leave out.

    :param resource: the resource
    """
    return resource.get("status") or {}


def is_deleted(resource: Resource) -> bool:
    """Return whether a branch is deleted and only kept to be undeleted.

    :param resource: the branch
    """
    status = status_of(resource)
    return bool(status.get("delete_time")) or status.get("current_state") == "DELETED"


def is_settled(resource: Resource) -> bool:
    """Return whether no change of a branch or endpoint is in progress, as far as its state tells.

    :param resource: the resource
    """
    status = status_of(resource)
    return not status.get("pending_state") and status.get("current_state") not in _CHANGING
