"""A clock for emulators."""

from __future__ import annotations

import time


class Clock:
    """Real time, which a test may set forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead
