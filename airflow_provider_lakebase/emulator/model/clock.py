"""Relate the emulator's clock, which a test may stop and move, to real time, by which PostgreSQL dates its WAL."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

_TOLERANCE = 0.001


@dataclass(frozen=True)
class _Stretch:
    """A stretch of time in which the clock stood still or kept pace with real time."""

    clock: float
    real: float
    last_clock: float
    last_real: float

    def keeps_pace(self, clock: float, real: float) -> bool:
        """Return whether the clock has moved as far as real time since the stretch began."""
        return abs((clock - self.clock) - (real - self.real)) < _TOLERANCE


class ObservedClock:
    """A clock that never goes back and remembers at which real time it showed which time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._stretches: list[_Stretch] = []

    def __call__(self) -> float:
        """Return the clock's time in seconds since 1970, and remember it."""
        with self._lock:
            now, real = self._clock(), time.time()
            self._remember(max(now, self._stretches[-1].last_clock) if self._stretches else now, real)
            return now

    def _remember(self, now: float, real: float) -> None:
        if self._stretches:
            last = self._stretches[-1]
            stood = now == last.clock
            if stood or (last.keeps_pace(last.last_clock, last.last_real) and last.keeps_pace(now, real)):
                self._stretches[-1] = replace(last, last_clock=now, last_real=max(real, last.last_real))
                return
        self._stretches.append(_Stretch(now, real, now, real))

    def real_time(self, moment: float) -> float:
        """Return the last real time at which the clock showed at most ``moment``; infinity if it shows no more yet.

        Between two observations the clock is taken to keep pace with real time, and then to jump.
        """
        with self._lock:
            after = next((each for each in self._stretches if each.last_clock > moment), None)
            before = next((each for each in reversed(self._stretches) if each.clock <= moment), None)
        if after is None:
            return math.inf
        if before is None:
            return after.real - (after.clock - moment)
        if before is after:
            return before.real + (moment - before.clock)
        return min(before.last_real + (moment - before.last_clock), after.real - 1e-6)

    def at_real_time(self, real: float) -> float:
        """Return which time the clock showed at a real time."""
        with self._lock:
            before = next((each for each in reversed(self._stretches) if each.real <= real), None)
            first = self._stretches[0] if self._stretches else None
        if before is None:
            return first.clock - (first.real - real) if first else self()
        return min(before.clock + (real - before.real), before.last_clock)
