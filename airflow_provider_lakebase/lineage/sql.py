"""What SQL reads and writes, by its text. The parser gets texts of a bounded length only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlparse

from airflow_provider_lakebase.lineage.names import Database, Name

MOST_CHARACTERS = 100_000
"""Characters of SQL that are parsed, which takes less than half a second; of longer texts nothing is reported."""
_PLACEHOLDER = re.compile(r"%%|%(?:\([^)]*\))?[sbt]")
_CREATE = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*CREATE\s+(?P<temporary>(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b)?",
    re.IGNORECASE | re.DOTALL,
)
_CATALOGS = ("pg_catalog", "information_schema")


@dataclass
class Tables:
    """Hold what SQL reads and writes, in the order it is first met.

    :param read: tables that it reads
    :param written: tables that it writes, each with the columns of which it is known what they come from
    :param selected: columns of its result, and what they come from
    :param errors: index, statement and message of what was not understood
    :param statements: how many it consists of
    """

    read: dict[Name, None] = field(default_factory=dict)
    written: dict[Name, dict[str, list[tuple[Name, str]]]] = field(default_factory=dict)
    selected: dict[str, list[tuple[Name, str]]] = field(default_factory=dict)
    errors: list[tuple[int, str, str]] = field(default_factory=list)
    statements: int = 0


def parse_sql(database: Database, sql: str | Sequence[str], *, has_parameters: bool = False) -> Tables | None:
    """Return what SQL reads and writes; None where it is too long.

    :param database: where it runs
    :param sql: a text of one or several statements, or a list of such
    :param has_parameters: whether ``%s`` in it stands for a parameter
    """
    texts = [sql] if isinstance(sql, str) else list(sql)
    if sum(map(len, texts)) > MOST_CHARACTERS:
        return None
    statements = [statement for text in texts for statement in _split(text)]
    found = Tables(statements=len(statements))
    temporary: set[Name] = set()
    for index, statement in enumerate(statements):
        if has_parameters:
            statement = _PLACEHOLDER.sub(lambda match: "%" if match[0] == "%%" else "NULL", statement)
        _parse_statement(found, temporary, index, statement, database)
    return found


def _split(text: str) -> list[str]:
    try:
        return [statement for statement in sqlparse.split(text) if statement.strip(" \t\r\n;")]
    except Exception:  # it limits what it takes
        return [text]


def _parse_statement(found: Tables, temporary: set[Name], index: int, statement: str, database: Database) -> None:
    from openlineage.common.sql import parse

    result = parse([statement], dialect=database.dialect, default_schema=database.schema)
    if result is None:
        return
    found.errors += [(index, statement, error.message) for error in result.errors]
    fold = database.dialect in ("postgres", "postgresql", "redshift")
    read = {_name_of(table, fold) for table in result.in_tables}
    written = {_name_of(table, fold): None for table in result.out_tables}
    create = _CREATE.match(statement)
    if create and create["temporary"]:
        temporary.update(written)
    columns: dict[str, list[tuple[Name, str]]] = {}
    for each in result.column_lineage:
        origins = [(_name_of(column.origin, fold), column.name) for column in each.lineage if column.origin]
        # It tells of tables below a WITH by their columns only, and knows no schema of a column's own table name.
        read.update(name for name, _ in origins if _is_read(name, statement))
        known = [(_among(read, name), column) for name, column in origins]
        columns[each.descendant.name] = [(name, column) for name, column in known if name and name not in temporary]
    if not written:
        found.selected.update(columns)
    for name in sorted(read):
        if _counts(name, temporary) and not _is_function(name, statement):
            found.read[name] = None
    for name in filter(lambda name: _counts(name, temporary), written):
        filled = found.written.setdefault(name, {})
        # Of an INSERT the parser tells the names that the query gives its columns, not those that they go into.
        if create:
            filled.update(columns)


def _name_of(table: Any, fold: bool) -> Name:
    """Return schema and table as the database keeps them; the parser drops quotes and folds nothing."""

    def part(name: str) -> str:
        value = getattr(table, name) or ""
        return value.lower() if fold and not getattr(table.quote_style, name, None) else value

    return part("schema"), part("name")


def _counts(name: Name, temporary: set[Name]) -> bool:
    return name not in temporary and name[0] not in _CATALOGS


def _is_read(name: Name, statement: str) -> bool:
    """Return whether the statement names the table as one to read from."""
    schema, table = map(re.escape, name)
    return re.search(rf'\b(?:FROM|JOIN)\s+(?:"?{schema}"?\.)?"?{table}\b', statement, re.IGNORECASE) is not None


def _among(names: set[Name], name: Name) -> Name | None:
    """Return which of the tables a name means that may lack its schema; None where that is not clear."""
    alike = [each for each in names if each[1] == name[1]]
    return name if name in names else alike[0] if len(alike) == 1 else None


def _is_function(name: Name, statement: str) -> bool:
    """Return whether a name that is read from is a function's, which the parser takes for a table."""
    call = rf"(?:\bFROM|\bJOIN|\bLATERAL|,)\s*(?:\w+\.)?{re.escape(name[1])}\s*\("
    return re.search(call, statement, re.IGNORECASE) is not None
