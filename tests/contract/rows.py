"""Collect the beliefs of this folder in a table; ``python tests/contract/rows.py`` writes it to README.md."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- rows: written by rows.py -->\n", "<!-- end of rows -->\n"


def rows() -> list[tuple[str, ...]]:
    """Return belief, certainty, source and place of each test; raise ``ValueError`` for a test without a belief."""
    found = []
    for path in sorted(FOLDER.glob("test_*.py")):
        if path.name == "test_readme.py":
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.append(_row(path, node))
    return found


def _row(path: Path, test: ast.FunctionDef) -> tuple[str, ...]:
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.belief":
            named = {keyword.arg: str(ast.literal_eval(keyword.value)) for keyword in mark.keywords}
            text = str(ast.literal_eval(mark.args[0]))
            live = "place" in [argument.arg for argument in test.args.args]
            return text, named["sure"], named["source"], "both" if live else "emulator"
    raise ValueError(f"{path.name}: {test.name} states no belief")


def table() -> str:
    """Return the rows as Markdown."""
    lines = ["| We believe that … | sure | source | runs on |", "| --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(field.replace("|", "\\|") for field in row) + " |" for row in rows()]
    return "\n".join(lines) + "\n"


def readme() -> str:
    """Return README.md with the current table."""
    text = (FOLDER / "README.md").read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(readme())
