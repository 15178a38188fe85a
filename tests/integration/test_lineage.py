"""Lineage tells what a task reads and writes without a session, a wake or a call, and never at the task's cost."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.sql.operators.sql import SQLColumnCheckOperator, SQLExecuteQueryOperator
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.utils.state import TaskInstanceState

from airflow_provider_lakebase.core.workspace.synced_tables import SyncedTable
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.lineage.sql import MAX_CHARACTERS
from airflow_provider_lakebase.operators.load import LakebaseExportOperator, LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.operators.synced_table import (
    LakebaseCreateSyncedTableOperator,
    LakebaseSyncTableOperator,
)
from airflow_provider_lakebase.sensors.query import LakebaseQuerySensor
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator

INSERT = "INSERT INTO shop.bills (id) SELECT id FROM shop.orders o JOIN prices USING (day) WHERE day > %(day)s"
PARAMETERS = {"day": "a confidential value"}
OWN: dict[str, tuple[Any, list[str], list[str]]] = {
    "SQL": (
        LakebaseSQLOperator(task_id="sql", sql=INSERT, parameters=PARAMETERS),
        ["public.prices", "shop.orders"],
        ["shop.bills"],
    ),
    "deferred SQL": (
        LakebaseSQLOperator(task_id="deferred", sql=INSERT, parameters=PARAMETERS, deferrable=True),
        ["public.prices", "shop.orders"],
        ["shop.bills"],
    ),
    "load": (
        LakebaseLoadOperator(task_id="load", source=["/data/a.csv", "s3://bucket/b.csv"], table="shop.orders"),
        ["file:/data/a.csv", "s3://bucket:b.csv"],
        ["shop.orders"],
    ),
    "export": (
        LakebaseExportOperator(task_id="export", table="shop.orders", destination="s3://bucket/orders.parquet"),
        ["shop.orders"],
        ["s3://bucket:orders.parquet"],
    ),
    "transfer": (
        SqlToLakebaseOperator(
            task_id="transfer",
            source_conn_id="lakebase_admin",
            sql="SELECT * FROM shop.orders WHERE day > %(day)s",
            parameters=PARAMETERS,
            table="shop.copy",
        ),
        ["shop.orders"],
        ["shop.copy"],
    ),
    "create a synced table": (
        LakebaseCreateSyncedTableOperator(
            task_id="create",
            synced_table="lake.shop.orders",
            source="main.gold.orders",
            key_columns="id",
            policy="snapshot",
        ),
        ["unity:main.gold.orders"],
        ["shop.orders"],
    ),
    "create a synced table elsewhere": (
        LakebaseCreateSyncedTableOperator(
            task_id="create_elsewhere",
            synced_table="lake.shop.orders",
            source="main.gold.orders",
            key_columns="id",
            policy="snapshot",
            branch="projects/demo/branches/test",
            postgres_database="app",
        ),
        ["unity:main.gold.orders"],
        ["test:app.shop.orders"],
    ),
    "sync": (
        LakebaseSyncTableOperator(task_id="sync", synced_table=["lake.shop.orders", "lake.shop.bills"]),
        [],
        ["shop.orders", "shop.bills"],
    ),
}
OTHERS = {
    "SQLExecuteQueryOperator": SQLExecuteQueryOperator(task_id="others", conn_id="lakebase_default", sql=INSERT),
    "a check": SQLColumnCheckOperator(
        task_id="check", conn_id="lakebase_default", table="shop.orders", column_mapping={"id": {"min": {"geq_to": 1}}}
    ),
}
STATES = [TaskInstanceState.RUNNING, TaskInstanceState.SUCCESS, TaskInstanceState.FAILED]


def extract(task: Any, state: TaskInstanceState) -> Any:
    """Return what Airflow's OpenLineage provider gets told of a task."""
    return ExtractorManager().extract_metadata(
        SimpleNamespace(run_id="today"), task, task_instance_state=state, task_instance=None
    )


def names(datasets: list[Any], emulator: LakebaseEmulator) -> list[str]:
    host = emulator.workspace_url.removeprefix("http://")
    project = f"lakebase://{host}/demo/"
    return [
        f"{each.namespace}:{each.name}".replace(f"databricks://{host}:", "unity:")
        .removeprefix(project)
        .removeprefix("production:databricks_postgres.")
        for each in datasets
    ]


@pytest.fixture
def asks_nothing(emulator: LakebaseEmulator) -> Callable[[], None]:
    """An endpoint that sleeps, and a check that since then nobody asked for anything."""
    emulator.suspend()
    requests, logins = len(emulator.requests), len(emulator.logins)

    def check() -> None:
        assert emulator.requests[requests:] == []
        assert emulator.logins[logins:] == []
        assert emulator.state == "IDLE"

    return check


