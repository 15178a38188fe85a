"""The README says what is so: its code compiles, its fields, names and errors are those of the code."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_lakebase.causes import POSTGRES_CAUSES, WORKSPACE_CAUSES
from airflow_provider_lakebase.fields import EXTRA_FIELDS

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
AIRFLOW_2 = importlib.import_module("airflow").__version__.startswith("2.")
PYTHON_BLOCKS = [
    code
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    if not (AIRFLOW_2 and "AssetWatcher" in code)  # which Airflow 3 brings
]


def error_table() -> str:
    lines = ["| text | meaning | retried while opening | what to do |", "| --- | --- | --- | --- |"]
    for cause in POSTGRES_CAUSES + WORKSPACE_CAUSES:
        lines.append(f"| `{cause.example}` | {cause.meaning} | {cause.retry.value} | {cause.remedy} |")
    return "\n".join(lines)


@pytest.mark.parametrize("code", PYTHON_BLOCKS)
def test_a_code_block_runs(code: str):
    if AIRFLOW_2:
        code = code.replace("from airflow.sdk import DAG", "from airflow import DAG")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_field_of_the_connection_is_in_the_table():
    table = README.split("## The connection")[1].split("All but the first five")[0]
    for name in (*EXTRA_FIELDS, "options"):
        assert f"`{name}`" in table


def test_every_class_it_names_can_be_imported():
    named = re.findall(r"\| `([\w.]+)\.(Lakebase\w+)` \|", README)
    assert len(named) >= 5
    for module, name in named:
        assert hasattr(importlib.import_module(f"airflow_provider_lakebase.{module}"), name)


def test_every_file_it_links_to_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) >= 4
    for link in links:
        assert (REPOSITORY / link).exists(), link


def test_the_error_table_is_the_one_of_the_code():
    table = README.split("<!-- errors: checked against causes.py -->\n")[1].split("<!-- end of errors -->")[0].strip()
    assert table == error_table(), f"Put this table into README.md:\n{error_table()}"


def test_the_first_screen_is_promise_install_connection_dag_and_commands():
    first = "\n".join(README.splitlines()[:60])
    for part in ("scripts/demo", "scripts/test", "pip install .", "AIRFLOW_CONN_LAKEBASE_DEFAULT", "with DAG("):
        assert part in first
