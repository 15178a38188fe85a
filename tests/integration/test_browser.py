"""Airflow's web UI as a person sees it: the connection form, the Test button, a run of the example DAG, its links.

Real Chromium, or Chrome, in front of a whole Airflow. ``scripts/pictures`` keeps what it looked
like for the documentation.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _browser import keep_picture, open_page
from _stack import Stack, wait_until
from playwright.sync_api import Locator, Page, expect

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[2]
LOGIN = ("admin", "only for this test")


@pytest.fixture(scope="module")
def workspace() -> Iterator[LakebaseEmulator]:
    """An emulator whose service principal has its role."""
    with LakebaseEmulator() as emulator, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_LAKEBASE_ADMIN", emulator.connections["lakebase_admin"])
        request = RoleRequest(emulator.service_principal.client_id, create_on_database=True)
        LakebaseHook("lakebase_admin").bootstrap_role(request)
        yield emulator


@pytest.fixture(scope="module")
def stack(workspace: LakebaseEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An Airflow with the example DAGs, the owner's connection, and none of the service principal's."""
    paused = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
    stack = Stack(tmp_path_factory.mktemp("airflow") / "home", paused, REPOSITORY / "dags_examples", LOGIN)
    try:
        stack.start()
        stack.import_connections({"lakebase_admin": workspace.connections["lakebase_admin"]})
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    """A browser that has logged in."""
    with open_page(1440, 810) as page:
        page.goto(stack.url)
        page.get_by_label("Username").fill(LOGIN[0])
        page.locator("input[type=password]").fill(LOGIN[1])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("link", name="Dags").first).to_be_visible()
        yield page


@pytest.fixture(scope="module")
def fields(workspace: LakebaseEmulator) -> dict[str, Any]:
    """What a person knows: client ID, secret, workspace URL and endpoint; and a port, since it is not 5432 here."""
    return json.loads(workspace.connections["lakebase_default"])


def open_extras(dialog: Locator) -> None:
    dialog.get_by_role("button", name="Extra Fields", exact=True).click()


def row_of(page: Page, conn_id: str) -> Locator:
    return page.get_by_role("row").filter(has_text=conn_id)


def press_test(page: Page, stack: Stack, conn_id: str = "lakebase_default") -> Locator:
    """Press the Test button of a connection and return the toast that it answers with."""
    page.goto(f"{stack.url}/connections")
    row_of(page, conn_id).get_by_role("button", name="Test Connection").click()
    toast = page.locator("[data-scope=toast][data-part=root]").filter(has_text="Test Connection")
    expect(toast).to_be_visible()
    page.wait_for_timeout(500)  # it slides in
    return toast


def change(page: Page, stack: Stack, **values: str) -> None:
    """Edit standard fields of the connection in the form."""
    page.goto(f"{stack.url}/connections")
    row_of(page, "lakebase_default").get_by_role("button", name="Edit Connection").click()
    dialog = page.get_by_role("dialog")
    for name, value in values.items():
        dialog.locator(f"[name={name}]").fill(value)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()


def see_graph(page: Page) -> None:
    """Wait until the graph has moved into its place."""
    expect(page.locator(".react-flow__node").filter(has_text="report")).to_be_visible()
    page.wait_for_timeout(1500)