@pytest.mark.parametrize("state", STATES, ids=lambda state: str(state.value))
@pytest.mark.parametrize("name", OWN)
def test_each_operator_tells_inputs_and_outputs_and_asks_nothing(
    name: str, state: TaskInstanceState, emulator: LakebaseEmulator, asks_nothing: Callable[[], None]
):
    task, inputs, outputs = OWN[name]
    told = extract(task, state)
    assert sorted(names(told.inputs, emulator)) == inputs
    assert names(told.outputs, emulator) == outputs
    assert "confidential" not in repr(told)
    asks_nothing()


@pytest.mark.parametrize("state", STATES, ids=lambda state: str(state.value))
@pytest.mark.parametrize("name", OTHERS)
def test_common_sqls_own_operators_tell_nothing_rather_than_wake_it(
    name: str, state: TaskInstanceState, asks_nothing: Callable[[], None]
):
    told = extract(OTHERS[name], state)
    assert (told.inputs, told.outputs) == ([], [])
    asks_nothing()


def test_a_sync_tells_the_source_that_the_workspace_has_told(emulator: LakebaseEmulator):
    task = LakebaseSyncTableOperator(task_id="sync", synced_table="lake.shop.orders")
    spec, status = {"source_table_full_name": "main.gold.orders"}, {"project": "projects/demo"}
    task._synced = [SyncedTable.of("synced_tables/lake.shop.orders", {"spec": spec, "status": status})]
    told = extract(task, TaskInstanceState.SUCCESS)
    assert names(told.inputs, emulator) == ["unity:main.gold.orders"]
    assert names(told.outputs, emulator) == ["shop.orders"]


def test_the_check_would_see_a_session(emulator: LakebaseEmulator, asks_nothing: Callable[[], None], hook: Any):
    hook.run("SELECT 1")
    with pytest.raises(AssertionError):
        asks_nothing()


def test_with_a_host_in_the_connection_the_namespace_is_the_servers(
    emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch
):
    fields = json.loads(emulator.connections["lakebase_default"])
    fields["extra"]["pg_host"] = "EP-1.database.eu.cloud.databricks.com"
    fields["port"] = 5432
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_HOSTED", json.dumps(fields))
    task = LakebaseSQLOperator(task_id="sql", lakebase_conn_id="lakebase_hosted", sql="SELECT * FROM shop.orders")
    (told,) = extract(task, TaskInstanceState.RUNNING).inputs
    expected = ("postgres://ep-1.database.eu.cloud.databricks.com:5432", "databricks_postgres.shop.orders")
    assert (told.namespace, told.name) == expected


def test_a_load_that_was_done_tells_its_columns_and_rows(emulator: LakebaseEmulator, hook: Any, tmp_path: Any):
    hook.run("DROP SCHEMA IF EXISTS lineage CASCADE; CREATE SCHEMA lineage; CREATE TABLE lineage.t (id int, note text)")
    (tmp_path / "t.csv").write_text("id,note\n1,secret note\n2,\n")
    task = LakebaseLoadOperator(task_id="load", source=str(tmp_path / "t.csv"), table="lineage.t", exactly_once=False)
    task.execute({})
    (output,) = extract(task, TaskInstanceState.SUCCESS).outputs
    assert [(field.name, field.type) for field in output.facets["schema"].fields] == [
        ("id", "integer"),
        ("note", "text"),
    ]
    assert output.outputFacets["outputStatistics"].rowCount == 2


def test_columns_are_traced_where_the_statement_says_them(emulator: LakebaseEmulator):
    sql = "CREATE TABLE shop.totals AS SELECT day, sum(price) AS total FROM shop.orders GROUP BY day"
    (output,) = extract(LakebaseSQLOperator(task_id="sql", sql=sql), TaskInstanceState.SUCCESS).outputs
    traced = {
        column: [(each.name, each.field) for each in fields.inputFields]
        for column, fields in output.facets["columnLineage"].fields.items()
    }
    orders = "databricks_postgres.shop.orders"
    assert traced == {"day": [(orders, "day")], "total": [(orders, "price")]}


def test_a_transfer_names_the_tables_of_another_server_without_connecting_to_it(
    emulator: LakebaseEmulator, asks_nothing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f"postgresql://reader:secret@127.0.0.1:{port}/sales")
        task = SqlToLakebaseOperator(
            task_id="transfer", source_conn_id="warehouse", sql="SELECT id FROM orders", table="shop.orders"
        )
        told = extract(task, TaskInstanceState.RUNNING)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert names(told.inputs, emulator) == [f"postgres://127.0.0.1:{port}:sales.public.orders"]
    assert names(told.outputs, emulator) == ["shop.orders"]
    asks_nothing()


