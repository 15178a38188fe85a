"""Make the Postgres role that a Databricks identity logs in as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID, LEDGER_SCHEMA
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook, fail_without_retry
from airflow_provider_lakebase.links import LINKS, record_links

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseRoleBootstrapOperator(BaseOperator):
    """Give a Databricks identity its Postgres role and privileges, idempotently.

    One transaction makes the extension ``databricks_auth``, the role, CONNECT, USAGE on the schemas, and privileges on
    their tables and sequences, those that the connection's own role makes later included. Every grant is read back. A
    second run changes nothing and says so. Run it as an identity that may create roles, such as the project's owner.

    :param identity: client ID of a service principal, e-mail of a user, or display name of a group (templated)
    :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP`` (templated)
    :param lakebase_conn_id: Airflow connection of the identity that grants (templated)
    :param endpoint: endpoint in place of the connection's (templated)
    :param database: database in place of the connection's (templated)
    :param schemas: schemas to grant on (templated)
    :param privileges: privileges on their tables and views (templated)
    :param default_privileges: grant the same on tables and sequences that the connection's role makes there later
    :param create_on_database: grant CREATE on the database, so that the identity can own schemas of its own
    :param ledger_schema: schema of the ledger in which loads are recorded, made and granted on; None for none
        (templated)
    """

    template_fields: Sequence[str] = (
        "identity",
        "identity_type",
        "lakebase_conn_id",
        "endpoint",
        "database",
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
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        database: str | None = None,
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
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.database = database
        self.schemas = schemas
        self.privileges = privileges
        self.default_privileges = default_privileges
        self.create_on_database = create_on_database
        self.ledger_schema = ledger_schema

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the role and its grants.

        :raises AirflowFailException: when the role or a grant cannot be had; nothing was changed
        :returns: a report: ``extension`` and ``role`` (``found`` or ``created``), ``ledger``, ``granted``, ``changed``
        """
        from airflow_provider_lakebase.core.grants import RoleRequest

        hook = LakebaseHook(self.lakebase_conn_id, self.endpoint, self.database)
        with fail_without_retry(), record_links(context, hook):
            request = RoleRequest(
                identity=self.identity,
                identity_type=self.identity_type,
                schemas=self.schemas,
                privileges=self.privileges,
                default_privileges=self.default_privileges,
                create_on_database=self.create_on_database,
                ledger_schema=self.ledger_schema,
            )
            report = hook.bootstrap_role(request)
        if not report["changed"]:
            self.log.info("Role '%s' has all it was to get; nothing was changed", self.identity)
        if report["role"] == "created":
            self.log.info("Created the role '%s'", self.identity)
        if report["ledger"] == "created":
            self.log.info("Created the ledger in schema '%s'", self.ledger_schema)
        for granted in report["granted"]:
            self.log.info("Granted %s to '%s'", granted, self.identity)
        return report
