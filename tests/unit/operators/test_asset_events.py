"""When a load emits an event for its asset."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.operators._asset_events import emit_event
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator

URI = "lakebase://my-workspace.cloud.databricks.com/shop/main/databricks_postgres/sales/orders"


class Events:
    """Stands for Airflow's accessors, which ask the API server for what is only referred to."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.asked: list[Any] = []
        self.emitted: dict[str, Any] = {}

    def __getitem__(self, asset: Any) -> Any:
        if self.error:
            raise RuntimeError(self.error)
        if not isinstance(asset, Asset):
            self.asked.append(asset)
        # Not by the asset itself, which Airflow 3.1 cannot hash.
        key = SimpleNamespace(name="orders", uri=URI)
        return self.emitted.setdefault(repr(asset), SimpleNamespace(extra={"kept": True}, key=key))


def load(**arguments: Any) -> LakebaseLoadOperator:
    return LakebaseLoadOperator(task_id="load", source="f.csv", table="sales.orders", **arguments)


def test_an_asset_that_a_dag_names_becomes_an_outlet_of_the_running_task_and_its_event_has_the_rows():
    operator, events = load(outlets=["kept"]), Events()
    emit_event(operator, {"outlet_events": events}, URI, {"rows": 3})
    assert operator.outlets[0] == "kept"
    assert operator.outlets[1].uri == URI
    assert events.asked == []  # for an asset that no DAG names, the answer would be an error in the log
    assert [event.extra for event in events.emitted.values()] == [{"kept": True, "rows": 3}]


@pytest.mark.parametrize("name", [None, "orders"])
def test_an_asset_that_the_author_declared_is_emitted_once(name: str | None):
    declared = Asset(uri=URI) if name is None or not AIRFLOW_V_3_0_PLUS else Asset(name=name, uri=URI)
    operator = load(outlets=[declared])
    emit_event(operator, {"outlet_events": Events()}, URI, {"rows": 3})
    assert operator.outlets == [declared]


def test_an_alias_of_the_authors_that_is_named_alike_does_not_stand_for_the_asset():
    operator = load(outlets=[AssetAlias("orders")])
    emit_event(operator, {"outlet_events": Events()}, URI, {"rows": 3})
    assert len(operator.outlets) == 2


if AIRFLOW_V_3_0_PLUS:  # Airflow 2 has neither references nor names

    def test_an_asset_that_the_author_refers_to_by_its_name_is_emitted_once():
        operator = load(outlets=[Asset.ref(name="orders")])
        emit_event(operator, {"outlet_events": Events()}, URI, {"rows": 3})
        assert operator.outlets == [Asset.ref(name="orders")]


def test_an_asset_that_cannot_be_looked_up_fails_no_load(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    operator = load()
    emit_event(operator, {"outlet_events": Events("API_SERVER_ERROR: 500")}, URI, {"rows": 3})
    assert operator.outlets == []
    output = capfd.readouterr()
    assert "no event is emitted" in output.out + output.err + caplog.text


def test_outside_of_airflow_nothing_is_emitted():
    operator = load()
    emit_event(operator, {}, URI, {"rows": 3})
    assert operator.outlets == []


def test_tasks_are_serialised_without_an_outlet_that_their_authors_did_not_give():
    with DAG("d", schedule=None) as dag:
        load()
        LakebaseLoadOperator.partial(task_id="mapped", table="t").expand(source=["a.csv", "b.csv"])
    assert [task.outlets for task in dag.tasks] == [[], []]
