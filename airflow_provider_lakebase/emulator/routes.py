"""The workspace API: a request in, a state asked, JSON out; knows no sockets.

Errors are Databricks': ``{"error_code", "message"}``, a trace ID where the service sends one.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import re
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_lakebase.emulator import resources
from airflow_provider_lakebase.emulator.resources import Json
from airflow_provider_lakebase.emulator.state import (
    BRANCH,
    CREDENTIAL_SECONDS,
    ENDPOINT,
    MIN_CREDENTIAL_SECONDS,
    PROJECT,
    WORKSPACE_TOKEN_SECONDS,
    Principal,
    State,
)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


@dataclass(frozen=True)
class Call:
    """A request: ``url`` is that of the workspace, ``path`` has no query; header values are as they came."""

    method: str
    url: str
    path: str
    authorization: str
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer; ``principal`` is the client ID of who asked, where that is known."""

    status: int
    body: Json
    principal: str | None = None


class ApiError(Exception):
    """An error reply."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error_code": error_code, "message": message}


class OAuthError(ApiError):
    """An error reply of the token endpoint, which has a form of its own."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(status, error, description)
        self.body = {"error": error, "error_description": description}


def answer(state: State, call: Call) -> Reply:
    """Answer one request."""
    caller: Principal | None = None
    try:
        if call.path in _PUBLIC:
            caller, body = _PUBLIC[call.path](state, call)
        else:
            caller = _caller(state, call)
            _require_workspace_access(caller)
            body = _find(call)(state, call, caller)
        return Reply(200, body, caller.client_id if caller else None)
    except ApiError as error:
        return Reply(error.status, error.body, caller.client_id if caller else None)


# -- before authentication


def _databricks_config(state: State, call: Call) -> tuple[None, Json]:
    return None, {"oidc_endpoint": f"{call.url}/oidc", "cloud": "AWS", "workspace_id": str(state.workspace_id)}


def _oauth_server(state: State, call: Call) -> tuple[None, Json]:
    return None, {
        "issuer": f"{call.url}/oidc",
        "authorization_endpoint": f"{call.url}/oidc/v1/authorize",
        "token_endpoint": f"{call.url}/oidc/v1/token",
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }


def _workspace_token(state: State, call: Call) -> tuple[Principal, Json]:
    if call.method != "POST":
        raise OAuthError(405, "invalid_request", "only POST is supported")
    form = dict(urllib.parse.parse_qsl(call.body.decode("utf-8", "replace")))
    if form.get("grant_type") != "client_credentials":
        raise OAuthError(400, "unsupported_grant_type", "only client_credentials is supported")
    principal = state.authenticate(*_client(call, form))
    if principal is None:
        raise OAuthError(401, "invalid_client", "Client authentication failed")
    token = state.issue_workspace_token(principal)
    return principal, {
        "access_token": token,
        "token_type": "Bearer",
        "scope": "all-apis",
        "expires_in": int(WORKSPACE_TOKEN_SECONDS),
    }


def _client(call: Call, form: dict[str, str]) -> tuple[str, str]:
    """Return client ID and secret: from HTTP Basic, else from the form."""
    scheme, _, value = call.authorization.partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return client_id, secret


# -- with a workspace token


def _caller(state: State, call: Call) -> Principal:
    scheme, _, token = call.authorization.partition(" ")
    principal = state.workspace_token_owner(token) if scheme.lower() == "bearer" else None
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
    request = _json(call)
    endpoint = request.get("endpoint")
    if not endpoint:
        raise _invalid("Field 'endpoint' is required")
    _require_resource(state, str(endpoint), caller)
    if endpoint != ENDPOINT:
        raise _invalid(f"Field 'endpoint' is not the name of an endpoint: {endpoint!r}")
    expires_at = _expiry(request, state.clock())
    token = state.issue_credential(caller, expires_at)
    return {"token": token, "expire_time": resources.timestamp(expires_at)}


