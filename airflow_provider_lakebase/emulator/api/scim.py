"""The identities of the workspace over HTTP, in SCIM's form. They are read only: the emulator's methods add them."""

from __future__ import annotations

import re
from functools import partial

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, invalid, not_imitated
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_TYPES = {"Users": "USER", "ServicePrincipals": "SERVICE_PRINCIPAL", "Groups": "GROUP"}
_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:{}"
_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_FILTER = re.compile(r'\s*(\w+)\s+eq\s+"?([^"]*)"?\s*', re.IGNORECASE)


def _me(workspace: Workspace, call: Call, caller: Principal) -> Json:
    # Also a service principal is shown as a user here.
    return {**_json(workspace, caller), "schemas": [_SCHEMA.format("User")], "userName": caller.role}


def _get(workspace: Workspace, call: Call, caller: Principal, *, collection: str) -> Json:
    for principal in _all(workspace, collection):
        if principal.scim_id == call.values["id"]:
            return _json(workspace, principal)
    kind = collection.removesuffix("s")
    raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"{kind} with id {call.values['id']} not found.")


def _list(workspace: Workspace, call: Call, caller: Principal, *, collection: str) -> Json:
    found = [_json(workspace, each) for each in _all(workspace, collection)]
    if "filter" in call.query:
        name, value = _filter(call.query["filter"])
        found = [each for each in found if _matches(each, name, value)]
    start, count = _number(call, "startIndex", 1), _number(call, "count", 100)
    page = found[max(start, 1) - 1 :][:count]
    return {
        "schemas": [_LIST],
        "totalResults": len(found),
        "startIndex": start,
        "itemsPerPage": len(page),
        "Resources": page,
    }


def _all(workspace: Workspace, collection: str) -> list[Principal]:
    return [each for each in workspace.identities.principals() if each.identity_type == _TYPES[collection]]


def _json(workspace: Workspace, principal: Principal) -> Json:
    found: Json = {"id": principal.scim_id, "displayName": principal.display_name}
    if principal.identity_type == "GROUP":
        members = workspace.identities.members(principal)
        return {
            **found,
            "schemas": [_SCHEMA.format("Group")],
            "members": [{"value": each.scim_id, "display": each.display_name} for each in members],
        }
    found |= {
        "active": True,
        "entitlements": [{"value": "workspace-access"}] if principal.workspace_access else [],
        "groups": [
            {"value": each.scim_id, "display": each.display_name} for each in workspace.identities.groups_of(principal)
        ],
    }
    if principal.identity_type == "USER":
        emails = [{"value": principal.role, "type": "work", "primary": True}]
        return {**found, "schemas": [_SCHEMA.format("User")], "userName": principal.role, "emails": emails}
    return {**found, "schemas": [_SCHEMA.format("ServicePrincipal")], "applicationId": principal.client_id}


def _filter(text: str) -> tuple[str, str]:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise not_imitated(f'filters other than `attribute eq "value"`, such as {text!r}')
    return match[1], match[2]


def _matches(resource: Json, name: str, value: str) -> bool:
    by_name = {key.lower(): str(each) for key, each in resource.items()}
    if name.lower() not in by_name:
        raise invalid(f"The filter's attribute {name!r} is not one of {', '.join(resource)}")
    return by_name[name.lower()].lower() == value.lower()


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isdecimal():
        raise invalid(f"Field '{name}' must be a number, not {text!r}")
    return int(text)


_SCIM = "/api/2.0/preview/scim/v2"

ROUTES = [
    Route("GET", f"{_SCIM}/Me", _me),
    *(Route("GET", f"{_SCIM}/{each}", partial(_list, collection=each)) for each in _TYPES),
    *(Route("GET", f"{_SCIM}/{each}/{{id=*}}", partial(_get, collection=each)) for each in _TYPES),
]
