"""Create the Postgres role that a Databricks identity logs in as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_lakebase.core.connection.fields import LEDGER_SCHEMA
from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.exceptions import LakebaseRoleError, LakebaseSettingsError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.hooks._role_log import tell_report
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.links import LINKS, record_links
from airflow_provider_lakebase.operators._base import LakebaseOperatorMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

Route = Literal["sql", "api"]
"""How a role is created or dropped: in a session, or by the workspace's API."""


class LakebaseRoleBootstrapOperator(LakebaseOperatorMixin):
    """Give a Databricks identity its Postgres role and what it is to have, idempotently, or tell how that differs.

    One transaction for each database creates the extension ``databricks_auth`` and the role, grants what is declared
    and missing, and reads it back. A second run changes nothing and logs that. Run it as an identity that may create
    roles, such as the project's owner.

    :param identity: client ID of a service principal, e-mail of a user, or display name of a group (templated)
    :param identity_type: ``SERVICE_PRINCIPAL``, ``USER`` or ``GROUP`` (templated)
    :param schemas: schemas to grant on: a list, whose tables all get ``privileges``; or a mapping of each schema to its
        access: ``"read"`` (SELECT), ``"write"`` (SELECT, INSERT, UPDATE, DELETE), ``"owner"`` (the schema and what
        is in it become the identity's), or a list of privileges on its tables, where CREATE is the one on the schema.
        On synced tables nothing to write is granted: only their pipelines may (templated)
    :param privileges: privileges on the tables and views of a list of schemas; by default those of ``"write"``
        (templated)
    :param default_privileges: also grant them on tables and sequences that are created there later
    :param created_by: roles whose new tables and sequences get the default privileges; by default the connection's own
        role, with an empty list none (templated)
    :param tables: mapping of a table or view, with its schema, to ``"read"``, ``"write"`` or a list of privileges
        (templated)
    :param functions: functions to grant EXECUTE on, such as ``sales.total(int)``, with only the types of the
        arguments (templated)
    :param owned_schemas: schemas of the identity's own, which are created if they do not exist (templated)
    :param member_of: roles to be a direct member of; None to leave memberships as they are (templated)
    :param create_on_database: grant CREATE on the database, so that the identity can create schemas
    :param ledger_schema: schema of the ledger that records loads, which is created and granted on; None for no ledger
        (templated)
    :param databases: databases in which all this holds; by default the connection's (templated)
    :param dry_run: change nothing, and tell what a run would change (templated)
    :param prune: also revoke what the identity has been granted and is not declared (templated)
    :param route: ``sql`` for a session of the connection's identity; ``api`` lets the workspace's API create the role,
        and grants nothing: for a branch on which nobody can log in yet
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`, where the connection is that of the
        identity that grants; and the arguments of ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperatorMixin.template_fields,
        "identity",
        "identity_type",
        "schemas",
        "privileges",
        "created_by",
        "tables",
        "functions",
        "owned_schemas",
        "member_of",
        "ledger_schema",
        "databases",
        "is_dry_run",
        "prune",
    )
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        identity: str,
        identity_type: str = "SERVICE_PRINCIPAL",
        schemas: Sequence[str] | Mapping[str, str | Sequence[str]] = ("public",),
        privileges: Sequence[str] | None = None,
        default_privileges: bool = True,
        created_by: Sequence[str] | None = None,
        tables: Mapping[str, str | Sequence[str]] | None = None,
        functions: Sequence[str] = (),
        owned_schemas: Sequence[str] = (),
        member_of: Sequence[str] | None = None,
        create_on_database: bool = False,
        ledger_schema: str | None = LEDGER_SCHEMA,
        databases: Sequence[str] | None = None,
        dry_run: bool = False,
        prune: bool = False,
        route: Route = "sql",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.identity = identity
        self.identity_type = identity_type
        self.schemas = schemas
        self.privileges = privileges
        self.default_privileges = default_privileges
        self.created_by = created_by
        self.tables = tables
        self.functions = functions
        self.owned_schemas = owned_schemas
        self.member_of = member_of
        self.create_on_database = create_on_database
        self.ledger_schema = ledger_schema
        self.databases = databases
        self.is_dry_run = dry_run  # BaseOperator has a method dry_run()
        self.prune = prune
        self.route = route
        _check_route(route)

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the role, grant what is missing and, with ``prune``, revoke what is not declared.

        :raises AirflowFailException: if something could not be created, granted or revoked; nothing was changed in the
            database that it names
        :returns: a report: ``extension``, ``role`` and ``ledger`` (``found`` or ``created``); what was ``created``,
            ``granted``, ``revoked`` and ``owned``; how the role differed before, ``short`` and ``beyond``; what is
            ``remaining`` of that, and ``why``; ``not_permitted``, which only a dry run has; ``synced``, the synced
            tables on which nothing to write was granted; ``changed``
        """
        with fail_without_retry():
            request = RoleRequest(
                identity=self.identity,
                identity_type=self.identity_type,
                schemas=self.schemas,
                privileges=self.privileges,
                default_privileges=self.default_privileges,
                created_by=self.created_by,
                tables={} if self.tables is None else self.tables,
                functions=self.functions,
                owned_schemas=self.owned_schemas,
                member_of=self.member_of,
                create_on_database=self.create_on_database,
                ledger_schema=self.ledger_schema,
                databases=self.databases,
            )
            with record_links(context, self._hook):
                if self.route == "api":
                    return self._create_by_api(request)
                report = self._hook.bootstrap_role(request, dry_run=self.is_dry_run, prune=self.prune)
        for level, sentence in tell_report(report, prune=self.prune):
            self.log.log(level, sentence)
        return report

    def _create_by_api(self, request: RoleRequest) -> dict[str, Any]:
        """Create the role alone: nobody may be able to log in, and so to grant."""
        _refuse_session_arguments(self)
        if request != RoleRequest(self.identity, self.identity_type) or self.is_dry_run or self.prune:
            hint = "Pass identity and identity_type alone, and grant in another task, once an identity can log in."
            raise LakebaseSettingsError("Grants are declared beside route='api', which grants nothing", hint=hint)
        workspace = LakebaseWorkspaceHook(self.lakebase_conn_id)
        branch = self.endpoint or None
        roles = [each.status.postgres_role for each in workspace.list_roles(branch) if each.status]
        workspace.create_role(self.identity, identity_type=self.identity_type, branch=branch)
        found = self.identity in roles
        self.log.info("Role '%s' %s", self.identity, "exists; nothing was changed" if found else "was created")
        return {
            "identity": self.identity,
            "identity_type": self.identity_type,
            "role": "found" if found else "created",
            "changed": not found,
        }


