"""The synced tables of the workspace: copies in Postgres of tables of Unity Catalog. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_lakebase.emulator.model.catalog import UnityCatalog
from airflow_provider_lakebase.emulator.model.data_plane import SyncedTableWriter, TablePlace
from airflow_provider_lakebase.emulator.model.errors import ApiError, already_exists, invalid
from airflow_provider_lakebase.emulator.model.pipelines import Pipeline, Pipelines
from airflow_provider_lakebase.emulator.model.resources import Resources
from airflow_provider_lakebase.emulator.model.sync import Sync
from airflow_provider_lakebase.emulator.model.synced_table import SyncedTable
from airflow_provider_lakebase.emulator.model.synced_table_spec import Spec, check_against_source

MAX_TABLES_OF_SOURCE = 20


class SyncedTables(Resources[SyncedTable]):
    """The synced tables of the workspace."""

    def __init__(self, catalog: UnityCatalog, pipelines: Pipelines, clock: Callable[[], float]) -> None:
        super().__init__("synced table")
        self._catalog = catalog
        self._pipelines = pipelines
        self._clock = clock
        #: What writes to Postgres; the server sets it when it starts.
        self.writer: SyncedTableWriter
        catalog.on_publish = lambda full_name: pipelines.notify()

    def make(self, spec: Spec, cluster: str) -> SyncedTable:
        """Return a new table, without a pipeline or a Postgres table yet; raise ``ApiError`` if it cannot be.

        :param cluster: the cluster of its branch
        """
        table = SyncedTable(spec, TablePlace(cluster, spec.database, spec.schema, spec.table), self._clock())
        if table.name in self:
            raise already_exists(self.kind)
        for other in self.values():
            if other.place == table.place:
                raise ApiError(409, "ALREADY_EXISTS", f"{other.name} already has the Postgres table that it would be")
        self._check(spec)
        return table

    def provision(self, table: SyncedTable, creator: str) -> SyncedTable:
        """Prepare the place in Postgres, and start the update that loads the table.

        :param creator: the Postgres role of the caller

        Raise ``ApiError`` if the Postgres table exists already, or if the pipeline is at work.
        """
        spec = table.spec
        try:
            self.writer.prepare(table.place, creator=creator, create_missing=spec.create_missing)
        except FileExistsError as error:
            raise ApiError(409, "ALREADY_EXISTS", str(error)) from None
        except LookupError as error:
            raise ApiError(404, "NOT_FOUND", str(error.args[0])) from None
        pipeline = self._existing_pipeline(spec) or self._pipelines.create(
            f"Synced table: {spec.synced_table_id}", spec.policy, creator
        )
        table.pipeline_id = pipeline.pipeline_id
        self._pipelines.attach(pipeline, table.name, Sync(table, self._catalog, self.writer, self._clock))
        return table

    def delete(self, table: SyncedTable) -> None:
        """Delete a synced table, and cancel its pipeline's update. The Postgres table stays."""
        if table.pipeline_id:
            self._pipelines.detach(table.pipeline_id, table.name)
        self.discard(table)

    def _check(self, spec: Spec) -> None:
        source = self._catalog.require(spec.source)
        if self._catalog.table(spec.synced_table_id):
            raise ApiError(409, "ALREADY_EXISTS", f"Table '{spec.synced_table_id}' already exists.")
        check_against_source(spec, source)
        if sum(table.spec.source == spec.source for table in self.values()) >= MAX_TABLES_OF_SOURCE:
            raise invalid(f"Cannot create more than {MAX_TABLES_OF_SOURCE} synced table(s) per source table.")
        self._existing_pipeline(spec)

    def _existing_pipeline(self, spec: Spec) -> Pipeline | None:
        if spec.existing_pipeline_id is None:
            return None
        pipeline = self._pipelines.require(spec.existing_pipeline_id)
        if pipeline.policy != spec.policy:
            raise invalid(
                f"Field 'spec.scheduling_policy' must be {pipeline.policy} in pipeline {pipeline.pipeline_id}"
            )
        self._pipelines.refuse_second(pipeline)
        return pipeline
