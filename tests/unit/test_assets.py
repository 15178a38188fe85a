"""Assets: how their URIs are written, and when a load emits an event."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.assets import asset_uri, convert_asset_to_openlineage, create_asset, emit_event
from airflow_provider_lakebase.assets import sanitize_uri as sanitize
from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator

URI = "lakebase://my-workspace.cloud.databricks.com/shop/main/databricks_postgres/sales/orders"


def settings_of(endpoint: str = "projects/shop/branches/main/endpoints/primary", **fields: Any) -> LakebaseSettings:
    identity = WorkspaceIdentity("https://My-Workspace.cloud.databricks.com", "oauth-m2m")
    return LakebaseSettings("c", identity, ResourceName.parse(endpoint), SessionSettings(**fields))


@pytest.mark.parametrize("endpoint", ["projects/shop/branches/main", "projects/shop/branches/main/endpoints/reader"])
def test_every_endpoint_of_a_branch_has_the_same_assets(endpoint: str):
    assert asset_uri(settings_of(endpoint), "sales", "orders") == URI


def test_a_host_of_the_connections_changes_no_uri():
    assert asset_uri(settings_of(pg_host="ep-1.database.cloud.databricks.com"), "sales", "orders") == URI


def test_a_native_login_knows_no_workspace_and_so_no_asset():
    settings = LakebaseSettings("c", None, None, SessionSettings(pg_host="h", password="p", user="u"))
    assert asset_uri(settings, "sales", "orders") is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (URI, URI),
        (f"{URI}/", URI),
        ("LAKEBASE://My-Workspace.CLOUD.databricks.com:443/shop/main/databricks_postgres/sales/orders", URI),
        ("lakebase://h:8443/shop/main/d/s/t", "lakebase://h:8443/shop/main/d/s/t"),
        ("lakebase://[::1]:80/shop/main/d/s/t", "lakebase://[::1]:80/shop/main/d/s/t"),
        ("lakebase://h/shop/main/d/%53/Tab%6ce", "lakebase://h/shop/main/d/S/Table"),
        ("lakebase://h/shop/main/d/s/a%2fb%20c%C3%A9", "lakebase://h/shop/main/d/s/a%2Fb%20c%C3%A9"),
    ],
)
def test_airflow_writes_every_form_of_a_uri_alike(written: str, meant: str):
    assert Asset(uri=written).uri == meant
    assert Asset(uri=meant).uri == meant


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("lakebase://u@h/p/b/d/s/t", "must not contain a user or password"),
        ("lakebase://u:dose123@h/p/b/d/s/t", "must not contain a user or password"),
        ("lakebase://h/p/b/d/s/t?x=1", "must not contain a query"),
        ("lakebase://h/p/b/d/s/t#x", "or a fragment"),
        ("lakebase://h/p/b/d/s", "does not name a table"),
        ("lakebase://h/p/b/d/s/t/u", "does not name a table"),
        ("lakebase://h/p/b/d//t", "part of an asset's URI is empty"),
        ("lakebase:///p/b/d/s/t", "part of an asset's URI is empty"),
        ("lakebase://h/Shop/b/d/s/t", "project of an asset's URI is malformed: 'Shop'"),
        ("lakebase://h/p/b_1/d/s/t", "branch of an asset's URI is malformed: 'b_1'"),
        ("lakebase://h:x/p/b/d/s/t", "malformed port"),
    ],
)
def test_a_uri_that_names_no_table_is_refused_with_the_shape_it_should_have(uri: str, words: str):
    from urllib.parse import urlsplit

    with pytest.raises(LakebaseSettingsError, match=words) as caught:
        sanitize(urlsplit(uri))
    assert isinstance(caught.value, ValueError)
    assert "lakebase://<workspace host>/<project>/<branch>/<database>/<schema>/<table>" in str(caught.value)
    assert "dose123" not in str(caught.value)


def test_an_asset_is_made_from_names_as_they_are():
    asset = create_asset(host="H", project="shop", branch="main", table="Größe/1", extra={"owner": "me"})
    assert asset.uri == "lakebase://h/shop/main/databricks_postgres/public/Gr%C3%B6%C3%9Fe%2F1"
    assert asset.extra == {"owner": "me"}
    dataset = convert_asset_to_openlineage(asset, None)
    assert (dataset.namespace, dataset.name) == ("lakebase://h/shop/main", "databricks_postgres.public.Größe/1")


def test_a_hook_with_a_host_of_its_own_names_datasets_by_it():
    hook = SimpleNamespace(settings=settings_of(pg_host="Ep-1.example.com"))
    dataset = convert_asset_to_openlineage(Asset(uri=URI), hook)
    assert (dataset.namespace, dataset.name) == (
        "postgres://ep-1.example.com:5432",
        "databricks_postgres.sales.orders",
    )


def test_the_module_is_as_light_as_airflow_needs_it():
    program = "import airflow_provider_lakebase.assets, sys; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# ── events ──


class Events(dict[Any, Any]):
    """Stands for Airflow's accessors, which ask the API server for what is only referred to."""

    def __init__(self, error: str = "") -> None:
        super().__init__()
        self.error = error
        self.asked: list[Any] = []

    def __missing__(self, asset: Any) -> Any:
        if self.error:
            raise RuntimeError(self.error)
        if not isinstance(asset, Asset):
            self.asked.append(asset)
        key = SimpleNamespace(name="orders", uri=URI)
        return self.setdefault(asset, SimpleNamespace(extra={"kept": True}, key=key))


def load(**arguments: Any) -> LakebaseLoadOperator:
    return LakebaseLoadOperator(task_id="load", source="f.csv", table="sales.orders", **arguments)


def test_an_asset_that_a_dag_names_becomes_an_outlet_of_the_running_task_and_its_event_has_the_rows():
    operator, events = load(outlets=["kept"]), Events()
    emit_event(operator, {"outlet_events": events}, URI, {"rows": 3})
    assert operator.outlets[0] == "kept"
    assert operator.outlets[1].uri == URI
    assert events.asked == []  # for an asset that no DAG names, the answer would be an error in the log
    assert [event.extra for event in events.values()] == [{"kept": True, "rows": 3}]


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