def _resource(state: State, call: Call, caller: Principal) -> Json:
    name = call.path.removeprefix("/api/2.0/postgres/")
    _require_resource(state, name, caller)
    if name == PROJECT:
        return resources.project(state)
    return resources.branch(state) if name == BRANCH else resources.endpoint(state)


def _children(state: State, call: Call, caller: Principal) -> Json:
    parent, _, kind = call.path.removeprefix("/api/2.0/postgres/").rpartition("/")
    _require_resource(state, parent, caller)
    return {kind: [resources.branch(state) if kind == "branches" else resources.endpoint(state)]}


def _projects(state: State, call: Call, caller: Principal) -> Json:
    return {"projects": [resources.project(state)] if caller.can_use_project else []}


def _require_resource(state: State, name: str, caller: Principal) -> None:
    """Raise ``ApiError`` for the first ancestor that does not exist, then for a project that the caller may not use."""
    parts = name.split("/")
    known = ENDPOINT.split("/")
    for depth, kind in ((2, "project"), (4, "branch"), (6, "endpoint")):
        if depth <= len(parts) and parts[:depth] != known[:depth]:
            raise ApiError(404, "NOT_FOUND", f"{kind} id not found [TraceId: {uuid.uuid4()}]")
    if len(parts) not in (2, 4, 6):
        raise _invalid(f"{name!r} is not the name of a project, a branch or an endpoint")
    if not caller.can_use_project:
        raise ApiError(
            403,
            "PERMISSION_DENIED",
            "The user is not authorized to make the request, please contact the workspace admin to assign the user "
            f"{caller.scim_id} 'Can Use' or 'Can Manage' for Database project {state.project_uid}.",
        )


def _expiry(request: Json, now: float) -> float:
    """Return when the credential expires, in seconds since 1970; raise ``ApiError`` outside of 5 minutes to 1 hour."""
    field = "ttl" if "ttl" in request else "expire_time"
    if field not in request:
        return now + CREDENTIAL_SECONDS
    seconds = _seconds(str(request[field])) if field == "ttl" else _moment(str(request[field])) - now
    # A second of grace, since the time that an absolute time took to arrive is not the caller's fault.
    if not MIN_CREDENTIAL_SECONDS - 1 < seconds <= CREDENTIAL_SECONDS or (
        field == "ttl" and seconds < MIN_CREDENTIAL_SECONDS
    ):
        raise _invalid(f"Field '{field}' must be at least 300 seconds and at most 3600 seconds from now")
    return now + seconds


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise _invalid(f"Field 'ttl' is not a duration such as \"3600s\": {text!r}")
    return float(match[1])


def _moment(text: str) -> float:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise _invalid(f"Field 'expire_time' is not an RFC 3339 time: {text!r}") from None


def _invalid(message: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def _json(call: Call) -> Json:
    try:
        value = json.loads(call.body or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, "MALFORMED_REQUEST", "Could not parse request object: a JSON object is expected")
    return value


Handler = Callable[[State, Call, Principal], Json]

_PUBLIC: dict[str, Callable[[State, Call], tuple[Principal | None, Json]]] = {
    "/.well-known/databricks-config": _databricks_config,
    "/oidc/.well-known/oauth-authorization-server": _oauth_server,
    "/oidc/v1/token": _workspace_token,
}

_ID = "[^/]+"
_ROUTES: list[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in (
        ("GET", "/api/2.0/preview/scim/v2/Me", _me),
        ("POST", "/api/2.0/postgres/credentials", _credential),
        ("GET", "/api/2.0/postgres/projects", _projects),
        ("GET", f"/api/2.0/postgres/projects/{_ID}(/branches/{_ID}(/endpoints/{_ID})?)?", _resource),
        ("GET", f"/api/2.0/postgres/projects/{_ID}/branches", _children),
        ("GET", f"/api/2.0/postgres/projects/{_ID}/branches/{_ID}/endpoints", _children),
    )
]


def _find(call: Call) -> Handler:
    for method, pattern, handler in _ROUTES:
        if method == call.method and pattern.fullmatch(call.path):
            return handler
    raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{call.method} {call.path}'")
