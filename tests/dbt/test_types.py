"""What the ordinary environment cannot check for lack of Cosmos and dbt passes mypy here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = ("airflow_provider_lakebase/cosmos.py", "dbt/adapters/lakebase", "dbt/include/lakebase")


@pytest.mark.long
@pytest.mark.skipif(not (REPOSITORY / FILES[0]).exists(), reason="a wheel is tested: there are no sources here")
def test_the_adapter_and_the_mapping_pass_mypy():
    command = [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", *FILES]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
