"""Names of the control plane's resources: ``projects/<project>/branches/<branch>/endpoints/<endpoint>``.

This is the only place that knows their grammar.
https://docs.databricks.com/aws/en/oltp/projects/ shows the names in use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RESOURCE_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""Pattern of the ID of a project, branch or endpoint."""
ENDPOINT_FORM = "projects/<project>/branches/<branch>/endpoints/<endpoint>"

_KINDS = ("project", "branch", "endpoint")
_COLLECTIONS = ("projects", "branches", "endpoints")


@dataclass(frozen=True)
class ResourceName:
    """The name of a project, or of a branch or endpoint in it.

    :param project: ID of the project
    :param branch: ID of the branch; None names the project
    :param endpoint: ID of the endpoint; None names the branch or project
    :raises ValueError: for an ID that is not 1 to 63 lower-case letters, digits and hyphens, starting with a letter
    """

    project: str
    branch: str | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        for kind, resource_id in zip(_KINDS, self._ids, strict=False):
            if not re.fullmatch(RESOURCE_ID, resource_id):
                raise ValueError(f"{resource_id!r} is not the ID of a {kind}")
        if self.endpoint is not None and self.branch is None:
            raise ValueError("An endpoint belongs to a branch")

    @classmethod
    def parse(cls, text: str) -> ResourceName:
        """Return the resource that a text names.

        :param text: for example ``projects/shop/branches/production``
        :raises ValueError: when it has another form
        """
        segments = text.split("/")
        ids = segments[1::2]
        if not 1 <= len(ids) <= 3 or tuple(segments[::2]) != _COLLECTIONS[: len(ids)]:
            raise ValueError(f"{text!r} does not have the form {ENDPOINT_FORM}")
        return cls(*ids)

    def __str__(self) -> str:
        """Return the name as the API writes it."""
        return "/".join(f"{collection}/{each}" for collection, each in zip(_COLLECTIONS, self._ids, strict=False))

    @property
    def kind(self) -> str:
        """``project``, ``branch`` or ``endpoint``."""
        return _KINDS[len(self._ids) - 1]

    @property
    def parent(self) -> ResourceName | None:
        """The resource that this one belongs to; None for a project."""
        return ResourceName(*self._ids[:-1]) if self.branch is not None else None

    def child(self, resource_id: str) -> ResourceName:
        """Return the branch of a project, or the endpoint of a branch.

        :param resource_id: ID of the child
        :raises ValueError: for an endpoint, which has no children, and for a malformed ID
        """
        if self.endpoint is not None:
            raise ValueError(f"{self} has no children")
        return ResourceName.parse(f"{self}/{_COLLECTIONS[len(self._ids)]}/{resource_id}")

    def up_to(self, kind: str) -> ResourceName:
        """Return the project or branch of this resource, or the resource itself.

        :param kind: ``project``, ``branch`` or ``endpoint``
        :raises ValueError: when the name is shorter than that
        """
        count = _KINDS.index(kind) + 1
        if count > len(self._ids):
            raise ValueError(f"{self} names no {kind}")
        return ResourceName(*self._ids[:count])

    @property
    def _ids(self) -> tuple[str, ...]:
        return tuple(each for each in (self.project, self.branch, self.endpoint) if each is not None)
