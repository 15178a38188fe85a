"""Wait until a synced table serves a version of its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.workspace.specs import Time
from airflow_provider_lakebase.core.workspace.synced_tables import Freshness, read_table, synced_table_name
from airflow_provider_lakebase.exceptions import LakebaseOperationError, LakebaseWorkspaceError
from airflow_provider_lakebase.hooks._failures import fail_without_retry
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook
from airflow_provider_lakebase.sensors._deferrable import POKE_SECONDS, DeferrableSensor
from airflow_provider_lakebase.triggers.synced_table import LakebaseSyncedTableSensorTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LakebaseSyncedTableSensor(DeferrableSensor):
    """Wait until a synced table serves a version of its source, whoever brings it up to date.

    It starts nothing, and asks only the control plane, so it wakes no endpoint. The task fails if the pipeline has
    failed and the table does not serve the version yet.

    A deferred sensor occupies no worker slot. All sensors in a triggerer that wait for the same table with the same
    identity share one poll of its state.

    :param synced_table: its name in Unity Catalog, ``catalog.schema.table`` (templated)
    :param version: version of the source, or a later one (templated)
    :param newer_than: in place of ``version``, a time after which the sync began that brought the rows: a ``datetime``
        with a time zone, or ISO 8601 (templated)
    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param deferrable: wait in the triggerer, unless the version is there at once; by default as ``[operators]
        default_deferrable`` says
    :param kwargs: ``poke_interval`` and ``timeout`` (seconds), ``mode`` and the other arguments of
        ``BaseSensorOperator``
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "synced_table", "version", "newer_than")

    def __init__(
        self,
        *,
        synced_table: str,
        version: int | str | None = None,
        newer_than: Time | None = None,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        self.synced_table = synced_table
        self.version = version
        self.newer_than = newer_than
        self.lakebase_conn_id = lakebase_conn_id

    def _trigger(self, context: Context) -> LakebaseSyncedTableSensorTrigger:
        """Return the trigger that waits for the table."""
        freshness = Freshness.of(self.version, self.newer_than)
        return LakebaseSyncedTableSensorTrigger(
            self.synced_table,
            freshness.version,
            freshness.newer_than.isoformat() if freshness.newer_than else None,
            self.lakebase_conn_id,
            self.poke_interval,
        )

    def poke(self, context: Context) -> bool:
        """Check once whether the table serves it.

        :raises AirflowFailException: for an error that no retry can help
        :raises LakebaseOperationError: if the pipeline has failed for a cause that may pass
        """
        try:
            with fail_without_retry():
                name, freshness = synced_table_name(self.synced_table), Freshness.of(self.version, self.newer_than)
                # A new hook reads the connection anew: its secret may have been rotated since the last poke.
                workspace = LakebaseWorkspaceHook(self.lakebase_conn_id).workspace
                table = read_table(workspace, name, timeout=POKE_SECONDS)
                self.log.info("%s", table)
                return freshness.is_met(table, workspace.context)
        except LakebaseOperationError:
            raise
        except LakebaseWorkspaceError as error:
            self.log.warning("The synced table is checked again later: %s", error)
            return False
