"""Count rows and bytes of a load or export, and log them while it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0
"""Seconds between two log lines about the same load or export."""


@dataclass
class Progress:
    """Rows and bytes so far, logged every 10 seconds.

    :param what: what is running, for the log
    :param check: called on every block of data; raises to stop the load or export
    """

    what: str
    check: Callable[[], None] = lambda: None
    rows: int = 0
    bytes: int = 0
    _counted: int = 0
    _started_at: float = field(default_factory=time.monotonic)
    _logged_at: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    def add(self, *, rows: int = 0, bytes: int = 0) -> None:
        """Add rows, which may be an estimate, and bytes.

        :param rows: additional rows
        :param bytes: additional bytes
        """
        self.check()
        self.rows += rows
        self.bytes += bytes
        if time.monotonic() - self._logged_at >= PROGRESS_SECONDS:
            self._logged_at = time.monotonic()
            self.log("so far")

    def settle(self, rows: int) -> None:
        """Replace the rows added since the last call with the number that the server counted.

        :param rows: rows of the COPY statement that has just ended
        """
        self._counted += rows
        self.rows = self._counted

    def log(self, when: str) -> None:
        """Log the counts.

        :param when: a word or two about the moment
        """
        seconds = max(self.seconds, 0.001)
        log.info(
            "%s, %s: %d rows, %s in %.1f s (%.0f rows/s, %s/s)",
            *(self.what, when, self.rows, _size(self.bytes), seconds, self.rows / seconds, _size(self.bytes / seconds)),
        )


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
