"""Resources by name. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from airflow_provider_lakebase.emulator.model.errors import not_found


class Resource(Protocol):
    """Anything with a resource name."""

    name: str


R = TypeVar("R", bound=Resource)


def parent_of(name: str) -> str:
    """Return the name of a resource's parent: the name without its last collection and ID."""
    return name.rsplit("/", 2)[0]


def id_of(name: str) -> str:
    """Return the last part of a resource's name."""
    return name.rsplit("/", 1)[1]


class Resources(Mapping[str, R]):
    """The resources of one kind by name, in the order of their creation. Thread-safe.

    :param kind: what an error calls one of them
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._lock = threading.Lock()
        self._by_name: dict[str, R] = {}

    def __getitem__(self, name: str) -> R:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def require(self, name: str) -> R:
        """Return a resource; raise ``ApiError`` 404 if it does not exist."""
        found = self._by_name.get(name)
        if found is None:
            raise not_found(self.kind)
        return found

    def of(self, parent: str) -> list[R]:
        """Return the resources with this parent."""
        return [each for each in self._by_name.values() if parent_of(each.name) == parent]

    # All replace the dictionary, so that iterating over it needs no lock.

    def add(self, resource: R) -> None:
        """Add a resource, or put it in place of the one of its name."""
        with self._lock:
            self._by_name = {**self._by_name, resource.name: resource}

    def restore(self, resources: Iterable[R]) -> None:
        """Put these resources in the place of all."""
        with self._lock:
            self._by_name = {each.name: each for each in resources}

    def discard(self, resource: R) -> None:
        """Remove a resource; do nothing if it is not there."""
        with self._lock:
            self._by_name = {name: each for name, each in self._by_name.items() if each is not resource}
