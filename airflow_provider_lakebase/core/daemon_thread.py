"""Run blocking work in threads that hold up neither the event loop nor the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def start_in_daemon_thread(work: Callable[[], T]) -> Future[T]:
    """Run work in a thread of its own; the future has its result or exception.

    :param work: callable without arguments
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="lakebase-work", daemon=True).start()
    return future


async def run_in_daemon_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own and return its result.

    An event loop has few threads, and waits for them when it closes, however long they take. If the caller is
    cancelled, the daemon thread is left behind.

    :param work: callable without arguments
    :raises BaseException: whatever the work raises
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: list[T], error: BaseException | None) -> None:
        if done.done():  # the caller was cancelled
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
        with suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="lakebase-work", daemon=True).start()
    return await done
