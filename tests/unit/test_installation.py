"""What is tested is what is meant: the sources beside the tests or, where there are none, an installed wheel."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import airflow_provider_lakebase

REPOSITORY = Path(__file__).parents[2]
SOURCES = REPOSITORY / "airflow_provider_lakebase"
PACKAGE = Path(airflow_provider_lakebase.__file__).parent


def test_the_package_is_the_one_beside_the_tests_or_an_installed_wheel():
    if SOURCES.exists():
        assert PACKAGE == SOURCES
        return
    assert PACKAGE == Path(sysconfig.get_path("purelib"), "airflow_provider_lakebase")
    distribution = importlib.metadata.distribution("airflow-provider-lakebase")
    origin = json.loads(distribution.read_text("direct_url.json") or "")
    assert origin["url"].endswith(".whl")
    assert "archive_info" in origin


def test_a_program_that_a_test_starts_imports_the_same_package():
    program = "import airflow_provider_lakebase; print(airflow_provider_lakebase.__file__)"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert output.stdout.strip() == str(PACKAGE / "__init__.py")


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
