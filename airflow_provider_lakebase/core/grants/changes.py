"""The changes that put a role right: their SQL, who may make them, and how a log tells them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg import sql

from airflow_provider_lakebase.core.grants.catalog import Catalog
from airflow_provider_lakebase.core.grants.declaration import Declaration
from airflow_provider_lakebase.core.grants.drift import ADMIN_OPTION, MEMBER, OWNERSHIP, Drift, Excess, Gap
from airflow_provider_lakebase.core.grants.objects import (
    ROLE,
    SCHEMA,
    Object,
    describe,
    grant_statement,
    owner_statement,
    quote,
)
from airflow_provider_lakebase.core.grants.request import RoleRequest

T = TypeVar("T")
CREATE, GRANT, REVOKE, OWN = "create", "grant", "revoke", "own"


@dataclass(frozen=True)
class Change:
    """A change, made by one or more statements.

    :param action: ``create``, ``grant``, ``revoke`` or ``own``
    :param what: what is created, granted, revoked or owned, as a log says it
    :param statements: SQL, in order
    :param borrow: roles that the connection's role has to be a member of meanwhile
    :param act_as: role to SET ROLE to meanwhile
    :param lack: why the connection's role may not make the change; None if it may
    :param new_ledger: schema to create the ledger in, in place of statements
    """

    action: str
    what: str
    statements: tuple[sql.Composed, ...] = ()
    borrow: tuple[str, ...] = ()
    act_as: str | None = None
    lack: str | None = None
    new_ledger: str | None = None


def plan_changes(
    request: RoleRequest, catalog: Catalog, declaration: Declaration, drift: Drift, *, prune: bool
) -> list[Change]:
    """Return the changes that end a drift, in the order in which to make them.

    What is beyond is revoked first: also by default privileges, from which a new ledger would get it again.

    :param request: the identity
    :param catalog: what there is
    :param declaration: what the identity is to have
    :param drift: how that differs
    :param prune: whether to revoke what is beyond
    """
    planner = _Planner(request.identity, catalog)
    changes = planner.revokes(drift.beyond) if prune else []
    changes += [planner.new_schema(schema) for schema in declaration.new_schemas]
    changes += planner.moves([gap.object for gap in drift.short if gap.privilege == OWNERSHIP])
    if declaration.new_ledger is not None:
        changes.append(planner.new_ledger(declaration.new_ledger))
    return changes + planner.grants([gap for gap in drift.short if gap.privilege != OWNERSHIP])


def lack_of_role(catalog: Catalog) -> str | None:
    """Return what the connection's role lacks to create the role; None if there is one, or it may.

    :param catalog: what there is
    """
    if catalog.label is not None:
        return None
    lacks = [] if catalog.may_create_roles else ["CREATEROLE"]
    if not catalog.may_create:
        lacks.append(_create_on_database(catalog))
    return f"needs {' and '.join(lacks)}" if lacks else None


def _create_on_database(catalog: Catalog) -> str:
    return f"CREATE on database {quote(catalog.database)}"


class _Planner:
    def __init__(self, identity: str, catalog: Catalog) -> None:
        self._identity = identity
        self._catalog = catalog

    def new_schema(self, schema: str) -> Change:
        statement = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(
            sql.Identifier(schema), sql.Identifier(self._identity)
        )
        return Change(
            CREATE,
            f"schema {quote(schema)} of '{self._identity}'",
            (statement,),
            self._borrow_to_set(),
            lack=self._lack_of_create(),
        )

    def new_ledger(self, schema: str) -> Change:
        item = next((item for item in self._catalog.objects if (item.kind, item.name) == (SCHEMA, schema)), None)
        lack = self._lack_of_create() if item is None else None
        return Change(CREATE, f"the ledger in schema {quote(schema)}", lack=lack, new_ledger=schema)

    def moves(self, objects: Sequence[Object]) -> list[Change]:
        changes = []
        for (_, owner), items in _grouped(objects, lambda item: (item.group, item.owner)):
            statements = [owner_statement(item, self._identity) for item in items]
            borrow, lack = self._privileges_of(owner)
            if items[0].kind == SCHEMA:
                lack = lack or self._lack_of_create()
            what = f"{describe(items)}, owned by '{owner}' before"
            changes.append(Change(OWN, what, tuple(statements), (*self._borrow_to_set(), *borrow), lack=lack))
        return changes

    def grants(self, gaps: Sequence[Gap]) -> list[Change]:
        changes = []
        for role in (gap.object.name for gap in gaps if gap.privilege == MEMBER):
            lack = self._lack_of_membership(role)
            statement = sql.SQL("GRANT {} TO {} WITH INHERIT TRUE, SET TRUE").format(
                sql.Identifier(role), sql.Identifier(self._identity)
            )
            changes.append(Change(GRANT, f"membership of '{role}'", (statement,), lack=lack))
        by_object = _grouped([gap for gap in gaps if gap.privilege != MEMBER], lambda gap: gap.object)
        missing = [(item, tuple(gap.privilege for gap in some)) for item, some in by_object]
        for (_, privileges, borrow, lack), pairs in _grouped(missing, lambda pair: self._grant_key(*pair)):
            items = [item for item, _ in pairs]
            what = f"{', '.join(privileges)} on {describe(items)}"
            changes.append(
                Change(GRANT, what, (grant_statement(items, privileges, self._identity),), borrow, lack=lack)
            )
        return changes

    def _grant_key(self, item: Object, privileges: tuple[str, ...]) -> tuple[object, ...]:
        if not item.is_later and set(privileges) <= self._catalog.grantable.get(item, set()):
            return item.group, privileges, (), None
        return (item.group, privileges, *self._privileges_of(item.owner))

    def revokes(self, excesses: Sequence[Excess]) -> list[Change]:
        revocable = [excess for excess in excesses if excess.kept is None]
        # Default privileges and memberships first.
        revocable.sort(key=lambda excess: not (excess.object.is_later or excess.object.kind == ROLE))
        changes = []
        by_object = _grouped(revocable, lambda excess: (excess.object, excess.giver, excess.option))
        several = [(*key, tuple(excess.privilege for excess in some)) for key, some in by_object]
        for (_, _, giver, option, privileges), rows in _grouped(
            several, lambda row: (row[0].group, row[0].owner, row[1], row[2], row[3])
        ):
            changes.append(self._revoke([row[0] for row in rows], giver, option, privileges))
        return changes

    def _revoke(self, items: Sequence[Object], giver: str, option: bool, privileges: tuple[str, ...]) -> Change:
        first = items[0]
        if first.kind == ROLE:
            return self._revoke_membership(first.name, giver, privileges[0] == ADMIN_OPTION)
        statement = grant_statement(items, privileges, self._identity, revoke=True, option=option)
        words = f"the grant option for {', '.join(privileges)}" if option else ", ".join(privileges)
        what = f"{words} on {describe(items)}, granted by '{giver}'"
        if first.is_later:
            borrow, lack = self._privileges_of(giver)
            return Change(REVOKE, what, (statement,), borrow, lack=lack)
        borrow, act_as, lack = self._act_as(giver)
        return Change(REVOKE, what, (statement,), borrow, act_as, lack)

    def _revoke_membership(self, role: str, giver: str, option: bool) -> Change:
        statement = sql.SQL("REVOKE {}{} FROM {} GRANTED BY {}").format(
            sql.SQL("ADMIN OPTION FOR " if option else ""),
            sql.Identifier(role),
            sql.Identifier(self._identity),
            sql.Identifier(giver),
        )
        words = f"ADMIN OPTION on '{role}'" if option else f"membership of '{role}'"
        borrow, lack = self._privileges_of(giver)
        return Change(REVOKE, f"{words}, granted by '{giver}'", (statement,), borrow, lack=lack)

    def _act_as(self, giver: str) -> tuple[tuple[str, ...], str | None, str | None]:
        """Return what a REVOKE needs in order to be that of the grantor: only a grantor takes back what it gave.

        Postgres picks one of the roles whose privileges the current role has, and the current role itself first.
        """
        facts = self._catalog.role(giver)
        if giver == self._catalog.user:
            return (), None, None
        if facts.can_set:
            return (), giver, None
        if facts.is_admin:
            return (giver,), giver, None
        return (), None, None if facts.has_privileges else f"it is not '{giver}', and cannot SET ROLE to it"

    def _privileges_of(self, role: str) -> tuple[tuple[str, ...], str | None]:
        """Return the roles to borrow for the privileges of a role, and what is lacking for that."""
        facts = self._catalog.role(role)
        if facts.has_privileges:
            return (), None
        return ((role,), None) if facts.is_admin else ((), f"it is neither '{role}' nor a member of it")

    def _borrow_to_set(self) -> tuple[str, ...]:
        return () if self._catalog.role(self._identity).can_set else (self._identity,)

    def _lack_of_membership(self, role: str) -> str | None:
        if role in self._catalog.members:
            return f"'{role}' is itself a member of '{self._identity}'"
        return None if self._catalog.role(role).is_admin else f"needs ADMIN OPTION on '{role}'"

    def _lack_of_create(self) -> str | None:
        return None if self._catalog.may_create else f"needs {_create_on_database(self._catalog)}"


def _grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> Iterator[tuple[Any, list[T]]]:
    """Yield items that have a key in common, in the order in which the keys appear."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    yield from groups.items()
