"""What a task keeps about the operations that it has started, for its next try."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_KEY = "lakebase"


class TaskNotes(MutableMapping[str, Any]):
    """Plain values by name, which Airflow 3.3 stores for all tries of a task instance as soon as they are set.

    Older versions of Airflow have no such store: there they are carried through a deferral, and end with the try.

    :param context: the task's context
    :param carried: values from before a deferral
    """

    def __init__(self, context: Context, carried: dict[str, Any] | None = None) -> None:
        self._store: Any = context.get("task_state_store")
        stored: Any = self._store.get(_KEY) if self._store is not None else None
        self._is_stored = stored is not None
        self._values: dict[str, Any] = {**(stored or {}), **(carried or {})}

    @property
    def outlive_a_try(self) -> bool:
        """Whether the next try can read them, however this one ends."""
        return self._store is not None

    def forget(self) -> None:
        """Remove all notes, because the task is done: if it is cleared later, it starts from the beginning."""
        if self._is_stored:
            self._store.delete(_KEY)
        self._values = {}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._values and self._values[name] == value:
            return
        self._values[name] = value
        self._save()

    def __delitem__(self, name: str) -> None:
        del self._values[name]
        self._save()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _save(self) -> None:
        if self._store is not None:
            self._store.set(_KEY, dict(self._values))
            self._is_stored = True
