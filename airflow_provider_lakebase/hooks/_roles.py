"""Bootstrap a role in one database after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.core.workspace.specs import check_flags
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow_provider_lakebase.core.grants.request import RoleRequest
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


def bootstrap_role(hook: LakebaseHook, request: RoleRequest, *, dry_run: bool, prune: bool) -> dict[str, Any]:
    """Bootstrap a role as :meth:`LakebaseHook.bootstrap_role` does.

    :param hook: opens the sessions
    :param request: the identity and what it is to have
    :param dry_run: only tell what a run would change
    :param prune: also revoke what is not declared
    """
    from airflow_provider_lakebase.core.grants.report import merge_reports

    check_flags(dry_run=dry_run, prune=prune)
    if request.databases and hook.database:
        raise LakebaseSettingsError(
            f"database is '{hook.database}', and databases is given too", hint="Give one of them."
        )
    databases = list(dict.fromkeys(request.databases or [hook.settings.session.database]))
    if len(databases) > 1 and not dry_run:
        # What one of them does not permit is found before the first is changed.
        for number, database in enumerate(databases):
            _bootstrap(hook, request, database, prune=prune, first=number == 0, dry_run=True, permitted=True)
    parts: list[dict[str, Any]] = []
    for database in databases:
        try:
            parts.append(_bootstrap(hook, request, database, prune=prune, first=not parts, dry_run=dry_run))
        except Exception as error:
            if parts and not dry_run:
                done = ", ".join(part["database"] for part in parts)
                error.add_note(f"Databases that were bootstrapped before: {done}")
            raise
    return merge_reports(request, parts, dry_run=dry_run)


def _bootstrap(
    hook: LakebaseHook,
    request: RoleRequest,
    database: str,
    *,
    prune: bool,
    first: bool,
    dry_run: bool,
    permitted: bool = False,
) -> dict[str, Any]:
    from airflow_provider_lakebase.core.grants.bootstrap import bootstrap_role

    with hook._create_autocommit_connection(database=database) as connection:
        return bootstrap_role(
            connection,
            request,
            dry_run=dry_run,
            prune=prune,
            whole_server=first,
            check_permitted=permitted or not dry_run,
            context=connection.context,
        )
