"""The workspace API: routes each call to a handler, which reads or changes the state and returns JSON. No I/O."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable

from airflow_provider_lakebase.emulator.api import oauth, resources
from airflow_provider_lakebase.emulator.api.messages import ApiError, Call, Json, Reply, invalid, not_found
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import PROJECT, Endpoint, State

CREDENTIAL_SECONDS = 3600.0
MIN_CREDENTIAL_SECONDS = 300.0

_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


def answer(state: State, call: Call) -> Reply:
    """Answer one call."""
    caller: Principal | None = None
    try:
        if call.path in oauth.ROUTES:
            caller, body = oauth.ROUTES[call.path](state, call)
        elif (page := resources.page(state, call.path)) and call.method == "GET":
            return Reply(200, page)
        else:
            caller = _caller(state, call)
            _require_workspace_access(caller)
            body = _find(call)(state, call, caller)
        return Reply(200, body, caller.client_id if caller else None)
    except ApiError as error:
        return Reply(error.status, error.body, caller.client_id if caller else None)


# -- handlers of calls that need a workspace token


def _caller(state: State, call: Call) -> Principal:
    scheme, _, token = call.authorization.partition(" ")
    principal = state.identities.workspace_token_owner(token) if scheme.lower() == "bearer" else None
    if principal is None:
        raise ApiError(401, "UNAUTHENTICATED", f"Invalid access token. [ReqId: {uuid.uuid4()}]")
    return principal


def _require_workspace_access(caller: Principal) -> None:
    if not caller.workspace_access:
        raise ApiError(
            403, "PERMISSION_DENIED", "This API is disabled for users without the workspace-access entitlement"
        )


def _me(state: State, call: Call, caller: Principal) -> Json:
    return resources.me(caller)


def _credential(state: State, call: Call, caller: Principal) -> Json:
    request = call.json()
    name = request.get("endpoint")
    if not name:
        raise invalid("Field 'endpoint' is required")
    _require_resource(state, str(name), caller)
    if name not in state.endpoints:
        raise invalid(f"Field 'endpoint' is not the name of an endpoint: {name!r}")
    expires_at = _expiry(request, state.clock())
    token = state.issue_credential(_credential_owner(state, request, caller), expires_at)
    return {"token": token, "expire_time": resources.timestamp(expires_at)}


def _credential_owner(state: State, request: Json, caller: Principal) -> Principal:
    name = request.get("group_name")
    if not name:
        return caller
    group = state.identities.group_of(caller, str(name))
    if group is None:
        message = f"The user {caller.scim_id} is not a member of a group {name!r} of this workspace."
        raise ApiError(403, "PERMISSION_DENIED", message)
    return group


def _resource(state: State, call: Call, caller: Principal) -> Json:
    name = _name(call)
    _require_resource(state, name, caller)
    if name == PROJECT:
        return resources.project(state)
    return resources.branch(state, name) if name in state.branches else resources.endpoint(state.endpoints[name])


def _projects(state: State, call: Call, caller: Principal) -> Json:
    return {"projects": [resources.project(state)] if caller.can_use_project else []}


def _branches(state: State, call: Call, caller: Principal) -> Json:
    _require_resource(state, _name(call).removesuffix("/branches"), caller)
    return {"branches": [resources.branch(state, name) for name in state.branches]}


def _endpoints(state: State, call: Call, caller: Principal) -> Json:
    branch = _name(call).removesuffix("/endpoints")
    _require_resource(state, branch, caller)
    return {"endpoints": [resources.endpoint(each) for each in state.endpoints.values() if each.branch == branch]}


def _update_endpoint(state: State, call: Call, caller: Principal) -> Json:
    """Disable or enable an endpoint. The gate suspends a disabled one within a second."""
    name = _name(call)
    _require_resource(state, name, caller)
    if call.query.get("update_mask") != "spec.disabled":
        raise invalid("the emulator supports only update_mask=spec.disabled")
    disabled = (call.json().get("spec") or {}).get("disabled", False)
    if not isinstance(disabled, bool):
        raise invalid(f"Field 'spec.disabled' must be true or false, not {disabled!r}")
    state.endpoints[name].set_disabled(disabled)
    return _done(state.endpoints[name], str(uuid.uuid4()))


def _operation(state: State, call: Call, caller: Principal) -> Json:
    """Return an operation on an endpoint as done: operations finish at once and are not stored."""
    name, _, operation_id = _name(call).partition("/operations/")
    _require_resource(state, name, caller)
    return _done(state.endpoints[name], operation_id)


def _done(endpoint: Endpoint, operation_id: str) -> Json:
    name = f"{endpoint.name}/operations/{operation_id}"
    return {"name": name, "done": True, "metadata": {}, "response": resources.endpoint(endpoint)}


def _name(call: Call) -> str:
    return call.path.removeprefix("/api/2.0/postgres/")


def _require_resource(state: State, name: str, caller: Principal) -> None:
    """Raise ``ApiError`` if the resource or an ancestor does not exist, or if the caller may not use the project."""
    parts = name.split("/")
    for depth, kind, known in (
        (2, "project", [PROJECT]),
        (4, "branch", state.branches),
        (6, "endpoint", state.endpoints),
    ):
        if depth <= len(parts) and "/".join(parts[:depth]) not in known:
            raise not_found(kind)
    if len(parts) not in (2, 4, 6):
        raise invalid(f"{name!r} is not the name of a project, a branch or an endpoint")
    if not caller.can_use_project:
        raise ApiError(
            403,
            "PERMISSION_DENIED",
            "The user is not authorized to make the request, please contact the workspace admin to assign the user "
            f"{caller.scim_id} 'Can Use' or 'Can Manage' for Database project {state.project_uid}.",
        )


def _expiry(request: Json, now: float) -> float:
    """Return when the requested credential expires, in seconds since 1970.

    Raise ``ApiError`` unless it lives for 5 minutes to 1 hour.
    """
    field = "ttl" if "ttl" in request else "expire_time"
    if field not in request:
        return now + CREDENTIAL_SECONDS
    seconds = _seconds(str(request[field])) if field == "ttl" else _moment(str(request[field])) - now
    # An absolute time gets a second of grace for the time that the request took to arrive.
    if not MIN_CREDENTIAL_SECONDS - 1 < seconds <= CREDENTIAL_SECONDS or (
        field == "ttl" and seconds < MIN_CREDENTIAL_SECONDS
    ):
        raise invalid(f"Field '{field}' must be at least 300 seconds and at most 3600 seconds from now")
    return now + seconds


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise invalid(f"Field 'ttl' is not a duration such as \"3600s\": {text!r}")
    return float(match[1])


def _moment(text: str) -> float:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise invalid(f"Field 'expire_time' is not an RFC 3339 time: {text!r}") from None


Handler = Callable[[State, Call, Principal], Json]

_ID = "[^/]+"
_ROUTES: list[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in (
        ("GET", "/api/2.0/preview/scim/v2/Me", _me),
        ("POST", "/api/2.0/postgres/credentials", _credential),
        ("GET", "/api/2.0/postgres/projects", _projects),
        ("GET", f"/api/2.0/postgres/projects/{_ID}(/branches/{_ID}(/endpoints/{_ID})?)?", _resource),
        ("GET", f"/api/2.0/postgres/projects/{_ID}/branches", _branches),
        ("GET", f"/api/2.0/postgres/projects/{_ID}/branches/{_ID}/endpoints", _endpoints),
        ("PATCH", f"/api/2.0/postgres/projects/{_ID}/branches/{_ID}/endpoints/{_ID}", _update_endpoint),
        ("GET", f"/api/2.0/postgres/projects/{_ID}/branches/{_ID}/endpoints/{_ID}/operations/{_ID}", _operation),
    )
]


def _find(call: Call) -> Handler:
    for method, pattern, handler in _ROUTES:
        if method == call.method and pattern.fullmatch(call.path):
            return handler
    raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{call.method} {call.path}'")
