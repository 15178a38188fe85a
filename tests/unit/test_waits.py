"""How long and how often a task waits, and whether it is deferred: wrong values are refused where it is made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_lakebase.core.workspace.specs import read_wait
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.operators.branch import LakebaseCreateBranchOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.operators.synced_table import LakebaseSyncTableOperator
from airflow_provider_lakebase.sensors.change_feed import LakebaseChangeFeedSensor
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor
from airflow_provider_lakebase.sensors.query import LakebaseQuerySensor
from airflow_provider_lakebase.sensors.synced_table import LakebaseSyncedTableSensor
from airflow_provider_lakebase.triggers.change_feed import LakebaseChangeFeedSensorTrigger
from airflow_provider_lakebase.triggers.endpoint import LakebaseEndpointTrigger
from airflow_provider_lakebase.triggers.query import LakebaseQuerySensorTrigger, LakebaseQueryTrigger
from airflow_provider_lakebase.triggers.synced_table import (
    LakebaseSyncedTableSensorTrigger,
    LakebaseSyncedTableTrigger,
)

TASKS: list[tuple[Any, dict[str, Any]]] = [
    (LakebaseCreateBranchOperator, {"ttl": 60}),
    (LakebaseSyncTableOperator, {"synced_table": "lake.app.t"}),
    (LakebaseSQLOperator, {"sql": "SELECT 1"}),
    (LakebaseEndpointSensor, {}),
    (LakebaseQuerySensor, {"sql": "SELECT 1"}),
    (LakebaseSyncedTableSensor, {"synced_table": "lake.app.t", "version": 1}),
    (LakebaseChangeFeedSensor, {"change_feed": "feed", "tables": ["t"]}),
]
TRIGGERS: list[tuple[Any, dict[str, Any]]] = [
    (LakebaseEndpointTrigger, {}),
    (LakebaseQuerySensorTrigger, {"sql": "SELECT 1"}),
    (LakebaseQueryTrigger, {"sql": "SELECT id FROM t WHERE id > %(watermark)s", "watermark_column": "id"}),
    (LakebaseSyncedTableSensorTrigger, {"synced_table": "lake.app.t", "version": 1}),
    (LakebaseSyncedTableTrigger, {"synced_table": "lake.app.t"}),
    (LakebaseChangeFeedSensorTrigger, {"change_feed": "feed", "tables": ["t"], "lsn": "0/0", "began_at": 0.0}),
]
WRONG: list[Any] = [-1, 0, "-1", "soon", "", True, None, float("nan"), float("inf"), [60], timedelta(0)]


@pytest.mark.parametrize(("kind", "arguments"), TASKS)
@pytest.mark.parametrize("deferrable", ["False", "true", 1, 0])
def test_a_task_is_deferrable_or_not(kind: Any, arguments: dict[str, Any], deferrable: Any) -> None:
    with pytest.raises(LakebaseSettingsError, match=f"deferrable is {deferrable!r}. It must be True or False"):
        kind(task_id="t", deferrable=deferrable, **arguments)


@pytest.mark.parametrize("timeout", WRONG)
@pytest.mark.parametrize(("kind", "arguments"), TASKS[:2])
def test_a_change_takes_more_than_no_time(kind: Any, arguments: dict[str, Any], timeout: Any) -> None:
    with pytest.raises(LakebaseSettingsError, match="operation_timeout is"):
        kind(task_id="t", operation_timeout=timeout, **arguments)


@pytest.mark.parametrize("interval", WRONG)
@pytest.mark.parametrize(("kind", "arguments"), TRIGGERS)
def test_a_trigger_pauses_between_two_polls(kind: Any, arguments: dict[str, Any], interval: Any) -> None:
    with pytest.raises(LakebaseSettingsError, match="poll_interval is"):
        kind(**arguments, poll_interval=interval)


@pytest.mark.parametrize(("kind", "arguments"), TRIGGERS)
def test_a_trigger_takes_an_interval_as_a_task_takes_it(kind: Any, arguments: dict[str, Any]) -> None:
    assert kind(**arguments, poll_interval=timedelta(minutes=1)).serialize()[1]["poll_interval"] == 60.0


@pytest.mark.parametrize(("kind", "arguments"), TASKS[3:])
def test_a_sensor_that_is_deferred_pauses_between_two_polls(kind: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(LakebaseSettingsError, match="poke_interval is 0"):
        kind(task_id="t", deferrable=True, poke_interval=0, **arguments)
    kind(task_id="t", deferrable=False, poke_interval=0, **arguments)


@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [
        (LakebaseEndpointSensor, "wake", {}),
        (LakebaseQuerySensor, "only_when_awake", {"sql": "SELECT 1"}),
        (LakebaseSyncTableOperator, "full_refresh", {"synced_table": "lake.app.t"}),
    ],
)
def test_a_flag_is_no_text(kind: Any, name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(LakebaseSettingsError, match=f"{name} is 'False'"):
        kind(task_id="t", **{name: "False"}, **arguments)


def test_seconds_may_be_text() -> None:
    assert (read_wait("timeout", "90"), read_wait("timeout", timedelta(seconds=1.5))) == (90.0, 1.5)
