"""The report of a bootstrap: plain values, small enough for an XCom, whatever the number of tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow_provider_lakebase.core.grants.catalog import Catalog
from airflow_provider_lakebase.core.grants.changes import CREATE, GRANT, OWN, REVOKE, Change, lack_of_role
from airflow_provider_lakebase.core.grants.declaration import Declaration
from airflow_provider_lakebase.core.grants.drift import Drift, Excess, Gap
from airflow_provider_lakebase.core.grants.objects import ROLE, describe, quote
from airflow_provider_lakebase.core.grants.request import RoleRequest

MOST_ROWS = 200
MOST_NAMES = 50
_LISTS = {CREATE: "created", GRANT: "granted", REVOKE: "revoked", OWN: "owned"}


def report_database(
    request: RoleRequest,
    catalog: Catalog,
    declaration: Declaration,
    drift: Drift,
    changes: Sequence[Change],
    *,
    whole_server: bool = True,
) -> dict[str, Any]:
    """Return the report of one database.

    :param request: the identity
    :param catalog: the database before the changes
    :param declaration: what the identity is to have
    :param drift: how it differed from what is declared
    :param changes: what was changed, or would be
    :param whole_server: whether the role, which is the same in all databases, would be created here
    """
    lacks = [(f"{change.action} {change.what}", change.lack) for change in changes]
    if whole_server:
        lacks.insert(0, (f"{CREATE} role '{request.identity}'", lack_of_role(catalog)))
    ledger = "created" if any(change.new_ledger for change in changes) else "found"
    return {
        "database": catalog.database,
        "extension": "found" if catalog.extension else "created",
        "role": "found" if catalog.label else "created",
        "ledger": ledger if request.ledger_schema is not None else None,
        **{list_: [change.what for change in changes if change.action == action] for action, list_ in _LISTS.items()},
        "short": [_short_row(catalog, *row) for row in _rows(drift.short)],
        "beyond": [_beyond_row(catalog, *row) for row in _rows(drift.beyond)],
        "remaining": [{**_beyond_row(catalog, *row), "why": row[1][0].kept} for row in _rows(drift.remaining)],
        "not_permitted": [f"{what}: {lack}" for what, lack in lacks if lack],
        "synced": [f"{quote(item.schema)}.{quote(item.name)}" for item in declaration.synced],
    }


def merge_reports(request: RoleRequest, parts: Sequence[dict[str, Any]], *, dry_run: bool) -> dict[str, Any]:
    """Return the report of all databases.

    :param request: the identity
    :param parts: reports of each database
    :param dry_run: whether nothing was changed
    """
    report: dict[str, Any] = {
        "identity": request.identity,
        "identity_type": request.identity_type,
        "databases": [part["database"] for part in parts],
        "dry_run": dry_run,
    }
    for name in ("extension", "role", "ledger"):
        found = [part[name] for part in parts]
        report[name] = "created" if "created" in found else found[0]
    report["changed"] = "created" in (report["extension"], report["role"])
    for name in _LISTS.values():
        report[name] = _bounded(_with_database(parts, name))
        report["changed"] = report["changed"] or bool(report[name])
    for name in ("short", "beyond", "remaining"):
        report[name] = _bounded([row for part in parts for row in part[name]])
    for name in ("not_permitted", "synced"):
        report[name] = _bounded(_with_database(parts, name))
    return report


def _with_database(parts: Sequence[dict[str, Any]], name: str) -> list[str]:
    if len(parts) == 1:
        return list(parts[0][name])
    return [f"{text} (database {part['database']})" for part in parts for text in part[name]]


def _bounded(rows: list[Any], most: int = MOST_ROWS) -> list[Any]:
    return rows if len(rows) <= most else [*rows[:most], f"and {len(rows) - most} more"]


def _rows(items: Iterable[Gap] | Iterable[Excess]) -> list[tuple[tuple[str, ...], list[Any]]]:
    """Group gaps or excesses by object, then those objects of one kind and schema that are alike."""
    by_object: dict[Any, list[Any]] = {}
    for item in items:
        by_object.setdefault((item.object, _cause(item)), []).append(item)
    alike: dict[Any, tuple[tuple[str, ...], list[Any]]] = {}
    for (item, cause), some in by_object.items():
        privileges = tuple(one.privilege for one in some)
        alike.setdefault((item.group, cause, privileges), (privileges, []))[1].append(some[0])
    return list(alike.values())


def _cause(item: Gap | Excess) -> tuple[object, ...]:
    return (item.by, item.giver, item.option, item.kept) if isinstance(item, Excess) else ()


def _short_row(catalog: Catalog, privileges: Sequence[str], items: Sequence[Gap]) -> dict[str, Any]:
    objects = [item.object for item in items]
    return {
        "database": catalog.database,
        "object": describe(objects),
        "names": _bounded([str(item) for item in objects], MOST_NAMES),
        "privileges": list(privileges),
    }


def _beyond_row(catalog: Catalog, privileges: Sequence[str], items: Sequence[Excess]) -> dict[str, Any]:
    first = items[0]
    names = [f"{privilege} WITH GRANT OPTION" if first.option else privilege for privilege in privileges]
    if first.object.kind == ROLE:
        names = list(privileges)
    row = _short_row(catalog, names, items)  # type: ignore[arg-type]
    return {**row, "by": first.by, "from": first.giver or None}
