"""Types, where Dagster is installed: the ordinary environment leaves this part of the package out."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURATION = """
[mypy]
strict = True

[mypy-pyarrow.*]
ignore_missing_imports = True
"""


@pytest.mark.long  # most of a minute, for the types of Dagster
def test_the_types_are_right(tmp_path: Path):
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "-p", "airflow_provider_lakebase.dagster"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