def test_a_person_adds_the_connection_by_the_form(page: Page, stack: Stack, fields: dict[str, Any]):
    page.goto(f"{stack.url}/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    dialog = page.get_by_role("dialog")
    dialog.locator("[name=connection_id]").fill("lakebase_default")
    dialog.get_by_role("combobox").first.click()
    page.keyboard.type("Databricks Lakebase")
    page.keyboard.press("Enter")
    for label in ("Workspace URL", "Client ID", "OAuth secret", "Postgres port", "Database"):
        expect(dialog.get_by_text(label, exact=True)).to_be_visible()
    expect(dialog.locator("[name=password]")).to_have_attribute("type", "password")
    keep_picture(dialog, "connection-form")
    dialog.locator("[name=host]").fill(fields["host"])
    dialog.locator("[name=login]").fill(fields["login"])
    dialog.locator("[name=password]").fill(fields["password"])
    dialog.locator("[name=port]").fill(str(fields["port"]))
    open_extras(dialog)
    dialog.locator("[name=element_endpoint]").fill(fields["extra"]["endpoint"])
    keep_picture(page, "connection-form-extras")
    for field, choice in (("auth_type", "oauth-m2m: client ID and OAuth secret"), ("sslmode", "require: encrypt")):
        dialog.locator(f"#element_{field}").click()
        page.get_by_role("option", name=choice).click()
    dialog.get_by_role("button", name="Save").click()
    expect(row_of(page, "lakebase_default")).to_be_visible()


def test_the_test_button_is_green(page: Page, stack: Stack, fields: dict[str, Any]):
    toast = press_test(page, stack)
    expect(toast).to_contain_text("Test Connection Successful")
    expect(toast).to_contain_text(f"Connected to database databricks_postgres as role {fields['login']}")
    keep_picture(page, "test-passed")


def test_a_broken_secret_turns_it_red_and_names_the_stage(page: Page, stack: Stack, fields: dict[str, Any]):
    change(page, stack, password="no-longer-the-secret")
    toast = press_test(page, stack)
    expect(toast).to_contain_text("Test Connection Failed")
    expect(toast).to_contain_text("Failed at the stage 'identity'. The workspace refused the client ID and secret")
    keep_picture(page, "test-failed")
    change(page, stack, password=fields["password"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"schema": "nowhere"}, "Failed at the stage 'login'. The database does not exist"),
        ({"login": "nobody"}, "Failed at the stage 'identity'. The workspace refused the client ID and secret"),
        ({"host": "https://x.cloud.databricks.com/?o=1"}, "Failed at the stage 'settings'. Field 'Host' holds more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_broken_field_is_told_by_stage(
    page: Page, stack: Stack, fields: dict[str, Any], wrong: dict[str, str], said: str
):
    change(page, stack, **wrong)
    expect(press_test(page, stack)).to_contain_text(said)
    (name,) = wrong
    change(page, stack, **{name: str(fields.get(name) or "")})


def test_the_worker_answers_as_the_button_does(page: Page, stack: Stack, fields: dict[str, Any]):
    """Airflow 3.3 can have a worker test a connection, whose network is the one that matters."""

    def answer(password: str) -> tuple[str, str]:
        extra = json.dumps(fields["extra"])
        body = {"connection_id": "by_worker", "conn_type": "lakebase", "extra": extra, "password": password}
        body |= {name: fields[name] for name in ("host", "login", "port")}
        address = f"{stack.url}/api/v2/connections/enqueue-test"
        reply = page.request.post(address, data=body, headers=authorization)
        assert reply.ok, reply.text()
        headers = {**authorization, "airflow-connection-test-token": reply.json()["token"]}
        found: dict[str, Any] = {}

        def is_done() -> bool:
            found.update(page.request.get(address, headers=headers).json())
            return found["state"] in ("success", "failed")

        wait_until(is_done, 240, "the worker did not test the connection")
        return found["state"], found["result_message"]

    request = urllib.request.Request(
        f"{stack.url}/auth/token",
        json.dumps({"username": LOGIN[0], "password": LOGIN[1]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        authorization = {"Authorization": f"Bearer {json.load(reply)['access_token']}"}
    state, message = answer(fields["password"])
    assert (state, message[:40]) == ("success", "Connected to database databricks_postgre")
    state, message = answer("no-longer-the-secret")
    assert (state, message[:29]) == ("failed", "Failed at the stage 'identity")


def test_the_example_dag_runs_and_its_links_lead_into_the_workspace(page: Page, stack: Stack):
    page.goto(f"{stack.url}/dags/flights_etl")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    wait_until(lambda: stack.runs("flights_etl") == ["success"] or "failed" in stack.runs("flights_etl"), 400)
    assert set(stack.states("flights_etl").values()) == {"success"}
    ((run_id,),) = stack.query("SELECT run_id FROM dag_run WHERE dag_id = 'flights_etl'")
    page.goto(f"{stack.url}/dags/flights_etl/runs/{run_id}")
    expect(page.get_by_text("Success").first).to_be_visible()
    page.get_by_role("button", name="Show Graph").click()
    see_graph(page)
    keep_picture(page, "dag-graph")
    page.goto(f"{stack.url}/dags/flights_etl/runs/{run_id}/tasks/create_tables/details")
    shown = {}
    for name in ("Lakebase project", "Lakebase branch", "Lakebase SQL editor"):
        link = page.get_by_role("link", name=name)
        expect(link).to_be_visible()
        shown[name] = link.get_attribute("href") or ""
    see_graph(page)
    keep_picture(page, "task-links")
    titles = {}
    for name, address in shown.items():
        page.goto(address)
        titles[name] = page.get_by_role("heading").inner_text()
    assert titles == {
        "Lakebase project": "projects/demo",
        "Lakebase branch": "projects/demo/branches/production",
        "Lakebase SQL editor": "SQL editor of projects/demo/branches/production",
    }
    assert re.search(r"\?database=databricks_postgres$", shown["Lakebase SQL editor"])
