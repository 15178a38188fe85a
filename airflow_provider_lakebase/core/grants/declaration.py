"""What a request means in one database: the privileges on each of its objects, and what the identity is to own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_lakebase.core.grants.catalog import Catalog
from airflow_provider_lakebase.core.grants.objects import (
    DATABASE,
    FUNCTION,
    LATER_SEQUENCES,
    LATER_TABLES,
    SCHEMA,
    SEQUENCE,
    TABLE,
    Object,
)
from airflow_provider_lakebase.core.grants.request import OWNER, WRITING, RoleRequest, sequence_privileges
from airflow_provider_lakebase.core.ledger import PRIVILEGES as LEDGER_PRIVILEGES
from airflow_provider_lakebase.core.ledger import TABLE as LEDGER_TABLE
from airflow_provider_lakebase.core.relations.records import RECREATIONS, SPECS
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext, LakebaseRoleError

LEDGER_TABLES = (LEDGER_TABLE, SPECS, RECREATIONS)


@dataclass(frozen=True)
class Declaration:
    """What the identity is to have in one database.

    :param privileges: on each object; it may have them as the owner or by a direct grant
    :param new_schemas: schemas to create, which the identity will own
    :param to_own: objects of other owners that are to be the identity's
    :param owned: schemas in which what the identity owns is as declared
    :param taken: schemas in which everything is
    :param new_ledger: schema in which the ledger is to be created; None if there is one, or none is wanted
    :param synced: synced tables of declared schemas, on which the privileges to write are left out
    """

    privileges: dict[Object, list[str]]
    new_schemas: list[str]
    to_own: list[Object]
    owned: set[str]
    taken: set[str]
    new_ledger: str | None
    synced: list[Object]


def declare(request: RoleRequest, catalog: Catalog, context: ErrorContext = NO_CONTEXT) -> Declaration:
    """Return what a request means in a database.

    :param request: the identity and what it is to have
    :param catalog: of the database
    :param context: connection and endpoint, for messages
    :raises LakebaseRoleError: if what it names does not exist, or is another role's
    """
    return _Reader(request, catalog, context).declare()


class _Reader:
    def __init__(self, request: RoleRequest, catalog: Catalog, context: ErrorContext) -> None:
        self._request = request
        self._catalog = catalog
        self._context = context
        self._objects = {item: item for item in catalog.objects}
        self._by_schema: dict[tuple[str, str], list[Object]] = {}
        for item in catalog.objects:
            self._by_schema.setdefault((item.kind, item.schema), []).append(item)
        self._wanted: dict[Object, list[str]] = {}
        self._synced: list[Object] = []
        self._taken = {name for name, access in request.access.items() if access == OWNER}

    def declare(self) -> Declaration:
        self._check()
        request = self._request
        database = Object(DATABASE, "", self._catalog.database)
        self._want(self._objects[database], ["CONNECT", "CREATE"] if request.create_on_database else ["CONNECT"])
        for schema, access in request.access.items():
            self._want_schema(schema, access)
        for (schema, name), privileges in request.table_privileges.items():
            self._want_table(schema, name, privileges)
        for schema, name, arguments in request.function_names:
            self._want_function(schema, name, arguments)
        new_ledger = self._want_ledger(request.ledger_schema) if request.ledger_schema is not None else None
        return Declaration(
            privileges=self._wanted,
            new_schemas=self._missing_schemas(),
            to_own=[item for schema in sorted(self._taken) for item in self._of_others(schema)],
            owned=self._taken | set(request.owned_schemas),
            taken=self._taken,
            new_ledger=new_ledger,
            synced=self._synced,
        )

    def _check(self) -> None:
        privileges = [*self._request.access.values(), *self._request.table_privileges.values()]
        if self._catalog.version < 17 and any("MAINTAIN" in some for some in privileges):
            raise self._error("Postgres 16 has no privilege MAINTAIN", "Leave it out, or use Postgres 17 or newer.")
        for role in (*(self._request.created_by or ()), *(self._request.member_of or ())):
            if role not in self._catalog.roles and role != self._request.identity:
                raise self._error(f"Role '{role}' does not exist", "Create it, or name another role.")

    def _want(self, item: Object, privileges: Iterable[str]) -> None:
        wanted = self._wanted.setdefault(item, [])
        wanted += [privilege for privilege in privileges if privilege not in wanted]

    def _want_schema(self, schema: str, access: str | Sequence[str]) -> None:
        item = self._schema(schema, "schemas")
        if access == OWNER:
            return
        self._want(item, ["USAGE", "CREATE"] if "CREATE" in access else ["USAGE"])
        on_tables = [privilege for privilege in access if privilege != "CREATE"]
        on_sequences = sequence_privileges(on_tables)
        for kind, privileges in ((TABLE, on_tables), (SEQUENCE, on_sequences)):
            for item in self._by_schema.get((kind, schema), ()):
                if privileges and not item.of_extension:
                    self._want(item, self._without_writing(item, privileges))
        if self._request.default_privileges:
            created_by = self._request.created_by
            for creator in (self._catalog.user,) if created_by is None else created_by:
                self._want_later(schema, creator, LATER_TABLES, on_tables)
                self._want_later(schema, creator, LATER_SEQUENCES, on_sequences)

    def _without_writing(self, item: Object, privileges: Sequence[str]) -> Sequence[str]:
        """Return the privileges, without those to write if it is a synced table."""
        if not item.is_synced or not set(WRITING) & set(privileges):
            return privileges
        self._synced.append(item)
        return [privilege for privilege in privileges if privilege not in WRITING]

    def _want_later(self, schema: str, creator: str, kind: str, privileges: Sequence[str]) -> None:
        # What the identity creates is its own.
        if privileges and creator != self._request.identity:
            self._want(Object(kind, schema, creator, owner=creator), privileges)

    def _want_table(self, schema: str, name: str, privileges: Sequence[str]) -> None:
        table = self._objects.get(Object(TABLE, schema, name))
        if table is None:
            raise self._missing(f"Table '{schema}.{name}'", "tables")
        writing = [privilege for privilege in privileges if privilege in WRITING]
        if table.is_synced and writing:
            what = f"tables asks for {', '.join(writing)} on '{schema}.{name}', which is a synced table"
            raise self._error(what, "Choose from SELECT, or pass 'read': only its pipeline writes the table.")
        self._want(self._schema(schema, "tables"), ["USAGE"])
        self._want(table, privileges)
        for sequence in self._by_schema.get((SEQUENCE, schema), ()):
            if sequence.table == (schema, name) and sequence.is_serial and sequence_privileges(privileges):
                self._want(sequence, sequence_privileges(privileges))

    def _want_function(self, schema: str, name: str, arguments: str | None) -> None:
        found = [item for item in self._by_schema.get((FUNCTION, schema), ()) if item.name == name]
        what = f"Function '{schema}.{name}{arguments or ''}'"
        if arguments is not None:
            signature = self._catalog.signatures[arguments]
            if signature is None:
                some = ", ".join(f"{name}({item.arguments})" for item in found) or f"such as {schema}.{name}(int)"
                raise self._error(f"{what} is not named as SQL does", f"Name only the types of its arguments: {some}.")
            found = [item for item in found if item.arguments == signature]
        if not found:
            raise self._missing(what, "functions")
        if len(found) > 1:
            some = ", ".join(f"{name}({item.arguments})" for item in found)
            raise self._error(f"{what} may be one of {some}", "Name the types of its arguments.")
        self._want(self._schema(schema, "functions"), ["USAGE"])
        self._want(found[0], ["EXECUTE"])

    def _want_ledger(self, schema: str) -> str | None:
        """Want the ledger; return its schema if it has to be created."""
        if schema in self._taken:
            return None
        user = self._catalog.user
        new = Object(SCHEMA, schema, schema, owner=user)
        item = self._objects.get(new, new)
        # In a schema of its own, the identity's tasks create what is missing.
        is_own = schema in self._request.owned_schemas or item.owner == self._request.identity
        if not is_own:
            self._want(item, ["USAGE"])
        others = [privilege for privilege in self._request.access.get(schema, ()) if privilege != "CREATE"]
        tables = [Object(TABLE, schema, name, owner=user) for name in LEDGER_TABLES]
        for table in tables:
            if table in self._objects or not is_own:
                self._want(self._objects.get(table, table), (*LEDGER_PRIVILEGES, *others))
        return None if is_own or all(table in self._objects for table in tables) else schema

    def _missing_schemas(self) -> list[str]:
        missing = []
        for schema in dict.fromkeys(self._request.owned_schemas):
            item = self._objects.get(Object(SCHEMA, schema, schema))
            if item is None:
                missing.append(schema)
            elif item.owner != self._request.identity:
                raise self._error(
                    f"Schema '{schema}' belongs to '{item.owner}'",
                    f"""To move it and what is in it, pass schemas={{"{schema}": "owner"}}.""",
                )
        return missing

    def _of_others(self, schema: str) -> list[Object]:
        """Return the schema and what is in it, of other owners.

        Synced tables stay the service's, and the sequence of a column follows its table.
        """
        kinds = (SCHEMA, TABLE, SEQUENCE, FUNCTION)
        items = [item for kind in kinds for item in self._by_schema.get((kind, schema), ())]
        return [
            item
            for item in items
            if item.owner != self._request.identity
            and not item.of_extension
            and not (item.kind == SEQUENCE and item.table)
            and not (item.kind != SCHEMA and self._catalog.role(item.owner).is_system)
        ]

    def _schema(self, name: str, argument: str) -> Object:
        item = self._objects.get(Object(SCHEMA, name, name))
        if item is None:
            raise self._missing(f"Schema '{name}'", argument)
        return item

    def _missing(self, what: str, argument: str) -> LakebaseRoleError:
        return self._error(f"{what} does not exist", f"Create it, or remove it from '{argument}'.")

    def _error(self, what: str, hint: str) -> LakebaseRoleError:
        return role_error(what, self._context, hint)


def role_error(message: str, context: ErrorContext, hint: str) -> LakebaseRoleError:
    """Return the error of a bootstrap that was rolled back.

    :param message: what happened
    :param context: connection and endpoint
    :param hint: what to do about it
    """
    return LakebaseRoleError(f"{message}; nothing was changed", context=context, hint=hint)
