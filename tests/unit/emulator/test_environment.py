from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_lakebase.emulator.environment import as_dotenv, as_json, as_shell, no_proxy

VALUES = {"PGPORT": "5432", "AIRFLOW_CONN_X": '{"host": "http://127.0.0.1:1", "password": "$HOME `id`"}'}


@pytest.mark.parametrize("write", [as_shell, as_dotenv])
def test_a_shell_reads_what_was_meant(write):
    dump = "import json, os; print(json.dumps({name: os.environ.get(name) for name in ('PGPORT', 'AIRFLOW_CONN_X')}))"
    script = f'set -a\n{write(VALUES)}\nexec {sys.executable} -c "{dump}"'
    assert json.loads(subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout) == VALUES


def test_json():
    assert json.loads(as_json(VALUES)) == VALUES


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"NO_PROXY": "127.0.0.1,localhost"}),
        ({"NO_PROXY": "corp.example, localhost"}, {"NO_PROXY": "corp.example,localhost,127.0.0.1"}),
        ({"no_proxy": "corp.example"}, {"no_proxy": "corp.example,127.0.0.1,localhost"}),
    ],
)
def test_the_emulator_is_added_to_the_hosts_that_need_no_proxy(before, after):
    assert no_proxy(before) == after
