"""Database credentials over HTTP."""

from __future__ import annotations

import re

from airflow_provider_lakebase.emulator.api.access import require_level
from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, invalid, not_imitated
from airflow_provider_lakebase.emulator.model.fields import (
    read_choice,
    read_duration,
    read_object,
    read_objects,
    read_time,
    timestamp,
)
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.permissions import CAN_USE
from airflow_provider_lakebase.emulator.model.workspace import Workspace

CREDENTIAL_SECONDS = 3600.0
MIN_CREDENTIAL_SECONDS = 300.0

_FIELDS = {"endpoint", "claims", "ttl", "expire_time", "group_name"}
_ENDPOINT = re.compile(r"(projects/[^/]+)/branches/[^/]+/endpoints/[^/]+")


def _issue(workspace: Workspace, call: Call, caller: Principal) -> Json:
    request = read_object("request", call.json(), _FIELDS)
    name = request.get("endpoint")
    if not name:
        raise invalid("Field 'endpoint' is required")
    match = _ENDPOINT.fullmatch(str(name))
    if match is None:
        raise invalid(f"Field 'endpoint' is not the name of an endpoint: {name!r}")
    require_level(caller, workspace.projects.require(match[1]), CAN_USE)
    workspace.endpoints.require_of(str(name))
    expires_at = _expiry(request, workspace.clock())
    owner = _owner(workspace, request, caller)
    token = workspace.issue_credential(owner, expires_at, read_only=_is_read_only(request))
    return {"token": token, "expire_time": timestamp(expires_at)}


def _owner(workspace: Workspace, request: Json, caller: Principal) -> Principal:
    name = request.get("group_name")
    if not name:
        return caller
    group = workspace.identities.group_of(caller, str(name))
    if group is None:
        message = f"The user {caller.scim_id} is not a member of a group {name!r} of this workspace."
        raise ApiError(403, "PERMISSION_DENIED", message)
    return group


def _is_read_only(request: Json) -> bool:
    """Return whether the claims ask for a credential that only reads."""
    claims = read_objects("claims", request.get("claims"), {"permission_set", "resources"})
    for permissions in claims:
        if permissions.get("permission_set") != "READ_ONLY":
            raise invalid(f"Field 'claims.permission_set' must be READ_ONLY, not {permissions.get('permission_set')!r}")
        if permissions.get("resources"):
            raise not_imitated("the field 'claims.resources', which limits a credential to tables of Unity Catalog")
    return bool(claims)


def _expiry(request: Json, now: float) -> float:
    """Return when the requested credential expires, in seconds since 1970.

    Raise ``ApiError`` unless it lives for 5 minutes to 1 hour.
    """
    field = read_choice("request", request, ("ttl", "expire_time"))
    if field is None:
        return now + CREDENTIAL_SECONDS
    seconds = read_duration("ttl", request[field]) if field == "ttl" else read_time(field, request[field]) - now
    # An absolute time gets a second of grace for the time that the request took to arrive.
    if not MIN_CREDENTIAL_SECONDS - 1 < seconds <= CREDENTIAL_SECONDS or (
        field == "ttl" and seconds < MIN_CREDENTIAL_SECONDS
    ):
        raise invalid(f"Field '{field}' must be at least 300 seconds and at most 3600 seconds from now")
    return now + seconds


ROUTES = [Route("POST", "/api/2.0/postgres/credentials", _issue)]
