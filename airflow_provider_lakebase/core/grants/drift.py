"""How what a role has differs from what is declared: short of it, and beyond it with what gave that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from airflow_provider_lakebase.core.grants.catalog import DATABASE_OWNER, PUBLIC, Catalog, Held, Membership
from airflow_provider_lakebase.core.grants.declaration import LEDGER_TABLES, Declaration
from airflow_provider_lakebase.core.grants.objects import (
    COLUMN,
    LATER_SCHEMAS,
    LATER_TABLES,
    ROLE,
    SCHEMA,
    TABLE,
    Object,
)
from airflow_provider_lakebase.core.grants.request import RoleRequest

OWNERSHIP, MEMBER, ADMIN_OPTION = "OWNERSHIP", "MEMBER", "ADMIN OPTION"
DIRECT, BY_MEMBERSHIP, BY_PUBLIC, BY_OWNERSHIP = "direct", "membership", "PUBLIC", "ownership"


@dataclass(frozen=True)
class Gap:
    """A privilege that is declared and that the role does not have itself.

    :param object: what on
    :param privilege: as SQL writes it; also ``OWNERSHIP`` and ``MEMBER``
    """

    object: Object
    privilege: str


@dataclass(frozen=True)
class Excess:
    """A privilege that the role has and that is not declared.

    :param object: what on
    :param privilege: as SQL writes it; also ``MEMBER`` and ``ADMIN OPTION``
    :param by: what gives it: ``direct``, ``membership``, ``PUBLIC`` or ``ownership``
    :param giver: the grantor of a direct grant, or the role whose member this one is
    :param option: whether only the option to grant it to others is not declared
    :param kept: why it cannot be revoked from the role; None if it can
    """

    object: Object
    privilege: str
    by: str
    giver: str
    option: bool = False
    kept: str | None = None


@dataclass(frozen=True)
class Drift:
    """How what a role has differs from what is declared, in one database.

    :param short: what is declared and not there
    :param beyond: what is there and not declared
    :param remaining: what is beyond after the changes
    """

    short: list[Gap]
    beyond: list[Excess]
    remaining: list[Excess]


def find_drift(
    request: RoleRequest, catalog: Catalog, declaration: Declaration, *, prune: bool = False, whole_server: bool = True
) -> Drift:
    """Compare what a role has with what is declared.

    What only PUBLIC or another role gives is short, since it can go without notice.

    :param request: the identity
    :param catalog: what it has
    :param declaration: what it is to have
    :param prune: whether what is beyond will be revoked
    :param whole_server: whether memberships, which are the same in all databases, are compared here; else another
        database's comparison puts them right
    """
    memberships = list(_excess_memberships(request, catalog))
    revoked = {
        (item.object.name, item.giver) for item in memberships if prune and item.privilege == MEMBER and not item.kept
    }
    inherited = [item for item in catalog.memberships if item.inherits]
    left = {item.role for item in inherited if (item.role, item.grantor) not in revoked} | set(request.member_of or ())
    before = _holders(request, catalog, {item.role for item in inherited} if whole_server else left)
    after = _holders(request, catalog, left)
    short = list(_gaps(request, catalog, declaration))
    excesses = list(_excesses(request, catalog, declaration, catalog.held))
    beyond = [excess for holder, excess in excesses if holder in before]
    excesses += _excesses(request, catalog, declaration, _held_on_ledger(catalog, declaration))
    remaining = [excess for holder, excess in excesses if holder in after]
    if whole_server:
        short += _missing_memberships(request, catalog)
        beyond += memberships
        remaining += memberships
    remaining = [excess for excess in remaining if excess.kept or not prune]
    return Drift(short, sorted(beyond, key=_place), sorted(remaining, key=_place))


def _place(excess: Excess) -> tuple[Object, str, str]:
    return (excess.object, excess.by, excess.giver)


def _holders(request: RoleRequest, catalog: Catalog, memberships: set[str]) -> set[str]:
    """Return the roles that a member of these has the privileges of."""
    owner = {DATABASE_OWNER} if catalog.database_owner == request.identity else set()
    return {request.identity, PUBLIC}.union(*(catalog.inherited.get(role, ()) for role in memberships | owner))


def _gaps(request: RoleRequest, catalog: Catalog, declaration: Declaration) -> Iterator[Gap]:
    held = {(item.object, item.privilege) for item in catalog.held if item.holder == request.identity}
    for item in declaration.to_own:
        yield Gap(item, OWNERSHIP)
    for item, privileges in declaration.privileges.items():
        for privilege in privileges:
            if (item, privilege) not in held:
                yield Gap(item, privilege)


def _held_on_ledger(catalog: Catalog, declaration: Declaration) -> Iterator[Held]:
    """Yield what default privileges will give on the ledger and its schema, which do not exist yet."""
    schema = declaration.new_ledger
    if schema is None:
        return
    made = [Object(TABLE, schema, name, owner=catalog.user) for name in LEDGER_TABLES]
    new = {
        LATER_TABLES: [table for table in made if table not in catalog.objects],
        LATER_SCHEMAS: [item for item in (Object(SCHEMA, schema, schema),) if item not in catalog.objects],
    }
    for held in catalog.held:
        later = held.object
        if later.name == catalog.user and later.schema in ("", schema):
            yield from (replace(held, object=item) for item in new.get(later.kind, ()))


def _excesses(
    request: RoleRequest, catalog: Catalog, declaration: Declaration, held_there: Iterable[Held]
) -> Iterator[tuple[str, Excess]]:
    for held in held_there:
        item = held.object
        by = _by(request, held)
        is_declared = held.privilege in declaration.privileges.get(_declared_object(item), ())
        if item.of_extension and by != DIRECT:
            continue  # the service's, which gives the same to everybody
        if item.schema in declaration.taken or (by == BY_OWNERSHIP and item.schema in declaration.owned):
            continue
        if item.kind == SCHEMA and item.name in declaration.owned and by != DIRECT:
            continue  # which an owner has anyway
        if item.is_later and held.holder == item.owner:
            continue  # what a role creates is its own
        option = is_declared and by in (DIRECT, BY_MEMBERSHIP) and held.grantable
        if is_declared and not option:
            continue
        giver = {DIRECT: held.grantor, BY_MEMBERSHIP: held.holder}.get(by, "")
        yield held.holder, Excess(item, held.privilege, by, giver, option, _kept(request, catalog, held, by))


def _declared_object(item: Object) -> Object:
    """Return the object on which a privilege would be declared: of a column, the table."""
    return Object(TABLE, item.schema, item.name) if item.kind == COLUMN else item


def _by(request: RoleRequest, held: Held) -> str:
    if held.holder == PUBLIC:
        return BY_PUBLIC
    if held.holder != request.identity:
        return BY_MEMBERSHIP
    return BY_OWNERSHIP if held.object.owner == request.identity else DIRECT


def _kept(request: RoleRequest, catalog: Catalog, held: Held, by: str) -> str | None:
    """Return why a privilege cannot be revoked from the role."""
    if by != DIRECT:
        reasons = {
            BY_PUBLIC: "every role has it",
            BY_MEMBERSHIP: f"it is that of '{held.holder}'",
            BY_OWNERSHIP: "the role is the owner",
        }
        return reasons[by]
    if held.object.of_extension:
        return "the object belongs to an extension"
    if catalog.database_owner == request.identity:
        return "the role owns the database"
    if (held.object, held.privilege) in catalog.passed_on:
        return "the role has granted it to others"
    return _kept_by_system(catalog, held.grantor)


def _kept_by_system(catalog: Catalog, grantor: str) -> str | None:
    """Return that a system role granted it, unless the connection's role can act as that role."""
    facts = catalog.role(grantor)
    if facts.is_system and not (facts.has_privileges or facts.can_set):
        return f"the system role '{grantor}' granted it"
    return None


def _missing_memberships(request: RoleRequest, catalog: Catalog) -> Iterable[Gap]:
    inherited = {item.role for item in catalog.memberships if item.inherits}
    for role in dict.fromkeys(request.member_of or ()):
        if role not in inherited:
            yield Gap(Object(ROLE, "", role), MEMBER)


def _excess_memberships(request: RoleRequest, catalog: Catalog) -> Iterable[Excess]:
    for item in catalog.memberships:
        is_declared = item.role in (request.member_of or ())
        if is_declared and not item.admin:
            continue
        privilege = ADMIN_OPTION if is_declared else MEMBER
        kept = _kept_membership(request, catalog, item)
        yield Excess(Object(ROLE, "", item.role), privilege, DIRECT, item.grantor, is_declared, kept)


def _kept_membership(request: RoleRequest, catalog: Catalog, item: Membership) -> str | None:
    if request.member_of is None:
        return "'member_of' is not declared"
    if catalog.role(item.role).is_system:
        return f"'{item.role}' is a system role"
    if catalog.database_owner == request.identity:
        return "the role owns the database"
    if item.passed_on:
        return "the role has made others members"
    return _kept_by_system(catalog, item.grantor)
