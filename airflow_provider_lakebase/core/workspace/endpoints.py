"""Find an endpoint, its state and its host. None of it wakes the endpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress
from airflow_provider_lakebase.core.workspace.client import Workspace
from airflow_provider_lakebase.exceptions import (
    ErrorContext,
    LakebaseEndpointDisabledError,
    LakebaseSettingsError,
    LakebaseWorkspaceError,
)

_READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"


@dataclass(frozen=True)
class EndpointStatus:
    """The status of an endpoint, as the workspace returns it.

    :param name: resource name
    :param state: ``INIT``, ``ACTIVE``, ``IDLE`` or ``DEGRADED``
    :param disabled: whether it refuses connections, which then do not wake it
    :param host: Postgres host, or None while it has none
    :param read_only_host: host for sessions that only read, or None
    :param suspend_timeout: seconds without use after which it is suspended, or None if it never is
    """

    name: str
    state: str
    disabled: bool
    host: str | None
    read_only_host: str | None
    suspend_timeout: float | None = None

    def require_enabled(self, context: ErrorContext) -> None:
        """Refuse an endpoint that a connection cannot wake.

        :param context: context for the error
        :raises LakebaseEndpointDisabledError: when it is disabled
        """
        if self.disabled:
            hint = "Enable the endpoint in the workspace, or name another one."
            raise LakebaseEndpointDisabledError("The endpoint is disabled", context=context, hint=hint)


def read_endpoint(workspace: Workspace, name: ResourceName, *, timeout: float) -> EndpointStatus:
    """Return the status of an endpoint.

    :param workspace: the workspace to ask
    :param name: the endpoint, or a branch, which means its read-write endpoint
    :param timeout: seconds that it may take
    :raises LakebaseResourceNotFoundError: when it does not exist
    :raises LakebaseSettingsError: when a branch has no or several read-write endpoints
    :raises LakebaseWorkspaceError: when the workspace refuses otherwise
    """
    if name.kind == "endpoint":
        endpoint = workspace.call(lambda client: client.postgres.get(str(name)), timeout=timeout)
    else:
        endpoint = _only_endpoint(workspace, name, timeout)
    status = endpoint.get("status")
    if not status or not endpoint.get("name"):
        raise LakebaseWorkspaceError("The workspace answered without the endpoint's status", context=workspace.context)
    hosts = status.get("hosts") or {}
    return EndpointStatus(
        name=endpoint["name"],
        state=status.get("current_state") or "INIT",
        disabled=bool(status.get("disabled")),
        host=hosts.get("host"),
        read_only_host=hosts.get("read_only_host"),
        suspend_timeout=_seconds(status.get("suspend_timeout_duration")),
    )


class EndpointAddresses:
    """The host and role of each endpoint that was looked up."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[object, ...], SessionAddress] = {}

    def resolve(self, settings: LakebaseSettings, *, timeout: float, refresh: bool = False) -> SessionAddress:
        """Return endpoint, host and role of a session, looking up those that are not known yet.

        :param settings: a connection with an identity of the workspace
        :param timeout: seconds that it may take
        :param refresh: look it up again, because the known host cannot be reached
        :raises LakebaseSettingsError: when the connection names no endpoint
        :raises LakebaseWorkspaceError: when the endpoint has no host, or the workspace refuses
        """
        address = None if refresh else self._addresses.get(_key(settings))
        if address is None:
            self.forget(settings)
            address = self._addresses[_key(settings)] = _look_up(settings, time.monotonic() + timeout)
        return address

    def is_known(self, settings: LakebaseSettings) -> bool:
        """Return whether :meth:`resolve` has nothing to ask for an endpoint.

        :param settings: a connection that names an endpoint, not a branch
        """
        session, identity = settings.session, settings.require_identity()
        return _key(settings) in self._addresses or bool(session.pg_host and (session.user or identity.client_id))

    def forget(self, settings: LakebaseSettings) -> None:
        """Look the address up again at its next use.

        :param settings: the connection
        """
        self._addresses.pop(_key(settings), None)


PROCESS_ADDRESSES = EndpointAddresses()
"""The addresses that this process has looked up. They end with it."""


def _key(settings: LakebaseSettings) -> tuple[object, ...]:
    identity, session = settings.require_identity(), settings.session
    return (identity.key, settings.endpoint, session.read_only, session.pg_host, session.user)


def _look_up(settings: LakebaseSettings, deadline: float) -> SessionAddress:
    workspace, session = Workspace.of(settings), settings.session
    named, host = settings.require_endpoint(), session.pg_host
    endpoint = str(named)
    if not host or named.kind != "endpoint":
        status = read_endpoint(workspace, named, timeout=_left(deadline))
        endpoint = status.name
        host = host or (status.read_only_host if session.read_only else None) or status.host
    if not host:
        raise LakebaseWorkspaceError("The endpoint has no host yet", context=workspace.context, hint="Try again.")
    user = session.user or workspace.identity.client_id or workspace.user_name(timeout=_left(deadline))
    return SessionAddress(endpoint, host, user)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.1)


def _seconds(duration: str | None) -> float | None:
    """Return the seconds of a duration as the API writes it, such as ``300s``."""
    return float(duration.removesuffix("s")) if duration else None


def _only_endpoint(workspace: Workspace, branch: ResourceName, timeout: float) -> dict[str, Any]:
    found = workspace.call(lambda client: client.postgres.list_all(str(branch), "endpoints"), timeout=timeout)
    wanted = [each for each in found if (each.get("status") or {}).get("endpoint_type") == _READ_WRITE]
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(str(each.get("name")) for each in (wanted or found)) or "none at all"
    count = "several read-write endpoints" if wanted else "no read-write endpoint"
    raise LakebaseSettingsError(
        f"Branch {branch} has {count}: {names}", context=workspace.context, hint="Name the endpoint itself."
    )
