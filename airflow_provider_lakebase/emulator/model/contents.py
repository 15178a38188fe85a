"""What the API knows of a cluster beside PostgreSQL: IDs of roles and databases, and passwords. No I/O."""

from __future__ import annotations

import copy
import hashlib
import re
import threading
from collections.abc import Callable

from airflow_provider_lakebase.emulator.model.errors import Json

_ID = re.compile(r"[a-z][a-z0-9-]{2,61}[a-z0-9]")


class Contents:
    """What belongs to the data of a branch or snapshot, and is copied with them.

    :param passwords: the passwords that were made for roles, by the role's name in PostgreSQL
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.role_ids = Ids("role-", clock)
        self.database_ids = Ids("db-", clock)
        self.passwords: dict[str, str] = {}

    def copy(self) -> Contents:
        """Return a copy, which changes independently."""
        copied = copy.copy(self)
        copied.role_ids, copied.database_ids = self.role_ids.copy(), self.database_ids.copy()
        copied.passwords = dict(self.passwords)
        return copied

    def saved(self) -> Json:
        """Return it as JSON."""
        return {
            "role_ids": self.role_ids.saved(),
            "database_ids": self.database_ids.saved(),
            "passwords": dict(self.passwords),
        }

    @classmethod
    def restored(cls, saved: Json, clock: Callable[[], float]) -> Contents:
        """Return saved ones."""
        contents = cls(clock)
        contents.role_ids.restore(saved["role_ids"])
        contents.database_ids.restore(saved["database_ids"])
        contents.passwords = dict(saved["passwords"])
        return contents


class Ids:
    """The IDs of roles or databases by their names in PostgreSQL, with the moment of their first sight.

    :param prefix: what an ID begins with that cannot be made from the name
    """

    def __init__(self, prefix: str, clock: Callable[[], float]) -> None:
        self._prefix = prefix
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float]] = {}

    def copy(self) -> Ids:
        """Return a copy, which changes independently."""
        copied = Ids(self._prefix, self._clock)
        copied._known = dict(self._known)
        return copied

    def saved(self) -> Json:
        """Return them as JSON."""
        with self._lock:
            return {name: list(known) for name, known in self._known.items()}

    def restore(self, saved: Json) -> None:
        """Put saved ones in the place of the present ones."""
        with self._lock:
            self._known = {name: (resource_id, seen_at) for name, (resource_id, seen_at) in saved.items()}

    def keep(self, name: str, resource_id: str) -> None:
        """Give a name this ID."""
        with self._lock:
            self._known[name] = resource_id, self._clock()

    def rename(self, name: str, new_name: str) -> None:
        """Keep the ID of a renamed object."""
        with self._lock:
            self._known[new_name] = self._known.pop(name)

    def forget(self, name: str) -> None:
        """Forget what was dropped."""
        with self._lock:
            self._known.pop(name, None)

    def of(self, name: str) -> tuple[str, float]:
        """Return the ID of a name, and when it was first seen."""
        with self._lock:
            if name not in self._known:
                plain = name.replace("_", "-")
                is_free = plain not in [resource_id for resource_id, _ in self._known.values()]
                made = plain
                if not (is_free and _ID.fullmatch(plain)):
                    made = self._prefix + hashlib.sha256(name.encode()).hexdigest()[:8]
                self._known[name] = made, self._clock()
            return self._known[name]
