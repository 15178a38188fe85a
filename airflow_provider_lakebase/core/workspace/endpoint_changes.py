"""Create endpoints, and change their settings.

This module is light: operators import it, and what it calls is a :class:`Workspace` that the hook hands in.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.operations import create, read_operation, update
from airflow_provider_lakebase.core.workspace.plans import Notes, Pending, noting
from airflow_provider_lakebase.core.workspace.resources import Resource, find, is_settled, read, status_of
from airflow_provider_lakebase.core.workspace.specs import check_spread, compute_arguments, update_paths
from airflow_provider_lakebase.exceptions import LakebaseResourceExistsError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.workspace.client import Workspace

log = logging.getLogger(__name__)

READ_ONLY = "ENDPOINT_TYPE_READ_ONLY"
FORMER = "former"
"""Note of the settings that an endpoint had before it was changed, as fields of its ``spec``."""
_SENT = "sent"
_REQUESTED = "requested"
_SETTINGS = ("endpoint_type", "autoscaling_limit_min_cu", "autoscaling_limit_max_cu", "group", "settings")


@dataclass(frozen=True)
class UpdateEndpoint:
    """Change settings of an endpoint, and wait until they hold.

    :param resource: resource name
    :param spec: the settings to change, as fields of the endpoint's ``spec``
    """

    resource: str
    spec: Mapping[str, Any]

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step; keep the former settings before anything is changed.

        :raises LakebaseSettingsError: for a size that the service refuses together with the present one
        """
        found = endpoint_settings(read(workspace, self.resource))
        changed = {name: value for name, value in self.spec.items() if found.get(name) != value}
        if not changed:
            notes.setdefault(FORMER, found)
            return None
        check_spread({**found, **self.spec})
        if pending := self._follow(workspace, changed, notes):
            return pending
        with noting(notes, FORMER, found):
            operation = update(workspace, self.resource, {"spec": changed}, *update_paths(changed))
        notes[_SENT] = {"spec": changed, "operation": operation.name}
        return Pending.of(self.resource, operation)

    def has_changed(self, notes: Notes) -> bool:
        """Return whether a change was needed and requested.

        :param notes: its notes
        """
        return _SENT in notes

    def _follow(self, workspace: Workspace, changed: Mapping[str, Any], notes: Notes) -> Pending | None:
        """Return what to wait for if these changes are requested; None if they are to be requested."""
        sent = notes.get(_SENT)
        if not sent or sent["spec"] != changed:
            return None
        operation = read_operation(workspace.about(self.resource), sent["operation"])
        if operation is not None and operation.error_code:
            return None
        if operation is not None and not operation.is_done:
            return Pending.of(self.resource, operation)
        if not sent.get("is_over"):  # it is done, but may not show yet
            notes[_SENT] = {**sent, "is_over": True}
            return Pending(self.resource)
        log.warning(
            "%s was updated, and does not have the settings: someone else has changed them since. They are set again",
            self.resource,
        )
        return None


@dataclass(frozen=True)
class CreateEndpoint:
    """Create an endpoint, unless it is there.

    :param resource: resource name
    :param spec: its type and its settings, as the API takes them
    """

    resource: str
    spec: Mapping[str, Any]

    def advance(self, workspace: Workspace, notes: Notes) -> Pending | None:
        """Take the next step.

        :raises LakebaseResourceExistsError: if there is one of another type or with other settings
        """
        endpoint = find(workspace, self.resource)
        if endpoint is None:
            return self._create(workspace, notes)
        if not is_settled(endpoint):
            return Pending(self.resource)
        self._require_usable(workspace, endpoint)
        return None

    def is_own(self, notes: Notes) -> bool:
        """Return whether it was requested, in this try or an earlier one that is known.

        :param notes: its notes
        """
        return bool(notes.get(_REQUESTED))

    def _require_usable(self, workspace: Workspace, endpoint: Resource) -> None:
        context = workspace.about(self.resource).context
        type_found, type_wanted = status_of(endpoint).get("endpoint_type"), self.spec["endpoint_type"]
        if type_found != type_wanted:
            problem, hint = f"The endpoint is {type_found}, not {type_wanted}", "Choose another endpoint ID."
            raise LakebaseResourceExistsError(problem, context=context, hint=hint)
        present, asked = (
            compute_arguments(endpoint_settings(endpoint), self.spec),
            compute_arguments(self.spec, self.spec),
        )
        # suspend_timeout and no_suspension exclude each other, so the names may differ as well as the values.
        for (found_name, found), (name, value) in zip(present.items(), asked.items(), strict=True):
            if (found_name, found) != (name, value):
                wanted = value if name == found_name else f"{name}={value}"
                raise LakebaseResourceExistsError(
                    f"The endpoint exists, and its {found_name} is {found}, not {wanted}",
                    context=context,
                    hint="{update_endpoint}, or choose another endpoint ID.",
                )

    def _create(self, workspace: Workspace, notes: Notes) -> Pending:
        try:
            with noting(notes, _REQUESTED):
                return Pending.of(self.resource, create(workspace, self.resource, self.spec))
        except LakebaseResourceExistsError:
            if find(workspace, self.resource) is None:  # the name is free: it is the branch's read-write endpoint
                raise
            return Pending(self.resource)


def endpoint_settings(endpoint: Resource) -> dict[str, Any]:
    """Return the settings of an endpoint as fields of its ``spec``.

    :param endpoint: the endpoint
    """
    status = status_of(endpoint)
    kept = {name: status[name] for name in _SETTINGS if status.get(name) is not None}
    suspend_timeout = status.get("suspend_timeout_duration")
    suspension = {"suspend_timeout_duration": suspend_timeout} if suspend_timeout else {"no_suspension": True}
    return {**kept, **suspension, "disabled": bool(status.get("disabled"))}
