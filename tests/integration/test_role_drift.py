"""Whatever was granted before, a role has what is declared after a run with prune; a dry run only tells that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from airflow_provider_lakebase.core.grants.declaration import LEDGER_TABLES
from airflow_provider_lakebase.core.grants.request import READ, WRITE, RoleRequest, sequence_privileges
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

EXAMPLES = int(os.environ.get("LAKEBASE_ROLE_EXAMPLES", "25"))
DATABASE = "Drift"
SCHEMAS = ("sales", "My Stage")
TABLES = ("orders", "Lines", "of_loader", "seen")
# What the identity may have on each kind of object.
PRIVILEGES = {
    "database": ("CONNECT", "CREATE", "TEMPORARY"),
    "schema": ("USAGE", "CREATE"),
    "table": ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"),
    "column": ("SELECT", "INSERT", "UPDATE", "REFERENCES"),
    "sequence": ("USAGE", "SELECT", "UPDATE"),
    "function": ("EXECUTE",),
}
OBJECTS = """
    SELECT 'database', ''::name, datname, ''::name, oid, quote_ident(datname) FROM pg_database
    WHERE datname = current_database()
    UNION ALL SELECT 'schema', nspname, nspname, '', oid, quote_ident(nspname)
    FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$'
    UNION ALL SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, nspname, relname, '', c.oid,
        quote_ident(nspname) || '.' || quote_ident(relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'v', 'S') AND nspname !~ '^pg_|^information_schema$'
    UNION ALL SELECT 'column', nspname, relname, attname, c.oid,
        attname || ' of table ' || quote_ident(nspname) || '.' || quote_ident(relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_attribute a ON attrelid = c.oid
    WHERE relkind IN ('r', 'v') AND attnum > 0 AND nspname !~ '^pg_|^information_schema$'
    UNION ALL SELECT 'function', nspname, proname, '', p.oid,
        quote_ident(nspname) || '.' || quote_ident(proname) || '(' || oidvectortypes(proargtypes) || ')'
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
    WHERE nspname !~ '^pg_|^information_schema$'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
HAS = """
    SELECT object || ' ' || name, privilege FROM objects, unnest(privileges) AS privilege
    WHERE CASE object
        WHEN 'database' THEN has_database_privilege(role, id, privilege || option)
        WHEN 'schema' THEN has_schema_privilege(role, id, privilege || option)
        WHEN 'table' THEN has_table_privilege(role, id, privilege || option)
        WHEN 'sequence' THEN has_sequence_privilege(role, id, privilege || option)
        WHEN 'function' THEN has_function_privilege(role, id, privilege || option)
        ELSE has_column_privilege(role, id, "column", privilege || option)
    END
"""
# With the row's own version, so that a row that was written anew differs.
DUMP = """
    SELECT jsonb_build_array(
        (SELECT jsonb_agg(to_jsonb(c) ORDER BY oid) FROM (
            SELECT oid, xmin::text, relname, relowner, relacl FROM pg_class) c),
        (SELECT jsonb_agg(to_jsonb(c)) FROM (
            SELECT attrelid, attname, xmin::text, attacl FROM pg_attribute WHERE attacl IS NOT NULL ORDER BY 1, 2) c),
        (SELECT jsonb_agg(to_jsonb(c) ORDER BY oid) FROM (
            SELECT oid, xmin::text, nspname, nspowner, nspacl FROM pg_namespace) c),
        (SELECT jsonb_agg(to_jsonb(c) ORDER BY oid) FROM (SELECT oid, xmin::text, proowner, proacl FROM pg_proc) c),
        (SELECT jsonb_agg(to_jsonb(c) ORDER BY oid) FROM (SELECT *, xmin::text FROM pg_default_acl) c),
        (SELECT jsonb_agg(to_jsonb(c) ORDER BY oid) FROM (SELECT *, xmin::text FROM pg_auth_members) c),
        (SELECT jsonb_agg(to_jsonb(c) ORDER BY oid) FROM (SELECT *, xmin::text FROM pg_authid) c),
        (SELECT jsonb_agg(to_jsonb(c) ORDER BY oid) FROM (SELECT oid, xmin::text, datdba, datacl FROM pg_database) c),
        (SELECT jsonb_agg(to_jsonb(c)) FROM (SELECT extname, xmin::text FROM pg_extension ORDER BY 1) c)
    )::text
"""


class World:
    """A database with schemas, tables and roles of several owners, and the identity whose grants are put right."""

    def __init__(self, superuser: psycopg.Connection[Any], identity: str, owner: str) -> None:
        self.superuser = superuser
        self.identity = identity
        self.owner = owner
        self.names = {
            "ada": "ada",
            "loader": "The Loader",
            "group": "analysts",
            "identity": identity,
            "owner": owner,
        }
        self.version = superuser.info.server_version // 10000

    def run(self, statement: str, *, as_: str = "owner", **names: str) -> None:
        """Run a statement as one of the roles; {names} are identifiers."""
        identifiers = {name: sql.Identifier(*value.split("/")) for name, value in {**self.names, **names}.items()}
        with self.superuser.transaction():
            if as_ != "superuser":
                self.superuser.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(self.names[as_])))
            self.superuser.execute(sql.SQL(statement).format(**identifiers))  # type: ignore[arg-type]

    def reset(self) -> None:
        """Make everything anew, with no privilege of the identity."""
        superuser = self.superuser
        for name in ("ada", "loader", "group", "identity"):
            superuser.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(self.names[name])))
        for schema in (*SCHEMAS, "mine", "ledger"):
            superuser.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
        superuser.execute("DROP FUNCTION IF EXISTS public.total(int)")
        rows = superuser.execute(
            "SELECT roleid::regrole::text, grantor::regrole::text FROM pg_auth_members WHERE member = %s::regrole",
            [sql.Identifier(self.identity).as_string(None)],
        ).fetchall()
        for role, grantor in rows:
            superuser.execute(
                sql.SQL("REVOKE {} FROM {} GRANTED BY {} CASCADE").format(
                    sql.SQL(role), sql.Identifier(self.identity), sql.SQL(grantor)
                )
            )
        for schema in SCHEMAS:
            self.run("CREATE SCHEMA {schema}", schema=schema)
            self.run("GRANT ALL ON SCHEMA {schema} TO {loader}, {ada} WITH GRANT OPTION", schema=schema)
            self.run("CREATE TABLE {t} (id serial, amount int, note text)", t=f"{schema}/orders")
            self.run('CREATE TABLE {t} (id int, "Amount" int)', t=f"{schema}/Lines")
            self.run(
                "CREATE TABLE {t} (id int GENERATED ALWAYS AS IDENTITY, a int)", as_="loader", t=f"{schema}/of_loader"
            )
            self.run("CREATE VIEW {t} AS SELECT * FROM {orders}", t=f"{schema}/seen", orders=f"{schema}/orders")
            for table, owner in (("orders", "owner"), ("Lines", "owner"), ("of_loader", "loader"), ("seen", "owner")):
                self.run("GRANT ALL ON {t} TO {ada} WITH GRANT OPTION", as_=owner, t=f"{schema}/{table}")
        self.run("CREATE FUNCTION public.total(int) RETURNS int LANGUAGE sql RETURN $1")

    def dump(self) -> str:
        return str(self.superuser.execute(DUMP).fetchall()[0][0])

    def has(self, *, option: bool = False) -> set[tuple[str, str]]:
        """Return what has_*_privilege answers: pairs of an object, as a report names it, and a privilege."""
        kinds = " ".join(
            f"WHEN '{kind}' THEN '{{{','.join(privileges)}}}'::text[]" for kind, privileges in PRIVILEGES.items()
        )
        unknown = "'MAINTAIN'" if self.version < 17 else "NULL"
        query = f"""
            WITH objects (object, schema, "table", "column", id, name, role, option, privileges) AS (
                SELECT o.*, %s::name, %s::text, array_remove(CASE kind {kinds} END, {unknown})
                FROM ({OBJECTS}) AS o (kind)
            ) {HAS}
        """
        return set(self.superuser.execute(query, [self.identity, " WITH GRANT OPTION" if option else ""]).fetchall())

    def owns(self, schema: str, table: str) -> bool:
        """Return whether the table is the identity's."""
        query = """
            SELECT pg_get_userbyid(relowner) = %s FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = %s AND relname = %s
        """
        return bool(self.superuser.execute(query, [self.identity, schema, table]).fetchall()[0][0])

    def owned(self, pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return the pairs on what the identity owns: an owner has all grant options."""
        rows = self.superuser.execute(
            "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class "
            "JOIN pg_namespace n ON n.oid = relnamespace WHERE pg_get_userbyid(relowner) = %s",
            [self.identity],
        ).fetchall()
        names = ("schema mine", *(name for (name,) in rows))
        return {pair for pair in pairs if pair[0].endswith(names)}

    def columns(self, schema: str, table: str) -> list[str]:
        """Return the columns of a table, as a report names them."""
        rows = self.superuser.execute(OBJECTS).fetchall()
        return [f"column {row[5]}" for row in rows if (row[0], row[1], row[2]) == ("column", schema, table)]


@pytest.fixture(scope="module")
def world(shared_emulator: LakebaseEmulator) -> Iterator[World]:
    shared_emulator.wake()
    principal = shared_emulator.add_principal("drifting")
    shared_emulator.create_role(principal)
    admin = LakebaseHook("lakebase_admin")
    admin.run(f'CREATE DATABASE "{DATABASE}"', autocommit=True)
    admin.run('CREATE ROLE ada; CREATE ROLE "The Loader"; CREATE ROLE analysts')
    conninfo = psycopg.conninfo.make_conninfo(shared_emulator.superuser_conninfo, dbname=DATABASE)
    with psycopg.connect(conninfo, autocommit=True) as superuser:
        world = World(superuser, principal.client_id, shared_emulator.administrator.client_id)
        yield world
        world.reset()
        superuser.execute('DROP OWNED BY ada, "The Loader", analysts CASCADE')
    admin.run(f'DROP DATABASE "{DATABASE}" WITH (FORCE)', autocommit=True)
    admin.run('DROP ROLE ada, "The Loader", analysts')


# How something may have been granted to the identity before: as whom, and the statement. WHAT is a privilege or a role.
WAYS: dict[str, list[tuple[str, str]]] = {
    "owner": [("table", "GRANT WHAT ON {t} TO {identity}")],
    "owner, with option": [("table", "GRANT WHAT ON {t} TO {identity} WITH GRANT OPTION")],
    "other grantor": [("ada", "GRANT WHAT ON {t} TO {identity}")],
    "other grantor, with option": [("ada", "GRANT WHAT ON {t} TO {identity} WITH GRANT OPTION")],
    "passed on": [
        ("table", "GRANT WHAT ON {t} TO {identity} WITH GRANT OPTION"),
        ("owner", "GRANT USAGE ON SCHEMA {schema} TO {identity}"),
        ("identity", "GRANT WHAT ON {t} TO {loader}"),
    ],
    "group": [("table", "GRANT WHAT ON {t} TO {group}"), ("owner", "GRANT {group} TO {identity}")],
    "group, with option": [
        ("table", "GRANT WHAT ON {t} TO {group} WITH GRANT OPTION"),
        ("owner", "GRANT {group} TO {identity}"),
    ],
    "later": [("owner", "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT WHAT ON TABLES TO {identity}")],
    "later, with option": [
        ("owner", "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT WHAT ON TABLES TO {identity} WITH GRANT OPTION")
    ],
    "later, by another": [("loader", "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT WHAT ON TABLES TO {identity}")],
    "later, anywhere": [("owner", "ALTER DEFAULT PRIVILEGES GRANT WHAT ON TABLES TO {identity}")],
    "column": [("table", "GRANT WHAT ({column}) ON {t} TO {identity}")],
    "column, with option": [("table", "GRANT WHAT ({column}) ON {t} TO {identity} WITH GRANT OPTION")],
    "everybody": [("table", "GRANT WHAT ON {t} TO PUBLIC")],
    "schema": [("ada", "GRANT WHAT ON SCHEMA {schema} TO {identity}")],
    "sequence": [("owner", "GRANT WHAT ON SEQUENCE {sequence} TO {identity} WITH GRANT OPTION")],
    "function": [("owner", "GRANT WHAT ON FUNCTION public.total(int) TO {identity}")],
    "member": [("owner", "GRANT WHAT TO {identity}")],
    "member, with option": [("owner", "GRANT WHAT TO {identity} WITH ADMIN OPTION")],
    "member, by a superuser": [("superuser", "GRANT WHAT TO {identity}")],
    "owns": [("superuser", "ALTER TABLE {t} OWNER TO {identity}")],
    "database": [("owner", "GRANT WHAT ON DATABASE {database} TO {identity}")],
}
ON_TABLE = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
WHAT = {
    "column": PRIVILEGES["column"],
    "column, with option": ("SELECT",),
    "everybody": ("SELECT", "INSERT"),
    "schema": PRIVILEGES["schema"],
    "sequence": PRIVILEGES["sequence"],
    "function": PRIVILEGES["function"],
    "member": ("analysts", "ada"),
    "member, with option": ("analysts", "ada"),
    "member, by a superuser": ("pg_read_all_data", "pg_write_all_data"),
    "owns": ("",),
    "database": PRIVILEGES["database"],
}
OWNERS = {"orders": "owner", "Lines": "owner", "of_loader": "loader", "seen": "owner"}
ON_COLUMN = {"orders": "amount", "Lines": "Amount", "of_loader": "a", "seen": "note"}
tables = st.tuples(st.sampled_from(SCHEMAS), st.sampled_from(TABLES))
existing = st.lists(
    st.sampled_from(list(WAYS)).flatmap(
        lambda way: st.tuples(st.just(way), tables, st.sampled_from(WHAT.get(way, ON_TABLE)))
    ),
    max_size=8,
)


def make(world: World, way: str, table: tuple[str, str], what: str) -> None:
    """Grant something to the identity in one of the ways."""
    schema, name = table
    names = {
        "t": f"{schema}/{name}",
        "schema": schema,
        "column": ON_COLUMN[name],
        "sequence": f"{schema}/orders_id_seq",
        "database": DATABASE,
    }
    if any(as_ == "table" or "{t}" in statement for as_, statement in WAYS[way]) and world.owns(schema, name):
        return
    for as_, statement in WAYS[way]:
        world.run(statement.replace("WHAT", what), as_=OWNERS[name] if as_ == "table" else as_, **names)


accesses = st.one_of(
    st.sampled_from(["read", "write"]),
    st.lists(st.sampled_from(["SELECT", "INSERT", "DELETE", "TRUNCATE", "TRIGGER", "CREATE"]), unique=True, max_size=3),
)
requests = st.fixed_dictionaries(
    {
        "schemas": st.dictionaries(st.sampled_from([*SCHEMAS, "public"]), accesses, max_size=3),
        "tables": st.dictionaries(
            st.sampled_from(["sales.orders", '"My Stage"."Lines"', "sales.of_loader"]),
            st.sampled_from(["read", "write"]),
        ),
        "functions": st.sampled_from([[], ["public.total"], ["public.total(int)"]]),
        "owned_schemas": st.sampled_from([[], ["mine"]]),
        "member_of": st.sampled_from([None, [], ["analysts"]]),
        "created_by": st.sampled_from([None, [], ["The Loader"], ["The Loader", "ada"]]),
        "create_on_database": st.booleans(),
        "ledger_schema": st.sampled_from([None, "ledger", "sales"]),
    }
).map(lambda declared: declared if declared["schemas"] else {**declared, "created_by": None})


def on_tables(access: Any) -> list[str]:
    """Return the privileges on tables that an access means."""
    privileges = {"read": READ, "write": WRITE}[access] if isinstance(access, str) else access
    return [privilege for privilege in privileges if privilege != "CREATE"]


def expected(world: World, declared: dict[str, Any]) -> set[tuple[str, str]]:
    """Return what a declaration means, in the words of World.has()."""
    objects = {(row[0], row[1], row[2]): row[5] for row in world.superuser.execute(OBJECTS).fetchall()}
    found = {(f'database "{DATABASE}"', "CONNECT")}
    if declared["create_on_database"]:
        found.add((f'database "{DATABASE}"', "CREATE"))

    def add(kind: str, schema: str, name: str, privileges: Any) -> None:
        found.add((f"schema {objects['schema', schema, schema]}", "USAGE"))
        found.update((f"{kind} {objects[kind, schema, name]}", privilege) for privilege in privileges)

    for schema, access in declared["schemas"].items():
        add("schema", schema, schema, ["CREATE"] if "CREATE" in access else [])
        on = {"table": on_tables(access), "sequence": sequence_privileges(on_tables(access))}
        for kind, where, name in objects:
            if where == schema and kind in on:
                add(kind, schema, name, on[kind])
    for text, access in declared["tables"].items():
        schema, table = [part.strip('"') for part in text.split(".")]
        add("table", schema, table, on_tables(access))
        if table == "orders":
            add("sequence", schema, "orders_id_seq", sequence_privileges(on_tables(access)))
    for argument, kind, schema, name, privileges in (
        ("functions", "function", "public", "total", ("EXECUTE",)),
        ("owned_schemas", "schema", "mine", "mine", ("CREATE",)),
        *(("ledger_schema", "table", declared["ledger_schema"], name, WRITE) for name in LEDGER_TABLES),
    ):
        if declared[argument]:
            add(kind, schema, name, privileges)
    return with_columns(world, found)


def told(report: dict[str, Any]) -> set[tuple[str, str]]:
    """Return what a report says remains, in the words of World.has()."""
    return {
        (name, privilege.removesuffix(" WITH GRANT OPTION"))
        for row in report["remaining"]
        for name in row["names"]
        for privilege in row["privileges"]
        if not name.startswith(("later ", "role "))
    }


def with_columns(world: World, pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Add what privileges on tables give on their columns."""
    tables = {
        f"table {row[5]}": (row[1], row[2]) for row in world.superuser.execute(OBJECTS).fetchall() if row[0] == "table"
    }
    return pairs | {
        (column, privilege)
        for name, privilege in pairs
        if name in tables and privilege in PRIVILEGES["column"]
        for column in world.columns(*tables[name])
    }


def check(world: World, before: list[Any], runs: list[tuple[dict[str, Any], bool]]) -> None:
    world.reset()
    for grant in before:
        make(world, *grant)
    admin = LakebaseHook("lakebase_admin", database=DATABASE)
    for declared, prune in runs:
        request = RoleRequest(world.identity, **declared)
        dump = world.dump()
        dry = admin.bootstrap_role(request, dry_run=True, prune=prune)
        assert world.dump() == dump, "the dry run changed something"
        report = admin.bootstrap_role(request, prune=prune)
        assert {**dry, "dry_run": False} == report
        dump = world.dump()
        again = admin.bootstrap_role(request, prune=prune)
        assert not again["changed"] and not again["short"]
        assert again["remaining"] == report["remaining"]
        assert world.dump() == dump, "the second run changed something"
        wanted, remaining = expected(world, declared), with_columns(world, told(report))
        has = world.has()
        assert wanted <= has
        if prune:
            assert has == wanted | remaining
            assert world.has(option=True) <= remaining | world.owned(wanted)
    check_later(world, *runs[-1])


def check_later(world: World, declared: dict[str, Any], prune: bool) -> None:
    """Default privileges of the identity are the declared ones, and without an option once they are pruned."""
    rows = world.superuser.execute(
        "SELECT pg_get_userbyid(defaclrole), nspname, defaclobjtype, privilege_type, is_grantable FROM pg_default_acl "
        "LEFT JOIN pg_namespace n ON n.oid = defaclnamespace, aclexplode(defaclacl) "
        "WHERE pg_get_userbyid(grantee) = %s",
        [world.identity],
    ).fetchall()
    wanted = set()
    for schema, access in declared["schemas"].items():
        privileges = on_tables(access)
        created_by = declared["created_by"]
        for creator in [world.owner] if created_by is None else created_by:
            wanted |= {(creator, schema, "r", privilege, False) for privilege in privileges}
            wanted |= {(creator, schema, "S", privilege, False) for privilege in sequence_privileges(privileges)}
    assert {row[:4] for row in wanted} <= {row[:4] for row in rows}
    if prune:
        assert wanted == set(rows)


NOTHING: dict[str, Any] = {
    "tables": {},
    "functions": [],
    "owned_schemas": [],
    "member_of": None,
    "created_by": None,
    "create_on_database": False,
    "ledger_schema": None,
}
LATER_WITH_OPTION = ("later, with option", ("sales", "orders"), "SELECT")


@given(before=existing, runs=st.lists(st.tuples(requests, st.booleans()), min_size=1, max_size=2))
@example(before=[LATER_WITH_OPTION], runs=[({**NOTHING, "schemas": {"sales": "read"}}, False)])
@example(before=[LATER_WITH_OPTION], runs=[({**NOTHING, "schemas": {"sales": "read"}}, True)])
@settings(deadline=None, max_examples=EXAMPLES)
@pytest.mark.timeout(60 + 10 * EXAMPLES)
def test_a_role_has_what_is_declared(world: World, before: list[Any], runs: list[tuple[dict[str, Any], bool]]):
    check(world, before, runs)
