"""README.md shows the current table of beliefs."""

from __future__ import annotations

import runpy
from pathlib import Path

SURE = {"documented", "seen in the field", "inferred"}
ROWS = runpy.run_path(str(Path(__file__).with_name("rows.py")))


def test_readme_shows_the_rows() -> None:
    readme = Path(__file__).with_name("README.md").read_text()
    assert readme == ROWS["readme"](), "run: python tests/contract/rows.py"


def test_every_row_says_how_sure_it_is() -> None:
    assert {row[1] for row in ROWS["rows"]()} <= SURE
