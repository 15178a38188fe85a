"""Find an endpoint, its state and its host, and who the identity is. None of it wakes the endpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass

from databricks.sdk.service.postgres import Endpoint, EndpointType

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress
from airflow_provider_lakebase.core.workspace.client import call_workspace
from airflow_provider_lakebase.exceptions import (
    LakebaseEndpointDisabledError,
    LakebaseSettingsError,
    LakebaseWorkspaceError,
)


@dataclass(frozen=True)
class EndpointStatus:
    """Hold what the workspace says of an endpoint.

    :param name: its resource name
    :param state: ``INIT``, ``ACTIVE``, ``IDLE`` or ``DEGRADED``
    :param disabled: whether connections are refused and do not wake it
    :param host: Postgres host, or None while it has none
    :param read_only_host: host for sessions that only read, or None where there is none
    :param suspend_timeout: seconds without use after which it is suspended, or None where it never is
    """

    name: str
    state: str
    disabled: bool
    host: str | None
    read_only_host: str | None
    suspend_timeout: float | None = None


_locations: dict[tuple[str | bool | None, ...], SessionAddress] = {}


def read_endpoint(settings: LakebaseSettings, *, timeout: float) -> EndpointStatus:
    """Return the endpoint's state, whether it is disabled, and its hosts.

    :param settings: which endpoint, or which branch's, as whom
    :param timeout: seconds that it may take
    :raises LakebaseEndpointNotFoundError: when there is no such endpoint
    :raises LakebaseSettingsError: when a branch has not just one read-write endpoint
    :raises LakebaseWorkspaceError: when the workspace refuses otherwise
    """
    if "/endpoints/" in settings.endpoint:
        endpoint = call_workspace(
            settings, lambda client: client.postgres.get_endpoint(settings.endpoint), timeout=timeout
        )
    else:
        endpoint = _only_endpoint(settings, timeout)
    status = endpoint.status
    if status is None or endpoint.name is None:
        raise LakebaseWorkspaceError("The workspace answered without the endpoint's status", context=settings.context)
    return EndpointStatus(
        name=endpoint.name,
        state=status.current_state.value if status.current_state else "INIT",
        disabled=bool(status.disabled),
        host=status.hosts.host if status.hosts else None,
        read_only_host=status.hosts.read_only_host if status.hosts else None,
        suspend_timeout=status.suspend_timeout_duration.seconds if status.suspend_timeout_duration else None,
    )


def require_enabled(settings: LakebaseSettings, status: EndpointStatus) -> None:
    """Do nothing for an endpoint that a connection can wake.

    :param settings: for the message
    :param status: what the workspace said of it
    :raises LakebaseEndpointDisabledError: when it is disabled
    """
    if status.disabled:
        hint = "Enable the endpoint in the workspace, or name another one."
        raise LakebaseEndpointDisabledError("The endpoint is disabled", context=settings.context, hint=hint)


def locate(settings: LakebaseSettings, *, timeout: float, again: bool = False) -> SessionAddress:
    """Return endpoint, host and role of a session; what had to be asked is kept for the process.

    :param settings: what the connection says
    :param timeout: seconds that it may take
    :param again: look the host up once more, because the known one cannot be reached
    :raises LakebaseWorkspaceError: when the endpoint has no host (yet), or the workspace refuses
    """
    location = None if again else _locations.get(_key(settings))
    if location is None:
        forget_location(settings)
        location = _locations[_key(settings)] = _look_up(settings, time.monotonic() + timeout)
    return location


def forget_location(settings: LakebaseSettings) -> None:
    """Forget what is kept for the process, after a failure that it may be the cause of.

    :param settings: what the connection says
    """
    _locations.pop(_key(settings), None)


def _key(settings: LakebaseSettings) -> tuple[str | bool | None, ...]:
    return (settings.identity, settings.endpoint, settings.read_only, settings.pg_host, settings.user)


def _look_up(settings: LakebaseSettings, deadline: float) -> SessionAddress:
    endpoint, host = settings.endpoint, settings.pg_host
    if not host or "/endpoints/" not in endpoint:
        status = read_endpoint(settings, timeout=max(deadline - time.monotonic(), 0.1))
        endpoint = status.name
        host = host or (status.read_only_host if settings.read_only else None) or status.host
    if not host:
        raise LakebaseWorkspaceError("The endpoint has no host yet", context=settings.context, hint="Try again.")
    user = settings.user or settings.workspace.get("client_id")
    return SessionAddress(endpoint, host, user or _me(settings, max(deadline - time.monotonic(), 0.1)))


def _me(settings: LakebaseSettings, timeout: float) -> str:
    me = call_workspace(settings, lambda client: client.current_user.me(), timeout=timeout)
    if not me.user_name:
        raise LakebaseWorkspaceError("The workspace does not say who the identity is", context=settings.context)
    return me.user_name


def _only_endpoint(settings: LakebaseSettings, timeout: float) -> Endpoint:
    """Return the one read-write endpoint of a branch."""
    branch = settings.endpoint
    found = call_workspace(settings, lambda client: list(client.postgres.list_endpoints(branch)), timeout=timeout)
    wanted = [
        each for each in found if each.status and each.status.endpoint_type is EndpointType.ENDPOINT_TYPE_READ_WRITE
    ]
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(str(each.name) for each in (wanted or found)) or "none at all"
    count = "several read-write endpoints" if wanted else "no read-write endpoint"
    raise LakebaseSettingsError(
        f"Branch {branch} has {count}: {names}",
        context=settings.context,
        hint="Name the endpoint itself.",
    )
