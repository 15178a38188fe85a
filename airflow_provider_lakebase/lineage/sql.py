"""Find the tables that SQL reads and writes, by parsing its text, unless it is too long."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lakebase.core.sql.split import split_statements
from airflow_provider_lakebase.lineage.names import Database, Name

MAX_CHARACTERS = 20_000
"""Longest SQL, in characters, that is parsed: a longer text may exhaust the parser's stack."""
_PLACEHOLDER = re.compile(r"%%|%(?:\([^)%]*\))?[sbt]")
_GAP = r"(?:\s|--[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)"
_CREATE = re.compile(
    rf"{_GAP}*+CREATE\s{_GAP}*+(?:OR\s+REPLACE\s+)?(?P<temporary>(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b)?",
    re.IGNORECASE,
)
_NAME = r'(?:"[^"]+"|[^\W\d][\w$]*+)'
_SOURCE = re.compile(rf"\b(?:FROM|JOIN)\s+(?:({_NAME})\.)?({_NAME})(?!\s*\()", re.IGNORECASE)
_CALL = re.compile(rf"(?:\b(?:FROM|JOIN|LATERAL)\s|,)\s*(?:{_NAME}\.)?({_NAME})\s*\(", re.IGNORECASE)
_WITH = re.compile(
    rf"(?:\bWITH\s+(?:RECURSIVE\s+)?|,\s*)({_NAME})\s*(?:\([^()]*\)\s*)?AS\s+(?:(?:NOT\s+)?MATERIALIZED\s*)?\(",
    re.IGNORECASE,
)
_ONLY = re.compile(r"\b(FROM|JOIN|UPDATE)\s+ONLY\b", re.IGNORECASE)
_CATALOGS = ("pg_catalog", "information_schema")


@dataclass
class Tables:
    """The tables that SQL reads and writes, in the order of their first appearance.

    :param read: tables that it reads
    :param written: tables that it writes, with the origins of their columns as far as they are known
    :param selected: columns of its result, with their origins
    :param errors: number of statements that could not be parsed
    :param statements: number of statements
    """

    read: dict[Name, None] = field(default_factory=dict)
    written: dict[Name, dict[str, list[tuple[Name, str]]]] = field(default_factory=dict)
    selected: dict[str, list[tuple[Name, str]]] = field(default_factory=dict)
    errors: int = 0
    statements: int = 0


def parse_sql(database: Database, sql: str | Sequence[str], *, has_parameters: bool = False) -> Tables | None:
    """Return the tables that SQL reads and writes; None if the SQL is too long.

    :param database: database of the SQL
    :param sql: a text of one or more statements, or a list of such texts
    :param has_parameters: whether ``%s`` in the SQL is a placeholder
    """
    texts = [sql] if isinstance(sql, str) else list(sql)
    if sum(map(len, texts)) > MAX_CHARACTERS:
        return None
    statements = [statement for text in texts for statement, _ in split_statements(text)]
    found = Tables(statements=len(statements))
    temporary: set[Name] = set()
    for statement in statements:
        if has_parameters:
            statement = _PLACEHOLDER.sub(lambda match: "%" if match[0] == "%%" else "NULL", statement)
        _parse_statement(found, temporary, statement, database)
    return found


def _parse_statement(found: Tables, temporary: set[Name], statement: str, database: Database) -> None:
    from openlineage.common.sql import parse

    statement = _ONLY.sub(r"\1", statement)
    result = parse([statement], dialect=database.dialect, default_schema=database.schema)
    if result is None:
        return
    found.errors += len(result.errors)
    fold = database.dialect in ("postgres", "postgresql", "redshift")
    read = {_name_of(table, fold) for table in result.in_tables}
    written = {_name_of(table, fold): None for table in result.out_tables}
    sources = {(_plain(schema), _plain(table)) for schema, table in _SOURCE.findall(statement)}
    defined = set(map(_plain, _WITH.findall(statement)))
    functions = set(map(_plain, _CALL.findall(statement))) - {table for _, table in sources}

    def is_table(name: Name) -> bool:
        """Return whether a name is a table, and not one of the other things that the parser reports as tables."""
        is_defined = name[0] == (database.schema or "") and name[1].lower() in defined
        return _counts(name, temporary) and not is_defined and name[1].lower() not in functions

    create = _CREATE.match(statement)
    if create and create["temporary"]:
        temporary.update(written)
    columns: dict[str, list[tuple[Name, str]]] = {}
    for each in result.column_lineage:
        origins = [(_name_of(column.origin, fold), column.name) for column in each.lineage if column.origin]
        # The parser reports tables inside a WITH only as origins of columns, there without their schemas.
        read.update(
            name for name, _ in origins if {(name[0].lower(), name[1].lower()), ("", name[1].lower())} & sources
        )
        known = [(_among(read, name), column) for name, column in origins]
        columns[each.descendant.name] = [(name, column) for name, column in known if name and is_table(name)]
    if not written:
        found.selected.update(columns)
    found.read.update(dict.fromkeys(filter(is_table, sorted(read))))
    for name in filter(lambda name: _counts(name, temporary), written):
        filled = found.written.setdefault(name, {})
        # For an INSERT, the parser reports the query's column names, not the table's.
        if create:
            filled.update(columns)


def _name_of(table: Any, fold: bool) -> Name:
    """Return schema and table as the database stores them; the parser drops quotes and does not fold case."""

    def part(name: str) -> str:
        value = getattr(table, name) or ""
        return value.lower() if fold and not getattr(table.quote_style, name, None) else value

    return part("schema"), part("name")


def _counts(name: Name, temporary: set[Name]) -> bool:
    return name not in temporary and name[0] not in _CATALOGS


def _among(names: set[Name], name: Name) -> Name | None:
    """Resolve a possibly unqualified table name; None if it is ambiguous."""
    alike = [each for each in names if each[1] == name[1]]
    return name if name in names else alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    """Return a name without quotes and in lower case."""
    return name.strip('"').lower()
