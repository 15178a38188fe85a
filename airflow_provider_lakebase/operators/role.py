"""Create the Postgres role that a Databricks identity logs in as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.links import LINKS, record_links
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseRoleBootstrapOperator(LakebaseOperatorMixin):
    """Give a Databricks identity its Postgres role and privileges, idempotently.

    One transaction creates the extension ``databricks_auth`` and the role, and grants CONNECT, USAGE on the schemas,
    and privileges on their tables and sequences, including those that the connection's own role creates later. Every
    grant is read back. A second run changes nothing and logs that. Run it as an identity that may create roles, such
    as the project's owner.

    :param identity: client ID of a service principal, e-mail of a user, or display name of a group (templated)
    :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP`` (templated)
    :param schemas: schemas to grant on (templated)
    :param privileges: privileges on their tables and views (templated)
    :param default_privileges: also grant them on tables and sequences that the connection's role creates there later
    :param create_on_database: grant CREATE on the database, so that the identity can own schemas
    :param ledger_schema: schema of the ledger that records loads, which is created and granted on; None for no ledger
        (templated)
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, where the connection is that of the
        identity that grants; and the arguments of ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        "identity",
        "identity_type",
        *LakebaseOperatorMixin.template_fields,
        "schemas",
        "privileges",
        "ledger_schema",
    )
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        identity: str,
        identity_type: str = "SERVICE_PRINCIPAL",
        schemas: Sequence[str] = ("public",),
        privileges: Sequence[str] = ("SELECT", "INSERT", "UPDATE", "DELETE"),
        default_privileges: bool = True,
        create_on_database: bool = False,
        ledger_schema: str | None = LEDGER_SCHEMA,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.identity = identity
        self.identity_type = identity_type
        self.schemas = schemas
        self.privileges = privileges
        self.default_privileges = default_privileges
        self.create_on_database = create_on_database
        self.ledger_schema = ledger_schema

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the role and its grants.

        :raises AirflowFailException: if the role or a grant could not be made; nothing was changed
        :returns: a report: ``extension`` and ``role`` (``found`` or ``created``), ``ledger``, ``granted``, ``changed``
        """
        with fail_without_retry():
            request = RoleRequest(
                identity=self.identity,
                identity_type=self.identity_type,
                schemas=self.schemas,
                privileges=self.privileges,
                default_privileges=self.default_privileges,
                create_on_database=self.create_on_database,
                ledger_schema=self.ledger_schema,
            )
            with record_links(context, self._hook):
                report = self._hook.bootstrap_role(request)
        self._log_report(report)
        return report

    def _log_report(self, report: dict[str, Any]) -> None:
        if not report["changed"]:
            self.log.info("Role '%s' already has all requested privileges; nothing was changed", self.identity)
        if report["role"] == "created":
            self.log.info("Created role '%s'", self.identity)
        if report["ledger"] == "created":
            self.log.info("Created the ledger in schema '%s'", self.ledger_schema)
        for granted in report["granted"]:
            self.log.info("Granted %s to '%s'", granted, self.identity)
