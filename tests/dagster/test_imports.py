"""Dagster's side of the package stands beside Airflow's: neither loads the other."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["airflow_provider_lakebase.dagster"])
def test_nothing_of_airflow_is_loaded(module: str):
    program = f"import {module}, sys; print([name for name in sys.modules if name.partition('.')[0] == 'airflow'])"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_the_resource_needs_no_arrow():
    program = (
        "import sys; sys.modules['pyarrow'] = None; from airflow_provider_lakebase.dagster import LakebaseResource"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
