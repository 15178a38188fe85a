"""A browser for tests: Chromium, or Chrome."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect, sync_playwright

_BROWSER: Any = {
    "executable_path": shutil.which("chromium") or shutil.which("google-chrome") or "chromium, which is not installed",
    "args": ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
}


@contextmanager
def open_page(width: int, height: int) -> Iterator[Page]:
    """Open a page of this size, whose actions and expectations time out after 60 seconds."""
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**_BROWSER)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def keep_picture(shown: Page | Locator, name: str) -> None:
    """Keep what the browser shows, if somebody wants it."""
    if folder := os.environ.get("LAKEBASE_PICTURES"):
        shown.screenshot(path=Path(folder) / f"{name}.png")
