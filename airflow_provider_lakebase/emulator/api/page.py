"""The page that shows the emulator in a browser. It reads and changes everything through the control API."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
# Nothing from elsewhere, and no frame of another page, which could lead clicks to its buttons.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
