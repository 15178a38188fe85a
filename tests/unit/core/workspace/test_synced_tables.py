"""What is read of synced tables and pipelines, and the requests, are as databricks-sdk has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from databricks.sdk.service.catalog import TablesAPI
from databricks.sdk.service.pipelines import PipelinesAPI, UpdateInfoState
from databricks.sdk.service.postgres import PostgresAPI, SyncedTableState, SyncedTableSyncedTableSpec
from databricks.sdk.service.postgres import SyncedTable as PostgresSyncedTable

from airflow_provider_lakebase.core.workspace import synced_tables
from airflow_provider_lakebase.core.workspace.operations import ENDED_UPDATES
from airflow_provider_lakebase.core.workspace.pipelines_api import PipelinesApi
from airflow_provider_lakebase.core.workspace.postgres_api import PostgresApi
from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable, read_version, synced_table_name
from airflow_provider_lakebase.core.workspace.unity_catalog_api import UnityCatalogApi
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

NAME = "synced_tables/lake.app.orders"


class Api:
    """Keeps the requests in place of databricks-sdk's client."""

    def __init__(self, workspace_id: str | None) -> None:
        self._cfg = SimpleNamespace(workspace_id=workspace_id)
        self.requests: list[Any] = []

    def do(self, method: str, path: str, **content: Any) -> Any:
        self.requests.append((method, path, content))
        return {"update_id": "u"}


@pytest.mark.parametrize("workspace_id", [None, "42"])
def test_requests_are_those_of_the_sdk(workspace_id: str | None):
    ours, theirs = Api(workspace_id), Api(workspace_id)
    mine, sdk = PipelinesApi(ours), PipelinesAPI(theirs)  # type: ignore[arg-type,no-untyped-call]
    mine.get("p")
    mine.get_update("p", "u")
    assert mine.start_update("p", full_refresh=False) == "u"
    mine.start_update("p", full_refresh=True)
    PostgresApi(ours).get(NAME)  # type: ignore[arg-type]
    PostgresApi(ours).create(NAME, {"spec": {"branch": "b", "primary_key_columns": ["id"]}})  # type: ignore[arg-type]
    PostgresApi(ours).delete(NAME)  # type: ignore[arg-type]
    UnityCatalogApi(ours).get_table("main.gold.orders")  # type: ignore[arg-type]
    sdk.get("p")
    sdk.get_update("p", "u")
    sdk.start_update("p")
    sdk.start_update("p", full_refresh=True)
    postgres = PostgresAPI(theirs)  # type: ignore[no-untyped-call]
    postgres.get_synced_table(NAME)
    spec = SyncedTableSyncedTableSpec(branch="b", primary_key_columns=["id"])
    postgres.create_synced_table(PostgresSyncedTable(spec=spec), NAME.removeprefix("synced_tables/"))
    postgres.delete_synced_table(NAME)
    TablesAPI(theirs).get("main.gold.orders")  # type: ignore[no-untyped-call]
    assert ours.requests == theirs.requests


def test_the_sdk_knows_the_states_that_are_compared():
    states = {state.value for state in SyncedTableState}
    compared = {f"SYNCED_TABLE_{each}" for each in (*synced_tables._SERVING, *synced_tables._FAILED, "OFFLINE")}
    assert compared <= states
    assert {"SYNCED_TABLE_PROVISIONING", "SYNCED_TABLE_ONLINE_TRIGGERED_UPDATE"} <= states - compared
    updates = {state.value for state in UpdateInfoState}
    assert {*ENDED_UPDATES, *synced_tables._PREPARING} == updates - {"RUNNING", "STOPPING"}


@pytest.mark.parametrize(
    ("state", "is_settled", "serves", "has_failed"),
    [
        ("PROVISIONING", False, False, False),
        ("PROVISIONING_PIPELINE_RESOURCES", False, False, False),
        ("PROVISIONING_INITIAL_SNAPSHOT", False, False, False),
        ("OFFLINE", True, False, False),
        ("OFFLINE_FAILED", True, False, True),
        ("ONLINE", True, True, False),
        ("ONLINE_NO_PENDING_UPDATE", True, True, False),
        ("ONLINE_CONTINUOUS_UPDATE", True, True, False),
        ("ONLINE_TRIGGERED_UPDATE", False, False, False),
        ("ONLINE_UPDATING_PIPELINE_RESOURCES", False, False, False),
        ("ONLINE_PIPELINE_FAILED", True, False, True),
        ("A_STATE_OF_NEXT_YEAR", False, False, False),
    ],
)
def test_a_state_is_settled_serves_or_has_failed(state: str, is_settled: bool, serves: bool, has_failed: bool):
    status = {"detailed_state": f"SYNCED_TABLE_{state}", "last_processed_commit_version": "7"}
    table = SyncedTable.of(NAME, {"status": status})
    assert (table.is_settled, table.has_failed) == (is_settled, has_failed)
    assert (table.has_reached(7), table.has_reached(None)) == (serves, serves)
    assert not table.has_reached(8)


def test_a_table_without_a_version_has_reached_none():
    table = SyncedTable.of(NAME, {"status": {"detailed_state": "SYNCED_TABLE_ONLINE"}})
    assert table.has_reached(None)
    assert not table.has_reached(0)


def test_a_log_shows_the_progress():
    progress = {"synced_row_count": 2, "total_row_count": 4, "latest_version_currently_processing": 3}
    table = SyncedTable.of(NAME, {"status": {"ongoing_sync_progress": progress}})
    assert "2 of 4 rows of version 3" in str(table)


@pytest.mark.parametrize("name", ["lake.app.orders", NAME])
def test_a_name_is_that_of_unity_catalog_or_the_resources(name: str):
    assert synced_table_name(name) == NAME
    assert str(ErrorContext(resource=NAME)) == f"synced table {NAME}"


@pytest.mark.parametrize("name", ["", "app.orders", "a.b.c.d", "a.b c.d", "a..c", "a/b.c.d", "a.b.c?x", None, 7])
def test_another_name_is_refused(name: Any):
    with pytest.raises(LakebaseSettingsError, match="catalog.schema.table"):
        synced_table_name(name)


@pytest.mark.parametrize(("value", "version"), [(None, None), (0, 0), ("12", 12), (" 3 ", 3)])
def test_a_version_is_a_whole_number(value: Any, version: int | None):
    assert read_version("version", value) == version


@pytest.mark.parametrize("value", [-1, True, "", "None", "1.5", 1.5, "newest"])
def test_another_version_is_refused(value: Any):
    with pytest.raises(LakebaseSettingsError, match="DESCRIBE HISTORY"):
        read_version("version", value)
