"""What is remembered of the Postgres table of a synced table: plain values, which a helper table keeps as JSON.

This module is light: plans of ``core/workspace`` import it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

_SYNCED_OWNER = re.compile(r"databricks_(writer_|synced_table)")


class Phase(IntEnum):
    """When something is put back."""

    TABLE = 1
    """In the transaction that makes the table usable."""
    VIEWS = 2
    """In a transaction of their own: to fill a materialized view takes time, and readers of the table need not wait."""
    INDEXES = 3
    """One by one, because ``CREATE INDEX CONCURRENTLY`` runs in no transaction."""
    AFTER_INDEXES = 4
    """In the transaction that forgets the rest."""


@dataclass(frozen=True)
class Item:
    """One thing to put back.

    :param name: what it is, for messages; unique within a memory
    :param phase: when it is put back
    :param sql: the statements that put it back
    :param role: the role that runs them, if it is another than the session's: the owner of a view
    :param acl: an access control list, to be set after them: ``relation``, ``owner``, ``entries``, ``is_exact``
    :param index: schema and name, of an index that the first statement makes
    :param drop: the statement that drops it, if it has to go before the table
    """

    name: str
    phase: int
    sql: Sequence[str] = ()
    role: str = ""
    acl: Mapping[str, Any] = field(default_factory=dict)
    index: Sequence[str] = ()
    drop: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments that make it again, as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Recreation:
    """A synced table that is being replaced.

    :param former_uid: ID of the synced table that is replaced; empty if only its Postgres table was left
    :param spec: what the new one shall be
    :param task: which task began it
    :param operation: name of the operation that deletes the former one, once it was started
    :param is_dropped: whether the former Postgres table was dropped
    :param is_first: whether the former one is that which was there when it began
    :param items: what has yet to be put back
    """

    former_uid: str
    spec: Mapping[str, Any]
    task: str = ""
    operation: str = ""
    is_dropped: bool = False
    is_first: bool = True
    items: Sequence[Item] = ()


@dataclass(frozen=True)
class SpecRecord:
    """What a synced table was created with.

    :param spec: its spec
    :param uid: its ID; empty until it exists
    """

    spec: Mapping[str, Any]
    uid: str = ""


def is_synced_owner(role: str) -> bool:
    """Return whether a table that a role owns is a synced table, which only its pipeline may write to.

    :param role: the owner
    """
    return _SYNCED_OWNER.match(role) is not None


@dataclass(frozen=True)
class PostgresTable:
    """What the catalogue tells about the Postgres table of a synced table.

    :param owner: its owner
    :param key_columns: columns of its primary key
    """

    owner: str
    key_columns: Sequence[str] = ()

    @property
    def is_synced(self) -> bool:
        """Whether the service made it: such a table belongs to a role of the service, not to an identity."""
        return self.owner.startswith("databricks_writer_")
