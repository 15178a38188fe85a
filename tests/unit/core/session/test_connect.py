"""Attempts to open a session, without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tenacity import Retrying

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress, SessionSettings
from airflow_provider_lakebase.core.session.connect import _ConnectAttempts
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError

SETTINGS = LakebaseSettings("c", None, None, SessionSettings(wake_timeout=1, pg_host="127.0.0.1", user="u"))


def attempts_with(mint: Callable[..., Callable[[], str]], resolve: Callable[..., SessionAddress]) -> _ConnectAttempts:
    return _ConnectAttempts(SETTINGS, resolve, mint, "test")


def no_address(*, timeout: float, refresh: bool = False) -> SessionAddress:
    raise LakebaseWorkspaceError("busy", retryable=True)


def test_attempts_that_begin_late_are_not_repeated_without_a_pause():
    """The attempts count from when they were made; here half of the time is up before the first one."""
    asked: list[float] = []

    def mint(*, timeout: float) -> Callable[[], str]:
        asked.append(timeout)
        return lambda: "credential"

    attempts = attempts_with(mint, no_address)
    time.sleep(0.6)
    with pytest.raises(LakebaseWorkspaceError, match="busy"):
        Retrying(**attempts.policy())(attempts.arguments)
    assert len(asked) == 1


def test_the_credential_is_waited_for_once_the_host_is_known():
    order: list[str] = []
    minted = threading.Event()

    def mint(*, timeout: float) -> Callable[[], str]:
        order.append("begun")
        return lambda: "credential" if minted.wait(60) else ""

    def resolve(*, timeout: float, refresh: bool = False) -> SessionAddress:
        order.append("looked up")
        minted.set()
        return SessionAddress(None, "127.0.0.1", "u")

    arguments: dict[str, Any] = attempts_with(mint, resolve).arguments()
    assert (order, arguments["password"]) == (["begun", "looked up"], "credential")


def test_the_host_s_error_comes_before_the_credential_s():
    def mint(*, timeout: float) -> Callable[[], str]:
        def fail() -> str:
            raise LakebaseWorkspaceError("no credential")

        return fail

    with pytest.raises(LakebaseWorkspaceError, match="busy"):
        attempts_with(mint, no_address).arguments()
