"""A branch for the time of a run, as a resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from dagster import InitResourceContext
from pydantic import Field

from airflow_provider_lakebase.core.workspace.branches import CreateBranch, DeleteBranch
from airflow_provider_lakebase.core.workspace.client import Workspace
from airflow_provider_lakebase.core.workspace.plans import OPERATION_SECONDS, carry_out
from airflow_provider_lakebase.core.workspace.specs import expiry_spec, resource_name, source_spec
from airflow_provider_lakebase.dagster._failures import fail_without_retry
from airflow_provider_lakebase.dagster.resource import LakebaseResource

_FIELDS = tuple(LakebaseResource.model_fields)


class LakebaseBranchResource(LakebaseResource):
    """A :class:`LakebaseResource` on a branch that lives as long as the run, for tests on real data.

    The branch is created when the run begins and deleted when it ends. All resources of a run share one branch. It
    needs an executor that runs all steps in one process, as ``materialize`` does: with another one, each step ends by
    deleting the branch.
    """

    source: str | None = Field(default=None, description="Branch to copy; by default the project's default branch.")
    expires_in: float = Field(
        default=3600.0, description="Seconds after which the service deletes the branch of a run that was killed."
    )
    operation_timeout: float = Field(
        default=OPERATION_SECONDS, description="Seconds that its creation, and its deletion, may take."
    )

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Iterator[LakebaseResource]:
        """Create the branch, give the resource that uses it, and delete it.

        :param context: of the resource, by Dagster
        """
        with fail_without_retry():
            settings = self.settings
            workspace, project = Workspace.of(settings), str(settings.require_project())
            run_id = context.run.run_id if context.run else uuid4().hex
            name = resource_name(project, "branches", f"dagster-{run_id[:13]}")
            spec = {**source_spec(project, source=self.source), **expiry_spec(ttl=self.expires_in)}
            carry_out(workspace, CreateBranch(name, spec), timeout=self.operation_timeout)
        try:
            fields = {each: getattr(self, each) for each in _FIELDS} | {"endpoint": name, "pg_host": None}
            resource = LakebaseResource(**fields)
            resource.setup_for_execution(context)
            yield resource
        finally:
            carry_out(workspace, DeleteBranch(name, purge=True), timeout=self.operation_timeout)
