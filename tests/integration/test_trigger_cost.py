"""What waits cost a triggerer, measured by a benchmark."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__

from airflow_provider_lakebase.emulator import LakebaseEmulator

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "triggers.py"
INTERVAL = 20.0


def load_benchmark() -> Any:
    specification = importlib.util.spec_from_file_location("triggers_benchmark", BENCHMARK)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if tuple(map(int, __version__.split(".")[:2])) >= (3, 3):  # the benchmark stands in for this version's supervisor

    @pytest.mark.long
    def test_1000_synced_tables_cost_a_triggerer_less_than_5_percent_of_a_core_and_wake_nothing() -> None:
        benchmark = load_benchmark()
        with LakebaseEmulator(wake_seconds=0) as emulator:
            figures = benchmark.measure_tables(emulator, INTERVAL)
            assert emulator.state == "IDLE"
        assert figures["fired"] == benchmark.SENSORS
        assert figures["late, s"] < 2 * INTERVAL
        # Each is polled in this time, and by default in three times as much, in which Airflow's own runner uses half a
        # percent more.
        assert figures["requests to the workspace/s"] * INTERVAL > 0.9 * benchmark.SENSORS
        assert figures["CPU, % of one core"] * INTERVAL / benchmark.TABLE_INTERVAL < 4.5
