"""Read an endpoint's state and host. Reading does not wake it."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError
from airflow_provider_lakebase.settings import LakebaseSettings
from airflow_provider_lakebase.workspace.client import call_workspace


@dataclass(frozen=True)
class EndpointStatus:
    """Hold what the workspace says of an endpoint.

    :param state: ``INIT``, ``ACTIVE``, ``IDLE`` or ``DEGRADED``
    :param disabled: whether connections are refused and do not wake it
    :param host: Postgres host, or None while it has none
    """

    state: str
    disabled: bool
    host: str | None


_hosts: dict[tuple[str, str], str] = {}


def read_endpoint(settings: LakebaseSettings, *, timeout: float) -> EndpointStatus:
    """Return the endpoint's state, whether it is disabled, and its host.

    :param settings: which endpoint, as whom
    :param timeout: seconds that it may take
    :raises LakebaseEndpointNotFoundError: when there is no such endpoint
    :raises LakebaseWorkspaceError: when the workspace refuses otherwise
    """
    endpoint = call_workspace(settings, lambda client: client.postgres.get_endpoint(settings.endpoint), timeout=timeout)
    status = endpoint.status
    if status is None:
        raise LakebaseWorkspaceError("The workspace answered without the endpoint's status", where=settings.where)
    return EndpointStatus(
        state=status.current_state.value if status.current_state else "INIT",
        disabled=bool(status.disabled),
        host=status.hosts.host if status.hosts else None,
    )


def find_host(settings: LakebaseSettings, *, timeout: float, again: bool = False) -> str:
    """Return the Postgres host: the connection's own, or the one looked up and kept for the process.

    :param settings: which endpoint, as whom
    :param timeout: seconds that a look-up may take
    :param again: look up once more, because the known host cannot be reached
    :raises LakebaseWorkspaceError: when the endpoint has no host (yet), or the workspace refuses
    """
    if settings.pg_host:
        return settings.pg_host
    key = (settings.host, settings.endpoint)
    if again or key not in _hosts:
        host = read_endpoint(settings, timeout=timeout).host
        if not host:
            raise LakebaseWorkspaceError("The endpoint has no host yet", where=settings.where, remedy="Try again.")
        _hosts[key] = host
    return _hosts[key]
