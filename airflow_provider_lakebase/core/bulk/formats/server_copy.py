"""Send the rows of a query on another Postgres server as its COPY writes them, without an object for each row."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column
from airflow_provider_lakebase.core.bulk.copy import CopyTarget, Part, SourceFailed

CopyFormat: TypeAlias = Literal["binary", "text"]
_BLOCK_BYTES = 1 << 16
_TYPE = re.compile(
    r"(?P<base>[^(\[]+?)(?:\((?P<modifier>[\d,-]+)\))?(?P<zone> with(?:out)? time zone)?(?P<array>\[\])?"
)
_INTEGERS = ("smallint", "integer", "bigint")
_TEXTS = ("text", "character varying", "character", "bpchar")
_WITHOUT_MODIFIER = {"character": "bpchar", "bit": '"bit"', "character[]": "bpchar[]", "bit[]": '"bit"[]'}
"""Types whose name in DDL means a length of one."""
_BUILT_IN = frozenset(
    (
        *_INTEGERS,
        *_TEXTS,
        *("real", "double precision", "numeric", "boolean", "uuid", "bytea", "json", "jsonb", "oid", "date"),
        *("timestamp without time zone", "timestamp with time zone", "time without time zone", "time with time zone"),
        *("interval", "bit", "bit varying", "inet", "cidr", "macaddr", "macaddr8", "tsvector", "tsquery", "pg_lsn"),
        *("point", "line", "lseg", "box", "path", "polygon", "circle"),
        *("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange"),
        *("int4multirange", "int8multirange", "nummultirange", "datemultirange", "tsmultirange", "tstzmultirange"),
    )
)
"""Types whose binary form is the same on all servers."""


class QueryCopy(Protocol):
    """A query on another server, which COPY runs."""

    def copy(self, names: Sequence[str] | None, format: CopyFormat, write: Callable[[bytes], None]) -> None:
        """Write the result of the query as COPY sends it.

        :param names: the columns to send; None for all of them
        :param format: of COPY
        :param write: called with each piece of the data
        """


class ServerCopy(Part):
    """Send the result of a query from one server to another.

    :param query: the query
    :param names: the columns to send; None for all of them
    :param columns: their target columns
    :param format: of both COPY statements
    :param label: the source's name in messages
    :param may_round: whether a column may get a value that it would round
    """

    def __init__(
        self,
        query: QueryCopy,
        names: Sequence[str] | None,
        columns: Sequence[Column],
        format: CopyFormat,
        label: str,
        *,
        may_round: bool = False,
    ) -> None:
        self.query = query
        self.names = names
        self.columns = columns
        self.format = format
        self.label = label
        self.may_round = may_round

    def copy_to(self, target: CopyTarget) -> None:
        """Send all rows.

        :param target: the relation to write to
        :raises SourceFailed: if the query fails
        :raises psycopg.Error: if Postgres rejects a row
        """
        failed: list[BaseException] = []
        with target.copy(sql.SQL("FORMAT {}").format(sql.SQL(self.format))) as copy:

            def write(data: bytes) -> None:
                try:
                    copy.write(data)
                except BaseException as error:
                    failed.append(error)
                    raise

            blocks = _Blocks(write)
            try:
                self.query.copy(self.names, self.format, blocks.add)
                blocks.flush()
            except Exception as error:
                if failed:
                    raise failed[0] from None
                raise SourceFailed from error


class _Blocks:
    """Collect the rows that COPY sends one by one into blocks."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._write(data)


def choose_format(types: Sequence[str], columns: Sequence[Column]) -> tuple[CopyFormat | None, str]:
    """Return the format in which the target stores what the source sends, exactly; None if rows must be checked.

    Columns of a type that rounds may get values that they would round; the staging table shows which.

    :param types: of the source's columns, as DDL writes them
    :param columns: their target columns
    :returns: the format, and what keeps it from being another one, for the log
    """
    formats = [_format_of(kind, column) for kind, column in zip(types, columns, strict=True)]
    for wanted in (None, "text"):
        if wanted in formats:
            number = formats.index(wanted)
            column = columns[number]
            return wanted, f"column {column.name} is of type {column.declared}, and {types[number]} in the source"
    return "binary", "all types are the same"


def may_round(types: Sequence[str], columns: Sequence[Column]) -> bool:
    """Return whether a column may get a value that it would round.

    :param types: of the source's columns, as DDL writes them
    :param columns: their target columns
    """
    return any(column.rounds and kind != _declared(column) for kind, column in zip(types, columns, strict=True))


def _format_of(kind: str, column: Column) -> CopyFormat | None:
    wanted = _declared(column)
    source, target = _TYPE.fullmatch(kind), _TYPE.fullmatch(wanted or "")
    if not source or not target:
        return None
    base, target_base = (each["base"] + (each["zone"] or "") for each in (source, target))
    if source["array"] != target["array"] or base not in _BUILT_IN or target_base not in _BUILT_IN:
        return None
    if kind == wanted or (base == target_base and column.rounds):
        return "binary"
    modifier, target_modifier = source["modifier"], target["modifier"]
    if base == target_base or (base in _TEXTS and target_base in _TEXTS[:2]):
        return "binary" if _is_wider(modifier, target_modifier) else None
    if not source["array"] and base in _INTEGERS and _holds_integers(target_base, target_modifier):
        return "text"
    return None


def _declared(column: Column) -> str | None:
    """Return the type of a column as DDL writes it, that of a domain's base; None if that is not known."""
    found = _TYPE.fullmatch(column.declared)
    base = found and found["base"] + (found["zone"] or "") + (found["array"] or "")
    if column.bare in (base, _WITHOUT_MODIFIER.get(base or "")):
        return column.declared
    return column.bare if column.modifier < 0 else None


def _is_wider(modifier: str | None, target: str | None) -> bool:
    """Return whether a text or bit string of one length fits into one of another, which is None if unlimited."""
    return target is None or (modifier is not None and int(target) >= int(modifier))


def _holds_integers(base: str, modifier: str | None) -> bool:
    """Return whether a type stores an integer exactly, or rejects it."""
    if base == "numeric":
        return modifier is None or not modifier.rpartition(",")[2].startswith("-")
    return base in _INTEGERS
