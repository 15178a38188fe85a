"""Read from the catalogue what is lost when a table is dropped, and what of it could not be put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.relations import catalog_queries as queries
from airflow_provider_lakebase.core.relations.memory import Item, Phase

_KINDS = {"r": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW"}


@dataclass(frozen=True)
class _Relation:
    """The table, or a view on it."""

    oid: int
    kind: str
    schema: str
    name: str
    sql_name: str
    owner: str
    options: Sequence[str]
    is_populated: bool
    definition: str
    comment: str | None
    replica_identity: str

    @property
    def is_table(self) -> bool:
        return self.kind == "r"

    @property
    def words(self) -> str:
        return _KINDS.get(self.kind, "RELATION")


class Reading:
    """One reading of a table and of what depends on it, in one transaction.

    :param connection: an open session, in a transaction in which ``search_path`` is empty
    :param oid: of the table
    """

    def __init__(self, connection: psycopg.Connection[Any], oid: int) -> None:
        self._connection = connection
        rows = connection.execute(queries.RELATIONS, {"table": oid}).fetchall()
        self._relations = [_Relation(*row) for row in rows]
        self._table = self._relations[0]
        self._oids = [each.oid for each in self._relations]

    def items(self) -> list[Item]:
        """Return what is lost, in the order in which it is put back."""
        found = [*self._settings(), *self._views()]
        for query in (
            queries.COLUMN_SETTINGS,
            queries.STATISTICS,
            queries.COLUMN_COMMENTS,
            queries.VIEW_DEFAULTS,
            queries.TRIGGERS,
            queries.RULES,
        ):
            found += self._statements(query)
        found += self._indexes()
        found += self._statements(queries.CONSTRAINTS, Phase.AFTER_INDEXES)
        found += self._statements(queries.AFTER_INDEXES, Phase.AFTER_INDEXES)
        return found

    def obstacles(self, columns: Sequence[str] | None) -> list[str]:
        """Return what could not be put back, one line for each.

        :param columns: columns that the new table will have; None if they are not known
        """
        found = [] if self._table.is_table else [f"{self._table.sql_name} is not an ordinary table"]
        found += self._texts(queries.OBSTACLES)
        found += self._texts(queries.FORBIDDEN)
        if columns is not None:
            known = [name.lower() for name in columns]
            found += self._texts(queries.MISSING_COLUMNS, columns=known)
        return list(dict.fromkeys(found))

    def dependents(self) -> list[str]:
        """Return the reasons why the table cannot be dropped, one line each."""
        return [f"{each.words.lower()} {each.sql_name}" for each in self._relations[1:]] + self._texts(
            queries.REFERENCES
        )

    def _settings(self) -> Iterator[Item]:
        table = self._table
        if (acl := self._acl(table))["entries"]:
            yield Item(f"the grants on {table.sql_name}", Phase.TABLE, acl=acl)
        if table.comment is not None:
            yield Item(f"the comment of {table.sql_name}", Phase.TABLE, [_comment(table)])
        if table.options:
            yield Item(
                f"the storage parameters of {table.sql_name}",
                Phase.TABLE,
                [f"ALTER TABLE {table.sql_name} SET ({_options(table)})"],
            )
        if table.replica_identity in "fn":
            word = {"f": "FULL", "n": "NOTHING"}[table.replica_identity]
            statement = f"ALTER TABLE {table.sql_name} REPLICA IDENTITY {word}"
            yield Item(f"the replica identity of {table.sql_name}", Phase.TABLE, [statement])

    def _views(self) -> Iterator[Item]:
        for view in self._relations[1:]:
            options = f" WITH ({_options(view)})" if view.options else ""
            data = "" if view.is_populated or view.kind == "v" else "\nWITH NO DATA"
            create = f"CREATE {view.words} {view.sql_name}{options} AS\n{view.definition}{data}"
            statements = [create, _comment(view)] if view.comment is not None else [create]
            name = f"{view.words.lower()} {view.sql_name}"
            drop = f"DROP {view.words} IF EXISTS {view.sql_name}"
            # As its owner: whoever fills a materialized view runs the functions in it.
            yield Item(name, Phase.VIEWS, statements, view.owner, self._acl(view), drop=drop)

    def _acl(self, relation: _Relation) -> dict[str, Any]:
        rows = self._connection.execute(queries.ACL, {"oid": relation.oid}).fetchall()
        entries = [list(row) for row in rows if not (relation.is_table and row[2] == relation.owner)]
        return {
            "relation": [relation.schema, relation.name],
            "owner": relation.owner,
            "entries": entries,
            "is_exact": not relation.is_table,
        }

    def _indexes(self) -> Iterator[Item]:
        rows = self._run(queries.INDEXES)
        for schema, name, definition, role in rows:
            what = f"index {sql.Identifier(schema, name).as_string()}"
            yield Item(what, Phase.INDEXES, [definition], role, index=[schema, name])

    def _statements(self, query: Any, phase: Phase | None = None) -> list[Item]:
        return [
            Item(name, phase or (Phase.VIEWS if role else Phase.TABLE), [each for each in statements if each], role)
            for name, statements, role in self._run(query)
        ]

    def _texts(self, query: Any, **further: Any) -> list[str]:
        return [text for (text,) in self._run(query, **further)]

    def _run(self, query: Any, **further: Any) -> list[tuple[Any, ...]]:
        values = {"oids": self._oids, "table": self._table.oid, **further}
        return self._connection.execute(query, values).fetchall()


def merge(former: Sequence[Item], latest: Sequence[Item], *, latest_wins: bool) -> list[Item]:
    """Return what was remembered earlier, with what was added since.

    :param former: what was remembered
    :param latest: what a later reading found
    :param latest_wins: whether what was changed since counts; not if the reading is of another table
    """
    remembered, found = ({item.name: item for item in items} for items in (former, latest))
    return list((remembered | found | ({} if latest_wins else remembered)).values())


def _comment(relation: _Relation) -> str:
    return f"COMMENT ON {relation.words} {relation.sql_name} IS {_literal(relation.comment or '')}"


def _options(relation: _Relation) -> str:
    pairs = (option.partition("=") for option in relation.options)
    return ", ".join(f"{name}={_literal(value)}" for name, _, value in pairs)


def _literal(text: str) -> str:
    return sql.Literal(text).as_string()
