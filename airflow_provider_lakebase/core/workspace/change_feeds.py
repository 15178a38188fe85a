"""Create and delete change feeds.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.connection.resource_names import RESOURCE_ID
from airflow_provider_lakebase.core.workspace.operations import create_flat, delete
from airflow_provider_lakebase.core.workspace.plans import Notes, Pending, noting
from airflow_provider_lakebase.core.workspace.resources import (
    find,
    list_all,
    parent_of,
)
from airflow_provider_lakebase.exceptions import (
    LakebaseResourceExistsError,
    LakebaseResourceNotFoundError,
    LakebaseSettingsError,
)

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

FEEDS = "cdf-configs"
DATABASE = "databricks_postgres"
"""The only database that feeds can be of."""
REQUESTED = "requested"
"""Note that this task has requested the feed, so that one that exists is its own."""
DELETED = "deleted"
"""Note that this task has deleted the feed."""

_FEED_ID = r"[a-z][a-z0-9_]{0,62}"
_FULL_NAME = rf"projects/{RESOURCE_ID}/branches/{RESOURCE_ID}/databases/{RESOURCE_ID}/{FEEDS}/{_FEED_ID}"
_FIELDS = ("postgres_schema", "catalog", "schema")
_FIELDS_OF_UNITY_CATALOG = ("catalog", "schema")


@dataclass(frozen=True)
class CreateChangeFeed:
    """Create a change feed, unless it is there.

    :param resource: resource name
    :param spec: ``postgres_schema``, ``catalog`` and ``schema``
    :param prepare: checks the tables, before a feed is created
    """

    resource: str
    spec: Mapping[str, str]
    prepare: Callable[[], None] = lambda: None

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step. A feed has no state of its own: one that is found counts as complete.

        :raises LakebaseResourceExistsError: if there is another one of its name, or of its Postgres schema
        """
        feed = find(workspace, self.resource)
        if feed is None:
            self.prepare()
            return self._create(workspace, notes)
        differing = [name for name in _FIELDS if not _is_same(name, feed.get(name), self.spec[name])]
        if differing:
            facts = ", ".join(f"its {name} is {feed.get(name)}, not {self.spec[name]}" for name in differing)
            raise self._exists(workspace, f"The change feed is another one: {facts}")
        return None

    def _create(self, workspace: Workspace, notes: Notes) -> Pending:
        with noting(notes, REQUESTED):
            try:
                return Pending.of(self.resource, create_flat(workspace, self.resource, self.spec))
            except LakebaseResourceExistsError:
                if find(workspace, self.resource) is not None:
                    return Pending(self.resource)
                if other := self._other_of_schema(workspace):
                    schema = self.spec["postgres_schema"]
                    text = f"The Postgres schema '{schema}' has a change feed already: {other}"
                    raise self._exists(workspace, text) from None
                raise

    def _other_of_schema(self, workspace: Workspace) -> str | None:
        feeds = list_all(workspace, parent_of(self.resource), FEEDS)
        same = (str(each.get("name")) for each in feeds if each.get("postgres_schema") == self.spec["postgres_schema"])
        return next(same, None)

    def _exists(self, workspace: Workspace, text: str) -> LakebaseResourceExistsError:
        hint = "A feed cannot be changed: delete it first, or use it as it is."
        return LakebaseResourceExistsError(text, context=workspace.about(self.resource).context, hint=hint)


@dataclass(frozen=True)
class DeleteChangeFeed:
    """Delete a change feed, unless it is gone.

    :param resource: resource name
    :param drop_tables: also drop the tables in Unity Catalog that it has written
    """

    resource: str
    drop_tables: bool

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step."""
        if find(workspace, self.resource) is None:
            return None
        query = {"force": True} if self.drop_tables else {}
        try:
            operation = delete(workspace, self.resource, **query)
        except LakebaseResourceNotFoundError:  # someone else has deleted it meanwhile
            return None
        notes[DELETED] = True
        return Pending.of(self.resource, operation)


def feed_name(branch: str | Callable[[], str], change_feed: str) -> str:
    """Return the resource name of a change feed.

    :param branch: resource name of its branch, or what returns it if it is needed
    :param change_feed: its ID, or its resource name
    :raises LakebaseSettingsError: if it is neither
    """
    if re.fullmatch(_FULL_NAME, str(change_feed)):
        return str(change_feed)
    if re.fullmatch(_FEED_ID, str(change_feed)):
        above = branch if isinstance(branch, str) else branch()
        return f"{database_of(above)}/{FEEDS}/{change_feed}"
    hint = (
        "Pass change_feed: at most 63 lower-case letters, digits and underscores, first a letter; or a resource name."
    )
    raise LakebaseSettingsError(f"{change_feed!r} is not the ID of a change feed", hint=hint)


def database_of(branch: str) -> str:
    """Return the resource name of the only database of a branch that can have feeds.

    :param branch: resource name of the branch
    """
    return f"{branch}/databases/{DATABASE.replace('_', '-')}"


def branch_of(feed: str) -> str:
    """Return the resource name of a feed's branch.

    :param feed: resource name of the feed
    """
    return feed.split("/databases/")[0]


def feed_spec(*, postgres_schema: str, catalog: str, schema: str) -> dict[str, str]:
    """Return what a feed reads and where it writes, as the API takes it.

    :param postgres_schema: schema in Postgres
    :param catalog: catalog in Unity Catalog
    :param schema: schema in it
    :raises LakebaseSettingsError: unless each is a name
    """
    spec: dict[str, Any] = {"postgres_schema": postgres_schema, "catalog": catalog, "schema": schema}
    for name, value in spec.items():
        if not isinstance(value, str) or not value.strip():
            raise LakebaseSettingsError(f"{name} is {value!r}", hint="It must be a name.")
        if name in _FIELDS_OF_UNITY_CATALOG and "." in value:
            hint = "It must be one name: pass catalog and schema as two arguments."
            raise LakebaseSettingsError(f"{name} is {value!r}", hint=hint)
    return spec


def _is_same(field: str, found: object, wanted: str) -> bool:
    """Return whether a field has the wanted value. Names of Unity Catalog are stored in lower case."""
    return found == wanted or (field in _FIELDS_OF_UNITY_CATALOG and str(found).lower() == wanted.lower())