class LakebaseDropRoleOperator(LakebaseOperatorMixin):
    """Drop the Postgres role of a Databricks identity, and give what it owns to another role in every database.

    It is a success if the role is gone. First everything is tried out and rolled back in each database, so that a
    refusal is known before anything is changed. Then its objects and default privileges go to ``reassign_owned_to``,
    what it was granted is dropped, its open sessions are ended, and the role is dropped. If a try dies, the next one
    goes on where it has stopped. The identity stays in the workspace.

    Refused are the session's own role, system roles, the owner of ``databricks_postgres`` or of the connection's
    database; and a role that owns something, without ``reassign_owned_to``. Run it as the identity that has created
    the roles, such as the project's owner.

    :param identity: name of the role: client ID of a service principal, e-mail of a user, or display name of a group
        (templated)
    :param reassign_owned_to: name of the role that gets what it owns (templated)
    :param route: ``sql`` for a session of the connection's identity; ``api`` lets the workspace's API do it, for a
        role that this identity may not drop by SQL. The API drops default privileges, and hands over none
    :param kwargs: ``lakebase_conn_id``, ``endpoint``, ``database``, ``read_only`` and ``hook_params`` of
        :class:`~airflow_provider_lakebase.operators._base.LakebaseOperatorMixin`; and the arguments of ``BaseOperator``
    """

    template_fields: Sequence[str] = ("identity", *LakebaseOperatorMixin.template_fields, "reassign_owned_to")
    operator_extra_links = LINKS

    def __init__(
        self, *, identity: str, reassign_owned_to: str | None = None, route: Route = "sql", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.identity = identity
        self.reassign_owned_to = reassign_owned_to
        self.route = route
        _check_route(route)

    def execute(self, context: Context) -> dict[str, Any]:
        """Drop the role.

        :raises AirflowFailException: if it could not be dropped; the message says what was changed
        :returns: a report: ``role`` (``dropped`` or ``gone``), ``reassigned_to``, ``databases`` (for each one what was
            given away), ``default_privileges`` and ``sessions`` (how many), ``changed``
        """
        heir = self.reassign_owned_to or None
        with fail_without_retry(), record_links(context, self._hook):
            if self.route == "api":
                return self._drop_by_api(heir)
            report = self._hook.drop_role(self.identity, reassign_owned_to=heir)
        if not report["changed"]:
            self.log.info("There is no role '%s'; nothing was changed", self.identity)
        return report

    def _drop_by_api(self, heir: str | None) -> dict[str, Any]:
        _refuse_session_arguments(self)
        if self.identity == self._hook.settings.session.user:
            hint = "Connect as another identity, such as the project's owner."
            raise LakebaseRoleError(f"'{self.identity}' is the connection's own role", hint=hint)
        workspace = LakebaseWorkspaceHook(self.lakebase_conn_id)
        deleted = workspace.delete_role(self.identity, reassign_owned_to=heir, branch=self.endpoint or None)
        if not deleted:
            self.log.info("There is no role '%s'; nothing was changed", self.identity)
        return {
            "identity": self.identity,
            "role": "dropped" if deleted else "gone",
            "reassigned_to": heir,
            "changed": deleted,
        }


def _refuse_session_arguments(operator: LakebaseOperatorMixin) -> None:
    for name in ("database", "read_only", "hook_params"):
        if getattr(operator, name):
            hint = "Leave it out: the workspace's API opens no session."
            raise LakebaseSettingsError(f"{name} is given beside route='api'", hint=hint)


def _check_route(route: str) -> None:
    if route not in ("sql", "api"):
        raise LakebaseSettingsError(f"route is {route!r}", hint="It must be 'sql' or 'api'.")
