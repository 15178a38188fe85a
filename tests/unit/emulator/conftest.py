"""A workspace without HTTP and PostgreSQL: its clusters and computes are lists of what was asked of them."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model.endpoints import Endpoint
from airflow_provider_lakebase.emulator.model.workspace import Workspace


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class MemoryClusters:
    """Clusters of which only the names and sources are real."""

    def __init__(self) -> None:
        self.sources: dict[str, tuple[str | None, float | None, str | None]] = {}
        self.oldest = 1_800_000_000.0 - 3600

    def create(self, cluster: str) -> None:
        self.sources[cluster] = None, None, None

    def copy(self, source: str, target: str, *, time: float | None = None, lsn: str | None = None) -> None:
        self.sources[target] = source, time, lsn

    def delete(self, cluster: str) -> None:
        self.sources.pop(cluster, None)

    def oldest_time(self, cluster: str) -> float:
        return self.oldest

    def current_lsn(self, cluster: str) -> str:
        return "1/A0"

    def size(self, cluster: str) -> int:
        return 7_000_000

    def execute(self, cluster: str, database: str, query: Any, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return []


class MemoryComputes:
    """Computes that wake at once."""

    def __init__(self) -> None:
        self.open_addresses: set[str] = set()
        self.taken: set[str] = set()
        self.wake_error: str | None = None

    def open(self, endpoint: Endpoint) -> None:
        if self.taken & set(endpoint.addresses):
            raise OSError(errno.EADDRINUSE, "address in use")
        self.open_addresses |= set(endpoint.addresses)

    def close(self, endpoint: Endpoint) -> None:
        self.open_addresses -= set(endpoint.addresses)

    def suspend(self, endpoint: Endpoint) -> None:
        endpoint.move("suspend")

    def wake(self, endpoint: Endpoint) -> None:
        if self.wake_error:
            raise RuntimeError(self.wake_error)
        endpoint.move("wake")
        endpoint.move("activate")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clusters() -> MemoryClusters:
    return MemoryClusters()


@pytest.fixture
def computes() -> MemoryComputes:
    return MemoryComputes()


@pytest.fixture
def workspace(clock: Clock, clusters: MemoryClusters, computes: MemoryComputes) -> Workspace:
    workspace = Workspace(clock=clock, suspend_timeout=300, asleep=False)
    workspace.clusters, workspace.computes = clusters, computes
    clusters.create(next(iter(workspace.branches.values())).uid)
    return workspace