def test_a_long_text_is_not_parsed(asks_nothing: Callable[[], None]):
    values = ", ".join(f"({number})" for number in range(200_000))
    started_at = time.thread_time()
    told = extract(
        LakebaseSQLOperator(task_id="sql", sql=f"INSERT INTO shop.t VALUES {values}"), TaskInstanceState.RUNNING
    )
    assert time.thread_time() - started_at < 5
    assert told.outputs == []
    asks_nothing()


@pytest.mark.parametrize(
    "piece",
    ["(1), ", "/* a */\n", "1+", "a||", ";", "(", "--", '"a', ", a", "FROM a.", "JOIN a ", "WITH ", "%(", "/*", "x, "],
)
def test_a_text_as_long_as_is_parsed_holds_a_task_for_a_moment(piece: str):
    text = "SELECT 1 " + piece * ((MAX_CHARACTERS - 20) // len(piece)) + "1"
    started_at = time.thread_time()
    extract(LakebaseSQLOperator(task_id="sql", sql=text, parameters={"a": 1}), TaskInstanceState.RUNNING)
    assert time.thread_time() - started_at < 5


@pytest.mark.parametrize(
    ("sql", "read", "written"),
    [
        ("WITH c AS (SELECT * FROM t) SELECT a FROM C", [], []),
        ("WITH r(a) AS (SELECT 1), z AS (SELECT a FROM s.w) SELECT z.a FROM r, z", ["s.w"], []),
        ("SELECT date(d) FROM date", ["public.date"], []),
        ("SELECT a.x, y FROM s.a JOIN s.b USING (i)", ["s.a", "s.b"], []),
        ("INSERT INTO s.o SELECT a.x, b.y FROM s.a JOIN s.b USING (i)", ["s.a", "s.b"], ["s.o"]),
        ("SELECT x FROM s.f(1)", [], []),
        ("SELECT a FROM ONLY t", ["public.t"], []),
        ("UPDATE a SET x = b.y FROM b WHERE a.i = b.i", ["public.b"], ["public.a"]),
        ("CREATE /* not */ TEMP TABLE x AS SELECT a FROM t; INSERT INTO y SELECT a FROM x", ["public.t"], ["public.y"]),
        ("CREATE OR REPLACE TEMP VIEW x AS SELECT 1", [], []),
        ("-- nothing but a comment", [], []),
    ],
)
def test_what_is_no_table_of_the_database_is_not_reported(
    emulator: LakebaseEmulator, sql: str, read: list[str], written: list[str]
):
    told = extract(LakebaseSQLOperator(task_id="sql", sql=sql), TaskInstanceState.SUCCESS)
    assert (names(told.inputs, emulator), names(told.outputs, emulator)) == (read, written)


def test_sql_that_is_not_understood_is_quoted_in_no_error():
    told = extract(LakebaseSQLOperator(task_id="sql", sql="CREATE USER x PASSWORD 'hidden'"), TaskInstanceState.RUNNING)
    assert told.run_facets["extractionError"].failedTasks == 1
    assert "hidden" not in repr(told.run_facets)


@pytest.mark.parametrize(
    "path", ["zip://a.csv::s3://KEY:hidden@bucket/k", "https:/host/x?sig=hidden", "s3://KEY:hid/den@bucket/k", None, ""]
)
def test_a_file_that_may_have_a_secret_in_its_name_is_not_named(path: Any):
    task = LakebaseExportOperator(task_id="export", table="shop.orders", destination=path)
    assert extract(task, TaskInstanceState.RUNNING).outputs == []


def test_user_password_and_query_of_a_url_are_left_out(emulator: LakebaseEmulator):
    task = LakebaseExportOperator(task_id="export", table="t", destination="s3://KEY:hidden@bucket/k.csv?sig=hidden")
    assert names(extract(task, TaskInstanceState.RUNNING).outputs, emulator) == ["s3://bucket:k.csv"]


def test_sql_that_is_none_and_a_connection_that_is_none_cost_no_task(emulator: LakebaseEmulator):
    assert extract(LakebaseSQLOperator(task_id="sql", sql="SELEKT ) FROM ("), TaskInstanceState.RUNNING).outputs == []
    task = LakebaseSQLOperator(task_id="sql", lakebase_conn_id="no_such", sql="SELECT * FROM shop.orders")
    told = extract(task, TaskInstanceState.RUNNING)
    assert (told.inputs, told.outputs) == ([], [])


def test_parameters_of_default_args_are_kept_elsewhere_too():
    with DAG("defaults", schedule=None, default_args={"parameters": PARAMETERS}):
        task = LakebaseSQLOperator(task_id="sql", sql="SELECT %(day)s")
    assert task.parameters is None
    assert task.sql_parameters == PARAMETERS


def test_no_operator_keeps_parameters_where_the_provider_copies_them_from():
    sensor = LakebaseQuerySensor(task_id="sensor", sql="SELECT %(day)s", parameters=PARAMETERS)
    for task in (sensor, *(task for task, _, _ in OWN.values())):
        assert getattr(task, "parameters", None) is None
