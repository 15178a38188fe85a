"""Put back what was remembered of a table, and make the indexes and grants that it shall have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import errors, sql

from airflow_provider_lakebase.core.relations import catalog_queries as queries
from airflow_provider_lakebase.core.relations.memory import Item

Connection = psycopg.Connection[Any]

# A statement that fails for one of these may succeed when it is repeated.
_PASSING = ("08", "40", "53", "55P03", "55006", "57", "58", "XX")
_INDEX = re.compile(r"(CREATE (?:UNIQUE )?INDEX )")
_EXISTS = (errors.DuplicateObject, errors.DuplicateTable)


def put_back_all(connection: Connection, items: Sequence[Item]) -> list[tuple[Item, psycopg.Error]]:
    """Put back items in the open transaction; return those that Postgres refuses, with its errors.

    :param connection: an open session, in a transaction
    :param items: the items, in their order
    """
    connection.execute("SET LOCAL search_path = ''")
    refused = []
    for item in items:
        try:
            with connection.transaction():
                _put_back(connection, item)
        except psycopg.Error as error:
            if is_passing(error):
                raise
            refused.append((item, error))
    return refused


def put_back_index(connection: Connection, item: Item) -> bool:
    """Create an index again, unless it is there; return whether it was created.

    :param connection: an open session in autocommit
    :param item: the index
    :raises psycopg.errors.DuplicateTable: if another index or relation has its name
    """
    schema, name = item.index
    connection.execute("SET search_path = ''")
    if item.role:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(item.role)))
    try:
        found = connection.execute(queries.INDEX, [schema, name]).fetchone()
        if found is not None and found[2] != item.sql[0]:
            raise errors.DuplicateTable(f"another index has its name: {found[2]}")
        return make_index(connection, schema, name, sql.SQL(item.sql[0]))
    finally:
        if not connection.closed:
            connection.execute("RESET ROLE")
            connection.execute("RESET search_path")


def make_index(connection: Connection, schema: str, name: str, statement: sql.Composable) -> bool:
    """Create an index without blocking readers, unless it is there; return whether it was created.

    One that is invalid, because whoever built it was killed, is dropped first.

    :param connection: an open session in autocommit
    :param schema: its schema
    :param name: its name
    :param statement: ``CREATE INDEX …``
    :raises psycopg.errors.DuplicateTable: if another kind of relation has its name
    """
    found = connection.execute(queries.INDEX, [schema, name]).fetchone()
    if found is not None and found[0]:
        return False
    if found is not None:
        _drop_index(connection, schema, name)
    text = _INDEX.sub(r"\1CONCURRENTLY IF NOT EXISTS ", statement.as_string(connection), count=1)
    try:
        connection.execute(text)
    except psycopg.Error:
        left = None if connection.closed else connection.execute(queries.INDEX, [schema, name]).fetchone()
        if left is not None and not left[0]:
            _drop_index(connection, schema, name)
        raise
    if connection.execute(queries.INDEX, [schema, name]).fetchone() is None:  # Postgres has only noticed
        raise errors.DuplicateTable("another relation has its name")
    return True


def grant_missing(connection: Connection, schema: str, table: str, grants: Mapping[str, Sequence[str]]) -> list[str]:
    """Grant the privileges that roles lack on a table; return those roles.

    :param connection: an open session
    :param schema: the table's schema
    :param table: its name
    :param grants: privileges by role
    """
    granted = []
    with connection.transaction():
        held = {(entry[2] or "PUBLIC", entry[3]) for entry in _entries(connection, schema, table) if not entry[0]}
        for role, privileges in grants.items():
            name = "PUBLIC" if role.upper() == "PUBLIC" else role
            if missing := [privilege for privilege in privileges if (name, privilege) not in held]:
                words = sql.SQL(", ").join(map(sql.SQL, missing))
                grantee = sql.SQL("PUBLIC") if name == "PUBLIC" else sql.Identifier(role)
                connection.execute(
                    sql.SQL("GRANT {} ON {} TO {}").format(words, sql.Identifier(schema, table), grantee)
                )
                granted.append(role)
        held = {(entry[2] or "PUBLIC", entry[3]) for entry in _entries(connection, schema, table) if not entry[0]}
        for role in granted:
            name = "PUBLIC" if role.upper() == "PUBLIC" else role
            if any((name, privilege) not in held for privilege in grants[role]):
                # Postgres has only warned.
                raise errors.InsufficientPrivilege(f'the GRANT to "{role}" on {schema}.{table} had no effect')
    return granted


def is_passing(error: psycopg.Error) -> bool:
    """Return whether a statement may succeed when it is repeated.

    :param error: its error
    """
    return error.sqlstate is None or error.sqlstate.startswith(_PASSING)


def describe(error: psycopg.Error) -> str:
    """Return Postgres's words about an error.

    :param error: the error
    """
    # The detail of a violated constraint contains a row.
    detail = None if isinstance(error, errors.IntegrityError) else error.diag.message_detail
    return " ".join(filter(None, [error.diag.message_primary or str(error), detail]))


def act_as(connection: Connection, role: str) -> None:
    """Run what follows in the transaction as a role.

    :param connection: an open session, in a transaction
    :param role: the role; empty is the session's own
    """
    name = sql.Identifier(role) if role else sql.SQL("NONE")
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(name))


def _put_back(connection: Connection, item: Item) -> None:
    act_as(connection, item.role)
    try:
        with connection.transaction():
            for statement in item.sql:
                connection.execute(statement)
    except _EXISTS:
        # The service makes it, or someone has made it meanwhile: what comes after it is set all the same.
        for statement in item.sql[1:]:
            connection.execute(statement)
    if item.acl:
        _put_back_acl(connection, item)
    act_as(connection, "")


def _put_back_acl(connection: Connection, item: Item) -> None:
    acl = item.acl
    schema, name = acl["relation"]
    relation = sql.Identifier(schema, name)
    wanted = [tuple(entry) for entry in acl["entries"]]
    if acl["is_exact"]:
        for column, grantor, grantee, privilege, _ in _entries(connection, schema, name):
            if (column, grantor, grantee, privilege) not in [entry[:4] for entry in wanted]:
                words, role = _privilege(column, privilege), _role(grantee)
                _as(connection, item, grantor, sql.SQL("REVOKE {} ON {} FROM {}").format(words, relation, role))
    owner_now = connection.execute(queries.TABLE, [schema, name]).fetchone()
    present = set(_entries(connection, schema, name))
    # What a role has granted needs the owner's grant to that role.
    for column, grantor, grantee, privilege, is_grantable in sorted(wanted, key=lambda entry: entry[1] != acl["owner"]):
        grantor_now = owner_now[1] if owner_now and grantor == acl["owner"] else grantor
        if (column, grantor_now, grantee, privilege, is_grantable) in present:
            continue
        option = sql.SQL(" WITH GRANT OPTION" if is_grantable else "")
        words, role = _privilege(column, privilege), _role(grantee)
        grant = sql.SQL("GRANT {} ON {} TO {}{}").format(words, relation, role, option)
        _as(connection, item, grantor, grant)
        wanted_now = (column, grantor_now, grantee, privilege)
        if wanted_now not in [entry[:4] for entry in _entries(connection, schema, name)]:
            raise errors.InsufficientPrivilege(f'the grant of {privilege} to "{grantee or "PUBLIC"}" had no effect')


def _as(connection: Connection, item: Item, grantor: str, statement: sql.Composed) -> None:
    """Run a statement as the owner, or as another role that has granted."""
    if grantor == item.acl["owner"]:
        connection.execute(statement)
        return
    act_as(connection, grantor)
    connection.execute(statement)
    act_as(connection, item.role)


def _entries(connection: Connection, schema: str, name: str) -> list[tuple[Any, ...]]:
    found = connection.execute(queries.TABLE, [schema, name]).fetchone()
    return [] if found is None else connection.execute(queries.ACL, {"oid": found[0]}).fetchall()


def _privilege(column: str | None, privilege: str) -> sql.Composed:
    words = sql.SQL(privilege)
    return sql.Composed([words] if column is None else [words, sql.SQL(" ({})").format(sql.Identifier(column))])


def _role(grantee: str | None) -> sql.Composable:
    return sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)


def _drop_index(connection: Connection, schema: str, name: str) -> None:
    connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name)))
