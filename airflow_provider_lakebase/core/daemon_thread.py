"""Await work that blocks, without one of the event loop's own threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def run_in_daemon_thread(work: Callable[[], T]) -> T:
    """Run work that blocks in a thread of its own and return its result.

    The event loop's own threads are few, and it waits for them when it ends, however long they take. A waiter that is
    cancelled leaves the thread behind.

    :param work: called without arguments
    :raises BaseException: what the work raised
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: list[T], error: BaseException | None) -> None:
        if done.done():  # the waiter was cancelled
            return
        if error is None:
            done.set_result(result[0])
        else:
            done.set_exception(error)

    def run() -> None:
        result: list[T] = []
        failure: BaseException | None = None
        try:
            result.append(work())
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="lakebase-work", daemon=True).start()
    return await done
