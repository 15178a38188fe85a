"""Create and delete change feeds, which write the changes of Postgres tables to Unity Catalog."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.change_feed_progress import read_tables
from airflow_provider_lakebase.core.workspace.change_feeds import (
    DELETED,
    REQUESTED,
    CreateChangeFeed,
    DeleteChangeFeed,
    branch_of,
    feed_spec,
)
from airflow_provider_lakebase.core.workspace.plans import Plan
from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.hooks._change_feeds import prepare_tables
from airflow_provider_lakebase.operators._notes import TaskNotes
from airflow_provider_lakebase.operators._operation import LakebaseOperationOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseCreateChangeFeedOperator(LakebaseOperationOperator):
    """Create a change feed of a Postgres schema, once its tables are checked. A feed that exists is used.

    A feed leaves out tables that it cannot replicate, and no error says so. So the task checks all tables first, with
    the connection's role. It fails if one has no REPLICA IDENTITY FULL or no primary key, is partitioned or a
    partition, unlogged or foreign. The error names the faults of all tables, and nothing is created or changed.

    If the feed is there, the task opens no session and changes nothing. A feed cannot be changed: the task fails if it
    has another schema or writes elsewhere.

    :param postgres_schema: schema in Postgres, of the database ``databricks_postgres``. The feed replicates the tables
        that it has and will have (templated)
    :param catalog: catalog in Unity Catalog that it writes to (templated)
    :param schema: schema in this catalog (templated)
    :param change_feed: ID of the feed, or its resource name; by default the name of the Postgres schema (templated)
    :param branch: ID or resource name of the branch; by default that of the connection's endpoint (templated)
    :param tables: tables that it has to replicate; the task warns of others that it leaves out. By default all tables
        of the schema, except those of extensions (templated)
    :param set_replica_identity: set REPLICA IDENTITY FULL where it is missing and the role owns the table
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (
        *LakebaseOperationOperator.template_fields,
        "postgres_schema",
        "catalog",
        "schema",
        "change_feed",
        "branch",
        "tables",
    )

    def __init__(
        self,
        *,
        postgres_schema: str,
        catalog: str,
        schema: str,
        change_feed: str | None = None,
        branch: str | None = None,
        tables: str | Sequence[str] | None = None,
        set_replica_identity: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.postgres_schema = postgres_schema
        self.catalog = catalog
        self.schema = schema
        self.change_feed = change_feed
        self.branch = branch
        self.tables = tables
        self.set_replica_identity = set_replica_identity

    def plan(self, context: Context, notes: TaskNotes) -> CreateChangeFeed:
        """Check the arguments, and return the feed to create."""
        check_flags(set_replica_identity=self.set_replica_identity)
        spec = feed_spec(postgres_schema=self.postgres_schema, catalog=self.catalog, schema=self.schema)
        name = self.hook.change_feed_name(self.change_feed or self.postgres_schema, self.branch)
        tables = None if self.tables is None else read_tables(self.tables)
        prepare = partial(
            prepare_tables,
            self.lakebase_conn_id,
            branch_of(name),
            self.postgres_schema,
            tables,
            set_identity=bool(self.set_replica_identity),
        )
        return CreateChangeFeed(name, spec, prepare)

    def page_of(self, plan: Plan) -> str:
        """Return the feed's branch."""
        return branch_of(plan.resource)

    def result(self, plan: CreateChangeFeed, notes: TaskNotes) -> dict[str, Any]:  # type: ignore[override]
        """Return ``change_feed``, the fields of the feed, and ``created``: whether this task has created it."""
        is_created = bool(notes.get(REQUESTED))
        if not is_created:
            self.log.info("Change feed %s exists; nothing was changed", plan.resource)
        return {"change_feed": plan.resource, **plan.spec, "created": is_created}


class LakebaseDeleteChangeFeedOperator(LakebaseOperationOperator):
    """Delete a change feed. It is a success if the feed is gone. The tables in Postgres stay as they are.

    :param change_feed: ID or resource name of the feed (templated)
    :param branch: ID or resource name of its branch; by default that of the connection's endpoint (templated)
    :param drop_tables: also drop the tables in Unity Catalog that it has written, which are kept otherwise
    :param kwargs: ``lakebase_conn_id``, ``project``, ``operation_timeout`` and ``deferrable`` of
        :class:`~airflow_provider_lakebase.operators._operation.LakebaseOperationOperator`; and the arguments of
        ``BaseOperator``
    """

    template_fields: Sequence[str] = (*LakebaseOperationOperator.template_fields, "change_feed", "branch")

    def __init__(
        self, *, change_feed: str, branch: str | None = None, drop_tables: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.change_feed = change_feed
        self.branch = branch
        self.drop_tables = drop_tables

    def plan(self, context: Context, notes: TaskNotes) -> DeleteChangeFeed:
        """Check the arguments, and return the feed to delete."""
        check_flags(drop_tables=self.drop_tables)
        return DeleteChangeFeed(self.hook.change_feed_name(self.change_feed, self.branch), bool(self.drop_tables))

    def result(self, plan: Plan, notes: TaskNotes) -> None:
        """Log if there was no such feed; nothing is returned."""
        if not notes.get(DELETED):
            self.log.info("There is no change feed %s; nothing was changed", plan.resource)

    def page_of(self, plan: Plan) -> str:
        """Return the feed's branch."""
        return branch_of(plan.resource)
