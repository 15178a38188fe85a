"""Change the settings of endpoints, and create and delete read-only ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.endpoint_changes import (
    FORMER,
    READ_ONLY,
    CreateEndpoint,
    UpdateEndpoint,
)
from airflow_provider_lakebase.core.workspace.plans import DeleteResource
from airflow_provider_lakebase.core.workspace.resources import read, status_of
from airflow_provider_lakebase.core.workspace.specs import (
    Duration,
    check_flags,
    compute_arguments,
    compute_spec,
    resource_name,
)
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators._operation import LakebaseOperationOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_FORMER_IS_UNKNOWN = "former_is_unknown"
_RESTORABLE = ("min_cu", "max_cu", "suspend_timeout", "no_suspension", "disabled")


class LakebaseUpdateEndpointOperator(LakebaseOperationOperator):
    """Change settings of an endpoint, and wait until they hold. What is not given stays as it is.

    The result holds the former values, which a :class:`LakebaseRestoreEndpointOperator` puts back. They are read before
    the change is requested, and Airflow 3.3 keeps them for the next try. Before Airflow 3.3, a retry that finds the
    endpoint changed cannot know them: it logs a warning, and they are None.

    The open sessions of an endpoint are kept when its size changes; ``disabled=True`` ends them.

    :param endpoint: resource name of an endpoint, or of a branch, which means its ``primary``; by default the
        connection's (templated)
    :param min_cu: least compute units, from 0.5 (templated)
    :param max_cu: most compute units, up to 64, and at most 16 more than the least (templated)
    :param suspend_timeout: time without use after which it is suspended, from 60 s to 7 days: ``timedelta`` or seconds
        (templated)
    :param no_suspension: True if it is never suspended
    :param disabled: whether it refuses connections; neither a login nor the console enables it again
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "endpoint",
        "min_cu",
        "max_cu",
        "suspend_timeout",
    )

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        min_cu: float | str | None = None,
        max_cu: float | str | None = None,
        suspend_timeout: Duration | None = None,
        no_suspension: bool | None = None,
        disabled: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.min_cu = min_cu
        self.max_cu = max_cu
        self.suspend_timeout = suspend_timeout
        self.no_suspension = no_suspension
        self.disabled = disabled
        check_flags(no_suspension=no_suspension, disabled=disabled)

    def plan(self, context: Context, notes: TaskNotes) -> UpdateEndpoint:
        """Check the arguments, and return the settings to change."""
        spec = compute_spec(
            min_cu=self.min_cu,
            max_cu=self.max_cu,
            suspend_timeout=self.suspend_timeout,
            no_suspension=self.no_suspension,
            disabled=self.disabled,
        )
        if not spec:
            hint = "Give min_cu, max_cu, suspend_timeout, no_suspension or disabled."
            raise LakebaseSettingsError("No setting of the endpoint is given", hint=hint)
        if "ti" in context and context["ti"].try_number > 1 and not notes.outlive_a_try:
            notes[_FORMER_IS_UNKNOWN] = True
        return UpdateEndpoint(self.hook.endpoint_name(self.endpoint), spec)

    def result(self, plan: UpdateEndpoint, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``endpoint``, and the former values of the settings that were given."""
        former = compute_arguments(notes[FORMER], plan.spec)
        if notes.get(_FORMER_IS_UNKNOWN) and not plan.has_changed(notes):
            self.log.warning(
                "%s has these settings already, and an earlier try may have made them: its former values are not known",
                plan.resource,
            )
            former = dict.fromkeys(former)
        return {"endpoint": plan.resource, **former}


class LakebaseRestoreEndpointOperator(LakebaseOperationOperator):
    """Put back the settings that an endpoint had before a :class:`LakebaseUpdateEndpointOperator` changed them.

    Make it the teardown of that task, so that it also runs after a failure in between.

    :param former: the result of that task: ``update.output`` (templated)
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperationOperator.template_fields, "former")

    def __init__(self, *, former: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.former = former

    def plan(self, context: Context, notes: TaskNotes) -> UpdateEndpoint:
        """Check the former values, and return the settings to put back."""
        if not isinstance(self.former, Mapping) or not self.former.get("endpoint"):
            hint = "Pass the output of a LakebaseUpdateEndpointOperator that has succeeded."
            raise LakebaseSettingsError("There are no former values of an endpoint", hint=hint)
        settings = {name: value for name, value in self.former.items() if name != "endpoint"}
        if others := [name for name in settings if name not in _RESTORABLE]:
            hint = "Pass the output of a LakebaseUpdateEndpointOperator."
            raise LakebaseSettingsError(f"{' and '.join(others)} is no setting of an endpoint", hint=hint)
        endpoint = self.hook.endpoint_name(self.former["endpoint"])
        if unknown := [name for name, value in settings.items() if value is None]:
            hint = "Set it with a LakebaseUpdateEndpointOperator. Airflow 3.3 keeps former values through retries."
            raise LakebaseSettingsError(f"The former {' and '.join(unknown)} of {endpoint} is not known", hint=hint)
        return UpdateEndpoint(endpoint, compute_spec(**settings))


class LakebaseCreateEndpointOperator(LakebaseOperationOperator):
    """Create a read-only endpoint of a branch: compute of its own for sessions that only read.

    One that exists is used. A branch has its read-write endpoint, ``primary``, from the start.

    :param branch_id: ID or resource name of the branch (templated)
    :param endpoint_id: ID of the endpoint (templated)
    :param min_cu: least compute units, from 0.5 (templated)
    :param max_cu: most compute units, up to 64, and at most 16 more than the least (templated)
    :param suspend_timeout: time without use after which it is suspended, from 60 s to 7 days: ``timedelta`` or seconds
        (templated)
    :param no_suspension: True if it is never suspended
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "branch_id",
        "endpoint_id",
        "min_cu",
        "max_cu",
        "suspend_timeout",
    )

    def __init__(
        self,
        *,
        branch_id: str,
        endpoint_id: str,
        min_cu: float | str | None = None,
        max_cu: float | str | None = None,
        suspend_timeout: Duration | None = None,
        no_suspension: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.branch_id = branch_id
        self.endpoint_id = endpoint_id
        self.min_cu = min_cu
        self.max_cu = max_cu
        self.suspend_timeout = suspend_timeout
        self.no_suspension = no_suspension

    def plan(self, context: Context, notes: TaskNotes) -> CreateEndpoint:
        """Check the arguments, and return the endpoint to create."""
        settings = compute_spec(
            min_cu=self.min_cu,
            max_cu=self.max_cu,
            suspend_timeout=self.suspend_timeout,
            no_suspension=self.no_suspension,
        )
        name = resource_name(self.hook.branch_name(self.branch_id), "endpoints", self.endpoint_id)
        return CreateEndpoint(name, {"endpoint_type": READ_ONLY, **settings})

    def result(self, plan: CreateEndpoint, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``endpoint``, ``host`` and ``created``: whether this task has created it."""
        hosts = status_of(read(self.hook.workspace, plan.resource)).get("hosts") or {}
        host = hosts.get("host") or hosts.get("read_only_host")
        return {"endpoint": plan.resource, "host": host, "created": plan.is_own(notes)}


class LakebaseDeleteEndpointOperator(LakebaseOperationOperator):
    """Delete a read-only endpoint. It is a success if the endpoint is gone.

    A read-write endpoint belongs to its branch, and the workspace refuses to delete it.

    :param endpoint: resource name of the endpoint (templated)
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperationOperator.template_fields, "endpoint")
    records_links_first = True

    def __init__(self, *, endpoint: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint

    def plan(self, context: Context, notes: TaskNotes) -> DeleteResource:
        """Check the arguments, and return the endpoint to delete."""
        return DeleteResource(self.hook.endpoint_to_delete(self.endpoint))
