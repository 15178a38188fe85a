"""The README is one screen, and what it says is so."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
AIRFLOW_2 = importlib.import_module("airflow").__version__.startswith("2.")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_a_code_block_runs(code: str):
    if AIRFLOW_2:
        code = code.replace("from airflow.sdk import DAG", "from airflow import DAG")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("code", re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
def test_a_command_is_one(code: str):
    result = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    for script in re.findall(r"^(scripts/\w+)", code, re.MULTILINE):
        assert (REPOSITORY / script).exists()


def test_its_connection_is_read():
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

    (text,) = re.findall(r"AIRFLOW_CONN_LAKEBASE_DEFAULT='(.*?)'", README, re.DOTALL)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", text)
        assert str(LakebaseHook().settings.endpoint) == json.loads(text)["extra"]["endpoint"]


def test_every_file_it_links_to_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) >= 10
    for link in links:
        assert (REPOSITORY / link).exists(), link


def test_it_is_one_screen_of_promise_install_connection_dags_and_commands():
    assert len(README.splitlines()) <= 60
    assert max(map(len, README.splitlines())) <= 130
    for part in ("scripts/demo", "scripts/test", "pip install .", "AIRFLOW_CONN_LAKEBASE_DEFAULT", "with DAG("):
        assert part in README
