"""Who waits for a shared poll."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_BACK_OFF_SECONDS = 60.0
"""Longest pause, in seconds, between two readings while the workspace fails."""


@dataclass(eq=False)
class Waiter:
    """One who waits for a poll, and is done when ``ready`` is."""

    ready: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future(), kw_only=True
    )

    def finish(self, error: BaseException | None = None) -> None:
        """End the wait, unless it has ended.

        :param error: why it fails
        """
        if self.ready.done():
            return
        if error is None:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(error)


def finish(waiters: Iterable[Waiter], error: BaseException | None = None) -> None:
    """End waits.

    :param waiters: those who wait
    :param error: why they fail
    """
    for waiter in list(waiters):
        waiter.finish(error)
