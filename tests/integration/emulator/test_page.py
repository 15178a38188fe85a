"""The emulator's page in a real browser."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from _browser import keep_picture, open_page
from playwright.sync_api import Locator, Page, expect

from airflow_provider_lakebase.emulator import LakebaseEmulator

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def page(emulator: LakebaseEmulator) -> Iterator[Page]:
    with open_page(1200, 720) as page:
        page.goto(emulator.workspace_url)
        yield page


def endpoint(page: Page, name: str) -> Locator:
    return page.locator(f"tr[data-endpoint='{name}']")


def test_it_shows_projects_branches_endpoints_sessions_requests_and_logins(
    emulator: LakebaseEmulator, page: Page, connect: Any
):
    branch = emulator.create_branch("test-prices")
    emulator.suspend(f"{branch}/endpoints/primary")
    with connect(application_name="airflow prices.load"):
        expect(endpoint(page, emulator.endpoint)).to_contain_text("ACTIVE")
        expect(endpoint(page, f"{branch}/endpoints/primary")).to_contain_text("IDLE")
        expect(page.get_by_role("row").filter(has_text="from production")).to_contain_text("test-prices")
        expect(page.locator("#sessions")).to_contain_text("airflow prices.load")
        expect(page.locator("#requests")).to_contain_text("POST /api/2.0/postgres/credentials")
        expect(page.locator("#logins")).to_contain_text("Lakebase administrator")
        with pytest.raises(psycopg.OperationalError):
            connect(password="wrong")
        expect(page.locator("#logins .bad").first).to_be_visible()
        emulator.faults.answer("/credentials", status=429, times=2)
        expect(page.get_by_role("button", name="Clear 2 faults")).to_be_enabled()
        page.mouse.move(0, 0)
        keep_picture(page, "emulator-page")
    page.get_by_role("button", name="Clear 2 faults").click()
    expect(page.get_by_role("button", name="Clear faults")).to_be_disabled()
    assert emulator.faults.pending == []


def test_its_buttons_suspend_wake_disable_and_expire(emulator: LakebaseEmulator, page: Page, connect: Any):
    row = endpoint(page, emulator.endpoint)
    row.get_by_role("button", name="Suspend").click()
    expect(row).to_contain_text("IDLE")
    assert emulator.state == "IDLE"
    row.get_by_role("button", name="Wake").click()
    expect(row).to_contain_text("ACTIVE")
    row.get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("DISABLED")
    assert emulator.disabled
    row.get_by_role("button", name="Enable").click()
    expect(row).to_contain_text("IDLE")
    connect().close()
    page.get_by_role("button", name="Expire credentials").click()
    expect(page.get_by_role("alert")).to_have_text("")
    with pytest.raises(psycopg.OperationalError, match="not authorized"):
        connect()


def test_an_action_that_fails_says_why(emulator: LakebaseEmulator, page: Page):
    emulator.suspend()
    emulator.faults.fail_wakes("no capacity")
    row = endpoint(page, emulator.endpoint)
    row.get_by_role("button", name="Wake").click()
    expect(page.get_by_role("alert")).to_contain_text("no capacity")


def test_it_has_no_secret_loads_nothing_from_elsewhere_and_shows_names_as_text(emulator: LakebaseEmulator, page: Page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    emulator.add_principal("<img src=x onerror=document.title='run'>", identity_type="USER")
    page.reload()
    expect(endpoint(page, emulator.endpoint)).to_be_visible()
    assert all(url.startswith(emulator.workspace_url) for url in asked)
    assert page.title() == "Lakebase emulator"
    content = page.content() + page.request.get(f"{emulator.workspace_url}/_emulator/state").text()
    assert not [secret for secret in emulator.secrets if secret in content]


def test_a_page_of_another_origin_cannot_use_it(emulator: LakebaseEmulator, page: Page, tmp_path: Path):
    """The browser sends this request, and names the page that it is from."""
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    script = "url => fetch(url, {method: 'POST', mode: 'no-cors', body: '{}'}).then(() => 'sent')"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, args=(0.05,), daemon=True).start()
        page.goto(f"http://127.0.0.1:{elsewhere.server_port}/")
        emulator.enable()
        assert page.evaluate(script, f"{emulator.workspace_url}/_emulator/disable") == "sent"
        assert not emulator.disabled
        elsewhere.shutdown()
