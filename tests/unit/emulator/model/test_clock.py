"""The emulator's clock may stand still and jump; it remembers at which real time it showed what."""

from __future__ import annotations

import math
import time

import pytest

from airflow_provider_lakebase.emulator.model.clock import ObservedClock


class Times:
    """Both clocks, moved by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown, self.real = 100.0, 5000.0
        self.clock = ObservedClock(lambda: self.shown)
        monkeypatch.setattr(time, "time", lambda: self.real)

    def observe(self, *, shown: float = 0.0, real: float = 0.0) -> None:
        self.shown += shown
        self.real += real
        self.clock()


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


def test_moment_that_has_not_passed_has_no_real_time_yet(times: Times) -> None:
    times.observe()
    assert times.clock.real_time(100.0) == math.inf


def test_clock_that_keeps_pace_is_a_sum(times: Times) -> None:
    for _ in range(10):
        times.observe(shown=1, real=1)
    assert times.clock.real_time(104.5) == 5004.5
    assert times.clock.at_real_time(5004.5) == 104.5
    # Also before it was first observed.
    assert times.clock.real_time(90.0) == 4990.0


def test_moment_of_a_clock_that_stood_is_the_last_one(times: Times) -> None:
    times.observe()
    times.observe(real=30)
    times.observe(shown=60, real=5)
    assert times.clock.real_time(100.0) == 5030.0
    assert times.clock.at_real_time(5020.0) == 100.0


def test_moment_within_a_jump_is_just_before_it(times: Times) -> None:
    times.observe()
    times.observe(shown=3600, real=2)
    assert 5001.9 < times.clock.real_time(1900.0) < 5002.0


def test_clock_that_goes_back_is_taken_to_stand(times: Times) -> None:
    times.observe()
    times.observe(shown=-50, real=10)
    times.observe(shown=60, real=1)
    assert times.clock.real_time(100.0) == 5010.0


def test_stretches_are_few(times: Times) -> None:
    for _ in range(1000):
        times.observe(shown=1, real=1)
    for _ in range(1000):
        times.observe(real=1)
    assert len(times.clock._stretches) <= 2
