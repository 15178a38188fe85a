"""The base of the triggers that poll a query: it pauses, retries, and can leave a suspended endpoint suspended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.core.workspace.specs import Duration, check_flags, read_wait
from airflow_provider_lakebase.exceptions import LakebaseError
from airflow_provider_lakebase.hooks._arguments import create_hook
from airflow_provider_lakebase.hooks._readiness import ACTIVE
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.triggers._shared_poll import SharedPolls

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.connection.settings import LakebaseSettings

MAX_BACK_OFF_SECONDS = 600.0
"""Longest pause, in seconds, between two polls while they fail."""
SHARED_SECONDS = 1.0
"""Age, in seconds, up to which triggers share a reading of the state. An older one might miss a suspend."""


def is_met(row: Sequence[Any] | None) -> bool:
    """Return whether a sensor's query is true.

    :param row: its first row, or None
    """
    return bool(row and row[0])


class PollingTrigger(BaseTrigger):
    """Poll a query.

    :param sql: the query
    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook: ``endpoint``, ``database``, ``read_only``, ``options``
    :param poll_interval: pause between two polls, ``timedelta`` or seconds
    :param only_when_awake: skip a poll while the endpoint is suspended, instead of waking it
    """

    def __init__(
        self,
        sql: str,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        hook_params: dict[str, Any] | None = None,
        poll_interval: Duration = 60.0,
        only_when_awake: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sql = sql
        self.lakebase_conn_id = lakebase_conn_id
        self.hook_params = hook_params
        self.poll_interval = read_wait("poll_interval", poll_interval)
        check_flags(only_when_awake=only_when_awake)
        self.only_when_awake = only_when_awake
        self._is_first = True

    def _arguments(self) -> dict[str, Any]:
        return {
            "sql": self.sql,
            "lakebase_conn_id": self.lakebase_conn_id,
            "hook_params": self.hook_params,
            "poll_interval": self.poll_interval,
            "only_when_awake": self.only_when_awake,
        }

    def _create_hook(self) -> LakebaseHook:
        return create_hook(self.lakebase_conn_id, self.hook_params)

    def _retrying(self, is_retried: Callable[[BaseException], bool]) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(is_retried),
            wait=wait_exponential(multiplier=2, max=MAX_BACK_OFF_SECONDS),
            before_sleep=self._log_retry,
            sleep=self._pause,
            reraise=True,
        )

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.log.warning("The query is run again later: %s: %s", type(error).__name__, error)

    async def _pause(self, at_least: float = 0.0) -> None:
        pause = self.poll_interval * random.uniform(0.9, 1.0)  # noqa: S311 - no secret
        await asyncio.sleep(max(pause, at_least))

    async def _may_poll(self, hook: LakebaseHook, settings: LakebaseSettings) -> bool:
        """Return whether to open a session; warn once if polling never lets the endpoint suspend."""
        if self.only_when_awake:
            settings.require_identity()
        if not (self._is_first or self.only_when_awake) or settings.is_native:
            return True
        try:
            status = await SharedPolls.of_running_loop().read_status(hook, settings, max_age=SHARED_SECONDS)
        except LakebaseError:
            if self.only_when_awake:
                raise
            return True  # the state is needed only for the warning
        if self._is_first and status.suspend_timeout and self.poll_interval < status.suspend_timeout:
            self.log.warning(
                "A query every %.0f s never lets endpoint %s suspend, which needs %.0f s without use. Poll less often "
                "to let it suspend.",
                *(self.poll_interval, settings.endpoint, status.suspend_timeout),
            )
        self._is_first = False
        return not self.only_when_awake or status.state == ACTIVE
