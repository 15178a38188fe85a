"""Build the hook from the arguments that operators, sensors, transfers and triggers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

_CONNECTION_ARGUMENTS = ("lakebase_conn_id", "conn_id", "postgres_conn_id")


def create_hook(lakebase_conn_id: str, hook_params: Any = None, **own: Any) -> LakebaseHook:
    """Return a hook.

    :param lakebase_conn_id: Airflow connection of type ``lakebase``
    :param hook_params: further arguments of the hook, a dict or None
    :param own: ``endpoint``, ``database`` and ``read_only``; None where not given
    :raises LakebaseSettingsError: as :func:`merge_hook_params` does
    """
    return LakebaseHook(lakebase_conn_id, **merge_hook_params(hook_params, **own))


def merge_hook_params(hook_params: Any, **own: Any) -> dict[str, Any]:
    """Merge ``hook_params`` with the arguments of an operator or sensor; return the hook's arguments.

    :param hook_params: a dict or None
    :param own: ``endpoint``, ``database`` and ``read_only``; None where not given
    :raises LakebaseSettingsError: if an argument is given in both places, ``hook_params`` names a connection, or it
        is not a dict
    """
    if not isinstance(hook_params or {}, Mapping):
        raise LakebaseSettingsError(
            f"hook_params is of type {type(hook_params).__name__}",
            hint="""Pass a dict, such as {"options": "-c statement_timeout=5min"}.""",
        )
    merged = {name: value for name, value in own.items() if value is not None}
    for name, value in (hook_params or {}).items():
        if name in _CONNECTION_ARGUMENTS:
            raise LakebaseSettingsError(
                f"hook_params contains {name}", hint="Pass lakebase_conn_id to the operator or sensor itself."
            )
        if value is None:
            continue
        argument = "database" if name == "schema" else name
        if argument in merged:
            raise LakebaseSettingsError(
                f"{argument} is given twice, the second time as '{name}' in hook_params", hint="Pass it once."
            )
        merged[argument] = value
    return merged
