"""Create databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.branches import find_primary
from airflow_provider_lakebase.core.workspace.databases import REQUESTED, CreateDatabase
from airflow_provider_lakebase.core.workspace.roles import ROLE_REQUESTED
from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.exceptions import LakebaseResourceNotFoundError
from airflow_provider_lakebase.hooks._login import create_auth_extension
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators._operation import LakebaseOperationOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lakebase.core.workspace.plans import Plan


class LakebaseCreateDatabaseOperator(LakebaseOperationOperator):
    """Create a database in which identities can log in, and the role of its owner. A database that exists is used.

    The workspace's API creates both, so it works before anyone can log in to Postgres. Then the connection's identity
    logs in to the database, and creates the extension ``databricks_auth`` if the database lacks it, as one does that a
    plain ``CREATE DATABASE`` made. A database that exists with another owner fails the task.

    :param database: name of the database (templated)
    :param owned_by: identity whose role owns it: client ID of a service principal, e-mail of a user, or display name of
        a group; by default the connection's identity if the database is created, and any if it exists (templated)
    :param identity_type: type of the owner: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP``; by default the first, and
        without ``owned_by`` that of the connection's identity (templated)
    :param branch: ID or resource name of the branch, or of its endpoint; by default that of the connection's
        ``endpoint`` (templated)
    :param wait_for_login: the task is done when the connection's identity can log in to the database, which wakes the
        endpoint; else when the workspace says that the database is there
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    # Not owner: that is the task's own in BaseOperator, and default_args give it to every task.
    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "database",
        "owned_by",
        "identity_type",
        "branch",
    )

    def __init__(
        self,
        *,
        database: str,
        owned_by: str | None = None,
        identity_type: str | None = None,
        branch: str | None = None,
        wait_for_login: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.database = database
        self.owned_by = owned_by
        self.identity_type = identity_type
        self.branch = branch
        self.wait_for_login = wait_for_login
        check_flags(wait_for_login=wait_for_login)

    def plan(self, context: Context, notes: TaskNotes) -> CreateDatabase:
        """Check the arguments, and return the database to create."""
        return self.hook._database_plan(
            self.database,
            branch=self.branch,
            owner=None if self.owned_by == "" else self.owned_by,
            identity_type=self.identity_type or None,
        )

    def page_of(self, plan: CreateDatabase) -> str:  # type: ignore[override]
        """Return the branch of the database."""
        return plan.branch

    def needs_login(self) -> bool:
        """Return whether the task is done only when a login works."""
        return self.wait_for_login

    def login_endpoint(self, plan: Plan) -> str:
        """Return the read-write endpoint of the branch.

        :raises LakebaseResourceNotFoundError: if it has none
        """
        workspace, branch = self.hook.workspace, self.page_of(plan)  # type: ignore[arg-type]
        if endpoint := find_primary(workspace, branch):
            return str(endpoint["name"])
        hint = "Pass wait_for_login=False, or another branch."
        context = workspace.about(branch).context
        raise LakebaseResourceNotFoundError("The branch has no read-write endpoint", context=context, hint=hint)

    def login_database(self) -> str:
        """Return the database."""
        return self.database

    def result(self, plan: CreateDatabase, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``database``, ``branch``, ``endpoint``, ``owner``, and ``created`` and ``role_created``.

        The endpoint is that of the login, if there was one. The last two say whether this task has created the database
        and the role of its owner.
        """
        endpoint = self.login_endpoint(plan) if self.wait_for_login else None
        if endpoint and create_auth_extension(self.lakebase_conn_id, endpoint, self.database):
            self.log.info("Created the extension databricks_auth in database '%s'", self.database)
        return {
            "database": self.database,
            "branch": plan.branch,
            "endpoint": endpoint,
            "owner": self.hook._database_owner(plan),
            "created": bool(notes.get(REQUESTED)),
            "role_created": bool(notes.get(ROLE_REQUESTED)),
        }
